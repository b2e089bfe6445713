"""Two textures on their way: one that grows from a seed, and one that is written in reading order."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from impasto.visualization.neighbourhoods import (
    Patches,
    around,
    causal,
    neighbours,
    patches_of,
    rows_of,
    spread,
    square,
)

SEED = 3
"""Height and width of the piece of the source that Efros and Leung's texture grows from."""

MAX_ERROR, LARGER = 0.3, 1.1
"""A pixel waits while its best fit is worse than the first; nothing but waiting raises that by the second."""


class Growth:
    """Efros and Leung's texture on its way.

    Args:
        source: (1, 3, H, W).
        side: height and width of the texture.
        window: of neighbourhoods.
        tolerance: how much worse than the best fit is as good.
        draw: draws.

    Attributes:
        origins: (side, side), the pixel of the source, in reading order, that stands here; -1 for none yet.
        max_error: while its best fit is worse a pixel waits.
        least: the sum of the least distances so far.
    """

    def __init__(self, source: Tensor, side: int, window: int, tolerance: float, draw: torch.Generator) -> None:
        self.side, self.window, self.tolerance, self.draw = side, window, tolerance, draw
        self.colours = rows_of(source)
        self.patches = patches_of(self.colours, window)
        self.offsets = square(window)
        self.gauss = (-self.offsets.square().sum(1) / (2 * (window / 6.4) ** 2)).exp()
        self.max_error, self.least = MAX_ERROR, 0.0
        self.origins = torch.full((side, side), -1)
        margin = side + 2 * (window // 2)
        self.canvas, self.filled = torch.zeros(margin, margin, 3), torch.zeros(margin, margin, 1)
        self._plant()

    def picture(self) -> Tensor:
        """(1, 3, side, side), mid-grey where nothing is yet."""
        colours = self.colours.flatten(0, 1)[self.origins]
        return torch.where(self.origins[..., None] < 0, 0.5, colours).permute(2, 0, 1)[None]

    def run(self) -> Iterator[tuple[int, int]]:
        """Fill it; gives row and column of each pixel when it is filled."""
        while True:
            front = self._front()
            if not front:
                return
            before = int((self.origins < 0).sum())
            for row, column in front:
                if self._fill(row, column):
                    yield row, column
            if int((self.origins < 0).sum()) == before:
                self.max_error *= LARGER

    def _plant(self) -> None:
        height, width = self.colours.shape[:2]
        top, left = (int(torch.randint(0, side - SEED + 1, (), generator=self.draw)) for side in (height, width))
        first = (self.side - SEED) // 2
        for down, across in square(SEED).add(SEED // 2).tolist():
            self._put(first + down, first + across, (top + down) * width + left + across)

    def _put(self, row: int, column: int, origin: int) -> None:
        half = self.window // 2
        self.origins[row, column] = origin
        self.canvas[row + half, column + half] = self.colours.flatten(0, 1)[origin]
        self.filled[row + half, column + half] = 1

    def _front(self) -> list[list[int]]:
        """Empty pixels with filled neighbours, in random order, then those with most of them first."""
        filled = (self.origins >= 0).float()[None, None]
        counts = F.conv2d(filled, torch.ones(1, 1, 3, 3), padding=1)[0, 0] * (1 - filled[0, 0])
        places = counts.nonzero()
        places = places[torch.randperm(len(places), generator=self.draw)]
        order = counts[places[:, 0], places[:, 1]].argsort(descending=True, stable=True)
        front: list[list[int]] = places[order].tolist()
        return front

    def _fill(self, row: int, column: int) -> bool:
        template, weights = self.around(row, column)
        indices, distances = self.patches.near(template, weights, self.tolerance)
        chosen = int(torch.randint(0, len(indices), (), generator=self.draw))
        if distances[chosen] >= self.max_error:
            return False
        self.least += float(distances.min())
        self._put(row, column, int(self.patches.centres[indices[chosen]]))
        return True

    def around(self, row: int, column: int) -> tuple[Tensor, Tensor]:
        """The neighbourhood of a pixel and its weights, with sum 1: none where nothing is yet."""
        place = torch.tensor([row + self.window // 2]), torch.tensor([column + self.window // 2])
        weights = self.gauss * neighbours(self.filled, *place, self.offsets)[0]
        return neighbours(self.canvas, *place, self.offsets)[0], spread(weights)


class Raster:
    """One level of Wei and Levoy's texture on its way.

    Args:
        source: (1, 3, H, W), of this level.
        side: height and width of the texture.
        window: whose causal half is a neighbourhood.
        draw: draws.
        coarser: the level before, of half the size, or none.
        parents: height and width of the square around a pixel's parent.

    Attributes:
        origins: (side, side), the pixel of the source, in reading order, that stands here.
    """

    def __init__(
        self,
        source: Tensor,
        side: int,
        window: int,
        draw: torch.Generator,
        coarser: Raster | None = None,
        parents: int = 3,
    ) -> None:
        self.side, self.window, self.draw, self.coarser = side, window, draw, coarser
        self.colours, self.square = rows_of(source), square(parents)
        self.origins = torch.randint(math.prod(source.shape[2:]), (side, side), generator=draw)
        self.canvas = self.colours.flatten(0, 1)[self.origins]
        self.look(causal(window))

    def picture(self) -> Tensor:
        """(1, 3, side, side)."""
        return self.canvas.permute(2, 0, 1)[None]

    def look(self, offsets: Tensor) -> None:
        """Have pixels chosen by these neighbours, and those of their parents."""
        height, width = self.colours.shape[:2]
        margin = 0 if self.coarser is None else 2 * int(self.square.max())
        up, left = (-offsets).amax(0).clamp(min=margin).tolist()
        down, right = offsets.amax(0).clamp(min=margin).tolist()
        rows, columns = torch.arange(up, height - down), torch.arange(left, width - right)
        places = torch.cartesian_prod(rows, columns)
        coarse = None if self.coarser is None else self.coarser.colours
        self.offsets = offsets
        values = self._context(self.colours, coarse, places[:, 0], places[:, 1])
        self.patches = Patches(values, places[:, 0] * width + places[:, 1])
        self.weights = torch.full(values.shape[1:], 1 / values.shape[1])

    def run(self, passes: int = 1) -> Iterator[int]:
        """Replace every pixel, by what is before it first, then by all around it; gives each row when it is done."""
        for index in range(passes):
            if index == 1:
                self.look(around(self.window))
            for row in range(self.side):
                for column in range(self.side):
                    self._choose(row, column)
                yield row

    def _choose(self, row: int, column: int) -> None:
        coarse = None if self.coarser is None else self.coarser.canvas
        template = self._context(self.canvas, coarse, torch.tensor([row]), torch.tensor([column]))[0]
        indices, _ = self.patches.near(template, self.weights, 0.0)
        origin = self.patches.centres[indices[torch.randint(0, len(indices), (), generator=self.draw)]]
        self.origins[row, column] = origin
        self.canvas[row, column] = self.colours.flatten(0, 1)[origin]

    def _context(self, fine: Tensor, coarse: Tensor | None, rows: Tensor, columns: Tensor) -> Tensor:
        own = neighbours(fine, rows, columns, self.offsets)
        return own if coarse is None else torch.cat((own, neighbours(coarse, rows // 2, columns // 2, self.square)), 1)
