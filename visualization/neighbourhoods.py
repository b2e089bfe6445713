"""What stands around a pixel, and where in a source it is the most alike."""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDING = 1e-6
"""More than float32 can be wrong in a weighted mean of squares of values up to 1."""


class Patches:
    """Neighbourhoods in a source, to be compared with others.

    Args:
        values: (P, K), the colours of the neighbours, in [0, 1].
        centres: (P,), which pixel each neighbourhood is of, in reading order.
    """

    def __init__(self, values: Tensor, centres: Tensor) -> None:
        self.values, self.centres = values, centres
        self._middle = values - 0.5
        self._squares = self._middle.square()

    def near(self, template: Tensor, weights: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
        """The neighbourhoods that fit nearly as well as the best one.

        Two products find those that may be among them; their distances are then computed without cancellation.

        Args:
            template: (K,).
            weights: (K,), with sum 1.
            tolerance: how much more than the least distance is as good.

        Returns:
            Indices and distances, the weighted means of squared differences, of all that are at most ``1 + tolerance``
            times the least.
        """
        target = template - 0.5
        rough = self._squares @ weights - 2 * (self._middle @ (weights * target)) + weights @ target.square()
        limit = (1 + tolerance) * (rough.min() + _ROUNDING) + _ROUNDING
        (indices,) = torch.where(rough <= limit)
        distances = (self.values[indices] - template).square() @ weights
        kept = distances <= (1 + tolerance) * distances.min()
        return indices[kept], distances[kept]


def neighbours(image: Tensor, rows: Tensor, columns: Tensor, offsets: Tensor) -> Tensor:
    """What stands around pixels of a picture, which goes on beyond an edge at the opposite one.

    Args:
        image: (H, W, C).
        rows: (P,).
        columns: (P,).
        offsets: (K, 2), rows and columns from a pixel to its neighbours.

    Returns:
        (P, K * C).
    """
    height, width = image.shape[:2]
    down, across = (rows[:, None] + offsets[:, 0]) % height, (columns[:, None] + offsets[:, 1]) % width
    return image[down, across].flatten(1)


def square(window: int) -> Tensor:
    """Offsets (window^2, 2) of all of a window, in reading order."""
    reach = torch.arange(window) - window // 2
    return torch.cartesian_prod(reach, reach)


def causal(window: int) -> Tensor:
    """Offsets of what comes before the middle in reading order: the rows above, and what is left of it."""
    return square(window)[: window**2 // 2]


def around(window: int) -> Tensor:
    """Offsets of all of a window but its middle."""
    return torch.cat((causal(window), -causal(window)))


def rows_of(picture: Tensor) -> Tensor:
    """A picture (1, 3, H, W) as (H, W, 3)."""
    return picture[0].permute(1, 2, 0).contiguous()


def spread(weights: Tensor) -> Tensor:
    """Weights (K,) of places as those (3 K,) of their colours, with sum 1."""
    wide = weights.repeat_interleave(3)
    return wide / wide.sum()


def patches_of(colours: Tensor, window: int) -> Patches:
    """Every window within a source (H, W, 3)."""
    height, width = colours.shape[:2]
    half = window // 2
    places = torch.cartesian_prod(torch.arange(half, height - half), torch.arange(half, width - half))
    values = neighbours(colours, places[:, 0], places[:, 1], square(window))
    return Patches(values, places[:, 0] * width + places[:, 1])
