"""What painting by tiles has to know of a network: how far it sees, how its maps lie, and the memory it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from impasto.errors import PackError

FAST = {"stride": 4, "width": 32, "blocks": 8, "head": 16, "stem": 1}
"""Sizes of the network ``fast`` where a card does not state them."""

_PADDING = {4: 24, 8: 48}
"""Pixels of reflection on each side of a picture in ``fast``, by stride (`impasto.training.networks.Fast`)."""


@dataclass(frozen=True)
class Geometry:
    """How a network's maps lie over a picture.

    Attributes:
        stride: pixels of the picture for a position of the coarsest maps.
        reach: pixels around a pixel that its painting may depend on, and those whose painting depends on it; a
            multiple of the stride.
        padding: pixels on each side that the network itself adds to a picture.
        stem: convolutions on the way down that are not padded.
        eps: what is added to the variances.
        pixel_bytes: memory that a pixel takes while a picture is painted in one pass, beside its file's.
    """

    stride: int
    reach: int
    padding: int
    stem: int
    eps: float
    pixel_bytes: int

    @classmethod
    def of(cls, network: Mapping[str, Any]) -> Self:
        """Of the network that a card describes.

        Raises:
            PackError: one that is not known.
        """
        if network.get("name") == "johnson":
            # 9x9, down twice, ten 3x3 at a quarter, up twice, 9x9: 4 + 1 + 2 + 40 + (2 + 4) + (1 + 2) + 4 pixels
            return cls(stride=4, reach=60, padding=0, stem=0, eps=1e-5, pixel_bytes=700)
        if network.get("name") != "fast":
            raise PackError(f"the network {network.get('name')!r} cannot paint by tiles; expected fast or johnson")
        size = {name: int(network.get(name, default)) for name, default in FAST.items()}
        stride = size["stride"]
        # two 3x3 a block; one cell for the stem, two for the way up, one for where in its cell a pixel lies
        reach = stride * (2 * size["blocks"] + 4)
        maps = 8 * size["width"] // stride**2 + size["head"] + 4 * size["width"] // stride * (size["stem"] - 1)
        return cls(stride, reach, _PADDING[stride], size["stem"], eps=1e-3, pixel_bytes=40 + maps)

    def cells(self, length: int) -> int:
        """Positions of the coarsest maps along a side of so many pixels."""
        if not self.stem:
            return math.ceil(length / self.stride)
        length += 2 * self.padding + self.stride - 1
        steps = [self.stride] if self.stem == 1 else [self.stride // 2, 2]
        for step in steps:
            length = (length - 2 * step) // step + 1
        return length


@dataclass(frozen=True)
class Span:
    """A tile along one side of a picture.

    Attributes:
        start, end: what is its own.
        first, last: with what is seen around that, inside the picture.
    """

    start: int
    end: int
    first: int
    last: int

    @property
    def own(self) -> slice:
        """What is its own, counted from ``first``."""
        return slice(self.start - self.first, self.end - self.first)


@dataclass(frozen=True)
class Tile:
    """A tile of a picture, by its rows and its columns; ``margins`` as of `impasto.inference.split.Split.measure`."""

    rows: Span
    columns: Span
    margins: npt.NDArray[np.int64]
    cells: int

    @property
    def seen(self) -> tuple[int, int, int, int]:
        """The block that it is painted from: top, left, height, width."""
        rows, columns = self.rows, self.columns
        return rows.first, columns.first, rows.last - rows.first, columns.last - columns.first


def tiles(height: int, width: int, side: int, geometry: Geometry, overlap: int | None = None) -> list[Tile]:
    """The tiles of a picture, row after row.

    Their own parts cover the picture, and the cells that their margins leave cover its coarsest maps: each exactly
    once.

    Args:
        height, width: of the picture.
        side: of a tile's own part, a multiple of the stride.
        geometry: of the network.
        overlap: pixels that are seen around it, a multiple of the stride; None for the network's reach.
    """
    overlap = geometry.reach if overlap is None else overlap
    rows, columns = _spans(height, side, overlap), _spans(width, side, overlap)
    found = []
    for row in rows:
        top, bottom, high = _margins(row, height, geometry)
        for column in columns:
            left, right, wide = _margins(column, width, geometry)
            found.append(Tile(row, column, np.array([top, left, bottom, right], np.int64), high * wide))
    return found


def crops(height: int, width: int, side: int, count: int, geometry: Geometry) -> list[Tile]:
    """Squares of a picture, about ``count``, evenly spread; the picture itself if it is smaller.

    Their margins are what the network adds to a picture on each side.
    """
    across = max(1, min(round(math.sqrt(count * width / height)), width // side))
    down = max(1, min(round(count / across), height // side))
    found = []
    for row in _spread(height, side, down, geometry.stride):
        for column in _spread(width, side, across, geometry.stride):
            edge = geometry.padding // geometry.stride
            margins = np.array([edge, edge, max(edge - 1, 0), max(edge - 1, 0)], np.int64)
            found.append(Tile(row, column, margins, 1))
    return found


def _spans(length: int, side: int, overlap: int) -> list[Span]:
    starts = range(0, length, side)
    return [
        Span(start, min(start + side, length), max(start - overlap, 0), min(start + side + overlap, length))
        for start in starts
    ]


def _spread(length: int, side: int, count: int, stride: int) -> list[Span]:
    side = min(side, length)
    steps = np.linspace(0, length - side, count) if count > 1 else [(length - side) / 2]
    starts = [int(step) // stride * stride for step in steps]
    return [Span(start, start + side, start, start + side) for start in starts]


def _margins(span: Span, length: int, geometry: Geometry) -> tuple[int, int, int]:
    """Cells at the start and at the end of a tile that are not its own, and how many are."""
    stride = geometry.stride
    edge, before, total = geometry.padding // stride, span.first // stride, geometry.cells(length)
    start = 0 if span.start == 0 else span.start // stride + edge
    end = total if span.end == length else span.end // stride + edge
    return start - before, before + geometry.cells(span.last - span.first) - end, end - start
