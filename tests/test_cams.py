"""Class activation maps: the identity that only the right layer satisfies, torchcam, captum, and planted places."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from looking import SIDE, Tiny, data_folder, noise, photo, tiny_model
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from impasto.errors import WrongCall
from impasto.losses import capture
from impasto.visualization import Model, cam, gradcam, load_model
from impasto.visualization.cams import box_of, cam_map, gradcam_map, guided_gradcam_map, weighted_maps
from impasto.visualization.class_maps import class_maps
from impasto.visualization.registry import Refused
from impasto.visualization.rules import guided

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")


@pytest.fixture(scope="module")
def lite0() -> Model:
    return load_model()


def textured(size: int = 224) -> Tensor:
    """Enough of a picture for a trained network to answer something: patches and noise."""
    return (0.7 * photo(3, size) + 0.3 * noise(1, 3, size, size, seed=4)).contiguous()


class InPlace(nn.Module):
    """VGG-19's convolutions with ReLUs in place, and a linear layer that sees all positions."""

    def __init__(self, inplace: bool = True) -> None:
        super().__init__()
        vgg = pytest.importorskip("torchvision.models.vgg")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.features = vgg.make_layers(vgg.cfgs["E"])
            self.classifier = nn.Linear(512 * 4, 5)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=torch.Generator().manual_seed(1))
            if isinstance(module, nn.ReLU):
                module.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class Squeezed(nn.Module):
    """Ends as SqueezeNet does: a map for each class, a ReLU in place, their means."""

    def __init__(self, rectified: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 1))
        self.last = nn.ReLU(inplace=True) if rectified else nn.Identity()
        self.pool = nn.AdaptiveAvgPool2d(1)
        generator = torch.Generator().manual_seed(0)
        for convolution in (self.body[0], self.body[2]):
            nn.init.normal_(convolution.weight, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.last(self.body(x))).flatten(1)


