"""Activation maps: read back from the picture, against torchvision's extractor, and the traps of in-place ReLUs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from looking import Tiny, photo, tiny_model
from torch import nn

from impasto.errors import WrongCall
from impasto.losses import capture
from impasto.visualization import Result, activation_maps, load_model
from impasto.visualization.registry import Refused

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")


def tile(result: Result, place: int) -> np.ndarray:
    """The values of a tile, 0 to 1, cut out by the numbers in data alone."""
    grid = result.data["grid"]
    top = 1 + place // grid["columns"] * (grid["height"] + 1)
    left = 1 + place % grid["columns"] * (grid["width"] + 1)
    cut = np.asarray(result.images["maps"])[top : top + grid["height"], left : left + grid["width"]]
    zoom = grid["zoom"]
    assert (cut == cut[..., :1]).all(), "grey"
    blocks = cut[..., 0].reshape(cut.shape[0] // zoom, zoom, cut.shape[1] // zoom, zoom)
    assert (blocks == blocks[:, :1, :, :1]).all(), "each value one square"
    return blocks[:, 0, :, 0] / 255


def values(result: Result, place: int) -> np.ndarray:
    """A tile's activations, its scale undone."""
    facts = result.data["channels"][place]
    back = facts["low"] + tile(result, place) * (facts["high"] - facts["low"])
    return np.sign(back) * back**2 if result.data["scale"] == "sqrt" else back


class TestTiles:
    @pytest.mark.parametrize("scale", ["map", "shared", "percentile", "sqrt"])
    def test_are_the_activations(self, scale):
        model, picture = tiny_model(), photo()
        expected = capture(model, ["second"])(picture)["second"][0].numpy()
        result = activation_maps(model, picture, layer="second", scale=scale)
        assert result.data["shape"] == [8, 16, 16]
        top = np.percentile(expected, 99) if scale == "percentile" else np.inf
        for channel in range(8):
            facts = result.data["channels"][channel]
            step = (facts["high"] - facts["low"]) / 255
            allowed = step if scale != "sqrt" else 2 * step * np.sqrt(np.abs(expected).max()) + step**2
            error = np.abs(values(result, channel) - expected[channel].clip(max=top)).max()
            assert error <= allowed * 0.51, (channel, error, allowed)

    def test_scales_differ_in_what_they_hide(self):
        """Two channels, one a thousandth of the other: alike on their own scales, black on one scale."""
        network = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.ReLU())
        network[0].weight = nn.Parameter(torch.tensor([[1.0, 0, 0], [1e-3, 0, 0]]).view(2, 3, 1, 1))
        model = load_model(network, size=32, mean=(0, 0, 0), std=(1, 1, 1))
        own = activation_maps(model, photo(), layer="1", scale="map")
        assert np.abs(tile(own, 0) - tile(own, 1)).max() <= 1 / 255 + 1e-9
        one = activation_maps(model, photo(), layer="1", scale="shared")
        assert tile(one, 0).max() == 1 and tile(one, 1).max() <= 1 / 255

    def test_by_mean_and_only_the_first(self):
        model, picture = tiny_model(), photo()
        means = capture(model, ["relu2"])(picture)["relu2"][0].mean((1, 2))
        result = activation_maps(model, picture, layer="relu2", order="mean", top=3)
        assert [facts["channel"] for facts in result.data["channels"]] == means.argsort(descending=True)[:3].tolist()
        expected = capture(model, ["relu2"])(picture)["relu2"][0, int(means.argmax())].numpy()
        assert np.abs(values(result, 0) - expected).max() <= expected.max() / 255

    def test_empty_places_are_grey_and_numbers_are_tiles_too(self):
        result = activation_maps(tiny_model(), photo(), layer="linear")
        assert result.data["shape"] == [5, 1, 1] and result.data["grid"]["columns"] == 3
        drawn = np.asarray(result.images["maps"])
        assert drawn.shape == (2 * 33 + 1, 3 * 33 + 1, 3) and (drawn[34:66, 67:99] == 128).all()

    def test_a_module_called_twice_is_told_apart(self):
        model, picture = load_model(), photo(size=224)
        first = activation_maps(model, picture, layer="_swish")
        second = activation_maps(model, picture, layer="_swish@2", top=9)
        assert first.data["shape"] == [32, 112, 112] and second.data["shape"] == [1280, 7, 7]


