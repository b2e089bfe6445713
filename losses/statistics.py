"""Statistics of feature maps that add up over the parts of a picture, and how far two of them are apart.

A style is what its feature maps are like on average, whatever stands where. Two descriptions of that, by name:

===========  ==================================  ================================================================
             what is compared                    distance, before the convention
===========  ==================================  ================================================================
gram         Gram matrices: `gram_matrix`        ||G - G0||^2, as in `style_loss`
wasserstein  Gaussians with the maps' mean and   ||m - m0||^2 + tr(S + S0 - 2 (S0^1/2 S S0^1/2)^1/2): the squared
             covariance                          2-Wasserstein distance, Dowson and Landau 1982
===========  ==================================  ================================================================

Both are functions of `Moments`, which are sums over positions: those of a picture are the sum of those of its parts.
(Covariances are not.) A region weighs the positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from impasto.errors import WrongCall, unknown_name
from impasto.losses.functional import _relative, _wide, check_convention

STATISTICS = ("gram", "wasserstein")
"""What a style is: Gram matrices, or means and covariances, whose distance is that of Gaussians."""

_RANK = 1e-12
"""Eigenvalues below this share of the largest count as zero: they are rounding, whose root would not be small.

As small as float64 allows. VGG's maps have steep spectra: with 1e-7, as far as float32 goes, 2 to 6 % of the gradient
are missing.
"""


def check_statistic(statistic: str, convention: str) -> None:
    """Refuse a statistic that is not one of `STATISTICS`, and a convention that does not define it."""
    check_convention(convention)
    if statistic not in STATISTICS:
        raise unknown_name("statistic", statistic, STATISTICS)
    if statistic != "gram" and convention != "relative":
        raise WrongCall(
            f"statistic {statistic!r}: got convention {convention!r}, which is of Gram losses; use 'relative'"
        )


@dataclass(frozen=True)
class Moments:
    """Sums over the positions of feature maps (N, C, H, W), each position weighed by its region.

    Attributes:
        weight: (N,), the sum of the weights; without a region the number of positions.
        first: (N, C), the sum of ``F``; (N, 0) where only Gram matrices are wanted.
        second: (N, C, C), the sum of ``F F^T``.
    """

    weight: Tensor
    first: Tensor
    second: Tensor

    def __add__(self, other: Moments) -> Moments:
        """The moments of two sets of positions together."""
        return Moments(self.weight + other.weight, self.first + other.first, self.second + other.second)

    @property
    def gram(self) -> Tensor:
        """(N, C, C): without a region what `gram_matrix` gives; zero for an empty region."""
        return self.second / (self._divisor[:, None, None] * self.second.shape[1])

    @property
    def mean(self) -> Tensor:
        """(N, C); zero for an empty region."""
        if self.first.shape[1] != self.second.shape[1]:
            raise WrongCall("Moments: got Gram sums only, expected those of moments(..., statistic='wasserstein')")
        return self.first / self._divisor[:, None]

    @property
    def covariance(self) -> Tensor:
        """(N, C, C), divided by the weight, not by one less; zero for an empty region."""
        mean = self.mean
        return self.second / self._divisor[:, None, None] - mean[:, :, None] * mean[:, None, :]

    @property
    def _divisor(self) -> Tensor:
        return torch.where(self.weight > 0, self.weight, 1)

    @cached_property
    def _gaussian(self) -> _Gaussian:
        """Mean, covariance and its root in float64, without gradient: of a target, once for all steps."""
        with torch.no_grad():
            wide = self._double()
            values, vectors = torch.linalg.eigh(wide.covariance)
            root = (vectors * _above_rounding(values).sqrt()[:, None, :]) @ vectors.mT
            return _Gaussian(wide.mean, wide.covariance, root)

    def _double(self) -> Moments:
        return Moments(self.weight.double(), self.first.double(), self.second.double())


@dataclass(frozen=True)
class _Gaussian:
    mean: Tensor
    covariance: Tensor
    root: Tensor


class _Sums(torch.autograd.Function):
    """Sums of F F^T and, but for Gram matrices, of F over maps (N, positions, C) with weights (N or 1, positions, 1).

    By hand for the reasons of `gram_matrix`: the gradient is one product, in the maps' own type. With the gradient of
    the first sums it is made in float32, because the two largely cancel.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weights: Tensor | None, gram: bool) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(maps, weights)
        ctx.set_materialize_grads(False)
        wide = _wide(maps)
        weighed = wide if weights is None else wide * weights
        return weighed.mT @ wide, (weighed[..., :0] if gram else weighed).sum(1)

    @staticmethod
    def backward(ctx: Any, of_second: Tensor | None, of_first: Tensor | None) -> tuple[Tensor | None, None, None]:
        maps, weights = ctx.saved_tensors
        product = None
        if of_second is not None:
            both = of_second + of_second.mT
            product = maps @ both.to(maps.dtype) if of_first is None else _wide(maps) @ both
        if of_first is not None:
            line = of_first[:, None, :].expand(maps.shape)
            product = line if product is None else product + line
        if product is not None and weights is not None:
            product = product * weights
        return None if product is None else product.to(maps.dtype), None, None


