"""Gradients of neurons, guided backpropagation and the deconvnet: against captum, by hand, and with every saboteur."""

from __future__ import annotations

import copy
import functools
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from looking import SIDE, data_folder, noise, photo, tiny_model
from reference.relu import HandMade
from torch import nn
from torch.nn import functional as F

from impasto.errors import WrongCall
from impasto.visualization import deconvnet, guided_backprop, load_model, neuron_gradient, rules
from impasto.visualization.answers import answer
from impasto.visualization.backprop import (
    deconvnet_map,
    guided_backprop_map,
    last_layer,
    reinitialised,
    same_for_any,
    spearman,
)
from impasto.visualization.projections import box_of, inside, largest_outside, neurons_of, place_in, project
from impasto.visualization.registry import Refused

pytestmark = [
    pytest.mark.usefixtures("one_thread_one_seed"),
    pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU"),
    pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients"),
]

WHERE = {"first": (2, 5, 30), "relu1": (2, 5, 9), "pool": (1, 3, 14), "second": (4, 7, 6), "linear": (3,)}
"""A neuron of each layer of `Tiny`, one of them at the border."""


@pytest.fixture
def captum():
    return pytest.importorskip("captum.attr")


@pytest.fixture
def picture():
    return photo().double()


def tiny():
    """`tiny_model` in float64, its layers looked up before."""
    model = tiny_model()
    model.layers()
    return model.double()


def network_of(*modules):
    """A model of modules, in float64, that subtracts 0.5: below it a normalised pixel is negative."""
    return load_model(nn.Sequential(*modules), size=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3).double()


@functools.cache
def squeezenet():
    """A real network whose activations are ReLUs, all of them modules."""
    return load_model("squeezenet1_1", weights=data_folder("weights", "squeezenet1_1_torchvision_fp16.pth"))


@pytest.fixture(scope="module")
def lite():
    """A real network of ReLU6, one object for many of them, without max-pooling."""
    pytest.importorskip("efficientnet_lite_pytorch")
    return load_model("efficientnet_lite0")


