"""The losses as pure functions of features, Gram matrices and pictures.

Three conventions, by name. With F the features of the picture, P those of the target, both (C, H, W) for one item, and
G the Gram matrix of `gram_matrix` (divided by C H W):

=========  =======================================  =================================  ======================
           content                                  style                              total variation
=========  =======================================  =================================  ======================
relative   sum (F - P)^2 / sum P^2                  ||G - G0||^2 / ||G0||^2            V / (C H W)
gatys      1/2 sum (F - P)^2                        1/4 ||G - G0||^2                   V
johnson    1/(C H W) sum (F - P)^2                  ||G - G0||^2                       V
=========  =======================================  =================================  ======================

(V and its exponent: `total_variation`.) So ``gatys = C H W / 2 * johnson`` for content and ``gatys = johnson / 4`` for
style; ``relative`` divides ``johnson`` by the target's own mean square, respectively its own squared Gram norm, which
makes it free of the scale of pixels, features and layers: the same weights mean the same for every style and network.
(A target that is all zero has no scale; the loss is then not divided.)

Every loss is computed per item in float32 (float64 stays float64), then averaged over the batch, so that a batch of N
is the mean of N single pictures. A target of one item serves a whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from impasto.errors import WrongCall, unknown_name

CONVENTIONS = ("relative", "gatys", "johnson")
"""What the distances of features and of Gram matrices are divided by: their target's size, or as in the papers."""


def _wide(tensor: Tensor) -> Tensor:
    """The tensor in float32, or float64 where it is that already."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _relative(errors: Tensor, scale: Tensor) -> Tensor:
    """The mean over the batch of ``errors / scale``; where a target is all zero, of the errors themselves."""
    return (errors / torch.where(scale > 0, scale, 1)).mean()


def check_convention(convention: str) -> None:
    """Refuse a convention that is not one of `CONVENTIONS`."""
    if convention not in CONVENTIONS:
        raise unknown_name("convention", convention, CONVENTIONS)


class _Gram(torch.autograd.Function):
    """The Gram matrices of maps (N, positions, C), divided by positions times C.

    By hand because a Gram matrix is symmetric, and because the gradient of maps in bfloat16 can be computed in
    bfloat16: ``dE/dF = F (dE/dG + dE/dG^T) / size`` is one product where autograd makes two and copies both.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        ctx.save_for_backward(maps)
        wide = _wide(maps)
        return wide.mT @ wide / maps[0].numel()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (maps,) = ctx.saved_tensors
        product: Tensor = maps @ ((gradient + gradient.mT) / maps[0].numel()).to(maps.dtype)
        return product


def gram_matrix(features: Tensor) -> Tensor:
    """The Gram matrix of feature maps, divided by their size.

    ``G[i, j] = 1 / (C H W) * sum over positions of F[i] F[j]``: Johnson et al. 2016, equation 3 of section 3.2. Gatys
    et al. 2016, equation 3, has no division; theirs is ``C H W`` times this one.

    Args:
        features: (N, C, H, W).

    Returns:
        (N, C, C), float32 or float64, also under autocast.

    Raises:
        ValueError: if ``features`` is not four-dimensional.
    """
    if features.ndim != 4:
        raise WrongCall(f"gram_matrix: got a tensor of shape {tuple(features.shape)}, expected (N, C, H, W)")
    with torch.autocast(features.device.type, enabled=False):
        gram: Tensor = _Gram.apply(features.permute(0, 2, 3, 1).flatten(1, 2))
        return gram


def content_loss(features: Tensor, target: Tensor, convention: str = "relative") -> Tensor:
    """How far the features of a picture are from those of another: same things in the same places.

    Formulas: the table at the head of this module. Source: Gatys et al. 2016, equation 1 (``gatys``); Johnson et al.
    2016, equation 2 (``johnson``).

    Args:
        features: (N, C, H, W) of one layer.
        target: (N, C, H, W) or (1, C, H, W) of the same layer.
        convention: one of `CONVENTIONS`.

    Returns:
        A scalar, the mean over the batch.

    Raises:
        ValueError: for an unknown convention or shapes that do not fit.
    """
    check_convention(convention)
    _check_fit("content_loss", features, target, target.shape[1:] == features.shape[1:])
    with torch.autocast(features.device.type, enabled=False):
        features, target = _wide(features), _wide(target)
        errors = (features - target).square()
        if convention == "gatys":
            return errors.sum((1, 2, 3)).mean() / 2
        if convention == "johnson":
            return errors.mean()
        return _relative(errors.sum((1, 2, 3)), target.square().sum((1, 2, 3)))


