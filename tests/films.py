"""Small video files made for tests."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

RATE = 8000
EXACT = 0x42004  # SWS_ACCURATE_RND, SWS_FULL_CHR_H_INT, SWS_BICUBIC
UNIT = Fraction(1, 90000)


def scene(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth random picture, uint8 (height, width, 3)."""
    corners = np.random.default_rng(seed).uniform(30, 225, (2, 2, 3))
    down, right = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    rows = [corners[row, 0] * (1 - right) + corners[row, 1] * right for row in (0, 1)]
    return np.rint(rows[0] * (1 - down) + rows[1] * down).astype(np.uint8)


def write_film(
    path: Path,
    pictures: Sequence[np.ndarray],
    *,
    pts: Sequence[int] | None = None,
    codec: str = "libx264",
    format: str = "yuv420p",
    colours: dict[str, int] | None = None,
    rotation: int = 0,
    audio: str | None = None,
    options: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    chapters: list[dict[str, Any]] | None = None,
) -> Path:
    """A video of pictures shown at ``pts`` in units of a 90,000th of a second (25 a second if None), and a tone."""
    pts = [3600 * index for index in range(len(pictures))] if pts is None else pts
    colours = {"color_range": 1, "colorspace": 1, "color_primaries": 1, "color_trc": 1} | (colours or {})
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options={"crf": "10", "g": "10"} | (options or {}))
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], format
        stream.codec_context.time_base = stream.time_base = UNIT
        for name, value in colours.items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(rotation)
        sound = out.add_stream(audio, rate=RATE, layout="mono") if audio else None
        out.metadata.update(metadata or {})
        if chapters:
            out.set_chapters(chapters)
        for picture, time in zip(pictures, pts, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            if format.startswith("yuv"):
                target = {"dst_colorspace": colours["colorspace"], "dst_color_range": colours["color_range"]}
                frame = frame.reformat(format=format, src_color_range=2, interpolation=EXACT, **target)
            frame.pts, frame.time_base = time, UNIT
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if sound is not None:
            _tone(out, sound, int(pts[-1] * UNIT * RATE) + RATE // 25)
    return path


def _tone(out: Any, stream: Any, samples: int) -> None:
    wave = np.random.default_rng(1).integers(-9000, 9000, samples).astype(np.int16)
    size = stream.codec_context.frame_size or 400
    for start in range(0, samples, size):
        part = av.AudioFrame.from_ndarray(wave[None, start : start + size], format="s16", layout="mono")
        part.rate, part.pts = RATE, start
        out.mux(stream.encode(part))
    out.mux(stream.encode(None))


def times(path: Path) -> list[Fraction]:
    """When the frames are shown, in seconds."""
    with av.open(str(path)) as film:
        return [frame.pts * frame.time_base for frame in film.decode(video=0)]


def shown(path: Path) -> np.ndarray:
    """The frames as RGB (T, H, W, 3), their range and matrix as the file says."""
    pictures = []
    with av.open(str(path)) as film:
        for frame in film.decode(video=0):
            matrix = {"src_colorspace": int(frame.colorspace)} if frame.format.name.startswith("yuv") else {}
            pictures.append(
                frame.reformat(format="rgb24", dst_color_range=2, interpolation=EXACT, **matrix).to_ndarray()
            )
    return np.stack(pictures)


def packets(path: Path, kind: str = "audio") -> list[tuple[Fraction, bytes]]:
    """The packets of the first stream of a kind, with their times."""
    with av.open(str(path)) as film:
        stream = getattr(film.streams, kind)[0]
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in film.demux(stream) if packet.size]
