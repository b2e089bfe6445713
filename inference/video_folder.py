"""The hidden folder beside a video's output: what there is to go on from after a stop of any kind."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from impasto.errors import Interrupted
from impasto.formats import write_atomically
from impasto.inference.locks import LOCK, locked

SURVEY = "survey.npz"
"""The file in it that comes first, and without which nothing else is of use."""


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder, which goes when it is empty or holds nothing to go on from."""
    try:
        with locked(os.fspath(folder)):
            try:
                yield
            except KeyboardInterrupt as error:
                raise Interrupted("interrupted: the same command goes on") from error
            finally:
                if not (folder / SURVEY).exists():
                    empty(folder)
    finally:
        with suppress(OSError):  # not empty
            folder.rmdir()


def keep_if_same(folder: Path, settings: dict[str, Any]) -> None:
    """Empty the folder of pieces unless they were made with the same settings."""
    path = folder / "settings.json"
    try:
        same = json.loads(path.read_bytes()) == settings
    except (OSError, ValueError):
        same = False
    if not same:
        empty(folder)
        write_atomically(path, json.dumps(settings).encode())


def empty(folder: Path) -> None:
    """Remove all in the folder but its lock."""
    for path in folder.iterdir():
        if path.name != LOCK:
            path.unlink()
