"""What techniques draw with, by pixels known by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from looking import noise
from PIL import Image

from impasto.errors import WrongCall
from impasto.visualization import drawing
from impasto.visualization.plots import plot
from impasto.visualization.progress import reporting, track


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


class TestGrid:
    def test_by_hand(self):
        tiles = torch.tensor([0.0, 1.0, 0.5]).view(3, 1, 1, 1).expand(-1, -1, 2, 1)
        drawn = drawing.grid(tiles, side=2)
        assert drawn.data() == {"count": 3, "columns": 2, "zoom": 2, "height": 4, "width": 2}
        assert drawn.image.size == (2 * 3 + 1, 2 * 5 + 1)
        image = pixels(drawn.image)
        for index, grey in enumerate((0, 255, 128)):
            left, top, right, bottom = drawn.box(index)
            assert (image[top:bottom, left:right] == grey).all() and (bottom - top, right - left) == (4, 2)
        assert (image[6:10, 4:6] == drawing.GREY).all(), "an empty place"
        assert (image[:, [0, 3, 6]] == 255).all() and (image[[0, 5, 10]] == 255).all()

    def test_colours_columns_and_large_tiles(self):
        tiles = noise(5, 3, 40, 50)
        drawn = drawing.grid(tiles, columns=5)
        assert drawn.zoom == 1 and drawn.image.size == (5 * 51 + 1, 42)
        cut = pixels(drawn.image.crop(drawn.box(4))).transpose(2, 0, 1)
        assert np.abs(cut - tiles[4].numpy() * 255).max() <= 0.5001


class TestUnit:
    def test_ends_middle_and_flat(self):
        maps = torch.tensor([[-1.0, 0.0, 3.0], [2.0, 2.0, 2.0]])
        found = drawing.unit(maps, maps.amin(1, keepdim=True), maps.amax(1, keepdim=True))
        assert found[0].tolist() == [0, 0.25, 1] and torch.allclose(found[1], torch.tensor(drawing.GREY / 255))
        assert drawing.unit(maps, 0, 1).tolist()[0] == [0, 0, 1]


class TestSigned:
    def test_zero_is_mid_grey_and_opposites_are_as_far_from_it(self):
        gradient = torch.tensor([-2.0, 0.0, 2.0, 1.0]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
        assert pixels(drawing.signed_rgb(gradient))[0, :, 0].tolist() == [1, 128, 255, 192]
        assert pixels(drawing.signed_rgb(gradient, limit=4))[0, :, 0].tolist() == [64, 128, 192, 160]
        assert (pixels(drawing.signed_rgb(torch.zeros(1, 3, 2, 2))) == 128).all()

    def test_blue_below_and_red_above(self):
        low, zero, high = pixels(drawing.signed_map(torch.tensor([[-3.0, 0.0, 3.0]])))[0]
        assert low[2] > low[0] + 100 and high[0] > high[2] + 100 and (zero == 128).all()
        assert (pixels(drawing.signed_map(torch.zeros(2, 2))) == 128).all()


class TestHeat:
    def test_gets_lighter_all_the_way(self):
        image = pixels(drawing.heat(torch.linspace(0, 1, 101)[None]))[0]
        lightness = image @ np.array([0.299, 0.587, 0.114])
        assert (np.diff(lightness) > 0).all() and lightness[0] < 5 and lightness[-1] > 230

    def test_the_scale_is_what_was_asked_for(self):
        values = torch.tensor([[0.25, 0.5]])
        wide, own = drawing.heat(values, 0, 1), drawing.heat(values)
        assert pixels(own)[0, 0].tolist() == [0, 0, 4] and pixels(own)[0, 1].tolist() == [252, 255, 164]
        assert pixels(wide)[0, 0].tolist() != [0, 0, 4]
        assert drawing.heat(values, size=(20, 10)).size == (20, 10)
        assert drawing.span(values) == "0.25 to 0.5"

    def test_over_a_picture(self):
        picture = torch.zeros(1, 3, 4, 4)
        drawn = drawing.overlay(picture, Image.new("RGB", (2, 2), (200, 100, 0)), 0.5)
        assert drawn.size == (4, 4) and pixels(drawn)[0, 0].tolist() == [100, 50, 0]


def test_boxes_are_drawn_inside_their_edges_on_a_copy():
    image = Image.new("RGB", (10, 10))
    drawn = pixels(drawing.boxed(image, [(2, 3, 8, 9)], "#ffffff", 1))
    rows, columns = (drawn[..., 0].any(axis).nonzero()[0] for axis in (1, 0))
    assert (columns[0], rows[0], columns[-1], rows[-1]) == (2, 3, 7, 8) and not pixels(image).any()


def test_a_panel_holds_names_and_notes():
    pictures = {"one": Image.new("RGB", (30, 20), "red"), "two": Image.new("RGB", (30, 20), "blue")}
    plain, noted = drawing.panel(pictures), drawing.panel(pictures, {"one": "0 to 1"})
    assert noted.height > plain.height and plain.width >= 60
    image = pixels(plain)
    assert (image[8:28, 8:38] == [255, 0, 0]).all() and (image == [0, 0, 255]).all(2)[8:28].sum() == 30 * 20
    assert drawing.panel(pictures, columns=1).height > 2 * 40


class TestPlot:
    def test_a_line_goes_where_its_points_are(self):
        image = pixels(plot({"a": [(0, 0), (1, 1)], "b": [(0, 1), (1, 0)]}, x="x", y="y", size=(300, 200)))
        blue = (image == [0x1F, 0x5F, 0xBF]).all(2)
        rows, columns = blue.nonzero()
        assert columns.max() - columns.min() > 200
        ends = [rows[columns > columns.max() - 3].mean(), rows[(columns < 70) & (rows > 100)].mean()]
        assert ends[0] < 30 and ends[1] > 140, "up to the right"

    def test_one_point_and_none(self):
        assert plot({"a": [(1, 1)]}, x="x", y="y").size == (480, 320)
        with pytest.raises(WrongCall, match="got no points"):
            plot({"a": []}, x="x", y="y")


def test_progress_is_said_to_whoever_listens():
    said: list[tuple[int, int, str]] = []
    assert list(track("ab", 2, "letters")) == ["a", "b"] and said == []
    with reporting(lambda *step: said.append(step)):
        assert list(track("abc", 3, "letters")) == ["a", "b", "c"]
    assert said == [(1, 3, "letters"), (2, 3, "letters"), (3, 3, "letters")]
    list(track("d", 1, "letters"))
    assert len(said) == 3