def packaged(name):
    """A photo that a package carries, by its path."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        pytest.skip("needs the photos of scikit-image")
    return Path(spec.origin).parent / "data" / name


def relative(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


class TestNeuronGradient:
    @pytest.mark.parametrize("layer", WHERE)
    def test_equals_captum_at_every_layer(self, layer, picture, captum):
        model, place = tiny(), WHERE[layer]
        found = project(neurons_of(model, layer), picture, [place])
        theirs = captum.NeuronGradient(model, dict(model.named_modules())[layer])
        expected = theirs.attribute(picture.clone().requires_grad_(), neuron_selector=place)
        assert relative(found.pixels, expected) <= 1e-6  # measured 0
        with torch.no_grad():
            assert found.values.item() == neurons_of(model, layer)(picture)[(0, *place)]

    def test_the_technique_says_the_same(self, captum):
        model, place = tiny_model(), WHERE["second"]
        result = neuron_gradient(model, photo(), layer="second", unit=place[0], position=place[1:])
        theirs = captum.NeuronGradient(model, model.network.second)
        expected = theirs.attribute(photo().requires_grad_(), neuron_selector=place)
        data = result.data
        assert (data["layer"], data["unit"], data["position"]) == ("second", 4, [7, 6])
        assert data["min"] == pytest.approx(float(expected.min()), rel=1e-6)
        assert data["max"] == pytest.approx(float(expected.max()), rel=1e-6)
        seen = inside(expected, data["box"])
        assert data["limit"] == pytest.approx(min(5 * float(seen.std(correction=0)), float(seen.abs().max())), rel=1e-5)

    def test_equals_captum_on_a_real_network(self, captum):
        model = squeezenet()
        picture = model.read(packaged("chelsea.png"))
        place = place_in(model, picture, "features.7")
        theirs = captum.NeuronGradient(model, model.network.features[7])
        expected = theirs.attribute(picture.clone().requires_grad_(), neuron_selector=place)
        assert relative(project(neurons_of(model, "features.7"), picture, [place]).pixels, expected) <= 1e-6  # 0

    @pytest.mark.parametrize(
        ("name", "sabotage"),
        [
            ("rows for columns", lambda model, x: model.second_of(x)[0, 4, 6, 7]),
            ("the next unit", lambda model, x: model.second_of(x)[0, 5, 7, 6]),
            ("the whole map", lambda model, x: model.second_of(x)[0, 4].sum()),
            ("behind the ReLU", lambda model, x: model.network.relu2(model.second_of(x))[0, 4, 7, 6]),
            ("normalised pixels", lambda model, x: model.second_of(x)[0, 4, 7, 6] * 0.225),
        ],
    )
    def test_every_saboteur_is_caught(self, name, sabotage, captum):
        """Each is what a small mistake gives; captum's differs from it by more than the gate by far."""
        model = tiny()
        place = (4, 7, 6)
        for seed in range(20):
            picture = photo(seed).double()
            if neurons_of(model, "second")(picture)[(0, *place)] < 0:  # a ReLU behind it would be off
                break
        model.second_of = lambda x: neurons_of(model, "second")(x)
        x = picture.clone().requires_grad_()
        (wrong,) = torch.autograd.grad(sabotage(model, x), x)
        theirs = captum.NeuronGradient(model, model.network.second)
        expected = theirs.attribute(picture.clone().requires_grad_(), neuron_selector=place)
        assert relative(wrong, expected) > 0.1

    def test_a_linear_network_gives_its_kernel(self, picture):
        """One convolution: the kernel itself over the standard deviation, where the unit looks, and 0 elsewhere."""
        layer = nn.Conv2d(3, 4, (5, 3), stride=2, padding=1)
        model = network_of(layer)
        found = project(neurons_of(model, "0"), picture, [(2, 4, 6)]).pixels
        expected = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.float64)
        expected[0, :, 7:12, 11:14] = layer.weight[2].detach().double() / 0.25
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)

    def test_two_linear_layers_give_their_convolved_kernels(self, picture):
        one, two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3, stride=2)
        model = network_of(one, two)
        found = project(neurons_of(model, "1"), picture, [(1, 3, 5)]).pixels[0]
        first, second = (each.weight.detach().double().numpy() for each in (one, two))
        expected = np.zeros((3, SIDE, SIDE))
        for middle in range(4):
            for row, column in np.ndindex(3, 3):
                for down, across in np.ndindex(3, 3):
                    kernel = second[1, middle, row, column] * first[middle, :, down, across]
                    expected[:, 6 + row + down, 10 + column + across] += kernel / 0.25
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-12)

    def test_is_the_limit_of_differences(self, picture):
        """In float64, at pixels and channels across the box."""
        model, place = tiny(), WHERE["second"]
        neurons = neurons_of(model, "second")
        (found,) = project(neurons, picture, [place]).pixels
        for channel, row, column in [(0, 14, 12), (1, 11, 9), (2, 17, 15), (1, 15, 13)]:
            step = torch.zeros_like(picture)
            step[0, channel, row, column] = 1e-6
            with torch.no_grad():
                ahead, behind = neurons(picture + step)[(0, *place)], neurons(picture - step)[(0, *place)]
            assert float((ahead - behind) / 2e-6) == pytest.approx(float(found[channel, row, column]), abs=1e-7)

    def test_says_how_true_its_slope_is(self):
        """Exactly true where the network is linear; a wrong gradient's slope is not."""
        exact = neuron_gradient(network_of(nn.Conv2d(3, 4, 5)), photo().double(), layer="0")
        assert exact.data["slope_error"] < 1e-9
        assert neuron_gradient(tiny(), photo().double(), layer="second").data["slope_error"] < 0.1

    def test_neurons_of_several_pictures_at_once(self):
        model = tiny()
        pictures = torch.cat([photo(seed) for seed in range(3)]).double()
        places = [(4, 7, 6), (0, 0, 0), (7, 15, 15)]
        together = project(neurons_of(model, "second"), pictures, places).pixels
        for index, place in enumerate(places):
            alone = project(neurons_of(model, "second"), pictures[index : index + 1], [place]).pixels
            torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-12, atol=0)


