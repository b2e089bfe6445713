"""Files whose pixels are read a band at a time: TIFF, PNG and JPEG, by libvips.

What stands around the pixels is read by Pillow, as for other pictures (`impasto.images`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from impasto import deep_colour
from impasto.colour import to_srgb
from impasto.decoders import open_image
from impasto.errors import MissingExtra, PictureError, require
from impasto.exif import orientation
from impasto.images import Picture, kept_dpi, named_errors
from impasto.inference.raster import Block
from impasto.matrix_profile import MatrixProfile

FORMATS = ("tiff", "png", "jpeg")
"""What can be read and written by bands."""

BAND = 1 << 22
"""Bytes of a band, about."""

_PURPOSE = "a picture too large for one pass"
_MODES = {1: "L", 3: "RGB", 4: "CMYK"}


@dataclass(frozen=True)
class Source:
    """A picture's file whose head has been read.

    Attributes:
        name: the file.
        head: what the file says beside its pixels; ``rgb`` is a stand-in of one pixel, ``icc_profile`` as in the file.
        height: upright.
        width: upright.
        turn: EXIF's orientation, 1 to 8.
    """

    name: str
    head: Picture
    height: int
    width: int
    turn: int

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.height * self.width

    @classmethod
    def open(cls, name: str) -> Source:
        """Read a file's head.

        Raises:
            PictureError: as `impasto.images.read_picture`, but however large the picture is.
        """
        try:
            with open(name, "rb") as file:
                format, image = open_image(file, name, 1 << 62)
                with named_errors(name, format):
                    return cls._of(name, format, image)
        except OSError as error:
            raise PictureError(f"{name}: cannot be read: {error.strerror or error}") from error

    @classmethod
    def _of(cls, name: str, format: str, image: ImageFile) -> Source:
        # Pillow decodes a whole PNG to look for EXIF behind its pixels
        turn, exif = (1, None) if format == "png" and "exif" not in image.info else orientation(image)
        swapped = turn >= 5 and format != "tiff"  # of which Pillow gives the upright size
        width, height = image.size[::-1] if swapped else image.size
        head = Picture(
            rgb=np.zeros((1, 1, 3), np.uint8),
            format=format,
            icc_profile=image.info.get("icc_profile"),
            exif=exif,
            dpi=kept_dpi(image.info.get("dpi")),
            bits=16 if deep_colour.is_deep(image) else 8,
            frames=int(getattr(image, "n_frames", 1)) if format == "tiff" else 1,
        )
        return cls(name, head, height, width, turn)


class Reading:
    """The pixels of a source, to be decoded from top to bottom.

    Attributes:
        dtype: of the values that come, uint8 or uint16; uint8 also for 16 bits in a colour profile other than of RGB by
            curves and a matrix.
        has_alpha: whether a fourth channel comes.
        icc_profile: as of `Picture`: what is to be converted to when it is written.

    Raises:
        MissingExtra: libvips is not installed.
        PictureError: a file or a layout that is not read so.
    """

    def __init__(self, source: Source) -> None:
        self._source, format = source, source.head.format
        if format not in FORMATS:
            raise PictureError(f"{source.name}: {format} is not read by bands; expected {', '.join(FORMATS)}")
        vips = libvips()
        more = {} if format == "tiff" else {"unlimited": True}
        with named_errors(source.name, format):
            self._image = getattr(vips.Image, f"{format}load")(
                source.name, access="sequential", fail_on="error", **more
            )
        image = self._image
        self.has_alpha = bool(image.hasalpha())
        mode = _MODES.get(image.bands - self.has_alpha)
        if (
            mode is None
            or image.format not in ("uchar", "ushort")
            or (mode == "CMYK") != (image.interpretation == "cmyk")
        ):
            raise PictureError(
                f"{source.name}: {image.bands} channels of {image.format} ({image.interpretation}); expected 8 or 16 "
                "bits a channel, grey, RGB or CMYK"
            )
        self._mode, icc_profile = mode, source.head.icc_profile
        self._profile = MatrixProfile.parsed(icc_profile) if icc_profile and mode == "RGB" else None
        deep = image.format == "ushort" and mode != "CMYK" and (not icc_profile or self._profile is not None)
        self.dtype = "<u2" if deep else "u1"
        self.icc_profile = icc_profile if deep else to_srgb(Image.new(mode, (1, 1)), icc_profile)[1]

    def blocks(self) -> Iterator[tuple[int, int, Block]]:
        """The picture upright, in parts: the row and the column of the first pixel, and the values (h, w, 3 or 4).

        Raises:
            PictureError: the file is damaged.
        """
        image, source = self._image, self._source
        region = libvips().Region.new(image)
        line = image.width * image.bands * (2 if image.format == "ushort" else 1)
        rows = max(1, BAND // line)
        for top in range(0, image.height, rows):
            count = min(rows, image.height - top)
            with named_errors(source.name, source.head.format):
                data = region.fetch(0, top, image.width, count)
            values = np.frombuffer(data, np.uint16 if image.format == "ushort" else np.uint8)
            block = self._in_srgb(values.reshape(count, image.width, image.bands))
            yield _turned(block, top, source)

    def _in_srgb(self, values: Block) -> Block:
        channels = values.shape[2] - self.has_alpha
        if values.dtype == np.uint16 and self.dtype == "u1":
            values = (values >> 8).astype(np.uint8)
        colours, alpha = values[..., :channels], values[..., channels:]
        if self.dtype == "<u2":
            colours = np.repeat(colours, 3, axis=2) if channels == 1 else colours
            colours = colours if self._profile is None else self._profile.to_srgb(colours)
        else:
            image = Image.fromarray(np.ascontiguousarray(colours[..., 0] if channels == 1 else colours), self._mode)
            colours = np.asarray(to_srgb(image, self._source.head.icc_profile)[0])
        return np.concatenate([colours, alpha], axis=2)


def libvips() -> Any:
    """The module pyvips.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return require("pyvips", purpose=_PURPOSE, extra="huge")
    except OSError as error:  # the module is, the library is not
        raise MissingExtra(_PURPOSE, "huge", "pyvips-binary") from error


def _turned(block: Block, top: int, source: Source) -> tuple[int, int, Block]:
    """Rows from ``top`` of a file, turned the right way up, and where they go."""
    turn, left = source.turn, 0
    if turn >= 5:
        block, top, left = block.swapaxes(0, 1), 0, top
    if turn in (3, 4, 7, 8):
        block, top = block[::-1], source.height - top - block.shape[0]
    if turn in (2, 3, 6, 7):
        block, left = block[:, ::-1], source.width - left - block.shape[1]
    return top, left, block
