"""The networks against an independent Johnson, instance normalisation and resize-convolution, and by identities."""

from __future__ import annotations

import math

import pytest
import torch
from reference.johnson import ReferenceJohnson
from torch import Tensor, nn
from torch.nn import functional as F

from impasto.errors import WrongCall
from impasto.training import TransformerNet
from impasto.training.export import join_styles, select_styles
from impasto.training.layers import ConditionalInstanceNorm, UpsampleConv, clip_picture

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

SMALL = {"width": 8, "blocks": 2, "head": 4}
SHAPES = pytest.mark.parametrize(
    "sizes",
    [{}, {"stem": 2}, {"separable": 1}, {"stride": 8}, {"stride": 8, "stem": 2, "separable": 1}],
    ids=lambda sizes: "_".join(f"{name}_{value}" for name, value in sizes.items()) or "as_shipped",
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def draw_picture(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def make(network: str = "fast", styles: int = 1, seed: int = 0, **sizes: int) -> TransformerNet:
    """A network with rows that differ between styles; its output stays away from the ends of the range."""
    torch.manual_seed(seed)
    net = TransformerNet(network, styles, **(SMALL | sizes if network == "fast" else {})).eval()
    with torch.no_grad():
        for row in net.rows:
            row.add_(0.2 * torch.randn_like(row))
        if network == "johnson":
            net.painter.output.weight.mul_(0.1)
    return net


BOTH = pytest.mark.parametrize("network", ["fast", "johnson"])


# johnson is the network everyone means


def reference_of(net: TransformerNet) -> ReferenceJohnson:
    """An independent network with the same weights, matched by the order in which the two run."""
    reference = ReferenceJohnson().eval()
    ours = [module for module in net.modules() if isinstance(module, nn.Conv2d | ConditionalInstanceNorm)]
    theirs = [module for module in reference.modules() if isinstance(module, nn.Conv2d | nn.InstanceNorm2d)]
    assert len(ours) == len(theirs) == 31
    with torch.no_grad():
        for mine, other in zip(ours, theirs, strict=True):
            if isinstance(other, nn.InstanceNorm2d):
                other.weight.copy_(mine.scale[0])
                other.bias.copy_(mine.shift[0])
            else:
                other.weight.copy_(mine.weight)
                other.bias.copy_(mine.bias)
    return reference


def test_johnson_has_the_published_number_of_parameters() -> None:
    # c9s1-32: 7808; d64: 18496; d128: 73856; ten 3x3 convolutions at 128: 10 * 147584; u64: 73792; u32: 18464;
    # c9s1-3: 7779; scales and shifts: 2 * (32 + 64 + 128 + 10 * 128 + 64 + 32)
    expected = 7808 + 18496 + 73856 + 10 * 147584 + 73792 + 18464 + 7779 + 2 * 1600
    assert expected == 1_679_235
    assert sum(parameter.numel() for parameter in TransformerNet("johnson").parameters()) == expected
    # every further style: one more row of scales and shifts
    assert sum(parameter.numel() for parameter in TransformerNet("johnson", 3).parameters()) == expected + 2 * 3200


@pytest.mark.parametrize("size", [(32, 48), (36, 40)])
def test_johnson_is_the_network_everyone_means(size: tuple[int, int]) -> None:
    net = make("johnson")
    images = draw_picture(2, 3, *size)
    with torch.no_grad():
        expected = reference_of(net)(images)
        painted = net(images)
    inside = (expected > 0) & (expected < 1)
    assert inside.float().mean() > 0.99
    torch.testing.assert_close(painted[inside], expected[inside], rtol=0, atol=1e-5)
    assert torch.equal(painted[~inside], expected[~inside].clamp(0, 1))


# rows


def test_one_row_is_plain_instance_normalisation() -> None:
    norm = ConditionalInstanceNorm(5, styles=1, eps=1e-3)
    plain = nn.InstanceNorm2d(5, eps=1e-3, affine=True)
    with torch.no_grad():
        for ours, theirs in ((norm.scale, plain.weight), (norm.shift, plain.bias)):
            ours.copy_(draw(1, 5, seed=theirs.numel() + int(theirs is plain.bias)))
            theirs.copy_(ours[0])
    x = 3 * draw(2, 5, 7, 6) + 2
    found = norm(x, torch.ones(2, 1), torch.ones(2))
    torch.testing.assert_close(found, plain(x), rtol=1e-5, atol=1e-6)


def test_instance_normalisation_by_hand() -> None:
    norm = ConditionalInstanceNorm(1, styles=1, eps=0.25)
    with torch.no_grad():
        norm.scale.fill_(3)
        norm.shift.fill_(10)
    x = torch.tensor([[[[1.0, 1.0], [4.0, 4.0]]]])  # mean 2.5, variance 2.25; sqrt(2.25 + 0.25) = sqrt(2.5)
    expected = 10 + 3 * torch.tensor([[[[-1.5, -1.5], [1.5, 1.5]]]]) / math.sqrt(2.5)
    torch.testing.assert_close(norm(x, torch.ones(1, 1), torch.ones(1)), expected)


def test_the_strength_is_a_factor_on_the_row_where_it_is_asked_for() -> None:
    norm = ConditionalInstanceNorm(2, styles=1, eps=1e-3, by_strength=True)
    with torch.no_grad():
        norm.shift.copy_(torch.tensor([[1.0, -2.0]]))
    x = draw(2, 2, 4, 4)
    full = norm(x, torch.ones(2, 1), torch.ones(2))
    faded = norm(x, torch.ones(2, 1), torch.tensor([0.25, 0.0]))
    torch.testing.assert_close(faded[0], full[0] / 4)
    assert torch.equal(faded[1], torch.zeros_like(faded[1]))


def test_a_residual_branch_comes_in_by_the_root_of_the_strength() -> None:
    block = TransformerNet("fast", styles=2, width=8).painter.residual[0]
    maps = draw(1, 8, 9, 11)
    style = torch.tensor([[0.3, 0.7]])
    with torch.no_grad():
        for row in (block.second.norm.scale, block.second.norm.shift):
            row.uniform_(-1, 1)
        whole, quarter, none = (block(maps, style, torch.tensor([value])) - maps for value in (1.0, 0.25, 0.0))
    assert whole.abs().mean() > 0.1
    torch.testing.assert_close(quarter, whole / 2, rtol=1e-5, atol=1e-6)
    assert not none.any()


def test_style_weights_select_and_mix_rows() -> None:
    norm = ConditionalInstanceNorm(4, styles=3, eps=1e-3)
    with torch.no_grad():
        norm.scale.copy_(draw(3, 4, seed=1))
        norm.shift.copy_(draw(3, 4, seed=2))
    x = draw(1, 4, 5, 5).expand(4, -1, -1, -1)
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.2, 0.3]])
    found = norm(x, weights, torch.ones(4))
    for style in range(3):
        alone = F.instance_norm(x[:1], weight=norm.scale[style], bias=norm.shift[style], eps=1e-3)
        torch.testing.assert_close(found[style], alone[0], rtol=1e-5, atol=1e-6)
    # the normalised maps are the same for all, so mixing rows is mixing what the rows give
    torch.testing.assert_close(found[3], 0.5 * found[0] + 0.2 * found[1] + 0.3 * found[2], rtol=1e-5, atol=1e-6)


