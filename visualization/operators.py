"""What a picture goes through after each step: the r of ``x <- r(x + rate * gradient)``.

Each makes an operator for ``optimize_image(operators=...)``. Their pictures (N, C, H, W) are differences from a zero,
such as a `PixelCanvas`'s: that is where decay and clips lead to. Source: Yosinski et al. 2015, section 3.1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from impasto.errors import WrongCall
from impasto.losses import Operator
from impasto.losses.optimize import StepRule
from impasto.visualization.evidence import blurred

LEAST_BLUR = 0.3
"""Standard deviation in pixels under which a blur changes nothing to speak of."""


def decay(part: float) -> Operator:
    """Every value loses a part of itself: (1 - part) x.

    With steepest steps of rate r this is, where it stands still, a penalty lambda |x|^2 of
    lambda = part / (2 r (1 - part)).

    Raises:
        WrongCall: a part that is not from 0 to 1.
    """
    if not 0 <= part <= 1:
        raise WrongCall(f"decay: got {part}, expected a part from 0 to 1")
    return lambda picture, gradient, index: picture * (1 - part)


def blur(deviation: float, every: int = 1) -> Operator:
    """A Gaussian blur after every so many steps, of a standard deviation in pixels.

    Raises:
        WrongCall: a deviation under 0.3, which changes nothing, or no step to do it after.
    """
    if deviation < LEAST_BLUR or every < 1:
        raise WrongCall(
            f"blur: got {deviation} pixels every {every} steps, expected {LEAST_BLUR} or more (less changes nothing), "
            "every 1 or more"
        )
    return lambda picture, gradient, index: picture if index % every else blurred(picture, deviation)


def clip_small_norm(percent: float) -> Operator:
    """The pixels whose norm over the colours is under a percentile of it become 0.

    Raises:
        WrongCall: a percentile that is not from 0 to 100.
    """
    _check(percent)

    def clip(picture: Tensor, gradient: Tensor, index: int) -> Tensor:
        return _without_small(picture, picture.norm(dim=1, keepdim=True), percent)

    return clip


def clip_small_contribution(percent: float) -> Operator:
    """The pixels whose contribution |sum over colours of x times gradient| is under a percentile of it become 0.

    That is how much the objective would change without them, to first order; the gradient is that of the last step.

    Raises:
        WrongCall: a percentile that is not from 0 to 100.
    """
    _check(percent)

    def clip(picture: Tensor, gradient: Tensor, index: int) -> Tensor:
        return _without_small(picture, (picture * gradient).sum(1, keepdim=True).abs(), percent)

    return clip


def _check(percent: float) -> None:
    if not 0 <= percent <= 100:
        raise WrongCall(f"clip: got {percent}, expected a percentile from 0 to 100")


def _without_small(picture: Tensor, sizes: Tensor, percent: float) -> Tensor:
    """Pictures (N, C, H, W) with 0 where sizes (N, 1, H, W) are under each picture's percentile."""
    least = torch.quantile(sizes.flatten(1), percent / 100, dim=1).view(-1, 1, 1, 1)
    return picture * (sizes >= least)


def progress(desired: float, largest: float) -> StepRule:
    """Steepest steps that would change each picture's objective by ``desired``, were it linear; of a rate up to
    ``largest``: min(largest, desired / |gradient|^2).

    Source: the deep visualization toolbox, optimize/gradient_optimizer.py, the policy "progress".
    """
    return lambda parameters: _Progress(parameters, desired, largest)


class _Progress(torch.optim.Optimizer):
    """See `progress`."""

    def __init__(self, parameters: list[Tensor], desired: float, largest: float) -> None:
        super().__init__(parameters, {})
        self.desired, self.largest = desired, largest

    def step(self, closure: Any = None) -> Any:
        """Evaluate, then move every parameter."""
        loss = None if closure is None else closure()
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    squares = parameter.grad.flatten(1).square().sum(1).view(-1, *[1] * (parameter.ndim - 1))
                    parameter -= (self.desired / squares).clamp(max=self.largest) * parameter.grad
        return loss
