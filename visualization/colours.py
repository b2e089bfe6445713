"""Keeping the photo's colours, and noise in the painting's.

From Gatys, Bethge, Hertzmann, Shechtman, "Preserving Color in Neural Artistic Style Transfer", 2016 (arXiv:1606.05897).
All of it works on the encoded values of sRGB, as the paper does. Statistics are over the pixels of a picture (divided
by their number) and computed in float64 on the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from impasto.errors import WrongCall

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma Y of YIQ (ITU-R BT.601)."""

ROUNDING = (1 / 255) ** 2 / 12
"""Variance that rounding to 8 bits brings into a picture. A direction of colour that varies less is taken for flat: to
stretch it would show the rounding."""


def luminance(images: Tensor) -> Tensor:
    """The luma Y of YIQ of pictures (N, 3, H, W): (N, 1, H, W) in [0, 1].

    Raises:
        WrongCall: not pictures.
    """
    _check(images)
    return (images * images.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def keep_colours(painted: Tensor, photo: Tensor) -> Tensor:
    """The luma of a painting with the colours (I and Q) of the photo; section 4.

    Where luma and colour together lie outside [0, 1], the colour is brought towards grey, no further than needed: luma
    and hue stay. Differs from the paper, which does not say; clipping each channel would change the luma.

    Args:
        painted: (N, 3, H, W) in [0, 1].
        photo: of the same shape.

    Returns:
        (N, 3, H, W) in [0, 1].

    Raises:
        WrongCall: not pictures, or of different shapes.
    """
    _check(painted, photo)
    if painted.shape != photo.shape:
        raise WrongCall(f"keeping colours: got {_shape(painted)} and {_shape(photo)}, expected pictures of one shape")
    luma = luminance(painted)
    colour = photo - luminance(photo)  # I and Q alone: RGB is Y + this
    room = torch.where(colour > 0, 1 - luma, luma)  # how far the colour may go
    share = torch.where(colour == 0, 1, room / colour.abs()).amin(1, keepdim=True).clamp(0, 1)
    return (luma + share * colour).clamp(0, 1)


@torch.no_grad()
def match_luminance(style: Tensor, photo: Tensor) -> Tensor:
    """A painting's luma, with mean and standard deviation of the photo's; equation 10.

    Args:
        style: paintings (N, 3, H, W) in [0, 1].
        photo: as many pictures of any size, or one.

    Returns:
        Grey pictures like ``style``, clipped to [0, 1]. A flat painting becomes flat, of the photo's mean.

    Raises:
        WrongCall: not pictures, or not as many.
    """
    _check_pairs(style, photo)
    matched = _matched(_pixels(luminance(style)), _pixels(luminance(photo)))
    return matched.clamp(0, 1).to(style).repeat(1, 3, 1).reshape(style.shape)


@torch.no_grad()
def match_statistics(style: Tensor, photo: Tensor) -> Tensor:
    """A painting in colours with the mean and covariance of the photo's; section 3, as in "Image Analogies".

    x' = A (x - mean of the painting) + mean of the photo, with A = S_photo^(1/2) S_style^(-1/2), symmetric roots of the
    covariances (3, 3). What a painting lacks is not invented: with a covariance that is singular (flat, grey, or two
    colours), its missing directions stay missing, and those of a grey photo vanish.

    Args:
        style: paintings (N, 3, H, W) in [0, 1].
        photo: as many pictures of any size, or one.

    Returns:
        Pictures like ``style``, clipped to [0, 1]; the statistics are equal before the clipping.

    Raises:
        WrongCall: not pictures, or not as many.
    """
    _check_pairs(style, photo)
    return _matched(_pixels(style), _pixels(photo)).clamp(0, 1).to(style).reshape(style.shape)


@torch.no_grad()
def style_noise(style: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Gaussian noise, independent from pixel to pixel, with the mean and covariance of a painting's colours.

    Args:
        style: one painting (1, 3, H, W) in [0, 1].
        height, width: of the noise, in pixels.
        generator: what draws, on its own device.

    Returns:
        (1, 3, height, width), dtype and device of ``style``, clipped to [0, 1].

    Raises:
        WrongCall: not one picture.
    """
    _check(style)
    if len(style) != 1:
        raise WrongCall(f"noise like a painting: got {len(style)} paintings, expected one")
    mean, covariance = _statistics(_pixels(style))
    drawn = torch.randn(1, 3, height * width, generator=generator, device=generator.device).cpu().double()
    return (_power(covariance, 0.5) @ drawn + mean).clamp(0, 1).to(style).reshape(1, 3, height, width)


def _matched(values: Tensor, like: Tensor) -> Tensor:
    """Vectors (N, C, P) with the mean and covariance of those in ``like``, before clipping."""
    mean, covariance = _statistics(values)
    goal, goal_covariance = _statistics(like)
    return _power(goal_covariance, 0.5) @ _power(covariance, -0.5, floor=ROUNDING) @ (values - mean) + goal


def _pixels(images: Tensor) -> Tensor:
    return images.detach().cpu().double().flatten(2)


def _statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (N, C, 1) and covariance (N, C, C) of vectors (N, C, P)."""
    mean = values.mean(2, keepdim=True)
    return mean, (values - mean) @ (values - mean).mT / values.shape[2]


def _power(covariance: Tensor, exponent: float, floor: float = 0.0) -> Tensor:
    """A symmetric power of covariances (N, C, C), zero in directions whose variance is not above ``floor``."""
    variances, directions = torch.linalg.eigh(covariance)
    scales = torch.where(variances > floor, variances.abs() ** exponent, 0)
    power: Tensor = directions * scales[:, None] @ directions.mT
    return power


def _check(*images: Tensor) -> None:
    for image in images:
        if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
            raise WrongCall(f"pictures: got {image.dtype} {_shape(image)}, expected floats (N, 3, H, W) in [0, 1]")


def _check_pairs(style: Tensor, photo: Tensor) -> None:
    _check(style, photo)
    if len(photo) not in (1, len(style)):
        raise WrongCall(
            f"matching colours: got {len(photo)} photos for {len(style)} paintings, expected as many, or one"
        )


def _shape(image: Tensor) -> str:
    return str(tuple(image.shape))
