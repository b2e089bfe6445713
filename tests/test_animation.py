"""Animations, read back by Pillow and by PyAV."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from impasto.errors import MissingExtra, WrongCall
from impasto.visualization import animation
from impasto.visualization.animation import animation_format, encode_animation, write_animation

COLOURS = [(200, 60, 30), (20, 180, 90), (40, 30, 220), (128, 128, 128)]


def frames(count: int = 4, width: int = 48, height: int = 32) -> list[Image.Image]:
    return [Image.new("RGB", (width, height), COLOURS[index % 4]) for index in range(count)]


def read_webp(data: bytes) -> tuple[list[np.ndarray], list[int]]:
    """Pictures and how long each is shown, in milliseconds."""
    found, times = [], []
    with Image.open(io.BytesIO(data)) as file:
        assert file.format == "WEBP"
        for index in range(file.n_frames):
            file.seek(index)
            found.append(np.asarray(file.convert("RGB")))
            times.append(file.info["duration"])
    return found, times


def read_mp4(data: bytes) -> tuple[Any, list[Any], float]:
    """The codec's context, the decoded frames, and the whole duration in seconds."""
    av = pytest.importorskip("av")
    with av.open(io.BytesIO(data)) as file:
        stream = file.streams.video[0]
        assert len(file.streams) == 1
        return stream.codec_context, list(file.decode(stream)), float(stream.duration * stream.time_base)


