"""The manifest of a folder of painted pictures: a file ``manifest.jsonl`` in it with one line a picture.

Lines are only ever added, each when its picture is in its place, so that a run that is killed leaves a manifest that is
true; what the kill may leave of a last line is dropped when the next run opens it. Of several lines for one output the
last one counts, and a run that comes to its end leaves that one alone.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO

from impasto.errors import WrongCall
from impasto.formats import write_atomically
from impasto.inference import places
from impasto.inference.locks import Lock

MANIFEST = "manifest.jsonl"

KILLS = "cannot be painted: the process that tries is killed"
"""What the error of a picture ends in if nothing but the death of a process came of it."""

PUT_EVERY = 5.0
"""Seconds between two writings of a manifest at an address; or 20 times as long as the last one took."""


@dataclass(frozen=True)
class Settings:
    """What a painting depends on beside its source and its format.

    Attributes:
        pack: the pack's name.
        pack_sha256: SHA-256 of its ``paint.onnx``.
        style: the mixture, as ``a:0.6,b:0.4``.
        strength: 0 to 1.
        color: whose colours, as `impasto.palette.Colour` writes them.
        masks: the regions, as ``SHA256=a:0.6,b:0.4@0.5`` (of a mask's values), with semicolons between; empty for none.
        brush: the longer side that strokes are made at; None for the picture's own.
    """

    pack: str
    pack_sha256: str
    style: str
    strength: float
    color: str = "style"
    masks: str = ""
    brush: int | None = None


@dataclass(frozen=True)
class Row:
    """What became of one picture.

    Attributes:
        source: the file that was read; its full name in a manifest.
        output: the file that was written, or (with an ``error``) was to be; in a manifest relative to its folder.
        format: what it was written in; None if nothing was.
        error: why it was not painted, or None.
        width: pixels; None if nothing was written.
        height: pixels; None if nothing was written.
        source_sha256: of the bytes that were read; None if they could not be.
        output_sha256: of the bytes that were written; None if none were.
        read_ms: milliseconds that the source took to arrive, and to be hashed.
        decode_ms: from its bytes to pixels.
        network_ms: from pixels to painted pixels.
        encode_ms: from painted pixels to the bytes of a file.
        write_ms: to hash them and put them in their place.
        bits: bits a channel that were painted, 8 or 16; None if nothing was written.
        frames: frames that were painted; None if nothing was written.
        note: what of the source the painting has not kept, and why; None if there is nothing to say.
        skipped: an earlier run had done it; the numbers are of then. Not in a manifest.
    """

    source: str
    output: str
    format: str | None = None
    error: str | None = None
    width: int | None = None
    height: int | None = None
    source_sha256: str | None = None
    output_sha256: str | None = None
    read_ms: float = 0.0
    decode_ms: float = 0.0
    network_ms: float = 0.0
    encode_ms: float = 0.0
    write_ms: float = 0.0
    bits: int | None = None
    frames: int | None = None
    note: str | None = None
    skipped: bool = False

    def timed(self, took: Mapping[str, float]) -> Row:
        """This row with the milliseconds of each stage: read, decode, network, encode, write."""
        stages: dict[str, Any] = {f"{stage}_ms": round(milliseconds, 3) for stage, milliseconds in took.items()}
        return replace(self, **stages)


def kills(row: Row) -> bool:
    """Whether a picture kills the process that paints it."""
    return row.error is not None and row.error.endswith(KILLS)


_COLUMNS = tuple(field.name for field in fields(Row) if field.name != "skipped")
_OF_OLD = {field.name: field.default for field in fields(Settings) if field.default is not MISSING}
"""The settings that lines written before there were any others lack."""
_START = b'{"source": '


class Manifest:
    """The manifest of a folder, opened to add to; may be used from several threads.

    At an address, where nothing can be added to a file, it is put in its place anew every few seconds and at the end: a
    run that is killed there paints the pictures of the last few seconds again.

    Args:
        folder: where the pictures go.
        settings: of this run.
        lock: that no other run is at work in it.

    Raises:
        WrongCall: there is a ``manifest.jsonl`` of another kind in the folder.
        OSError: the folder cannot be read, or takes no files.
    """

    def __init__(self, folder: str, settings: Settings, lock: Lock) -> None:
        self.folder = folder
        self.name = places.join(folder, MANIFEST)
        self._settings = asdict(settings)
        self._lock = lock
        self._lines: dict[str, bytes] = {}
        self._superseded = 0
        self._guard = threading.Lock()
        self._put, self._put_took = time.monotonic(), 0.0
        whole = self._read()
        self._file: BinaryIO | None = None
        if not places.is_remote(folder):
            self._file = Path(self.name).open("ab", buffering=0)  # noqa: SIM115
            self._file.truncate(whole)

    def finished(self, output: str, format: str | None) -> Row | None:
        """What the manifest says of a picture that was painted with the settings of this run; None if it was not."""
        line = self._lines.get(self._key(output))
        row = _OF_OLD | json.loads(line) if line else {}
        wanted: dict[str, Any] = {**self._settings, "error": None, "format": format or row.get("format")}
        if not row or any(row.get(key) != value for key, value in wanted.items()):
            return None
        return Row(**{**{name: row[name] for name in _COLUMNS}, "output": output})

    def suspected(self, output: str) -> bool:
        """Whether a picture may kill the process that paints it: it did, or a run was killed that had begun it."""
        key = self._key(output)
        return key in self._lock.begun or KILLS.encode() in self._lines.get(key, b"")

    def begun(self, output: str) -> AbstractContextManager[None]:
        """To be entered while a picture is painted, for `suspected`."""
        return self._lock.noted(self._key(output))

    def append(self, row: Row, provider: str) -> None:
        """Add what became of a picture.

        Raises:
            OSError: naming the manifest, which is as it was before, if the disk does not take the line.
        """
        key = self._key(row.output)
        entries = asdict(row) | {"source": places.absolute(row.source), "output": key}
        del entries["skipped"]
        line = json.dumps(entries | self._settings | {"provider": provider}).encode() + b"\n"
        with self._guard:
            if self._file is not None:
                _append(self._file, line)
            self._superseded += key in self._lines
            self._lines[key] = line
            if self._file is None and time.monotonic() - self._put >= max(PUT_EVERY, 20 * self._put_took):
                self._put_all()

    def close(self) -> None:
        """End the run: one line a picture is left."""
        if self._file is None:
            self._put_all()
            return
        self._file.close()
        if self._superseded:
            with suppress(OSError):  # the longer one is as true
                write_atomically(self.name, b"".join(self._lines.values()))

    def _key(self, output: str) -> str:
        return places.relative(output, self.folder).replace(os.sep, "/")

    def _read(self) -> int:
        """Read the lines there are; returns how many bytes of the file are whole lines."""
        try:
            data = places.read(self.name)
        except FileNotFoundError:
            return 0
        lines = data.splitlines(keepends=True)
        torn = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        for number, line in enumerate(lines, 1):
            row = _parsed(line)
            if row is None:
                raise self._foreign(f"line {number}")
            self._superseded += row["output"] in self._lines
            self._lines[row["output"]] = line
        if torn and torn[: len(_START)] != _START[: len(torn)]:
            raise self._foreign("the last line")
        return len(data) - len(torn)

    def _foreign(self, where: str) -> WrongCall:
        return WrongCall(
            f"{self.name}: {where} is not of a manifest of impasto stylize; move it, or choose another folder"
        )

    def _put_all(self) -> None:
        started = time.monotonic()
        places.write(self.name, b"".join(self._lines.values()))
        self._lock.renew()
        self._put = time.monotonic()
        self._put_took = self._put - started


def _parsed(line: bytes) -> Mapping[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and set(_COLUMNS) <= row.keys() and isinstance(row["output"], str) else None


def _append(file: BinaryIO, line: bytes) -> None:
    """Add a line to a file: whole, or not at all."""
    end = os.fstat(file.fileno()).st_size
    try:
        if file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        file.truncate(end)
        raise OSError(error.errno, error.strerror, file.name) from error
