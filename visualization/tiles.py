"""A picture in parts whose features are exactly those of the whole: memory for one part, not for the picture.

A position of a layer sees the pixels that it stands for and, through the convolutions, some around them. A part widened
by as many pixels on each side (its halo) has at its own positions the features of the whole picture. Parts begin at
multiples of the deepest layer's stride, so that pooling joins the same positions; at the picture's edges they end where
the picture does, so that the network pads with zeros there and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from impasto.errors import WrongCall
from impasto.losses import VGGFeatures


@dataclass(frozen=True)
class Span:
    """Pixels of one axis: a part's own, ``start`` to ``stop``, and those that it sees, ``first`` to ``last``."""

    start: int
    stop: int
    first: int
    last: int

    def own(self, stride: int) -> slice:
        """The part's positions among those of the whole picture's features."""
        return slice(self.start // stride, self.stop // stride)

    def inside(self, stride: int) -> slice:
        """The part's positions among those of the features of what it sees."""
        return slice((self.start - self.first) // stride, (self.stop - self.first) // stride)


@dataclass(frozen=True)
class Part:
    """A rectangle of a picture, and the larger one that its features depend on."""

    rows: Span
    columns: Span

    def seen(self, pictures: Tensor) -> Tensor:
        """What the part sees of pictures (N, C, H, W), halo included; a view."""
        return pictures[..., self.rows.first : self.rows.last, self.columns.first : self.columns.last]

    def own(self, maps: Tensor, stride: int) -> Tensor:
        """The part's positions of the whole picture's maps; a view."""
        return maps[..., self.rows.own(stride), self.columns.own(stride)]

    def inside(self, maps: Tensor, stride: int) -> Tensor:
        """The part's positions of the maps of what it sees; a view."""
        return maps[..., self.rows.inside(stride), self.columns.inside(stride)]


_FLOAT32 = 4
_INDEX = 8
_IN_FLIGHT = 5
"""Maps of the largest layer, in float32, that the losses and the backward pass hold beside those kept for it."""

ALLOCATOR = 1.2
"""What an allocator takes for each byte, because it does not give all of it back."""

Measure = Callable[[Tensor, Part], tuple[Tensor, ...]]
"""What is seen of a picture, and the part -> tensors whose sums over the parts are wanted."""


def deepest(features: VGGFeatures, layers: Sequence[str]) -> str:
    """The layer at which a pass for these layers stops."""
    return max(layers, key=features.layers.index)


def halo(features: VGGFeatures, layers: Sequence[str]) -> int:
    """Pixels by which a part is widened on each side, a multiple of the deepest layer's stride.

    Each 3x3 convolution sees one of its own positions further on each side, that is, its stride in pixels; a 2x2
    pooling sees no further than the positions that it joins.
    """
    end = deepest(features, layers)
    passed = features.layers[: features.layers.index(end) + 1]
    reach = sum(features.stride[layer] for layer in passed if layer.startswith("conv"))
    return -(-reach // features.stride[end]) * features.stride[end]


def split(height: int, width: int, features: VGGFeatures, layers: Sequence[str], tile: int | None) -> list[Part]:
    """The parts of a picture, of about equal size, at most ``tile`` pixels a side without halo; None: one part.

    Raises:
        ValueError: if ``tile`` is not a multiple of the deepest layer's stride.
    """
    if tile is None:
        return [Part(Span(0, height, 0, height), Span(0, width, 0, width))]
    check_tile(tile, features, layers)
    stride, margin = features.stride[deepest(features, layers)], halo(features, layers)
    rows, columns = (_spans(size, tile, stride, margin) for size in (height, width))
    return [Part(row, column) for row, column in product(rows, columns)]


def check_tile(tile: int, features: VGGFeatures, layers: Sequence[str]) -> None:
    """Refuse a tile whose parts would not begin where the deepest layer's positions do."""
    end = deepest(features, layers)
    if tile < 1 or tile % features.stride[end]:
        raise WrongCall(f"tile: got {tile} pixels, expected a multiple of {features.stride[end]}, the stride of {end}")


def _spans(size: int, tile: int, stride: int, margin: int) -> list[Span]:
    count = -(-size // tile)
    side = -(-size // (count * stride)) * stride
    starts = range(0, size, side)
    return [
        Span(start, min(start + side, size), max(start - margin, 0), min(start + side + margin, size))
        for start in starts
    ]


def bytes_per_pixel(features: VGGFeatures, layers: Sequence[str], dtype: torch.dtype | None = None) -> float:
    """Memory of one evaluation and its gradient per pixel of the largest part, halo included.

    What the backward pass keeps (the picture, the output of each convolution and pooling, where the maximum was) and
    five float32 maps of the largest layer for the gradients under way. The five were measured on a processor as peak
    resident memory, relu1_1 to relu4_1 for style and relu4_2 for content: 2.0 to 2.2 kB a pixel for a whole picture,
    2.5 with regions, 2.7 for parts of 336 pixels, halo included, with regions (2.1 in bfloat16); this function gives
    2.7 (2.1). The weights, some 10 MB of scratch and what the allocator does not give back, up to a fifth, come on top.

    Args:
        features: the loss network.
        layers: all layers of the objective.
        dtype: as in `PaintObjective`.
    """
    end = features.layers.index(deepest(features, layers))
    size = torch.finfo(dtype or torch.float32).bits // 8
    kept, largest = 4.0 * _FLOAT32, 0.0
    for layer in features.layers[: end + 1]:
        values = features.channels[layer] / features.stride[layer] ** 2
        largest = max(largest, values)
        if not layer.startswith("relu") or layer.replace("relu", "conv") in layers:
            kept += values * size
        if layer.startswith("pool") and features.pooling == "max":
            kept += values * _INDEX
    return kept + _IN_FLIGHT * _FLOAT32 * largest


def smallest_memory(
    height: int, width: int, features: VGGFeatures, layers: Sequence[str], dtype: torch.dtype | None = None
) -> float:
    """Bytes without which a picture fits neither whole nor in parts; the smallest part is as wide as its halo."""
    pixels = min(height * width, (3 * halo(features, layers)) ** 2)
    return pixels * ALLOCATOR * bytes_per_pixel(features, layers, dtype)


def fitting_tile(
    height: int, width: int, features: VGGFeatures, layers: Sequence[str], dtype: torch.dtype | None, memory: float
) -> int | None:
    """The tile with which an evaluation takes at most some bytes of memory; None where the whole picture fits.

    Raises:
        ValueError: for less than `smallest_memory`.
    """
    each = ALLOCATOR * bytes_per_pixel(features, layers, dtype)
    if height * width * each <= memory:
        return None
    stride, margin = features.stride[deepest(features, layers)], halo(features, layers)
    tile = math.floor((math.sqrt(max(memory, 0.0) / each) - 2 * margin) / stride) * stride
    if tile < margin:
        needed = smallest_memory(height, width, features, layers, dtype)
        raise WrongCall(f"memory: got {memory / 2**30:.2f} GiB, expected {needed / 2**30:.2f}")
    return tile


def sum_over_parts(picture: Tensor, parts: Sequence[Part], measure: Measure) -> tuple[Tensor, ...]:
    """The sums over the parts of what ``measure`` gives for each; differentiable once, by the picture.

    One part is measured directly. Of several, none keeps its graph: the backward pass measures each again, so that
    memory is that of the largest, for four thirds of the work and that of the halos.
    """
    if len(parts) == 1:
        return measure(parts[0].seen(picture), parts[0])
    sums: tuple[Tensor, ...] = _SumOverParts.apply(picture, parts, measure)
    return sums


class _SumOverParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, picture: Tensor, parts: Sequence[Part], measure: Measure) -> tuple[Tensor, ...]:
        ctx.save_for_backward(picture)
        ctx.set_materialize_grads(False)
        ctx.parts, ctx.measure = parts, measure
        sums = measure(parts[0].seen(picture), parts[0])
        for part in parts[1:]:
            sums = tuple(a + b for a, b in zip(sums, measure(part.seen(picture), part), strict=True))
        return sums

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, None, None]:
        (picture,) = ctx.saved_tensors
        total = torch.zeros_like(picture)
        for part in ctx.parts:
            seen = part.seen(picture).detach().requires_grad_()
            with torch.enable_grad():
                found = ctx.measure(seen, part)
            wanted = [
                (output, gradient)
                for output, gradient in zip(found, gradients, strict=True)
                if gradient is not None and output.requires_grad
            ]
            outputs, weights = zip(*wanted, strict=True)
            (of_part,) = torch.autograd.grad(outputs, seen, weights)
            part.seen(total).add_(of_part)
        return total, None, None
