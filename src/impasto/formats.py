"""The picture formats by name and suffix, and how a file is put in its place. Imports neither Pillow nor numpy."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from impasto.errors import WrongCall

SUFFIXES = {
    "jpeg": (".jpg", ".jpeg", ".jfif"),
    "png": (".png",),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff"),
    "bmp": (".bmp",),
    "gif": (".gif",),
}
"""Format names with their file suffixes, the usual one first. All of them can be read."""

WRITE_FORMATS = ("jpeg", "png", "webp", "tiff")
"""The formats that can be written. A BMP or GIF is written as PNG: 256 colours would undo the painting."""

IMAGE_SUFFIXES = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
"""Suffixes of the files that a folder of pictures is searched for, in lower case."""


def format_of(path: str | os.PathLike[str]) -> str | None:
    """The format that a file name's suffix stands for, or None."""
    suffix = Path(path).suffix.lower()
    return next((name for name, suffixes in SUFFIXES.items() if suffix in suffixes), None)


def written_format(format: str) -> str:
    """The format a picture read as ``format`` is written in when none is asked for."""
    return format if format in WRITE_FORMATS else "png"


def check_write_format(format: str) -> str:
    """``format`` if it is one of `WRITE_FORMATS`; raises `WrongCall` otherwise."""
    if format not in WRITE_FORMATS:
        raise WrongCall(f"cannot write the format {format!r}; expected one of: {', '.join(WRITE_FORMATS)}")
    return format


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Put ``data`` under the name ``path``: whole, or (on any failure) not at all.

    The bytes go to a temporary file in the same folder, which then takes the name. A symbolic link keeps pointing to
    the same place; a device or a pipe is written to directly.

    Raises:
        OSError: naming ``path``, if the folder or the disk does not take the file.
    """
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        if target.exists() and not target.is_file() and not target.is_dir():
            target.write_bytes(data)
            return
        try:
            with part.open("xb") as file:
                file.write(data)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
