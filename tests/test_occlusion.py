"""Occlusion: against captum, on planted regions, and what each place of the square is said to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from looking import SIDE, noise, photo, tiny_model
from torch import Tensor, nn

from impasto.errors import WrongCall
from impasto.visualization import Model, load_model, occlusion
from impasto.visualization.occlusions import occlusion_map
from impasto.visualization.progress import reporting
from impasto.visualization.registry import Refused
from impasto.visualization.windows import Windows, mean_colour, sweep

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

MEAN = (0.6, 0.4, 0.3)


class Regions(nn.Module):
    """A logit for each region: its mean, minus a part of the next one's; behind a layer of the three channels."""

    def __init__(self, *regions: tuple[int, int, int, int], against: float = 0) -> None:
        super().__init__()
        self.regions, self.against = regions, against
        self.layer = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        means = [x[..., top:bottom, left:right].mean((1, 2, 3)) for left, top, right, bottom in self.regions]
        own = torch.stack(means, 1)
        return own - self.against * own.roll(-1, 1)


def looked_into(network: nn.Module, **options: object) -> Model:
    """Without normalisation: the square is black."""
    return load_model(network, **({"size": SIDE, "mean": (0, 0, 0), "std": (1, 1, 1)} | options))


def white(*boxes: tuple[int, int, int, int]) -> Tensor:
    """Black, with white boxes."""
    picture = torch.zeros(1, 3, SIDE, SIDE)
    for left, top, right, bottom in boxes:
        picture[..., top:bottom, left:right] = 1
    return picture


class TestWindows:
    @pytest.mark.parametrize(
        ("patch", "stride", "tops"),
        [
            (8, 4, [0, 4, 8, 12, 16, 20, 24]),
            (8, 5, [0, 5, 10, 15, 20, 25]),
            (7, 3, [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]),
            (32, 8, [0]),
        ],
    )
    def test_reach_the_edge_and_no_further(self, patch, stride, tops):
        """32 rows, 24 columns or more; the last square is cut where the stride does not fit."""
        windows = Windows.over(32, 40, patch, stride)
        assert list(windows.tops) == tops and tops[-1] < 32 <= tops[-1] + patch
        assert list(windows)[1] == ((0, stride) if len(windows.lefts) > 1 else (tops[1], 0))
        assert len(windows) == len(list(windows)) == len(tops) * len(windows.lefts)

    def test_spread_is_the_mean_of_those_that_cover_a_pixel(self):
        """By hand: squares of 2 every pixel over 2 x 3: pixels in the middle column are covered by both."""
        windows = Windows.over(2, 3, 2, 1)
        assert windows.spread(torch.tensor([[1.0, 3.0]]), 2, 3).tolist() == [[1, 2, 3], [1, 2, 3]]
        cut = Windows.over(2, 5, 2, 2)
        assert cut.spread(torch.tensor([[1.0, 2.0, 9.0]]), 2, 5).tolist() == [[1, 1, 2, 2, 9]] * 2

    def test_hide_paints_the_square_and_leaves_the_picture(self):
        picture = photo()
        hidden = Windows.over(SIDE, SIDE, 7, 3).hide(picture, (27, 3), torch.tensor(MEAN).view(3, 1, 1))
        assert torch.equal(picture, photo())
        assert torch.allclose(hidden[0, :, 27:, 3:10].mean((1, 2)), torch.tensor(MEAN))
        hidden[..., 27:, 3:10] = picture[..., 27:, 3:10]
        assert torch.equal(hidden, picture)


