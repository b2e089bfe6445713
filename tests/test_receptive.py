"""Receptive fields: published integers, the formula for chains, and the kernels that stacks of convolutions have."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from looking import SIDE, Tiny, photo, tiny_model, write_photos
from reference.receptive import chain, stacked_ones
from torch import nn

from impasto.errors import WrongCall
from impasto.visualization import effective_receptive_field, load_model, receptive_field, rules
from impasto.visualization.fields import Field, receptive_fields
from impasto.visualization.receptive import effective_field
from impasto.visualization.registry import Refused

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")


def sizes(network: nn.Module, layers: list[str], size: int) -> list[int | None]:
    fields = receptive_fields(network.eval(), layers, size=size)
    assert all(field is None or field.size[0] == field.size[1] for field in fields.values())
    return [field.size[0] if field else None for field in fields.values()]


def vgg19() -> nn.Module:
    vgg = pytest.importorskip("torchvision.models.vgg")
    return vgg.make_layers(vgg.cfgs["E"])


class TestPublished:
    def test_alexnet(self):
        models = pytest.importorskip("torchvision.models")
        assert sizes(models.alexnet().features, ["0", "2", "3", "12"], 96) == [11, 19, 51, 195]

    def test_vgg19(self):
        layers = ["0", "2", "4", "7", "16", "18", "25", "34"]
        assert sizes(vgg19(), layers, 32) == [3, 5, 6, 14, 48, 52, 116, 252]

    @pytest.mark.parametrize(
        ("name", "layers", "expected"),
        [("resnet18", ["layer1", "layer4"], [43, 435]), ("resnet50", ["layer4"], [427])],
    )
    def test_resnets(self, name, layers, expected):
        pytest.importorskip("torchvision")
        assert sizes(load_model(name, weights=None).network, layers, 64) == expected

    @pytest.mark.parametrize(
        ("name", "layers", "expected"),
        [
            ("squeezenet1_1", ["features.12"], [207]),
            ("googlenet", ["inception3a", "inception4c"], [43, 171]),
            ("efficientnet_lite0", ["_swish", "_blocks.2", "_swish@2"], [3, 19, 851]),
            ("mobilenet_v3_small", ["features.0", "features.1"], [3, None]),
        ],
    )
    def test_others(self, name, layers, expected):
        """The last one's squeeze-and-excitation makes every unit after it see everything."""
        pytest.importorskip("torchvision")
        assert sizes(load_model(name, weights=None).network, layers, 64) == expected

    def test_the_maximum_of_a_pool_would_give_another_number(self, monkeypatch):
        """The trap: gradients go through a maximum to one pixel of its window."""
        monkeypatch.setattr(rules, "_pooled", lambda name, args, named: None)
        assert sizes(vgg19(), ["4", "9"], 32) != [6, 16]


CHAINS = {
    "plain": [(3, 1, 1), (5, 1, 2), (3, 1, 0)],
    "strided": [(11, 4, 2), (3, 2, 0), (5, 1, 2), (3, 2, 0), (3, 1, 1)],
    "even": [(2, 2, 0), (4, 2, 1), (2, 1, 0)],
    "one": [(1, 1, 0), (1, 2, 0)],
}


