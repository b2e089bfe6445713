"""How alike a picture is to another one, and to itself, at every shift."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from impasto.visualization.colours import luminance


def best_shift(picture: Tensor, other: Tensor) -> tuple[float, tuple[int, int]]:
    """The largest normalised cross-correlation of two pictures over all circular shifts of one of them.

    sum (f - mean f)(g - mean g) / (|f - mean f| |g - mean g|) with g shifted, over pixels and channels, the mean of
    each channel by itself. Of pictures of two sizes the rectangle at the top left that both have is compared.

    Args:
        picture: (1, 3, H, W).
        other: (1, 3, H', W').

    Returns:
        The correlation, 1 for a shifted copy, and rows and columns by which ``other`` was rolled for it. 0 for a
        picture of one colour.
    """
    height, width = (min(sides) for sides in zip(picture.shape[2:], other.shape[2:], strict=True))
    f, g = (_centred(each[..., :height, :width].detach().cpu().double()) for each in (picture, other))
    products = torch.fft.irfft2((torch.fft.rfft2(f) * torch.fft.rfft2(g).conj()).sum(1), s=(height, width))[0]
    scale = float(f.norm() * g.norm())
    place = int(products.argmax())
    return (float(products.max()) / scale if scale > 1e-9 else 0.0), divmod(place, width)


def autocorrelation(picture: Tensor) -> Tensor:
    """The correlation of a picture's luminance with itself at every shift of up to half of its sides.

    Of the pixels that lie over each other, so that no edge is taken for another: sum over p of f(p) f(p + d) divided by
    their number, relative to that without a shift.

    Args:
        picture: (1, 3, H, W).

    Returns:
        (2 * (H // 2) + 1, 2 * (W // 2) + 1), 1 in the middle, which is no shift; all 0 elsewhere for a flat picture.
    """
    values = _centred(luminance(picture.detach()).cpu().double())[0, 0]
    height, width = values.shape
    size = (2 * height, 2 * width)
    products, pixels = (
        torch.fft.irfft2(torch.fft.rfft2(each, s=size).abs().square(), s=size)
        for each in (values, torch.ones_like(values))
    )
    down, across = (torch.arange(-(side // 2), side // 2 + 1) for side in (height, width))
    means = (products / pixels.clamp(min=1))[down[:, None], across]
    middle = float(means[height // 2, width // 2])
    if middle < 1e-12:
        means = torch.zeros_like(means)
        means[height // 2, width // 2] = middle = 1.0
    scaled: Tensor = means / middle
    return scaled


def radial(correlations: Tensor) -> list[float]:
    """The mean of a map like `autocorrelation`'s at each distance from its middle, in whole pixels from 0 on."""
    height, width = correlations.shape
    rows, columns = (torch.arange(side) - side // 2 for side in (height, width))
    distances = (rows[:, None].square() + columns.square()).double().sqrt().round().long().flatten()
    count = min(height, width) // 2 + 1
    sums, numbers = (
        torch.zeros(int(distances.max()) + 1, dtype=torch.float64).index_add(0, distances, each.double().flatten())
        for each in (correlations, torch.ones_like(correlations))
    )
    means: list[float] = (sums / numbers)[:count].tolist()
    return means


def correlation_length(picture: Tensor) -> float:
    """The distance in pixels at which the autocorrelation, averaged over directions, first falls below 1/e.

    Linear between whole pixels; half of the shorter side if it never does.
    """
    curve = radial(autocorrelation(picture))
    for distance, (near, far) in enumerate(itertools.pairwise(curve)):
        if far < 1 / math.e:
            return distance + (near - 1 / math.e) / (near - far)
    return float(len(curve) - 1)


def _centred(values: Tensor) -> Tensor:
    return values - values.mean((2, 3), keepdim=True)
