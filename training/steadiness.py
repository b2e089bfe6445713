"""Steadiness: the painting of a shifted, slightly zoomed photo is the painting, shifted and zoomed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

LARGEST_ZOOM = 1.12
"""The copy is magnified by up to this, so that the window that it shows can be moved within the picture."""


ONE_LEVEL = 1 / 255


def random_window(random: np.random.Generator) -> tuple[float, float, float]:
    """A square window of a square picture: its side, and its left and top edge, as shares of the picture's side."""
    side = 1 / random.uniform(1.0, LARGEST_ZOOM)
    return side, random.uniform(0, 1 - side), random.uniform(0, 1 - side)


def look_through(images: Tensor, window: tuple[float, float, float]) -> Tensor:
    """What is seen through a window of pictures (N, C, H, W), magnified to their size by bicubic interpolation."""
    side, left, top = window
    centre_x, centre_y = 2 * left + side - 1, 2 * top + side - 1  # grid_sample counts from -1 to 1
    affine = images.new_tensor([[side, 0, centre_x], [0, side, centre_y]]).expand(len(images), 2, 3)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bicubic", padding_mode="reflection", align_corners=False)


def steadiness(painted: Tensor, again: Tensor, window: tuple[float, float, float]) -> Tensor:
    """How far the painting of what is seen through a window is from what is seen of the painting through it.

    ``sum (again - look_through(painted))^2 / sum (look_through(painted) - mean)^2``, the mean that of each channel, for
    each picture, and the mean over the pictures: 0 if strokes move with the photo, 2 if they have nothing to do with
    each other. A painting with a grid of the network's stride, or strokes tied to the picture's frame, cannot be
    steady. (One that varies by less than a level of 255 counts as if it varied by one.) Source: the idea of Ruder et
    al. 2018 of asking the same of two frames of a film, here of one photo and a copy.

    Args:
        painted: paintings of photos, (N, 3, H, W) in [0, 1].
        again: paintings of ``look_through(photos, window)``.
        window: what `random_window` drew.

    Returns:
        A scalar, float32.
    """
    with torch.autocast(painted.device.type, enabled=False):
        seen = look_through(painted.float(), window)
        variance = (seen - seen.mean((2, 3), keepdim=True)).detach().square().mean((1, 2, 3))
        error = (again.float() - seen).square().mean((1, 2, 3))
        return (error / variance.clamp(min=ONE_LEVEL**2)).mean()