class TestChains:
    @pytest.mark.parametrize("name", CHAINS)
    @pytest.mark.parametrize("pooling", [False, True])
    def test_size_stride_and_start_are_the_formulas(self, name, pooling):
        modules: list[nn.Module] = []
        channels = 3
        for index, (kernel, stride, padding) in enumerate(CHAINS[name]):
            pool = pooling and index % 2 == 1 and padding <= kernel // 2
            modules.append(
                nn.MaxPool2d(kernel, stride, padding) if pool else nn.Conv2d(channels, 4, kernel, stride, padding)
            )
            channels = 4
        network = nn.Sequential(*modules)
        names = [str(index) for index in range(len(modules))]
        fields = receptive_fields(network, names, size=64)
        for layer, (size, stride, start) in zip(names, chain(CHAINS[name]), strict=True):
            assert fields[layer] == Field((size, size), (stride, stride), (start, start)), layer

    def test_dilated_and_not_square(self):
        network = nn.Sequential(
            nn.Conv2d(3, 4, (3, 5), padding=(1, 2)), nn.Conv2d(4, 4, 3, dilation=(1, 4), stride=(2, 1))
        )
        assert receptive_fields(network, ["1"], size=64)["1"] == Field((5, 13), (2, 1), (-1, -2))

    def test_a_branch_counts(self):
        class Branches(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.narrow, self.wide, self.after = (
                    nn.Conv2d(3, 4, 1),
                    nn.Conv2d(3, 4, 9, padding=4),
                    nn.Conv2d(8, 2, 3),
                )

            def forward(self, x):
                return self.after(torch.cat([self.narrow(x), torch.relu(self.wide(x))], 1))

        assert sizes(Branches(), ["narrow", "wide", "after"], 64) == [1, 9, 11]

    def test_weights_that_are_zero_or_cancel_do_not_count(self):
        """It is the graph that is measured."""
        network = Tiny()
        with torch.no_grad():
            network.first.weight.zero_()
            network.second.weight.copy_(torch.randn_like(network.second.weight))
        assert sizes(network, ["first", "pool", "second"], SIDE) == [3, 4, 8]

    def test_the_box_of_a_unit(self):
        field = receptive_fields(Tiny().eval(), ["second"], size=SIDE)["second"]
        assert field is not None and field.box(0, 1) == (-1, -3, 7, 5)

    def test_outside_the_box_nothing_matters_and_its_edge_does(self):
        """On the network itself, in float64: noise outside leaves the unit as it is; each side of the box moves it."""
        network = Tiny().double().eval()
        field = receptive_fields(network, ["second"], size=SIDE)["second"]
        assert field is not None
        left, top, right, bottom = (int(edge) for edge in field.box(7, 6))
        linear = nn.Sequential(network.first, nn.AvgPool2d(2), network.second)
        picture = photo().double()
        value = linear(picture)[0, 0, 7, 6]
        inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        noisy = torch.where(inside, picture, torch.rand_like(picture))
        assert linear(noisy)[0, 0, 7, 6] == value
        for rows, columns in [
            (slice(top, top + 1), slice(left, right)), (slice(bottom - 1, bottom), slice(left, right)),
            (slice(top, bottom), slice(left, left + 1)), (slice(top, bottom), slice(right - 1, right)),
        ]:  # fmt: skip
            moved = picture.clone()
            moved[..., rows, columns] += 1
            assert linear(moved)[0, 0, 7, 6] != value


class TestReceptiveField:
    def test_a_row_for_each_layer(self):
        result = receptive_field(tiny_model(), layers=("first", "second", "average", "linear"))
        assert result.data["layers"] == [
            {"layer": "first", "rf": [3, 3], "stride": [1, 1], "start": [-1, -1]},
            {"layer": "second", "rf": [8, 8], "stride": [2, 2], "start": [-3, -3]},
            {"layer": "average", "rf": "global"},
            {"layer": "linear", "rf": "global"},
        ]
        assert set(result.images) == {"boxes", "curve"} and "second 8" in result.caption
        assert [row["layer"] for row in receptive_field(tiny_model()).data["layers"]] == ["relu1", "relu2"]

    def test_refusals(self):
        with pytest.raises(WrongCall, match="unknown layer 'third'"):
            receptive_field(tiny_model(), layers=("third",))
        vit = nn.Sequential(
            nn.Conv2d(3, 8, 8, 8), nn.Flatten(2), nn.TransformerEncoderLayer(16, 2, 16, batch_first=True)
        )
        with pytest.raises(Refused, match="attention looks everywhere"):
            receptive_field(load_model(vit, size=32), layers=("2",))
        before = receptive_field(load_model(vit, size=32), layers=("0",)).data["layers"]
        assert before == [{"layer": "0", "rf": [8, 8], "stride": [8, 8], "start": [0, 0]}]

        class Fixed(Tiny):
            def forward(self, x):
                return super().forward(x.view(1, 3, SIDE, SIDE))

        with pytest.raises(Refused, match="does not take a picture of 64 x 32"):
            receptive_field(load_model(Fixed(), size=SIDE), layers=("first",))


def ones(kernel: int, count: int) -> nn.Sequential:
    """Stacked convolutions of ones of one channel, in float64; the first sums the picture's channels."""
    layers = [nn.Conv2d(3 if index == 0 else 1, 1, kernel, padding=kernel // 2, bias=False) for index in range(count)]
    for layer in layers:
        nn.init.ones_(layer.weight)
    return nn.Sequential(*layers).double()


class TestEffective:
    @pytest.mark.parametrize(("kernel", "count"), [(3, 1), (3, 4), (5, 3), (3, 9)])
    def test_of_stacked_ones_is_their_convolution(self, kernel, count):
        network, layer, side = ones(kernel, count), str(count - 1), 41
        field = receptive_fields(network, [layer], size=64)[layer]
        assert field is not None and field.size == (count * (kernel - 1) + 1,) * 2
        values, box = effective_field(network, layer, [torch.rand(2, 3, side, side, dtype=torch.float64)], field)
        left, top, right, bottom = (int(edge) for edge in box)
        expected = stacked_ones(kernel, count)
        found = values[top:bottom, left:right].numpy().copy()
        assert np.abs(found - expected).max() <= 1e-6 * expected.max()
        values[top:bottom, left:right] = 0
        assert values.abs().max() == 0, "nothing outside the receptive field"

    def test_grows_as_the_root_of_the_depth_and_the_box_as_the_depth(self):
        """Variance n (k^2 - 1) / 12, to 1 %."""
        found = {}
        for count in (2, 8, 18):
            model = load_model(ones(3, count).float(), size=64)
            result = effective_receptive_field(model, layer=str(count - 1), count=1)
            for sigma in result.data["sigma"]:
                assert sigma**2 == pytest.approx(count * (3**2 - 1) / 12, rel=0.01)
            assert result.data["rf"] == [2 * count + 1] * 2
            assert result.data["outside"] == 0
            found[count] = result.data["sigma"][0]
        assert found[18] / found[2] == pytest.approx(3, rel=0.01) and found[8] / found[2] == pytest.approx(2, rel=0.01)

    def test_area_and_ratio_by_hand(self):
        """One 3 x 3 convolution of ones: all nine pixels weigh the same, so all of the box belongs to the field."""
        result = effective_receptive_field(load_model(ones(3, 1).float(), size=32), layer="0", count=2)
        assert result.data["area_root"] == 3 and result.data["ratio"] == 1
        assert result.data["sigma"] == pytest.approx([math.sqrt(2 / 3)] * 2, rel=1e-5)

    def test_of_photos_and_of_noise(self, tmp_path):
        write_photos(tmp_path)
        model = tiny_model()
        noise_, again, other = (
            effective_receptive_field(model, layer="relu2", count=2, seed=seed) for seed in (0, 0, 1)
        )
        assert noise_.data == again.data and noise_.data != other.data and noise_.data["noise"] is True
        photos = effective_receptive_field(model, tmp_path, layer="relu2", count=2)
        assert photos.data["noise"] is False and photos.data["pictures"] == 2 and photos.data["rf"] == [8, 8]
        assert 0 < photos.data["ratio"] <= 1 and photos.data["outside"] == 0

    def test_a_random_network_uses_a_part_of_its_field(self):
        """Luo et al. 2016: the effective field is far smaller than the box. Measured 0.34 for Lite0's middle stage."""
        result = effective_receptive_field(load_model(), layer="_blocks.4", count=2)
        assert result.data["rf"] == [67, 67] and 0.15 < result.data["ratio"] < 0.6

    def test_refusals(self):
        for layer in ("average", "linear"):
            with pytest.raises(Refused, match=f"{layer} sees the whole picture.*choose an earlier layer"):
                effective_receptive_field(tiny_model(), layer=layer)