class TestSupport:
    @pytest.mark.parametrize("rule", ["plain", "guided", "deconv"])
    @pytest.mark.parametrize("layer", ["first", "relu1", "pool", "second"])
    def test_nothing_comes_back_outside_the_receptive_field(self, layer, rule, picture):
        model = tiny()
        place = place_in(model, picture, layer)
        box = box_of(model, layer, place)
        (pixels,) = project(neurons_of(model, layer), picture, [place], rule).pixels
        assert largest_outside(pixels, box) == 0
        assert inside(pixels, box).abs().max() > 0

    @pytest.mark.parametrize("layer", ["layer1", "layer2.0.conv1"])
    def test_in_a_network_with_branches(self, layer):
        model = load_model("resnet18", weights=None, size=128)
        picture = photo(size=128)
        place = place_in(model, picture, layer, 3, middle=True)
        box = box_of(model, layer, place)
        assert box is not None and 0 < box[2] - box[0] < 128
        for rule in ("plain", "deconv"):
            (pixels,) = project(neurons_of(model, layer), picture, [place], rule).pixels
            assert largest_outside(pixels, box) == 0 and inside(pixels, box).any()

    def test_a_module_used_twice_is_asked_at_the_right_call(self, lite):
        """`_swish` is the stem's ReLU6 and the head's: its first call sees 3 x 3 pixels, its second everything."""
        picture = lite.read(packaged("chelsea.png"))
        extents = {}
        for layer in ("_swish", "_swish@2"):
            sent = project(neurons_of(lite, layer), picture, [place_in(lite, picture, layer, 4, middle=True)]).pixels
            rows, columns = sent[0].abs().amax(0).nonzero().T
            extents[layer] = [int(each.max() - each.min()) + 1 for each in (rows, columns)]
        assert extents["_swish"] == [3, 3] and min(extents["_swish@2"]) > 200

    @pytest.mark.parametrize("shift", [(1, 0), (0, 1), (-1, 0), (0, -1)])
    def test_a_box_of_a_neighbour_is_caught(self, shift, picture):
        """Each side of the box matters."""
        model, (unit, row, column) = tiny(), (4, 7, 6)
        (pixels,) = project(neurons_of(model, "second"), picture, [(unit, row, column)]).pixels
        wrong = box_of(model, "second", (unit, row + shift[0], column + shift[1]))
        assert largest_outside(pixels, wrong) > 0

    def test_a_box_beyond_the_picture(self):
        values = torch.arange(16.0).view(1, 4, 4)
        assert inside(values, (-3, 2, 2, 9)).tolist() == [[[8, 9], [12, 13]]]
        assert largest_outside(values, (-3, 2, 2, 9)) == 15 and largest_outside(values, (2, -1, 7, 9)) == 13


