"""16 bits a channel, and pictures of which not all is seen."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import png
from halves import add_halves
from PIL import Image, ImageCms

from impasto.colour import from_srgb, to_srgb
from impasto.errors import PictureError
from impasto.images import Picture, encode_picture, read_picture
from impasto.inference import Stylizer, stylize_files
from impasto.matrix_profile import SRGB, MatrixProfile
from impasto.transparency import fill_unseen


def deep_noise(channels: int = 3, height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 65536, (height, width, channels), dtype=np.uint16)


def deep_png(pixels: np.ndarray, **options: object) -> bytes:
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return png(width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], rows)


def deep_tiff(pixels: np.ndarray, order: str = "<", planes: bool = False) -> bytes:
    """Written by hand: one strip, or a strip a channel; not compressed."""
    height, width, channels = pixels.shape
    body = (pixels.transpose(2, 0, 1) if planes else pixels).astype(f"{order}u2").tobytes()
    strips = channels if planes else 1
    start = 200 + 14 * 12
    tags = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [16] * channels),
        259: (3, [1]),
        262: (3, [2 if channels > 2 else 1]),
        273: (4, [start + index * len(body) // strips for index in range(strips)]),
        277: (3, [channels]),
        278: (4, [height]),
        279: (4, [len(body) // strips] * strips),
        284: (3, [2 if planes else 1]),
    }
    if channels == 4:
        tags[338] = (3, [2])
    directory, extra = struct.pack(f"{order}H", len(tags)), b""
    place = 8 + 2 + 12 * len(tags) + 4
    for tag, (kind, values) in tags.items():
        data = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(data) > 4:
            inline, extra = struct.pack(f"{order}I", place + len(extra)), extra + data
        else:
            inline = data.ljust(4, b"\0")
        directory += struct.pack(f"{order}HHI", tag, kind, len(values)) + inline
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return (head + directory + bytes(4) + extra).ljust(start, b"\0") + body


def seen_by_opencv(data: bytes) -> np.ndarray:
    cv2 = pytest.importorskip("cv2")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return image[..., [2, 1, 0, 3][: image.shape[2]]]


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("file", [deep_png, deep_tiff, lambda pixels: deep_tiff(pixels, ">")])
def test_all_16_bits_are_read_and_written(channels: int, file) -> None:
    pixels = deep_noise(channels)
    picture = read_picture(io.BytesIO(file(pixels)), deep=True)
    assert picture.bits == 16
    np.testing.assert_array_equal(picture.deep, pixels)
    np.testing.assert_array_equal(picture.rgb, pixels[..., :3] >> 8)
    for format in ("png", "tiff"):
        np.testing.assert_array_equal(seen_by_opencv(encode_picture(picture, format)), pixels)
    assert read_picture(io.BytesIO(file(pixels))).deep is None


def test_grey_of_16_bits_comes_back_in_colour() -> None:
    grey = deep_noise(1)
    for data in (deep_png(grey), deep_tiff(grey)):
        np.testing.assert_array_equal(read_picture(io.BytesIO(data), deep=True).deep, np.repeat(grey, 3, axis=2))


def test_16_bits_are_turned_upright_and_keep_what_stands_beside_them() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera"
    pixels = deep_noise()
    picture = Picture(np.zeros((20, 30, 3), np.uint8), exif=exif.tobytes(), dpi=(300, 300), deep=pixels, bits=16)
    for format in ("png", "tiff"):
        again = read_picture(io.BytesIO(encode_picture(picture, format)), deep=True)
        np.testing.assert_array_equal(again.deep, np.rot90(pixels, -1))
        assert again.dpi == pytest.approx((300, 300), abs=0.1)
        kept = Image.Exif()
        kept.load(again.exif)
        assert (kept[0x0112], kept[0x010F]) == (1, "Camera")


def test_channels_that_stand_apart_are_refused_and_not_misread() -> None:
    with pytest.raises(PictureError, match="the channels apart and not compressed"):
        read_picture(io.BytesIO(deep_tiff(deep_noise(), planes=True)))


def test_grey_with_alpha_of_16_bits_is_read_as_8() -> None:
    pixels = deep_noise(2)
    picture = read_picture(io.BytesIO(deep_png(pixels)), deep=True)
    assert (picture.bits, picture.deep) == (16, None)
    np.testing.assert_array_equal(picture.alpha, pixels[..., 1] >> 8)


class TestProfiles:
    def profile(self) -> bytes:
        from test_images import swapped_profile

        return swapped_profile()

    @pytest.mark.parametrize("which", ["swapped", "srgb"])
    def test_colours_are_those_of_littlecms(self, which: str) -> None:
        made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        data = self.profile() if which == "swapped" else made
        profile = MatrixProfile.parsed(data)
        colours = np.random.default_rng(3).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        deep = colours.astype(np.uint16) * 257
        there = np.asarray(to_srgb(Image.fromarray(colours), data)[0])
        back = np.asarray(from_srgb(Image.fromarray(colours), data))
        for ours, theirs in ((profile.to_srgb(deep), there), (profile.from_srgb(deep), back)):
            off = np.abs(ours / 257 - theirs)
            assert np.quantile(off, 0.99) < 1 and off.max() < 2.5  # theirs are coarse in the dark

    def test_srgb_is_itself(self) -> None:
        deep = deep_noise(height=100)
        np.testing.assert_allclose(SRGB.to_srgb(deep).astype(int), deep, atol=1)

    def test_16_bits_come_back_through_a_profile(self) -> None:
        pixels = deep_noise(4)
        picture = replace(read_picture(io.BytesIO(deep_png(pixels)), deep=True), icc_profile=self.profile())
        data = encode_picture(picture)
        assert np.abs(seen_by_opencv(data)[..., :3].astype(int) - pixels[..., :3]).mean() > 1000
        again = read_picture(io.BytesIO(data), deep=True)
        assert again.icc_profile == self.profile()
        off = np.abs(again.deep.astype(int) - pixels)
        assert off[..., 3].max() == 0
        assert np.quantile(off, 0.99) < 257  # within a level of 8 bits where the gamut allows

    @pytest.mark.parametrize("cut", [0, 100, 130, 200, 300])
    def test_a_broken_profile_is_none(self, cut: int) -> None:
        assert MatrixProfile.parsed(self.profile()[:cut]) is None

    @pytest.mark.parametrize(
        ("kind", "numbers", "expected"),
        [
            (0, [2.0], {0.5: 0.25}),
            (1, [2.0, 2.0, -0.5], {0.2: 0.0, 0.5: 0.25, 0.75: 1.0}),
            (2, [2.0, 1.0, 0.0, 0.25], {0.5: 0.5}),
            (3, [2.0, 1.0, 0.0, 0.1, 0.4], {0.3: 0.03, 0.5: 0.25}),
            (4, [2.0, 1.0, 0.0, 0.1, 0.4, 0.2, 0.1], {0.3: 0.13, 0.5: 0.45}),
        ],
    )
    def test_parametric_curves_by_hand(self, kind: int, numbers: list[float], expected: dict[float, float]) -> None:
        from impasto.matrix_profile import _curve

        data = b"para\0\0\0\0" + struct.pack(">HH", kind, 0)
        curve = _curve(data + struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers)))
        for place, value in expected.items():
            assert curve[round(place * 65535)] == pytest.approx(value, abs=1e-4)


def paint(tmp_path: Path, name: str, data: bytes, **options: object):
    (tmp_path / name).write_bytes(data)
    report = stylize_files(tmp_path / name, tmp_path / "out", style="red", threads=1, **options)
    return Path(report.rows[0].output).read_bytes(), report.rows[0]


@pytest.mark.parametrize(("name", "file"), [("a.png", deep_png), ("a.tif", deep_tiff)])
def test_16_bits_in_are_16_bits_out(tiny: Path, tmp_path: Path, name: str, file) -> None:
    add_halves(tiny)
    pixels = deep_noise()
    data, row = paint(tmp_path, name, file(pixels), strength=0.5)
    assert (row.bits, row.note) == (16, None)
    expected = (pixels + pixels.mean((0, 1))) / 2
    painted = seen_by_opencv(data)
    assert painted.dtype == np.uint16
    np.testing.assert_allclose(painted, expected, atol=1)


def test_strength_0_gives_all_16_bits_back(tiny: Path, tmp_path: Path) -> None:
    add_halves(tiny)
    pixels = deep_noise(4)
    pixels[..., 3] |= 1
    data, _ = paint(tmp_path, "a.png", deep_png(pixels), strength=0)
    np.testing.assert_array_equal(seen_by_opencv(data), pixels)


def test_where_16_bits_are_lost_the_row_says_so(tiny: Path, tmp_path: Path) -> None:
    data, row = paint(tmp_path, "a.png", deep_png(deep_noise()))
    assert row.bits == 8
    assert row.note.startswith("16 bits a channel read as 8: ") and "has no measure.onnx" in row.note
    assert seen_by_opencv(data).dtype == np.uint8
    add_halves(tiny)
    _, row = paint(tmp_path, "b.png", deep_png(deep_noise()), format="jpeg")
    assert (row.bits, row.note) == (8, "16 bits a channel written as 8, which is what jpeg holds")
    _, row = paint(tmp_path, "c.png", deep_png(deep_noise(2)))
    assert (row.bits, row.note) == (8, "16 bits a channel read as 8: its layout, or its colour profile")


def test_of_several_pages_the_first_is_painted_and_the_row_says_so(tiny: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pages = [Image.new("RGB", (16, 16), colour) for colour in ("blue", "white", "white")]
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    data, row = paint(tmp_path, "a.tif", buffer.getvalue(), strength=0)
    assert (row.frames, row.note) == (1, "the first of 3 frames or pages")
    with Image.open(io.BytesIO(data)) as image:
        assert (image.n_frames, image.getpixel((3, 3))) == (1, (0, 0, 255))


class TestUnseen:
    def test_a_row_by_hand(self) -> None:
        def filled(colours: str, alpha: str) -> str:
            row = np.array([ord(letter) for letter in colours])[None, :, None]
            return "".join(map(chr, fill_unseen(row, np.array([[int(value) for value in alpha]]))[0, :, 0]))

        assert filled("abc....", "1110000") == "abccbaa"
        assert filled("....abc", "0000111") == "ccbaabc"
        assert filled("ab....yz", "11000011") == "abbazyyz"
        assert filled("a......", "1000000") == "aaaaaaa"
        assert filled("abc", "111") == "abc"
        assert filled("abc", "000") == "\0\0\0"

    def test_rows_in_which_nothing_is_seen_mirror_the_others(self) -> None:
        colours = np.arange(5)[:, None, None] * np.ones((5, 4, 3), int)
        alpha = np.zeros((5, 4), int)
        alpha[1:3] = 1
        assert fill_unseen(colours, alpha)[:, 0, 0].tolist() == [1, 1, 2, 2, 1]

    def test_its_statistics_are_those_of_what_is_seen(self) -> None:
        y, x = np.mgrid[:90, :120]
        colours = (128 + 100 * np.sin(x / 3) * np.cos(y / 4))[..., None].repeat(3, 2)
        alpha = ((x - 60) ** 2 + (y - 45) ** 2 < 30**2).astype(np.uint8)
        seen = colours[alpha > 0]
        hidden = np.where(alpha[..., None] > 0, colours, 0)
        filled = fill_unseen(hidden, alpha)
        np.testing.assert_array_equal(filled[alpha > 0], seen)
        assert filled.std() == pytest.approx(seen.std(), rel=0.15)
        assert hidden.std() < 0.8 * seen.std() or abs(hidden.mean() - seen.mean()) > 50

    @pytest.mark.parametrize("deep", [False, True])
    def test_hidden_colours_change_nothing_that_is_seen(self, tiny: Path, tmp_path: Path, deep: bool) -> None:
        add_halves(tiny)
        outputs = []
        for hidden in (0, 65535):
            pixels = deep_noise(4)
            pixels[..., 3] = np.where(np.arange(30) < 18, 0, 65535)
            pixels[:, :18, :3] = hidden
            data = deep_png(pixels)
            if not deep:
                data = encode_picture(read_picture(io.BytesIO(data)))
            painted, row = paint(tmp_path, f"{hidden}.png", data, strength=0.5)
            assert row.bits == (16 if deep else 8)
            outputs.append(seen_by_opencv(painted))
        np.testing.assert_array_equal(*outputs)

    def test_not_with_a_real_pack_either(self) -> None:
        stylizer = Stylizer("starry_night", provider="cpu", threads=1)
        x = np.arange(48) * np.ones((40, 1), int)
        photo = np.stack([5 * x, 255 - 5 * x, 3 * x + 50], axis=2).astype(np.uint8)
        alpha = np.where((x > 30) & (x < 44), 255, 0).astype(np.uint8)
        painted = []
        for hidden in (0, 255, 90):
            rgb = np.where(alpha[..., None] > 0, photo, hidden).astype(np.uint8)
            painted.append(stylizer.stylize_picture(Picture(rgb, alpha)).rgb[alpha > 0])
        np.testing.assert_array_equal(painted[0], painted[1])
        np.testing.assert_array_equal(painted[0], painted[2])
