from __future__ import annotations

import errno
import io
import os
import re
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import bad_files, png
from PIL import ExifTags, Image, JpegImagePlugin

from impasto.errors import PictureError, WrongCall
from impasto.images import (
    Picture,
    encode_picture,
    picture_from_array,
    picture_from_pil,
    read_picture,
    read_rgb,
    write_picture,
)

ORIENTATION = ExifTags.Base.Orientation
# What the EXIF standard says each value means: how the stored rows and columns are turned to be seen upright.
UPRIGHT = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored.transpose(1, 0, 2), 2),
    8: lambda stored: np.rot90(stored, 1),
}


def noise(height: int = 20, width: int = 30, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (height, width, channels), dtype=np.uint8)


def saved(image: Image.Image, format: str, **options: object) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    buffer.seek(0)
    return buffer


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def swapped_profile() -> bytes:
    """An ICC profile, made by hand, in which red means sRGB's blue and blue means sRGB's red."""

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    gamma = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    name = b"swapped\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + b"\0" * 78,
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(0.14307, 0.06061, 0.71410),
        b"gXYZ": xyz(0.38515, 0.71687, 0.09708),
        b"bXYZ": xyz(0.43607, 0.22249, 0.01392),
        b"rTRC": gamma,
        b"gTRC": gamma,
        b"bTRC": gamma,
    }
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s", start + len(body), b"\0\0\0\0", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28 + struct.pack(">3i", 63190, 65536, 54061)
    return header + b"\0" * (128 - len(header)) + table + body


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_is_applied_and_the_kept_exif_says_upright(orientation: int, tmp_path: Path) -> None:
    stored = noise()
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[ExifTags.Base.Make] = "Camera"
    picture = read_picture(saved(Image.fromarray(stored), "PNG", exif=exif))
    np.testing.assert_array_equal(picture.rgb, UPRIGHT[orientation](stored))
    for name in ("a.png", "a.jpg", "a.webp", "a.tif"):
        write_picture(picture, tmp_path / name)
        with Image.open(tmp_path / name) as written:
            assert written.size == (picture.rgb.shape[1], picture.rgb.shape[0])
            assert written.getexif()[ORIENTATION] == 1
            assert written.getexif()[ExifTags.Base.Make] == "Camera"


def test_a_tiff_as_jpeg_takes_no_layout_of_the_tiff_with_it() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Somebody"
    source = saved(Image.fromarray(noise()), "TIFF", exif=exif, dpi=(300, 300))
    written = opened(encode_picture(read_picture(source), "jpeg")).getexif()
    assert written[ExifTags.Base.Artist] == "Somebody"
    assert not {256, 257, 258, 259, 262, 273, 277, 278, 279, 284} & set(written)


