"""Interception against captum, against networks rewritten by hand, and against arithmetic."""

from __future__ import annotations

import copy

import pytest
import torch
from looking import Tiny, noise, photo, tiny_model
from reference.relu import HandMade
from torch import nn
from torch.nn import functional as F

from impasto.visualization import load_model, rules
from impasto.visualization.registry import Refused

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")


def net(*relus: nn.Module) -> nn.Sequential:
    """Two convolutions, an activation after each, a linear layer; weights large enough for ReLU6 to cut."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), relus[0], nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), relus[1], nn.Flatten(), nn.Linear(8 * 25, 4)
    )
    with torch.no_grad():
        network[0].weight.mul_(8)
        network[3].weight.mul_(3)
    return network.eval()


class Functional(nn.Module):
    """The same network, its activation a function."""

    def __init__(self, activation) -> None:
        super().__init__()
        self.body = net(nn.Identity(), nn.Identity())
        self.activation = activation

    def forward(self, x):
        x = self.body[2](self.activation(self.body[0](x)))
        return self.body[5:](self.activation(self.body[3](x)))


class ByHand(nn.Module):
    def __init__(self, upper: float, deconv: bool) -> None:
        super().__init__()
        self.upper, self.deconv = upper, deconv

    def forward(self, x):
        return HandMade.apply(x, self.upper, self.deconv)


def statement(function):
    """An activation in place whose result nobody takes."""

    def activation(x):
        function(x)
        return x

    return activation


RELU = {
    "module": lambda: net(nn.ReLU(), nn.ReLU()),
    "in place": lambda: net(nn.ReLU(inplace=True), nn.ReLU(inplace=True)),
    "F.relu": lambda: Functional(F.relu),
    "F.relu in place": lambda: Functional(lambda x: F.relu(x, inplace=True)),
    "torch.relu": lambda: Functional(torch.relu),
    "Tensor.relu": lambda: Functional(lambda x: x.relu()),
    "F.relu_": lambda: Functional(F.relu_),
    "torch.relu_": lambda: Functional(torch.relu_),
    "Tensor.relu_ as a statement": lambda: Functional(statement(lambda x: x.relu_())),
}
RELU6 = {
    "module": lambda: net(nn.ReLU6(), nn.ReLU6()),
    "in place": lambda: net(nn.ReLU6(inplace=True), nn.ReLU6(inplace=True)),
    "F.relu6": lambda: Functional(F.relu6),
    "F.hardtanh": lambda: Functional(lambda x: F.hardtanh(x, 0.0, 6.0)),
    "nn.Hardtanh": lambda: net(nn.Hardtanh(0, 6), nn.Hardtanh(0, 6)),
    "F.hardtanh_ as a statement": lambda: Functional(statement(lambda x: F.hardtanh_(x, 0.0, 6.0))),
}
KINDS = [("relu", name, float("inf")) for name in RELU] + [("relu6", name, 6.0) for name in RELU6]


def gradient(network, picture, rule=None, unit=1):
    picture = picture.clone().requires_grad_()
    if rule is None:
        value = network(picture)[:, unit].sum()
    else:
        with rule:
            value = network(picture)[:, unit].sum()
    return torch.autograd.grad(value, picture)[0]


@pytest.fixture
def picture():
    return noise(2, 3, 16, 16) * 2 - 1


class TestGuidedAndDeconv:
    @pytest.mark.parametrize("rule", ["guided", "deconv"])
    @pytest.mark.parametrize(("kind", "name", "upper"), KINDS, ids=[f"{kind}: {name}" for kind, name, _ in KINDS])
    def test_equals_a_network_rewritten_by_hand_and_not_the_plain_gradient(self, kind, name, upper, rule, picture):
        network = {"relu": RELU, "relu6": RELU6}[kind][name]()
        with getattr(rules, rule)() as intercepted:
            pass_through = network(picture)
        found = gradient(network, picture, getattr(rules, rule)())
        rewritten = net(ByHand(upper, rule == "deconv"), ByHand(upper, rule == "deconv"))
        assert torch.equal(found, gradient(rewritten, picture))
        plain = gradient(network, picture)
        assert (found - plain).abs().max() > 0.1 * plain.abs().max(), "a rule that is never applied gives the plain one"
        assert torch.equal(pass_through, network(picture)), "the values are the network's own"
        assert intercepted.hits == 2 and not intercepted.others

    @pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
    @pytest.mark.parametrize("rule", ["guided", "deconv"])
    @pytest.mark.parametrize("in_place", [False, True])
    def test_equals_captum_bit_by_bit_where_captum_is_right(self, rule, in_place, picture):
        attr = pytest.importorskip("captum.attr")
        network = net(nn.ReLU(inplace=in_place), nn.ReLU(inplace=in_place))
        theirs = {"guided": attr.GuidedBackprop, "deconv": attr.Deconvolution}[rule](copy.deepcopy(network))
        expected = theirs.attribute(picture.clone().requires_grad_(), target=1)
        assert torch.equal(gradient(network, picture, getattr(rules, rule)()), expected)

    @pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
    def test_where_captum_is_silently_plain_ours_is_not(self, picture):
        """What the gate above is for: guided backpropagation that looks for modules of the class nn.ReLU."""
        attr = pytest.importorskip("captum.attr")
        for make in (RELU["F.relu"], RELU6["module"], RELU6["in place"]):
            network = make()
            theirs = attr.GuidedBackprop(network).attribute(picture.clone().requires_grad_(), target=1)
            plain = gradient(network, picture)
            assert torch.equal(theirs, plain)
            assert not torch.equal(gradient(network, picture, rules.guided()), plain)

    def test_guided_is_plain_where_no_gradient_is_negative(self, picture):
        network = net(nn.ReLU(), nn.ReLU())
        with torch.no_grad():
            network[3].weight.abs_()
            network[6].weight.abs_()
        assert torch.equal(gradient(network, picture, rules.guided()), gradient(network, picture))

    @pytest.mark.parametrize("rule", [rules.guided, rules.deconv, rules.redirected, rules.not_in_place])
    @pytest.mark.parametrize(
        ("activation", "name"), [(nn.SiLU, "silu"), (nn.GELU, "gelu"), (nn.LeakyReLU, "leaky_relu")]
    )
    def test_refuses_where_it_is_not_defined(self, rule, activation, name):
        with pytest.raises(Refused, match=rf"this network calls no such operation, but {name} \(2 times\)"), rule():
            tiny_model(activation)(photo())

    def test_a_hardtanh_that_cuts_elsewhere_is_no_relu(self, picture):
        with pytest.raises(Refused, match="no such operation"), rules.guided():
            net(nn.Hardtanh(-1, 1), nn.Hardtanh(-1, 1))(picture)

    def test_says_what_else_it_saw(self):
        model = load_model("mobilenet_v3_small", weights=None, size=64)
        with rules.guided() as rule:
            model(photo(size=64))
        assert rule.hits > 0 and rule.others["hardswish"] > 0


class TestRedirected:
    def passed(self, x, gradient, upper=float("inf")):
        x = torch.tensor([x], requires_grad=True)
        with rules.redirected():
            y = F.relu(x) if upper == float("inf") else F.relu6(x)
        return torch.autograd.grad(y, x, torch.tensor([gradient]))[0][0].tolist()

    def test_only_from_a_dead_start_and_never_further_out(self):
        assert self.passed([-1.0, -1.0], [2.0, -3.0]) == [0, -3], "descent would push the first further below 0"
        assert self.passed([-1.0, 1.0], [-3.0, 2.0]) == [0, 2], "alive: the plain gradient"
        assert self.passed([7.0, 7.0, -1.0], [2.0, -3.0, 4.0], upper=6.0) == [2, 0, 0]
        assert self.passed([7.0, 3.0], [2.0, 5.0], upper=6.0) == [0, 5]

    def test_each_picture_by_itself(self):
        x = torch.tensor([[-1.0, 1.0], [-1.0, -2.0]], requires_grad=True)
        with rules.redirected():
            y = F.relu(x)
        (found,) = torch.autograd.grad(y, x, torch.tensor([[-1.0, 1.0], [-1.0, 1.0]]))
        assert found.tolist() == [[0, 1], [-1, 0]]

    def test_a_dead_unit_comes_to_life(self):
        """Steps down the redirected gradient of -relu(x) reach it; the plain gradient is exactly 0."""
        start = torch.tensor([[-0.5, -0.2]], requires_grad=True)
        assert torch.autograd.grad(-F.relu(start).sum(), start)[0].abs().sum() == 0
        x = start
        for _ in range(8):
            with rules.redirected():
                y = -F.relu(x).sum()
            x = (x - 0.1 * torch.autograd.grad(y, x)[0]).detach().requires_grad_()
        assert F.relu(x).sum() > 0


class TestPooling:
    @pytest.mark.parametrize(
        "options",
        [{"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}, {"kernel_size": 3, "ceil_mode": True}],
    )
    def test_the_mean_of_the_same_windows(self, options):
        x = noise(1, 2, 11, 11)
        with rules.average_pooling() as rule:
            found = nn.MaxPool2d(**options)(x)
        expected = nn.MaxPool2d(**options)(x)
        ones = nn.AvgPool2d(**options, count_include_pad=False)(x)
        assert found.shape == expected.shape and torch.equal(found, ones) and rule.hits == 1
        assert (found < expected).any()

    def test_by_hand(self):
        x = torch.arange(16.0).view(1, 1, 4, 4)
        with rules.average_pooling():
            assert F.max_pool2d(x, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
            assert torch.max_pool2d(x, 4).item() == 7.5
            assert F.adaptive_max_pool2d(x, 1).item() == 7.5

    def test_refuses_switches_dilation_and_nothing(self):
        x = noise(1, 1, 8, 8)
        with pytest.raises(Refused, match="no switches"), rules.average_pooling():
            F.max_pool2d(x, 2, return_indices=True)
        with pytest.raises(Refused, match="dilated"), rules.average_pooling():
            F.max_pool2d(x, 2, dilation=2)
        with pytest.raises(Refused, match="no such operation"), rules.average_pooling():
            x.relu()


class TestManners:
    def test_not_in_place(self):
        x = torch.tensor([-1.0, 2, 9])
        with rules.not_in_place():
            assert nn.ReLU(inplace=True)(x).tolist() == [0, 2, 9]
            assert nn.ReLU6(inplace=True)(x).tolist() == [0, 2, 6]
        assert x.tolist() == [-1, 2, 9]

    def test_an_error_inside_stays_that_error_and_the_rule_ends(self):
        with pytest.raises(ArithmeticError, match="mine"), rules.guided():
            raise ArithmeticError("mine")
        x = torch.tensor([-1.0, 2.0], requires_grad=True)
        assert torch.autograd.grad(F.relu(x), x, torch.tensor([1.0, -1.0]))[0].tolist() == [0, -1]

    def test_the_network_is_as_before(self):
        network = Tiny().eval()
        before = [(name, id(module)) for name, module in network.named_modules()]
        for rule in (rules.guided, rules.deconv, rules.redirected, rules.average_pooling, rules.linearised):
            with rule():
                network(photo())
        assert before == [(name, id(module)) for name, module in network.named_modules()]


class TestLinearised:
    def test_a_convolution_is_the_mean_of_its_window(self):
        x = noise(1, 4, 5, 5).double()
        layer = nn.Conv2d(4, 6, 3, groups=2)
        with rules.linearised():
            found = layer(x)
        for channel in range(6):
            group = x[:, :2] if channel < 3 else x[:, 2:]
            expected = F.avg_pool2d(group, 3, 1).mean(1)
            torch.testing.assert_close(found[:, channel], expected)

    def test_it_is_linear_and_keeps_ones(self):
        network = Tiny().eval()
        x, y = (noise(1, 3, 16, 16, seed=seed).double() for seed in (0, 1))
        with rules.linearised():
            sum_of, of_sum = network(x) + network(2 * y), network(x + 2 * y)
            inner = network.pool(torch.ones_like(x))
        torch.testing.assert_close(sum_of, of_sum)
        assert (inner == 1).all()

    def test_transposed(self):
        x = torch.zeros(1, 2, 3, 3, dtype=torch.float64)
        x[0, :, 1, 1] = 1
        with rules.linearised():
            found = nn.ConvTranspose2d(2, 5, 3, stride=2)(x)
        assert found.shape == (1, 5, 7, 7) and (found[0, 0] != 0).sum() == 9

    def test_attention_has_no_receptive_field(self):
        tokens = torch.ones(1, 4, 8)
        with pytest.raises(Refused, match="attention looks everywhere"), rules.linearised():
            nn.MultiheadAttention(8, 2, batch_first=True).eval()(tokens, tokens, tokens)
