"""Whose colours a painting has: on arrays of any type, in parts, and through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from halves import add_halves
from PIL import Image
from reference import colours as reference

from impasto.cli import main
from impasto.errors import WrongCall
from impasto.inference import Stylizer, stylize_files
from impasto.palette import BAND, COLOURS, Colour, Matching, Moments, keep_colours


def picture(seed: int, height: int = 9, width: int = 7, low: float = 0.3, high: float = 0.7) -> np.ndarray:
    """Values in [0, 1], (H, W, 3), with channels that go together."""
    drawn = np.random.default_rng(seed).uniform(0, 1, (height, width, 3))
    return low + (high - low) * drawn @ np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.0, 0.3, 0.7]]).T


def bytes_of(values: np.ndarray) -> np.ndarray:
    return np.rint(values * 255).astype(np.uint8)


def statistics(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return reference.mean_and_covariance(values.transpose(2, 0, 1))


def test_the_names_are_those_of_impasto_paint():
    pytest.importorskip("torch")
    from impasto.visualization.scene import COLOURS as OF_PAINT

    assert COLOURS == OF_PAINT


@pytest.mark.parametrize("text", ["style", "luminance", "match", "match:0.5", "luminance:0"])
def test_the_form(text):
    assert str(Colour.parse(text)) == text
    assert Colour.parse(text).changes == (text not in ("style", "luminance:0"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("photo", "unknown color 'photo'.*Expected one of: luminance, match, style"),
        ("match:much", "color 'match:much': 'much' is no number; expected such as match:0.5"),
        ("match:1.5", "the share of match is 1.5; expected 0 to 1, such as match:0.5"),
        ("match:nan", "the share of match is nan"),
        ("lum:0.5", "unknown color 'lum'"),
    ],
)
def test_another_form(text, message):
    with pytest.raises(WrongCall, match=message):
        Colour.parse(text)


def test_luminance_by_hand():
    """A muted red on grey 128: Y of the photo is 0.299 * 153 + 0.701 * 102 = 117.249; each channel moves with it."""
    painted, photo = np.full((16, 16, 3), 128, np.uint8), np.full((16, 16, 3), (153, 102, 102), np.uint8)
    found = Colour("luminance").recolour(painted, photo)
    assert found.dtype == np.uint8 and found[0, 0].tolist() == [164, 113, 113]  # 128 + 35.75, 128 - 15.25
    half = Colour("luminance", 0.5).recolour(painted, photo)
    assert half[0, 0].tolist() == [146, 120, 120]
    assert painted[0, 0].tolist() == [128, 128, 128], "and the painting is as it was"


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint16, np.uint8])
def test_luminance_is_the_paintings_and_the_colours_are_the_papers(dtype):
    painted, photo = picture(0, low=0.1, high=0.9), picture(1, low=0.2, high=0.8)
    scale = 1 if np.issubdtype(dtype, np.floating) else np.iinfo(dtype).max
    ours, theirs = ((values * scale).round(0 if scale > 1 else 9).astype(dtype) for values in (painted, photo))
    found = Colour("luminance").recolour(ours, theirs)
    expected = reference.keep_colours((ours / scale).transpose(2, 0, 1), (theirs / scale).transpose(2, 0, 1))
    tolerance = 2e-5 + (0.5 / scale if scale > 1 else 0)
    np.testing.assert_allclose(found / scale, expected.transpose(1, 2, 0), rtol=0, atol=tolerance)
    luma = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(found @ luma / scale, ours @ luma / scale, rtol=0, atol=tolerance)


def test_colours_that_do_not_fit_keep_luma_and_hue():
    corners = np.array([[r, g, b] for r in (0, 1) for g in (0, 1) for b in (0, 1)], np.float64)
    painted, photo = np.repeat(corners[:, None], 8, 1), np.repeat(corners[None], 8, 0)
    found = keep_colours(painted, photo)
    assert found.min() >= 0 and found.max() <= 1
    np.testing.assert_allclose(found @ [0.299, 0.587, 0.114], painted @ [0.299, 0.587, 0.114], atol=1e-12)


def test_matched_by_hand():
    """Channels without covariance: each is stretched by the ratio of its deviations, 2, 0.5 and 2."""
    signs = np.array([[[1, 1, 1], [1, -1, -1]], [[-1, 1, -1], [-1, -1, 1]]], np.float64)
    painted, photo = 0.5 + signs * [0.1, 0.2, 0.05], np.array([0.3, 0.4, 0.6]) + signs * [0.2, 0.1, 0.1]
    np.testing.assert_allclose(Colour("match").recolour(painted, photo), photo, atol=1e-12)
    half = Colour("match", 0.5).recolour(painted, photo)
    np.testing.assert_allclose(half, (painted + photo) / 2, atol=1e-12)


def test_mean_and_covariance_are_matched_before_clipping():
    painted, photo = picture(0), picture(1, low=0.35, high=0.65)
    found = Colour("match").recolour(painted, photo)
    assert found.min() > 0 and found.max() < 1
    for ours, theirs in zip(*map(statistics, (found, photo)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    of_bytes = Colour("match").recolour(bytes_of(painted), bytes_of(photo)) / 255
    for ours, theirs in zip(*map(statistics, (of_bytes, photo)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-3)


def test_singular_covariances():
    photo = picture(1)
    grey = np.repeat(picture(2)[..., :1], 3, 2)
    of_grey = Colour("match").recolour(picture(0), grey)
    np.testing.assert_allclose(of_grey, of_grey[..., :1].repeat(3, 2), atol=1e-7)  # a grey photo: a grey painting
    flat = np.full((9, 7, 3), (0.9, 0.1, 0.1))
    of_flat = Colour("match").recolour(flat, photo)
    np.testing.assert_allclose(of_flat, np.broadcast_to(photo.mean((0, 1)), of_flat.shape), atol=1e-12)
    np.testing.assert_allclose(Colour("match").recolour(photo, flat), flat, atol=1e-7)
    black = np.zeros((16, 16, 3), np.uint8)
    for name in ("luminance", "match"):
        assert not Colour(name).recolour(black, black).any()
        white = np.full_like(black, 255)
        np.testing.assert_array_equal(Colour(name).recolour(white, white), white)


def test_moments_of_parts_are_those_of_the_whole():
    values = picture(3, 90, 40).reshape(-1, 3)
    whole = Moments.of(values)
    parts = Moments.of(values[:700]) + Moments.of(values[700:])
    assert parts.count == whole.count == 3600
    np.testing.assert_allclose(parts.mean, whole.mean, atol=1e-14)
    np.testing.assert_allclose(parts.covariance, whole.covariance, atol=1e-14)
    np.testing.assert_allclose(whole.covariance, np.cov(values.T, ddof=0), atol=1e-14)
    with pytest.raises(WrongCall, match="got no pixels"):
        Moments.of(values[:0])


def test_more_pixels_than_one_band_are_treated_as_one_picture():
    side = int((BAND * 1.3) ** 0.5)
    painted, photo = bytes_of(picture(4, side, side)), bytes_of(picture(5, side, side))
    found = Colour("match").recolour(painted, photo)
    matching = Matching.between(Moments.of(painted), Moments.of(photo))
    assert painted.shape[0] ** 2 > BAND
    rows = slice(side - 40, side)
    np.testing.assert_array_equal(found[rows], Colour("match").recolour(painted[rows], photo[rows], matching))
    assert (found[rows] != Colour("match").recolour(painted[rows], photo[rows])).any()


def test_pictures_that_do_not_belong_together():
    with pytest.raises(WrongCall, match=r"got uint8 \(4, 4, 3\) and uint8 \(4, 5, 3\), expected a painting and its"):
        Colour("match").recolour(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8))


class TestFiles:
    """With the tiny pack: `red` at 1 paints (255, 0, 0), whose luma is 76.245."""

    @pytest.fixture
    def photo(self, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
        monkeypatch.chdir(tmp_path)
        photo = bytes_of(picture(6, 20, 24))
        Image.fromarray(photo).save("photo.png")
        return photo

    def test_the_command_and_python(self, photo):
        done = CliRunner().invoke(main, ["stylize", "photo.png", "-s", "red", "--color", "luminance", "-o", "a.png"])
        assert done.exit_code == 0, done.output
        red = np.broadcast_to(np.array([255, 0, 0], np.uint8), photo.shape)
        expected = Colour("luminance").recolour(red, photo)
        np.testing.assert_array_equal(np.asarray(Image.open("a.png")), expected)
        by_python = Stylizer("tiny").stylize("photo.png", "red", color="luminance")
        np.testing.assert_array_equal(np.asarray(by_python), expected)
        assert abs(expected @ [0.299, 0.587, 0.114] - 76.245).max() < 0.6

    def test_matched_to_a_photo_that_is_painted_at_strength_0_is_the_photo(self, photo):
        painted = Stylizer("tiny").stylize(photo, "red", 0, color="match")
        np.testing.assert_array_equal(np.asarray(painted), photo)

    def test_a_wrong_colour_is_one_line(self, photo):
        done = CliRunner().invoke(main, ["stylize", "photo.png", "-s", "red", "--color", "photo", "-o", "a.png"])
        assert done.exit_code == 2 and "unknown color 'photo'" in done.output and not Path("a.png").exists()

    def test_a_batch_resumes_with_its_colour(self, photo):
        Image.fromarray(photo[::-1]).save("second.png")
        sources = ["photo.png", "second.png"]
        first = stylize_files(sources, "out", style="red", color="match:0.5")
        assert len(first.done) == 2 and not first.skipped
        lines = [json.loads(line) for line in Path("out/manifest.jsonl").read_text().splitlines()]
        assert {line["color"] for line in lines} == {"match:0.5"} and {line["masks"] for line in lines} == {""}
        assert len(stylize_files(sources, "out", style="red", color="match:0.50", resume=True).skipped) == 2
        assert not stylize_files(sources, "out", style="red", resume=True).skipped
        assert len(stylize_files(sources, "out", style="red", color="luminance:0", resume=True).skipped) == 2

    def test_a_manifest_of_before_there_were_colours_is_resumed(self, photo):
        stylize_files(["photo.png"], "out/", style="red")
        manifest = Path("out/manifest.jsonl")
        rows = [json.loads(line) for line in manifest.read_text().splitlines()]
        for row in rows:
            del row["color"], row["masks"]
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert len(stylize_files(["photo.png"], "out/", style="red", resume=True).skipped) == 1

    def test_16_bits(self, tiny, photo):
        from impasto.images import Picture, encode_picture, read_picture

        add_halves(tiny)
        deep = (picture(7, 20, 24) * 65535).astype(np.uint16)
        picture8 = Picture((deep >> 8).astype(np.uint8), deep=deep)
        Path("deep.png").write_bytes(encode_picture(picture8, "png"))
        stylize_files("deep.png", "plain.png", style="red", strength=0.5)
        stylize_files("deep.png", "kept.png", style="red", strength=0.5, color="luminance")
        plain, kept = (read_picture(name, deep=True).deep for name in ("plain.png", "kept.png"))
        np.testing.assert_array_equal(kept, Colour("luminance").recolour(plain, deep))
        assert len(np.unique(kept)) > 300

    def test_frames_share_what_is_matched(self, tiny, photo):
        """One map for all frames: equal colours of two frames stay equal, whatever else is in the frames."""
        add_halves(tiny)
        other = photo.copy()
        other[10:] = 250
        frames = [Image.fromarray(each) for each in (photo, other)]
        frames[0].save("moving.png", save_all=True, append_images=frames[1:], duration=100)
        stylize_files("moving.png", "out.png", style="red", strength=0.5, color="match")
        shown = []
        with Image.open("out.png") as out:
            assert out.n_frames == 2
            for index in range(2):
                out.seek(index)
                shown.append(np.asarray(out.convert("RGB")))
        np.testing.assert_array_equal(shown[0][:10], shown[1][:10])