def style_loss(features: Tensor, target: Tensor, convention: str = "relative") -> Tensor:
    """How far the Gram matrix of a picture's features is from a style's: same textures and colours anywhere.

    Formulas: the table at the head of this module. Source: Gatys et al. 2016, equation 4 (``gatys``); Johnson et al.
    2016, section 3.2 (``johnson``). Differs from Gatys et al. where the two pictures have different sizes, which their
    formula does not provide for: each Gram matrix is then divided by its own size.

    Args:
        features: (N, C, H, W) of one layer.
        target: the style picture's features, (N or 1, C, H', W'), or their Gram matrix, (N or 1, C, C).
        convention: one of `CONVENTIONS`.

    Returns:
        A scalar, the mean over the batch.

    Raises:
        ValueError: for an unknown convention or shapes that do not fit.
    """
    check_convention(convention)
    channels = features.shape[1] if features.ndim == 4 else -1
    fits = target.shape[1] == channels if target.ndim == 4 else target.shape[1:] == (channels, channels)
    _check_fit("style_loss", features, target, fits)
    goal = gram_matrix(target) if target.ndim == 4 else _wide(target)
    with torch.autocast(features.device.type, enabled=False):
        errors = (gram_matrix(features) - goal).square().sum((1, 2))
        if convention == "gatys":
            return errors.mean() / 4
        if convention == "johnson":
            return errors.mean()
        return _relative(errors, goal.square().sum((1, 2)))


def _check_fit(name: str, features: Tensor, target: Tensor, same_layer: bool) -> None:
    batch_fits = target.shape[:1] in {features.shape[:1], torch.Size([1])}
    if features.ndim != 4 or not same_layer or not batch_fits:
        raise WrongCall(
            f"{name}: got features {tuple(features.shape)} and a target {tuple(target.shape)}, expected (N, C, H, W) "
            "and a target of the same layer with N or 1 items"
        )


def check_beta(beta: float) -> None:
    """Refuse an exponent of the total variation whose gradient is not finite."""
    if not beta >= 1:
        raise WrongCall(f"total_variation: got beta {beta}, expected at least 1 (below, the gradient is not finite)")


def total_variation(images: Tensor, beta: float = 2.0, convention: str = "relative") -> Tensor:
    """Total variation: how rough a picture is.

    ``V = sum over pixels and channels of (dx^2 + dy^2)^(beta / 2)`` with forward differences; a difference that would
    leave the picture counts as zero, so the last row and column contribute the one that they have. ``gatys`` and
    ``johnson`` mean the sum itself per picture, ``relative`` its mean per value. Source: Mahendran and Vedaldi 2015,
    section 2. Gradients are finite everywhere, zero where the picture is flat, for every beta from 1 up.

    Args:
        images: (N, C, H, W).
        beta: exponent, at least 1: 1 is isotropic total variation, 2 the sum of squared differences.
        convention: one of `CONVENTIONS`.

    Returns:
        A scalar, the mean over the batch.

    Raises:
        ValueError: for an unknown convention, beta below 1, or a tensor that is not four-dimensional.
    """
    check_convention(convention)
    check_beta(beta)
    if images.ndim != 4:
        raise WrongCall(f"total_variation: got a tensor of shape {tuple(images.shape)}, expected (N, C, H, W)")
    with torch.autocast(images.device.type, enabled=False):
        images = _wide(images)
        right = torch.nn.functional.pad(images.diff(dim=3), (0, 1))
        down = torch.nn.functional.pad(images.diff(dim=2), (0, 0, 0, 1))
        squares = right.square() + down.square()
        if beta != 2:
            rough = squares > 0
            squares = torch.where(rough, squares, 1).pow(beta / 2) * rough
        return squares.mean() if convention == "relative" else squares.flatten(1).sum(1).mean()
