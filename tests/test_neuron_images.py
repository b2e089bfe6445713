"""Pictures that move units: planted filters, dead starts, what a neuron cannot see, and a real network's units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from looking import SIDE, tiny_model, write_photos
from PIL import Image
from torch import Tensor, nn

from impasto.errors import WrongCall
from impasto.visualization import Model, load_model, neuron_images
from impasto.visualization.goals import Goal, goal_of
from impasto.visualization.neuron_images import neuron_image
from impasto.visualization.registry import Refused

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

STILL: dict[str, Any] = {"jitter": 0, "degrees": 0.0, "scale": 0.0}
"""No transform."""

FIELD = (13.0, 13.0, 21.0, 21.0)
"""What the middle unit (8, 8) of relu2 of `looking.Tiny` sees: 3 + 1 + 2 * 2 = 8 pixels, from 2 * 8 - 3 on."""


def planted(*filters: Tensor, bias: float = 0.0, relu: bool = False) -> Model:
    """A convolution with these filters (3, h, w) over pixels around 1/2, as they are."""
    convolution = nn.Conv2d(3, len(filters), filters[0].shape[1:])
    convolution.weight.data = torch.stack(filters)
    convolution.bias.data.fill_(bias)
    network = nn.Sequential(convolution, nn.ReLU()) if relu else nn.Sequential(convolution)
    return load_model(network, size=SIDE, mean=(0.5,) * 3, std=(1.0,) * 3)


def edges() -> tuple[Tensor, Tensor]:
    """Left and right, and a red and cyan top and bottom; -1 and 1."""
    sign = torch.ones(3, 6, 6)
    sign[:, :, :3] = -1
    coloured = sign.transpose(1, 2).clone()
    coloured[1:] *= -1
    return sign, coloured


def pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


class TestPlantedFilters:
    """What moves an edge filter most, of all pictures in [0, 1], is the edge: 1 where it is 1, 0 where it is -1."""

    def test_the_picture_is_the_filter(self):
        """Correlations 1.0 and 1.0 with their own filters, 0.0 with the other's."""
        filters = edges()
        result = neuron_image(planted(*filters), layer="0", of="neuron", canvas="pixels", steps=40, **STILL)
        found = [pixels(result.images[f"neuron_{unit}"]) for unit in (0, 1)]
        assert all(correlation(tile, each) >= 0.99 for tile, each in zip(found, filters, strict=True))
        assert abs(correlation(found[0], filters[1])) < 0.1
        assert result.data["found"][0]["value"] == pytest.approx(3 * 36 / 2)

    def test_also_on_fourier_coefficients(self):
        """Of the edge without colours; 1.0."""
        result = neuron_image(planted(edges()[0]), layer="0", of="neuron", **STILL)
        assert correlation(pixels(result.images["neuron_0"]), edges()[0]) >= 0.99

    def test_a_direction_is_the_combination_of_colours(self):
        """Red more and green less by as much: the cosine with (1, -1, 0) becomes 1."""
        colours = torch.eye(3).view(3, 3, 1, 1).unbind()
        result = neuron_image(
            planted(*colours),
            layer="0",
            of="direction",
            units=(0, 1),
            coefficients=(1.0, -1.0),
            canvas="pixels",
            steps=60,
            **STILL,
        )
        red, green, blue = pixels(result.images["direction_0"]).mean((1, 2))
        assert red > 0.95 and green < 0.05 and abs(blue - 0.5) < 0.03
        assert result.data["found"][0]["value"] > 0.99 > 0.1 > result.data["found"][0]["start"]

    def test_a_channel_is_everywhere_and_a_layer_is_all_units(self):
        colours = torch.eye(3).view(3, 3, 1, 1).unbind()
        red = neuron_image(planted(*colours), layer="0", units=(0,), canvas="pixels", steps=60, **STILL)
        assert pixels(red.images["channel_0"])[0].min() > 0.99
        assert red.data["found"][0]["highest"] == 0
        layer = neuron_image(planted(*colours), layer="0", of="layer", canvas="pixels", steps=60, **STILL)
        assert layer.data["found"][0]["value"] > 0.95 * 3 * 0.5**2 / 2


