"""Histograms of oriented gradients: what pictures were recognised by before networks learned their own features."""

from __future__ import annotations

import math

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from impasto.errors import WrongCall, unknown_name
from impasto.visualization.colours import luminance
from impasto.visualization.scene import to_image

ORIENTATIONS = 9
"""Bins of half a turn: strokes, dark to light or light to dark. Gradients have twice as many, of a whole turn."""

BINNINGS = ("linear", "hard")
"""A gradient's vote: shared by the two nearest directions, or all for the nearest."""

CLAMP = 0.2
"""Of a normalised histogram: no single strong edge outweighs all others."""

FLAT = 0.01
"""Norm of a block beneath which it counts as flat: the gradients of 0.00004 a pixel, under what 8 bits can hold."""


def hog(images: Tensor, cell: int = 8, binning: str = "linear") -> Tensor:
    """The histograms of oriented gradients of pictures, cell by cell.

    The luma's central differences vote with their length for a direction, and for the four nearest cells by how near
    each is. A cell's histograms, of 18 directions and of 9 strokes, are divided by the norm of each of the four blocks
    of 2 x 2 cells that it belongs to, clamped at 0.2 and added up with 1/2 (those at the border have fewer blocks).

    Source: Dalal and Triggs 2005, section 6; Felzenszwalb et al. 2010, section 6.2, whose 18 + 9 these are, without the
    four of texture; as layers of a network: Mahendran and Vedaldi 2015, section 3.1. Differs from them in the luma
    where they take the channel with the longest gradient, at each pixel another.

    Args:
        images: (N, 3, H, W), float RGB in [0, 1].
        cell: side in pixels; even.
        binning: one of `BINNINGS`.

    Returns:
        (N, 27, H // cell, W // cell): directions by 20 degrees from left to right, clockwise, of darker to lighter,
        then strokes by the same angles of their gradient. 0 where a picture is flat.

    Raises:
        WrongCall: an odd cell, a picture under two cells high or wide, or an unknown binning.
    """
    if binning not in BINNINGS:
        raise unknown_name("binning", binning, BINNINGS)
    if cell < 2 or cell % 2 or images.ndim != 4 or min(images.shape[2:]) < 2 * cell:
        raise WrongCall(
            f"hog: got cells of {cell} pixels and pictures {tuple(images.shape)}, "
            "expected an even number and at least two cells each way"
        )
    votes = _votes(luminance(images), binning)
    ramp = 1 - (torch.arange(2 * cell).to(images) + 0.5 - cell).abs() / cell
    window = torch.outer(ramp, ramp).expand(len(votes[0]), 1, -1, -1)
    directions = F.conv2d(votes, window, stride=cell, padding=cell // 2, groups=len(votes[0]))
    return _normalised(torch.cat([directions, directions[:, :ORIENTATIONS] + directions[:, ORIENTATIONS:]], 1))


def _votes(luma: Tensor, binning: str) -> Tensor:
    """What each pixel's gradient gives to each direction: (N, 18, H, W)."""
    wide = F.pad(luma, (1, 1, 1, 1), mode="replicate")
    across, down = (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2, (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2
    squares = across.square() + down.square()
    flat = squares == 0
    length = torch.where(flat, 1, squares).sqrt() * ~flat
    turns = torch.atan2(down.masked_fill(flat, 0), across.masked_fill(flat, 1)) / (2 * math.pi)
    bins = torch.arange(2 * ORIENTATIONS).to(luma).view(-1, 1, 1)
    away = torch.remainder(2 * ORIENTATIONS * turns - bins + ORIENTATIONS, 2 * ORIENTATIONS) - ORIENTATIONS
    share = (1 - away.abs()).clamp(min=0)
    if binning == "hard":
        share = F.one_hot(share.argmax(1), 2 * ORIENTATIONS).movedim(3, 1).to(luma)
    return length * share


def _normalised(cells: Tensor) -> Tensor:
    """Histograms (N, 27, h, w) by the norms of their blocks, clamped and added up."""
    energy = cells[:, 2 * ORIENTATIONS :].square().sum(1, keepdim=True)
    blocks = (4 * F.avg_pool2d(energy, 2, stride=1) + FLAT**2).sqrt()
    inverse = F.pad(1 / blocks, (1, 1, 1, 1))  # 0 where there is no block
    height, width = cells.shape[2:]
    shares = [
        (cells * inverse[..., row : row + height, column : column + width]).clamp(max=CLAMP)
        for row in (0, 1)
        for column in (0, 1)
    ]
    return torch.stack(shares).sum(0) / 2


def glyphs(features: Tensor, side: int = 16) -> Image.Image:
    """The classic picture of `hog`: in each cell a line along each stroke's edge, the brighter the more of it.

    Args:
        features: (1, 27, h, w).
        side: of a cell in pixels.
    """
    strokes = features[0, 2 * ORIENTATIONS :].detach().float().cpu()
    brightest = float(strokes.max()) or 1.0
    drawn = torch.einsum("ohw,oyx->hywx", strokes / brightest, _lines(side)).flatten(2, 3).flatten(0, 1)
    return to_image(drawn.clamp(0, 1).expand(1, 3, -1, -1))


def _lines(side: int) -> Tensor:
    """A line through the middle for each stroke, across its gradient: (9, side, side)."""
    lines = []
    for bin in range(ORIENTATIONS):
        angle = math.pi * bin / ORIENTATIONS + math.pi / 2
        large = Image.new("L", (4 * side, 4 * side))
        x, y = (1.9 * side * part for part in (math.cos(angle), math.sin(angle)))
        ends = (2 * side - x, 2 * side - y, 2 * side + x, 2 * side + y)
        ImageDraw.Draw(large).line(ends, fill=255, width=max(4, side // 3))
        small = large.resize((side, side), Image.Resampling.BOX)
        lines.append(torch.tensor(list(small.tobytes())).view(side, side) / 255)
    return torch.stack(lines)