class Planted(nn.Module):
    """Class 0 is red, class 1 is green: one map of each, their means weighed by 1 and a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(3, 2, 1, bias=False)
        self.maps.weight.data = torch.tensor([[1.0, -1, 0], [-1, 1, 0]])[..., None, None]
        self.relu, self.average, self.linear = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Linear(2, 2)
        self.linear.weight.data = torch.tensor([[1.0, -0.5], [-0.5, 1.0]])
        self.linear.bias.data = torch.tensor([0.25, -0.25])

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.average(self.relu(self.maps(x))).flatten(1))


def planted() -> tuple[Model, Tensor]:
    """The model without normalisation, and a picture: a red square at the left, a smaller one, a green one."""
    picture = torch.zeros(1, 3, SIDE, SIDE)
    picture[:, 0, 4:14, 2:12] = 1
    picture[:, 0, 28:31, 28:31] = 1
    picture[:, 1, 18:26, 18:28] = 1
    return load_model(Planted(), size=SIDE, mean=(0, 0, 0), std=(1, 1, 1), classes=("red", "green")), picture


def second_tile(image: Image.Image) -> np.ndarray:
    """Lightness, 0 to 765, of the second picture of a sheet of pictures of 32 pixels."""
    rows = np.asarray(image).astype(int)[8 : 8 + SIDE].sum(-1)
    left = 8 + SIDE + int((rows[:, 8 + SIDE :].min(0) < 765).argmax())
    return rows[:, left : left + SIDE]


class TestCamMap:
    def test_mean_and_bias_are_the_logit(self, lite0):
        """Of all 1000 classes of EfficientNet-Lite0: measured 1e-6, allowed 1e-4."""
        known = class_maps(lite0, textured())
        assert known.layer == "_avg_pooling:in" and known.maps.shape == (1000, 7, 7)
        assert known.logits.abs().max() > 1
        assert known.errors().max() <= 1e-4

    def test_and_of_no_other_layer(self, lite0):
        """The controls: before the last normalisation, and the first call of the activation that is called twice."""
        weight, bias = lite0.network._fc.weight, lite0.network._fc.bias
        logits = lite0(textured())[0]
        before = capture(lite0, ["_conv_head"])(textured())["_conv_head"][0]
        error = (torch.einsum("kc,chw->khw", weight, before).mean((1, 2)) + bias - logits).abs().max()
        assert error > 0.5, "measured 24"
        assert capture(lite0, ["_swish"])(textured())["_swish"].shape[1] == 32 != weight.shape[1]

    def test_is_torchcams(self, lite0):
        """Largest difference measured 1e-6, allowed 1e-4, where the maps reach 10."""
        methods = pytest.importorskip("torchcam.methods")
        target = int(lite0(textured()).argmax())
        with methods.CAM(lite0, target_layer=lite0.network._swish, fc_layer=lite0.network._fc) as extractor:
            logits = lite0(textured())
            (expected,) = extractor(target, logits, normalized=False)
        found = class_maps(lite0, textured()).maps[target]
        assert (found - expected).abs().max() <= 1e-4 < found.abs().max() / 1e4

    def test_is_enlarged_bilinearly_to_the_picture(self):
        model = tiny_model()
        known = class_maps(model, photo())
        expected = F.interpolate(known.maps[3][None, None], (SIDE, SIDE), mode="bilinear")[0, 0]
        assert torch.equal(cam_map(model, photo(), "boat"), expected)
        assert torch.equal(cam_map(model, photo()), cam_map(model, photo(), int(known.logits.argmax())))

    @pytest.mark.parametrize("rectified", [True, False])
    def test_of_a_network_with_a_map_for_each_class(self, rectified):
        """SqueezeNet's way: the positive part of the convolution's own map has the mean S; in place, hard to read."""
        network = Squeezed(rectified)
        known = class_maps(load_model(network, size=SIDE), photo())
        assert known.layer == "body.2" and known.rectified is rectified
        assert known.errors().max() <= 1e-6
        model = load_model(network, size=SIDE)
        by_hand = network.body((photo() - model._mean) / model._std)[0]
        assert torch.allclose(known.maps, by_hand, atol=1e-6)
        if rectified:
            assert (known.maps.mean((1, 2)) - known.logits).abs().max() > 0.01, "the trap: the mean before the ReLU"
            assert known.maps.min() < 0

    def test_of_squeezenet(self):
        """torchvision's, with its weights. Measured 2e-6, allowed 1e-4."""
        pytest.importorskip("torchvision")
        model = load_model("squeezenet1_1", weights=data_folder("weights", "squeezenet1_1_torchvision_fp16.pth"))
        known = class_maps(model, textured())
        assert known.layer == "classifier.1" and known.rectified
        assert known.errors().max() <= 1e-4 < known.logits.max()

    @pytest.mark.parametrize("name", ["alexnet", "vgg11"])
    def test_refuses_networks_without_such_an_end(self, name):
        pytest.importorskip("torchvision")
        models = pytest.importorskip("torchvision.models")
        with torch.device("meta"):
            network = models.get_model(name, num_classes=5)
        network = network.to_empty(device="cpu")
        for values in network.parameters():
            values.data.zero_()
        with pytest.raises(Refused, match="does not end in global average pooling.*use gradcam"):
            cam(load_model(network, size=64), photo(size=64))


