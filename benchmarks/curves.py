"""Curves of per-image optimisation: how low L-BFGS brings an objective with so many evaluations of it."""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from impasto.benchmarks.artefacts import Rgb
from impasto.card import Card
from impasto.errors import PackError
from impasto.formats import write_atomically
from impasto.losses import LossTerms, optimize_image
from impasto.losses.optimize import Step, clip, lbfgs
from impasto.packs import sha256_of
from impasto.training import StyleTransfer
from impasto.training.module import MIRRORED
from impasto.training.photos import to_tensor
from impasto.training.record import device_name

SETTINGS = ("content", "style", "tv", "convention", "style_size")
"""What of a training's configuration its objective depends on, the painting aside."""

METHOD = "L-BFGS, history 100, rate 1, strong Wolfe, from the photo, inside [0, 1]; vgg19 embedded, float32"
"""What stands in every curve's key besides its photo and its objective."""


@dataclass(frozen=True)
class Curve:
    """The best loss after so many evaluations of the objective and its gradient.

    Attributes:
        points: ``(evaluations, loss)``, each with more evaluations and a lower loss than the one before. The first is
            ``(0, loss of the photo)``: the photo costs nothing.
        evaluations: how many were spent; the last of them may have brought nothing.
        stalled: whether the steps found nothing to evaluate any more, so that more of them bring nothing either.
        device: what computed it.
        torch: version of torch that did.

    Raises:
        ValueError: for points that are no such curve.
    """

    points: tuple[tuple[int, float], ...]
    evaluations: int
    stalled: bool
    device: str
    torch: str

    def __post_init__(self) -> None:
        counts, losses = [count for count, _ in self.points], [loss for _, loss in self.points]
        pairs = zip(self.points, self.points[1:], strict=False)
        falling = all(first[0] < then[0] and first[1] > then[1] for first, then in pairs)
        if not falling or counts[:1] != [0] or counts[-1] > self.evaluations or not all(map(math.isfinite, losses)):
            raise ValueError("not a curve: expected points from 0 evaluations on with ever lower losses")

    def crossing(self, level: float, cap: int) -> int | None:
        """Evaluations until the loss is at most ``level``, the first point, not interpolated; None if above ``cap``."""
        return next((count for count, loss in self.points if loss <= level and count <= cap), None)

    def at(self, evaluations: int) -> float:
        """The best loss after so many evaluations."""
        return self.points[bisect_right([count for count, _ in self.points], evaluations) - 1][1]

    def suffices(self, level: float, cap: int) -> bool:
        """Whether the curve says when it crosses ``level``, or that it does not within ``cap`` evaluations."""
        return self.stalled or self.evaluations >= cap or self.crossing(level, cap) is not None

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The curve in a file, or None if there is none or it is damaged."""
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
            points = tuple((int(count), float(loss)) for count, loss in entries["points"])
            return cls(**entries | {"points": points})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, path: Path) -> None:
        """Write the curve to a file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(self)).encode())


def optimisation_curve(
    photo: Tensor,
    objective: Callable[[Tensor], Tensor],
    level: float,
    cap: int,
    progress: Callable[[int], None] | None = None,
) -> Curve:
    """Minimise an objective from a photo by L-BFGS until the loss is at most ``level``.

    A point is a step that brought something: the evaluations of the objective with its gradient so far, those of the
    line search included, and the loss of the picture in [0, 1], looked up without being counted. The numbers are the
    same at every call on one machine's CPU; ``level`` and ``cap`` only say how far the curve goes.

    Args:
        photo: (1, 3, H, W) in [0, 1], where it starts.
        objective: picture (1, 3, H, W) -> scalar.
        level: where to stop.
        cap: evaluations after which to stop in any case.
        progress: called with the evaluations so far after each step.
    """

    @torch.no_grad()
    def loss(picture: Tensor) -> float:
        return float(objective(clip(picture)))

    points = [(0, loss(photo))]
    spent = idle = 0

    def stop(step: Step) -> bool:
        nonlocal spent, idle
        if step.evaluations == spent:  # also after the loop began anew with the gradient: nothing is lower
            idle += 1
            return idle == 2
        spent, idle = step.evaluations, 0
        found = loss(step.image)
        if found < points[-1][1]:
            points.append((spent, found))
        if progress is not None:
            progress(min(spent, cap))
        return spent >= cap or found <= level

    if points[0][1] > level:
        optimize_image(photo, objective, step=lbfgs(), steps=2 * cap, project=clip, stop=stop)
    return Curve(tuple(points), spent, idle == 2, device_name(photo.device), str(torch.__version__))


def mean_curve(curves: Sequence[Curve]) -> list[tuple[int, float]]:
    """The mean of the best losses at equal evaluations, as far as the shortest curve goes."""
    end = min(curve.evaluations for curve in curves)
    counts = sorted({count for curve in curves for count, _ in curve.points if count <= end})
    return [(count, sum(curve.at(count) for curve in curves) / len(curves)) for count in counts]


def objective_settings(card: Card) -> dict[str, Any]:
    """The settings of the objective a pack was trained for: the keys of `SETTINGS`.

    Raises:
        PackError: for a card that does not state them.
    """
    config = card.training.get("config", {})
    if missing := [key for key in SETTINGS if key not in config]:
        raise PackError(
            f"the card of {card.name} does not say what it was trained for: no {', '.join(missing)} under "
            "training.config; train the pack with this version"
        )
    return {key: config[key] for key in SETTINGS}


class Yardstick:
    """The objective of a training, for one painting: content, style and total variation by VGG-19 in float32.

    As in training, pictures are continued by reflection first. Without the training's term for steadiness, which is one
    of a network and not of a picture.

    Args:
        settings: what `objective_settings` found.
        painting: the file.
        device: where to compute.

    Raises:
        PictureError: if the painting cannot be read.
    """

    def __init__(self, settings: Mapping[str, Any], painting: Path, device: torch.device) -> None:
        module = StyleTransfer([str(painting)], **settings).to(device)
        module.setup("validate")
        assert module.loss is not None
        self.device = device
        self._loss, self._goals = module.loss, module.goals
        self._known = {"method": METHOD, "settings": dict(settings), "painting": sha256_of(painting)}

    def content(self, photo: Rgb) -> dict[str, Tensor]:
        """What `terms` compares paintings of a photo (H, W, 3) with."""
        return self._loss.content_targets(_mirrored(self.tensor(photo)))

    def terms(self, picture: Tensor, content: Mapping[str, Tensor]) -> LossTerms:
        """The objective of a picture (1, 3, H, W) in [0, 1]."""
        terms: LossTerms = self._loss(_mirrored(picture), content, self._goals)
        return terms

    def tensor(self, picture: Rgb) -> Tensor:
        """uint8 (H, W, 3) to float (1, 3, H, W) in [0, 1] on the device."""
        return to_tensor(picture)[None].to(self.device)

    def key(self, photo: Rgb) -> str:
        """A name for the curve of a photo (H, W, 3): it changes with its pixels, the painting and the settings."""
        known = json.dumps(self._known | {"shape": photo.shape}, sort_keys=True)
        return hashlib.sha256(known.encode() + photo.tobytes()).hexdigest()[:32]


def _mirrored(pictures: Tensor) -> Tensor:
    return torch.nn.functional.pad(pictures, [MIRRORED] * 4, mode="reflect")
