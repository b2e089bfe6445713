"""The feed-forward networks: picture to picture in one pass."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impasto.errors import WrongCall, unknown_name
from impasto.training.layers import ConditionalInstanceNorm, UpsampleConv, clip_picture

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
        strength = strength.view(-1, 1, 1, 1)
        return painted * strength + images * (1 - strength)  # exact at both ends; torch.lerp exports as branches


class _FastBlock(nn.Module):
    """A residual block whose only normalisations follow its two convolutions."""

    def __init__(self, width: int, styles: int, eps: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = ConditionalInstanceNorm(width, styles, eps)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = ConditionalInstanceNorm(width, styles, eps, by_strength=True)

    def forward(self, x: Tensor, style: Tensor, strength: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x), style, strength))
        return x + self.norm2(self.conv2(inner), style, strength)  # type: ignore[no-any-return]  # modules return Any


class Fast(nn.Module):
    """Our network for two CPU cores.

    One 8x8 convolution of stride 4, ``blocks`` residual blocks at a quarter of the resolution, two upsampling
    convolutions in phase form (`UpsampleConv`). The picture is padded once, by reflection, and cropped at the end;
    inside there are plain convolutions without bias, each but the last followed directly by a conditional instance
    normalisation, so its scale and shift fold into the convolution.

    ``strength`` is a factor on the rows of the residual branches and of the last normalisation, and ``1 - strength``
    gates the photo that is added to the output; at 0 every term but the photo is exactly zero, at 1 the photo is.

    Args:
        styles: rows of each normalisation.
        width: channels of the residual blocks.
        blocks: number of residual blocks.
        head: channels between the two upsampling convolutions.
    """

    stride = 4
    eps = 1e-3
    edge = 24
    """Pixels of reflection padding on each side, in two reflections of half as much, so that 16 pixels suffice; 3 more
    at the bottom and right, for any size to fill a cell. Enough that the zero padding inside, which a network would
    learn to see and paint a frame along, falls into what is cropped."""

    def __init__(self, styles: int, width: int = 48, blocks: int = 5, head: int = 24) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 8, 4, bias=False)
        self.stem_norm = ConditionalInstanceNorm(width, styles, self.eps)
        self.residual = nn.ModuleList([_FastBlock(width, styles, self.eps) for _ in range(blocks)])
        self.up = UpsampleConv(width, head)
        self.up_norm = ConditionalInstanceNorm(head, styles, self.eps, by_strength=True)
        self.output = UpsampleConv(head, 3)

    def forward(self, images: Tensor, style: Tensor, strength: Tensor) -> Tensor:
        """(N, 3, H, W), (N, S), (N,) -> (N, 3, H, W)."""
        half = self.edge // 2
        x = F.pad(images, [half] * 4, mode="reflect")
        x = F.pad(x, (half, half + 3, half, half + 3), mode="reflect")
        x = self.stem_norm(self.stem(x), style, strength)
        for block in self.residual:
            x = block(x, style, strength)
        x = F.relu(self.up_norm(self.up(x), style, strength))
        first = self.edge - 2  # a cell of 4x4 pixels is the middle of the 8x8 that the stem saw
        height, width = images.shape[2:]
        painted = self.output(x)[:, :, first : first + height, first : first + width].to(images.dtype)
        return clip_picture(torch.addcmul(painted, images, (1 - strength).view(-1, 1, 1, 1)))


NETWORKS: dict[str, Any] = {"fast": Fast, "johnson": Johnson}


class TransformerNet(nn.Module):
    """A feed-forward style network: picture to picture, any size from 16 pixels up, returned at its own size.

    Args:
        network: "fast" (`Fast`) or "johnson" (`Johnson`).
        styles: number of styles, at least 1.
        **sizes: for "fast": ``width``, ``blocks``, ``head``.

    Raises:
        ValueError: for an unknown network or size, or less than one style.
    """

    def __init__(self, network: str = "fast", styles: int = 1, **sizes: int) -> None:
        super().__init__()
        if network not in NETWORKS:
            raise unknown_name("network", network, NETWORKS)
        if styles < 1:
            raise WrongCall(f"styles: got {styles}, expected at least 1")
        arguments = inspect.signature(NETWORKS[network]).parameters
        known = {name: argument.default for name, argument in arguments.items() if name != "styles"}
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