class TestOcclusionMap:
    @pytest.mark.parametrize(("patch", "stride"), [(8, 4), (8, 5), (7, 3)])
    @pytest.mark.parametrize("size", [(32, 32), (27, 38)])
    def test_is_captums(self, patch, stride, size):
        """Largest difference measured 8e-9, allowed 1e-6; of a black square instead of the mean at least 3e-3."""
        attr = pytest.importorskip("captum.attr")
        model = tiny_model(mean=MEAN)
        picture = noise(1, 3, *size)

        def captums(colour: Tensor) -> Tensor:
            found = attr.Occlusion(model).attribute(
                picture,
                target=2,
                baselines=colour.expand_as(picture),
                sliding_window_shapes=(3, patch, patch),
                strides=(3, stride, stride),
                perturbations_per_eval=16,
            )
            return found[0, 0]

        found = occlusion_map(model, picture, 2, patch=patch, stride=stride)
        assert found.shape == size
        assert (found - captums(mean_colour(model, picture)[None])).abs().max() <= 1e-6 < found.abs().max() / 1000
        black = (found - captums(torch.zeros(1, 3, 1, 1))).abs().max()
        assert black > 1e-3, "the trap: 0 in pixels is not 0 behind the normalisation"

    def test_is_0_wherever_no_square_meets_the_region(self):
        """A class that is the mean of one region: exactly 0 outside, by hand within."""
        left, top, right, bottom = region = (12, 8, 20, 16)
        model = looked_into(Regions(region, (0, 0, 4, 4)))
        found = occlusion_map(model, white(region), 0, patch=8, stride=4)
        reached = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        for row in range(0, SIDE - 7, 4):
            for column in range(0, SIDE - 7, 4):
                if row < bottom and row + 8 > top and column < right and column + 8 > left:
                    reached[row : row + 8, column : column + 8] = True
        assert found[~reached].abs().max() == 0 and (~reached).any() and found[reached].min() > 0
        peak = divmod(int(found.argmax()), SIDE)
        assert top <= peak[0] < bottom and left <= peak[1] < right
        assert found[8, 12] == pytest.approx((0.25 + 0.5 + 0.5 + 1) / 4), "four squares: a quarter, halves, all"

    def test_has_both_signs_where_another_object_competes(self):
        mine, other = (2, 2, 12, 12), (20, 20, 30, 30)
        model = looked_into(Regions(mine, other, against=0.5))
        found = occlusion_map(model, white(mine, other), 0, patch=6, stride=2)
        assert found[7, 7] > 0 > found[25, 25] and found.max() > 0.1 and found.min() < -0.05
        assert found[25, 7] == 0 == found[7, 25], "and nothing where there is nothing"
        swapped = occlusion_map(model, white(mine, other), 1, patch=6, stride=2)
        assert swapped[25, 25] > 0 > swapped[7, 7]

    def test_by_default_a_seventh_and_a_quarter_of_it(self):
        model = tiny_model()
        picture = noise(1, 3, 56, 60)
        expected = occlusion_map(model, picture, patch=8, stride=2)
        assert torch.equal(occlusion_map(model, picture), expected)
        assert torch.equal(occlusion_map(model, picture, model.class_name(int(model(picture).argmax()))), expected)

    @pytest.mark.parametrize(("patch", "stride"), [(4, 5), (33, 4), (-1, 1), (4, -1)])
    def test_refuses_gaps_and_squares_that_do_not_fit(self, patch, stride):
        with pytest.raises(WrongCall, match="expected a square of 1 to 32 pixels and a stride from 1 to its side"):
            occlusion_map(tiny_model(), photo(), patch=patch, stride=stride)


