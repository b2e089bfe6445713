"""Pictures that move: animated WebP by Pillow, MP4 by PyAV."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from impasto.errors import WrongCall, require
from impasto.formats import write_atomically

Format = Literal["webp", "mp4"]

QUALITY = 85
"""Of the WebP's frames, 1 to 100."""

_CODECS = {"libx264": {"crf": "18"}, "mpeg4": {"flags": "+qscale", "global_quality": str(2 * 118)}}
"""Video codecs with their settings, the best one first; the second comes with every build of FFmpeg."""

_BT709 = 1


def encode_animation(frames: Sequence[Image.Image], format: Format, *, fps: float = 12.0, hold: float = 1.5) -> bytes:
    """The bytes of a file that shows pictures one after the other.

    WebP repeats without end, and stores equal neighbours once, for the time of both. MP4 is H.264 (MPEG-4 part 2 where
    PyAV has no x264), yuv420p, BT.709, which needs an even width and height: a row or column at the edge is doubled,
    so that nothing of the picture is lost. It has a constant frame rate, the last frame repeated: some players ignore
    how long a file says that its last frame stays.

    Args:
        frames: pictures of one size; transparency is dropped.
        format: "webp" or "mp4".
        fps: frames per second, 0.1 to 240.
        hold: seconds that the last frame stays, 0 to 3600, but at least ``1 / fps``.

    Raises:
        WrongCall: no frames, frames of several sizes, too large ones for WebP (16383 pixels a side), another format,
            or times out of range.
        MissingExtra: MP4, and PyAV is not installed.
    """
    _check(frames, format, fps, hold)
    return (_webp if format == "webp" else _mp4)(frames, fps, hold)


def write_animation(
    frames: Sequence[Image.Image], path: str | os.PathLike[str], *, fps: float = 12.0, hold: float = 1.5
) -> None:
    """Write an animation to a ``.webp`` or ``.mp4`` file: whole, or (on any failure) not at all.

    Raises:
        WrongCall, MissingExtra: as `encode_animation` and `animation_format`.
        OSError: the folder or the disk does not take the file.
    """
    write_atomically(path, encode_animation(frames, animation_format(path), fps=fps, hold=hold))


def animation_format(path: str | os.PathLike[str]) -> Format:
    """The format that a file name's suffix stands for. Ask before the frames are made: it fails where writing would.

    Raises:
        WrongCall: the suffix is neither ``.webp`` nor ``.mp4``.
        MissingExtra: MP4, and PyAV is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".webp":
        return "webp"
    if suffix == ".mp4":
        require("av", purpose="writing MP4", extra="video")
        return "mp4"
    raise WrongCall(f"{os.fspath(path)}: got the suffix {suffix!r}, expected .webp or .mp4 for an animation")


def _check(frames: Sequence[Image.Image], format: str, fps: float, hold: float) -> None:
    if format not in get_args(Format):
        raise WrongCall(f"an animation: got the format {format!r}, expected webp or mp4")
    if not (0.1 <= fps <= 240 and 0 <= hold <= 3600):
        raise WrongCall(
            f"an animation: got fps={fps:g}, hold={hold:g}, expected fps 0.1 to 240, hold 0 to 3600 seconds"
        )
    sizes = sorted({frame.size for frame in frames})
    if len(sizes) != 1:
        got = "frames of " + ", ".join(f"{w} x {h}" for w, h in sizes) if sizes else "no frames"
        raise WrongCall(f"an animation: got {got}, expected one or more of one size")
    if format == "webp" and max(sizes[0]) > 16383:
        raise WrongCall(f"an animation: {sizes[0][0]} x {sizes[0][1]} pixels; WebP holds at most 16383 a side")


def _webp(frames: Sequence[Image.Image], fps: float, hold: float) -> bytes:
    starts = [round(1000 * index / fps) for index in range(len(frames))]
    ends = [*starts[1:], starts[-1] + round(1000 * max(hold, 1 / fps))]
    durations = [end - start for start, end in zip(starts, ends, strict=True)]
    first, *rest = (frame.convert("RGB") for frame in frames)
    buffer = io.BytesIO()
    first.save(buffer, "WEBP", save_all=True, append_images=rest, duration=durations, loop=0, quality=QUALITY)
    return buffer.getvalue()


def _mp4(frames: Sequence[Image.Image], fps: float, hold: float) -> bytes:
    av = require("av", purpose="writing MP4", extra="video")
    codec = next(name for name in _CODECS if name in av.codecs_available)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        rate = Fraction(fps).limit_denominator(1001)
        stream = file.add_stream(codec, rate=rate, options=_CODECS[codec])
        stream.height, stream.width = _even(frames[0]).shape[:2]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = 1  # 16 to 235
        for index, rgb in enumerate(_held(frames, max(1, round(hold * fps)))):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=_BT709, dst_color_range=1)
            frame.pts, frame.time_base = index, 1 / rate
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return buffer.getvalue()


def _held(frames: Sequence[Image.Image], times: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Frames as uint8 RGB (H, W, 3) of even sides, the last one ``times`` times."""
    for frame in frames[:-1]:
        yield _even(frame)
    last = _even(frames[-1])
    for _ in range(times):
        yield last


def _even(frame: Image.Image) -> npt.NDArray[np.uint8]:
    """uint8 RGB (H, W, 3) of even sides: the last row or column doubled where one is missing."""
    rgb = np.asarray(frame.convert("RGB"))
    return np.pad(rgb, ((0, rgb.shape[0] % 2), (0, rgb.shape[1] % 2), (0, 0)), mode="edge")
