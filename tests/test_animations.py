"""Animations: what is read, that frames share their statistics, what is kept in the file that is written."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from halves import add_halves
from PIL import Image

from impasto import animation
from impasto.animation import Animation, Frame, encode_animation
from impasto.errors import PictureError, TooManyPixels
from impasto.images import Picture, picture_from_array
from impasto.inference import measured, stylize_files

DARK, LIGHT = (10, 20, 30), (50, 60, 90)
MEAN = (30, 40, 60)


def flat(colour: tuple[int, ...]) -> Image.Image:
    return Image.new("RGB" if len(colour) == 3 else "RGBA", (20, 16), colour)


def movie(*frames: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    lossless = {"lossless": True} if format == "WEBP" else {}
    options = {"duration": [100, 250, 70][: len(frames)], **lossless, **options}
    frames[0].save(buffer, format, save_all=True, append_images=frames[1:], **options)
    return buffer.getvalue()


def shown(data: bytes) -> list[tuple[np.ndarray, float]]:
    """Frames and their times, as Pillow reads them."""
    with Image.open(io.BytesIO(data)) as image:
        frames = []
        for index in range(image.n_frames):
            image.seek(index)
            image.load()
            frames.append((np.asarray(image.convert("RGBA")), image.info["duration"]))
        return frames


def paint(folder: Path, name: str, data: bytes, **options: object):
    """The bytes of the painted file, and its row."""
    source = folder / "in" / name
    source.parent.mkdir(exist_ok=True)
    source.write_bytes(data)
    report = stylize_files(source, folder / "out", style="red", threads=1, **options)
    return Path(report.rows[0].output).read_bytes(), report.rows[0]


@pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP"])
def test_frames_and_times_are_read(format: str) -> None:
    frames = Animation(io.BytesIO(movie(flat(DARK), flat(LIGHT), flat((0, 0, 255)), format=format)))
    assert (frames.count, frames.height, frames.width) == (3, 16, 20)
    for _ in range(2):
        got = [(tuple(frame.picture.rgb[7, 7]), frame.milliseconds) for frame in frames]
        assert got == [(DARK, 100), (LIGHT, 250), ((0, 0, 255), 70)]


@pytest.mark.parametrize(
    ("format", "loop", "plays"),
    [("GIF", None, 1), ("GIF", 0, 0), ("GIF", 3, 4), ("PNG", 0, 0), ("PNG", 3, 3), ("WEBP", 0, 0), ("WEBP", 3, 3)],
)
def test_how_often_it_is_played(format: str, loop: int | None, plays: int) -> None:
    options = {} if loop is None else {"loop": loop}
    frames = Animation(io.BytesIO(movie(flat(DARK), flat(LIGHT), format=format, **options)))
    assert frames.plays == plays
    for kind in animation.FORMATS:
        with Image.open(io.BytesIO(encode_animation(frames, kind, plays=plays))) as image:
            assert image.info["loop"] == plays


def test_the_picture_for_those_who_show_no_frames_is_no_frame() -> None:
    data = movie(flat((9, 9, 9)), flat(DARK), flat(LIGHT), default_image=True, duration=50)
    assert [tuple(frame.picture.rgb[0, 0]) for frame in Animation(io.BytesIO(data))] == [DARK, LIGHT]


def test_a_sample_is_spread_from_the_first_to_the_last() -> None:
    frames = Animation(io.BytesIO(movie(*(flat((level, 0, 0)) for level in range(0, 90, 10)), duration=50)))
    assert [frame.rgb[0, 0, 0] for frame in frames.sample(3)] == [0, 40, 80]
    assert [frame.rgb[0, 0, 0] for frame in frames.sample(1)] == [0]
    assert len(frames.sample(100)) == 9


def test_one_picture_is_no_animation() -> None:
    with pytest.raises(PictureError, match="not an animation"):
        Animation(io.BytesIO(movie(flat(DARK), duration=10)))


def test_the_limit_is_for_all_frames_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(animation, "MAX_FRAME_PIXELS", 639)
    with pytest.raises(TooManyPixels, match="2 frames of 20 x 16 pixels; expected at most 639 in all"):
        Animation(io.BytesIO(movie(flat(DARK), flat(LIGHT))))


@pytest.mark.parametrize(("name", "format"), [("a.gif", "GIF"), ("a.png", "PNG"), ("a.webp", "WEBP")])
def test_all_frames_are_painted_by_the_statistics_of_all(tiny: Path, tmp_path: Path, name: str, format: str) -> None:
    add_halves(tiny)
    data, row = paint(tmp_path, name, movie(flat(DARK), flat(LIGHT), format=format, loop=0), strength=0.5)
    assert (row.frames, row.note, row.error) == (2, None, None)
    assert row.format == ("webp" if name == "a.webp" else "png")
    for (frame, time), colour, expected_time in zip(shown(data), (DARK, LIGHT), (100, 250), strict=True):
        expected = [(value + mean) / 2 for value, mean in zip(colour, MEAN, strict=True)]
        np.testing.assert_allclose(
            frame[..., :3], np.broadcast_to(expected, (16, 20, 3)), atol=0.5 + 3 * (format == "WEBP")
        )
        assert time == expected_time


def test_without_halves_each_frame_is_painted_by_itself_and_the_row_says_so(tiny: Path, tmp_path: Path) -> None:
    data, row = paint(tmp_path, "a.gif", movie(flat(DARK), flat(LIGHT), format="GIF"), strength=0.5)
    assert row.note.startswith("each frame measured by itself, it may flicker: ")
    assert "the pack has no measure.onnx" in row.note
    assert [tuple(frame[0, 0, :3]) for frame, _ in shown(data)] == [(132, 10, 15), (152, 30, 45)]


def test_transparency_is_kept_and_what_is_not_seen_does_not_count(tiny: Path, tmp_path: Path) -> None:
    add_halves(tiny)
    outputs = []
    for hidden in ((0, 0, 0, 0), (255, 255, 255, 0)):
        frames = [flat((*DARK, 255)), flat((*LIGHT, 255))]
        for frame in frames:
            frame.paste(hidden, (0, 0, 15, 16))
        data, _ = paint(tmp_path, f"a{hidden[0]}.png", movie(*frames), strength=0.5)
        outputs.append(data)
    assert outputs[0] == outputs[1]
    for (frame, _), colour in zip(shown(outputs[0]), (DARK, LIGHT), strict=True):
        assert (frame[:, :15, 3] == 0).all() and (frame[:, 15:, 3] == 255).all()
        np.testing.assert_allclose(frame[3, 17, :3], (np.array(colour) + MEAN) / 2, atol=0.5)


def test_frames_that_are_equal_come_out_equal_whatever_paints_them() -> None:
    calls = []

    def strange(frame: Picture) -> np.ndarray:
        calls.append(frame)
        return np.full_like(frame.rgb, len(calls))

    film = [Frame(picture_from_array(np.asarray(flat(colour))), 40) for colour in (DARK, DARK, LIGHT, DARK)]
    painted = [int(frame.picture.rgb[0, 0, 0]) for frame in measured.painted_frames(film, strange)]
    assert painted == [1, 1, 2, 3]


def test_equal_frames_are_one_that_is_shown_as_long(tiny: Path, tmp_path: Path) -> None:
    add_halves(tiny)
    source = movie(flat(DARK), flat(DARK), flat(LIGHT), format="WEBP", minimize_size=False)
    data, _ = paint(tmp_path, "a.webp", source, format="png", strength=0.5)
    assert sum(time for _, time in shown(data)) == 420


def test_a_format_of_one_picture_gets_the_first_frame_and_the_row_says_so(tiny: Path, tmp_path: Path) -> None:
    data, row = paint(tmp_path, "a.gif", movie(flat(DARK), flat(LIGHT), format="GIF"), format="jpeg", strength=0)
    assert (row.frames, row.note) == (1, "the first of 2 frames or pages")
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_allclose(image.getpixel((9, 9)), DARK, atol=2)


@pytest.mark.parametrize("halves", [True, False])
def test_a_damaged_frame_leaves_nothing(tiny: Path, tmp_path: Path, halves: bool) -> None:
    if halves:
        add_halves(tiny)
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)) for _ in range(3)]
    whole = movie(*noise)
    with pytest.raises(PictureError, match=r"a\.png: cannot be (decoded|painted)"):
        paint(tmp_path, "a.png", whole[: len(whole) * 3 // 4])
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("*.png"))
