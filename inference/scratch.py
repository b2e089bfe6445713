"""What a long painting keeps beside its output while it lasts, for a run that is killed to be gone on with."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from impasto.errors import PictureError
from impasto.formats import write_atomically
from impasto.inference.locks import locked
from impasto.inference.raster import Raster

_STATE, _MEASURED, _DONE = "state.json", "measured.npz", "tiles"


class Scratch:
    """A hidden folder beside an output, ``.NAME.impasto``.

    Attributes:
        folder: its path.
        facts: what an earlier run of the same key has found out about the photo that it unpacked; None if there is
            none, or it did not come as far.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        self.folder, self._key = folder, json.loads(json.dumps(key))
        self.facts: dict[str, Any] | None = None
        with suppress(OSError, ValueError, KeyError, TypeError):
            state = json.loads((folder / _STATE).read_bytes())
            if state["key"] == self._key:
                self.facts = state["facts"]
        if self.facts is None:
            for name in (_STATE, _MEASURED, _DONE, "photo", "alpha", "painted"):
                (folder / name).unlink(missing_ok=True)

    def unpacked(self, facts: dict[str, Any]) -> None:
        """Keep what has been found out about a photo that is unpacked."""
        write_atomically(self.folder / _STATE, json.dumps({"key": self._key, "facts": facts}).encode())
        self.facts = facts

    def raster(self, name: str, shape: tuple[int, int, int], dtype: str) -> Raster:
        """Pixels kept under a name."""
        return Raster(self.folder / name, shape, dtype)

    def measured(self) -> dict[str, npt.NDArray[Any]]:
        """What was last kept by `keep_measured`; nothing at first."""
        path = self.folder / _MEASURED
        if not path.exists():
            return {}
        with np.load(path) as arrays:
            return dict(arrays)

    def keep_measured(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Keep arrays, instead of those before."""
        part = self.folder / f"{_MEASURED}.part.npz"
        np.savez(part, allow_pickle=False, **arrays)
        os.replace(part, self.folder / _MEASURED)

    @property
    def done(self) -> int:
        """Tiles that are painted."""
        path = self.folder / _DONE
        return path.stat().st_size if path.exists() else 0

    def add_done(self) -> None:
        """Count one more."""
        with (self.folder / _DONE).open("ab", buffering=0) as file:
            file.write(b".")


@contextmanager
def scratch(target: Path, key: Mapping[str, Any]) -> Iterator[Scratch]:
    """The scratch of an output, kept from other runs: gone when the work ends or the picture is bad, else left.

    Args:
        target: the file that is to be written.
        key: what the painting depends on; what was left by a run with another key is thrown away.

    Raises:
        ImpastoError: another run paints this output.
        OSError: the disk does not take it.
    """
    folder = target.with_name(f".{target.name}.impasto")
    with locked(str(folder)):
        try:
            yield Scratch(folder, key)
        except PictureError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    shutil.rmtree(folder, ignore_errors=True)
