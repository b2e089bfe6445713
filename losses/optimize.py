"""The one loop that optimises a picture under an objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from impasto.errors import WrongCall, unknown_name
from impasto.losses.perceptual import LossTerms

Objective = Callable[[Tensor], Tensor | LossTerms]
StepRule = Callable[[list[Tensor]], torch.optim.Optimizer]

Operator = Callable[[Tensor, Tensor, int], Tensor]
"""(picture, gradient, number of the step from 1) -> picture: the r of ``x <- r(x - rate * gradient)`` (Yosinski et al.
2015, equation 2), such as decay or a blur every few steps."""

NORMS = ("none", "l1", "l2", "sign")
"""What a gradient is divided by: nothing; its mean magnitude; its root mean square; each value by its own magnitude."""


def lbfgs(history: int = 100, rate: float = 1.0) -> StepRule:
    """L-BFGS with the strong Wolfe line search: without it the method stalls on Gram losses of shallow layers."""
    return lambda parameters: torch.optim.LBFGS(
        parameters,
        lr=rate,
        max_iter=1,
        max_eval=25,
        history_size=history,
        line_search_fn="strong_wolfe",
        tolerance_grad=0.0,
        tolerance_change=0.0,
    )


def adam(rate: float = 0.02, betas: tuple[float, float] = (0.9, 0.99)) -> StepRule:
    """Adam; ``rate`` is in units of the picture's range."""
    return lambda parameters: torch.optim.Adam(parameters, lr=rate, betas=betas)


def steepest(rate: float | Callable[[int], float] = 0.01, norm: str = "none") -> StepRule:
    """Steepest descent: ``x - rate * gradient / norm``, whose length does not depend on the scale of the objective.

    A picture's step is ``rate`` in the mean of its values' magnitudes (``l1``, DeepDream's), in their root mean square
    (``l2``), or in each value (``sign``, that of the fast gradient sign method). A gradient that is zero stays zero.

    Args:
        rate: in units of the picture's range (``none``: in those by those of the objective); or a function that gives
            it for the number of the step, from 1.
        norm: one of `NORMS`; of each picture (1, 3, H, W) of a batch by itself.

    Raises:
        ValueError: for an unknown norm.
    """
    if norm not in NORMS:
        raise unknown_name("norm", norm, NORMS)
    return lambda parameters: _Steepest(parameters, rate if callable(rate) else lambda index: rate, norm)