class TestSweep:
    def test_what_the_network_says_at_each_place(self):
        """Each picture made by hand and run alone."""
        model = tiny_model(mean=MEAN)
        windows = Windows.over(SIDE, SIDE, 8, 8)
        found = sweep(model, photo(), 3, windows, "second", 5)
        for row in range(4):
            for column in range(4):
                hidden = photo()
                hidden[0, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = torch.tensor(MEAN).view(3, 1, 1)
                logits = model(hidden)[0].detach()
                network = model.network
                maps = network.second(network.pool(network.relu1(network.first((hidden - model._mean) / model._std))))
                assert found.logits[row, column] == pytest.approx(float(logits[3]), abs=1e-6)
                assert found.probabilities[row, column] == pytest.approx(float(logits.softmax(0)[3]), abs=1e-6)
                assert found.labels[row, column] == int(logits.argmax())
                assert found.activations[row, column] == pytest.approx(float(maps[0, 5].sum()), abs=1e-4)


class TestOcclusion:
    def test_the_label_where_the_object_is_hidden(self):
        """Zeiler's panel: with the brighter object hidden the other one is the most probable class."""
        mine, other = (0, 0, 8, 8), (16, 16, 32, 32)
        picture = white(mine)
        picture[..., 16:, 16:] = 0.5
        model = looked_into(Regions(mine, other), classes=("mine", "other"))
        result = occlusion(model, picture, patches=(8,), stride=8, layer="layer")
        row = result.data["sizes"][0]
        assert result.data["name"] == "mine" and row["labels"] == [[1, 0, 0, 0]] + [[0, 0, 0, 0]] * 3
        assert row["names"] == {"0": "mine", "1": "other"}
        assert row["logits"][0][0] == 0 and row["logits"][3][3] == 1
        assert row["strongest"]["box"] == [0, 0, 8, 8] and row["strongest"]["logit"] == 0
        assert row["pictures"] == 16 and row["check_error"] == 0
        panel = np.asarray(result.images["occlusion"])
        for colour in ((0x1F, 0x5F, 0xBF), (0xC8, 0x40, 0x1E)):
            assert (panel == colour).all(-1).sum() > 60, "both classes are in the panel and in its key"

    def test_the_strongest_map_is_summed(self):
        """Of three channels the one with the largest sum in the whole picture."""
        picture = photo() * torch.tensor([0.2, 1.0, 0.5]).view(3, 1, 1)
        model = looked_into(Regions((0, 0, 32, 32), (0, 0, 4, 4)))
        result = occlusion(model, picture, patches=(32,), layer="layer")
        assert result.data["channel"] == 1 and result.data["sizes"][0]["activations"] == [[0]]

    def test_several_sizes(self):
        result = occlusion(tiny_model(), photo(), target=1, patches=(8, 4, 16), stride=4)
        assert [row["patch"] for row in result.data["sizes"]] == [8, 4, 16] and "sizes" in result.images
        for row in result.data["sizes"]:
            expected = occlusion_map(tiny_model(), photo(), 1, patch=row["patch"], stride=4)
            assert row["max"] == float(expected.max()) and row["min"] == float(expected.min())
        assert "sizes" not in occlusion(tiny_model(), photo(), patches=(16,)).images

    def test_says_how_many_pictures_there_are(self):
        said = []
        with reporting(lambda *step: said.append(step)):
            occlusion(tiny_model(), photo(), patches=(8,), stride=2)
        assert said[0] == (1, 22, "169 occluded pictures") and said[-1][0] == 22

    def test_frames_slide_over_the_picture(self):
        result = occlusion(tiny_model(), photo(), patches=(8,), stride=2)
        assert 40 <= len(result.frames) <= 48 and len({frame.size for frame in result.frames}) == 1
        first, last = (np.asarray(result.frames[index])[:SIDE, :SIDE] for index in (0, -1))
        original = (photo()[0].permute(1, 2, 0) * 255).round().byte().numpy()
        assert (first[8:] == original[8:]).all() and (first[:8, :8] != original[:8, :8]).any()
        assert (last[:24] == original[:24]).all() and (last[24:] != original[24:]).any()

    def test_the_check_sees_pictures_that_influence_each_other(self):
        """A network whose answer depends on the rest of the batch. Measured 1e-2, of an honest one 0."""

        class Together(type(tiny_model().network)):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x - x.mean(0) if len(x) > 1 else x)

        assert occlusion(tiny_model(), photo(), patches=(8,)).data["sizes"][0]["check_error"] < 1e-6
        sabotaged = occlusion(load_model(Together(), size=SIDE), photo(), patches=(8,))
        assert sabotaged.data["sizes"][0]["check_error"] > 1e-3

    def test_refusals(self):
        with pytest.raises(Refused, match="no classes"):
            occlusion(load_model(nn.Conv2d(3, 4, 3), size=SIDE), photo())
        with pytest.raises(Refused, match="no layer with maps"):
            occlusion(load_model(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2)), size=16), photo(size=16))
        with pytest.raises(Refused, match=r"the layer linear gives shape \(1, 5\), expected maps"):
            occlusion(tiny_model(), photo(), layer="linear")
        with pytest.raises(WrongCall, match="unknown layer 'third'"):
            occlusion(tiny_model(), photo(), layer="third")
        with pytest.raises(WrongCall, match="a square of 4 and a stride of 8"):
            occlusion(tiny_model(), photo(), patches=(8, 4), stride=8)
