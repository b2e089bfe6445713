"""The network split at its normalisations: one part measures their scales and shifts, the other applies them.

Instance normalisation makes every pixel depend on the whole picture. Split, one measurement serves all tiles of a huge
picture and all frames of a shot; and what is left to compute folds into the convolutions.

``affine`` (N, K) holds, for each normalisation in the order of the card, its C scales a and its C shifts b of
``y = a x + b``, and at its end the strength. ``moments`` (1, K - 1) has means and variances at the same places.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impasto.training.layers import ConditionalInstanceNorm, UpsampleConv
from impasto.training.networks import TransformerNet


def affine_length(net: TransformerNet) -> int:
    """The length K of a row of ``affine``."""
    return sum(2 * norm.scale.shape[1] for norm in net.normalisations.values()) + 1


@dataclass
class Row:
    """What the normalisations of one pass share: what they are given, and what they leave."""

    affine: Tensor
    known: Tensor | None = None
    margins: Tensor | None = None
    windows: dict[tuple[int, ...], _Window] = field(default_factory=dict)
    found: list[Tensor] = field(default_factory=list)
    moments: list[Tensor] = field(default_factory=list)

    def window(self, maps: Tensor, place: Place) -> _Window:
        """What counts of maps (M, C, H, W)."""
        if place.grid not in self.windows:
            assert self.margins is not None
            top, left, bottom, right = (self.margins * place.cells).unbind(1)
            rows, columns = _inside(maps.shape[2], top, bottom), _inside(maps.shape[3], left, right)
            count = (rows.sum(1) * columns.sum(1)).sum()
            self.windows[place.grid] = _Window((rows / count)[:, None, None], columns[:, None, :, None])
        return self.windows[place.grid]


@dataclass
class _Window:
    """Weights of rows (M, 1, 1, H) and columns (M, 1, W, 1) whose products sum to 1 over a stack of maps."""

    rows: Tensor
    columns: Tensor

    def mean(self, maps: Tensor) -> Tensor:
        """(M, C, H, W) -> (1, C)."""
        return (self.rows @ (maps @ self.columns)).sum(0).flatten(1).mT


class Shared(nn.Module):
    """A normalisation that finds its place in the row that all of a network share."""

    def __init__(self, row: list[Row], start: int, channels: int) -> None:
        super().__init__()
        self._row, self._start, self.channels = row, start, channels

    def given(self) -> tuple[Tensor, Tensor]:
        """Its scales and shifts in the row, (N, C) each; or (N, C, R) of a row (N, K, R)."""
        affine, middle = self._row[0].affine, self._start + self.channels
        return affine[:, self._start : middle], affine[:, middle : middle + self.channels]


class _Applied(Shared):
    """``a x + b`` in the place of a normalisation.

    After a convolution in phase form the scales and shifts come before the pixel shuffle, so that they can be folded
    into the convolution.
    """

    def __init__(self, row: list[Row], start: int, channels: int, factor: int) -> None:
        super().__init__(row, start, channels)
        self.factor = factor

    def forward(self, x: Tensor, style: Tensor, strength: Tensor) -> Tensor:
        """(N, C factor^2, H, W) -> (N, C, factor H, factor W)."""
        scale, shift = self.given()
        if self.factor > 1:
            scale, shift = (each.repeat_interleave(self.factor**2, dim=1) for each in (scale, shift))
        x = x * scale[..., None, None] + shift[..., None, None]
        return F.pixel_shuffle(x, self.factor) if self.factor > 1 else x


class PhaseConv(nn.Module):
    """`UpsampleConv` before its pixel shuffle."""

    def __init__(self, conv: UpsampleConv) -> None:
        super().__init__()
        self.register_buffer("kernel", conv.phase_kernel().detach())

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs factor^2, H, W)."""
        return F.conv2d(x, self.get_buffer("kernel"), padding=1)


class _Measured(Shared):
    """A normalisation by moments over a stack of crops, which it leaves in the row; or, if it is known, as given.

    Args:
        place: where it stands.
        index: its number, from 0.
        row: what is shared.
    """

    def __init__(self, place: Place, index: int, row: list[Row]) -> None:
        super().__init__(row, place.start, place.norm.scale.shape[1])
        self.norm, self.index, self._place = place.norm, index, place

    def forward(self, x: Tensor, style: Tensor, strength: Tensor) -> Tensor:
        """Normalise (M, C, H, W), all M by the same moments."""
        row = self._row[0]
        assert row.known is not None
        window = row.window(x, self._place)
        mean = window.mean(x)
        variance = window.mean((x - mean[..., None, None]).square())
        style, strength = style[:1], strength[:1]  # all crops are of one picture
        style = style * strength.unsqueeze(1) if self.norm.by_strength else style
        scale = (style @ self.norm.scale) * torch.rsqrt(variance + self.norm.eps)
        shift = style @ self.norm.shift - mean * scale
        known, (given_scale, given_shift) = row.known > self.index, self.given()
        scale, shift = torch.where(known, given_scale, scale), torch.where(known, given_shift, shift)
        row.moments += [mean, variance]
        row.found += [scale, shift]
        return x * scale[..., None, None] + shift[..., None, None]


