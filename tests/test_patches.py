"""Patches that excite units most: brute force, planted, cut from the right place of the photo, and all a unit needs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from looking import SIDE, noise, tiny_model, write_photos
from PIL import Image
from torch import Tensor, nn

from impasto.errors import PictureError, WrongCall
from impasto.losses import capture
from impasto.visualization import Model, hits, load_model, patches, top_patches
from impasto.visualization.fields import receptive_fields
from impasto.visualization.hits import strongest
from impasto.visualization.inputs import Pictures
from impasto.visualization.registry import Refused
from impasto.visualization.scene import to_image

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_photos(tmp_path / "photos", 14)
    return tmp_path / "photos"


def brute(model: Model, pictures: Pictures, layer: str, unit: int, *, inside: slice = slice(None)) -> list[tuple]:
    """(value, picture, row, column), the best first, from every value of every map."""
    found = []
    for index, path in enumerate(pictures.paths):
        values = capture(model, [layer])(model.read(path))[layer][0, unit].tolist()
        places = range(len(values))[inside]
        best = max((values[row][column], -row, -column) for row in places for column in places)
        found.append((best[0], index, -best[1], -best[2]))
    return sorted(found, key=lambda hit: (-hit[0], hit[1]))


class TestStrongest:
    def test_is_brute_force(self, folder):
        model, pictures = tiny_model(), Pictures.of(folder)
        found = strongest(model, pictures, "second", 9)
        assert found.values.shape == (8, 9)
        for unit in (0, 3, 6):
            expected = brute(model, pictures, "second", unit)[:9]
            assert found.values[unit].tolist() == pytest.approx([hit[0] for hit in expected], rel=1e-5, abs=1e-6)
            places = zip(found.pictures[unit], found.rows[unit], found.columns[unit], strict=True)
            assert [tuple(map(int, place)) for place in places] == [hit[1:] for hit in expected]

    def test_does_not_depend_on_the_batch(self, folder):
        model, pictures = tiny_model(), Pictures.of(folder)
        whole = strongest(model, pictures, "second", 5)
        for batch in (1, 3, 14):
            other = strongest(model, pictures, "second", 5, batch=batch)
            assert torch.allclose(other.values, whole.values, rtol=1e-5, atol=1e-6)
            for name in ("pictures", "rows", "columns"):
                assert torch.equal(getattr(other, name), getattr(whole, name)), (batch, name)

    def test_of_equal_ones_the_first_photo_and_place(self, folder):
        network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU6())
        nn.init.constant_(network[0].bias, 9)
        for batch in (1, 4, 32):
            found = strongest(load_model(network, size=SIDE), Pictures.of(folder), "1", 4, batch=batch)
            assert found.values.eq(6).all() and found.pictures.tolist() == [[0, 1, 2, 3]] * 2
            assert not found.rows.any() and not found.columns.any()

    def test_without_the_border(self, folder):
        """A field of 8 pixels from -3 on, every second: the maps' places 2 to 13 of 16 see nothing beyond."""
        model, pictures = tiny_model(), Pictures.of(folder)
        field = receptive_fields(model.network, ["second"], size=SIDE)["second"]
        found = strongest(model, pictures, "second", 9, field=field, border=False)
        everywhere = strongest(model, pictures, "second", 9, field=field)
        for unit in range(8):
            expected = brute(model, pictures, "second", unit, inside=slice(2, 14))[:9]
            assert found.pictures[unit].tolist() == [hit[1] for hit in expected]
            assert found.rows[unit].tolist() == [hit[2] for hit in expected]
            for row, column in zip(found.rows[unit].tolist(), found.columns[unit].tolist(), strict=True):
                assert all(0 <= edge <= SIDE for edge in field.box(row, column))
        assert not torch.equal(found.rows, everywhere.rows), "without it there are hits at the border"

    def test_numbers_are_places_too(self, folder):
        model, pictures = tiny_model(), Pictures.of(folder)
        found = strongest(model, pictures, "linear", 3)
        assert found.values.shape == (5, 3) and not found.rows.any()
        assert found.pictures[2].tolist() == [hit[1] for hit in brute_numbers(model, pictures)[:3]]
        one = strongest(model, Pictures.of(pictures.paths[:1]), "linear", 9)
        assert one.values.shape == (5, 1), "fewer photos than hits"


def brute_numbers(model: Model, pictures: Pictures) -> list[tuple]:
    logits = [(float(model(model.read(path))[0, 2]), index) for index, path in enumerate(pictures.paths)]
    return sorted(logits, reverse=True)


PATTERN = np.sign(np.random.default_rng(3).standard_normal((5, 5)))