class TestCam:
    def test_of_planted_squares(self):
        """By hand: 1 on red and -0.5 on green; the box is the larger red square's."""
        model, picture = planted()
        result = cam(model, picture, target="red", top=2)
        red, green = result.data["classes"]
        assert np.array_equal(red["map"], (picture[0, 0] - 0.5 * picture[0, 1]).numpy())
        assert red["box"] == [2, 4, 12, 14] and green["box"] == [18, 18, 28, 26]
        assert red["logit"] == pytest.approx((100 + 9 - 0.5 * 80) / SIDE**2 + 0.25)
        assert result.data["logit_error"] <= 1e-6 and result.data["white"] == 1
        assert (green["name"], green["bias"]) == ("green", -0.25)

    def test_the_classes_asked_for_first_then_the_highest(self):
        model = tiny_model()
        order = model(photo())[0].argsort(descending=True).tolist()
        shown = [row["class"] for row in cam(model, photo(), target=order[3], top=4).data["classes"]]
        assert shown == [order[3], *order[:3]]
        assert [row["class"] for row in cam(model, photo()).data["classes"]] == order
        assert len(cam(model, photo(), top=1).data["classes"]) == 1

    def test_one_scale_for_all_classes(self):
        """A class with a tenth of another's map is drawn darker beside it than alone."""
        model, picture = planted()
        picture[:, 1] *= 0.1
        alone, beside = (cam(model, picture, target="green", top=top) for top in (1, 2))
        assert alone.data["white"] == pytest.approx(0.1) and beside.data["white"] == 1
        light, dark = (second_tile(each.images["cam"])[21:23, 22:24].mean() for each in (alone, beside))
        assert light > 1.5 * dark, "measured 420 and 74"

    def test_no_box_where_the_map_is_nowhere_positive(self):
        assert box_of(-torch.rand(8, 8)) is None and box_of(torch.zeros(8, 8)) is None
        model, _ = planted()
        result = cam(model, torch.zeros(1, 3, SIDE, SIDE), top=1)
        assert result.data["classes"][0]["box"] is None

    def test_the_box_is_above_the_threshold(self):
        values = torch.zeros(8, 8)
        values[1:3, 2:6] = torch.tensor([0.1, 0.3, 1.0, 0.21])
        assert box_of(values) == [3, 1, 6, 3] and box_of(values, 0.25) == [3, 1, 5, 3]

    def test_refusals(self):
        with pytest.raises(Refused, match="no classes"):
            cam(load_model(nn.Conv2d(3, 4, 3), size=SIDE), photo())
        for wrong, message in [
            ({"top": 0}, "top 0"),
            ({"threshold": 1.0}, "threshold 1.0"),
            ({"target": 9}, "class 9"),
        ]:
            with pytest.raises(WrongCall, match=message):
                cam(tiny_model(), photo(), **wrong)


@pytest.fixture(scope="module")
def in_place() -> tuple[Model, Model]:
    """A network with ReLUs in place, and the same without."""
    return load_model(InPlace(), size=64), load_model(InPlace(inplace=False), size=64)