def _inside(length: int, before: Tensor, after: Tensor) -> Tensor:
    """1 where a position of ``length`` lies inside the margins (M,), else 0: (M, length)."""
    place = torch.arange(length)
    return ((place >= before[:, None]) & (place < length - after[:, None])).float()


class Measure(nn.Module):
    """The half that measures: crops of one picture -> the scales and shifts of every normalisation.

    Moments are pooled over the stack, layer by layer, because a thumbnail has other statistics.
    """

    def __init__(self, net: TransformerNet) -> None:
        super().__init__()
        self.net, self._row = copy.deepcopy(net).eval(), [Row(torch.zeros(0))]
        for index, (name, place) in enumerate(places(self.net).items()):
            replace_module(self.net, name, _Measured(place, index, self._row))

    def forward(
        self, image: Tensor, style: Tensor, strength: Tensor, given: Tensor, known: Tensor, margins: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Measure a stack of crops.

        Args:
            image: (M, H, W, 3), float RGB in [0, 1].
            style: (1, S), weights of the styles.
            strength: (1,).
            given: (1, K), an ``affine`` whose first ``known`` normalisations are used as they are.
            known: int64 (1,), 0 to measure all.
            margins: int64 (M, 4), what of each crop's maps is not counted: top, left, bottom, right, in positions of
                the network's coarsest maps.

        Returns:
            ``affine`` (1, K) and ``moments`` (1, K - 1).
        """
        row = self._row[0] = Row(given, known, margins)
        crops = image.permute(0, 3, 1, 2)
        everyone = style.expand(crops.shape[0], -1)
        painted = self.net(crops, everyone, strength.expand(crops.shape[0]))
        row.found.append(strength[:, None] + 0 * painted.mean())  # so that the graph has no input without a use
        return torch.cat(row.found, 1), torch.cat(row.moments, 1)


class Apply(nn.Module):
    """The half that paints by scales and shifts that are known: every pixel depends on its surroundings only."""

    def __init__(self, net: TransformerNet) -> None:
        super().__init__()
        self.net, self._row = copy.deepcopy(net).eval(), [Row(torch.zeros(0))]
        for name, place in places(self.net).items():
            owner = self.net.get_submodule(name.rpartition(".")[0])
            conv, factor = owner.conv, 1
            if isinstance(conv, UpsampleConv):
                owner.conv, factor = PhaseConv(conv), conv.factor
            replace_module(self.net, name, _Applied(self._row, place.start, place.norm.scale.shape[1], factor))

    def forward(self, image: Tensor, affine: Tensor) -> Tensor:
        """float (N, H, W, 3) in [0, 1] and (N, K) -> float (N, H, W, 3) in [0, 1]."""
        self._row[0] = Row(affine)
        style = image.new_ones(image.shape[0], self.net.styles)
        painted: Tensor = self.net(image.permute(0, 3, 1, 2), style, affine[:, -1]).permute(0, 2, 3, 1)
        return painted


@dataclass(frozen=True)
class Place:
    """Where a normalisation stands.

    Attributes:
        norm: the normalisation.
        start: of its place in ``affine``.
        cells: positions of its maps, along a side, for one of the network's coarsest maps.
        grid: the same for all whose maps are of one size, whatever the picture's is.
    """

    norm: ConditionalInstanceNorm
    start: int
    cells: int
    grid: tuple[int, ...]


def places(net: TransformerNet) -> dict[str, Place]:
    """The normalisations by name, in the order of the card."""
    grids: dict[str, tuple[int, ...]] = {}
    hooks = [
        norm.register_forward_pre_hook(lambda module, inputs, name=name: grids.update({name: inputs[0].shape[2:]}))
        for name, norm in net.normalisations.items()
    ]
    with torch.no_grad():
        picture = next(net.parameters()).new_zeros(1, 3, 65, 65)  # no multiple of a stride
        net(picture, picture.new_ones(1, net.styles) / net.styles)
    for hook in hooks:
        hook.remove()
    coarsest, start, found = min(grids.values())[0], 0, {}
    for name, norm in net.normalisations.items():
        found[name] = Place(norm, start, round(grids[name][0] / coarsest), tuple(grids[name]))
        start += 2 * norm.scale.shape[1]
    return found


def replace_module(net: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the one of this name."""
    owner, _, attribute = name.rpartition(".")
    setattr(net.get_submodule(owner), attribute, module)