class TestWhichNeuron:
    def test_by_default_the_highest(self):
        model = tiny_model()
        with torch.no_grad():
            values = neurons_of(model, "second")(photo())[0]
        assert values[place_in(model, photo(), "second")] == values.max()
        assert values[place_in(model, photo(), "second", 3)] == values[3].max()
        unit, row, column = place_in(model, photo(), "second", None, (7, 6))
        assert (row, column) == (7, 6) and values[unit, 7, 6] == values[:, 7, 6].max()

    def test_the_middle(self):
        assert place_in(tiny_model(), photo(), "first", 2, middle=True) == (2, 16, 16)
        data = neuron_gradient(tiny_model(), photo(), layer="first", unit=2, at="middle").data
        assert data["position"] == [16, 16] and data["box"] == [15, 15, 18, 18]
        given = neuron_gradient(tiny_model(), photo(), layer="first", unit=2, position=(3, 4), at="middle").data
        assert given["position"] == [3, 4]

    def test_of_a_vector(self):
        model = tiny_model()
        assert place_in(model, photo(), "linear", 3) == (3,)
        data = neuron_gradient(model, photo(), layer="linear", unit=3).data
        assert data["position"] == [] and data["box"] is None and data["outside"] is None

    def test_from_its_activation(self):
        """The deep visualization toolbox's start: a factor."""
        one, scaled = (
            neuron_gradient(tiny_model(), photo(), layer="relu1", start=start) for start in ("one", "activation")
        )
        assert scaled.data["max"] == pytest.approx(one.data["value"] * one.data["max"], rel=1e-6)
        assert one.data["value"] > 0 and scaled.data["slope_error"] == one.data["slope_error"]

    def test_refuses_a_neuron_that_is_off(self):
        model = tiny_model()
        with torch.no_grad():
            row, column = divmod(int(neurons_of(model, "first")(photo())[0, 1].argmin()), SIDE)
        with pytest.raises(Refused, match=rf"no pixel moves unit 1 of relu1 at row {row}, column {column} \(value 0\)"):
            neuron_gradient(model, photo(), layer="relu1", unit=1, position=(row, column))

    @pytest.mark.parametrize("technique", [neuron_gradient, guided_backprop])
    def test_refuses_a_relu6_at_6_and_says_where_to_look(self, technique):
        model = tiny_model(nn.ReLU6)
        with torch.no_grad():
            model.network.second.weight.mul_(100)
        with pytest.raises(Refused, match="or a ReLU6 is at 6; choose relu2:in, which is before it, or another neuron"):
            technique(model, photo(), layer="relu2")
        assert technique(model, photo(), layer="relu2:in").data["value"] > 6

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"layer": "second", "unit": 8}, "unit 8: expected 0 to 7 in second"),
            ({"layer": "second", "unit": -1}, "unit -1: expected 0 to 7"),
            ({"layer": "second", "position": (16, 0)}, "position 16,0 in second: expected a row below 16 and a column"),
            ({"layer": "second", "position": (-1, 0)}, "position -1,0 in second"),
            ({"layer": "second", "position": (3,)}, "position 3 in second"),
            ({"layer": "linear", "position": (0, 0)}, "expected none, as it gives a vector"),
            ({"layer": "secnd"}, "second"),
            ({"at": "top"}, "highest"),
        ],
    )
    def test_wrong_calls(self, options, message):
        with pytest.raises(WrongCall, match=message):
            neuron_gradient(tiny_model(), photo(), **options)

    def test_refuses_other_shapes(self):
        model = load_model(nn.Sequential(nn.Flatten(2), nn.Flatten()), size=SIDE)
        with pytest.raises(Refused, match=r"0 gives shape \(1, 3, 1024\)"):
            neuron_gradient(model, photo(), layer="0")
        with pytest.raises(Refused, match="no stages of maps; name a layer"):
            neuron_gradient(model, photo())

    def test_an_unknown_rule(self):
        with pytest.raises(WrongCall, match="guided"):
            project(tiny_model(), photo(), [(0,)], "gided")


