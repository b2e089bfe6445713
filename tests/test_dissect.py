"""Units are labelled with what was planted, overlaps are those of loops, and neither ties nor chance make a label."""

from __future__ import annotations

import functools
import operator
from pathlib import Path

import numpy as np
import pytest
import torch
from looking import SIDE, data_folder, tiny_model, write_photos
from PIL import Image
from planted import CONCEPTS, FIRST_SIX, PHOTOS, SIZE, planted_model, write_planted
from reference.naive_dissection import naive_enlarged, naive_iou, naive_thresholds
from torch import nn

from impasto.errors import PictureError, WrongCall
from impasto.losses import capture
from impasto.visualization import detectors, dissect, load_model
from impasto.visualization.concepts import COLOURS, Concepts
from impasto.visualization.dissection import Dissection, Layer, dissection
from impasto.visualization.inputs import Masked
from impasto.visualization.registry import Refused

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted(tmp_path_factory.mktemp("planted") / "planted")


@functools.cache
def dissected(folder: Path, top: float = 0.005, noise: int = 20, reach: float | None = None) -> Dissection:
    layer = Layer.of(planted_model(noise=noise, reach=reach), "units")
    return dissection(layer, Concepts.of(Masked.of(folder), "masks"), top=top)


def names(found: Dissection) -> list[str]:
    return [found.concepts.names[number] for number in found.best.tolist()]


class TestPlanted:
    def test_six_labels(self, planted):
        """Every concept covers 0.005 of the pixels, as many as a unit is on at: measured 6 of 6, each IoU 1.00."""
        found = dissected(planted)
        assert names(found)[:6] == list(FIRST_SIX)
        assert found.best_iou[:6].min() >= 0.7
        assert found.labels(0.04)[6:] == [None] * 20, "noise is no detector"

    def test_the_ceiling_is_reached_and_never_passed(self, planted):
        """Top 0.05 for concepts of 0.005: p / q = 0.1, measured 0.1000 for all six."""
        found = dissected(planted, top=0.05)
        own = [found.concepts.names.index(name) for name in FIRST_SIX]
        for unit, number in enumerate(own):
            assert found.iou[unit, number] == pytest.approx(0.1, rel=0.05)
            assert found.ceiling[unit, number] == pytest.approx(0.1, rel=1e-9)
        for top in (0.002, 0.005, 0.05):
            each = dissected(planted, top=top)
            assert (each.iou <= each.ceiling + 1e-12).all()

    def test_noise_is_at_chance(self, planted):
        """qp / (q + p - qp) = 0.0025; measured a mean of 0.0026 over 20 units and 10 concepts, at most 0.013."""
        found = dissected(planted)
        noise = found.iou[6:, :10]
        assert float(noise.mean()) == pytest.approx(0.0025, rel=0.2) and noise.max() < 0.04

    def test_thresholds_let_through_what_they_should(self, planted):
        """Of 40 000 values of each unit 200, to the last one."""
        found = dissected(planted)
        assert found.areas[:, 0].tolist() == [200] * 26
        assert found.labelled[0] == PHOTOS * SIZE * SIZE and found.pixels[:10].tolist() == [8 * PHOTOS] * 10


