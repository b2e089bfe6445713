"""How alike two pictures are to the eye."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW, DEVIATION = 11, 1.5
"""Of the Gaussian that weighs a neighbourhood, in pixels."""


def ssim(first: Tensor, second: Tensor) -> float:
    """Structural similarity, the mean over channels and over all windows that lie inside the picture.

    Source: Wang et al. 2004, equation 13, K1 = 0.01, K2 = 0.03, windows of 11 pixels (of the picture's side where that
    is less), each channel by itself.

    Args:
        first: (1, C, H, W), in [0, 1].
        second: likewise.

    Returns:
        At most 1, which is for equal pictures.
    """
    channels = first.shape[1]
    kernel = _gaussian(min(WINDOW, *first.shape[2:])).expand(channels, 1, -1, -1).to(first.device)

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(values, kernel, groups=channels)

    a, b = first.detach().double(), second.detach().double()
    mean_a, mean_b = mean(a), mean(b)
    variances = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    light, contrast = 0.01**2, 0.03**2
    values = (2 * mean_a * mean_b + light) * (2 * covariance + contrast)
    return float((values / ((mean_a**2 + mean_b**2 + light) * (variances + contrast))).mean())


def psnr(first: Tensor, second: Tensor) -> float | None:
    """Peak signal-to-noise ratio in dB, of pictures in [0, 1]; None for equal ones."""
    error = float((first.detach().double() - second.detach().double()).square().mean())
    return -10 * math.log10(error) if error else None


def _gaussian(side: int) -> Tensor:
    """(side, side), float64, with sum 1."""
    places = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    weights = torch.exp(-(places**2) / (2 * DEVIATION**2))
    return torch.outer(weights, weights) / weights.sum() ** 2
