"""Pictures in and out of files: JPEG, PNG, WebP and TIFF, and BMP and GIF to read.

With its neighbours (`impasto.decoders`, `impasto.animation`, `impasto.deep_colour`, `impasto.colour`, `impasto.exif`)
the only place that knows Pillow's modes, EXIF, ICC profiles, alpha, CMYK and 16 bit files. Everything else sees uint8
RGB ``(H, W, 3)`` in sRGB, the right way up.

What a file holds beyond that is kept beside it in a `Picture` and goes back into the file that is written: alpha, the
colour profile, EXIF, resolution. 16 bits a channel are read on demand, frames by `impasto.animation`. What cannot be
kept: grey and palette pictures come back in colour, CMYK comes back as RGB, and of several pages the first is read.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from PIL.ImageFile import ImageFile

from impasto import deep_colour
from impasto.colour import from_srgb, to_srgb
from impasto.decoders import MAX_PIXELS as MAX_PIXELS
from impasto.decoders import MIN_SIDE as MIN_SIDE
from impasto.decoders import check_size, load, open_image
from impasto.errors import PictureError, WrongCall
from impasto.exif import upright
from impasto.formats import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from impasto.formats import WRITE_FORMATS, check_write_format, format_of, write_atomically, written_format
from impasto.transparency import fill_unseen

Array = npt.NDArray[np.uint8]

Deep = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Picture:
    """A picture, and what its file said about it.

    Attributes:
        rgb: uint8 ``(H, W, 3)``, sRGB, upright.
        alpha: uint8 ``(H, W)``, 255 is opaque; None for a picture without transparency.
        format: a name in `impasto.formats.SUFFIXES`.
        icc_profile: the profile to convert to when the picture is written; None for sRGB without a profile.
        exif: EXIF block with the orientation "upright"; None if there is none.
        dpi: horizontal and vertical resolution in pixels per inch, or None.
        bits: bits a channel in the file, 8 (or less) or 16.
        frames: frames of an animation or pages in the file, of which this is the first.
        deep: all 16 bits of ``rgb``, and of ``alpha`` if there is one: uint16 ``(H, W, 3)`` or ``(H, W, 4)``; only if
            they were asked for and can be had. It is then what is written.
    """

    rgb: Array
    alpha: Array | None = None
    format: str = "png"
    icc_profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    bits: int = 8
    frames: int = 1
    deep: Deep | None = None

    def seen(self) -> Array:
        """``rgb`` for a network: what is fully transparent is filled from what is seen (`fill_unseen`)."""
        return self.rgb if self.alpha is None else fill_unseen(self.rgb, self.alpha)

    def to_pil(self) -> Image.Image:
        """The pixels as a Pillow image in sRGB, mode RGB or (with alpha) RGBA."""
        image = Image.fromarray(self.rgb)
        if self.alpha is not None:
            image.putalpha(Image.fromarray(self.alpha))
        return image

    def in_profile(self) -> Image.Image:
        """The same in the colours of ``icc_profile``, as they stand in a file."""
        image = Image.fromarray(self.rgb)
        if self.icc_profile is not None:
            image = from_srgb(image, self.icc_profile)
        if self.alpha is not None:
            image.putalpha(Image.fromarray(self.alpha))
        return image


def read_picture(
    source: str | os.PathLike[str] | BinaryIO, *, max_pixels: int = MAX_PIXELS, deep: bool = False
) -> Picture:
    """Read a picture from a file, or from an open binary file that can seek.

    Args:
        source: the file.
        max_pixels: most pixels that are decoded.
        deep: keep 16 bits a channel in ``Picture.deep``, where the file has them and `impasto.deep_colour` reads them.

    Raises:
        PictureError: the file is missing, empty, damaged, not a picture, or under 16 pixels a side.
        TooManyPixels: it claims to have more than ``max_pixels`` (looked up before anything is decoded).
    """
    if isinstance(source, str | os.PathLike):
        try:
            with Path(source).open("rb") as file:
                return _read(file, os.fspath(source), max_pixels, deep)
        except OSError as error:
            raise PictureError(f"{os.fspath(source)}: cannot be read: {error.strerror or error}") from error
    return _read(source, str(getattr(source, "name", "the picture")), max_pixels, deep)


def read_rgb(path: str | os.PathLike[str], *, short_side: int | None = None) -> Array:
    """The pixels of a file for a training loader: uint8 RGB ``(H, W, 3)``, sRGB, upright.

    Args:
        path: the file.
        short_side: shrink so that the shorter side has this many pixels, cheaply: a JPEG is decoded at an eighth, a
            quarter or half its size where that suffices. A smaller picture is not enlarged.

    Raises:
        PictureError: as `read_picture`.
    """
    if short_side is None:
        return read_picture(path).rgb
    try:
        with Path(path).open("rb") as file:
            format, image = open_image(file, str(path), MAX_PIXELS)
            if format == "jpeg":
                image.draft(image.mode, (short_side, short_side))
            with named_errors(str(path), format):
                rgb = _decode(image, format).rgb
    except OSError as error:
        raise PictureError(f"{path}: cannot be read: {error.strerror or error}") from error
    height, width = rgb.shape[:2]
    scale = short_side / min(height, width)
    if scale >= 1:
        return rgb
    size = (max(short_side, round(width * scale)), max(short_side, round(height * scale)))
    return np.array(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0))


def picture_from_pil(image: Image.Image, *, format: str = "png") -> Picture:
    """A picture from a Pillow image of any mode: upright, in sRGB. The image itself is not changed.

    Raises:
        PictureError: the image is under 16 pixels a side, or of a mode that is not a picture's (I, F, LAB).
    """
    check_size(*image.size, "the image", MAX_PIXELS)
    image.load()
    bits = getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, (16,))[0]
    turned, exif = upright(image)
    colour, alpha = _split_alpha(turned, bits)
    rgb, profile = to_srgb(colour, image.info.get("icc_profile"))
    return Picture(
        rgb=np.array(rgb),
        alpha=None if alpha is None else np.array(alpha),
        format=format,
        icc_profile=profile,
        exif=exif,
        dpi=kept_dpi(image.info.get("dpi")),
    )


def picture_from_array(rgb: npt.NDArray[np.generic]) -> Picture:
    """A picture from an array that is already uint8 RGB ``(H, W, 3)``, sRGB.

    Raises:
        PictureError: another type or shape, or under 16 pixels a side.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise PictureError(f"expected a uint8 array (H, W, 3), RGB, 0 to 255; got {rgb.dtype} {rgb.shape}")
    check_size(rgb.shape[1], rgb.shape[0], "the array", MAX_PIXELS)
    return Picture(rgb=rgb.astype(np.uint8, copy=False))