def test_damaged_exif_is_no_reason_to_refuse_a_picture() -> None:
    source = saved(Image.fromarray(noise()), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    np.testing.assert_array_equal(read_picture(source).rgb, noise())


def test_colours_are_read_through_the_profile_and_written_back_into_it() -> None:
    stored = np.zeros((16, 16, 3), np.uint8)
    stored[:8] = (255, 0, 0)
    stored[8:] = (0, 255, 255)
    profile = swapped_profile()
    picture = read_picture(saved(Image.fromarray(stored), "PNG", icc_profile=profile))
    np.testing.assert_allclose(picture.rgb, stored[..., ::-1], atol=2)
    for format in ("png", "tiff", "webp", "jpeg"):
        written = opened(encode_picture(picture, format))
        assert written.info["icc_profile"] == profile
        flat = [2, 13]  # rows away from the edge, at which WebP blurs colour
        np.testing.assert_allclose(np.asarray(written)[flat], stored[flat], atol=2 if format in ("png", "tiff") else 6)
    assert "icc_profile" not in picture.to_pil().info


@pytest.mark.parametrize(
    ("mode", "profile"), [("RGB", b"not a profile"), ("L", swapped_profile()), ("RGB", swapped_profile()[:200])]
)
def test_an_unusable_profile_is_neither_used_nor_attached(mode: str, profile: bytes) -> None:
    stored = Image.fromarray(noise()).convert(mode)
    picture = read_picture(saved(stored, "PNG", icc_profile=profile))
    np.testing.assert_array_equal(picture.rgb, np.asarray(stored.convert("RGB")))
    assert "icc_profile" not in opened(encode_picture(picture)).info


def test_cmyk_is_read_as_rgb_and_written_as_rgb() -> None:
    ink = np.zeros((32, 32, 4), np.uint8)  # no ink: white
    ink[:16] = (0, 255, 255, 0)  # magenta and yellow: red
    picture = read_picture(saved(Image.fromarray(ink, "CMYK"), "JPEG", quality=95))
    np.testing.assert_allclose(picture.rgb[4, 4], (255, 0, 0), atol=6)
    np.testing.assert_allclose(picture.rgb[28, 4], (255, 255, 255), atol=6)
    written = opened(encode_picture(picture))
    assert (written.format, written.mode) == ("JPEG", "RGB")
    assert "icc_profile" not in written.info


def test_grey_comes_back_in_colour() -> None:
    grey = noise(channels=1)[..., 0]
    picture = read_picture(saved(Image.fromarray(grey), "PNG"))
    np.testing.assert_array_equal(picture.rgb, np.stack([grey] * 3, axis=2))
    assert picture.alpha is None
    assert opened(encode_picture(picture)).mode == "RGB"


def test_a_palette_with_transparency_comes_back_with_alpha() -> None:
    indices = np.tile(np.array([0, 1, 2, 1], np.uint8), (16, 4))
    image = Image.fromarray(indices, "P")
    colours = np.array([(10, 20, 30), (200, 100, 50), (0, 0, 255)], np.uint8)
    image.putpalette(colours.tobytes())
    picture = read_picture(saved(image, "PNG", transparency=1))
    np.testing.assert_array_equal(picture.rgb, colours[indices])
    np.testing.assert_array_equal(picture.alpha, np.where(indices == 1, 0, 255))
    assert opened(encode_picture(picture)).mode == "RGBA"


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("format", ["png", "tiff", "webp"])
def test_alpha_is_kept_exactly(mode: str, format: str) -> None:
    image = Image.fromarray(noise(channels=4)).convert(mode)
    picture = read_picture(saved(image, "PNG"))
    np.testing.assert_array_equal(picture.alpha, np.asarray(image)[..., -1])
    np.testing.assert_array_equal(
        np.asarray(opened(encode_picture(picture, format)))[..., 3], np.asarray(image)[..., -1]
    )


def test_transparency_into_jpeg_is_refused_but_opaque_alpha_is_not(tmp_path: Path) -> None:
    picture = Picture(noise(), alpha=np.full((20, 30), 255, np.uint8))
    assert opened(encode_picture(picture, "jpeg")).mode == "RGB"
    with pytest.raises(PictureError, match=r"a\.jpg: .*JPEG cannot hold; write PNG"):
        write_picture(replace(picture, alpha=np.zeros((20, 30), np.uint8)), tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(format: str) -> None:
    wide = np.linspace(0, 65535, 20 * 30).astype(np.uint16).reshape(20, 30)
    picture = read_picture(saved(Image.fromarray(wide), format))
    np.testing.assert_array_equal(picture.rgb[..., 1], wide // 256)


def test_sixteen_bit_colour_is_scaled_not_clipped() -> None:
    wide = np.random.default_rng(1).integers(0, 65536, (16, 16, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide)
    np.testing.assert_array_equal(read_picture(io.BytesIO(png(16, 16, 16, 2, rows))).rgb, wide // 256)


@pytest.mark.parametrize(("format", "options"), [("GIF", {}), ("WEBP", {"lossless": True})])
def test_of_an_animation_the_first_frame_is_read(format: str, options: dict[str, object]) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    picture = read_picture(saved(frames[0], format, save_all=True, append_images=frames[1:], **options))
    np.testing.assert_array_equal(picture.rgb, np.full((16, 16, 3), (255, 0, 0)))


@pytest.mark.parametrize("format", ["GIF", "BMP"])
def test_what_can_only_be_read_is_written_as_png(format: str, tmp_path: Path) -> None:
    picture = read_picture(saved(Image.new("RGB", (16, 16), "red"), format))
    assert opened(encode_picture(picture)).format == "PNG"
    with pytest.raises(WrongCall, match="cannot write the format 'gif'; expected one of: jpeg, png"):
        write_picture(picture, tmp_path / "a.gif")
    with pytest.raises(WrongCall, match="names no picture format"):
        write_picture(picture, tmp_path / "a.txt")


def test_jpeg_has_full_chroma_and_keeps_the_resolution(tmp_path: Path) -> None:
    picture = read_picture(saved(Image.fromarray(noise()), "JPEG", dpi=(300, 150)))
    write_picture(picture, tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as written:
        assert JpegImagePlugin.get_sampling(written) == 0  # 4:4:4
        assert written.info["dpi"] == (300, 150)


def test_png_and_tiff_keep_every_pixel(tmp_path: Path) -> None:
    for name in ("a.png", "a.tiff"):
        write_picture(Picture(noise()), tmp_path / name)
        with Image.open(tmp_path / name) as written:
            np.testing.assert_array_equal(np.asarray(written), noise())


@pytest.mark.parametrize("name", bad_files())
def test_a_bad_file_is_one_line_with_its_name(name: str, tmp_path: Path) -> None:
    data, message = bad_files()[name]
    (tmp_path / name).write_bytes(data)
    for read in (read_picture, read_rgb, lambda path: read_rgb(path, short_side=20)):
        with pytest.raises(PictureError, match=f"{re.escape(name)}: .*({message})") as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line_with_its_name(tmp_path: Path) -> None:
    for read in (read_picture, lambda path: read_rgb(path, short_side=20)):
        with pytest.raises(PictureError, match=r"nothing\.jpg: cannot be read: No such file"):
            read(tmp_path / "nothing.jpg")


def test_the_limit_on_pixels_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved(Image.fromarray(noise(20, 30)), "PNG")
    assert read_picture(source, max_pixels=600).rgb.shape == (20, 30, 3)
    with pytest.raises(PictureError, match="30 x 20 pixels; expected at most 599 in all"):
        read_picture(source, max_pixels=599)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_pillows_own_limit_does_not_warn(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved(Image.fromarray(noise(40, 40)), format)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert read_picture(source).rgb.shape == (40, 40, 3)


def test_a_picture_from_pillow_leaves_the_image_as_it_was() -> None:
    image = Image.fromarray(noise(channels=4))
    before = image.tobytes()
    picture = picture_from_pil(image)
    np.testing.assert_array_equal(picture.rgb, noise(channels=4)[..., :3])
    assert (image.mode, image.tobytes()) == ("RGBA", before)
    with pytest.raises(PictureError, match="mode F; expected 8 or 16 bits"):
        picture_from_pil(Image.new("F", (16, 16)))


def test_an_array_must_be_uint8_rgb() -> None:
    with pytest.raises(PictureError, match=r"expected a uint8 array .* got float32 \(20, 30, 3\)"):
        picture_from_array(noise().astype(np.float32))
    with pytest.raises(PictureError, match=r"got uint8 \(20, 30, 4\)"):
        picture_from_array(noise(channels=4))
    with pytest.raises(PictureError, match="30 x 15 pixels; expected at least"):
        picture_from_array(noise(15, 30))


@pytest.mark.parametrize("failing", ["replace", "write"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if failing == "replace":
        monkeypatch.setattr(os, "replace", full)
    else:
        real = Path.open

        def half(self: Path, *arguments: object, **options: object) -> object:
            file = real(self, *arguments, **options)  # type: ignore[call-overload]
            file.write(b"half of it")
            file.close()
            return full()

        monkeypatch.setattr(Path, "open", half)
    with pytest.raises(OSError, match="No space left") as caught:
        write_picture(Picture(noise()), path)
    assert caught.value.filename == str(path)
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_has_the_usual_permissions_and_a_link_stays_a_link(tmp_path: Path) -> None:
    plain, target, link = tmp_path / "plain", tmp_path / "a.png", tmp_path / "link.png"
    plain.write_bytes(b"")
    link.symlink_to(target)
    write_picture(Picture(noise()), link)
    assert link.is_symlink()
    assert target.stat().st_mode == plain.stat().st_mode


def test_a_loader_gets_shrunk_pixels_of_the_same_picture(tmp_path: Path) -> None:
    ramp = np.zeros((320, 480, 3), np.uint8)
    ramp[..., 0] = np.linspace(0, 255, 480).astype(np.uint8)
    for name in ("a.jpg", "a.png"):
        write_picture(Picture(ramp), tmp_path / name)
        small = read_rgb(tmp_path / name, short_side=64)
        assert small.shape == (64, 96, 3)
        np.testing.assert_allclose(small[32, :, 0], ramp[0].reshape(96, 5, 3).mean(1)[:, 0], atol=4)
        assert read_rgb(tmp_path / name, short_side=400).shape == ramp.shape


@pytest.fixture(scope="module")
def data() -> Path:
    folder = os.environ.get("IMPASTO_DATA")
    if folder is None:
        pytest.skip("needs real photos: set IMPASTO_DATA to their folder")
    return Path(folder) / "validation"


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "size", "alpha", "profile"),
    [
        ("14_phone_box_exif6.jpg", (3008, 2000), False, False),
        ("33_gray_cameraman.png", None, False, False),
        ("34_rgba_alpha.png", None, True, True),
        ("35_cmyk.jpg", None, False, False),
        ("36_png16.png", (449, 676), False, True),
        ("37_palette.png", (442, 290), False, False),
        ("38_animated_webp.webp", (245, 245), True, False),
        ("39_animated_gif.gif", (400, 400), False, False),
        ("24_colorado_sign_text_3120px.jpg", (3000, 3120), False, True),
    ],
)
def test_real_files(data: Path, name: str, size: tuple[int, int] | None, alpha: bool, profile: bool) -> None:
    picture = read_picture(data / name)
    assert size is None or picture.rgb.shape[:2] == size
    assert (picture.alpha is not None, picture.icc_profile is not None) == (alpha, profile)
    written = opened(encode_picture(picture))
    assert written.size == (picture.rgb.shape[1], picture.rgb.shape[0])
    transparent = alpha and picture.alpha.min() < 255  # WebP drops an alpha that is opaque all over
    assert written.mode == ("RGBA" if transparent else "RGB")
    assert written.info.get("icc_profile") == picture.icc_profile