@BOTH
def test_a_batch_of_several_styles_is_so_many_single_pictures(network: str) -> None:
    net = make(network, styles=3)
    images = draw_picture(3, 3, 24, 29)
    weights = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.25, 0.25, 0.5]])
    strength = torch.tensor([1.0, 0.5, 0.8])
    with torch.no_grad():
        together = net(images, weights, strength)
        singles = [net(images[i : i + 1], weights[i : i + 1], strength[i : i + 1]) for i in range(3)]
        same = net(images, weights[:1].expand(3, -1), strength)
    torch.testing.assert_close(together, torch.cat(singles), rtol=0, atol=2e-6)
    assert (together - same)[1].abs().max() > 1e-3, "the style makes no difference"


@BOTH
def test_joined_styles_paint_as_before_to_the_bit(network: str) -> None:
    first = make(network, styles=2)
    second = select_styles(first, torch.tensor([[0.5, 0.5]]))
    with torch.no_grad():
        for row in second.rows:
            row.add_(0.5)
    joined = join_styles(first, second)
    assert joined.styles == 3 and joined.sizes == first.sizes
    images = draw_picture(1, 3, 20, 28)
    for index, (net, weights) in enumerate([(first, [1.0, 0.0]), (first, [0.0, 1.0]), (second, [1.0])]):
        with torch.no_grad():
            expected = net(images, torch.tensor([weights]))
            found = joined(images, F.one_hot(torch.tensor([index]), 3).float())
        assert torch.equal(found, expected)
    with torch.no_grad():
        mixed = select_styles(joined, torch.tensor([[0.0, 0.3, 0.7]]))
        torch.testing.assert_close(mixed(images), joined(images, torch.tensor([[0.0, 0.3, 0.7]])), rtol=0, atol=1e-6)