class Activation(nn.Module):
    """Any function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def classifier(activation, after=None):
    """Two convolutions and a classifier of two linear layers, weights large enough for ReLU6 to cut at 6."""
    torch.manual_seed(0)
    modules = [
        nn.Conv2d(3, 8, 3), activation(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), activation(), nn.MaxPool2d(4),
        nn.Flatten(), nn.Linear(72, 16), (after or activation)(), nn.Linear(16, 5),
    ]  # fmt: skip
    with torch.no_grad():
        modules[0].weight.mul_(8)
        modules[3].weight.mul_(3)
    return network_of(*modules)


KINDS = {
    "nn.ReLU": (nn.ReLU, torch.inf),
    "nn.ReLU in place": (lambda: nn.ReLU(inplace=True), torch.inf),
    "F.relu": (lambda: Activation(F.relu), torch.inf),
    "nn.ReLU6": (nn.ReLU6, 6.0),
    "nn.ReLU6 in place": (lambda: nn.ReLU6(inplace=True), 6.0),
    "F.hardtanh": (lambda: Activation(lambda x: F.hardtanh(x, 0.0, 6.0)), 6.0),
}
MAPS = {"guided": guided_backprop_map, "deconv": deconvnet_map}
TECHNIQUES = {"guided": guided_backprop, "deconv": deconvnet}
OTHER = {"guided": "deconv", "deconv": "guided"}


def rewritten(rule, upper):
    return classifier(lambda: Activation(lambda x: HandMade.apply(x, upper, rule == "deconv")))


def magnitude(network, picture, target):
    """Of the gradient, by nothing but autograd."""
    picture = picture.clone().requires_grad_()
    return torch.autograd.grad(network(picture)[0, target], picture)[0].abs().amax(1)[0]


@pytest.mark.parametrize("rule", MAPS)
class TestGuidedAndDeconv:
    @pytest.mark.parametrize("make", [tiny, lambda: classifier(nn.ReLU), squeezenet], ids=["tiny", "linear", "real"])
    def test_equals_captum(self, make, rule, captum):
        model = make()
        picture = photo(size=model.size).to(next(model.parameters()).dtype)
        target = 3 if len(model.classes) < 100 else 281
        theirs = {"guided": captum.GuidedBackprop, "deconv": captum.Deconvolution}[rule](copy.deepcopy(model))
        expected = theirs.attribute(picture.clone().requires_grad_(), target=target).abs().amax(1)[0]
        found = MAPS[rule](model, picture, target)
        assert found.shape == (model.size, model.size) and expected.max() > 0
        assert torch.equal(found, expected)  # measured 0

    @pytest.mark.parametrize("kind", KINDS)
    def test_equals_a_network_rewritten_by_hand_and_not_the_plain_gradient(self, kind, rule, picture):
        activation, upper = KINDS[kind]
        model = classifier(activation)
        if upper == 6:
            with torch.no_grad():
                cut = neurons_of(model, "0")(picture)
            assert (cut > 6).any() and ((cut > 0) & (cut < 6)).any(), "ReLU6 has something to cut"
        found = MAPS[rule](model, picture, 2)
        assert torch.equal(found, magnitude(rewritten(rule, upper), picture, 2))
        assert relative(magnitude(model, picture, 2), found) > 0.1

    @pytest.mark.parametrize(
        ("name", "sabotage"),
        [
            ("plain", lambda rule, x: magnitude(classifier(nn.ReLU), x, 2)),
            ("the other rule", lambda rule, x: MAPS[OTHER[rule]](classifier(nn.ReLU), x, 2)),
            ("features only", lambda rule, x: magnitude(_half(rule), x, 2)),
            ("normalised pixels", lambda rule, x: MAPS[rule](classifier(nn.ReLU), x, 2) * 0.25),
            ("softmax", lambda rule, x: MAPS[rule](_softmax(), x, 2)),
            ("sum of channels", lambda rule, x: _summed(rule, x)),
            ("ReLU6 for ReLU", lambda rule, x: magnitude(rewritten(rule, 6.0), x, 2)),
        ],
    )  # fmt: skip
    def test_every_saboteur_is_caught(self, name, sabotage, rule, picture, captum):
        """The gates above ask for equality; each of these is far from it. A cut at 6 is nothing to the deconvnet."""
        theirs = {"guided": captum.GuidedBackprop, "deconv": captum.Deconvolution}[rule](classifier(nn.ReLU))
        expected = theirs.attribute(picture.clone().requires_grad_(), target=2).abs().amax(1)[0]
        difference = relative(sabotage(rule, picture), expected)
        assert difference > 0.01 or (name == "ReLU6 for ReLU" and rule == "deconv")

    def test_where_captum_is_silently_plain_ours_is_not(self, rule, picture, captum):
        """Trap T1: a class nn.ReLU that nobody uses."""
        for kind in ("F.relu", "nn.ReLU6"):
            model = classifier(KINDS[kind][0])
            theirs = {"guided": captum.GuidedBackprop, "deconv": captum.Deconvolution}[rule](copy.deepcopy(model))
            fake = theirs.attribute(picture.clone().requires_grad_(), target=2).abs().amax(1)[0]
            assert torch.equal(fake, magnitude(model, picture, 2))
            assert relative(fake, MAPS[rule](model, picture, 2)) > 0.1

    def test_the_technique_says_the_same_as_its_map(self, rule, picture):
        found = MAPS[rule](tiny(), picture, "boat")
        data = TECHNIQUES[rule](tiny(), picture, target="boat", scale="max").data
        assert (data["class"], data["name"]) == (3, "boat") and data["logit"] == data["value"]
        assert data["limit"] == float(found.max()) == max(-data["min"], data["max"])

    def test_from_a_neuron(self, rule, picture, captum):
        theirs = {"guided": captum.NeuronGuidedBackprop, "deconv": captum.NeuronDeconvolution}[rule]
        model = tiny()
        copied = copy.deepcopy(model)
        expected = theirs(copied, copied.network.relu2).attribute(picture.clone().requires_grad_(), (4, 7, 6))
        result = TECHNIQUES[rule](model, picture, layer="relu2", unit=4, position=(7, 6), scale="max")
        assert result.data["min"] == float(expected.min()) and result.data["max"] == float(expected.max())
        assert result.data["box"] == [9, 11, 17, 19] and result.data["outside"] == 0
        assert "unit 4 of relu2 at row 7, column 6" in result.caption and "reinitialised" not in result.data

    def test_refuses(self, rule, picture):
        with pytest.raises(Refused, match=r"no such operation, but silu \(2 times\)"):
            TECHNIQUES[rule](tiny_model(nn.SiLU), photo())
        with pytest.raises(Refused, match="no classes"):
            TECHNIQUES[rule](load_model(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), size=SIDE), photo())
        with pytest.raises(WrongCall, match="the class 1 and the layer relu1, expected one of them"):
            TECHNIQUES[rule](tiny_model(), photo(), target=1, layer="relu1")
        with pytest.raises(WrongCall, match="without its layer"):
            TECHNIQUES[rule](tiny_model(), photo(), unit=1)
        model = tiny()
        with torch.no_grad():
            model.network.linear.weight[2].fill_(-1)
        with pytest.raises(Refused, match="nothing comes back from apple"):
            TECHNIQUES[rule](model, picture, target=2)


def _half(rule):
    """ReLUs of the features ruled, the classifier's not: hooks on ``model.features``."""
    custom = lambda: Activation(lambda x: HandMade.apply(x, torch.inf, rule == "deconv"))  # noqa: E731
    return classifier(custom, after=nn.ReLU)


