"""Writing a video: encoders and their licences, pieces that survive a kill, and the file they are joined to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from heapq import merge
from pathlib import Path
from typing import Any

import av
import numpy.typing as npt

from impasto.errors import PictureError, WrongCall, unknown_name
from impasto.formats import write_atomically
from impasto.inference.video_looks import Looks, to_frame
from impasto.inference.video_source import VideoSource


@dataclass(frozen=True)
class Encoder:
    """One of FFmpeg's encoders.

    Attributes:
        codec: what it writes.
        licence: of the library, not of the files it writes.
        crf: its constant rate factor if none is asked for; None if it has none.
        even: whether sides have to be even with chroma at half size; it takes chroma at full size for the others.
        deep: its pixel format with more than 8 bits, if it has one.
        format: its pixel format with 8.
        options: as FFmpeg's.
    """

    codec: str
    licence: str
    crf: int | None
    even: bool = False
    deep: str | None = None
    format: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)


ENCODERS = {
    "libx264": Encoder("H.264", "GPL-2.0-or-later", 18, even=True, deep="yuv420p10le", options={"preset": "medium"}),
    "libsvtav1": Encoder("AV1", "BSD-3-Clause-Clear", 25, deep="yuv420p10le", options={"preset": "8"}),
    "libvpx-vp9": Encoder("VP9", "BSD-3-Clause", 24, options={"b": "0", "cpu-used": "4", "row-mt": "1"}),
    "ffv1": Encoder("FFV1, lossless", "LGPL-2.1-or-later", None, deep="gbrp16le", format="bgr0"),
}
"""The encoders by FFmpeg's names."""

CONTAINERS = {
    ".mp4": ("mp4", ("libx264", "libsvtav1", "libvpx-vp9")),
    ".m4v": ("mp4", ("libx264", "libsvtav1", "libvpx-vp9")),
    ".mov": ("mov", ("libx264",)),
    ".mkv": ("matroska", ("libx264", "libsvtav1", "libvpx-vp9", "ffv1")),
    ".webm": ("webm", ("libvpx-vp9", "libsvtav1")),
}
"""By suffix, FFmpeg's name of the container and the encoders for it, the one that is taken first."""

_OPTIONS = {"mp4": {"movflags": "+faststart"}, "mov": {"movflags": "+faststart"}}
_MADE_BY_MUXERS = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}


@dataclass(frozen=True)
class Target:
    """How a video is written.

    Attributes:
        container: FFmpeg's name.
        encoder: one of `ENCODERS`.
        format: the pixel format.
        crf: constant rate factor; None for an encoder without.
    """

    container: str
    encoder: str
    format: str
    crf: int | None

    def set_up(self, context: Any, looks: Looks, threads: int | None) -> None:
        """Ready a codec context of the encoder."""
        context.width, context.height, context.pix_fmt = looks.width, looks.height, self.format
        context.time_base, context.framerate = looks.time_base, looks.rate
        context.sample_aspect_ratio = looks.aspect
        context.color_primaries, context.color_trc = looks.colours.primaries, looks.colours.transfer
        if self.format.startswith("yuv"):
            context.color_range, context.colorspace = looks.colours.range, looks.colours.matrix
        rate_factor = {} if self.crf is None else {"crf": str(self.crf)}
        context.options = ENCODERS[self.encoder].options | rate_factor
        context.thread_count = threads or 0
        context.flags |= av.codec.context.Flags.global_header


def choose_target(output: Path, looks: Looks, encoder: str | None = None, crf: int | None = None) -> Target:
    """What a file is written as: the container by its suffix, the encoder asked for or the first there is for it.

    Raises:
        WrongCall: an unknown suffix or encoder, one that the container does not take or PyAV was built without, or a
            rate factor for an encoder that has none.
    """
    if output.suffix.lower() not in CONTAINERS:
        raise WrongCall(f"{output}: unknown container {output.suffix!r}; expected one of: {', '.join(CONTAINERS)}")
    container, known = CONTAINERS[output.suffix.lower()]
    if encoder is not None and encoder not in ENCODERS:
        raise unknown_name("encoder", encoder, ENCODERS)
    if encoder is not None and encoder not in known:
        raise WrongCall(f"{encoder} is not for {output.suffix}; expected one of: {', '.join(known)}")
    there = [name for name in known if name in av.codecs_available]
    if not there or (encoder is not None and encoder not in there):
        raise WrongCall(f"this installation of PyAV has no {encoder or known[0]}; it has: {', '.join(there) or 'none'}")
    name = encoder or there[0]
    kind = ENCODERS[name]
    if crf is not None and kind.crf is None:
        raise WrongCall(f"{name} is lossless and takes no --crf")
    format = kind.deep if looks.bits > 8 and kind.deep is not None else kind.format
    if kind.even and (looks.width % 2 or looks.height % 2):
        format = format.replace("420", "444")
    return Target(container, name, format, kind.crf if crf is None else crf)


@dataclass(frozen=True)
class Times:
    """When each frame is shown, in units of the time base.

    Attributes:
        pts: rising.
        durations: 0 where it is not known.
    """

    pts: Sequence[int]
    durations: Sequence[int]