def matched() -> Model:
    """One unit that looks for PATTERN, in brightness."""
    network = nn.Sequential(nn.Conv2d(3, 2, 5, bias=False))
    pattern = torch.from_numpy(PATTERN - PATTERN.mean()).float()
    network[0].weight = nn.Parameter(torch.stack([pattern, -pattern])[:, None].expand(-1, 3, -1, -1).clone())
    return load_model(network, size=SIDE, mean=(0, 0, 0), std=(1, 1, 1))


class TestPlanted:
    def test_the_one_photo_with_the_pattern_at_its_place(self, tmp_path):
        """Photos of 96 x 64, read at half their size, 32 columns of it; the pattern is at row 9 and column 20 there."""
        generator = np.random.default_rng(0)
        for index in range(20):
            pixels = generator.integers(108, 148, (32, 48), dtype=np.uint8)
            if index == 17:
                pixels[9:14, 28:33] = np.where(PATTERN > 0, 255, 0)
            Image.fromarray(pixels).convert("RGB").resize((96, 64), Image.Resampling.NEAREST).save(
                tmp_path / f"{index:02d}.png"
            )
        result = top_patches(matched(), tmp_path, layer="0", units=(0,), side=40)
        (unit,) = result.data["units"]
        first, second = unit["hits"][:2]
        assert Path(first["path"]).name == "17.png" and (first["row"], first["column"]) == (9, 20)
        assert first["box"] == pytest.approx([56, 18, 66, 28]) and first["value"] > 2 * second["value"]
        tile = np.asarray(result.images["patches"].convert("L").crop((9, 9, 49, 49)), dtype=np.float64)
        tile = tile.reshape(5, 8, 5, 8).mean((1, 3))
        assert ((tile > 128) == (PATTERN > 0)).all(), "and that is what is drawn"


def ramp(width: int, height: int) -> Image.Image:
    """Red says how far across, green how far down."""
    across, down = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return Image.fromarray((np.stack([across, down, np.zeros_like(down)], -1) * 255).round().astype(np.uint8))


class TestCutOut:
    @pytest.mark.parametrize("size", [(200, 120), (120, 200), (64, 64), (40, 33)])
    def test_is_the_place_in_the_photo(self, size, tmp_path):
        """Measured 0.003 of the photo's side; one pixel of what the network reads, or the crop forgotten, is 0.03."""
        ramp(*size).save(tmp_path / "photo.png")
        model = tiny_model()
        fields = receptive_fields(model.network, ["second"], size=SIDE)
        tiles = patches._Tiles(model, Pictures.of(tmp_path), fields["second"], 64)
        photo = ramp(*size)
        for box in ((4, 10, 12, 18), (0, 0, 8, 8), (20, 3, 28, 11)):
            left, top, right, bottom = model.to_photo(box, photo.size)
            cut = np.asarray(tiles.patch(photo, box), dtype=np.float64).mean((0, 1)) / 255
            assert cut[0] == pytest.approx((left + right) / 2 / size[0], abs=0.01)
            assert cut[1] == pytest.approx((top + bottom) / 2 / size[1], abs=0.01)
            read = model.read(photo)[0, :, box[1] : box[3], box[0] : box[2]].mean((1, 2))
            assert cut == pytest.approx(read.tolist(), abs=0.01)

    def test_is_grey_where_the_network_reads_nothing(self, tmp_path):
        """Though the photo goes on to the left of the crop, the network sees padding there."""
        photo = Image.new("RGB", (96, 32), (250, 10, 10))
        model = tiny_model()
        fields = receptive_fields(model.network, ["second"], size=SIDE)
        tiles = patches._Tiles(model, Pictures(), fields["second"], 64)
        tile = np.asarray(tiles.patch(photo, (-3, 28, 5, 36)))
        assert (tile[:32, 24:] == (250, 10, 10)).all()
        assert (tile[:, :24] == 128).all() and (tile[32:] == 128).all()

    def test_in_the_order_of_the_hits(self, tmp_path):
        """Photos of one colour, a unit that reads red: the tiles are the photos' colours, the reddest first."""
        reds = [30, 220, 90, 160]
        for index, red in enumerate(reds):
            Image.new("RGB", (40, 40), (red, 40 * index, 5)).save(tmp_path / f"{index}.png")
        network = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False))
        network[0].weight = nn.Parameter(torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1))
        result = top_patches(load_model(network, size=SIDE), tmp_path, layer="0", side=16)
        drawn = np.asarray(result.images["patches"])
        places = [(16, 16), (16, 33), (33, 16), (33, 33)]
        assert [drawn[place][0] for place in places] == [220, 160, 90, 30]
        assert [Path(hit["path"]).stem for hit in result.data["units"][0]["hits"]] == ["1", "3", "2", "0"]
        values = [hit["value"] for hit in result.data["units"][0]["hits"]]
        assert f"{values[0]:.3g} to {values[-1]:.3g}" == patches._span(0, strongest_of(network, tmp_path))

    def test_the_box_on_the_photo(self, folder):
        result = top_patches(tiny_model(), folder, layer="relu1", units=(2,), count=1, side=SIDE)
        drawn = result.images["photos"].crop((9, 9, 9 + 2 * SIDE, 9 + 2 * SIDE))
        hit = result.data["units"][0]["hits"][0]
        read = to_image(tiny_model().read(hit["path"])).resize(drawn.size, Image.Resampling.BOX)
        rows, columns = (np.asarray(drawn).astype(int) - np.asarray(read)).any(-1).nonzero()
        edges = [hit["row"] - 1, hit["row"] + 2, hit["column"] - 1, hit["column"] + 2]
        assert [rows.min() / 2, (rows.max() + 1) / 2, columns.min() / 2, (columns.max() + 1) / 2] == edges