class _Steepest(torch.optim.Optimizer):
    """See `steepest`."""

    def __init__(self, parameters: list[Tensor], rate: Callable[[int], float], norm: str) -> None:
        super().__init__(parameters, {})
        self.rate, self.norm, self.index = rate, norm, 0

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Evaluate, then move every parameter."""
        loss = None if closure is None else closure()
        self.index += 1
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter -= self.rate(self.index) * normalised(parameter.grad, self.norm)
        return loss


def normalised(gradient: Tensor, norm: str) -> Tensor:
    """A gradient (N, ...) divided by one of `NORMS`, each of the N by its own; zero stays zero."""
    if norm == "none":
        return gradient
    if norm == "sign":
        return gradient.sign()
    flat = gradient.flatten(1)
    scale = flat.abs().mean(1) if norm == "l1" else flat.square().mean(1).sqrt()
    return gradient / torch.where(scale > 0, scale, 1).view(-1, *[1] * (gradient.ndim - 1))


def clip(image: Tensor) -> Tensor:
    """Projection on the range of a picture, [0, 1]."""
    return image.clamp(0, 1)


@dataclass(frozen=True)
class Step:
    """Where the loop stands after a step.

    Attributes:
        index: number of the step, from 1.
        evaluations: evaluations of the objective so far.
        loss: total of the objective as last evaluated.
        terms: its terms, if the objective gave `LossTerms`.
        image: the picture (N, 3, H, W), detached; a view of the one being optimised, so copy it to keep it.
    """

    index: int
    evaluations: int
    loss: float
    terms: LossTerms | None
    image: Tensor


class _Evaluation:
    """The objective and its gradient at the projection of the picture.

    L-BFGS asks, within a step, for points outside of the set that the picture is to stay in; what it gets is the
    objective of the nearest point inside, and the gradient there without the values that the projection would hold back
    (gradient projection, Bertsekas 1976). So the point where its line search ends is the projected one, and has been
    evaluated: one evaluation a step where a projection after the step asks for two.

    With ``once`` they are computed once at each point: L-BFGS asks again, at the start of a step, for the point where
    its last line search ended.
    """

    def __init__(
        self,
        image: Tensor,
        objective: Objective,
        transforms: Callable[[Tensor], Tensor] | None,
        project: Callable[[Tensor], Tensor] | None,
        once: bool,
    ) -> None:
        self.image, self.objective, self.transforms, self.project = image, objective, transforms, project
        self.once = once
        self.count = 0
        self.terms: LossTerms | None = None
        self.loss = torch.zeros(())
        self._point: Tensor | None = None

    def __call__(self) -> Tensor:
        point = self.image.detach().clone()
        if self.project is not None:
            point = self.project(point)
        if self._point is not None and torch.equal(self._point, point):
            return self.loss
        with torch.enable_grad():
            point.requires_grad_()
            shown = point if self.transforms is None else self.transforms(point)
            value = self.objective(shown)
            self.terms = value if isinstance(value, LossTerms) else None
            total = value.total if isinstance(value, LossTerms) else value
            if total.ndim or not total.requires_grad:
                raise WrongCall(
                    f"objective: got a tensor of shape {tuple(total.shape)}, "
                    f"{'' if total.requires_grad else 'not '}depending on the picture; expected a scalar that does"
                )
            (gradient,) = torch.autograd.grad(total, point)
        point = point.detach()
        self.image.grad = self._allowed(gradient, point).contiguous()
        self.count += 1
        self._point = point if self.once else None
        self.loss = total.detach()
        return self.loss

    def _allowed(self, gradient: Tensor, point: Tensor) -> Tensor:
        """The gradient, zero where a step against it would be undone by the projection."""
        largest = gradient.abs().max()
        if self.project is None or largest == 0:
            return gradient
        return gradient * (self.project(point - gradient / largest) != point)


def optimize_image(
    start: Tensor,
    objective: Objective,
    *,
    step: StepRule | None = None,
    steps: int = 200,
    transforms: Callable[[Tensor], Tensor] | None = None,
    operators: Sequence[Operator] = (),
    project: Callable[[Tensor], Tensor] | None = None,
    on_step: Callable[[Step], None] | None = None,
    stop: Callable[[Step], bool] | None = None,
) -> Tensor:
    """Minimise an objective over the pixels of a picture.

    Gatys' method, inversion, texture synthesis, dreams and attacks differ only in what fills the slots.

    Args:
        start: (N, 3, H, W) float; left as it is.
        objective: picture -> scalar tensor or `LossTerms`, minimised.
        step: the step rule, `lbfgs` (default), `adam` or `steepest`; one call of it makes an optimiser for the picture.
        steps: number of steps at most. A step of L-BFGS evaluates the objective once or more, one of the others once.
        transforms: applied to the picture before each evaluation (jitter, padding); the gradient passes through it.
        operators: change the picture after each step, one after the other, before ``project``. They are for step rules
            without a memory of where the last step ended, `steepest` or `adam`.
        project: keeps the picture in a set, such as `clip`: the objective is evaluated inside it only.
        on_step: called after each step.
        stop: called after ``on_step``; true ends the loop.

    Returns:
        The picture (N, 3, H, W), detached, on the device and in the type of ``start``.

    Raises:
        ValueError: if ``start`` is not a float tensor, the objective is not a scalar, ``steps`` is negative, or there
            are operators and the step rule is `lbfgs`.
    """
    if not start.is_floating_point():
        raise WrongCall(f"start: got {start.dtype}, expected a float picture (N, 3, H, W) in [0, 1]")
    if steps < 0:
        raise WrongCall(f"steps: got {steps}, expected 0 or more")
    with torch.inference_mode(False):
        image = start.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        optimiser = (step or lbfgs())([image])
        if operators and isinstance(optimiser, torch.optim.LBFGS):
            raise WrongCall("operators: L-BFGS expects the picture where its last step ended; use steepest() or adam()")
        once = isinstance(optimiser, torch.optim.LBFGS) and transforms is None
        evaluation = _Evaluation(image, objective, transforms, project, once)
        for index in range(1, steps + 1):
            before = image.detach().clone()
            optimiser.step(evaluation)  # type: ignore[arg-type]  # torch types the closure's result as a float
            for operator in operators:
                _replace(image, operator(image.detach(), image.grad, index))  # type: ignore[arg-type]  # there is one
            if project is not None:
                _project(image, before, project, optimiser)
                if torch.equal(image, before):  # nothing is better along this direction: begin with the gradient again
                    optimiser.state.clear()
            now = Step(index, evaluation.count, float(evaluation.loss), evaluation.terms, image.detach())
            if on_step is not None:
                on_step(now)
            if stop is not None and stop(now):
                break
        return image.detach()


@torch.no_grad()
def _replace(image: Tensor, changed: Tensor) -> None:
    image.copy_(changed)


@torch.no_grad()
def _project(
    image: Tensor, before: Tensor, project: Callable[[Tensor], Tensor], optimiser: torch.optim.Optimizer
) -> None:
    """Replace the picture by its projection.

    L-BFGS learns the curvature from the displacement of its last step and the change of the gradient over it; it has
    to be told of the displacement that is left after the projection, or its next directions are wrong.
    """
    projected = project(image)
    if torch.equal(projected, image):
        return
    if isinstance(optimiser, torch.optim.LBFGS):
        optimiser.state[image].update(d=(projected - before).flatten(), t=1.0)
    image.copy_(projected)
