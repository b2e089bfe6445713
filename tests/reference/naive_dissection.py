"""Network dissection by loops, written from Bau et al. 2017."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def naive_thresholds(maps: Array, top: float) -> list[float]:
    """The largest value that just so many are above, of each unit of maps (N, C, h, w)."""
    count = round(top * maps.shape[0] * maps.shape[2] * maps.shape[3])
    return [sorted(maps[:, unit].ravel().tolist(), reverse=True)[count] for unit in range(maps.shape[1])]


def naive_enlarged(units: Array, size: int, first: float, stride: float) -> Array:
    """A map (h, w) at the pixels; the first unit's middle is at ``first``, the next one's ``stride`` further."""
    height, width = units.shape
    pixels = np.zeros((size, size))
    for y in range(size):
        for x in range(size):
            row = min(max((y + 0.5 - first) / stride, 0.0), height - 1.0)
            column = min(max((x + 0.5 - first) / stride, 0.0), width - 1.0)
            for unit_row in (math.floor(row), math.floor(row) + 1):
                for unit_column in (math.floor(column), math.floor(column) + 1):
                    weight = max(0.0, 1 - abs(row - unit_row)) * max(0.0, 1 - abs(column - unit_column))
                    if weight:
                        pixels[y, x] += weight * units[unit_row, unit_column]
    return pixels


def naive_iou(
    pixels: Sequence[Array],
    labels: Sequence[Array | None],
    threshold: float,
    concept: int,
    above: Callable[[Any, Any], bool] = operator.gt,
) -> tuple[float, float]:
    """IoU of a unit's values at the pixels of photos with a concept, and its ceiling, over the photos with labels."""
    both = either = on = shown = 0
    for values, numbers in zip(pixels, labels, strict=True):
        if numbers is None:
            continue
        for value, number in zip(values.ravel().tolist(), numbers.ravel().tolist(), strict=True):
            is_on, is_shown = bool(above(value, threshold)), number == concept
            both += is_on and is_shown
            either += is_on or is_shown
            on += is_on
            shown += is_shown
    return both / either if either else 0.0, min(on, shown) / max(on, shown, 1)
