"""Captured activations against forward passes written out by hand and against torchvision's feature extractor."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from impasto.losses import PerceptualLoss, capture


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Twice(nn.Module):
    """Two convolutions, one ReLU used after each of them and writing into its input, a dropout never called."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first = nn.Conv2d(3, 4, 3)
            self.body = nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5))
        self.relu = nn.ReLU(inplace=True)
        self.never = nn.Dropout()
        self.fail_after_relu = False

    def forward(self, images):
        maps = self.relu(self.first(images))
        if self.fail_after_relu:
            raise ArithmeticError("this model breaks")
        return self.relu(self.body(maps)).mean((2, 3))


def by_hand(model: Twice, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same pass with nothing in place."""
    first = nn.functional.conv2d(images, model.first.weight, model.first.bias)
    second = nn.functional.conv2d(first.clamp(min=0), model.body[0].weight, model.body[0].bias)
    norm = model.body[1]
    shape = (1, -1, 1, 1)
    normalised = (second - norm.running_mean.reshape(shape)) / (norm.running_var.reshape(shape) + norm.eps).sqrt()
    normalised = normalised * norm.weight.reshape(shape) + norm.bias.reshape(shape)
    return {
        "first": first,
        "first:in": images,
        "relu@1": first.clamp(min=0),
        "relu@1:in": first,
        "body.0": second,
        "body.0:in": first.clamp(min=0),
        "body": normalised,
        "body.1": normalised,
        "relu@2": normalised.clamp(min=0),
        "relu@2:in": normalised,
    }


def hooks_of(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


@pytest.fixture
def model() -> Twice:
    model = Twice().eval()
    model.body[1].running_mean.copy_(draw(5, seed=1))
    model.body[1].running_var.copy_(draw(5, seed=2).square() + 0.1)
    return model


class TestValues:
    def test_every_kind_of_name_by_hand(self, model):
        images = draw(2, 3, 8, 9)
        expected = by_hand(model, images)
        got = capture(model, list(expected))(images)
        assert list(got) == list(expected)
        for name, activation in expected.items():
            torch.testing.assert_close(
                got[name], activation, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )

    @pytest.mark.parametrize(
        "layer", ["first", "first:in", "relu@1", "relu@1:in", "body.0", "body", "body.1", "relu@2", "relu@2:in"]
    )
    def test_alone_as_together(self, layer, model):
        images = draw(2, 3, 8, 9)
        (got,) = capture(model, [layer])(images).values()
        torch.testing.assert_close(got, by_hand(model, images)[layer], rtol=1e-5, atol=1e-5)

    def test_an_operation_in_place_does_not_overwrite(self, model):
        got = capture(model, ["first", "relu@1", "relu@1:in", "body", "relu@2"])(draw(2, 3, 8, 9))
        for name in ("first", "relu@1:in", "body"):
            assert got[name].min() < -0.1, name
        for name in ("relu@1", "relu@2"):
            assert got[name].min() == 0, name

    def test_what_the_caller_does_to_a_result_does_not_change_the_pass(self, model):
        images = draw(1, 3, 8, 8)
        before = images.clone()
        features = capture(model, ["first:in"])
        features(images)["first:in"].zero_()
        assert torch.equal(images, before)

    def test_in_the_order_asked(self, model):
        asked = ["relu@2", "first", "body:in", "relu@1"]
        assert list(capture(model, asked)(draw(1, 3, 8, 8))) == asked

    def test_each_call_looks_anew(self, model):
        features = capture(model, ["relu@2"])
        images, others = draw(2, 3, 8, 9), draw(1, 3, 7, 7, seed=1)
        for pictures in (images, others, images):
            expected = by_hand(model, pictures)["relu@2"]
            torch.testing.assert_close(features(pictures)["relu@2"], expected, rtol=1e-5, atol=1e-5)

    def test_gradients_flow_to_the_pictures(self, model):
        images = draw(1, 3, 8, 8).requires_grad_()
        for name in ("first", "relu@1", "relu@2:in"):
            (expected,) = torch.autograd.grad(by_hand(model, images)[name].square().sum(), images)
            (got,) = torch.autograd.grad(capture(model, [name])(images)[name].square().sum(), images)
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)

    def test_resnet_as_torchvision_sees_it(self):
        torchvision = pytest.importorskip("torchvision")
        create_feature_extractor = pytest.importorskip("torchvision.models.feature_extraction").create_feature_extractor
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = torchvision.models.resnet18(weights=None).eval().requires_grad_(False)
        # a bare name is the first call; theirs count from the second on, and are overwritten where a ReLU follows
        names = {
            "layer1.0.relu": "layer1.0.relu",
            "layer1.0.relu@1": "layer1.0.relu",
            "layer1.0.relu@2": "layer1.0.relu_1",
            "layer2.1.relu@1": "layer2.1.relu",
            "layer2.1": "layer2.1.relu_1",
            "maxpool": "maxpool",
            "avgpool": "avgpool",
            "fc:in": "flatten",
            "fc": "fc",
        }
        images = draw(2, 3, 64, 48)
        expected = create_feature_extractor(network, sorted(set(names.values())))(images)
        got = capture(network, list(names))(images)
        for ours, theirs in names.items():
            torch.testing.assert_close(got[ours], expected[theirs], rtol=1e-5, atol=1e-6)

    def test_serves_a_perceptual_loss(self, model):
        def features(images, layers):
            return capture(model, layers)(images)

        loss = PerceptualLoss(features, content={"relu@2": 1.0}, style={"first": 1.0})
        images, other = draw(1, 3, 8, 8), draw(1, 3, 8, 8, seed=1)
        content, style = loss.content_targets(images), loss.style_targets(images)
        assert loss(images, content, style).total.item() == pytest.approx(0, abs=1e-12)
        assert loss(other, content, style).total.item() > 1e-3


class TestManners:
    def test_hooks_exist_only_while_it_runs(self, model):
        during = []
        features = capture(model, ["first", "relu@2", "body:in"])
        assert hooks_of(model) == 0
        original = model.body.forward

        def spying(maps):
            during.append(hooks_of(model))
            return original(maps)

        model.body.forward = spying
        features(draw(1, 3, 8, 8))
        assert during[0] > 0
        assert hooks_of(model) == 0

    def test_hooks_are_gone_when_the_model_raises(self, model):
        features = capture(model, ["first", "relu@2"])
        model.fail_after_relu = True
        with pytest.raises(ArithmeticError, match="this model breaks"):
            features(draw(1, 3, 8, 8))
        assert hooks_of(model) == 0
        model.fail_after_relu = False
        assert list(features(draw(1, 3, 8, 8))) == ["first", "relu@2"]

    def test_the_pass_ends_with_the_last_layer_asked_for(self, model):
        model.fail_after_relu = True
        found = capture(model, ["relu@1", "first:in", "first"])(draw(1, 3, 8, 8))
        assert list(found) == ["relu@1", "first:in", "first"]
        assert hooks_of(model) == 0
        ran = []
        model.body.register_forward_pre_hook(lambda *call: ran.append(1))
        model.fail_after_relu = False
        capture(model, ["first"])(draw(1, 3, 8, 8))
        assert ran == []
        capture(model, ["body:in", "first"])(
            draw(1, 3, 8, 8)
        )  # a hook of theirs on the module where it ends still runs
        assert ran == [1]

    def test_hooks_are_gone_when_a_call_did_not_happen(self, model):
        with pytest.raises(ValueError, match=r"relu@3"):
            capture(model, ["relu@3"])(draw(1, 3, 8, 8))
        assert hooks_of(model) == 0

    def test_hooks_of_others_stay(self, model):
        seen = []
        handle = model.first.register_forward_hook(lambda *call: seen.append(1))
        capture(model, ["first"])(draw(1, 3, 8, 8))
        assert hooks_of(model) == 1
        assert seen == [1]
        handle.remove()

    @pytest.mark.parametrize("training", [True, False])
    def test_flags_stay(self, training, model):
        model.train(training)
        model.body.train(not training)
        model.first.bias.requires_grad_(False)
        flags = [(module.training) for module in model.modules()], [p.requires_grad for p in model.parameters()]
        during = []
        handle = model.register_forward_pre_hook(lambda *call: during.append([m.training for m in model.modules()]))
        capture(model, ["first", "relu@1:in"])(draw(2, 3, 8, 8))
        handle.remove()
        assert during == [flags[0]]
        assert flags == ([module.training for module in model.modules()], [p.requires_grad for p in model.parameters()])
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_pictures_stay(self, model):
        images = draw(1, 3, 8, 8)
        before = images.clone()
        capture(model, ["first:in", "relu@2"])(images)
        assert torch.equal(images, before)
        assert not images.requires_grad


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "nearest"), [("frist", "first"), ("relu1", "relu"), ("body.2", r"body\.\d"), ("relus@2", "relu")]
    )
    def test_unknown_name(self, name, nearest, model):
        with pytest.raises(
            ValueError, match=rf"(?s){name.split('@')[0]}.*'{nearest}'\?.*body, body\.0, body\.1, first"
        ):
            capture(model, [name])

    def test_a_call_too_many(self, model):
        with pytest.raises(ValueError, match=r"(?s)(?=.*relu@3)(?=.*\b2\b)"):
            capture(model, ["relu@3"])(draw(1, 3, 8, 8))

    def test_a_call_too_many_of_the_input(self, model):
        with pytest.raises(ValueError, match=r"(?s)(?=.*first@2:in)(?=.*(\b1\b|once))"):
            capture(model, ["first@2:in"])(draw(1, 3, 8, 8))

    def test_a_module_that_is_never_called(self, model):
        with pytest.raises(ValueError, match=r"(?s)(?=.*never)(?=.*(\b0\b|not|no call))"):
            capture(model, ["never"])(draw(1, 3, 8, 8))

    @pytest.mark.parametrize("name", ["relu@0", "relu@-1", "relu@x", "relu@", "relu@1.5", "first:out", "first:"])
    def test_malformed(self, name, model):
        with pytest.raises(ValueError, match="relu|first"):
            capture(model, [name])(draw(1, 3, 8, 8))