def _softmax():
    model = classifier(nn.ReLU)
    return network_of(*model.network, nn.Softmax(1))


def _summed(rule, picture):
    return project(classifier(nn.ReLU), picture, [(2,)], rule).pixels.sum(1)[0].abs()


class TestDeconvnet:
    @pytest.mark.parametrize("bias", [0.0, -0.2])
    def test_one_layer_is_unpooled_rectified_and_transposed(self, bias, picture):
        """Zeiler and Fergus, figure 1: conv, ReLU, max-pool; back: switches, ReLU, transposed filters."""
        layer = nn.Conv2d(3, 4, 5, padding=2)
        torch.nn.init.constant_(layer.bias, bias)
        model = network_of(layer, nn.ReLU(), nn.MaxPool2d(2))
        place = place_in(model, picture, "2", 1)
        found = project(neurons_of(model, "2"), picture, [place], "deconv").pixels
        with torch.no_grad():
            maps = F.relu(layer.double()((picture - 0.5) / 0.25))
            pooled, switches = F.max_pool2d(maps, 2, return_indices=True)
            one = torch.zeros_like(pooled)
            one[(0, *place)] = 1
            expected = F.conv_transpose2d(F.relu(F.max_unpool2d(one, switches, 2)), layer.weight, padding=2) / 0.25
        assert relative(found, expected) <= 1e-6  # measured 0
        averaged = F.conv_transpose2d(F.interpolate(one, scale_factor=2) / 4, layer.weight.detach(), padding=2) / 0.25
        assert relative(averaged, expected) > 0.1, "without switches"
        flipped = F.conv_transpose2d(
            F.relu(F.max_unpool2d(one, switches, 2)), layer.weight.detach().flip(2, 3), padding=2
        )
        assert relative(flipped / 0.25, expected) > 0.1, "filters not flipped"

    def test_at_the_last_relu_guided_is_deconv_where_it_was_on(self):
        """A network whose only ReLU takes the pixels: guided = deconv 1[f > 0], exactly. With two it is not so."""
        head = nn.Linear(3 * SIDE * SIDE, 5)
        model = network_of(nn.ReLU(), nn.Flatten(), head)
        picture = noise(1, 3, SIDE, SIDE).double()
        both = [project(model, picture, [(3,)], rule).pixels for rule in ("guided", "deconv")]
        assert torch.equal(both[0], both[1] * (picture > 0.5))
        assert not torch.equal(*both)
        deeper = classifier(nn.ReLU)
        both = [project(deeper, picture, [(3,)], rule).pixels for rule in ("guided", "deconv")]
        assert not torch.equal(both[0], both[1] * (picture > 0.5)), "not in the pixels of a deeper network"

    def test_at_the_last_relu_inside_a_network(self, picture):
        model = tiny()
        with torch.no_grad():
            entry = neurons_of(model, "relu2:in")(picture)
        sent = {}
        for rule in ("guided", "deconv"):
            leaf = entry.clone().requires_grad_()
            with getattr(rules, rule)():
                network = model.network
                logit = network.linear(network.average(network.relu2(leaf)).flatten(1))[0, 3]
            (sent[rule],) = torch.autograd.grad(logit, leaf)
        assert torch.equal(sent["guided"], sent["deconv"] * (entry > 0)) and not torch.equal(*sent.values())

    def test_without_switches_it_is_the_same_for_any_picture(self, lite, picture):
        """Springenberg et al., section 3.4: only max-pooling makes it depend on the picture."""
        without = network_of(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2), nn.ReLU())
        places = [place_in(without, picture, "3")]
        assert same_for_any("deconv", neurons_of(without, "3"), picture, places)
        assert not same_for_any("guided", neurons_of(without, "3"), picture, places)
        result = deconvnet(lite, lite.read(packaged("chelsea.png")))
        assert result.data["same_for_any"] and "any picture gives the same" in result.caption
        result = deconvnet(tiny(), picture)
        assert not result.data["same_for_any"] and "any picture" not in result.caption