def strongest_of(network: nn.Module, folder: Path) -> hits.Hits:
    return strongest(load_model(network, size=SIDE), Pictures.of(folder), "0")


class TestReceptiveField:
    """A patch holds all that its unit needs, and nothing that it does not."""

    @pytest.mark.parametrize("layer", ["relu1", "second"])
    def test_noise_outside_changes_nothing(self, layer, folder):
        """Measured 0 and 2e-7; a field a pixel too small or a step aside gives 0.01 and more."""
        model, pictures = tiny_model(), Pictures.of(folder)
        assert top_patches(model, folder, layer=layer).data["outside"] <= 1e-5
        field = receptive_fields(model.network, [layer], size=SIDE)[layer]
        found = strongest(model, pictures, layer)
        units = [unit for unit in range(len(found.values)) if found.values[unit, 0] != 0][:4]
        assert patches._outside(model, pictures, layer, field, found, units) <= 1e-5
        smaller = dataclasses.replace(field, size=tuple(side - 1 for side in field.size))
        aside = dataclasses.replace(
            field, start=tuple(edge + side for edge, side in zip(field.start, field.stride, strict=True))
        )
        for wrong in (smaller, aside):
            assert patches._outside(model, pictures, layer, wrong, found, units) >= 1e-3

    def test_each_side_of_the_box_matters(self, folder):
        """Of a network whose weights are all positive and that is linear."""
        network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(2), nn.Conv2d(4, 2, 3, padding=1))
        for parameter in network.parameters():
            nn.init.uniform_(parameter, 0.1, 1)
        model = load_model(network, size=SIDE)
        result = top_patches(model, folder, layer="2", count=1, border=False)
        field = receptive_fields(model.network, ["2"], size=SIDE)["2"]
        for unit in result.data["units"]:
            (hit,) = unit["hits"]
            photo = model.read(hit["path"])
            left, top, right, bottom = field.box(hit["row"], hit["column"])
            before = value(model, photo, unit["unit"], hit)
            assert before == pytest.approx(hit["value"], rel=1e-5)
            for edge in ((0, 0, 1, 8), (7, 0, 8, 8), (0, 0, 8, 1), (0, 7, 8, 8)):
                moved = photo.clone()
                part = moved[..., top + edge[1] : top + edge[3], left + edge[0] : left + edge[2]]
                part += noise(*part.shape)
                assert abs(value(model, moved, unit["unit"], hit) / before - 1) > 1e-4, edge
            assert (right - left, bottom - top) == (8, 8)

    def test_of_a_network_with_branches(self, tmp_path):
        """Measured 0; of Lite0's _blocks.2 and _blocks.4 on photos of ImageNet too."""
        write_photos(tmp_path, 3, 96, 80)
        model = load_model("squeezenet1_1", weights=None, size=96)
        result = top_patches(model, tmp_path, layer="features.4", units=(3, 11), count=2)
        assert result.data["rf"] == [23, 23] and result.data["outside"] <= 1e-5


def value(model: Model, photo: Tensor, unit: int, hit: dict) -> float:
    return float(capture(model, ["2"])(photo)["2"][0, unit, hit["row"], hit["column"]])


