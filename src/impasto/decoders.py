"""Which of Pillow's plug-ins reads a file, and how large a picture may be."""

from __future__ import annotations

import math
import warnings
from typing import BinaryIO

from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from impasto.errors import PictureError, TooManyPixels

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


def open_image(file: BinaryIO, name: str, max_pixels: int) -> tuple[str, ImageFile]:
    """The format's name and the opened image: its header is read, no pixel decoded.

    Pillow's plug-ins are called directly, because ``Image.open`` has its own limit on pixels, which warns (or raises)
    and can be changed only for the whole process.

    Raises:
        PictureError: the file is empty, not a picture, damaged, or under 16 pixels a side.
        TooManyPixels: it claims to have more than ``max_pixels``.
    """
    file.seek(0)
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
        check_size(*image.size, name, max_pixels)
        return format, image
    raise PictureError(f"{name}: not a picture that can be read; expected {', '.join(_PLUGINS)}")


def load(image: ImageFile) -> None:
    """Decode the pixels."""
    if image.width * image.height <= (Image.MAX_IMAGE_PIXELS or math.inf):
        image.load()
        return
    with warnings.catch_warnings():  # the TIFF plug-in warns while it decodes what we have let pass
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image.load()


def check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    """Raise `PictureError` or `TooManyPixels` for a picture that is too small or too large."""
    if width * height > max_pixels:
        raise TooManyPixels(f"{name}: {width} x {height} pixels; expected at most {max_pixels} in all; shrink it first")
    if min(width, height) < MIN_SIDE:
        raise PictureError(f"{name}: {width} x {height} pixels; expected at least {MIN_SIDE} x {MIN_SIDE}")
