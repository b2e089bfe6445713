"""Pictures painted by tiles, from file to file: what comes out is what one pass gives, whatever happens on the way."""

from __future__ import annotations

import errno
import io
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("pyvips")

import torch
from click.testing import CliRunner
from PIL import Image, ImageCms
from tiny import SIZES

from impasto import Stylizer
from impasto.card import Style
from impasto.cli import main
from impasto.errors import Interrupted, PictureError, WrongCall
from impasto.images import read_picture
from impasto.inference import brush, by_tiles, huge, stylize_files
from impasto.inference.geometry import Geometry, crops, tiles
from impasto.inference.memory import parse_memory
from impasto.inference.moments import Rows, measure_all
from impasto.inference.raster import Raster
from impasto.inference.split import Split
from impasto.inference.streams import Source
from impasto.training import TransformerNet, export_pack

HEIGHT, WIDTH = 203, 298
MEMORY = 2_000_000


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of random weights."""
    torch.manual_seed(0)
    net = TransformerNet("fast", 1, **SIZES).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return export_pack(net, tmp_path_factory.mktemp("huge") / "pack", styles=[Style("random")]).path


@pytest.fixture(autouse=True)
def tiny_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """That a picture of 60,000 pixels does not fit into `MEMORY`, and that its crops are small."""
    monkeypatch.setattr(huge, "BASE", 0)
    monkeypatch.setattr(by_tiles, "CROP", 64)


def geometry(**sizes: int) -> Geometry:
    return Geometry.of({"name": "fast", **SIZES, **sizes})


def pixels(channels: int = 3, bits: int = 8) -> np.ndarray:
    """Something smooth with a dark half, so that parts have other statistics than the whole."""
    down, across = np.mgrid[:HEIGHT, :WIDTH]
    waves = [np.sin(down / (5 + 3 * k)) * np.cos(across / (9 - 2 * k)) for k in range(channels)]
    values = np.stack(waves, axis=2) * 0.4 + 0.5
    values[:, :120] *= 0.3
    return np.rint(values * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def photo(folder: Path, name: str = "photo.tif", **options: object) -> Path:
    Image.fromarray(pixels()).save(folder / name, **options)
    return folder / name


def paint(source: Path, output: Path, pack: Path, **options: object) -> np.ndarray:
    report = stylize_files(source, output, pack=pack, threads=1, max_memory=MEMORY, **options)
    assert report.done[0].error is None
    return np.asarray(Image.open(output))


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    apart = one.astype(np.float64) - other
    return float(10 * np.log10(255**2 / (apart**2).mean()))


class TestGeometry:
    @pytest.mark.parametrize("size", [(203, 298), (64, 64), (65, 16), (192, 256)])
    @pytest.mark.parametrize("sizes", [{}, {"stride": 8}])
    def test_tiles_cover_pixels_and_maps_once(self, size, sizes):
        found = geometry(**sizes)
        counted = np.zeros(size, int)
        cells = np.zeros((found.cells(size[0]), found.cells(size[1])), int)
        for tile in tiles(*size, 64, found):
            counted[tile.rows.start : tile.rows.end, tile.columns.start : tile.columns.end] += 1
            top, left, height, width = tile.seen
            maps = np.zeros((found.cells(height), found.cells(width)), int)
            first, second, last, end = tile.margins
            maps[first : maps.shape[0] - last, second : maps.shape[1] - end] = 1
            y, x = top // found.stride, left // found.stride
            cells[y : y + maps.shape[0], x : x + maps.shape[1]] += maps
            assert tile.cells == maps.sum()
        assert (counted == 1).all() and (cells == 1).all()

    @pytest.mark.parametrize(
        ("name", "sizes"), [("fast", {}), ("fast", {"stride": 8}), ("fast", {"stem": 2}), ("johnson", {})]
    )
    def test_cells_are_the_networks(self, name, sizes):
        net = TransformerNet(name, 1, **(SIZES | sizes if name == "fast" else {})).eval()
        seen: list[tuple[int, ...]] = []
        for norm in net.normalisations.values():
            norm.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape[2:])))
        found = geometry(**sizes) if name == "fast" else Geometry.of({"name": "johnson"})
        for size in (16, 33, 50, 64):
            seen.clear()
            with torch.no_grad():
                net(torch.zeros(1, 3, size, size + 3))
            assert min(seen) == (found.cells(size), found.cells(size + 3))

    def test_the_reach_is_enough(self, pack):
        """Far from a pixel that changes, nothing does."""
        split, image = Split(pack, threads=1), (pixels() / np.float32(255)).astype(np.float32)
        affine = split.measure(image[None], np.ones(1), 1.0).affine
        other = image.copy()
        other[100, 150] = 1 - other[100, 150]
        apart = np.abs(split.apply(image[None], affine[None]) - split.apply(other[None], affine[None]))[0].max(2)
        rows, columns = np.nonzero(apart > 1e-6)
        reach = geometry().reach
        assert 8 < max(np.abs(rows - 100).max(), np.abs(columns - 150).max()) <= reach

    def test_crops_are_spread_and_lie_inside(self):
        found = crops(HEIGHT, WIDTH, 64, 6, geometry())
        corners = [(top, left, 64, 64) for top in (0, 136) for left in (0, 116, 232)]
        assert [tile.seen for tile in found] == corners
        assert [tile.seen for tile in crops(50, 40, 64, 6, geometry())] == [(0, 0, 50, 40)]


class TestTheSame:
    def test_exact_is_one_pass(self, pack, tmp_path):
        source = photo(tmp_path)
        whole = np.asarray(Stylizer(pack, threads=1).stylize(source))
        by_tile = paint(source, tmp_path / "out.tif", pack, exact=True)
        assert psnr(by_tile, whole) > 55
        pooled = paint(source, tmp_path / "pooled.tif", pack)
        assert 15 < psnr(pooled, whole) < 50  # crops of a third of the picture
        assert not list(tmp_path.glob(".*"))

    def test_statistics_are_those_of_the_whole(self, pack):
        split, image = Split(pack, threads=1), (pixels() / np.float32(255)).astype(np.float32)
        whole = split.measure(image[None], np.ones(1), 0.7)
        start = split.measure(image[None, :64, :64], np.ones(1), 0.7)
        channels = [entry["channels"] for entry in Stylizer(pack, threads=1).card.normalisations]
        rows, found = Rows.of(start, channels, 1e-3), tiles(HEIGHT, WIDTH, 64, geometry())

        def read(tile):
            top, left, height, width = tile.seen
            return image[top : top + height, left : left + width]

        passes = [each for each in measure_all(split, found, read, np.ones(1), start.affine, rows) if each is not None]
        assert len(passes) == len(channels)
        np.testing.assert_allclose(passes[-1], whole.affine, atol=1e-4 * np.abs(whole.affine).max())
        assert np.abs(start.affine - whole.affine).max() > 0.05
        first = 2 * channels[0]
        np.testing.assert_allclose(passes[0][:first], whole.affine[:first], rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(passes[0][first:], start.affine[first:])
        again = measure_all(split, found, read, np.ones(1), passes[1], rows, known=2)
        np.testing.assert_array_equal([each for each in again if each is not None][-1], passes[-1])

    def test_no_seam_and_one_with_too_little_overlap(self, pack, tmp_path, monkeypatch):
        """Where tiles meet, nothing changes with more overlap; and much with less."""
        source, lay = photo(tmp_path), by_tiles.tiles
        monkeypatch.setattr(huge, "LARGEST_TILE", 64)
        good = paint(source, tmp_path / "good.png", pack).astype(float)

        def apart(overlap: int) -> np.ndarray:
            monkeypatch.setattr(by_tiles, "tiles", lambda *rest: lay(*rest[:4], overlap))
            painted = paint(source, tmp_path / f"{overlap}.png", pack)
            return np.abs(painted - good)[24:36].mean((0, 2))  # rows in the middle of tiles

        reach = geometry().reach
        assert apart(2 * reach).max() < 0.05
        seams = apart(8)
        borders = np.arange(64, WIDTH, 64)
        assert seams[borders].mean() > 1 > 20 * seams[borders - 32].mean()

    def test_differences_across_borders_are_those_inside(self, pack, tmp_path, monkeypatch):
        """And are not where every tile has its own statistics."""
        source = photo(tmp_path)
        monkeypatch.setattr(huge, "LARGEST_TILE", 64)

        def across_borders(name: str) -> float:
            """Mean difference between neighbours across borders, over that of neighbours a stride to both sides."""
            steps = np.abs(np.diff(paint(source, tmp_path / name, pack).astype(float), axis=1)).mean((0, 2))
            borders = np.arange(64, WIDTH - 4, 64) - 1
            return float(steps[borders].mean() / ((steps[borders - 4] + steps[borders + 4]) / 2).mean())

        assert across_borders("good.png") < 1.05
        monkeypatch.setattr(
            Split,
            "fold",
            lambda split, affine: lambda image: split.apply(image, split.measure(image, np.ones(1), 1.0).affine[None]),
        )
        assert across_borders("bad.png") > 1.15


def icc(name: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


def tiff16(path: Path, tile: bool = False, channels: int = 3) -> Path:
    import pyvips

    image = pyvips.Image.new_from_array(pixels(channels, 16)).copy(interpretation="rgb16")
    image.tiffsave(str(path), tile=tile, tile_width=64, tile_height=64, compression="deflate")
    return path


class TestFiles:
    """At strength 0 a painting is the photo, so that what comes out can be compared with what went in."""

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("a.tif", {}),
            ("lzw.tif", {"compression": "tiff_lzw"}),
            ("a.png", {}),
            ("turned.jpg", {"exif": 6}),
            ("mirrored.jpg", {"exif": 7}),
            ("turned.tif", {"exif": 8}),
            ("profile.png", {"icc_profile": icc("sRGB"), "dpi": (300, 300)}),
        ],
    )
    def test_eight_bits(self, pack, tmp_path, name, options):
        if "exif" in options:
            exif = Image.Exif()
            exif[274], exif[271] = options["exif"], "Maker"
            options = {"exif": exif}
        source = photo(tmp_path, name, **options)
        suffix = ".png" if name.endswith("jpg") else Path(name).suffix
        paint(source, tmp_path / f"out{suffix}", pack, strength=0.0)
        before, after = read_picture(source), read_picture(tmp_path / f"out{suffix}")
        apart = np.abs(before.rgb.astype(int) - after.rgb)
        assert before.rgb.shape == after.rgb.shape and apart.max() <= (3 if name.endswith("jpg") else 0)
        assert before.icc_profile == after.icc_profile
        assert (before.dpi is None) or np.allclose(before.dpi, after.dpi, rtol=1e-3)
        if "exif" in options:
            exif = Image.Exif()
            exif.load(after.exif)
            assert (exif[274], exif[271]) == (1, "Maker")

    @pytest.mark.parametrize("tile", [False, True])
    @pytest.mark.parametrize("suffix", [".tif", ".png"])
    def test_sixteen_bits(self, pack, tmp_path, tile, suffix):
        source = tiff16(tmp_path / "deep.tif", tile)
        paint(source, tmp_path / f"out{suffix}", pack, strength=0.0)
        after = read_picture(tmp_path / f"out{suffix}", deep=True)
        assert after.bits == 16
        np.testing.assert_array_equal(after.deep, pixels(bits=16))

    def test_jpeg(self, pack, tmp_path):
        source = photo(tmp_path, "a.jpg", quality=95)
        paint(source, tmp_path / "out.jpg", pack, strength=0.0)
        assert psnr(np.asarray(Image.open(source)), np.asarray(Image.open(tmp_path / "out.jpg"))) > 45

    def test_what_is_transparent_does_not_count(self, pack, tmp_path):
        rgba = np.concatenate([pixels(), np.full((HEIGHT, WIDTH, 1), 255, np.uint8)], axis=2)
        rgba[:90, :, 3] = 0
        rgba[90:, 200:, 3] = 0
        rgba[:90, :, :3] = (255, 0, 0)
        hidden = rgba.copy()
        hidden[rgba[..., 3] == 0, :3] = (0, 255, 9)
        for name, values in (("one", rgba), ("other", hidden)):
            Image.fromarray(values).save(tmp_path / f"{name}.png")
            paint(tmp_path / f"{name}.png", tmp_path / f"{name}.tif", pack, exact=True)
        one, other = (np.asarray(Image.open(tmp_path / f"{name}.tif")) for name in ("one", "other"))
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one[..., 3], rgba[..., 3])
        whole = np.asarray(Stylizer(pack, threads=1).stylize(tmp_path / "one.png"))
        assert psnr(one, whole) > 50
        with pytest.raises(PictureError, match="transparent in places, which JPEG cannot hold"):
            paint(tmp_path / "one.png", tmp_path / "out.jpg", pack)

    def test_a_tiff_beyond_4_gb_is_a_big_one(self, pack, tmp_path, monkeypatch):
        monkeypatch.setattr("impasto.inference.packing.CLASSIC", 0)
        painted = paint(photo(tmp_path), tmp_path / "big.tif", pack, strength=0.0)
        assert (tmp_path / "big.tif").read_bytes()[:4] == b"II\x2b\0"
        np.testing.assert_array_equal(painted, pixels())

    @pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg"])
    def test_a_truncated_file(self, pack, tmp_path, name):
        options = {"compression": "tiff_deflate"} if name == "a.tif" else {}
        data = photo(tmp_path, name, **options).read_bytes()
        if name == "a.tif":  # its directory stands at the end; hence the middle is taken out
            (tmp_path / name).write_bytes(data[: len(data) // 3] + bytes(len(data) // 3) + data[2 * len(data) // 3 :])
        else:
            (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(PictureError, match=rf"{name}: .*cannot be decoded as"):
            paint(tmp_path / name, tmp_path / "out.tif", pack)
        assert [path.name for path in tmp_path.iterdir() if "out.tif" in path.name] == []

    def test_a_file_that_lies_about_its_size(self, pack, tmp_path):
        data = bytearray(photo(tmp_path).read_bytes())
        (directory,) = struct.unpack_from("<I", data, 4)
        for place in range(directory + 2, directory + 2 + 12 * 2, 12):  # width and length come first
            struct.pack_into("<HII", data, place + 2, 4, 1, 2_000_000)
        (tmp_path / "photo.tif").write_bytes(data)
        finished = run(tmp_path / "photo.tif", "-o", tmp_path / "out.tif", "--pack", pack)
        assert finished.exit_code == 1
        assert "36000.0 GB of the disk are needed" in one_line(finished)
        assert not (tmp_path / "out.tif").exists()


def run(*arguments: object):
    return CliRunner().invoke(main, ["stylize", *map(str, arguments), "--threads", "1", "--max-memory", "2MB"])


def one_line(finished) -> str:
    lines = finished.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), finished.stderr
    return lines[0]


class TestGoingOn:
    def counted(self, monkeypatch) -> list[int]:
        """Counts the tiles that are painted from here on."""
        done: list[int] = []
        add = by_tiles.Scratch.add_done
        monkeypatch.setattr(by_tiles.Scratch, "add_done", lambda kept: (done.append(1), add(kept))[1])
        return done

    def test_killed_and_gone_on_with(self, pack, tmp_path, monkeypatch):
        source, output = photo(tmp_path), tmp_path / "out.tif"
        code = f"""