def encode_picture(picture: Picture, format: str | None = None, *, quality: int = 95) -> bytes:
    """The bytes of a file with this picture.

    Args:
        picture: what to write; its colours are converted to ``picture.icc_profile``, which is attached.
        format: one of `impasto.formats.WRITE_FORMATS`; None for the format it was read from (BMP and GIF: PNG).
        quality: 1 to 100, for JPEG (4:4:4, no chroma subsampling) and WebP. PNG and TIFF (not compressed) are exact.

    Raises:
        WrongCall: a format that cannot be written.
        PictureError: transparency into JPEG, or a picture that the format cannot hold (WebP: 16383 pixels a side).
    """
    format = check_write_format(format or written_format(picture.format))
    if format == "jpeg":
        if picture.alpha is not None and picture.alpha.min() < 255:
            raise PictureError(
                "the picture is transparent in places, which JPEG cannot hold; write PNG, WebP or TIFF "
                "(into a folder: --format png)"
            )
        picture = replace(picture, alpha=None)
    options = file_options(picture, format, quality)
    if picture.deep is not None and format in deep_colour.FORMATS:
        return deep_colour.encode(picture.deep, format, options)
    image, buffer = picture.in_profile(), io.BytesIO()
    try:
        image.save(buffer, format.upper(), **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise PictureError(f"{image.width} x {image.height} pixels cannot be written as {format}: {error}") from error
    return buffer.getvalue()


def file_options(picture: Picture, format: str, quality: int) -> dict[str, object]:
    """What Pillow is to write into a file beside the pixels, and how."""
    options: dict[str, object] = {"icc_profile": picture.icc_profile}
    if picture.exif is not None and (format != "jpeg" or len(picture.exif) < 65_500):  # one JPEG segment
        options["exif"] = picture.exif
    if picture.dpi is not None:
        options["dpi"] = picture.dpi
    if format in ("jpeg", "webp"):
        options["quality"] = quality
    if format == "jpeg":
        options["subsampling"] = "4:4:4"
    return options


def write_picture(
    picture: Picture, path: str | os.PathLike[str], format: str | None = None, *, quality: int = 95
) -> None:
    """Write a picture to a file: whole, or (on any failure) not at all.

    Args:
        picture: what to write.
        path: the file; one that exists is replaced.
        format: as `encode_picture`; None for the format that the suffix of ``path`` stands for.
        quality: as `encode_picture`.

    Raises:
        WrongCall: a format that cannot be written.
        PictureError: as `encode_picture`, with the file's name.
        OSError: the folder or the disk does not take the file.
    """
    format = format or format_of(path)
    if format is None:
        raise WrongCall(f"{path}: the suffix names no picture format; expected {', '.join(WRITE_FORMATS)}")
    try:
        data = encode_picture(picture, format, quality=quality)
    except PictureError as error:
        raise PictureError(f"{path}: {error}") from error
    write_atomically(path, data)


def _read(file: BinaryIO, name: str, max_pixels: int, deep: bool) -> Picture:
    format, image = open_image(file, name, max_pixels)
    with named_errors(name, format):
        picture = replace(_decode(image, format), frames=_frames(image))
        if picture.bits == 8 or not deep:
            return picture
        return replace(picture, deep=deep_colour.read(lambda: open_image(file, name, max_pixels)[1]))


def _frames(image: ImageFile) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # what is wrong with a later frame does not concern the first
        return 1


@contextmanager
def named_errors(name: str, format: str) -> Iterator[None]:
    """Raise what goes wrong in decoding a file as `PictureError` with its name."""
    try:
        yield
    except PictureError as error:
        raise PictureError(f"{name}: {error}") from error
    except Exception as error:
        raise PictureError(f"{name}: cannot be decoded as {format}: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """What an error says, or else its name."""
    return " ".join(str(error).split()) or type(error).__name__


def _decode(image: ImageFile, format: str) -> Picture:
    bits = 16 if deep_colour.is_deep(image) else 8
    load(image)
    return replace(picture_from_pil(image, format=format), bits=bits)


def _split_alpha(image: Image.Image, bits: int) -> tuple[Image.Image, Image.Image | None]:
    """Colour in mode RGB, L or CMYK, and alpha in mode L or None; ``bits`` is the depth of mode I;16."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> (bits - 8)).astype(np.uint8)), None
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        grey = image.mode in ("1", "L", "LA", "La")
        return (image.convert("L") if grey else rgba.convert("RGB")), rgba.getchannel("A")
    if image.mode in ("1", "L"):
        return image.convert("L"), None
    if image.mode == "CMYK":
        return image, None
    if image.mode in ("P", "RGB", "RGBX", "YCbCr", "HSV"):
        return image.convert("RGB"), None
    raise PictureError(f"pixels of Pillow's mode {image.mode}; expected 8 or 16 bits a channel, grey, RGB or CMYK")


def kept_dpi(dpi: object) -> tuple[float, float] | None:
    """Resolution in pixels per inch, as Pillow has read it; None if it is none."""
    try:
        x, y = (float(value) for value in dpi)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 0 < x < 1e6 and 0 < y < 1e6 else None