class TestTruth:
    @pytest.mark.parametrize("name", ["vgg19", "resnet18"])
    def test_activations_are_torchvisions(self, name):
        extraction = pytest.importorskip("torchvision.models.feature_extraction")
        if name == "vgg19":
            model = load_model("vgg19", size=64)
            names = [layer for layer, _ in model.network.named_children()]
            network = nn.Sequential(*model.network.children())  # theirs takes the _4 of relu5_4 for its own
            chosen = ("conv1_1", "relu1_1", "pool2", "conv4_3", "relu5_4")
            layers = {layer: str(names.index(layer)) for layer in chosen}
        else:
            model = load_model("resnet18", weights=None, size=64)
            network = model.network
            layers = {layer: layer for layer in ("conv1", "maxpool", "layer2.0.conv1")}
            layers |= {"layer1": "layer1.1.relu_1", "layer4": "layer4.1.relu_1"}
        picture = photo(size=64)
        taken = (picture - torch.tensor(model.mean).view(3, 1, 1)) / torch.tensor(model.std).view(3, 1, 1)
        expected = extraction.create_feature_extractor(network, sorted(set(layers.values())))(taken)
        found = capture(model, list(layers))(picture)
        for ours, theirs in layers.items():
            assert torch.equal(found[ours], expected[theirs]), ours

    def test_before_an_in_place_relu(self):
        """torchvision's VGGs write into what the convolution gave; a hook that keeps the tensor sees the ReLU."""
        vgg = pytest.importorskip("torchvision.models.vgg")
        model = load_model(vgg.make_layers(vgg.cfgs["A"]), size=64)
        picture = photo(size=64)
        before = activation_maps(model, picture, layer="0")
        after = activation_maps(model, picture, layer="1")
        assert min(facts["low"] for facts in before.data["channels"]) < -0.1
        assert min(facts["low"] for facts in after.data["channels"]) == 0
        kept: list[torch.Tensor] = []
        handle = model.network[0].register_forward_hook(lambda module, inputs, output: kept.append(output))
        model(picture)
        handle.remove()
        assert kept[0].min() == 0, "the trap is there"


class TestZeros:
    def test_are_counted(self):
        model, picture = tiny_model(), photo()
        expected = capture(model, ["relu2"])(picture)["relu2"][0]
        result = activation_maps(model, picture, layer="relu2")
        assert result.data["zeros"] == pytest.approx((expected == 0).double().mean().item(), abs=1e-9)
        assert 0.05 < result.data["zeros"] < 0.95
        for channel, facts in enumerate(result.data["channels"]):
            assert facts["zeros"] == pytest.approx((expected[channel] == 0).double().mean().item(), abs=1e-6)
            assert facts["mean"] == pytest.approx(expected[channel].mean().item(), rel=1e-5, abs=1e-6)
            assert facts["max"] == expected[channel].max().item()
        assert result.data["strip"]["relu2"] == pytest.approx(result.data["zeros"])

    def test_a_planted_dead_unit(self):
        network = Tiny()
        with torch.no_grad():
            network.second.bias[5] = -1e4
        result = activation_maps(load_model(network, size=32), photo(), layer="relu2")
        assert result.data["dead"] == [5] and result.data["channels"][5]["zeros"] == 1
        assert np.abs(tile(result, 5) - 128 / 255).max() == 0, "flat: mid-grey, not noise blown up"
        assert "1 channels 0 everywhere" in result.caption


class TestFrame:
    def test_the_middle_stage_and_a_strip_of_all(self):
        model = load_model("squeezenet1_1", weights=None, size=64)
        result = activation_maps(model, photo(size=64))
        assert result.data["layer"] == model.stages()[len(model.stages()) // 2]
        assert list(result.data["strip"]) == model.stages() and set(result.images) == {"maps", "strip"}

    def test_refusals(self):
        with pytest.raises(WrongCall, match="unknown layer 'frist'. Did you mean 'first'"):
            activation_maps(tiny_model(), photo(), layer="frist")
        odd = load_model(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(2)), size=32)
        with pytest.raises(Refused, match=r"1 gives shape \(1, 2, 1024\), expected"):
            activation_maps(odd, photo(), layer="1")
