"""Animations in and out of files: GIF, WebP and PNG to read, WebP and PNG to write."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from impasto.decoders import MAX_PIXELS, open_image
from impasto.errors import PictureError, TooManyPixels
from impasto.images import Picture, file_options, picture_from_pil

FORMATS = ("png", "webp")
"""The formats that animations are written in."""

READ_FORMATS = ("gif", "png", "webp")
"""The formats that animations are read from."""

MAX_FRAME_PIXELS = 1 << 26
"""Most pixels of all frames together: painted, they are in memory before the file is written, 4 bytes each."""


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        picture: all that is on the screen while it is shown, not only what has changed.
        milliseconds: how long it is shown.
    """

    picture: Picture
    milliseconds: float


class Animation:
    """An animated file, read frame by frame, again whenever it is iterated over.

    Args:
        file: open, binary, can seek; its name is in errors.
        max_pixels: most pixels of a frame.

    Attributes:
        count: how many frames there are.
        height: pixels.
        width: pixels.
        plays: how often it is played; 0 is for ever.

    Raises:
        PictureError: not an animation, damaged, or under 16 pixels a side.
        TooManyPixels: more than ``max_pixels``, or than `MAX_FRAME_PIXELS` together.
    """

    def __init__(self, file: BinaryIO, *, max_pixels: int = MAX_PIXELS) -> None:
        self._file, self._max_pixels = file, max_pixels
        self._name = str(getattr(file, "name", "the animation"))
        self._format, image = open_image(file, self._name, max_pixels)
        try:
            self._still = bool(getattr(image, "default_image", False))  # a PNG's picture for those who show no frames
            self.count = int(getattr(image, "n_frames", 1)) - self._still
        except Exception as error:
            raise self._damaged(error) from error
        self.width, self.height = image.size
        if self._format not in READ_FORMATS or self.count < 2:
            raise PictureError(f"{self._name}: not an animation")
        if self.count * self.width * self.height > MAX_FRAME_PIXELS:
            raise TooManyPixels(
                f"{self._name}: {self.count} frames of {self.width} x {self.height} pixels; expected at most "
                f"{MAX_FRAME_PIXELS} in all; shrink it first"
            )
        self.plays = _plays(image.info.get("loop"), self._format)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Frame]:
        """The frames in turn. Raises `PictureError` at one that is damaged."""
        format, image = open_image(self._file, self._name, self._max_pixels)
        for index in range(self._still, self.count + self._still):
            try:
                image.seek(index)
                image.load()
                frame = Frame(picture_from_pil(image, format=format), float(image.info.get("duration", 0)))
            except Exception as error:
                raise self._damaged(error) from error
            yield frame

    def sample(self, count: int) -> list[Picture]:
        """At most ``count`` of the frames, evenly spread from the first to the last."""
        count = min(count, self.count)
        wanted = {round(index * (self.count - 1) / max(count - 1, 1)) for index in range(count)}
        return [frame.picture for index, frame in enumerate(self) if index in wanted]

    def _damaged(self, error: Exception) -> PictureError:
        return PictureError(f"{self._name}: cannot be decoded as {self._format}: {error or type(error).__name__}")


def encode_animation(frames: Iterable[Frame], format: str, *, plays: int = 0, quality: int = 95) -> bytes:
    """The bytes of an animated file. Frames in a row that are equal become one that is shown as long as all of them.

    Args:
        frames: of one size; the first one says what else the file holds.
        format: one of `FORMATS`.
        plays: how often it is played; 0 is for ever.
        quality: 1 to 100, for WebP. PNG is exact.

    Raises:
        PictureError: frames that the format cannot hold (WebP: 16383 pixels a side).
    """
    frames = iter(frames)
    first = next(frames)
    images, times = [first.picture.in_profile()], [first.milliseconds]
    for frame in frames:
        images.append(frame.picture.in_profile())
        times.append(frame.milliseconds)
    options = file_options(first.picture, format, quality)
    options |= {"save_all": True, "append_images": images[1:], "duration": times, "loop": plays}
    if format == "webp":
        options["loop"] = min(plays, 65535)
    buffer = io.BytesIO()
    try:
        images[0].save(buffer, format.upper(), **options)
    except (OSError, ValueError, RuntimeError) as error:
        size = f"{len(images)} frames of {images[0].width} x {images[0].height} pixels"
        raise PictureError(f"{size} cannot be written as {format}: {error}") from error
    return buffer.getvalue()


def _plays(loop: object, format: str) -> int:
    """How often an animation is played; a GIF says how often it is repeated, or nothing: then it is played once."""
    if format == "gif":
        return 1 if loop is None else loop + 1 if isinstance(loop, int) and loop > 0 else 0
    return loop if isinstance(loop, int) else 0
