"""What came of an attack: what the network says before, after and of the file, with the control."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from impasto.visualization.answers import Answer, answer
from impasto.visualization.judging import Verdict, verdicts
from impasto.visualization.likeness import psnr, ssim
from impasto.visualization.model import Model
from impasto.visualization.perturbations import LEVEL, labels_of, random_signs
from impasto.visualization.scene import to_image, to_tensor

DRAWS = 8
"""Copies with random signs in the control."""


@dataclass(frozen=True)
class Aim:
    """What an attack wants.

    Attributes:
        before: index of the class that the network gives the picture.
        target: index of the class that it is to give; None if any other will do.
    """

    before: int
    target: int | None = None

    def reached(self, index: int) -> bool:
        """Whether a class is what is wanted."""
        return index == self.target if self.target is not None else index != self.before


@dataclass(frozen=True)
class Control:
    """Random signs of an attack's size in its place.

    Attributes:
        size: of each value's change, in units of `LEVEL`.
        fooled: how many of `DRAWS` copies do what the attack wants.
    """

    size: float
    fooled: int

    def __str__(self) -> str:
        return f"{self.fooled} of {DRAWS} times"


@dataclass(frozen=True)
class Judged:
    """What another network says of the two pictures as files.

    Attributes:
        before: of the original.
        after: of the adversarial picture.
        fooled: it, too, says what was wanted; of any class, something else than before.
    """

    before: Verdict
    after: Verdict
    fooled: bool

    def data(self) -> dict[str, Any]:
        """For a result's data: its best class of each, with the probability; ``fooled``."""
        best = {"before": self.before.top[0], "after": self.after.top[0]}
        said = {when: {"name": each.name, "probability": each.probability} for when, each in best.items()}
        return {**said, "fooled": self.fooled}


@dataclass(frozen=True)
class Outcome:
    """An attack and all that is asked about it.

    Attributes:
        original: (1, 3, H, W), float RGB in [0, 1].
        adversarial: likewise.
        aim: what was wanted.
        before: the network's answer to the original.
        after: to the adversarial picture.
        after_png: to the same, written as an 8-bit PNG and read again.
        wanted: what the network says of the target in the adversarial picture; None without a target.
        control: random signs of the same size.
        judged: by another network, if there is one.
    """

    original: Tensor
    adversarial: Tensor
    aim: Aim
    before: Answer
    after: Answer
    after_png: Answer
    wanted: Answer | None
    control: Control
    judged: Judged | None

    @property
    def change(self) -> Tensor:
        """What was added, (1, 3, H, W)."""
        return self.adversarial - self.original

    @property
    def fooled(self) -> bool:
        """The network says what was wanted of the picture as it is, in floating point."""
        return self.aim.reached(self.after.index)

    @property
    def fooled_after_png(self) -> bool:
        """And of the picture that is in the file."""
        return self.aim.reached(self.after_png.index)

    def data(self) -> dict[str, Any]:
        """For a result's data.

        ``before``, ``after``, ``after_png``, ``target`` (class, name, logit, probability); ``fooled`` and
        ``fooled_after_png``; ``linf`` and ``rms``, the largest change and the root mean square, in units of 1/255;
        ``l2``, the Euclidean length of the change of a picture in [0, 1]; ``ssim``; ``psnr`` in dB; ``control`` (size
        in units of 1/255, draws, fooled); ``judge`` (before, after, fooled).
        """
        return {
            "before": self.before.data(),
            "after": self.after.data(),
            "after_png": self.after_png.data(),
            "target": self.wanted.data() if self.wanted else None,
            "fooled": self.fooled,
            "fooled_after_png": self.fooled_after_png,
            "linf": size_of(self.change, "linf"),
            "rms": size_of(self.change, "l2"),
            "l2": float(self.change.double().norm()),
            "ssim": ssim(self.original, self.adversarial),
            "psnr": psnr(self.original, self.adversarial),
            "control": {**vars(self.control), "draws": DRAWS},
            "judge": self.judged.data() if self.judged else None,
        }

    def caption(self) -> str:
        """What happened, what it is in the file, and what the control and the judge say."""
        goal = "" if self.fooled or not self.wanted else f", not yet {self.wanted.name}"
        verb = "is still" if self.after.index == self.before.index else "becomes"
        file = (
            "So it is in the PNG" if self.after_png.index == self.after.index else f"In the PNG it is {self.after_png}"
        )
        judge = f" The judge says {self.judged.after.top[0]}." if self.judged else ""
        said = f"{self.before} {verb} {self.after}{goal}"
        most = f"no value changed by more than {size_of(self.change, 'linf'):.3g}/255"
        return f"{said}, {most}. {file}. Random signs of the same size do it {self.control}.{judge}"


@torch.no_grad()
def outcome(
    model: Model,
    original: Tensor,
    adversarial: Tensor,
    *,
    target: int | None = None,
    norm: str = "linf",
    judge: Model | None = None,
    seed: int = 0,
) -> Outcome:
    """Ask the network, its file, random signs and the judge about an attack.

    Args:
        model: the network that was attacked.
        original: (1, 3, H, W), float RGB in [0, 1].
        adversarial: likewise.
        target: index of the class that was wanted; None for any but the original's.
        norm: how the control is as large as the attack: "linf", or "l2" for as long.
        judge: another network.
        seed: of the control.

    Raises:
        Refused: a network without classes; a judge that does not know the class in question.
    """
    before, after = answer(model, original), answer(model, adversarial)
    wanted = None if target is None else answer(model, adversarial, target)
    aim = Aim(before.index, target)
    return Outcome(
        original,
        adversarial,
        aim,
        before,
        after,
        answer(model, reread(adversarial)),
        wanted,
        _control(model, original, size_of(adversarial - original, norm), aim, seed),
        _judged(judge, original, adversarial, before, wanted) if judge else None,
    )


def size_of(change: Tensor, norm: str) -> float:
    """Of a picture's change, in units of `LEVEL`: the largest magnitude (linf) or the root mean square (l2)."""
    change = change.detach().double()
    return float(change.abs().max() if norm == "linf" else change.square().mean().sqrt()) / LEVEL


def reread(picture: Tensor) -> Tensor:
    """A picture (1, 3, H, W) as it comes back from an 8-bit PNG."""
    buffer = io.BytesIO()
    to_image(picture).save(buffer, "PNG")
    return to_tensor(Image.open(buffer)).to(picture)


def _control(model: Model, original: Tensor, size: float, aim: Aim, seed: int) -> Control:
    drawn = random_signs(original, size, DRAWS, generator=torch.Generator().manual_seed(seed))
    return Control(size, sum(map(aim.reached, labels_of(model, drawn).tolist())))


def _judged(judge: Model, original: Tensor, adversarial: Tensor, before: Answer, wanted: Answer | None) -> Judged:
    first, second = verdicts(judge, torch.cat([original, adversarial]), (wanted or before).name)
    name = second.top[0].name
    return Judged(first, second, name.lower() == wanted.name.lower() if wanted else name != first.top[0].name)