class TestTies:
    def test_saturated_units_are_labelled(self, planted):
        """A unit that is 6 on its concept and 0 elsewhere: measured IoU 1.00; and at a half of it, the ceiling."""
        found = dissected(planted, reach=0.05)
        assert names(found)[:6] == list(FIRST_SIX) and found.best_iou[:6].min() >= 0.7
        half = dissected(planted, top=0.0025, reach=0.05)
        assert half.tied[:6].all() and names(half)[:6] == list(FIRST_SIX)
        assert half.best_iou[:6].tolist() == pytest.approx([0.5] * 6, rel=1e-9), "the ceiling q / p"

    def test_greater_and_greater_or_equal_are_caught(self, planted):
        """The saboteurs, on the same saturated units: `>` finds nothing, `>=` passes the ceiling of top 0.0025."""
        pictures = Masked.of(planted)
        model = planted_model(noise=0, reach=0.05)
        images = torch.cat([model.read(path) for path in pictures.paths])
        maps = capture(model, ["units"])(images)["units"].double().numpy()
        labels = [pictures.mask(index, model) for index in range(PHOTOS)]
        for unit, threshold in enumerate(naive_thresholds(maps, 0.0025)):
            pixels = list(maps[:, unit])
            assert naive_iou(pixels, labels, threshold, unit + 1, operator.gt)[0] == 0
            assert naive_iou(pixels, labels, threshold, unit + 1, operator.ge)[0] == 1 > 0.5

    def test_a_dead_unit_is_no_detector(self, tmp_path):
        """With `>=` it would be on everywhere, and have the IoU of whatever is largest; with `>` nowhere."""
        write_photos(tmp_path, 12)
        network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
        nn.init.constant_(network[0].bias, -50)
        found = dissection(Layer.of(load_model(network, size=SIDE), "1"), Concepts.of(Masked.of(tmp_path)), top=0.01)
        shares = found.pixels / found.labelled
        assert found.tied.all() and (found.areas[:, 0] == round(0.01 * 12 * SIDE * SIDE)).all()
        chance = shares * 0.01 / (shares + 0.01 - shares * 0.01)
        assert shares.max() > 0.1 and (found.best_iou < 3 * chance.max()).all() and found.labels(0.04) == [None, None]

    def test_a_tie_is_told_apart_the_same_each_time(self, planted):
        again = dissected.__wrapped__(planted, reach=0.05)
        assert torch.equal(dissected(planted, reach=0.05).table, again.table)


