"""A painting at another size than the one it was made at: strokes keep their size relative to the picture.

The photo is painted small, and the painting carried to the photo's size by the photo: around every pixel of the small
picture, the painting's colours are written as an affine function of the photo's (He, Sun, Tang, "Guided Image
Filtering", 2013, equations 5, 6 and 19, with a guide of three channels). Its matrices, enlarged, are applied to the
large photo; what they leave of the small painting, its strokes, is enlarged as it is. Where the painting follows the
photo its edges are as sharp as the photo's, elsewhere strokes are smooth; scaled down, it is the small painting again.

Differs from the fast guided filter (He, Sun, 2015): the residual is kept, which holds the strokes that are not in the
photo.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float32]

Whole = TypeVar("Whole", np.uint8, np.uint16)

RADIUS = 2
"""Of the windows that the affine functions are fitted in, in pixels of the small picture."""

EPS = 1e-3
"""Added to the variances: contrast of the photo well below its root, 0.03 of the range, is not taken for structure."""

BAND = 1 << 20
"""Pixels that are worked on at once."""


def small_size(height: int, width: int, longer: int) -> tuple[int, int]:
    """Height and width with a longer side of so many pixels, the shorter one 16 at least; no larger than it is."""
    scale = min(1.0, longer / max(height, width))
    return max(min(height, 16), round(height * scale)), max(min(width, 16), round(width * scale))


def shrunk(rows: Callable[[int, int], npt.NDArray[Any]], height: int, width: int, longer: int) -> Floats:
    """A photo made small: means of squares of whole pixels, then Lanczos.

    Args:
        rows: gives rows of the photo, (n, W, 3), uint8 or uint16, from the first one's number and how many.
        height: of the photo.
        width: of the photo.
        longer: side of the small photo.

    Returns:
        float RGB (h, w, 3) in [0, 1], of `small_size`.
    """
    small = small_size(height, width, longer)
    square = max(1, min(height // (2 * small[0]), width // (2 * small[1])))
    band = max(1, BAND // width // square) * square
    means = np.concatenate([_means(rows(top, min(band, height - top)), square) for top in range(0, height, band)])
    box = (0, 0, width / square, height / square)
    planes = [
        np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(small[::-1], Image.Resampling.LANCZOS, box=box))
        for plane in np.moveaxis(means, 2, 0)
    ]
    return np.stack(planes, axis=2).clip(0, 1)


def _means(block: npt.NDArray[Any], square: int) -> Floats:
    """The means of squares; of what there is of them at the right and at the bottom."""
    values = block.astype(np.float32) / np.float32(np.iinfo(block.dtype).max)
    for axis in (0, 1):
        starts = np.arange(0, values.shape[axis], square)
        counts = np.diff([*starts, values.shape[axis]]).astype(np.float32)
        sums = np.add.reduceat(values, starts, axis=axis)
        values = sums / counts.reshape([-1 if each == axis else 1 for each in range(3)])
    return values


@dataclass(frozen=True)
class Carried:
    """A small painting, to be had at the photo's size in parts.

    Attributes:
        height: of the photo.
        width: of the photo.
        matrices: (h, w, 3, 3), by which the colours of the photo are multiplied.
        rest: (h, w, 3), which is added.
    """

    height: int
    width: int
    matrices: Floats
    rest: Floats

    @classmethod
    def of(cls, photo: Floats, painted: Floats, height: int, width: int) -> Carried:
        """From the small photo and its painting, float RGB (h, w, 3) in [0, 1], for a photo (height, width)."""
        matrices = _affine(photo.astype(np.float64), painted.astype(np.float64)).astype(np.float32)
        return cls(height, width, matrices, painted - _applied(matrices, photo))

    def block(self, top: int, left: int, photo: Floats) -> Floats:
        """The painting of the block (h, w, 3) of the photo whose first pixel is at (top, left); in [0, 1]."""
        enlarged = _applied(self._enlarged(self.matrices, top, left, photo), photo)
        enlarged += self._enlarged(self.rest, top, left, photo)
        return enlarged.clip(0, 1)

    def _enlarged(self, maps: Floats, top: int, left: int, photo: Floats) -> Floats:
        """A block of maps (h, w, ...) at the photo's size, by cubic interpolation."""
        down, across = maps.shape[0] / self.height, maps.shape[1] / self.width
        height, width = photo.shape[:2]
        box = (left * across, top * down, (left + width) * across, (top + height) * down)
        planes = maps.reshape(*maps.shape[:2], -1)
        large = [
            np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize((width, height), _CUBIC, box=box))
            for plane in np.moveaxis(planes, 2, 0)
        ]
        return np.stack(large, axis=2).reshape(height, width, *maps.shape[2:])


_CUBIC = Image.Resampling.BICUBIC


def paint_coarse(photo: npt.NDArray[Whole], longer: int, paint: Callable[[Floats], Floats]) -> npt.NDArray[Whole]:
    """Paint a photo (H, W, 3), uint8 or uint16, with the strokes of a smaller one.

    Args:
        photo: what to paint.
        longer: side of the small photo.
        paint: paints it.
    """
    height, width, _ = photo.shape
    small = shrunk(lambda top, rows: photo[top : top + rows], height, width, longer)
    carried = Carried.of(small, paint(small), height, width)
    painted, largest = np.empty_like(photo), np.float32(np.iinfo(photo.dtype).max)
    for top in range(0, height, rows := max(1, BAND // width)):
        band = photo[top : top + rows]
        painted[top : top + rows] = np.rint(carried.block(top, 0, band.astype(np.float32) / largest) * largest)
    return painted


def _affine(photo: npt.NDArray[np.float64], painted: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Matrices (h, w, 3, 3) that make the painting's colours of the photo's: fitted in windows, then averaged."""
    mean, goal = _window_mean(photo), _window_mean(painted)
    outer = photo[..., :, None] * photo[..., None, :]
    covariance = _window_mean(outer) - mean[..., :, None] * mean[..., None, :]
    across = _window_mean(painted[..., :, None] * photo[..., None, :]) - goal[..., :, None] * mean[..., None, :]
    fitted = across @ np.linalg.inv(covariance + EPS * np.eye(3))
    return _window_mean(fitted)


def _window_mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The mean over a square window around every pixel of (h, w, ...), of what of it lies in the picture."""
    for axis in (0, 1):
        length = values.shape[axis]
        sums = np.concatenate([np.zeros_like(values.take([0], axis)), np.cumsum(values, axis)], axis)
        place = np.arange(length)
        first, last = np.maximum(place - RADIUS, 0), np.minimum(place + RADIUS + 1, length)
        counts = (last - first).reshape([-1 if each == axis else 1 for each in range(values.ndim)])
        values = (sums.take(last, axis) - sums.take(first, axis)) / counts
    return values


def _applied(matrices: Floats, colours: Floats) -> Floats:
    return (matrices @ colours[..., None])[..., 0]
