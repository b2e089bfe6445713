"""Transforms of a picture between the one that is optimised and the one that the network sees, drawn anew each time.

What an optimised picture shows has to survive them, which noise made for one position of the network's grid does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Transform = Callable[[Tensor], Tensor]


def jitter(pixels: int, generator: torch.Generator) -> Transform:
    """Roll pictures (N, 3, H, W) around by up to ``pixels`` each way; 0 leaves them as they are.

    What leaves on one side enters on the other, so that no border tells the network that anything moved; the gradient
    is rolled back with it. Source: Mordvintsev et al. 2015, the DeepDream notebook.
    """

    def roll(image: Tensor) -> Tensor:
        if pixels == 0:
            return image
        rows, columns = torch.randint(-pixels, pixels + 1, (2,), generator=generator).tolist()
        return image.roll((rows, columns), (2, 3))

    return roll


def random_affine(degrees: float, scale: float, generator: torch.Generator) -> Transform:
    """Turn pictures (N, 3, H, W) by up to ``degrees`` and scale them by up to a part ``scale``, about their centre.

    Bilinear; what lies outside is the picture's mirror image. Source: Olah et al. 2017, the appendix on transformation
    robustness.
    """

    def turn(image: Tensor) -> Tensor:
        angle, growth = (2 * torch.rand(2, generator=generator) - 1).tolist()
        turned, factor = math.radians(degrees * angle), 1 / (1 + scale * growth)
        height, width = image.shape[2:]
        cosine, sine = factor * math.cos(turned), factor * math.sin(turned)
        matrix = image.new_tensor([[cosine, -sine * height / width, 0], [sine * width / height, cosine, 0]])
        grid = F.affine_grid(matrix.expand(len(image), 2, 3), list(image.shape), align_corners=False)
        return F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)

    return turn


def compose(*transforms: Transform) -> Transform:
    """One transform after the other, the first one first."""

    def run(image: Tensor) -> Tensor:
        for transform in transforms:
            image = transform(image)
        return image

    return run
