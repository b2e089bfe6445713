"""What of a layer a picture is made for: a channel, a neuron, the whole layer, or a direction among its units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from impasto.errors import WrongCall

COSINE = 0.1
"""A direction's cosine counts as this at least, so that there is a way up from what points elsewhere."""


@dataclass(frozen=True)
class Goal:
    """One value for each of K pictures.

    Attributes:
        of: "channel", the mean of a unit; "neuron", a unit in the middle; "layer", half the sum of squares of all
            units, of which the mean over places; "direction", the cosine with a vector, the mean over places.
        vectors: (K, C), each of length 1: 1 at the unit, or the direction; for "layer" (1, C), of which nothing counts.
    """

    of: str
    vectors: Tensor

    def split(self, count: int) -> list[Goal]:
        """The same for a few pictures at a time."""
        return [Goal(self.of, vectors) for vectors in torch.split(self.vectors, count)]

    def values(self, maps: Tensor, anywhere: bool = False) -> Tensor:
        """What any pictures are worth to each of the K.

        Args:
            maps: the layer's, (N, C, h, w).
            anywhere: of a neuron where it is highest, instead of in the middle.

        Returns:
            (N, K).
        """
        if self.of == "layer":
            return maps.square().sum(1).mean((1, 2))[:, None] / 2
        if self.of == "direction":
            return torch.einsum("nchw,kc->nkhw", F.normalize(maps, dim=1), self.vectors.to(maps)).mean((2, 3))
        chosen = maps[:, self.vectors.argmax(1)]
        if self.of == "channel":
            return chosen.mean((2, 3))
        return chosen.amax((2, 3)) if anywhere else chosen[:, :, maps.shape[2] // 2, maps.shape[3] // 2]

    def climbed(self, maps: Tensor) -> Tensor:
        """What K pictures, each for its own, are optimised for, (K,): the values; of a direction the cosine, at least
        0.1, times the dot product, without which a faint picture would do. Source: lucid, optvis/objectives.py.
        """
        if self.of != "direction":
            return self.values(maps).diagonal()
        vectors = self.vectors.to(maps)
        dots = torch.einsum("kchw,kc->khw", maps, vectors)
        cosines = torch.einsum("kchw,kc->khw", F.normalize(maps, dim=1), vectors)
        return (dots * cosines.clamp(min=COSINE)).mean((1, 2))

    def data(self, maps: Tensor) -> list[dict[str, Any]]:
        """For each picture its ``unit``, and which is ``highest`` in the middle or the mean; or ``coefficients``."""
        if self.of == "layer":
            return [{}]
        if self.of == "direction":
            return [{"coefficients": vector} for vector in self.vectors.tolist()]
        middle = maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2]
        highest = (middle if self.of == "neuron" else maps.mean((2, 3))).argmax(1).tolist()
        units = self.vectors.argmax(1).tolist()
        return [{"unit": unit, "highest": other} for unit, other in zip(units, highest, strict=True)]


def goal_of(
    of: str, channels: int, units: Sequence[int] = (), coefficients: Sequence[float] = (), count: int = 9, seed: int = 0
) -> Goal:
    """The goal for units of a layer with so many channels.

    Args:
        of: as of `Goal`.
        channels: of the layer.
        units: a picture for each; of a direction those that it combines. None for the first ``count``, or as many
            random directions.
        coefficients: of the units of a direction; none for 1 each.
        count: at least 1.
        seed: of random directions.

    Raises:
        WrongCall: an unknown unit, coefficients that are not one for each unit of a direction, or no picture.
    """
    if unknown := [unit for unit in units if not 0 <= unit < channels]:
        raise WrongCall(f"unit {unknown[0]}: expected 0 to {channels - 1}")
    if coefficients and (of != "direction" or len(coefficients) != len(units) or not any(coefficients)):
        raise WrongCall(
            f"coefficients: got {len(coefficients)} for {len(units)} units of a {of}, expected one each, not all 0"
        )
    if count < 1:
        raise WrongCall(f"count: got {count}, expected 1 or more")
    if of == "layer":
        return Goal(of, F.normalize(torch.ones(1, channels)))
    if of != "direction":
        return Goal(of, torch.eye(channels)[list(dict.fromkeys(units)) or list(range(min(count, channels)))])
    if not units:
        return Goal(of, F.normalize(torch.randn(count, channels, generator=torch.Generator().manual_seed(seed))))
    given = torch.tensor([list(coefficients) or [1.0] * len(units)])
    return Goal(of, F.normalize(torch.zeros(1, channels).index_add(1, torch.tensor(units), given)))
