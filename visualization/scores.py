"""What maps were worth, picture by picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from impasto.visualization.answers import Answer
from impasto.visualization.evidence import Curves, Probability, curves, drop_and_increase

CONTROLS = ("random", "edges", "centre")
"""Maps that know nothing of the network or the class."""


@dataclass(frozen=True)
class Subject:
    """One picture, and all maps of its class.

    Attributes:
        picture: (1, 3, H, W).
        found: the class.
        baseline: the picture, blurred.
        probability: of the class.
        maps: method or control -> (H, W).
        smooth: the same, smoothed.
    """

    picture: Tensor
    found: Answer
    baseline: Tensor
    probability: Probability
    maps: dict[str, Tensor]
    smooth: dict[str, Tensor]


@dataclass(frozen=True)
class Score:
    """What a method's maps were worth on each picture.

    Attributes:
        curves: of each picture.
        changes: drop and increase of each picture.
    """

    curves: list[Curves] = field(default_factory=list)
    changes: list[tuple[float, float]] = field(default_factory=list)

    def add(self, subject: Subject, values: Tensor, colour: Tensor, steps: int, seed: int) -> None:
        """Measure the map of one more picture."""
        found = curves(subject.probability, subject.picture, subject.baseline, values, steps=steps, seed=seed)
        self.curves.append(found)
        self.changes.append(drop_and_increase(subject.probability, subject.picture, colour, values))

    def measures(self) -> dict[str, float]:
        """The means over pictures: insertion, deletion, drop, increase."""
        areas = [each.areas() for each in self.curves]
        deletion, insertion = (sum(column) / len(areas) for column in zip(*areas, strict=True))
        drop, increase = (sum(column) / len(areas) for column in zip(*self.changes, strict=True))
        return {"insertion": insertion, "deletion": deletion, "drop": drop, "increase": increase}

    def mean(self, curve: str) -> list[tuple[float, float]]:
        """Points of the mean deletion or insertion."""
        values = torch.stack([getattr(each, curve) for each in self.curves]).mean(0)
        return list(zip(self.curves[0].fractions.tolist(), values.tolist(), strict=True))

    def data(self) -> dict[str, Any]:
        """For a result's data."""
        found = {f"{curve}_curve": [p for _, p in self.mean(curve)] for curve in ("insertion", "deletion")}
        return {**self.measures(), **found}


def trusted(scores: dict[str, Score]) -> list[str]:
    """The methods that are better than every control, in insertion and in deletion."""
    measures = {name: score.measures() for name, score in scores.items()}
    controls = [measures[name] for name in CONTROLS]
    insertion, deletion = max(each["insertion"] for each in controls), min(each["deletion"] for each in controls)
    return [
        name
        for name, each in measures.items()
        if name not in CONTROLS and each["insertion"] > insertion and each["deletion"] < deletion
    ]