def test_networks_of_other_trunks_are_not_joined() -> None:
    with pytest.raises(WrongCall, match=r"the networks differ in painter\.stem\.0\.conv\.weight"):
        join_styles(make(seed=0), make(seed=1))


# sizes and strengths


@BOTH
@pytest.mark.parametrize("size", [(16, 16), (17, 33), (18, 16), (19, 47), (101, 77)])
def test_a_picture_comes_back_at_its_own_size(network: str, size: tuple[int, int]) -> None:
    images = draw_picture(1, 3, *size)
    with torch.no_grad():
        painted = make(network)(images)
    assert painted.shape == images.shape
    assert painted.min() >= 0 and painted.max() <= 1 and painted.std() > 1e-4


@SHAPES
def test_every_shape_of_fast_gives_a_picture_back_at_its_size(sizes: dict[str, int]) -> None:
    net = make(**sizes)
    for height, width in [(16, 16), (17, 23), (31, 16), (40, 57)]:
        images = draw_picture(1, 3, height, width)
        with torch.no_grad():
            painted = net(images)
            assert painted.shape == images.shape and painted.std() > 1e-4
            assert torch.equal(net(images, None, torch.zeros(1)), images), "at strength 0 exactly the photo"


@SHAPES
def test_fast_paints_where_the_photo_is(sizes: dict[str, int]) -> None:
    """A pixel of the painting depends on its surroundings alike in all directions: the way down and up is centred."""
    place, away = torch.arange(120.0), []
    for seed in range(2):
        net = make(blocks=1, seed=seed, **sizes)
        image = draw_picture(1, 3, 120, 120, seed=seed).requires_grad_()
        painted = net(image)
        for position in range(56, 64):  # one of each phase
            (gradient,) = torch.autograd.grad(painted[0, :, position, position].sum(), image, retain_graph=True)
            weight = gradient[0].square().sum(0) / gradient.square().sum()
            away += [weight.sum(axis) @ place - position for axis in range(2)]
    assert abs(sum(away)) / len(away) < net.painter.stride / 4


