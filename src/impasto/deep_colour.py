"""16 bits a channel, in and out of PNG and TIFF.

Pillow has no pixels of three or four channels of 16 bits: it keeps the upper byte of each. Told that a file's numbers
stand in the other byte order, it keeps the lower one; so a file is decoded twice. To write, Pillow lays out a file of
8 bits, with everything that belongs around the pixels, and what it says about their size is changed.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from PIL.ImageFile import ImageFile

from impasto.decoders import load
from impasto.errors import PictureError
from impasto.exif import upright
from impasto.matrix_profile import MatrixProfile

Deep = npt.NDArray[np.uint16]

FORMATS = ("png", "tiff")
"""The formats that hold 16 bits a channel."""

_OTHER_ORDER = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA")
    for order, other in ("BL", "LB", ("N", "B" if sys.byteorder == "little" else "L"))
}
_PNG_START = 8
_PNG_COLOUR_TYPES = {3: 2, 4: 6}


def is_deep(image: ImageFile) -> bool:
    """Whether an opened file has 16 bits a channel (TIFF's 12 count too).

    Raises:
        PictureError: a TIFF in a layout of which Pillow makes another picture without a word.
    """
    modes = [_raw_mode(tile.args) for tile in image.tile]
    if _tag(image, ExifTags.Base.BitsPerSample, 8) > 8 and not any(";" in mode for mode in modes):
        raise PictureError(
            "16 bits a channel, the channels apart and not compressed; save it with interleaved channels"
        )
    return image.mode.startswith("I;16") or any(";16" in mode for mode in modes)


def read(open_again: Callable[[], ImageFile]) -> Deep | None:
    """All 16 bits of a file for which `is_deep` holds.

    Args:
        open_again: opens the file, with none of its pixels decoded.

    Returns:
        uint16 ``(H, W, 3)`` or, with alpha, ``(H, W, 4)``; sRGB, upright. None if only the upper bytes can be had: grey
        with alpha, a transparent colour, channels stored apart, a profile other than of RGB by curves and a matrix.
    """
    image = open_again()
    icc_profile = image.info.get("icc_profile")
    profile = MatrixProfile.parsed(icc_profile) if icc_profile else None
    is_grey = image.mode.startswith("I;16")
    if "transparency" in image.info or (icc_profile and (profile is None or is_grey)):
        return None
    if is_grey:
        largest = 2 ** _tag(image, ExifTags.Base.BitsPerSample, 16) - 1
        grey = np.rint(_upright(image) * (65535 / largest)).astype(np.uint16)
        return np.repeat(grey[..., None], 3, axis=2)
    apart = _tag(image, ExifTags.Base.PlanarConfiguration, 1) == 2
    if apart or not all(_raw_mode(tile.args) in _OTHER_ORDER for tile in image.tile):
        return None
    pixels: Deep = _upright(image).astype(np.uint16) * np.uint16(256)
    lower = open_again()
    lower.tile = [tile._replace(args=_of_other_order(tile.args)) for tile in lower.tile]
    pixels += _upright(lower)
    if profile is not None:
        pixels[..., :3] = profile.to_srgb(pixels[..., :3])
    return pixels


def encode(pixels: Deep, format: str, options: Mapping[str, object]) -> bytes:
    """The bytes of a file.

    Args:
        pixels: ``(H, W, 3)`` or ``(H, W, 4)``, sRGB.
        format: one of `FORMATS`.
        options: what Pillow is to write around the pixels; into the colours of ``icc_profile`` they are converted.
    """
    icc_profile = options.get("icc_profile")
    if isinstance(icc_profile, bytes) and (profile := MatrixProfile.parsed(icc_profile)) is not None:
        pixels = pixels.copy()
        pixels[..., :3] = profile.from_srgb(pixels[..., :3])
    return _png(pixels, options) if format == "png" else _tiff(pixels, options)


def _upright(image: ImageFile) -> npt.NDArray[Any]:
    load(image)  # which turns a TIFF, and no other
    return np.asarray(upright(image)[0])


def _tag(image: ImageFile, tag: int, default: int) -> int:
    """What a TIFF says (its first value); the default for other formats."""
    value = getattr(image, "tag_v2", {}).get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)


def _raw_mode(args: tuple[Any, ...] | str | None) -> str:
    """Pillow's name for how the numbers stand in a file."""
    return str(args[0]) if isinstance(args, tuple) and args else args if isinstance(args, str) else ""


def _of_other_order(args: tuple[Any, ...] | str | None) -> tuple[Any, ...] | str:
    other = _OTHER_ORDER[_raw_mode(args)]
    return (other, *args[1:]) if isinstance(args, tuple) else other


def _png(pixels: Deep, options: Mapping[str, object]) -> bytes:
    """A PNG of one pixel by Pillow, with these pixels in its place."""
    height, width, channels = pixels.shape
    lines = np.ascontiguousarray(pixels, ">u2").view(np.uint8).reshape(height, -1)
    rows = np.empty((height, 1 + lines.shape[1]), np.uint8)
    rows[:, 0] = 2  # the filter "up": each line less the one above
    rows[:, 1:] = lines
    rows[1:, 1:] -= lines[:-1]
    buffer = io.BytesIO()
    Image.new("RGB" if channels == 3 else "RGBA", (1, 1)).save(buffer, "PNG", **options)
    data = buffer.getvalue()
    parts = [data[:_PNG_START]]
    for kind, content in _chunks(data):
        if kind == b"IHDR":
            content = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOUR_TYPES[channels], 0, 0, 0)
        elif kind == b"IDAT":
            content = zlib.compress(rows.data)
        parts += [struct.pack(">I", len(content)), kind, content, struct.pack(">I", zlib.crc32(kind + content))]
    return b"".join(parts)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = _PNG_START
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        yield kind, data[place + 8 : place + 8 + length]
        place += 12 + length


def _tiff(pixels: Deep, options: Mapping[str, object]) -> bytes:
    """A TIFF of twice the width and 8 bits by Pillow, which has the same bytes; then told what they are."""
    height, width, channels = pixels.shape
    buffer = io.BytesIO()
    twice_as_wide = np.ascontiguousarray(pixels, "<u2").view(np.uint8).reshape(height, 2 * width, channels)
    Image.fromarray(twice_as_wide).save(buffer, "TIFF", **options)
    data = buffer.getbuffer()
    directory = struct.unpack_from("<2sHI", data)[2]  # Pillow writes "II", the lower byte first
    (count,) = struct.unpack_from("<H", data, directory)
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, _, length, place = struct.unpack_from("<HHII", data, entry)
        if tag == ExifTags.Base.ImageWidth:
            struct.pack_into("<HHII", data, entry, tag, 4, 1, width)
        elif tag == ExifTags.Base.BitsPerSample:
            struct.pack_into(f"<{length}H", data, place, *[16] * length)
    del data
    return buffer.getvalue()
