"""A picture on its way through a disk: pixels in a file of which blocks are read and written."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Block = npt.NDArray[Any]


class Raster:
    """Rows of pixels, one after the other and nothing else, in a file.

    It is read and written, not mapped: pages of a mapped file count as memory in use.

    Args:
        path: the file; made, with zeros in it, if it is not there.
        shape: (H, W, C).
        dtype: of a value; little-endian.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], dtype: str) -> None:
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype)
        self._pixel = shape[2] * self.dtype.itemsize
        self._file = open(path, "r+b" if path.exists() else "w+b", buffering=0)  # noqa: SIM115  # see close
        self._file.truncate(self.bytes)

    @property
    def bytes(self) -> int:
        """The file's length."""
        return self.shape[0] * self.shape[1] * self._pixel

    def read(self, top: int, left: int, height: int, width: int) -> Block:
        """The block (height, width, C) whose first pixel is at (top, left)."""
        block = np.empty((height, width, self.shape[2]), self.dtype)
        rows = block.reshape(1, -1) if width == self.shape[1] else block.reshape(height, -1)
        for index, row in enumerate(rows.view(np.uint8)):
            self._seek(top + index, left)
            self._whole(self._file.readinto, row)
        return block

    def write(self, top: int, left: int, block: Block) -> None:
        """Put a block (h, w, C) where its first pixel is at (top, left).

        Raises:
            OSError: the disk does not take it.
        """
        block = np.ascontiguousarray(block, self.dtype)
        rows = block.reshape(1, -1) if block.shape[1] == self.shape[1] else block.reshape(len(block), -1)
        for index, row in enumerate(rows.view(np.uint8)):
            self._seek(top + index, left)
            self._whole(self._file.write, row)

    def close(self) -> None:
        """Close the file, which stays."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _seek(self, row: int, column: int) -> None:
        self._file.seek((row * self.shape[1] + column) * self._pixel)

    def _whole(self, move: Any, row: Block) -> None:
        """Have a system call, which may stop half-way, move all bytes of a row."""
        moved = 0
        while moved < len(row):
            count = move(row[moved:].data)
            if not count:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(self.path))
            moved += count
