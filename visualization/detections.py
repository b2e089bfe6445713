"""Detectors: networks that find objects, as those of torchvision do.

Such a network takes a list of pictures, float RGB (3, H, W) in [0, 1], and normalises them itself. In evaluation mode
it gives for each a dict of ``boxes`` (N, 4: left, top, right, bottom), ``labels`` and ``scores`` (N,); in training mode
it also takes as many dicts of what is to be found, and gives a dict of losses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impasto.visualization.model import Model
from impasto.visualization.registry import Refused

SAME = 0.5
"""Two boxes of one label that overlap by this part of their union are of one object."""

_OBJECT = {"boxes", "labels", "scores"}

_KEPT = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
"""Layers that stay in evaluation mode when losses are asked for."""


@dataclass(frozen=True)
class Objects:
    """What a detector finds in one picture.

    Attributes:
        boxes: (N, 4), left, top, right and bottom in pixels.
        labels: (N,), indices of classes.
        scores: (N,), from 0 to 1.
        rest: what else there is of each object, such as masks.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    rest: dict[str, Tensor]

    def surer_than(self, threshold: float) -> Objects:
        """Those with at least this score."""
        sure = self.scores >= threshold
        rest = {name: values[sure] for name, values in self.rest.items()}
        return Objects(self.boxes[sure], self.labels[sure], self.scores[sure], rest)

    def target(self) -> dict[str, Tensor]:
        """The same as what is to be found."""
        masks = {"masks": (self.rest["masks"][:, 0] > 0.5).byte()} if "masks" in self.rest else {}
        return {"boxes": self.boxes, "labels": self.labels} | self.rest | masks

    def data(self, model: Model) -> list[dict[str, Any]]:
        """For a result's data."""
        return [
            {"class": label, "name": model.class_name(label), "score": score, "box": box}
            for label, score, box in zip(self.labels.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True)
        ]


def detected(model: Model, picture: Tensor) -> Objects:
    """What a detector finds in a picture (1, 3, H, W) in [0, 1]; scores have a gradient if the picture has one.

    Raises:
        Refused: a network that is no detector.
    """
    refusal = (
        "detector patch: this network finds no objects; give load_model a detector, such as one of "
        "torchvision.models.detection"
    )
    try:
        found = model.network([picture[0]])
    except (AttributeError, TypeError) as error:
        raise Refused(refusal) from error
    if (
        not isinstance(found, list)
        or len(found) != 1
        or not isinstance(found[0], dict)
        or not found[0].keys() >= _OBJECT
    ):
        raise Refused(refusal)
    rest = {name: values for name, values in found[0].items() if name not in _OBJECT}
    return Objects(found[0]["boxes"], found[0]["labels"], found[0]["scores"], rest)


def detection_loss(model: Model, picture: Tensor, objects: Objects, seed: int) -> Tensor:
    """The sum of a detector's own training losses on a picture (1, 3, H, W), where objects are to be found.

    Normalisation and dropout stay as in evaluation; what the detector draws, it draws from ``seed``, and torch's own
    generator is left as it was.
    """
    devices = [picture.device] if picture.is_cuda else []
    with torch.random.fork_rng(devices=devices), _training(model.network):
        torch.manual_seed(seed)
        losses: dict[str, Tensor] = model.network([picture[0]], [objects.target()])
    return torch.stack([loss.sum() for loss in losses.values()]).sum()


@contextmanager
def _training(network: nn.Module) -> Iterator[None]:
    """Every module in training mode but those that would then depend on the batch or on chance."""
    modes = {module: module.training for module in network.modules()}
    try:
        for module in modes:
            module.training = not isinstance(module, _KEPT)
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def overlaps(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of each box (N, 4) with each other (M, 4): (N, M); 0 for empty boxes."""
    top_left = torch.maximum(one[:, None, :2], other[None, :, :2])
    bottom_right = torch.minimum(one[:, None, 2:], other[None, :, 2:])
    common = (bottom_right - top_left).clamp(min=0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None, :] - common
    return common / torch.where(union > 0, union, 1)


def scores_of(objects: Objects, found: Objects) -> Tensor:
    """The score with which each object is still found, (N,): the best of a box of its label on it, 0 for none."""
    same = (overlaps(objects.boxes, found.boxes) >= SAME) & (objects.labels[:, None] == found.labels[None])
    return F.pad(torch.where(same, found.scores[None], 0), (1, 0)).amax(1)
