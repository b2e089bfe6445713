"""Keeping the photo's colours, and noise in the painting's: `impasto.palette` for tensors.

From Gatys, Bethge, Hertzmann, Shechtman, "Preserving Color in Neural Artistic Style Transfer", 2016 (arXiv:1606.05897).
All of it works on the encoded values of sRGB, as the paper does. Statistics are over the pixels of a picture (divided
by their number) and computed in float64 on the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from impasto import palette
from impasto.errors import WrongCall
from impasto.palette import LUMA, Matching, Moments, power


def luminance(images: Tensor) -> Tensor:
    """The luma Y of YIQ of pictures (N, 3, H, W): (N, 1, H, W) in [0, 1].

    Raises:
        WrongCall: not pictures.
    """
    _check(images)
    return (images * images.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


@torch.no_grad()
def keep_colours(painted: Tensor, photo: Tensor) -> Tensor:
    """The luma of a painting with the colours (I and Q) of the photo: `impasto.palette.keep_colours`.

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
    ours, theirs = (each.detach().cpu().movedim(1, -1).numpy() for each in (painted, photo))
    return torch.from_numpy(palette.keep_colours(ours, theirs)).movedim(-1, 1).contiguous().to(painted)


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

    By `impasto.palette.Matching`, which says what becomes of flat and grey pictures.

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
    colours = Moments.of(_pixels(style)[0].mT.numpy())
    root, mean = torch.from_numpy(power(colours.covariance, 0.5)), torch.from_numpy(colours.mean)
    drawn = torch.randn(1, 3, height * width, generator=generator, device=generator.device).cpu().double()
    return (root @ drawn + mean[:, None]).clamp(0, 1).to(style).reshape(1, 3, height, width)


def _matched(values: Tensor, like: Tensor) -> Tensor:
    """Vectors (N, C, P) with the mean and covariance of those in ``like``, before clipping."""
    matched = []
    for colours, goal in zip(values.mT.numpy(), like.mT.expand(len(values), -1, -1).numpy(), strict=True):
        matching = Matching.between(Moments.of(colours), Moments.of(goal))
        matched.append(torch.from_numpy(matching(colours)).mT)
    return torch.stack(matched)


def _pixels(images: Tensor) -> Tensor:
    return images.detach().cpu().double().flatten(2)


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
