"""The steps of painting a picture that lies on a disk: unpack it, measure it, paint its tiles, pack the painting.

The photo is unpacked to bare pixels beside the output, so that tiles can be read from anywhere in it, however it was
compressed. With the normalisations measured, the painting of a pixel depends on its surroundings only; tiles overlap by
as much as the network sees, and at the picture's edges it does what it does in one pass, so that they meet without a
seam.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np

from impasto.errors import Interrupted, PictureError
from impasto.inference.brush import Carried, shrunk
from impasto.inference.geometry import Geometry, Tile, crops, tiles
from impasto.inference.manner import Manner
from impasto.inference.measured import Halves
from impasto.inference.moments import Rows, measure_all, measure_sample
from impasto.inference.packing import in_profile, write
from impasto.inference.raster import Block, Raster
from impasto.inference.scratch import Scratch
from impasto.inference.split import Floats, Measurement
from impasto.inference.streams import BAND, Reading, Source
from impasto.transparency import fill_unseen, mirrored_rows

CROP, SAMPLE = 192, 128
"""Side of the crops that are measured, and how many there are at most: many small ones are better than few large."""


class Steps:
    """Counts the steps of the work for who waits for it.

    Args:
        progress: called with the numbers of steps behind and in all.
        stop: once it is set, the next step is not begun.
    """

    def __init__(self, progress: Callable[[int, int], None], stop: threading.Event) -> None:
        self._progress, self._stop = progress, stop
        self._behind = self._total = 0

    def expect(self, count: int) -> None:
        """So many more are to come."""
        self._total += count

    def step(self, count: int = 1) -> None:
        """One is behind. Raises `Interrupted` if the work is to stop."""
        self._behind += count
        self._total = max(self._total, self._behind)
        self._progress(self._behind, self._total)
        if self._stop.is_set():
            raise Interrupted("interrupted")


class ByTiles:
    """One picture on its way.

    Args:
        source: the photo.
        reading: its pixels.
        kept: where the work lies.
        format: of the painting's file.
        steps: to count.
        halves: of the pack.
        manner: styles, strength, colours.

    Raises:
        OSError: from here on by everything: the disk does not take it.
    """

    def __init__(
        self, source: Source, reading: Reading, kept: Scratch, format: str, steps: Steps, halves: Halves, manner: Manner
    ) -> None:
        self._source, self._reading, self._kept, self._format = source, reading, kept, format
        self._steps, self._halves, self._manner = steps, halves, manner
        self._height, self._width = source.height, source.width
        self._open = ExitStack()
        self._photo = self._raster("photo", 3)
        self._alpha = self._raster("alpha", 1) if reading.has_alpha else None
        self._keeps_alpha = reading.has_alpha and format != "jpeg"
        self._painted = self._raster("painted", 3 + self._keeps_alpha)
        self._largest = np.float32(np.iinfo(self._photo.dtype).max)
        self._sample: Sequence[Tile] = ()
        self._tiles: Sequence[Tile] = ()
        self._paint: Callable[[Floats, Tile], Floats] = lambda image, tile: image

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def unpack(self) -> None:
        """The photo's pixels, upright and in sRGB, what is not seen of them filled; once and for all runs.

        Raises:
            PictureError: the file is damaged, or transparent and to become a JPEG.
        """
        if self._kept.facts is None:
            unseen, clear = False, False
            blocks = self._source.pixels * 3 * self._photo.dtype.itemsize // BAND + 1
            self._steps.expect(blocks)
            for top, left, block in self._reading.blocks():
                self._photo.write(top, left, block[..., :3])
                if self._alpha is not None:
                    self._alpha.write(top, left, block[..., 3:])
                    unseen, clear = unseen or not block[..., 3].all(), clear or block[..., 3].min() < self._largest
                self._steps.step()
            if unseen:
                self._fill()
            self._kept.unpacked({"clear": bool(clear)})
        if self._kept.facts and self._kept.facts["clear"] and self._format == "jpeg":
            raise PictureError(f"{self._source.name}: transparent in places, which JPEG cannot hold; write PNG or TIFF")

    def measure(self, side: int, geometry: Geometry, channels: Sequence[int], *, exact: bool) -> None:
        """Have tiles painted by scales and shifts measured on crops, or ``exact`` on the whole picture."""
        self._lay(side, geometry, geometry.reach)
        split = self._halves.open()
        assert split is not None
        style, strength = self._manner.styles[0].astype(np.float32), self._manner.strengths[0]
        found = self._kept.measured()
        if not found:
            first = measure_sample(split, self._sample, self._read, style, strength)
            found = {"affine": first.affine, "moments": first.moments, "given": first.affine, "known": np.array(0)}
            self._kept.keep_measured(found)
        if exact and found["known"] < len(channels):
            known = int(found["known"])
            self._steps.expect((len(channels) - known) * len(self._tiles))
            rows = Rows.of(Measurement(found["affine"], found["moments"]), channels, geometry.eps)
            for given in measure_all(split, self._tiles, self._read, style, found["given"], rows, known):
                if given is None:
                    self._steps.step()
                else:
                    known += 1
                    found |= {"given": given, "known": np.array(known)}
                    self._kept.keep_measured(found)
        fold = split.fold(found["given"])
        self._paint = lambda image, tile: fold(image[None])[0][tile.rows.own, tile.columns.own]

    def carry(self, longer: int, side: int, geometry: Geometry) -> None:
        """Have tiles painted by what is painted with a longer side of so many pixels."""
        self._lay(side, geometry, 0)
        small = shrunk(lambda top, rows: self._photo.read(top, 0, rows, self._width), self._height, self._width, longer)
        carried = Carried.of(small, self._halves.paint_floats(small, self._manner), self._height, self._width)
        self._paint = lambda image, tile: carried.block(tile.rows.first, tile.columns.first, image)

    def paint(self) -> None:
        """Paint the tiles that are not yet painted."""
        colour, profile = self._manner.colour, self._reading.icc_profile
        photos = (self._block(tile) for tile in self._sample)
        painted = (self._whole(self._paint(self._read(tile), tile)) for tile in self._sample)
        matching = colour.matching(painted, photos)
        self._steps.expect(len(self._tiles))
        self._steps.step(self._kept.done)
        for tile in self._tiles[self._kept.done :]:
            own = self._block(tile)[tile.rows.own, tile.columns.own]
            values = colour.recolour(self._whole(self._paint(self._read(tile), tile)), own, matching)
            values = in_profile(values, profile)
            if self._alpha is not None and self._keeps_alpha:
                alpha = self._alpha.read(tile.rows.start, tile.columns.start, *values.shape[:2])
                values = np.concatenate([values, alpha], axis=2)
            self._painted.write(tile.rows.start, tile.columns.start, values)
            self._kept.add_done()
            self._steps.step()

    def pack(self) -> Path:
        """The painting's file, complete, in the scratch."""
        head = replace(self._source.head, icc_profile=self._reading.icc_profile)
        path, behind, parts = self._kept.folder / "file", 0, max(1, len(self._tiles) // 4)
        self._steps.expect(parts)

        def show(share: float) -> None:
            nonlocal behind
            if int(share * parts) > behind:
                self._steps.step(int(share * parts) - behind)
                behind = int(share * parts)

        with path.open("wb") as file:
            write(self._painted, head, self._format, file, show)
        return path

    def _lay(self, side: int, geometry: Geometry, overlap: int) -> None:
        self._tiles = tiles(self._height, self._width, side, geometry, overlap)
        count = min(SAMPLE, max(1, (side + 2 * geometry.reach) ** 2 // CROP**2))  # no more pixels than a tile
        self._sample = crops(self._height, self._width, CROP, count, geometry)

    def _fill(self) -> None:
        """What is not seen, filled as `fill_unseen` does for the whole."""
        assert self._alpha is not None
        seen, rows = np.zeros(self._height, np.bool_), max(1, BAND // (4 * self._width))
        for top in range(0, self._height, rows):
            count = min(rows, self._height - top)
            alpha = self._alpha.read(top, 0, count, self._width)[..., 0]
            seen[top : top + count] = alpha.any(1)
            self._photo.write(top, 0, fill_unseen(self._photo.read(top, 0, count, self._width), alpha))
        if seen.any():
            stand_in = mirrored_rows(seen)
            for row in np.flatnonzero(~seen):
                self._photo.write(int(row), 0, self._photo.read(int(stand_in[row]), 0, 1, self._width))

    def _raster(self, name: str, channels: int) -> Raster:
        return self._open.enter_context(
            self._kept.raster(name, (self._height, self._width, channels), self._reading.dtype)
        )

    def _block(self, tile: Tile) -> Block:
        return self._photo.read(*tile.seen)

    def _read(self, tile: Tile) -> Floats:
        floats: Floats = self._block(tile).astype(np.float32)
        floats /= self._largest
        return floats

    def _whole(self, painted: Floats) -> Block:
        values: Block = np.rint(painted * self._largest).astype(self._photo.dtype)
        return values