class TestCounts:
    @pytest.fixture
    def labelled(self, tmp_path: Path) -> Path:
        """Ten photos; all but two with a mask of three numbers."""
        write_photos(tmp_path / "images", 10, 32, 32)
        (tmp_path / "masks").mkdir()
        for photo in range(8):
            numbers = np.random.default_rng(photo).integers(0, 4, (8, 8), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
            Image.fromarray(numbers).save(tmp_path / "masks" / f"{photo:02d}.png")
        return tmp_path

    def test_are_those_of_loops(self, labelled):
        """Maps of 16 x 16, enlarged to the pixels between the middles of receptive fields: 0.5 and 2 pixels apart."""
        model, pictures = tiny_model(), Masked.of(labelled)
        layer, concepts = Layer.of(model, "second"), Concepts.of(pictures, "masks")
        assert layer.field is not None
        first = layer.field.start[0] + layer.field.size[0] / 2
        assert (first, layer.field.stride) == (1.0, (2, 2))
        images = torch.cat([model.read(path) for path in pictures.paths])
        maps = capture(model, ["second"])(images)["second"].double().numpy()
        labels = [pictures.mask(index, model) for index in range(10)]
        found = dissection(layer, concepts, top=0.02)
        thresholds = naive_thresholds(maps, 0.02)
        assert found.thresholds.tolist() == pytest.approx(thresholds, rel=1e-6)
        for unit in (0, 3, 7):
            pixels = [naive_enlarged(each[unit], SIDE, first, 2) for each in maps]
            for number in (1, 2, 3):
                iou, ceiling = naive_iou(pixels, labels, thresholds[unit], number)
                assert found.iou[unit, number - 1] == iou > 0
                assert found.ceiling[unit, number - 1] == ceiling

    def test_in_which_units_are_of_another_scale_or_order(self, labelled):
        model, pictures = tiny_model(), Masked.of(labelled)
        before = dissection(Layer.of(model, "second"), Concepts.of(pictures), top=0.02)
        order = torch.tensor([3, 1, 0, 2, 7, 6, 5, 4])
        scales = torch.tensor([1e-3, 0.5, 1, 2, 3.7, 10, 64, 1e4])
        other = tiny_model()
        second = other.network.get_submodule("second")
        assert isinstance(second, nn.Conv2d) and second.bias is not None
        second.weight.data = (second.weight * scales.view(-1, 1, 1, 1))[order]
        second.bias.data = (second.bias * scales)[order]
        after = dissection(Layer.of(other, "second"), Concepts.of(pictures), top=0.02)
        assert torch.equal(after.table, before.table[order])

    def test_photos_without_a_mask_count_for_colours_alone(self, labelled):
        found = dissection(Layer.of(tiny_model(), "second"), Concepts.of(Masked.of(labelled)), top=0.02)
        assert found.labelled.unique().tolist() == [8 * 32 * 32, 10 * 32 * 32]
        assert found.concepts.names[11] == "label 1" and found.photos[11] == 8
        assert not found.counted[14:].any(), "numbers that no mask has are no concepts"

    def test_units_are_anchored_at_the_middles_of_their_fields(self, tmp_path):
        """Without padding a 17 x 17 convolution has maps of 16 x 16 for the middle of 32 x 32 pixels."""
        (tmp_path / "images").mkdir()
        (tmp_path / "masks").mkdir()
        for photo, (top, left) in enumerate([(9, 20), (20, 9), (12, 12), (9, 9), (19, 19)]):
            pixels = np.zeros((32, 32, 3), np.uint8)
            pixels[top : top + 3, left : left + 3] = 255
            Image.fromarray(pixels).save(tmp_path / "images" / f"{photo}.png")
            Image.fromarray(pixels[..., 0] // 255).save(tmp_path / "masks" / f"{photo}.png")
        network = nn.Sequential(nn.Conv2d(3, 1, 17, bias=False))
        weight = torch.full((1, 3, 17, 17), -1e-3)
        weight[..., 7:10, 7:10] = 1
        network[0].weight = nn.Parameter(weight)
        layer = Layer.of(load_model(network, size=32, mean=(0, 0, 0), std=(1, 1, 1)), "0")
        concepts = Concepts.of(Masked.of(tmp_path))
        top = 9 / 16**2
        anchored = dissection(layer, concepts, top=top)
        spread = dissection(Layer(layer.model, "0", None), concepts, top=top)
        number = concepts.names.index("label 1")
        assert anchored.iou[0, number] > 0.7, "measured 1.00"
        assert spread.iou[0, number] < 0.3, "measured 0.19: maps are not the whole picture"


class TestFloor:
    def test_random_weights_are_the_same_each_time_and_the_network_stays(self, planted):
        layer = Layer.of(tiny_model(), "second")
        before = {name: value.clone() for name, value in layer.model.network.state_dict().items()}
        state = torch.get_rng_state()
        one, two, other = layer.untrained(), layer.untrained(), layer.untrained(seed=1)
        weights = [each.model.network.get_parameter("second.weight") for each in (one, two, other, layer)]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[3])
        assert all(torch.equal(before[name], value) for name, value in layer.model.network.state_dict().items())
        assert torch.equal(torch.get_rng_state(), state)

    def test_is_beside_each_iou(self, planted):
        model = planted_model(noise=0)
        result = dissect(model, planted, concepts="masks", units=(0,), count=1, side=16)
        untrained = dissection(Layer.of(model, "units").untrained(), Concepts.of(Masked.of(planted), "masks"))
        for unit in result.data["units"][:6]:
            number = untrained.concepts.names.index(unit["label"])
            assert unit["floor"] == float(untrained.iou[:, number].max())
        assert result.data["floor"]["detectors"] == sum(label is not None for label in untrained.labels(0.04))
        without = dissect(model, planted, concepts="masks", floor=False, units=(0,), count=1, side=16).data
        assert without["floor"] is None and {unit["floor"] for unit in without["units"]} == {None}

    def test_of_colours_is_high(self, tmp_path):
        """Why there is a floor: linear units with random weights pass 0.04 on colours; measured 16 of 16."""
        write_photos(tmp_path, 12)
        model = load_model(nn.Sequential(nn.Conv2d(3, 16, 1)), size=SIDE)
        found = dissection(Layer.of(model, "0").untrained(), Concepts.of(Masked.of(tmp_path)), top=0.05)
        assert sum(label is not None for label in found.labels(0.04)) >= 12


class TestColours:
    def test_a_red_unit_is_labelled_red(self, tmp_path):
        rng = np.random.default_rng(0)
        called = {"red": (200, 30, 30), "green": (40, 140, 50), "blue": (40, 70, 200), "grey": (128, 128, 128)}
        for photo in range(8):
            cells = np.array(list(called.values()))[rng.choice(4, (8, 8), p=[0.1, 0.2, 0.1, 0.6])]
            pixels = cells.repeat(4, 0).repeat(4, 1) + rng.integers(-9, 10, (32, 32, 3))
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(tmp_path / f"{photo}.png")
        network = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False))
        network[0].weight = nn.Parameter((1.5 * torch.eye(3) - 0.5).view(3, 3, 1, 1))
        result = dissect(load_model(network, size=SIDE, mean=(0, 0, 0), std=(1, 1, 1)), tmp_path, top=0.1)
        assert [unit["label"] for unit in result.data["units"]] == ["red", "green", "blue"]
        assert {unit["category"] for unit in result.data["units"]} == {"colour"}
        assert min(unit["iou"] for unit in result.data["units"]) > 0.4, "green is twice as large as what is on: 0.5"
        assert result.data["masks"] == 0 and "among 8 photos, 0 with masks" in result.caption


