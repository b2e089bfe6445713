"""The judge: what a network says of pictures that were made for another one.

A picture optimised under one network may mean something to that network only. What another network, trained apart,
finds in it is there to be seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from impasto.visualization.answers import Answer, answers
from impasto.visualization.model import Model
from impasto.visualization.registry import Refused

TOP = 5
"""Classes of a verdict."""


@dataclass(frozen=True)
class Verdict:
    """What a network says of one picture.

    Attributes:
        top: the five classes with the highest logits, best first.
        rank: of the class that is asked for, 1 for the best.
        asked: that class.
    """

    top: tuple[Answer, ...]
    rank: int
    asked: Answer

    @property
    def in_top(self) -> bool:
        """The class is among the five."""
        return self.rank <= TOP

    def data(self) -> dict[str, Any]:
        """For a result's data: ``top`` (names), ``rank``, ``probability``."""
        return {
            "top": [each.name for each in self.top],
            "rank": self.rank,
            "probability": self.asked.probability,
        }

    def __str__(self) -> str:
        return f"{self.asked.name} is {self.rank}., p {self.asked.probability:.2g}; best {self.top[0].name}"


@torch.no_grad()
def verdicts(judge: Model, pictures: Tensor, target: int | str) -> list[Verdict]:
    """What a network says of pictures as they are in a file: rounded to 8 bits, then resized to what it takes.

    Args:
        judge: a classifier: the one that pictures were made for, or better another.
        pictures: (N, 3, H, W), float RGB; what is outside [0, 1] is cut off.
        target: a class: its index, or its name in full, as another network calls it, in any case. Of several
            classes of one name, the one that comes off best.

    Returns:
        One for each picture.

    Raises:
        Refused: a network without classes, or without one of this name.
        WrongCall: an index that the network does not have.
    """
    shown = rounded(pictures).to(judge.device)
    if shown.shape[2:] != (judge.size, judge.size):
        shown = F.interpolate(shown, (judge.size, judge.size), mode="bilinear", antialias=True)
    logits = torch.cat([judge(shown[index : index + 1]) for index in range(len(shown))])
    wanted = _indices(judge, target, logits[:1])
    return [_verdict(judge, row[None], wanted) for row in logits]


def rounded(pictures: Tensor) -> Tensor:
    """Pictures as a file of 8 bits gives them back."""
    return pictures.detach().clamp(0, 1).mul(255).round().div(255)


def _indices(judge: Model, target: int | str, logits: Tensor) -> list[int]:
    if isinstance(target, int):
        return [judge.class_index(target, logits)]
    wanted = [index for index, name in enumerate(judge.classes) if name.lower() == target.lower()]
    if not wanted:
        names = f"{len(judge.classes)} names" if judge.classes else "no names"
        raise Refused(f"the judge has {names} of classes, none of them {target!r}: choose a judge that knows it")
    return wanted


def _verdict(judge: Model, logits: Tensor, wanted: list[int]) -> Verdict:
    order = logits[0].argsort(descending=True, stable=True).tolist()
    index = min(wanted, key=order.index)
    top = answers(judge, logits, order[:TOP])
    return Verdict(tuple(top), order.index(index) + 1, answers(judge, logits, [index])[0])
