"""The Zeiler sheet: its hits are those of top-patches, and what is sent back comes from exactly those neurons."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from looking import SIDE, noise, tiny_model, write_photos
from PIL import Image
from torch import nn

from impasto.errors import WrongCall
from impasto.visualization import load_model, top_patches, zeiler, zeiler_sheet
from impasto.visualization.projections import inside, largest_outside, neurons_of, project
from impasto.visualization.registry import Refused

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

HIT = ("path", "value", "row", "column", "box")
"""What V05 and V07 both say of a hit."""


@pytest.fixture
def folder(tmp_path):
    write_photos(tmp_path, count=5, width=48, height=40)
    return tmp_path


@pytest.fixture
def sheet_of(folder):
    return lambda **options: zeiler_sheet(tiny_model(), folder, **({"layer": "second"} | options))


def hits_of(result):
    return {unit["unit"]: unit["hits"] for unit in result.data["units"]}


def projections(model, hit, unit, rule):
    """What the neuron of a hit sends back, from its own words: file, row and column."""
    places = [(unit, hit["row"], hit["column"])]
    return project(neurons_of(model, "second"), model.read(hit["path"]), places, rule).pixels[0]


class TestGates:
    @pytest.mark.parametrize("layer", ["relu1", "pool", "second"])
    @pytest.mark.parametrize("border", [True, False])
    def test_nothing_outside_the_box_and_something_inside(self, sheet_of, layer, border):
        result = sheet_of(layer=layer, border=border)
        hits = [hit for unit in result.data["units"] for hit in unit["hits"]]
        assert hits and result.data["outside"] == 0
        for hit in hits:
            assert hit["deconvnet"]["outside"] == hit["guided"]["outside"] == 0
            assert hit["deconvnet"]["inside"] > 0
        assert sum(hit["guided"]["inside"] > 0 for hit in hits) >= 0.9 * len(hits)

    @pytest.mark.parametrize("options", [{}, {"units": (5, 2)}, {"count": 2}, {"border": False}])
    def test_units_and_places_are_those_of_top_patches(self, sheet_of, folder, options):
        patches = top_patches(tiny_model(), folder, layer="second", **options)
        ours, theirs = hits_of(sheet_of(**options)), hits_of(patches)
        assert list(ours) == list(theirs)[: zeiler.PAGE] and any(ours.values())
        for unit, hits in ours.items():
            assert [{key: hit[key] for key in HIT} for hit in hits] == [
                {key: hit[key] for key in HIT} for hit in theirs[unit]
            ]

    def test_each_projection_is_of_exactly_that_neuron(self, sheet_of):
        """Recomputed from the words of the data alone: value, largest magnitude and scale."""
        model = tiny_model()
        for unit, hits in hits_of(sheet_of(units=(1, 4, 7), scale="max")).items():
            for hit in hits:
                with torch.no_grad():
                    value = neurons_of(model, "second")(model.read(hit["path"]))[0, unit, hit["row"], hit["column"]]
                assert hit["value"] == pytest.approx(float(value), rel=1e-5)
                for name, rule in zeiler.BLOCKS.items():
                    pixels = projections(model, hit, unit, rule)
                    assert hit[name]["inside"] == hit[name]["limit"]
                    assert hit[name]["limit"] == pytest.approx(float(pixels.abs().max()), rel=1e-5)

    @pytest.mark.parametrize(
        ("name", "wrong"),
        [
            ("rows for columns", lambda unit, row, column: (unit, column, row)),
            ("the next place", lambda unit, row, column: (unit, row, column - 1 if column else 1)),
            ("the next row", lambda unit, row, column: (unit, row - 1 if row else 1, column)),
        ],
    )
    def test_a_projection_from_elsewhere_is_caught(self, sheet_of, monkeypatch, name, wrong):
        """Then it reaches outside the box, which the technique itself says."""
        real = zeiler.project
        monkeypatch.setattr(
            zeiler,
            "project",
            lambda neurons, photos, places, rule: real(neurons, photos, [wrong(*place) for place in places], rule),
        )
        assert sheet_of().data["outside"] > 0

    def test_the_sum_of_a_map_is_caught(self, sheet_of, monkeypatch):
        """Projecting a channel in the place of one neuron, as many do."""

        def summed(neurons, photos, places, rule):
            everywhere = lambda pictures: neurons(pictures).sum((2, 3), keepdim=True)  # noqa: E731
            return project(everywhere, photos, [(unit, 0, 0) for unit, _, _ in places], rule)

        monkeypatch.setattr(zeiler, "project", summed)
        assert sheet_of().data["outside"] > 0

    def test_another_unit_is_caught(self, sheet_of, monkeypatch):
        """It stays in the box: the magnitudes tell."""
        right = hits_of(sheet_of(units=(4,)))[4]

        def of_the_fifth(neurons, photos, places, rule):
            return project(neurons, photos, [(5, *place[1:]) for place in places], rule)

        monkeypatch.setattr(zeiler, "project", of_the_fifth)
        wrong = hits_of(sheet_of(units=(4,)))[4]
        magnitudes = [[hit["deconvnet"]["inside"] for hit in hits] for hits in (right, wrong)]
        assert all(abs(ours / theirs - 1) > 1e-3 for ours, theirs in zip(*magnitudes, strict=True))

    def test_a_planted_pattern(self, tmp_path):
        """A unit that is a template: its photo comes first, and what comes back is the template, at its place."""
        template = (noise(3, 5, 5, seed=3) > 0.5).float() - 0.5
        layer = nn.Conv2d(3, 1, 5)
        with torch.no_grad():
            layer.weight[0] = template
            layer.bias.zero_()
        model = load_model(nn.Sequential(layer, nn.ReLU()), size=SIDE, mean=(0.5,) * 3, std=(1.0,) * 3)
        for index in range(4):
            pixels = np.full((SIDE, SIDE, 3), 128, np.uint8)
            if index == 2:
                pixels[9:14, 20:25] = ((template + 0.5) * 255).permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        result = zeiler_sheet(model, tmp_path, layer="1", count=1, scale="max")
        (hit,) = hits_of(result)[0]
        assert hit["path"].endswith("2.png") and (hit["row"], hit["column"]) == (9, 20)
        assert hit["box"] == [20, 9, 25, 14] and hit["guided"]["limit"] == 0.5
        tiles = np.asarray(result.images["zeiler_sheet"]).astype(int)
        expected = (template + 0.5).permute(1, 2, 0).numpy().repeat(13, 0).repeat(13, 1) * 255
        found = [
            (top, left)
            for top in range(tiles.shape[0] - 64)
            for left in range(tiles.shape[1] - 64)
            if np.abs(tiles[top : top + 65 : 13, left : left + 65 : 13] - expected[::13, ::13]).max() <= 1
            and np.abs(tiles[top : top + 65, left : left + 65] - expected).max() <= 1
        ]
        assert len(found) == 3 and len({top for top, _ in found}) == 1, "patch, deconvnet and guided, in one row"

    def test_does_not_depend_on_which_units_are_shown_together(self, sheet_of):
        assert hits_of(sheet_of(units=(3,)))[3] == hits_of(sheet_of())[3]


class TestLayersWithoutMaps:
    def test_of_numbers_the_whole_picture(self, sheet_of, folder):
        data = sheet_of(layer="linear").data
        assert data["rf"] == "global" and data["outside"] == 0
        hit = next(hit for unit in data["units"] for hit in unit["hits"])
        model = tiny_model()
        unit = next(unit["unit"] for unit in data["units"] if unit["hits"])
        pixels = project(neurons_of(model, "linear"), model.read(hit["path"]), [(unit,)], "guided").pixels
        assert hit["guided"]["inside"] == pytest.approx(float(pixels.abs().max()), rel=1e-5)
        with Image.open(hit["path"]) as image:
            width, height = image.size
        assert hit["box"] == pytest.approx([4, 0, width - 4, height], abs=0.7)


class TestPadding:
    def test_a_unit_that_sees_nothing_but_padding(self, folder):
        """Its bias is the highest value; nothing comes back, which is grey and not an error."""
        layer = nn.Conv2d(3, 2, 1, padding=2)
        with torch.no_grad():
            layer.weight.mul_(0.01)
            layer.bias.copy_(torch.tensor([1.0, -1.0]))
            layer.weight[0] = -layer.weight[0].abs()
        model = load_model(nn.Sequential(layer, nn.ReLU()), size=SIDE, mean=(0,) * 3, std=(1,) * 3)
        (hit, *_) = hits_of(zeiler_sheet(model, folder, layer="1"))[0]
        assert (hit["row"], hit["column"]) == (0, 0) and hit["value"] == 1
        assert hit["guided"] == {"inside": 0, "outside": 0, "limit": 1}

    def test_a_relu6_at_6_is_said_and_its_entry_is_not_empty(self, folder):
        """Where a unit is strongest its ReLU6 is often full: then nothing comes back, and the sheet says so."""
        layer = nn.Conv2d(3, 2, 3)
        with torch.no_grad():
            layer.weight.copy_(layer.weight.abs() * 100)
        model = load_model(nn.Sequential(layer, nn.ReLU6()), size=SIDE, mean=(0,) * 3, std=(1,) * 3)
        full = zeiler_sheet(model, folder, layer="1")
        assert full.data["silent"] == {"deconvnet": 0, "guided": 10}
        assert {hit["value"] for hits in hits_of(full).values() for hit in hits} == {6}
        assert "sends nothing back from 10 neurons" in full.caption and "choose 1:in" in full.caption
        before = zeiler_sheet(model, folder, layer="1:in")
        assert before.data["silent"] == {"deconvnet": 0, "guided": 0} and "nothing back" not in before.caption


class TestWhatIsShown:
    def test_pages(self, sheet_of):
        assert [unit["unit"] for unit in sheet_of().data["units"]] == list(range(8))
        with pytest.raises(WrongCall, match="got page 2, expected 1 to 1"):
            sheet_of(page=2)

    def test_more_units_than_a_page(self, folder, monkeypatch):
        monkeypatch.setattr(zeiler, "PAGE", 3)
        shown = [
            [unit["unit"] for unit in zeiler_sheet(tiny_model(), folder, layer="second", page=page).data["units"]]
            for page in (1, 2, 3)
        ]
        assert shown == [[0, 1, 2], [3, 4, 5], [6, 7]]

    def test_units_never_active_are_said(self, folder):
        model = tiny_model()
        with torch.no_grad():
            model.network.first.weight[2].zero_()
            model.network.first.bias[2] = -1
        result = zeiler_sheet(model, folder, layer="relu1")
        assert result.data["never"] == [2] and hits_of(result)[2] == []
        assert hits_of(result)[0] and "never active: 1" in result.caption
        with pytest.raises(Refused, match="these units of relu1 are never active"):
            zeiler_sheet(model, folder, layer="relu1", units=(2,))

    def test_what_any_photo_would_give_is_said(self, folder, sheet_of):
        assert sheet_of().data["same_for_any"] == []
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())
        result = zeiler_sheet(load_model(network, size=SIDE), folder, layer="3")
        assert result.data["same_for_any"] == ["deconvnet"]
        assert "The deconvnet: nothing on the way back depends on the picture" in result.caption
        result = zeiler_sheet(load_model(network, size=SIDE), folder, layer="0")
        assert result.data["same_for_any"] == ["deconvnet", "guided"], "a linear unit is its weights"

    def test_scales(self, sheet_of):
        """From the definition, within the box; and never fainter than by the largest magnitude."""
        hits = {scale: hits_of(sheet_of(scale=scale, units=(4, 6))) for scale in ("max", "std")}
        for unit in (4, 6):
            for largest, deviations in zip(hits["max"][unit], hits["std"][unit], strict=True):
                for name, rule in zeiler.BLOCKS.items():
                    pixels = projections(tiny_model(), deviations, unit, rule)
                    row, column = deviations["row"], deviations["column"]
                    seen = pixels[:, max(0, 2 * row - 3) : 2 * row + 5, max(0, 2 * column - 3) : 2 * column + 5]
                    full = min(float(5 * seen.std(correction=0)), float(seen.abs().max()))
                    assert deviations[name]["limit"] == pytest.approx(full, rel=1e-5)
                    assert largest[name]["limit"] == pytest.approx(float(pixels.abs().max()), rel=1e-5)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"count": 0}, "got count 0 and side 64"),
            ({"side": 0}, "got count 9 and side 0"),
            ({"units": (1, 8)}, "unit 8: expected 0 to 7"),
            ({"layer": "secnd"}, "second"),
            ({"scale": "full"}, "std"),
        ],
    )
    def test_wrong_calls(self, sheet_of, options, message):
        with pytest.raises(WrongCall, match=message):
            sheet_of(**options)

    def test_refuses_without_relus(self, folder):
        with pytest.raises(Refused, match="no such operation, but silu"):
            zeiler_sheet(tiny_model(nn.SiLU), folder, layer="second")

    def test_data_is_json(self, sheet_of):
        result = sheet_of()
        assert json.loads(json.dumps(result.data)) == result.data and result.caption.endswith(".")


class TestCut:
    def test_beyond_the_picture(self):
        pixels = torch.arange(16.0).view(1, 4, 4)
        assert zeiler._cut(pixels, (-1, 2, 2, 5), 0.5)[0].tolist() == [[0.5, 8, 9], [0.5, 12, 13], [0.5, 0.5, 0.5]]
        assert torch.equal(zeiler._cut(pixels, (1, 0, 3, 4), 9), pixels[:, :, 1:3])
        assert torch.equal(inside(pixels, (1, 0, 3, 4)), pixels[:, :, 1:3])
        assert (zeiler._cut(pixels, (-9, -9, -5, -5), 0.25) == 0.25).all()
        assert largest_outside(pixels, (0, 0, 4, 4)) == 0