class TestAdebayo:
    """After the last layer is re-initialised guided backpropagation stays, the plain gradient does not."""

    @pytest.mark.parametrize(
        ("name", "guided", "plain"),
        [("chelsea.png", 0.999, 0.296), ("coffee.png", 0.996, 0.491)],
    )
    def test_the_pattern(self, lite, name, guided, plain):
        """The numbers beside the names are those measured."""
        result = guided_backprop(lite, packaged(name))
        assert result.data["last_layer"] == "_fc"
        assert result.data["reinitialised"] >= 0.9 and result.data["plain"] <= 0.6
        assert result.data["reinitialised"] == pytest.approx(guided, abs=0.005)
        assert result.data["plain"] == pytest.approx(plain, abs=0.05)
        assert f"with rho {result.data['reinitialised']:.3f}" in result.caption
        assert "no evidence for it" in result.caption and not result.data["same_for_any"]

    def test_a_fake_fails_it(self, lite, captum):
        """captum's guided backpropagation on ReLU6 is the plain gradient, and falls with it."""
        picture = lite.read(packaged("chelsea.png"))
        target = answer(lite, picture).index
        again = copy.deepcopy(lite)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            again.network._fc.reset_parameters()
        maps = {}
        for each in (lite, again):
            theirs = captum.GuidedBackprop(copy.deepcopy(each))
            fake = theirs.attribute(picture.clone().requires_grad_(), target=target).abs().amax(1)
            maps[each] = fake, guided_backprop_map(each, picture, target)
        fake, ours = (spearman(before, after) for before, after in zip(*maps.values(), strict=True))
        assert fake <= 0.6 < 0.9 <= ours  # measured 0.30 and 0.999

    def test_the_check_is_what_it_says(self, picture):
        """By scipy, on a copy of the network that really has the other weights."""
        stats = pytest.importorskip("scipy.stats")
        model = tiny()
        data = guided_backprop(model, picture, target=1).data
        copied, generator = copy.deepcopy(model), torch.Generator().manual_seed(0)
        for parameter in copied.network.linear.parameters():
            parameter.copy_(torch.empty(parameter.shape).uniform_(-(8**-0.5), 8**-0.5, generator=generator))
        torch.testing.assert_close(reinitialised(model, "linear")(picture), copied(picture), rtol=1e-12, atol=0)
        for name, key in (("guided", "reinitialised"), ("plain", "plain")):
            maps = [project(each, picture, [(1,)], name).pixels.abs().amax(1) for each in (model, copied)]
            expected = stats.spearmanr(*(each.flatten().numpy() for each in maps)).statistic
            assert data[key] == pytest.approx(expected, abs=1e-9)

    def test_the_model_keeps_its_weights(self, picture):
        model = tiny()
        before = {name: value.clone() for name, value in model.network.state_dict().items()}
        identities = [id(each) for each in model.parameters()]
        other = reinitialised(model, "linear")(picture)
        assert relative(other, model(picture)) > 0.01
        assert identities == [id(each) for each in model.parameters()]
        assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())

    @pytest.mark.parametrize(
        ("make", "layer"),
        [(tiny_model, "linear"), (lambda: load_model("squeezenet1_1", weights=None, size=64), "classifier.1"),
         (lambda: load_model("mobilenet_v3_small", weights=None, size=64), "classifier.3")],
        ids=["tiny", "a convolution", "of several"],
    )  # fmt: skip
    def test_the_layer_that_makes_the_logits(self, make, layer):
        assert last_layer(make()) == layer

    def test_activations_that_the_rule_does_not_reach_are_named(self):
        model = load_model("mobilenet_v3_small", weights=None, size=64)
        result = guided_backprop(model, photo(size=64))
        assert result.data["others"]["hardswish"] > 5 and "does not reach hardswish" in result.caption


