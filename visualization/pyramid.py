"""Painting from coarse to fine: the sizes, and an optimiser that goes on at the next one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from impasto.images import MIN_SIDE
from impasto.losses.optimize import StepRule

Resize = Callable[[Tensor], Tensor]


def sizes(height: int, width: int, smallest: int) -> list[tuple[int, int]]:
    """Heights and widths from coarse to fine: the last is the one given, each before it smaller by a root of 2.

    Args:
        height: of the finest, in pixels.
        width: of the finest.
        smallest: long side, in pixels, below which no coarser one follows; nor one whose short side is below
            `impasto.images.MIN_SIDE`.
    """
    room = min(max(height, width) / smallest, min(height, width) / MIN_SIDE)
    count = max(0, math.floor(2 * math.log2(room) + 1e-9))
    scales = [2 ** (-step / 2) for step in range(count, -1, -1)]
    return [(round(height * scale), round(width * scale)) for scale in scales]


def resize(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures (N, C, H, W) at another height and width: bicubic, without aliasing; (N, C, *size)."""
    if tuple(pictures.shape[2:]) == tuple(size):
        return pictures
    return F.interpolate(pictures, size, mode="bicubic", align_corners=False, antialias=True)


class Carried:
    """A step rule whose optimiser begins with what the one before has learned at a smaller size.

    Enlarged by a factor s on each side, a picture has s^2 times as many pixels, each with 1/s^2 of the gradient (the
    relative losses are means). So displacements are enlarged like pictures, gradients and Adam's first moments also
    divided by s^2, its second moments by s^4; the curvature along each displacement stays what it was.

    Args:
        rule: makes the optimiser.

    Attributes:
        optimizer: the one last made, or none.
    """

    def __init__(self, rule: StepRule) -> None:
        self.rule = rule
        self.optimizer: torch.optim.Optimizer | None = None
        self._shape = torch.Size()

    def __call__(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        """Make the optimiser of a picture (1, 3, H, W)."""
        (image,) = parameters
        new = self.rule(parameters)
        if self.optimizer is not None and self._shape == image.shape:
            new.load_state_dict(self.optimizer.state_dict())
        elif self.optimizer is not None and self.optimizer.state:
            (before,) = self.optimizer.state.values()
            new.state[image] = _enlarged(before, self._shape, image.shape)
        self.optimizer, self._shape = new, image.shape
        return new

    def restore(self, image: Tensor, state: dict[str, Any] | None) -> None:
        """Have the next optimiser begin with the state that one of a picture of this size had."""
        if state is not None:
            self.optimizer, self._shape = self.rule([image]), image.shape
            self.optimizer.load_state_dict(state)


def _enlarged(state: dict[str, Any], old: torch.Size, new: torch.Size) -> dict[str, Any]:
    """The state of Adam or L-BFGS for a picture of another size."""
    pixels = new.numel() / old.numel()

    def enlarged(values: Tensor) -> Tensor:
        return resize(values.view(old), (new[2], new[3])).flatten()

    if "exp_avg" in state:
        mean, square = enlarged(state["exp_avg"]) / pixels, enlarged(state["exp_avg_sq"]).clamp(min=0) / pixels**2
        return state | {"exp_avg": mean.view(new), "exp_avg_sq": square.view(new)}
    if not state.get("old_dirs"):
        return {}
    steps = [enlarged(step) for step in state["old_stps"]]
    changes = [enlarged(change) / pixels for change in state["old_dirs"]]
    pairs = [(step, change) for step, change in zip(steps, changes, strict=True) if step.dot(change) > 0]
    nothing = torch.zeros_like(steps[0])
    return {
        "func_evals": state["func_evals"],
        "n_iter": state["n_iter"],
        "old_stps": [step for step, _ in pairs],
        "old_dirs": [change for _, change in pairs],
        "ro": [1 / step.dot(change) for step, change in pairs],
        "H_diag": state["H_diag"] * pixels,
        "d": nothing,  # no displacement since: the next step learns nothing from the last gradient
        "t": 1.0,
        "prev_flat_grad": nothing,
        "prev_loss": math.inf,
    }
