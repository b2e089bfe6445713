"""The scales and shifts of a picture that is too large to be measured at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impasto.inference.geometry import Tile
from impasto.inference.split import Floats, Measurement, Split

Read = Callable[[Tile], Floats]
"""Gives the block that a tile is seen in, float RGB (H, W, 3) in [0, 1]."""


@dataclass(frozen=True)
class Rows:
    """What makes scales and shifts of means and variances, found in a measurement.

    Attributes:
        channels: of each normalisation.
        eps: what is added to variances.
        scale: (sum of channels,), the factors of the normalised maps.
        shift: (sum of channels,), what is added to them.
    """

    channels: tuple[int, ...]
    eps: float
    scale: npt.NDArray[np.float64]
    shift: npt.NDArray[np.float64]

    @classmethod
    def of(cls, measurement: Measurement, channels: Sequence[int], eps: float) -> Rows:
        """Of a measurement in which every normalisation was measured: ``a = scale / sd`` and ``b = shift - a mean``."""
        a, b = _halves(measurement.affine[:-1], channels)
        mean, variance = _halves(measurement.moments, channels)
        return cls(tuple(channels), eps, a * np.sqrt(variance + eps), b + a * mean)

    def affine(self, mean: npt.NDArray[np.float64], variance: npt.NDArray[np.float64], strength: float) -> Floats:
        """A row of scales and shifts."""
        a = self.scale / np.sqrt(variance + self.eps)
        b = self.shift - a * mean
        ends = np.cumsum(self.channels)[:-1]
        parts = [part for pair in zip(np.split(a, ends), np.split(b, ends), strict=True) for part in pair]
        return np.concatenate([*parts, [strength]]).astype(np.float32)


def measure_sample(split: Split, tiles: Sequence[Tile], read: Read, style: Floats, strength: float) -> Measurement:
    """Measure crops of one size together, their moments pooled layer by layer."""
    crops = np.stack([read(tile) for tile in tiles])
    return split.measure(crops, style, strength, margins=np.stack([tile.margins for tile in tiles]))


def measure_all(
    split: Split, tiles: Sequence[Tile], read: Read, style: Floats, affine: Floats, rows: Rows, known: int = 0
) -> Iterator[Floats | None]:
    """Measure a whole picture tile by tile, one normalisation a pass, as one pass over all of it would.

    What a normalisation sees depends on those before it alone. Once these are known, its moments over the tiles pool to
    those over the picture. To begin with a good guess and to measure all at once again and again does not help: what
    residual blocks add up grows far from its fixed point, and took as many passes.

    Args:
        split: the halves.
        tiles: that cover the picture, with margins.
        read: gives their blocks.
        style: (S,), weights of the styles.
        affine: (K,), whose first ``known`` normalisations are those of the whole picture.
        rows: found in a measurement of the same style and strength.
        known: how many.

    Yields:
        After each tile None; after each pass ``affine`` with one more that is known.
    """
    channels, strength = rows.channels, float(affine[-1])
    weights = np.array([tile.cells for tile in tiles], np.float64) / sum(tile.cells for tile in tiles)
    ends = np.cumsum([0, *channels]) * 2
    for index in range(known, len(channels)):
        first = second = np.zeros(sum(channels))
        for tile, weight in zip(tiles, weights, strict=True):
            found = split.measure(
                read(tile)[None], style, strength, given=affine, known=index, margins=tile.margins[None]
            )
            mean, variance = _halves(found.moments, channels)
            first, second = first + weight * mean, second + weight * (variance + mean**2)
            yield None
        place = slice(ends[index], ends[index + 1])
        affine = affine.copy()
        affine[place] = rows.affine(first, np.maximum(second - first**2, 0), strength)[place]
        yield affine


def _halves(row: Floats, channels: Sequence[int]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The first and the second halves of the parts of each normalisation, (sum of channels,) each."""
    ends = np.cumsum([count for count in channels for _ in range(2)])[:-1]
    parts = np.split(row.astype(np.float64), ends)
    return np.concatenate(parts[::2]), np.concatenate(parts[1::2])