class TestResult:
    def test_the_sheet_and_its_numbers(self, planted):
        result = dissect(planted_model(), planted, layer="units", concepts="masks", side=16, count=2)
        assert set(result.images) == {"units", "detectors"}
        data = result.data
        assert data["counts"] == {
            "detectors": 6, "concepts": 6, "best": 1.0, "categories": {"planted": {"detectors": 6, "concepts": 6}}
        }  # fmt: skip
        assert data["counts"]["detectors"] == sum(unit["detector"] for unit in data["units"])
        assert data["counts"]["concepts"] == sum(fact["units"] > 0 for fact in data["concepts"])
        assert {fact["concept"] for fact in data["concepts"]} == set(CONCEPTS)
        assert all(fact["share"] == 0.005 and fact["reachable"] and fact["photos"] == 25 for fact in data["concepts"])
        shown = [card["unit"] for card in data["shown"]]
        assert shown[:6] == list(range(6)) and len(shown) == 24, "the best first"
        assert "6 of the 26 units of units have an IoU above 0.04 and are detectors of 6 concepts" in result.caption

    def test_lit_is_where_the_unit_is_on(self, planted):
        """In a picture of 40 x 40 the tile is the photo itself: its pixels in the mask, and darker ones outside."""
        result = dissect(planted_model(), planted, concepts="masks", side=SIZE, count=1, units=(2,), floor=False)
        (photo,) = result.data["shown"][0]["pictures"]
        sheet = np.asarray(result.images["units"]).astype(int)
        tile = sheet[9 : 9 + SIZE, 9 : 9 + SIZE]
        rgb = np.asarray(Image.open(photo["path"])).astype(int)
        mask = np.asarray(Image.open(planted / "masks" / f"{Path(photo['path']).stem}.png")) == 3
        assert (tile[mask] == rgb[mask]).all(), "navy is lit"
        assert np.abs(tile[~mask] - rgb[~mask] * 0.45).max() <= 1

    def test_what_is_not_all_specks_has_an_edge(self):
        block, specks = torch.zeros(2, 64, 64, dtype=torch.bool)
        block[20:40, 20:40] = True
        specks[::9, ::9] = True
        for mask, edge in ((block, 24 * 24 - 20 * 20), (specks, 0)):
            tile = detectors._lit(torch.full((3, 64, 64), 0.2), mask, 64)
            yellow = (tile - torch.tensor([1, 0.82, 0]).view(3, 1, 1)).abs().amax(0) < 0.01
            assert yellow.sum() == edge and tile[:, mask].eq(0.2).all()

    def test_concepts_that_no_unit_can_reach(self, tmp_path):
        """Regions of 0.08 of the pixels and units that are on at 0.002: at most 0.025."""
        folder = write_planted(tmp_path / "large", pixels=32, photos=6)
        result = dissect(planted_model(), folder, concepts="masks", top=0.0005, floor=False)
        assert not any(fact["reachable"] for fact in result.data["concepts"])
        assert result.data["counts"]["detectors"] == 0 and set(result.images) == {"units"}
        assert "For their size no unit can be a detector of 10, such as coral" in result.caption

    def test_units_and_pages(self, planted):
        model = planted_model()
        some = dissect(model, planted, concepts="masks", floor=False, units=(3, 1), count=1, side=16).data["shown"]
        assert [card["unit"] for card in some] == [3, 1]
        rest = dissect(model, planted, concepts="masks", floor=False, page=2, count=1, side=16).data["shown"]
        assert len(rest) == 2
        with pytest.raises(WrongCall, match="unit 26: expected 0 to 25"):
            dissect(model, planted, concepts="masks", floor=False, units=(26,))

    def test_refusals(self, planted, tmp_path):
        model = tiny_model()
        with pytest.raises(WrongCall, match="got count 0 and side 96"):
            dissect(model, planted, count=0)
        with pytest.raises(WrongCall, match="top: got 1, expected a share between 0 and 1"):
            dissect(model, planted, top=1)
        with pytest.raises(WrongCall, match=r"top: 1e-05 of the values of a unit is less than one"):
            dissect(model, planted, top=1e-5)
        with pytest.raises(WrongCall, match="unknown layer 'third'"):
            dissect(model, planted, layer="third")
        with pytest.raises(Refused, match=r"linear gives shape \(5,\) for a photo, expected maps"):
            dissect(model, planted, layer="linear")
        with pytest.raises(Refused, match="no concept is in 99 photos or more; give more photos or lower --least"):
            dissect(model, planted, least=99)
        with pytest.raises(PictureError, match="missing"):
            dissect(model, tmp_path / "missing")

    def test_the_command_gives_it_again(self, planted):
        from impasto.visualization.inputs import read_inputs

        inputs, words = read_inputs(tiny_model(), "pictures, masks", (str(planted),))
        assert isinstance(inputs[0], Masked) and words == [str(planted)]


class TestRealPhotos:
    @pytest.mark.data
    def test_a_trained_network_detects_more_things_than_random_weights(self):
        """SqueezeNet's last maps and COCO; colours left out. Measured on these 20 photos 31 detectors,
        on 33 photos 147 of 18 things, and with random weights none; on all 140 of CamVid, EfficientNet-Lite0's
        _blocks.10 and top 0.05, 79 and 32."""
        pictures = Masked.of(data_folder("segmentation", "coco_panoptic"))
        weights = data_folder("weights", "squeezenet1_1_torchvision_fp16.pth")
        some = Masked(pictures.paths[::10], pictures.given, pictures.masks[::10])
        layer = Layer.of(load_model("squeezenet1_1", weights=weights), "features")
        concepts = Concepts.of(some, "masks")
        found, floor = (dissection(each, concepts, least=3) for each in (layer, layer.untrained()))
        trained, untrained = (sum(label is not None for label in each.labels(0.04)) for each in (found, floor))
        assert trained > 2 * untrained and trained > 20
        assert set(COLOURS) & set(concepts.names) == {"orange"}  # the fruit
        assert found.best_iou.max() > 3 * floor.best_iou.max()