class TestCache:
    def test_remembers_and_tells_what_changed(self, folder, tmp_path, monkeypatch):
        cache, model = tmp_path / "cache", tiny_model()
        reads: list[int] = []
        search = hits.strongest
        monkeypatch.setattr(hits, "strongest", lambda *args, **named: reads.append(1) or search(*args, **named))

        def run(model: Model = model, **options: object) -> dict:
            options = {"layer": "second", "units": (1, 4)} | options
            return top_patches(model, folder, cache=str(cache), **options).data

        first = run()
        assert first == top_patches(model, folder, layer="second", units=(1, 4)).data and len(reads) == 2
        assert run() == first and len(reads) == 2, "remembered"
        assert run(units=(2,))["units"][0]["unit"] == 2 and len(reads) == 2, "for all units"
        for count, options in enumerate(({"layer": "relu2"}, {"count": 3}, {"border": False}), start=3):
            run(**options)
            assert len(reads) == count, options
        changed = tiny_model()
        with torch.no_grad():
            changed.network.second.bias[1] += 1
        assert run(changed) != first and len(reads) == 6, "another network"
        run(tiny_model(mean=(0, 0, 0)))
        assert len(reads) == 7, "another preprocessing"
        Image.new("RGB", (50, 50), "red").save(folder / "03.png")
        assert len(reads) == 7 and run() != first and len(reads) == 8, "another photo"
        assert all(file.suffix == ".npz" for file in cache.iterdir()) and len(list(cache.iterdir())) == 7

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file", b"\x93NUMPY\x01\x00"])
    def test_a_broken_file_is_made_again(self, folder, tmp_path, content):
        expected = top_patches(tiny_model(), folder, layer="relu1", cache=str(tmp_path / "cache")).data
        (file,) = (tmp_path / "cache").iterdir()
        whole = file.read_bytes()
        file.write_bytes(content)
        assert top_patches(tiny_model(), folder, layer="relu1", cache=str(tmp_path / "cache")).data == expected
        assert len(file.read_bytes()) == len(whole)


class TestFrame:
    def test_units_that_are_never_active_and_tied_ones(self, folder):
        network = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU6())
        with torch.no_grad():
            network[0].bias.copy_(torch.tensor([-100.0, 0.0, 100.0]))
        result = top_patches(load_model(network, size=SIDE), folder, layer="1")
        assert result.data["never"] == [0] and result.data["tied"] == [2]
        assert result.data["units"][0] == {"unit": 0, "hits": []} and len(result.data["units"][2]["hits"]) == 9
        assert "1 are never active, and 1 have only equal hits" in result.caption

    def test_a_unit_that_is_active_in_few_photos_has_few_hits(self, tmp_path):
        for index, red in enumerate([10, 250, 20, 240, 30]):
            Image.new("RGB", (40, 40), (red, 0, 0)).save(tmp_path / f"{index}.png")
        network = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU())
        network[0].weight = nn.Parameter(torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1))
        network[0].bias = nn.Parameter(torch.tensor([-0.5]))
        model = load_model(network, size=SIDE, mean=(0, 0, 0), std=(1, 1, 1))
        found = top_patches(model, tmp_path, layer="1").data["units"][0]["hits"]
        assert [Path(hit["path"]).stem for hit in found] == ["1", "3"]

    def test_pages_of_units(self, folder):
        network = nn.Sequential(nn.Conv2d(3, 40, 3))
        model = load_model(network, size=SIDE)
        shown = [
            [unit["unit"] for unit in top_patches(model, folder, layer="0", count=1, side=8, page=page).data["units"]]
            for page in (1, 2)
        ]
        assert shown == [list(range(36)), list(range(36, 40))]
        with pytest.raises(WrongCall, match="got page 3, expected 1 to 2"):
            top_patches(model, folder, layer="0", page=3)
        with pytest.raises(WrongCall, match="unit 40: expected 0 to 39"):
            top_patches(model, folder, layer="0", units=(3, 40))
        with pytest.raises(WrongCall, match="got count 0 and side 64"):
            top_patches(model, folder, layer="0", count=0)

    def test_units_that_see_everything_show_the_whole_picture(self, tmp_path):
        ramp(64, 48).save(tmp_path / "photo.png")
        result = top_patches(tiny_model(), tmp_path, layer="linear", side=32)
        assert result.data["rf"] == "global" and result.data["outside"] is None and "sees everything" in result.caption
        assert result.data["units"][0]["hits"][0]["box"] == pytest.approx([8, 0, 56, 48], abs=1)
        with pytest.raises(Refused, match="every unit of linear sees beyond the picture: leave out --no-border"):
            top_patches(tiny_model(), tmp_path, layer="linear", border=False)

    def test_a_field_that_is_not_square(self, folder):
        model = load_model(nn.Sequential(nn.Conv2d(3, 2, (3, 9))), size=SIDE)
        result = top_patches(model, folder, layer="0", units=(0,), count=1, side=30)
        assert result.data["rf"] == [3, 9] and result.images["patches"].size[0] >= 92

    def test_refusals(self, folder, tmp_path):
        odd = load_model(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(2)), size=SIDE)
        with pytest.raises(Refused, match=r"the layer 1 gives shape \(14, 2, 1024\)"):
            top_patches(odd, folder, layer="1")
        with pytest.raises(WrongCall, match="unknown layer 'third'"):
            top_patches(tiny_model(), folder, layer="third")
        (folder / "99.png").write_bytes(b"no picture")
        with pytest.raises(PictureError, match=r"99\.png"):
            top_patches(tiny_model(), folder, layer="second")
