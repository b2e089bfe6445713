"""A video file, read: its upright frames with their times and colours, and what else is in it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import av

from impasto.decoders import MAX_PIXELS
from impasto.errors import PictureError, TooManyPixels
from impasto.images import MIN_SIDE
from impasto.inference.video_looks import looks_of, turned_size

COPIED = ("audio", "subtitle")
"""Kinds of streams whose packets are copied as they are."""

CUT_SHORT = 0.25
"""Seconds that a file may end before its header says."""

_PICTURES = ("image2", "_pipe")


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        pts: its time, in units of the stream's time base.
        duration: the same; 0 if it is not known.
        decoded: as it was in the file.
    """

    pts: int
    duration: int
    decoded: av.VideoFrame


class VideoSource:
    """A video file, opened anew whenever it is read from.

    Args:
        path: a file.

    Attributes:
        looks: what its frames share.
        expected: how many frames its header claims, or about how many there are; 0 if it does not say.
        copied: indices of the streams that are copied as they are.
        left_out: what is in the file and not in `copied`.

    Raises:
        PictureError: not a video, nothing but audio, no frame that can be decoded, or frames under 16 pixels a side.
        TooManyPixels: frames of more than `impasto.decoders.MAX_PIXELS`.
        OSError: no such file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.damage: str | None = None
        self._lost = 0
        with self.open() as container:
            if container.format.name.endswith(_PICTURES):
                raise PictureError(f"{path}: a picture, not a video; use impasto stylize")
            stream = self._stream(container)
            self.index = stream.index
            size = stream.codec_context.width, stream.codec_context.height
            if size[0] * size[1] > MAX_PIXELS:
                raise TooManyPixels(f"{path}: {size[0]} x {size[1]} pixels; expected at most {MAX_PIXELS}")
            length = float(container.duration or 0) / av.time_base
            self.expected = int(stream.frames or length * float(stream.average_rate or 0))
            others = [other for other in container.streams if other.index != stream.index]
            self.copied = tuple(other.index for other in others if other.type in COPIED)
            self.left_out = tuple(f"{other.type} stream {other.index}" for other in others if other.type not in COPIED)
            first = next(self._decoded(container, stream), None)
            if first is None:
                raise PictureError(f"{path}: no frame can be decoded; {self.damage or 'it holds none'}")
            self.looks = looks_of(stream, first)
        if min(self.looks.height, self.looks.width) < MIN_SIDE:
            size_text = f"{self.looks.width} x {self.looks.height} pixels"
            raise PictureError(f"{path}: {size_text}; expected at least {MIN_SIDE} x {MIN_SIDE}")

    @contextmanager
    def open(self) -> Iterator[Any]:
        """The container, open; raises `PictureError` if it is none."""
        try:
            container = av.open(os.fspath(self.path), metadata_errors="replace")
        except av.FFmpegError as error:
            if isinstance(error, OSError):
                raise
            raise PictureError(f"{self.path}: not a video, or cut off before its index: {error.strerror}") from error
        with container:
            yield container

    def frames(self, after: int | None = None) -> Iterator[Frame]:
        """The frames in the order they are shown; from the file's start, or from the key frame before a time on.

        What cannot be read or decoded is left out, and said in ``damage``.

        Raises:
            PictureError: frames of another size than the first, without times, or with times that go backwards.
        """
        self.damage = None
        last: int | None = None
        with self.open() as container:
            stream = container.streams[self.index]
            if after is not None:
                with suppress(av.FFmpegError):  # some formats cannot: then from the start
                    container.seek(after, stream=stream)
            for frame in self._decoded(container, stream):
                if turned_size(frame, self.looks.matrix) != (self.looks.height, self.looks.width):
                    raise PictureError(f"{self.path}: the size of frames changes to {frame.width} x {frame.height}")
                if frame.pts is None or (last is not None and frame.pts <= last):
                    if self._lost:  # what follows a damaged packet may have any time
                        continue
                    told = "has no time" if frame.pts is None else f"goes back in time to {frame.time:.3f} s"
                    raise PictureError(f"{self.path}: a frame {told}; write the file anew, such as with ffmpeg -c copy")
                last = frame.pts
                yield Frame(frame.pts, frame.duration or 0, frame)

    def chosen(self, times: Sequence[int]) -> Iterator[Frame]:
        """The frames of some times, rising; raises `PictureError` if one is not there."""
        frames = self.frames(times[0])
        first = next(frames, None)
        frames = self.frames() if first is None or first.pts > times[0] else chain([first], frames)
        wanted = iter(times)
        time = next(wanted)
        for frame in frames:
            if frame.pts > time:
                break
            if frame.pts == time:
                yield frame
                following = next(wanted, None)
                if following is None:
                    return
                time = following
        seconds = float(time * self.looks.time_base)
        raise PictureError(
            f"{self.path}: the frame at {seconds:.3f} s cannot be read again; if the file has changed, start anew"
        )

    def packets(self) -> Iterator[av.Packet[Any]]:
        """The packets of the streams that are copied, in the file's order, as far as they can be read."""
        with self.open() as container:
            if not self.copied:
                return
            try:
                for packet in container.demux([container.streams[index] for index in self.copied]):
                    if packet.size:
                        yield packet
            except av.FFmpegError:
                if self.damage is None:
                    raise

    def _stream(self, container: Any) -> Any:
        streams = [
            stream for stream in container.streams.video if not int(stream.disposition) & 0x400
        ]  # cover pictures
        if not streams:
            kinds = sorted({stream.type for stream in container.streams})
            if not kinds:
                raise PictureError(f"{self.path}: not a video, or cut off before its index: nothing is in it")
            raise PictureError(f"{self.path}: no video in it, only: {', '.join(kinds)}")
        if streams[0].codec_context is None:
            raise PictureError(f"{self.path}: this installation of PyAV has no decoder for its video")
        return streams[0]

    def _decoded(self, container: Any, stream: Any) -> Iterator[av.VideoFrame]:
        """Frames as far as they can be read; sets ``damage``."""
        end = 0.0
        self._lost = 0
        packets = container.demux()
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                if isinstance(error, OSError):
                    raise
                self.damage = f"it cannot be read on: {error.strerror}"
                return
            if packet is None:
                break
            if packet.pts is not None and packet.time_base:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != stream.index:
                continue
            self._lost += packet.is_corrupt
            try:
                yield from packet.decode()
            except av.FFmpegError:
                self._lost += 1
        length = (float(container.duration or 0) + float(container.start_time or 0)) / av.time_base
        if end < length - CUT_SHORT:
            self.damage = f"it is cut off at {end:.2f} of {length:.2f} s"
        elif self._lost:
            self.damage = f"{self._lost} packet{'' if self._lost == 1 else 's'} of its video cannot be decoded"
