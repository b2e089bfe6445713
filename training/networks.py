"""The feed-forward networks: picture to picture in one pass."""

from __future__ import annotations

import inspect
import itertools
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impasto.errors import WrongCall, unknown_name
from impasto.training.layers import ConditionalInstanceNorm, Gate, UpsampleConv, clip_picture

SMALLEST = 16
"""Smallest height and width of a picture, in pixels."""


class _JohnsonBlock(nn.Module):
    """Reflection padding, convolution, conditional instance normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, styles: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, padding_mode="reflect")
        self.norm = ConditionalInstanceNorm(outputs, styles, eps=1e-5)

    def forward(self, x: Tensor, style: Tensor, strength: Tensor) -> Tensor:
        normalised: Tensor = self.norm(self.conv(x), style, strength)
        return normalised


class _JohnsonResidual(nn.Module):
    """Two such blocks with a ReLU between them, added to what came in."""

    def __init__(self, width: int, styles: int) -> None:
        super().__init__()
        self.first = _JohnsonBlock(width, width, 3, 1, styles)
        self.second = _JohnsonBlock(width, width, 3, 1, styles)

    def forward(self, x: Tensor, style: Tensor, strength: Tensor) -> Tensor:
        inner = F.relu(self.first(x, style, strength))
        return x + self.second(inner, style, strength)  # type: ignore[no-any-return]  # modules return Any


class Johnson(nn.Module):
    """The network of Johnson et al. 2016 as everyone trains it today; 1,679,235 parameters with one style.

    c9s1-32, d64, d128, R128 x 5, u64, u32, c9s1-3. Differs from the paper: instance instead of batch normalisation
    (Ulyanov et al. 2016); reflection padding in every convolution instead of once around the picture, so residual
    blocks keep their size; nearest-neighbour upsampling and a convolution instead of a fractionally strided one; no
    normalisation and no scaled tanh on the last convolution, whose output is clipped to [0, 1]; rows of scales and
    shifts for several styles (Dumoulin et al. 2017). Pictures are in [0, 1] and the output's bias starts at 0.5.

    It has no photo path: ``strength`` fades between the photo's pixels and the painting's.
    """

    stride = 4

    def __init__(self, styles: int) -> None:
        super().__init__()
        sizes = [(3, 32, 9, 1), (32, 64, 3, 2), (64, 128, 3, 2)]
        self.down = nn.ModuleList([_JohnsonBlock(*size, styles) for size in sizes])
        self.residual = nn.ModuleList([_JohnsonResidual(128, styles) for _ in range(5)])
        self.up = nn.ModuleList([_JohnsonBlock(*size, styles) for size in [(128, 64, 3, 1), (64, 32, 3, 1)]])
        self.output = nn.Conv2d(32, 3, 9, padding=4, padding_mode="reflect")
        self.gate = Gate()
        nn.init.constant_(self.output.bias, 0.5)  # type: ignore[arg-type]  # this convolution has a bias

    def forward(self, images: Tensor, style: Tensor, strength: Tensor) -> Tensor:
        """(N, 3, H, W), (N, S), (N,) -> (N, 3, H, W)."""
        x = images
        for down in self.down:
            x = F.relu(down(x, style, strength))
        for residual in self.residual:
            x = residual(x, style, strength)
        for up in self.up:
            x = F.relu(up(F.interpolate(x, scale_factor=2.0, mode="nearest"), style, strength))
        painted = clip_picture(self.output(x)[:, :, : images.shape[2], : images.shape[3]].to(images.dtype))
        strength = self.gate(strength)
        return painted * strength + images * (1 - strength)  # exact at both ends; torch.lerp exports as branches


class _FastConv(nn.Module):
    """A convolution without bias, a conditional instance normalisation, and perhaps a ReLU."""

    def __init__(self, conv: nn.Module, channels: int, styles: int, relu: bool, by_strength: bool = False) -> None:
        super().__init__()
        self.conv = conv
        self.norm = ConditionalInstanceNorm(channels, styles, Fast.eps, by_strength)
        self.relu = relu

    def forward(self, x: Tensor, style: Tensor, strength: Tensor) -> Tensor:
        normalised: Tensor = self.norm(self.conv(x), style, strength)
        return F.relu(normalised) if self.relu else normalised


class _FastBlock(nn.Module):
    """A residual block whose only normalisations follow its two convolutions."""

    def __init__(self, width: int, separable: bool, styles: int) -> None:
        super().__init__()
        self.first = _FastConv(self._conv(width, separable), width, styles, relu=True)
        self.second = _FastConv(self._conv(width, separable), width, styles, relu=False, by_strength=True)

    @staticmethod
    def _conv(width: int, separable: bool) -> nn.Module:
        if not separable:
            return nn.Conv2d(width, width, 3, padding=1, bias=False)
        each = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        return nn.Sequential(each, nn.Conv2d(width, width, 1, bias=False))

    def forward(self, x: Tensor, style: Tensor, strength: Tensor) -> Tensor:
        inner = self.first(x, style, strength)
        return x + self.second(inner, style, strength.sqrt())  # type: ignore[no-any-return]  # modules return Any


class Fast(nn.Module):
    """Our network for two CPU cores.

    A stem that goes down to a quarter (or an eighth) of the resolution, ``blocks`` residual blocks there, and
    upsampling convolutions in phase form (`UpsampleConv`) back up. The picture is padded once, by reflection, and
    cropped at the end; inside there are plain convolutions without bias, each but the last followed directly by a
    conditional instance normalisation, so its scale and shift fold into the convolution.

    ``strength`` is a factor on the rows of the last normalisation, its square root on those of the residual branches,
    and ``1 - strength`` gates the photo that is added to the output; at 0 every term but the photo is exactly zero, at
    1 the photo is. The root keeps strokes whole that the strength itself would wear away on smooth skies.

    Args:
        styles: rows of each normalisation.
        width: channels of the residual blocks.
        blocks: number of residual blocks.
        head: channels before the last upsampling convolution; twice as many before the one before it at stride 8. 0 at
            stride 4: one upsampling convolution, by 4, straight from the residual blocks to the picture.
        stride: pixels of the picture for one position of the residual blocks, 4 or 8.
        stem: convolutions of the stem, 1 (all the stride at once) or 2.
        separable: 1 for blocks of depthwise and pointwise convolutions, else 0.

    Raises:
        ValueError: for a stride, a stem or a separable other than these.
    """

    eps = 1e-3
    reflections: ClassVar = {4: (12, 12), 8: (15, 33)}
    """Pixels of reflection padding on each side by stride, in two goes, so that 16 pixels suffice; ``stride - 1`` more
    at the bottom and right, for any size to fill a cell. Enough that the zero padding inside, which a network would
    learn to see and paint a frame along, falls into what is cropped."""

    def __init__(
        self,
        styles: int,
        width: int = 32,
        blocks: int = 8,
        head: int = 16,
        stride: int = 4,
        stem: int = 1,
        separable: int = 0,
    ) -> None:
        super().__init__()
        if stride not in self.reflections or stem not in (1, 2) or separable not in (0, 1):
            raise WrongCall(
                f"fast: got stride {stride}, stem {stem}, separable {separable}; expected stride 4 or 8, stem 1 or 2, "
                "separable 0 or 1"
            )
        self.stride = stride
        self.edge = sum(self.reflections[stride])
        # kernels are twice their stride; a cell of the trunk is the middle of what its position sees
        if stem == 1:
            sizes = [(3, width, stride)]
            self.first = self.edge - stride // 2
        else:
            sizes = [(3, width // 2, stride // 2), (width // 2, width, 2)]
            self.first = self.edge - 3 * stride // 4
        stems = [
            _FastConv(
                nn.Conv2d(inputs, outputs, 2 * step, step, bias=False),
                outputs,
                styles,
                relu=outputs < width,
                by_strength=not head and outputs == width,  # where no other normalisation follows but the branches'
            )
            for inputs, outputs, step in sizes
        ]
        widths = [width] if not head else [width, head] if stride == 4 else [width, 2 * head, head]
        ups = [
            _FastConv(UpsampleConv(inputs, outputs), outputs, styles, relu=True, by_strength=True)
            for inputs, outputs in itertools.pairwise(widths)
        ]
        self.stem = nn.ModuleList(stems)
        self.residual = nn.ModuleList([_FastBlock(width, bool(separable), styles) for _ in range(blocks)])
        self.up = nn.ModuleList(ups)
        self.output = UpsampleConv(widths[-1], 3, stride // 2 ** len(ups))
        self.gate = Gate()
        self._start_grey([*stems, *ups][-1].norm)

    @torch.no_grad()
    def _start_grey(self, last: ConditionalInstanceNorm) -> None:
        """Begin with grey pictures of little contrast: from noise that is clipped, a run loses its first minutes."""
        nn.init.ones_(last.shift)
        taps = self.output.weight[0].numel()
        self.output.weight.mul_(0.2).add_(0.5 / taps)

    def forward(self, images: Tensor, style: Tensor, strength: Tensor) -> Tensor:
        """(N, 3, H, W), (N, S), (N,) -> (N, 3, H, W)."""
        before, then = self.reflections[self.stride]
        after = then + self.stride - 1
        x = F.pad(images, [before] * 4, mode="reflect")
        x = F.pad(x, (then, after, then, after), mode="reflect")
        for layer in [*self.stem, *self.residual, *self.up]:
            x = layer(x, style, strength)
        height, width = images.shape[2:]
        painted = self.output(x)[:, :, self.first : self.first + height, self.first : self.first + width]
        return clip_picture(torch.addcmul(painted.to(images.dtype), images, self.gate(1 - strength)))


NETWORKS: dict[str, Any] = {"fast": Fast, "johnson": Johnson}


def default_sizes(network: str) -> dict[str, int]:
    """The sizes that a network has, with their defaults.

    Raises:
        ValueError: for an unknown network.
    """
    if network not in NETWORKS:
        raise unknown_name("network", network, NETWORKS)
    arguments = inspect.signature(NETWORKS[network]).parameters
    return {name: argument.default for name, argument in arguments.items() if name != "styles"}


class TransformerNet(nn.Module):
    """A feed-forward style network: picture to picture, any size from 16 pixels up, returned at its own size.

    Args:
        network: "fast" (`Fast`) or "johnson" (`Johnson`).
        styles: number of styles, at least 1.
        **sizes: for "fast": ``width``, ``blocks``, ``head``, ``stride``, ``stem``, ``separable``.

    Raises:
        ValueError: for an unknown network or size, or less than one style.
    """

    def __init__(self, network: str = "fast", styles: int = 1, **sizes: int) -> None:
        super().__init__()
        known = default_sizes(network)
        if styles < 1:
            raise WrongCall(f"styles: got {styles}, expected at least 1")
        for name in sizes:
            if name not in known:
                raise unknown_name(f"size of the network {network!r}", name, known)
        self.network = network
        self.styles = styles
        self.sizes: dict[str, int] = known | sizes
        self.painter = NETWORKS[network](styles, **self.sizes)

    def forward(self, images: Tensor, style: Tensor | None = None, strength: Tensor | None = None) -> Tensor:
        """Paint a batch.

        Args:
            images: (N, 3, H, W), float RGB in [0, 1].
            style: weights of the styles for each picture, (N, S), summing to 1; may be left out with one style.
            strength: (N,), from 0 (the photo) to 1 (the style); 1 if left out.

        Returns:
            (N, 3, H, W), in [0, 1].

        Raises:
            ValueError: for pictures of another shape or too small, or weights that do not fit.
        """
        count = images.shape[0]
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < SMALLEST:
            raise WrongCall(
                f"TransformerNet: got pictures {tuple(images.shape)}, expected (N, 3, H, W) from {SMALLEST} pixels up"
            )
        if style is None:
            if self.styles > 1:
                raise WrongCall(f"style: got none, expected weights (N, {self.styles}) of the {self.styles} styles")
            style = images.new_ones(count, 1)
        if strength is None:
            strength = images.new_ones(count)
        if style.shape != (count, self.styles) or strength.shape != (count,):
            raise WrongCall(
                f"TransformerNet: got style {tuple(style.shape)} and strength {tuple(strength.shape)}, "
                f"expected ({count}, {self.styles}) and ({count},)"
            )
        painted: Tensor = self.painter(images, style, strength)
        return painted

    @property
    def normalisations(self) -> dict[str, ConditionalInstanceNorm]:
        """The normalisations by name, in the order they run."""
        found = self.named_modules()
        return {name: module for name, module in found if isinstance(module, ConditionalInstanceNorm)}

    @property
    def rows(self) -> list[nn.Parameter]:
        """The parameters that belong to styles: what a new style trains."""
        return [row for norm in self.normalisations.values() for row in (norm.scale, norm.shift)]

    @property
    def row_names(self) -> set[str]:
        """Their names in the ``state_dict``."""
        return {f"{name}.{row}" for name in self.normalisations for row in ("scale", "shift")}