class TestGradcam:
    @pytest.mark.parametrize("layer", ["features.0", "features.1", "features.16", "features.35", "features.36"])
    def test_is_captums_at_any_layer(self, layer, in_place):
        """ReLUs in place for ours, not for captum, which reads them after the fact. Measured 5e-7 of the map."""
        attr = pytest.importorskip("captum.attr")
        model, apart = in_place
        module = dict(apart.named_modules())[layer]
        expected = attr.LayerGradCam(apart, module).attribute(photo(size=64), target=2)[0, 0].detach()
        found, _ = weighted_maps(model, photo(size=64), 2, layer)
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max() and expected.abs().max() > 0
        large = F.interpolate(expected.clamp(min=0)[None, None], (64, 64), mode="bilinear")[0, 0]
        assert torch.allclose(gradcam_map(model, photo(size=64), 2, layer=layer), large, atol=1e-5 * float(large.max()))

    @pytest.mark.parametrize("layer", ["conv1", "layer1.0.conv2", "layer2", "layer4"])
    def test_is_captums_of_a_resnet(self, layer):
        """Its blocks add in place too. Measured 5e-7 of the map."""
        attr = pytest.importorskip("captum.attr")
        models = pytest.importorskip("torchvision.models")
        with torch.random.fork_rng(devices=[]):
            network = models.resnet18(num_classes=5)
        model = load_model(network, size=64)
        apart = copy.deepcopy(model)
        for module in apart.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
        module = dict(apart.named_modules())[layer]
        expected = attr.LayerGradCam(apart, module).attribute(photo(size=64), target=2)[0, 0].detach()
        found, _ = weighted_maps(model, photo(size=64), 2, layer)
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()

    def test_is_captums_of_lite0(self, lite0):
        attr = pytest.importorskip("captum.attr")
        pooling = lite0.network._avg_pooling
        target = int(lite0(textured()).argmax())
        expected = attr.LayerGradCam(lite0, pooling).attribute(textured(), target, attribute_to_layer_input=True)
        expected = expected[0, 0].detach()
        found, kept = weighted_maps(lite0, textured(), target, "_avg_pooling:in")
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert kept == pytest.approx(1, abs=1e-5)

    def test_times_the_positions_is_cam(self, lite0):
        """h w L = CAM before the ReLU: measured 3e-7 of the largest, allowed 1e-5; not elsewhere."""
        target = int(lite0(textured()).argmax())
        expected = class_maps(lite0, textured()).maps[target]

        def error(layer: str) -> float:
            found, _ = weighted_maps(lite0, textured(), target, layer)
            return float((found * found.numel() - expected).abs().max() / expected.abs().max())

        assert error("_avg_pooling:in") <= 1e-5 and error("_swish@2") <= 1e-5
        assert error("_conv_head") > 0.2, "measured 0.74: before the last normalisation"

    def test_is_of_the_logit_and_not_of_the_probability(self):
        """Of a class that is sure a probability's gradient is 0."""

        class Sure(Tiny):
            def forward(self, x: Tensor) -> Tensor:
                return 5000 * super().forward(x)

        sure, once = load_model(Sure(), size=SIDE), tiny_model()
        target = int(once(photo()).argmax())
        assert sure(photo()).softmax(1).max() == 1
        found = gradcam_map(sure, photo(), target)
        assert found.max() > 0 and torch.allclose(found, 5000 * gradcam_map(once, photo(), target), rtol=1e-4)

    def test_cuts_off_below_0_and_keeps_the_signed_map(self):
        model, picture = planted()
        result = gradcam(model, picture, target="red", layer="relu")
        assert np.allclose(result.data["map"], (picture[0, 0] - 0.5 * picture[0, 1]).numpy() / SIDE**2)
        assert result.data["min"] < 0 and gradcam_map(model, picture, 0, layer="relu").min() == 0

    def test_numbers(self):
        model = tiny_model()
        result = gradcam(model, photo(), target=1)
        assert result.data["layer"] == "average:in" and result.data["cam_error"] <= 1e-5
        assert result.data["kept"] == pytest.approx(1) and result.data["guided"] == "2 ReLUs"
        assert set(result.images) == {"gradcam", "guided"}
        earlier = gradcam(model, photo(), target=1, layer="first")
        assert earlier.data["cam_error"] is None and 0 <= earlier.data["kept"] < 0.9
        assert "the mean keeps" in earlier.caption

    def test_kept_by_hand(self):
        """A gradient of 1 at one position of four and 0 elsewhere: the mean keeps a quarter."""

        class Corner(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.maps = nn.Conv2d(3, 1, 8, 8)

            def forward(self, x: Tensor) -> Tensor:
                return self.maps(x)[:, :, 0, 0]

        found, kept = weighted_maps(load_model(Corner(), size=16), photo(size=16), 0, "maps")
        assert kept == 0.25 and found.shape == (2, 2)

    def test_refusals(self):
        with pytest.raises(Refused, match="no classes"):
            gradcam(load_model(nn.Conv2d(3, 4, 3), size=SIDE), photo())
        with pytest.raises(Refused, match="expected maps"):
            gradcam(tiny_model(), photo(), layer="linear")
        with pytest.raises(WrongCall, match="unknown layer 'third'"):
            gradcam(tiny_model(), photo(), layer="third")
        with pytest.raises(Refused, match="no layer with maps"):
            gradcam(load_model(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2)), size=16), photo(size=16))

        class Aside(Tiny):
            def forward(self, x: Tensor) -> Tensor:
                self.first(x)
                return self.linear(self.second(F.pad(x, (0, 0, 0, 0, 0, 3))).mean((2, 3)))

        with pytest.raises(Refused, match="the logit does not depend on first"):
            gradcam(load_model(Aside(), size=SIDE), photo(), layer="first")