def rgb_of(frame: Any) -> np.ndarray:
    """RGB (H, W, 3), 0 to 255, of a frame by BT.709: Y, (B - Y) / 1.8556, (R - Y) / 1.5748, stored from 16 and 128."""
    assert frame.format.name == "yuv420p"
    planes = frame.to_ndarray().astype(float)  # the rows of Y, then those of the half-size Cb and Cr
    height, width = frame.height, frame.width
    halves = planes[height:].reshape(2, height // 2, width // 2)
    blue, red = ((halves - 128) / 224).repeat(2, 1).repeat(2, 2)
    luma = (planes[:height] - 16) / 219
    blue, red = luma + 1.8556 * blue, luma + 1.5748 * red
    return 255 * np.stack([red, (luma - 0.2126 * red - 0.0722 * blue) / 0.7152, blue], axis=2)


def test_webp():
    data = encode_animation(frames(), "webp", fps=10, hold=2)
    found, times = read_webp(data)
    assert times == [100, 100, 100, 2000]
    for pixels, colour in zip(found, COLOURS, strict=True):
        assert pixels.shape == (32, 48, 3) and np.abs(pixels.astype(int) - colour).max() <= 4
    with Image.open(io.BytesIO(data)) as file:
        assert file.info["loop"] == 0, "for ever"


def test_webp_times_do_not_drift():
    _, times = read_webp(encode_animation(frames(8), "webp", fps=12, hold=0))
    assert times == [83, 84, 83, 83, 84, 83, 83, 83]  # 0, 83.3, 166.7, 250, ... rounded; the last one 1 / fps
    assert read_webp(encode_animation(frames(2), "webp"))[1] == [83, 1500]


def test_webp_stores_equal_neighbours_once():
    first, second, *_ = frames()
    found, times = read_webp(encode_animation([first, first, second], "webp", fps=10, hold=1))
    assert len(found) == 2 and times == [200, 1000]


def test_mp4():
    context, found, duration = read_mp4(encode_animation(frames(), "mp4", fps=10, hold=0.5))
    assert context.name == "h264"
    assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
    assert len(found) == 3 + 5 and duration == pytest.approx(0.8)
    assert [frame.time for frame in found] == pytest.approx([index / 10 for index in range(8)])
    for frame, colour in zip(found, COLOURS + 4 * COLOURS[-1:], strict=True):
        rgb = rgb_of(frame)
        assert rgb.shape == (32, 48, 3) and np.abs(rgb.mean((0, 1)) - colour).max() < 3


@pytest.mark.parametrize(("width", "height"), [(47, 31), (48, 31), (47, 32), (1, 1)])
def test_mp4_of_odd_size_loses_nothing(width, height):
    """A frame that gets brighter to the right and downwards goes on at the edge."""
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    grey = (60 + 2 * across + 2 * down).astype(np.uint8)
    _, found, _ = read_mp4(encode_animation([Image.fromarray(grey)] * 2, "mp4", hold=0))
    rgb = rgb_of(found[0])
    assert rgb.shape == (height + height % 2, width + width % 2, 3)
    assert np.abs(rgb[:height, :width].mean(2) - grey).mean() < 3
    assert abs(rgb[-1, -1].mean() - int(grey[-1, -1])) < 8


def test_mp4_without_x264(monkeypatch):
    monkeypatch.setattr(animation, "_CODECS", {"no such codec": {}, "mpeg4": animation._CODECS["mpeg4"]})
    context, found, duration = read_mp4(encode_animation(frames(), "mp4", fps=29.97, hold=0.1))
    assert context.name == "mpeg4" and len(found) == 6 and duration == pytest.approx(6 / 29.97)
    assert np.abs(rgb_of(found[1]).mean((0, 1)) - COLOURS[1]).max() < 3


@pytest.mark.parametrize("format", ["webp", "mp4"])
def test_one_frame_and_other_modes(format):
    mixed = [Image.new("L", (16, 16), 90), Image.new("RGBA", (16, 16), (10, 200, 40, 255))]
    for given in (mixed, mixed[:1]):
        data = encode_animation(given, format, hold=0)
        if format == "webp":
            first = read_webp(data)[0][0]
        else:
            first = rgb_of(read_mp4(data)[1][0])
        assert np.abs(first.astype(int) - 90).max() <= 4


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    for name in ("run.webp", "run.MP4"):
        write_animation(frames(), tmp_path / name, fps=10, hold=0.5)
        assert (tmp_path / name).read_bytes()[:12].count(b"WEBP" if name.endswith("webp") else b"ftyp") == 1
    before = (tmp_path / "run.webp").read_bytes()
    broken = [*frames(), Image.new("RGB", (10, 10))]
    with pytest.raises(WrongCall, match="frames of 10 x 10, 48 x 32, expected one or more of one size"):
        write_animation(broken, tmp_path / "run.webp")
    with pytest.raises(WrongCall, match="no frames"):
        write_animation([], tmp_path / "new.mp4")
    assert (tmp_path / "run.webp").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.MP4", "run.webp"]


def test_formats_by_suffix():
    assert animation_format("a/run.webp") == "webp" and animation_format(Path("RUN.Mp4")) == "mp4"
    for name in ("run.gif", "run", "run.webp.part"):
        with pytest.raises(WrongCall, match=rf"{name}: got the suffix .*, expected \.webp or \.mp4"):
            animation_format(name)


def test_mp4_needs_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    assert animation_format("run.webp") == "webp"
    for call in (lambda: animation_format("run.mp4"), lambda: encode_animation(frames(), "mp4")):
        with pytest.raises(MissingExtra, match=r"pip install 'impasto\[video\]'"):
            call()


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (frames(0), {}, "got no frames, expected one or more"),
        (frames(), {"format": "gif"}, "got the format 'gif', expected webp or mp4"),
        (frames(), {"fps": 0}, "got fps=0, .*expected fps 0.1 to 240"),
        (frames(), {"fps": float("nan")}, "got fps=nan"),
        (frames(), {"hold": -1}, "hold=-1, expected .*hold 0 to 3600"),
        (frames(2, width=16384, height=1), {}, "16384 x 1 pixels; WebP holds at most 16383"),
    ],
)
def test_wrong_calls(given, options, message):
    with pytest.raises(WrongCall, match=message):
        encode_animation(given, **({"format": "webp"} | options))
