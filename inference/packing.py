"""Files that are written a band at a time: PNG and JPEG by libvips, TIFF as its pixels lie.

What stands around the pixels is laid out by Pillow, as for other pictures (`impasto.images`).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image

from impasto.colour import from_srgb
from impasto.errors import PictureError
from impasto.images import Picture, file_options, one_line
from impasto.inference.raster import Block, Raster
from impasto.inference.streams import BAND, FORMATS, libvips
from impasto.matrix_profile import MatrixProfile

CLASSIC = 2**32 - 2**20
"""Bytes of pixels from which on a TIFF has to be a BigTIFF."""

_LARGEST_SIDE = {"jpeg": 65500, "png": 2**31 - 1, "tiff": 2**31 - 1}


def in_profile(colours: Block, icc_profile: bytes | None) -> Block:
    """Colours (H, W, 3), uint8 or uint16, from sRGB into a profile that a `Reading` has given."""
    if icc_profile is None:
        return colours
    if colours.dtype == np.uint8:
        return np.asarray(from_srgb(Image.fromarray(colours), icc_profile))
    profile = MatrixProfile.parsed(icc_profile)
    return colours if profile is None else profile.from_srgb(colours)


def check_writable(format: str, height: int, width: int, output: str) -> None:
    """Raise `PictureError` if a picture of this size is not written by bands in this format."""
    if format not in FORMATS:
        raise PictureError(
            f"{output}: a picture painted by tiles is not written as {format}; choose {', '.join(FORMATS)}"
        )
    if max(height, width) > _LARGEST_SIDE[format]:
        raise PictureError(f"{output}: {format} holds {_LARGEST_SIDE[format]} pixels a side; got {width} x {height}")


def write(raster: Raster, head: Picture, format: str, file: BinaryIO, progress: Callable[[float], None]) -> None:
    """Write a picture's file.

    Args:
        raster: (H, W, 3) or (H, W, 4), in the colours of ``head.icc_profile``.
        head: what goes around the pixels.
        format: one of `FORMATS`. JPEG is of quality 95 without chroma subsampling; TIFF is not compressed.
        file: where to.
        progress: called with the share that is done.

    Raises:
        OSError: the disk does not take it.
    """
    options = file_options(head, format, 95)
    if format == "tiff":
        _write_tiff(raster, options, file, progress)
    else:
        _write_by_vips(raster, options, format, file, progress)


def _write_tiff(raster: Raster, options: dict[str, Any], file: BinaryIO, progress: Callable[[float], None]) -> None:
    """A TIFF of one pixel by Pillow, told of what size it is, and the pixels."""
    big = raster.bytes > CLASSIC
    buffer = io.BytesIO()
    pixel = Image.new("RGB" if raster.shape[2] == 3 else "RGBA", (1, 1))
    pixel.save(buffer, "TIFF", **options, **({"big_tiff": True} if big else {}))
    head = bytearray(buffer.getvalue())
    head += bytes(-len(head) % 16)
    if big and head[2] != 43:
        raise PictureError("a TIFF beyond 4 GB needs a newer Pillow; update it, or write PNG")
    _resize_tiff(head, raster, big)
    file.write(head)
    height, width, _ = raster.shape
    rows = max(1, BAND * height // raster.bytes)
    for top in range(0, height, rows):
        file.write(raster.read(top, 0, min(rows, height - top), width).data)
        progress(top / height)


def _resize_tiff(head: bytearray, raster: Raster, big: bool) -> None:
    """Change what the head of a TIFF says about the pixels, which begin behind it."""
    height, width, _ = raster.shape
    start, counts, entry, number, kind = ("<8xQ", "<Q", "<HHQQ", "<Q", 16) if big else ("<4xI", "<H", "<HHII", "<I", 4)
    values = {
        ExifTags.Base.ImageWidth: width,
        ExifTags.Base.ImageLength: height,
        ExifTags.Base.StripOffsets: len(head),
        ExifTags.Base.RowsPerStrip: height,
        ExifTags.Base.StripByteCounts: raster.bytes,
    }
    (directory,) = struct.unpack_from(start, head)
    (count,) = struct.unpack_from(counts, head, directory)
    first, length = directory + struct.calcsize(counts), struct.calcsize(entry)
    for place in range(first, first + count * length, length):
        tag, _, size, value = struct.unpack_from(entry, head, place)
        if tag in values:
            struct.pack_into(entry, head, place, tag, kind, 1, values[tag])
        elif tag == ExifTags.Base.BitsPerSample:
            inside = place + length - struct.calcsize(number)
            where = inside if 2 * size <= struct.calcsize(number) else value
            struct.pack_into(f"<{size}H", head, where, *[8 * raster.dtype.itemsize] * size)


def _write_by_vips(
    raster: Raster, options: dict[str, Any], format: str, file: BinaryIO, progress: Callable[[float], None]
) -> None:
    vips, (height, width, channels) = libvips(), raster.shape
    deep = raster.dtype.itemsize == 2
    image = vips.Image.rawload(
        str(raster.path),
        width,
        height,
        channels,
        format="ushort" if deep else "uchar",
        interpretation="rgb16" if deep else "srgb",
    ).copy()
    for field, key in (("icc-profile-data", "icc_profile"), ("exif-data", "exif")):
        if options.get(key):
            image.set_type(vips.GValue.blob_type, field, options[key])
    if "dpi" in options:
        x, y = options["dpi"]
        image = image.copy(xres=x / 25.4, yres=y / 25.4)
    image.set_progress(True)
    image.signal_connect("eval", lambda _, state: progress(state.percent / 100))
    failed: list[BaseException] = []

    def written(data: Any) -> int:
        try:
            return file.write(data)
        except BaseException as error:  # raised again when libvips has given up
            failed.append(error)
            return -1

    target = vips.TargetCustom()
    target.on_write(written)
    how = {"filter": "up"} if format == "png" else {"Q": options["quality"], "subsample_mode": "off"}
    try:
        getattr(image, f"{format}save_target")(target, **how)
    except vips.Error as error:
        if failed:
            raise failed[0] from error
        raise PictureError(f"{width} x {height} pixels cannot be written as {format}: {one_line(error)}") from error
    if failed:
        raise failed[0]