def moments(features: Tensor, region: Tensor | None = None, statistic: str = "gram") -> Moments:
    """The sums over positions that a statistic needs.

    A region weighs the positions, ``sum r F F^T / sum r``. Differs from Gatys et al. 2017, section 4.1, whose guidance
    channels multiply the maps and so enter squared; for regions of zeros and ones the two are the same up to a factor
    that ``relative`` does not see.

    Args:
        features: (N, C, H, W).
        region: (N or 1, 1, H, W), not negative, on the grid of the features; without it every position counts once.
        statistic: one of `STATISTICS`; "gram" leaves the first sums out.

    Returns:
        `Moments` in float32, or float64 for float64 features, also under autocast. Gradients reach the features only.

    Raises:
        ValueError: for shapes that do not fit or an unknown statistic.
    """
    if statistic not in STATISTICS:
        raise unknown_name("statistic", statistic, STATISTICS)
    if features.ndim != 4:
        raise WrongCall(f"moments: got a tensor of shape {tuple(features.shape)}, expected (N, C, H, W)")
    batch, _, *sides = features.shape
    if region is not None and region.shape not in {(count, 1, *sides) for count in (1, batch)}:
        raise WrongCall(
            f"moments: got a region {tuple(region.shape)} for features {tuple(features.shape)}, "
            "expected (N or 1, 1, H, W) of the same height and width"
        )
    with torch.autocast(features.device.type, enabled=False):
        maps = features.permute(0, 2, 3, 1).flatten(1, 2)
        weights = None
        if region is not None:
            weights = region.detach().flatten(2).mT.to(torch.promote_types(maps.dtype, torch.float32))
        second, first = _Sums.apply(maps, weights, statistic == "gram")
        total = second.new_full((1,), maps.shape[1]) if weights is None else weights.sum((1, 2))
        return Moments(total.expand(batch), first, second)


class _RootTrace(torch.autograd.Function):
    """The trace of (R S R)^1/2 for covariances S (N, C, C) and a constant symmetric R (N or 1, C, C).

    Its derivative by S is ``1/2 R (R S R)^-1/2 R``. Where R S R is singular the pseudo-inverse takes the inverse's
    place: maps have no part outside the range of their own covariance, so the gradient by the maps is exact with fewer
    positions than channels too.
    """

    @staticmethod
    def forward(ctx: Any, covariance: Tensor, root: Tensor) -> Tensor:
        product = root @ covariance @ root
        values, vectors = torch.linalg.eigh((product + product.mT) / 2)
        roots = _above_rounding(values).sqrt()
        ctx.save_for_backward(root, roots, vectors)
        trace: Tensor = roots.sum(1)
        return trace

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        root, roots, vectors = ctx.saved_tensors
        inverse = torch.where(roots > 0, 1 / roots, 0)
        half = root @ vectors
        return gradient[:, None, None] / 2 * (half * inverse[:, None, :]) @ half.mT, None


def _above_rounding(values: Tensor) -> Tensor:
    """Eigenvalues (N, C) in ascending order, those that rounding decides replaced by zero."""
    return torch.where(values > _RANK * values[:, -1:].clamp(min=0), values, 0)


def _wasserstein(found: Moments, target: Moments) -> tuple[Tensor, Tensor]:
    """Squared distances (N,), and what they are relative to, ``||m0||^2 + tr S0`` (N or 1,)."""
    wide, goal = found._double(), target._gaussian
    covariance = wide.covariance
    means = (wide.mean - goal.mean).square().sum(1)
    traces = _trace(covariance) + _trace(goal.covariance)
    return means + traces - 2 * _RootTrace.apply(covariance, goal.root), goal.mean.square().sum(1) + _trace(
        goal.covariance
    )


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(1)


def statistic_loss(found: Moments, target: Moments, statistic: str = "gram", convention: str = "relative") -> Tensor:
    """How far the statistics of a picture's features are from a style's.

    "gram" is `style_loss`, in each of its conventions. "wasserstein" is the squared 2-Wasserstein distance of two
    Gaussians (Dowson and Landau 1982), in float64 inside; ``relative`` divides it by the target's ``||m0||^2 + tr S0``,
    its distance from maps that are zero, and no other convention is defined. Where the region of the picture or of the
    target is empty there is nothing to compare, and the item's loss is zero.

    Args:
        found: of the picture, N items.
        target: of the style, N items or one; a constant, no gradient reaches it.
        statistic: one of `STATISTICS`.
        convention: one of `CONVENTIONS`.

    Returns:
        A scalar, the mean over the batch, in the type of the moments.

    Raises:
        ValueError: for an unknown statistic or convention, "wasserstein" in another convention than ``relative``,
            shapes that do not fit, or moments without first sums for "wasserstein".
    """
    check_statistic(statistic, convention)
    if target.second.shape[1:] != found.second.shape[1:] or len(target.second) not in {1, len(found.second)}:
        raise WrongCall(
            f"statistic_loss: got moments {tuple(found.second.shape)} and a target {tuple(target.second.shape)}, "
            "expected (N, C, C) and a target of the same layer with N or 1 items"
        )
    with torch.autocast(found.second.device.type, enabled=False):
        if statistic == "wasserstein":
            errors, scale = _wasserstein(found, target)
        else:
            goal = target.gram.detach()
            errors, scale = (found.gram - goal).square().sum((1, 2)), goal.square().sum((1, 2))
        errors = torch.where((found.weight > 0) & (target.weight > 0), errors, 0)
        if convention == "relative":
            return _relative(errors, scale).to(found.second.dtype)
        return errors.mean() / (4 if convention == "gatys" else 1)