class TestSpearman:
    def test_is_scipys_also_with_ties(self):
        stats = pytest.importorskip("scipy.stats")
        one, other = torch.randn(2, 9, 7), torch.randn(2, 9, 7)
        tied = [(each * 2).round().clamp(min=0) for each in (one, other)]
        for first, second in [(one, other), tied, (one, tied[0])]:
            expected = stats.spearmanr(first.flatten().numpy(), second.flatten().numpy()).statistic
            assert spearman(first, second) == pytest.approx(expected, abs=1e-12)
        order = [float(np.corrcoef(*(each.flatten().argsort().argsort() for each in tied))[0, 1])]
        assert abs(order[0] - spearman(*tied)) > 1e-3, "ranks by order, with no regard to ties, are seen"

    def test_by_hand(self):
        values = torch.tensor([3.0, 1, 2])
        assert spearman(values, 7 * values.exp()) == pytest.approx(1)
        assert spearman(values, -values) == pytest.approx(-1)
        assert spearman(values, torch.tensor([1.0, 2, 3])) == pytest.approx(-0.5)
        assert spearman(values, torch.ones(3)) == 0


class TestDrawn:
    def test_images_and_their_scale(self):
        result = neuron_gradient(tiny_model(), photo(), layer="second", scale="max")
        assert list(result.images) == ["neuron_gradient", "signed", "magnitude"]
        signed, magnitude = (np.asarray(result.images[name]).astype(int) for name in ("signed", "magnitude"))
        left, top, right, bottom = (max(0, int(edge)) for edge in result.data["box"])
        outside = np.ones((SIDE, SIDE), bool)
        outside[top:bottom, left:right] = False
        assert (signed[outside] == 128).all() and (magnitude[outside] == 0).all()
        assert magnitude.max() == 255 and max(signed.max() - 128, 128 - signed.min()) == 127
        found = project(neurons_of(tiny_model(), "second"), photo(), [(result.data["unit"], *result.data["position"])])
        expected = found.pixels[0].permute(1, 2, 0).numpy() / result.data["limit"]
        assert np.abs((signed - 128) / 127 - expected).max() <= 0.5 / 127 + 1e-6

    def test_std_clips(self):
        by = {scale: guided_backprop(tiny_model(), photo(), scale=scale) for scale in ("max", "std")}
        assert by["std"].data["limit"] < by["max"].data["limit"] == max(-by["max"].data["min"], by["max"].data["max"])
        assert (np.asarray(by["std"].images["magnitude"]) == 255).sum() > (
            np.asarray(by["max"].images["magnitude"]) == 255
        ).sum()

    @pytest.mark.parametrize("technique", [neuron_gradient, guided_backprop, deconvnet])
    def test_data_is_json_and_the_caption_a_sentence(self, technique):
        result = technique(tiny_model(), photo())
        assert json.loads(json.dumps(result.data)) == result.data
        assert result.caption.endswith(".") and next(iter(result.images)) == technique.__name__