class TestDeadStart:
    """A ReLU that is off where the picture starts: every gradient is exactly 0."""

    def test_redirected_gradients_wake_it_up(self, monkeypatch):
        model = planted(*edges(), bias=-20.0, relu=True)
        found = neuron_image(model, layer="1", of="neuron", canvas="pixels", steps=40, **STILL).data["found"]
        assert [each["start"] for each in found] == [0, 0]
        assert all(each["value"] > 30 and not each["still"] for each in found)
        monkeypatch.setattr(neuron_images, "REDIRECTED", 0)
        with pytest.raises(Refused, match=r"no pixel moves what is asked for of 1: a ReLU in between is off"):
            neuron_image(model, layer="1", of="neuron", canvas="pixels", steps=40, **STILL)

    def test_a_unit_that_nothing_reaches_is_named_and_alone_refused(self):
        model = planted(*edges(), relu=True)
        model.network[0].bias.data[1] = -1000
        result = neuron_image(model, layer="1", of="neuron", steps=30)
        assert [each["still"] for each in result.data["found"]] == [False, True]
        assert result.caption.endswith("; nothing moves 1.")
        with pytest.raises(Refused, match="no pixel moves"):
            neuron_image(model, layer="1", of="neuron", units=(1,), steps=30)

    def test_a_network_without_relus_needs_none(self):
        model = load_model(nn.Sequential(nn.Conv2d(3, 2, 3), nn.SiLU()), size=SIDE)
        assert not any(each["still"] for each in neuron_image(model, layer="1", steps=20).data["found"])


class TestWhatANeuronSees:
    def test_pixels_elsewhere_stay_exactly_as_they_were(self):
        result = neuron_image(tiny_model(), layer="relu2", of="neuron", canvas="pixels", steps=40, **STILL)
        assert result.data["box"] == list(FIELD) and result.images["neuron_0"].size == (8, 8)
        assert result.data["outside"] == 0
        turned = neuron_image(tiny_model(), layer="relu2", of="neuron", canvas="pixels", steps=5, jitter=0)
        assert turned.data["outside"] > 0.01, "a turned picture brings pixels in from elsewhere"

    def test_the_value_is_that_of_the_picture_in_the_file(self):
        model = tiny_model()
        result = neuron_image(model, layer="relu2", of="neuron", units=(3,), steps=40)
        for surroundings in (0.0, 1.0):
            picture = torch.full((1, 3, SIDE, SIDE), surroundings)
            picture[..., 13:21, 13:21] = pixels(result.images["neuron_3"])
            maps = model.network.relu2(model.network.second(first_half(model, picture)))
            assert float(maps[0, 3, 8, 8]) == pytest.approx(result.data["found"][0]["value"], rel=1e-5)


def first_half(model: Model, picture: Tensor) -> Tensor:
    """What goes into the second convolution of `looking.Tiny`."""
    network, mean, std = model.network, torch.tensor(model.mean), torch.tensor(model.std)
    pixels = (picture - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    halved: Tensor = network.pool(network.relu1(network.first(pixels)))
    return halved


class TestUnits:
    def test_a_picture_does_not_depend_on_those_beside_it(self, monkeypatch):
        together = neuron_image(tiny_model(), layer="relu2", units=(0, 2, 5), steps=20)
        alone = neuron_image(tiny_model(), layer="relu2", units=(5,), steps=20)
        monkeypatch.setattr(neuron_images, "AT_ONCE", 2)
        parts = neuron_image(tiny_model(), layer="relu2", units=(0, 2, 5), steps=20)
        for other in (alone, parts):
            difference = pixels(together.images["channel_5"]) - pixels(other.images["channel_5"])
            assert difference.abs().max() <= 1.01 / 255
        assert len(parts.frames) == len(together.frames) == 20
        assert list(parts.images) == ["neuron_image", "channel_0", "channel_2", "channel_5"]

    def test_a_seed_is_another_picture(self):
        first, second = (neuron_image(tiny_model(), layer="relu2", count=1, steps=20, seed=seed) for seed in (0, 1))
        assert first.images["channel_0"].tobytes() != second.images["channel_0"].tobytes()

    def test_they_are_held_against_the_best_photo(self, tmp_path):
        model, paths = tiny_model(), write_photos(tmp_path)
        result = neuron_image(model, tmp_path, layer="relu2", of="neuron", units=(0, 4), steps=5)
        for each in result.data["found"]:
            values = [
                float(
                    model.network.relu2(model.network.second(first_half(model, model.read(path))))[
                        0, each["unit"]
                    ].max()
                )
                for path in paths
            ]
            assert each["photo"] == pytest.approx(max(values), rel=1e-5)
            assert each["path"] == str(paths[int(np.argmax(values))])
            assert each["ratio"] == pytest.approx(each["value"] / max(values), rel=1e-5)

    def test_a_vector_has_units_too(self):
        """A class; every logit rises, from -0.31 to -0.25 at least, which is what this network gives."""
        result = neuron_image(tiny_model(), layer="linear", canvas="pixels", steps=40)
        assert len(result.data["found"]) == 5 and result.data["size"] == SIDE
        assert all(each["value"] > each["start"] + 0.05 for each in result.data["found"])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"units": (8,)}, "unit 8: expected 0 to 7"),
            ({"count": 0}, "count: got 0"),
            ({"steps": 0}, "steps: got 0, expected 1 to"),
            ({"jitter": -1}, "jitter: got -1"),
            ({"scale": 1.0}, "scale: got 1.0"),
            ({"coefficients": (1.0,)}, "coefficients: got 1 for 0 units of a channel"),
            ({"of": "direction", "units": (1, 2), "coefficients": (1.0,)}, "coefficients: got 1 for 2 units"),
            ({"of": "direction", "units": (1,), "coefficients": (0.0,)}, "not all 0"),
            ({"layer": "relu3"}, "relu3"),
        ],
    )
    def test_refuses_what_cannot_be(self, options, message):
        with pytest.raises(WrongCall, match=message):
            neuron_image(tiny_model(), **({"layer": "relu2"} | options))


