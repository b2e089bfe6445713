"""Pictures too large for one pass: when they are, and how they are painted from one file into another.

Each step (`impasto.inference.by_tiles`) leaves what it has done on the disk, so that a run that is killed is gone on
with by the same call.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from impasto.errors import Interrupted, PackError, PictureError, WrongCall
from impasto.inference.by_tiles import ByTiles, Steps
from impasto.inference.geometry import Geometry
from impasto.inference.manner import Manner
from impasto.inference.measured import Halves
from impasto.inference.memory import free_memory
from impasto.inference.packing import check_writable
from impasto.inference.scratch import scratch
from impasto.inference.streams import Reading, Source
from impasto.packs import Card

BASE = 280_000_000
"""Bytes that the program takes before it has a pixel."""

TILE_BYTES = 60
"""Bytes that a pixel of a tile takes beside the network: read, as numbers, painted, and as it is written."""

LARGEST_TILE, SMALLEST_TILE = 2048, 64
"""Sides of a tile's own part. Beyond the largest, less overlap saves hardly any time."""


@dataclass(frozen=True)
class Limits:
    """How a picture that is too large for one pass is painted.

    Attributes:
        memory: bytes that the process may take; None for half of what is free.
        exact: measure the whole picture, not crops of it.
        brush: longer side, in pixels, of the size that strokes are made at; None for the picture's own.

    Raises:
        WrongCall: a brush under 16 pixels.
    """

    memory: int | None = None
    exact: bool = False
    brush: int | None = None

    def __post_init__(self) -> None:
        if self.brush is not None and self.brush < 16:
            raise WrongCall(f"brush: got {self.brush}, expected 16 pixels or more, such as 512")

    def arguments(self) -> dict[str, Any]:
        """The arguments of a `impasto.inference.painter.Painter` that these are made from."""
        return {"max_memory": self.memory, "exact": self.exact, "brush": self.brush}

    @property
    def bytes(self) -> int:
        """What the process may take."""
        return free_memory() // 2 if self.memory is None else self.memory


class HugePainter:
    """Paints pictures by tiles.

    Args:
        halves: of the pack.
        card: of the pack.
        manner: styles, strength, colours.
        limits: memory, statistics, brush.
        settings: all that a painting depends on beside its source and the limits.

    Attributes:
        stop: set by another thread to have the work end before the next tile.
    """

    def __init__(self, halves: Halves, card: Card, manner: Manner, limits: Limits, settings: Mapping[str, Any]) -> None:
        self._halves, self._card, self._manner, self._limits = halves, card, manner, limits
        self._settings = dict(settings)
        self.stop = threading.Event()

    def is_for(self, source: Source) -> bool:
        """Whether one pass over a picture would take more memory than it may; never unasked if libvips is missing."""
        if self._limits.memory is None and find_spec("pyvips") is None:
            return False
        try:
            each = Geometry.of(self._card.network).pixel_bytes
        except PackError:
            return False
        deep = 2 if source.head.bits > 8 else 1
        return BASE + source.pixels * each * deep > self._limits.bytes

    def paint(self, source: Source, sha256: str, output: str, format: str, progress: Callable[[int, int], None]) -> int:
        """Paint a picture, or go on with it where an earlier run has been killed.

        Args:
            source: the picture.
            sha256: of its file.
            output: the file that the painting is written to, whole or not at all.
            format: one of `impasto.inference.streams.FORMATS`.
            progress: called with the numbers of steps behind and in all.

        Returns:
            The bits a channel that were painted, 8 or 16.

        Raises:
            PictureError: a file that is damaged, or cannot be read or written by bands.
            MissingExtra: libvips is not installed.
            PackError: a pack without halves.
            WrongCall: too little memory; masks without a brush.
            Interrupted: `stop` was set, or Ctrl-C.
            OSError: the disk does not take it. What is done by then is kept.
        """
        check_writable(format, source.height, source.width, output)
        if self._manner.masks and self._limits.brush is None:
            raise WrongCall("masks are for pictures painted in one pass, or with --brush; allow more --max-memory")
        if self._halves.open() is None:
            raise PackError(f"{source.name}: too large for one pass, and tiles need {self._halves.missing}")
        reading, geometry = Reading(source), Geometry.of(self._card.network)
        side = self._side(geometry)
        limits = {name: value for name, value in asdict(self._limits).items() if name != "memory"}
        key = {"source": sha256, "format": format, "side": side, **limits, **self._settings}
        target = Path(os.path.realpath(output))
        if target.exists() and not target.is_file():
            raise PictureError(f"{output}: not a file; a picture painted by tiles needs one to go to")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with scratch(target, key) as kept:
                _check_disk(kept.folder, source, reading)
                steps = Steps(progress, self.stop)
                work = ByTiles(source, reading, kept, format, steps, self._halves, self._manner)
                with work:
                    work.unpack()
                    if self._limits.brush is not None:
                        work.carry(self._limits.brush, side, geometry)
                    else:
                        channels = [int(entry["channels"]) for entry in self._card.normalisations]
                        work.measure(side, geometry, channels, exact=self._limits.exact)
                    work.paint()
                    os.replace(work.pack(), target)
        except (KeyboardInterrupt, Interrupted) as error:
            raise Interrupted(f"interrupted: {output} is not finished; the same command goes on with it") from error
        except OSError as error:
            said = error.strerror or str(error)
            raise OSError(error.errno, f"{said} (the same command goes on from here)", output) from error
        return 8 if format == "jpeg" else 8 * np.dtype(reading.dtype).itemsize

    def _side(self, geometry: Geometry) -> int:
        """Of the tiles that the memory has room for."""
        room, each = self._limits.bytes - BASE, geometry.pixel_bytes + TILE_BYTES
        reach = 2 * geometry.reach
        side = math.isqrt(max(room, 0) // each) - reach
        if side < SMALLEST_TILE:
            least = math.ceil((BASE + each * (SMALLEST_TILE + reach) ** 2) / 1e6)
            raise WrongCall(f"max_memory: got {self._limits.bytes / 1e6:.0f} MB, expected {least} MB or more")
        return min(side, LARGEST_TILE) // geometry.stride * geometry.stride


def _check_disk(folder: Path, source: Source, reading: Reading) -> None:
    """Raise `OSError` unless the disk has room for the photo, the painting and its file."""
    channels, size = 3 + reading.has_alpha, np.dtype(reading.dtype).itemsize
    there = sum(file.stat().st_blocks * 512 for file in folder.iterdir() if hasattr(file.stat(), "st_blocks"))
    needed = source.pixels * size * channels * 3 - there
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 1e9:.1f} GB of the disk are needed, {free / 1e9:.1f} GB are free")
