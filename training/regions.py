"""`impasto.training.split.Apply` with a style for each region: blended between the normalisations, not in pixels.

A region has scales and shifts of its own, and a mask. In the place of each normalisation stands ``a x + b`` whose ``a``
and ``b`` are maps: the rows of the regions, weighted by their masks at that layer's resolution. So a painting has one
set of strokes, which change their manner where the masks do, and no double picture where the masks are soft.

Scales and shifts of a region are measured with its style over the whole picture. Further from the border of a mask than
the network sees, every pixel is then what it would be if its region's style were everywhere.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impasto.training.layers import UpsampleConv
from impasto.training.networks import Fast, TransformerNet
from impasto.training.split import PhaseConv, Place, Row, Shared, places, replace_module


@dataclass
class _Masks:
    """The masks (N, R, H, W) of one pass, in the frame of the network, and at the resolutions it has asked for."""

    framed: Tensor
    levels: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    def level(self, cell: _Cell, maps: Tensor) -> Tensor:
        """Means over the cells of maps (N, C, H', W'): (N, R, H', W')."""
        if cell.grid not in self.levels:
            means = F.avg_pool2d(self.framed[:, :, cell.first :, cell.first :], cell.pixels)
            self.levels[cell.grid] = means[:, :, : maps.shape[2], : maps.shape[3]]
        return self.levels[cell.grid]


@dataclass(frozen=True)
class _Cell:
    """The pixels that a position of maps stands for: the middle of what it sees, and what comes of it at the end.

    Attributes:
        pixels: of a side.
        first: where the first one begins in the frame of the network.
        grid: as of `impasto.training.split.Place`.
    """

    pixels: int
    first: int
    grid: tuple[int, ...]


class _Regional(Shared):
    """``a x + b`` in the place of a normalisation, ``a`` and ``b`` from region to region.

    Args:
        place: where it stands.
        cell: what a position of its maps stands for.
        row: what is shared; its ``affine`` is (N, K, R).
        masks: those of the pass.
    """

    def __init__(self, place: Place, cell: _Cell, row: list[Row], masks: list[_Masks]) -> None:
        super().__init__(row, place.start, place.norm.scale.shape[1])
        self._cell, self._masks = cell, masks

    def forward(self, x: Tensor, style: Tensor, strength: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        mask = self._masks[0].level(self._cell, x)
        scale, shift = (spread(rows, mask) for rows in self.given())
        return x * scale + shift


class ApplyRegions(nn.Module):
    """The half that paints by scales and shifts that are known, those of several regions."""

    def __init__(self, net: TransformerNet) -> None:
        super().__init__()
        self.net, self._row = copy.deepcopy(net).eval(), [Row(torch.zeros(0))]
        self._masks = [_Masks(torch.zeros(0))]
        self.net.painter.gate = nn.Identity()  # for a strength of each pixel
        for name, place in places(self.net).items():
            owner = self.net.get_submodule(name.rpartition(".")[0])
            if isinstance(owner.conv, UpsampleConv):
                owner.conv = nn.Sequential(PhaseConv(owner.conv), nn.PixelShuffle(owner.conv.factor))
            replace_module(self.net, name, _Regional(place, _cell(self.net, name, place), self._row, self._masks))

    def forward(self, image: Tensor, affine: Tensor, mask: Tensor) -> Tensor:
        """Paint a batch.

        Args:
            image: (N, H, W, 3), float RGB in [0, 1].
            affine: (N, R, K), of each region.
            mask: (N, R, H, W), how much of each region a pixel has; sums to 1 over the regions.

        Returns:
            (N, H, W, 3), in [0, 1].
        """
        rows = affine.mT
        self._row[0], self._masks[0] = Row(rows), _Masks(framed(mask, self.net))
        style = image.new_ones(image.shape[0], self.net.styles)
        strength = spread(rows[:, -1:], mask)
        painted: Tensor = self.net.painter(image.permute(0, 3, 1, 2), style, strength)
        return painted.permute(0, 2, 3, 1)


def spread(rows: Tensor, mask: Tensor) -> Tensor:
    """Values of regions (N, C, R), weighted by masks (N, R, H, W): (N, C, H, W)."""
    return (rows @ mask.flatten(2)).reshape(*rows.shape[:2], *mask.shape[2:])


def framed(masks: Tensor, net: TransformerNet) -> Tensor:
    """Masks in the frame that the network puts around a picture, so that they stay with it."""
    if not isinstance(net.painter, Fast):
        return F.pad(masks, [0, net.painter.stride - 1] * 2, mode="replicate")
    before, then = Fast.reflections[net.painter.stride]
    after = then + net.painter.stride - 1
    return F.pad(F.pad(masks, [before] * 4, mode="reflect"), (then, after, then, after), mode="reflect")


def _cell(net: TransformerNet, name: str, place: Place) -> _Cell:
    painter = net.painter
    pixels, first = painter.stride // place.cells, 0
    if isinstance(painter, Fast):
        before_last = len(painter.stem) == 2 and name == "painter.stem.0.norm"
        first = pixels // 2 if before_last else painter.edge - painter.first
    return _Cell(pixels, first, place.grid)