class TestARealNetwork:
    """EfficientNet-Lite0 as it is packaged.

    By hand, neurons of 20 random units of _blocks.4 with the defaults: 2.10 to 3.91 times the highest value anywhere in
    the 1000 sample photos, 20 of 20 at least twice (threshold 80 %), and 20 of 20 the highest of all units there
    (threshold 60 %).
    """

    PHOTOS = {5: 41.6, 36: 37.7}
    """The highest that the first two of those units are anywhere in the sample photos."""

    def test_units_rise_above_every_photo(self):
        """2.15 and 3.24 times as high as the photos, in fewer steps than by default."""
        result = neuron_image(
            load_model("efficientnet_lite0"), layer="_blocks.4", of="neuron", units=tuple(self.PHOTOS), steps=48
        )
        middle = 16 // 2 * 8 - 26
        assert result.data["size"] == 128 and result.data["box"] == [middle, middle, middle + 67, middle + 67]
        for each in result.data["found"]:
            assert each["value"] >= 2 * self.PHOTOS[each["unit"]] and each["highest"] == each["unit"]


class TestGoals:
    """Two pictures of two units on a map of 2 x 2, worked out by hand."""

    MAPS = torch.tensor([[[[1.0, 2], [3, 4]], [[0, 0], [0, 8]]], [[[3, 0], [0, 0]], [[4, 0], [0, 0]]]])

    def test_values(self):
        channel, neuron, layer = (goal_of(of, 2) for of in ("channel", "neuron", "layer"))
        assert channel.values(self.MAPS).tolist() == [[2.5, 2], [0.75, 1]]
        assert neuron.values(self.MAPS).tolist() == [[4, 8], [0, 0]]
        assert neuron.values(self.MAPS, anywhere=True).tolist() == [[4, 8], [3, 4]]
        assert layer.values(self.MAPS).tolist() == [[(1 + 4 + 9 + 16 + 64) / 2 / 4], [25 / 2 / 4]]

    def test_a_direction_is_a_cosine_and_climbs_by_its_dot_product(self):
        goal = goal_of("direction", 2, units=(0, 1), coefficients=(3.0, 4.0))
        assert goal.vectors.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]]
        cosines = [0.6, 0.6, 0.6, (0.6 * 4 + 0.8 * 8) / 80**0.5]
        assert goal.values(self.MAPS)[:, 0].tolist() == pytest.approx([sum(cosines) / 4, 1 / 4])
        assert goal.climbed(self.MAPS[1:]).tolist() == pytest.approx([5 * 1 / 4])
        assert goal.climbed(-self.MAPS[1:]).tolist() == pytest.approx([-5 * 0.1 / 4])

    def test_says_which_unit_is_highest(self):
        assert goal_of("neuron", 2).data(self.MAPS) == [{"unit": 0, "highest": 1}, {"unit": 1, "highest": 0}]
        assert goal_of("channel", 2).data(self.MAPS) == [{"unit": 0, "highest": 0}, {"unit": 1, "highest": 1}]

    def test_random_directions_are_the_seed_s(self):
        first, again, other = (goal_of("direction", 4, count=2, seed=seed).vectors for seed in (0, 0, 1))
        assert torch.equal(first, again) and not torch.equal(first, other)
        assert first.norm(dim=1).tolist() == pytest.approx([1, 1])
        assert [part.vectors.shape for part in Goal("direction", first).split(1)] == [(1, 4), (1, 4)]