import os, signal
from impasto.inference import by_tiles, huge, stylize_files
huge.BASE, by_tiles.CROP, huge.LARGEST_TILE = 0, 64, 64
def progress(behind, total):
    if behind >= 8: os.kill(os.getpid(), signal.SIGKILL)
stylize_files({str(source)!r}, {str(output)!r}, pack={str(pack)!r}, threads=1, max_memory={MEMORY}, progress=progress)
"""
        killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not output.exists()
        monkeypatch.setattr(huge, "LARGEST_TILE", 64)
        clean = paint(source, tmp_path / "clean.tif", pack)
        done = self.counted(monkeypatch)
        painted = paint(source, output, pack)
        assert 0 < len(done) < len(tiles(HEIGHT, WIDTH, 64, geometry())) - 4
        np.testing.assert_array_equal(painted, clean)
        assert not list(tmp_path.glob(".*"))

    def test_other_settings_and_another_source_begin_anew(self, pack, tmp_path, monkeypatch):
        source, output = photo(tmp_path), tmp_path / "out.tif"
        monkeypatch.setattr(huge, "LARGEST_TILE", 64)
        every = len(tiles(HEIGHT, WIDTH, 64, geometry()))

        def stop(behind: int, total: int) -> None:
            if behind >= 8:
                raise KeyboardInterrupt

        for change in ("strength", "source"):
            with pytest.raises((KeyboardInterrupt, Interrupted)):
                stylize_files(source, output, pack=pack, threads=1, max_memory=MEMORY, progress=stop)
            assert list(tmp_path.glob(".out.tif.impasto/painted"))
            if change == "source":
                Image.fromarray(pixels()[::-1]).save(source)
            done = self.counted(monkeypatch)
            paint(source, output, pack, **({"strength": 0.5} if change == "strength" else {}))
            assert len(done) == every

    def test_a_full_disk(self, pack, tmp_path, monkeypatch):
        source, output = photo(tmp_path), tmp_path / "out.tif"
        write, count = Raster.write, 0

        def full(raster: Raster, *arguments: object) -> None:
            nonlocal count
            count += raster.path.name == "painted"
            if count == 5:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(raster, *arguments)

        monkeypatch.setattr(huge, "LARGEST_TILE", 64)
        monkeypatch.setattr(Raster, "write", full)
        line = one_line(run(source, "-o", output, "--pack", pack))
        assert line == f"Error: {output}: No space left on device (the same command goes on from here)"
        assert not output.exists()
        done = self.counted(monkeypatch)
        paint(source, output, pack)
        assert len(done) == len(tiles(HEIGHT, WIDTH, 64, geometry())) - 4

    @pytest.mark.parametrize("suffix", [".tif", ".png"])
    def test_a_disk_that_fills_at_the_end(self, pack, tmp_path, monkeypatch, suffix):
        source, output = photo(tmp_path), tmp_path / f"out{suffix}"
        opened = Path.open

        class Full(io.FileIO):
            def write(self, data: object) -> int:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(
            Path, "open", lambda path, *a, **k: Full(path, "wb") if path.name == "file" else opened(path, *a, **k)
        )
        assert "No space left on device (the same command goes on" in one_line(
            run(source, "-o", output, "--pack", pack)
        )
        assert not output.exists()
        monkeypatch.setattr(Path, "open", opened)
        done = self.counted(monkeypatch)
        paint(source, output, pack)
        assert not done

    def test_without_the_extra(self, pack, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyvips", None)
        line = one_line(run(photo(tmp_path), "-o", tmp_path / "out.tif", "--pack", pack))
        assert line.endswith("a picture too large for one pass needs the package 'pyvips': pip install 'impasto[huge]'")

    def test_too_little_memory(self, pack, tmp_path):
        finished = CliRunner().invoke(
            main,
            [
                "stylize",
                str(photo(tmp_path)),
                "-o",
                str(tmp_path / "o.tif"),
                "--pack",
                str(pack),
                "--max-memory",
                "1MB",
            ],
        )
        assert finished.exit_code == 2
        assert "max_memory: got 1 MB, expected 2 MB or more" in one_line(finished)


class TestBrush:
    def test_means_of_windows_by_hand(self, monkeypatch):
        monkeypatch.setattr(brush, "RADIUS", 1)
        got = brush._window_mean(np.array([[0.0, 3.0, 6.0, 3.0]]))
        np.testing.assert_allclose(got, [[1.5, 3.0, 4.0, 4.5]])

    def test_squares_and_what_is_left_of_them(self):
        values = np.array([[[0] * 3, [100] * 3, [20] * 3], [[200] * 3, [100] * 3, [40] * 3]], np.uint8)
        np.testing.assert_allclose(brush._means(values, 2)[..., 0] * 255, [[100, 30]], rtol=1e-6)

    def test_what_follows_the_photo_is_as_sharp_as_the_photo(self):
        """A painting that is an affine function of the photo is that of the large photo."""
        large = (pixels() / 255).astype(np.float32)
        step = np.where(np.arange(WIDTH) < 153, 0.2, 0.8)[None, :, None]  # an edge inside a small pixel
        large = (0.2 * large + 0.6 * step).astype(np.float32)
        small = brush.shrunk(
            lambda top, rows: np.rint(large[top : top + rows] * 65535).astype(np.uint16), HEIGHT, WIDTH, 60
        )
        matrix = np.array([[0.5, 0.2, 0], [0, 0.6, 0.1], [0.3, 0, 0.4]], np.float32)
        carried = brush.Carried.of(small, small @ matrix.T + 0.1, HEIGHT, WIDTH)
        wanted = large @ matrix.T + 0.1
        assert psnr(255 * carried.block(0, 0, large), 255 * wanted) > 34
        parts = np.concatenate([carried.block(top, 0, large[top : top + 50]) for top in range(0, HEIGHT, 50)])
        np.testing.assert_allclose(parts, carried.block(0, 0, large), atol=1e-5)

    def test_the_print_predicts_itself_by_its_preview(self, pack, tmp_path):
        source = photo(tmp_path)
        preview = Image.open(source).resize((100, 68), Image.Resampling.LANCZOS)
        painted = np.asarray(Stylizer(pack, threads=1).stylize(preview))
        by_tile = paint(source, tmp_path / "tiles.png", pack, brush=100)
        stylize_files(source, tmp_path / "whole.png", pack=pack, threads=1, brush=100, max_memory=10**9)
        assert by_tile.shape == (HEIGHT, WIDTH, 3)
        assert psnr(by_tile, np.asarray(Image.open(tmp_path / "whole.png"))) > 50
        shrunk = np.asarray(Image.fromarray(by_tile).resize((100, 68), Image.Resampling.LANCZOS))
        own = paint(source, tmp_path / "own.png", pack)
        other = np.asarray(Image.fromarray(own).resize((100, 68), Image.Resampling.LANCZOS))
        assert psnr(shrunk, painted) > 25 > 10 + psnr(other, painted)  # random strokes are harsher than a painter's


@pytest.mark.parametrize(
    ("text", "wanted"), [("1GB", 10**9), ("800 mb", 8 * 10**8), ("1.5GiB", 3 << 29), ("2", 2 << 30), ("64MiB", 1 << 26)]
)
def test_memory_as_it_is_written(text, wanted):
    assert parse_memory(text) == wanted


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "1TB2", "nan"])
def test_memory_that_is_none(text):
    with pytest.raises(WrongCall, match="expected such as 1GB, 800MB or 1.5GiB"):
        parse_memory(text)


def test_what_fits_is_painted_in_one_pass(pack, tmp_path, monkeypatch):
    source = photo(tmp_path)
    monkeypatch.setattr(huge.HugePainter, "paint", lambda *a: pytest.fail("by tiles"))
    stylize_files(source, tmp_path / "out.tif", pack=pack, threads=1)
    stylize_files(source, tmp_path / "out.tif", pack=pack, threads=1, max_memory=10**8)
    assert Source.open(str(source)).pixels == HEIGHT * WIDTH