@pytest.mark.parametrize("shape", [(1, 3, 15, 40), (1, 3, 40, 15), (1, 4, 16, 16), (3, 16, 16)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(WrongCall, match=r"expected \(N, 3, H, W\) from 16 pixels up"):
        make()(torch.zeros(shape))


def test_weights_that_do_not_fit_are_refused() -> None:
    images = draw_picture(2, 3, 16, 16)
    with pytest.raises(WrongCall, match=r"got none, expected weights \(N, 2\) of the 2 styles"):
        make(styles=2)(images)
    with pytest.raises(WrongCall, match=r"got style \(2, 3\) and strength \(2,\), expected \(2, 2\) and \(2,\)"):
        make(styles=2)(images, torch.ones(2, 3))
    with pytest.raises(WrongCall, match=r"strength \(1,\), expected \(2, 1\) and \(2,\)"):
        make()(images, None, torch.ones(1))


@BOTH
def test_strength_goes_from_the_photo_to_the_painting(network: str) -> None:
    net = make(network)
    image = draw_picture(1, 3, 24, 20)
    strengths = torch.linspace(0, 1, 6)
    with torch.no_grad():
        painted = net(image.expand(6, -1, -1, -1), None, strengths)
        full = net(image)
    assert torch.equal(painted[0], image[0])  # exactly
    torch.testing.assert_close(painted[-1:], full, rtol=0, atol=1e-6)
    distance = (painted - image).flatten(1).norm(dim=1)
    assert (distance.diff() > 0).all(), f"further from the photo with every step: {distance.tolist()}"


def test_brightness_and_contrast_reach_fast_only_through_the_photo_path() -> None:
    net = make()
    dark, bright = 0.3 * draw_picture(1, 3, 24, 24), 0.6 * draw_picture(1, 3, 24, 24) + 0.3
    with torch.no_grad():
        torch.testing.assert_close(net(dark), net(bright), rtol=0, atol=0.05)  # but for eps
        half = torch.tensor([0.5])
        assert (net(bright, None, half) - net(dark, None, half)).mean() > 0.1


# the contract of fast


class Traced(nn.Module):
    """The painter with style and strength, under names for a trace."""

    def __init__(self, net: TransformerNet) -> None:
        super().__init__()
        self.painter = net.painter

    def forward(self, images: Tensor, style: Tensor, strength: Tensor) -> Tensor:
        return self.painter(images, style, strength)


class Leaves(torch.fx.Tracer):
    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return isinstance(module, nn.Conv2d | UpsampleConv | ConditionalInstanceNorm)


@SHAPES
def test_every_normalisation_of_fast_follows_a_convolution_without_bias(
    sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("impasto.training.networks.clip_picture", lambda x: x.clamp(0, 1))  # asks for requires_grad
    net = make(**sizes)
    graph = Leaves().trace(Traced(net))
    modules = dict(Traced(net).named_modules())
    calls = [node for node in graph.nodes if node.op == "call_module"]
    norms = [node for node in calls if isinstance(modules[node.target], ConditionalInstanceNorm)]
    convolutions = [node for node in calls if node not in norms]
    ends = sizes.get("stem", 1) + (2 if "stride" in sizes else 1)
    assert len(norms) == len(net.normalisations) == ends + 2 * SMALL["blocks"]
    for node in norms:
        before = node.args[0]
        assert before.op == "call_module" and before in convolutions, f"{node} follows {before}"
        assert list(before.users) == [node], f"{before} is also used by {list(before.users)}"
    depthwise = {node.target for node in convolutions if str(node.target).endswith("conv.0")}
    assert len(depthwise) == (2 * SMALL["blocks"] if "separable" in sizes else 0)
    followed = {node.args[0].target for node in norms}
    assert {node.target for node in convolutions} - followed - depthwise == {"painter.output"}
    for node in convolutions:
        assert set(dict(modules[node.target].named_parameters())) == {"weight"}, f"{node.target} has a bias"
    # and there is no other normalisation in it
    functions = {str(node.target) for node in graph.nodes if node.op in ("call_function", "call_method")}
    assert not [name for name in functions if "norm" in name or "mean" in name or "var" in name]


def test_the_normalisations_of_fast_have_eps_1e_3_and_strength_on_the_branches() -> None:
    norms = make().normalisations
    assert {norm.eps for norm in norms.values()} == {1e-3}
    branches = [name for name, norm in norms.items() if norm.by_strength]
    assert branches == [f"painter.{name}.norm" for name in ("residual.0.second", "residual.1.second", "up.0")]
    assert {norm.eps for norm in make("johnson").normalisations.values()} == {1e-5}


def test_statistics_are_float32_under_autocast() -> None:
    norm = ConditionalInstanceNorm(1, styles=1, eps=1e-3)
    # 256 and 257 are the same in bfloat16 sums but not as values that float32 statistics see
    x = torch.tensor([[[[256.0, 258.0], [256.0, 258.0]]]]).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(x, torch.ones(1, 1), torch.ones(1))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), torch.tensor([[[[-1.0, 1.0], [-1.0, 1.0]]]]), rtol=0, atol=0.01)
    wide = 200 + draw(1, 1, 64, 64).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(wide, torch.ones(1, 1), torch.ones(1)).float()
    exact = F.instance_norm(wide.double(), eps=1e-3)
    torch.testing.assert_close(found, exact.float(), rtol=0.004, atol=0.004)  # one rounding to bfloat16, no more


def folded(net: TransformerNet, image: Tensor, strength: float) -> Tensor:
    """Fast with every normalisation measured on the picture and folded into the convolution before it."""
    style, given = torch.ones(1, 1), torch.full((1,), strength)
    inputs: dict[str, Tensor] = {}
    hooks = [
        norm.register_forward_pre_hook(lambda module, args, name=name: inputs.update({name: args[0]}))
        for name, norm in net.normalisations.items()
    ]
    net(image, style, given)
    for hook in hooks:
        hook.remove()
    kernels: dict[str, tuple[Tensor, Tensor]] = {}
    for name, norm in net.normalisations.items():
        layer = name.removesuffix(".norm")
        weight = net.get_submodule(f"{layer}.conv").weight
        x = inputs[name]
        share = strength**0.5 if name.endswith("second.norm") else strength if norm.by_strength else 1
        factor = share * norm.scale[0] / torch.sqrt(x.var((0, 2, 3), unbiased=False) + norm.eps)
        shift = share * norm.shift[0] - factor * x.mean((0, 2, 3))
        kernels[layer] = weight * factor[:, None, None, None], shift

    def up(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=2)

    x = F.pad(F.pad(image, (12, 12, 12, 12), mode="reflect"), (12, 15, 12, 15), mode="reflect")
    x = F.conv2d(x, *kernels["painter.stem.0"], stride=4)
    for block in range(SMALL["blocks"]):
        inner = F.relu(F.conv2d(x, *kernels[f"painter.residual.{block}.first"], padding=1))
        x = x + F.conv2d(inner, *kernels[f"painter.residual.{block}.second"], padding=1)
    x = F.relu(up(x, *kernels["painter.up.0"]))
    painted = up(x, net.painter.output.weight)[:, :, 22 : 22 + image.shape[2], 22 : 22 + image.shape[3]]
    return (painted + (1 - strength) * image).clamp(0, 1)


@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_fast_folds_into_plain_convolutions(strength: float) -> None:
    net = make()
    image = draw_picture(1, 3, 37, 26)
    with torch.no_grad():
        expected = net(image, None, torch.tensor([strength]))
        torch.testing.assert_close(folded(net, image, strength), expected, rtol=0, atol=1e-5)
    assert expected.std() > 0.01


# layers


def plain_upsampling(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, padding=weight.shape[-1] // 2)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (6, 4)])
def test_upsampling_in_phases_is_resize_and_convolution(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = UpsampleConv(3, 2).double()
    x = draw(2, 3, *size).double().requires_grad_()
    expected, found = plain_upsampling(x, layer.weight), layer(x)
    assert found.shape == (2, 2, 2 * size[0], 2 * size[1])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    factors = draw(*found.shape, seed=1).double()
    gradients = [torch.autograd.grad((factors * y).sum(), (x, layer.weight)) for y in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


def test_upsampling_draws_no_grid() -> None:
    torch.manual_seed(0)
    layer = UpsampleConv(2, 3)
    x = torch.tensor([0.3, -1.7]).view(1, 2, 1, 1).expand(1, 2, 8, 9)
    inside = layer(x)[:, :, 2:-2, 2:-2]
    expected = layer.weight.sum((2, 3)) @ torch.tensor([0.3, -1.7])
    torch.testing.assert_close(inside, expected.view(1, 3, 1, 1).expand_as(inside), rtol=0, atol=1e-5)


def test_clipping_by_hand() -> None:
    x = torch.tensor([-0.5, -0.5, 0.0, 0.5, 0.5, 1.0, 1.5, 1.5], requires_grad=True)
    gradient = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, -1.0, 1.0, -1.0])
    clipped = clip_picture(x)
    assert clipped.tolist() == [0, 0, 0, 0.5, 0.5, 1, 1, 1]
    clipped.backward(gradient)
    assert x.grad is not None
    # descent moves against the gradient: below 0 a positive one would push further down, above 1 a negative one up
    assert x.grad.tolist() == [0, -1, 1, 1, -1, -1, 1, 0]
    assert clip_picture(x.detach()).tolist() == clipped.tolist()


# wrong calls


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        ("fsat", {}, r"unknown network 'fsat'\. Did you mean 'fast'\? Expected one of: fast, johnson"),
        ("fast", {"styles": 0}, r"styles: got 0, expected at least 1"),
        ("fast", {"widht": 8}, r"unknown size of the network 'fast' 'widht'\. Did you mean 'width'\?"),
        ("fast", {"stride": 2}, r"fast: got stride 2, stem 1, separable 0; expected stride 4 or 8, stem 1 or 2"),
        ("johnson", {"width": 8}, r"unknown size of the network 'johnson' 'width'\. Expected one of: \(none\)"),
    ],
)
def test_a_wrong_network_is_named(network: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(WrongCall, match=message):
        TransformerNet(network, **options)


def test_the_sizes_are_all_stated() -> None:
    assert TransformerNet("fast", blocks=1).sizes == {
        "width": 32, "blocks": 1, "head": 16, "stride": 4, "stem": 1, "separable": 0,
    }  # fmt: skip
    assert TransformerNet("johnson").sizes == {}