def encode_piece(
    pictures: Iterable[npt.NDArray[Any]],
    times: Times,
    path: Path,
    target: Target,
    looks: Looks,
    threads: int | None,
) -> None:
    """Write a piece, from a key frame on and needing no other: a line of JSON and its packets' bytes in a row.

    Raises:
        OSError: naming ``path``, if the disk does not take it.
        PictureError: the encoder fails.
    """
    context: Any = av.CodecContext.create(target.encoder, "w")
    target.set_up(context, looks, threads)

    def encode(frame: av.VideoFrame | None) -> list[av.Packet[Any]]:
        try:
            made: list[av.Packet[Any]] = context.encode(frame)
        except av.FFmpegError as error:
            size = f"{looks.width} x {looks.height} pixels"
            raise PictureError(f"{target.encoder} fails at {size}: {error.strerror}") from error
        return made

    packets = []
    for picture, pts, duration in zip(pictures, times.pts, times.durations, strict=True):
        frame = to_frame(picture, target.format, looks)
        frame.pts, frame.time_base, frame.duration = pts, looks.time_base, duration
        packets += encode(frame)
    packets += encode(None)
    head = json.dumps([[packet.pts, packet.size, packet.is_keyframe] for packet in packets]).encode()
    write_atomically(path, b"\n".join([head, b"".join(bytes(packet) for packet in packets)]))


def join(
    source: VideoSource,
    pieces: Sequence[Path],
    times: Times,
    path: Path,
    target: Target,
    threads: int | None,
) -> None:
    """Put pieces, and what the source has beside its pictures, into one file.

    Raises:
        WrongCall: a stream that the container cannot hold.
        OSError: if the disk does not take it.
    """
    kept = 0
    with source.open() as original:
        try:
            with av.open(
                os.fspath(path), "w", format=target.container, options=_OPTIONS.get(target.container, {})
            ) as out:
                streams = _add_streams(source, original, out, target, threads)
                painted = _packets(pieces, times, source.looks.time_base, streams[source.index])
                copied = _retimed(source.packets(), streams)
                for _, packet in merge(painted, copied, key=lambda item: item[0]):
                    out.mux_one(packet)
                    kept += 1
        except av.FFmpegError as error:
            if isinstance(error, OSError):
                raise OSError(error.errno, error.strerror, error.filename or str(path)) from error
            raise PictureError(f"{source.path}: cannot be put into {target.container}: {error.strerror}") from error
    with av.open(os.fspath(path)) as written:  # a full disk is not always said
        there = sum(1 for packet in written.demux() if packet.size)
    if there != kept:
        raise OSError(5, f"{there} of {kept} packets are in the file; is the disk full?", str(path))


def check_streams(source: VideoSource, output: Path, target: Target) -> None:
    """Raise `WrongCall` if the container cannot hold a stream that is to be copied."""
    with source.open() as original, av.open(os.devnull, "w", format=target.container) as out:
        for index in source.copied:
            stream = original.streams[index]
            name = stream.codec_context.codec.canonical_name if stream.codec_context else stream.name
            try:
                out.add_stream_from_template(stream)
            except (ValueError, av.FFmpegError):
                raise WrongCall(
                    f"{output.suffix} cannot hold the {stream.type} of {source.path} ({name}); "
                    f"take {source.path.suffix} or .mkv"
                ) from None


def _add_streams(source: VideoSource, original: Any, out: Any, target: Target, threads: int | None) -> dict[int, Any]:
    """The streams of the new file by their indices in the source; all of them, before any packet is written."""
    streams = {}
    for stream in original.streams:
        if stream.index == source.index:
            made = out.add_stream(target.encoder, rate=source.looks.rate)
            target.set_up(made.codec_context, source.looks, threads)
            made.time_base = source.looks.time_base
        elif stream.index in source.copied:
            made = out.add_stream_from_template(stream)
            made.time_base = stream.time_base
        else:
            continue
        made.metadata.update({key: value for key, value in stream.metadata.items() if key not in _MADE_BY_MUXERS})
        made.disposition = stream.disposition
        streams[stream.index] = made
    out.metadata.update({key: value for key, value in original.metadata.items() if key not in _MADE_BY_MUXERS})
    if chapters := original.chapters():
        out.set_chapters(chapters)
    return streams


def _packets(
    pieces: Sequence[Path], times: Times, unit: Fraction, stream: Any
) -> Iterator[tuple[Fraction, av.Packet[Any]]]:
    """The packets of all pieces with the time to write them at.

    A packet's decoding time is the time of the frame that is shown as many places before it as frames are reordered by.
    """
    durations = dict(zip(times.pts, times.durations, strict=True))
    coded = [entry for piece in pieces for entry in _head(piece)]
    places = {pts: place for place, pts in enumerate(times.pts)}
    delay = max(index - places[pts] for index, (pts, _, _) in enumerate(coded))
    step = min((after - before for before, after in zip(times.pts, times.pts[1:], strict=False)), default=1)
    early = [times.pts[0] - step * (delay - index) for index in range(delay)]
    decoding = iter([*early, *times.pts])
    for piece in pieces:
        with piece.open("rb") as file:
            for pts, size, key in json.loads(file.readline()):
                packet = av.Packet(file.read(size))
                packet.stream, packet.time_base = stream, unit
                packet.pts, packet.dts, packet.duration = pts, next(decoding), durations[pts]
                packet.is_keyframe = key
                yield packet.dts * unit, packet


def _head(piece: Path) -> list[tuple[int, int, bool]]:
    with piece.open("rb") as file:
        entries: list[tuple[int, int, bool]] = json.loads(file.readline())
    return entries


def _retimed(packets: Iterable[av.Packet[Any]], streams: dict[int, Any]) -> Iterator[tuple[Fraction, av.Packet[Any]]]:
    """Packets given to their new streams, with the time to write them at."""
    time = Fraction(0)
    for packet in packets:
        at = packet.dts if packet.dts is not None else packet.pts
        if at is not None:
            time = at * packet.time_base
        packet.stream = streams[packet.stream_index]
        yield time, packet
