"""A square that slides over a picture, and what a network answers at each of its places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from impasto.errors import WrongCall
from impasto.visualization.answers import last_maps, logits_and_maps
from impasto.visualization.model import Model
from impasto.visualization.progress import track

BATCH = {"cpu": 8, "cuda": 64}
"""Occluded pictures that go through the network at once: few on a processor, whose cache they have to fit."""


@dataclass(frozen=True)
class Windows:
    """Where the square goes: every ``stride`` pixels, the last one cut at the picture's edge.

    Attributes:
        patch: side of the square in pixels.
        stride: from one place to the next.
        tops: of each row of places.
        lefts: of each column.
    """

    patch: int
    stride: int
    tops: range
    lefts: range

    @classmethod
    def over(cls, height: int, width: int, patch: int, stride: int) -> Windows:
        """All places on a picture. Raises WrongCall for a square that does not fit or leaves gaps."""
        if not 1 <= patch <= min(height, width) or not 1 <= stride <= patch:
            raise WrongCall(
                f"occlusion: got a square of {patch} and a stride of {stride}; expected a square of 1 to "
                f"{min(height, width)} pixels and a stride from 1 to its side"
            )
        tops, lefts = (range(0, length - patch + stride, stride) for length in (height, width))
        return cls(patch, stride, tops, lefts)

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((top, left) for top in self.tops for left in self.lefts)

    def hide(self, picture: Tensor, place: tuple[int, int], colour: Tensor) -> Tensor:
        """A copy of the picture (1, 3, H, W) with the square at a place (top, left)."""
        top, left = place
        hidden = picture.clone()
        hidden[..., top : top + self.patch, left : left + self.patch] = colour
        return hidden

    def spread(self, values: Tensor, height: int, width: int) -> Tensor:
        """For each pixel the mean of the values (rows, columns) of the squares that cover it, (H, W)."""
        total = torch.zeros(height, width, dtype=torch.float64)
        count = torch.zeros_like(total)
        for value, (top, left) in zip(values.flatten().double(), self, strict=True):
            total[top : top + self.patch, left : left + self.patch] += value
            count[top : top + self.patch, left : left + self.patch] += 1
        return total / count


@dataclass(frozen=True)
class Sweep:
    """What a network answers to each occluded picture; every tensor is (rows, columns) of places.

    Attributes:
        windows: the places.
        logits: of the class.
        probabilities: of the class.
        labels: the class with the highest logit.
        activations: of the strongest map of a layer, summed over the map.
    """

    windows: Windows
    logits: Tensor
    probabilities: Tensor
    labels: Tensor
    activations: Tensor


def mean_colour(model: Model, picture: Tensor) -> Tensor:
    """The mean of the network's training pictures, (3, 1, 1), in pixels: 0 behind the normalisation."""
    return torch.tensor(model.mean).view(3, 1, 1).to(picture)


@torch.no_grad()
def sweep(model: Model, picture: Tensor, target: int, windows: Windows, layer: str = "", channel: int = 0) -> Sweep:
    """Run the network on the picture with the square at each place.

    Args:
        model: a classifier.
        picture: (1, 3, H, W), float RGB in [0, 1].
        target: index of the class.
        windows: the places.
        layer: of the activation; empty for the last layer with maps.
        channel: of that layer.
    """
    layer = layer or last_maps(model)
    colour, places = mean_colour(model, picture), list(windows)
    found: list[Tensor] = []
    size = BATCH.get(picture.device.type, 8)
    starts = range(0, len(places), size)
    for start in track(starts, len(starts), f"{len(places)} occluded pictures"):
        hidden = torch.cat([windows.hide(picture, place, colour) for place in places[start : start + size]])
        logits, maps = logits_and_maps(model, hidden, layer)
        logits = logits.double()
        values = (logits[:, target], logits.softmax(1)[:, target], logits.argmax(1), maps[:, channel].sum((1, 2)))
        found.append(torch.stack([value.double() for value in values]).cpu())
    shape = len(windows.tops), len(windows.lefts)
    values = tuple(torch.cat(found, 1))
    logits, probabilities, labels, activations = (each.view(shape) for each in values)
    return Sweep(windows, logits, probabilities, labels.long(), activations)
