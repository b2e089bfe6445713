"""What a network answers to a picture: a class with its logit, and a layer's maps of the same pass."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from impasto.losses import capture
from impasto.visualization.model import Model
from impasto.visualization.registry import Refused


@dataclass(frozen=True)
class Answer:
    """A class, and what a network says of it.

    Attributes:
        index: of the class.
        name: likewise.
        logit: before any softmax.
        probability: after softmax, from 0 to 1.
    """

    index: int
    name: str
    logit: float
    probability: float

    def data(self) -> dict[str, Any]:
        """For a result's data."""
        return {"class": self.index, "name": self.name, "logit": self.logit, "probability": self.probability}

    def __str__(self) -> str:
        return f"{self.name} (p {self.probability:.3g})"


@torch.no_grad()
def answer(model: Model, picture: Tensor, target: int | str | None = None) -> Answer:
    """What a network says of one class.

    Args:
        model: a classifier.
        picture: (1, 3, H, W), float RGB in [0, 1].
        target: as `Model.class_index`: None for the class with the highest logit.

    Raises:
        Refused: a network without classes.
        WrongCall: an unknown class.
    """
    logits = model(picture)
    return answers(model, logits, [model.class_index(target, logits)])[0]


def answers(model: Model, logits: Tensor, indices: list[int]) -> list[Answer]:
    """The same of several classes, from the logits (1, K) of a picture."""
    values = logits.detach()[0].double()
    probabilities = values.softmax(0)
    return [
        Answer(index, model.class_name(index), float(values[index]), float(probabilities[index])) for index in indices
    ]


def logits_and_maps(model: Model, pictures: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """The logits and a layer's maps from one pass.

    Args:
        model: a classifier.
        pictures: (N, 3, H, W), float RGB in [0, 1].
        layer: as `impasto.losses.capture` reads it.

    Returns:
        (N, K), and (N, C, h, w), a copy of what the network goes on with.

    Raises:
        Refused: a layer that gives no maps.
        WrongCall: an unknown layer.
    """
    capture(model, [layer])
    whole = nn.Sequential(OrderedDict(network=model))
    found = capture(whole, ["network", f"network.{layer}"])(pictures)
    maps = found[f"network.{layer}"]
    if maps.ndim != 4:
        raise Refused(f"the layer {layer} gives shape {tuple(maps.shape)}, expected maps (N, C, h, w); see --layer")
    return found["network"], maps


def last_maps(model: Model) -> str:
    """The last layer with maps: what is pooled before the linear layer, or the last stage.

    Raises:
        Refused: a network without maps.
    """
    stages = model.stages()
    if model.head is None and not stages:
        raise Refused("this network has no layer with maps (N, C, h, w), as convolutions give; use saliency")
    return model.head.features if model.head else stages[-1]