class TestGuidedGradcam:
    def test_is_captums(self):
        """Enlarged bilinearly as ours is. Largest difference measured 0, allowed 1e-6 of the largest."""
        attr = pytest.importorskip("captum.attr")
        model = tiny_model()
        with pytest.warns(UserWarning, match="Setting backward hooks"):
            expected = attr.GuidedGradCam(model, model.network.second).attribute(
                photo().requires_grad_(), target=2, interpolate_mode="bilinear"
            )
        expected = expected[0].abs().amax(0).detach()
        found = guided_gradcam_map(model, photo(), 2, layer="second")
        assert (found - expected).abs().max() <= 1e-6 * expected.max() and expected.max() > 0

    @pytest.mark.parametrize("relu", [nn.ReLU6, lambda: nn.ReLU(inplace=True)])
    def test_is_guided_for_every_relu(self, relu):
        """The trap: not the plain gradient, also where the ReLU is no nn.ReLU."""
        model = tiny_model(relu)
        with guided():
            picture = photo().requires_grad_()
            (gradient,) = torch.autograd.grad(model(picture)[0, 2], picture)
        (plain,) = torch.autograd.grad(model(picture)[0, 2], picture)
        large = gradcam_map(model, photo(), 2, layer="second")
        found = guided_gradcam_map(model, photo(), 2, layer="second")
        assert torch.allclose(found, (large * gradient)[0].abs().amax(0), atol=1e-9)
        assert not torch.allclose(found, (large * plain)[0].abs().amax(0), rtol=0.1)

    def test_refused_without_relus_and_gradcam_says_so(self):
        model = tiny_model(nn.SiLU)
        with pytest.raises(Refused, match=r"guided backpropagation.*silu \(2 times\)"):
            guided_gradcam_map(model, photo(), 2)
        result = gradcam(model, photo())
        assert set(result.images) == {"gradcam"} and "refused: guided backpropagation" in result.data["guided"]

    def test_says_which_activations_are_not_guided(self):
        model = tiny_model()
        model.network.relu2 = nn.SiLU()
        assert gradcam(model, photo()).data["guided"] == "1 ReLUs, 1 silu as they are"


class TestDependsOnTheWeights:
    def test_the_last_layer_anew_gives_another_map(self, lite0):
        """Adebayo et al. 2018, rank correlation, mean of 50 draws: CAM -0.05, Grad-CAM 0.15; allowed 0.3."""
        stats = pytest.importorskip("scipy.stats")
        folder = data_folder("validation")
        other = load_model(lite0.network, size=lite0.size, mean=lite0.mean, std=lite0.std)
        weight = other.network._fc.weight
        with torch.no_grad():
            weight.copy_(torch.randn(weight.shape) * weight.std() + weight.mean())
        signed, positive = [], []
        for name in ("13_antique_car.jpg", "12_koi_4640px.jpg"):
            picture = lite0.read(folder / name)
            target = int(lite0(picture).argmax())
            first, first_positive = (each(lite0, picture, target)[::4, ::4] for each in (cam_map, gradcam_map))
            draws = class_maps(other, picture).maps[:50]
            for drawn in draws:
                second = F.interpolate(drawn[None, None], picture.shape[2:], mode="bilinear")[0, 0, ::4, ::4]
                signed.append(stats.spearmanr(first.flatten(), second.flatten()).statistic)
                positive.append(stats.spearmanr(first_positive.flatten(), second.clamp(min=0).flatten()).statistic)
        assert abs(np.mean(signed)) <= 0.3 and abs(np.mean(positive)) <= 0.3
