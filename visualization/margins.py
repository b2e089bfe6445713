"""Linear classifiers: how they are learned, and exactly how little it takes to fool them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from impasto.errors import WrongCall
from impasto.losses import Step, lbfgs, optimize_image

FLAT = 1e-10
"""The largest slope at which the objective of `softmax_regression` counts as minimal."""


@dataclass(frozen=True)
class Linear:
    """Scores w_k . x + b_k.

    Attributes:
        weights: (K, D), float64: of each class its template.
        bias: (K,), float64.
    """

    weights: Tensor
    bias: Tensor

    def scores(self, x: Tensor) -> Tensor:
        """Of vectors (N, D), (N, K)."""
        return x.double() @ self.weights.T + self.bias

    def accuracy(self, x: Tensor, labels: Tensor) -> float:
        """The part of vectors (N, D) whose highest score is that of their label."""
        return float((self.scores(x).argmax(1) == labels).double().mean())


def softmax_regression(x: Tensor, labels: Tensor, decay: float, steps: int = 500) -> Linear:
    """The linear classifier with the least mean cross-entropy plus ``decay / 2`` times the sum of squared weights.

    The biases are free, and their sum is 0.

    Args:
        x: (N, D).
        labels: (N,), from 0 to K - 1.
        decay: above 0, so that there is one minimum.
        steps: of L-BFGS at most; it stops where it is flat.

    Raises:
        WrongCall: a decay of 0 or less.
    """
    if not decay > 0:
        raise WrongCall(f"decay: got {decay}, expected above 0: without it the weights grow for ever")
    x = x.double()
    classes = int(labels.max()) + 1

    def objective(parameters: Tensor) -> Tensor:
        scores = x @ parameters[:, :-1].T + parameters[:, -1]
        return F.cross_entropy(scores, labels) + decay / 2 * parameters[:, :-1].square().sum()

    losses = [float("inf")]

    def flat(step: Step) -> bool:
        losses.append(step.loss)
        return abs(losses[-2] - losses[-1]) < FLAT

    start = torch.zeros(classes, x.shape[1] + 1, dtype=torch.float64)
    found = optimize_image(start, objective, step=lbfgs(), steps=steps, stop=flat)
    return Linear(found[:, :-1], found[:, -1] - found[:, -1].mean())


@dataclass(frozen=True)
class Margins:
    """What it takes to turn each of N vectors from the class it is taken for to another.

    Attributes:
        taken: that class, (N,).
        target: the other: the one that the least change reaches, (N,).
        change: of unit size in its norm, (N, D): the direction of the least change.
        size: how much of it makes the two scores equal, (N,).
    """

    taken: Tensor
    target: Tensor
    change: Tensor
    size: Tensor


def least_changes(classifier: Linear, x: Tensor, norm: str = "linf") -> Margins:
    """The least changes that fool a linear classifier, in closed form.

    From y to t it is ``epsilon sign(w_t - w_y)`` with ``epsilon = (s_y - s_t) / ||w_t - w_y||_1`` where every value may
    change by epsilon (linf), and ``(s_y - s_t) / ||w_t - w_y||_2`` along ``w_t - w_y`` for the Euclidean length (l2).

    Source: Hoelder's inequality; Goodfellow et al. 2015, section 3; Moosavi-Dezfooli et al. 2016, equation 8.
    """
    scores = classifier.scores(x)
    top, taken = scores.max(1)
    apart = classifier.weights[None] - classifier.weights[taken][:, None]
    size = apart.norm(p=1 if norm == "linf" else 2, dim=2)
    cost = ((top[:, None] - scores) / size).scatter(1, taken[:, None], torch.inf)
    least, target = cost.min(1)
    chosen = apart[torch.arange(len(x)), target]
    change = chosen.sign() if norm == "linf" else chosen / chosen.norm(dim=1, keepdim=True)
    return Margins(taken, target, change, least)
