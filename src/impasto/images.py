"""Pictures in and out of files: JPEG, PNG, WebP and TIFF, and BMP and GIF to read.

With `impasto.colour` and `impasto.exif` the only place that knows Pillow's modes, EXIF, ICC profiles, alpha, CMYK and
16 bit files. Everything else sees uint8 RGB ``(H, W, 3)`` in sRGB, the right way up.

What a file holds beyond that is kept beside it in a `Picture` and goes back into the file that is written: alpha, the
colour profile, EXIF, resolution. What cannot be kept: files of 16 bits a channel are read as 8 bit (the upper 8; 16 bit
comes with the pack's apply graph), of an animation only the first frame is read, grey and palette pictures come back in
colour, CMYK comes back as RGB.
"""

from __future__ import annotations

import io
import math
import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from impasto.colour import from_srgb, to_srgb
from impasto.errors import PictureError, TooManyPixels, WrongCall
from impasto.exif import upright
from impasto.formats import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from impasto.formats import WRITE_FORMATS, check_write_format, format_of, write_atomically, written_format

Array = npt.NDArray[np.uint8]

MAX_PIXELS = 178_000_000
"""Largest width times height that is decoded: just below the limit that Pillow itself sets for some formats."""

MIN_SIDE = 16
"""Smallest height and width in pixels that the networks paint."""

_PLUGINS: dict[str, type[ImageFile]] = {
    "jpeg": JpegImageFile,
    "png": PngImageFile,
    "webp": WebPImageFile,
    "tiff": TiffImageFile,
    "bmp": BmpImageFile,
    "gif": GifImageFile,
}


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
    """

    rgb: Array
    alpha: Array | None = None
    format: str = "png"
    icc_profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None

    def to_pil(self) -> Image.Image:
        """The pixels as a Pillow image in sRGB, mode RGB or (with alpha) RGBA."""
        image = Image.fromarray(self.rgb)
        if self.alpha is not None:
            image.putalpha(Image.fromarray(self.alpha))
        return image


def read_picture(source: str | os.PathLike[str] | BinaryIO, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture from a file, or from an open binary file that can seek.

    Raises:
        PictureError: the file is missing, empty, damaged, not a picture, or under 16 pixels a side.
        TooManyPixels: it claims to have more than ``max_pixels`` (looked up before anything is decoded).
    """
    if isinstance(source, str | os.PathLike):
        try:
            with Path(source).open("rb") as file:
                return _read(file, os.fspath(source), max_pixels)
        except OSError as error:
            raise PictureError(f"{os.fspath(source)}: cannot be read: {error.strerror or error}") from error
    return _read(source, str(getattr(source, "name", "the picture")), max_pixels)


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
            format, image = _open(file, str(path), MAX_PIXELS)
            if format == "jpeg":
                image.draft(image.mode, (short_side, short_side))
            rgb = _decode(image, format, str(path)).rgb
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
    _check_size(*image.size, "the image", MAX_PIXELS)
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
        dpi=_kept_dpi(image.info.get("dpi")),
    )


def picture_from_array(rgb: npt.NDArray[np.generic]) -> Picture:
    """A picture from an array that is already uint8 RGB ``(H, W, 3)``, sRGB.

    Raises:
        PictureError: another type or shape, or under 16 pixels a side.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise PictureError(f"expected a uint8 array (H, W, 3), RGB, 0 to 255; got {rgb.dtype} {rgb.shape}")
    _check_size(rgb.shape[1], rgb.shape[0], "the array", MAX_PIXELS)
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
    image = Image.fromarray(picture.rgb)
    if picture.icc_profile is not None:
        image = from_srgb(image, picture.icc_profile)
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    options: dict[str, object] = {"icc_profile": picture.icc_profile}
    if picture.exif is not None and (format != "jpeg" or len(picture.exif) < 65_500):  # one JPEG segment
        options["exif"] = picture.exif
    if picture.dpi is not None:
        options["dpi"] = picture.dpi
    if format in ("jpeg", "webp"):
        options["quality"] = quality
    if format == "jpeg":
        options["subsampling"] = "4:4:4"
    buffer = io.BytesIO()
    try:
        image.save(buffer, format.upper(), **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise PictureError(f"{image.width} x {image.height} pixels cannot be written as {format}: {error}") from error
    return buffer.getvalue()


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


def _read(file: BinaryIO, name: str, max_pixels: int) -> Picture:
    format, image = _open(file, name, max_pixels)
    return _decode(image, format, name)


def _open(file: BinaryIO, name: str, max_pixels: int) -> tuple[str, ImageFile]:
    """The format's name and the opened image: its header is read, no pixel decoded.

    Pillow's plug-ins are called directly, because ``Image.open`` has its own limit on pixels, which warns (or raises)
    and can be changed only for the whole process.
    """
    if not file.read(1):
        raise PictureError(f"{name}: the file is empty; expected a picture")
    for format, plugin in _PLUGINS.items():
        file.seek(0)
        try:
            image = plugin(file)
        except SyntaxError:  # so Pillow says "not this format"
            continue
        except Image.DecompressionBombError as error:
            raise TooManyPixels(f"{name}: {error}") from error
        except Exception as error:
            raise PictureError(f"{name}: cannot be decoded as {format}: {error or type(error).__name__}") from error
        _check_size(*image.size, name, max_pixels)
        return format, image
    raise PictureError(f"{name}: not a picture that can be read; expected {', '.join(_PLUGINS)}")


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise TooManyPixels(f"{name}: {width} x {height} pixels; expected at most {max_pixels} in all; shrink it first")
    if min(width, height) < MIN_SIDE:
        raise PictureError(f"{name}: {width} x {height} pixels; expected at least {MIN_SIDE} x {MIN_SIDE}")


def _decode(image: ImageFile, format: str, name: str) -> Picture:
    try:
        if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
            with warnings.catch_warnings():  # the TIFF plug-in warns while it decodes what we have let pass
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                image.load()
        return picture_from_pil(image, format=format)
    except PictureError as error:
        raise PictureError(f"{name}: {error}") from error
    except Exception as error:
        raise PictureError(f"{name}: cannot be decoded as {format}: {error or type(error).__name__}") from error


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


def _kept_dpi(dpi: object) -> tuple[float, float] | None:
    try:
        x, y = (float(value) for value in dpi)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 0 < x < 1e6 and 0 < y < 1e6 else None
