"""Painting by regions as the design has it, slowly and in float64: every normalisation's scale and shift from position
to position, the rows of the regions weighted by the mean of each mask over the pixels that the position stands for.

Which pixels these are is not read from the network's sizes but found with gradients: the middle of all that it sees.
"""

from __future__ import annotations

import torch
from torch import Tensor

PHASES = 4
"""Positions after which those of any normalisation see what the first sees, further on."""


def paint(net, image: Tensor, rows: Tensor, masks: Tensor) -> Tensor:
    """image (H, W, 3), rows (R, K) and masks (R, H, W), float64 -> (H, W, 3)."""
    height, width = image.shape[:2]
    geometry = cells(net)
    place = 0
    for name, norm in net.normalisations.items():
        channels = norm.scale.shape[1]
        scale, shift = rows[:, place : place + channels], rows[:, place + channels : place + 2 * channels]
        place += 2 * channels

        def blended(maps, style, strength, name=name, scale=scale, shift=shift):
            side, first = geometry[name]
            result = torch.empty_like(maps)
            for i in range(maps.shape[2]):
                for j in range(maps.shape[3]):
                    ys = [mirrored(net, first + i * side + step, height) for step in range(side)]
                    xs = [mirrored(net, first + j * side + step, width) for step in range(side)]
                    shares = [mask[ys][:, xs].mean() for mask in masks]
                    a = sum(share * row for share, row in zip(shares, scale, strict=True))
                    b = sum(share * row for share, row in zip(shares, shift, strict=True))
                    result[0, :, i, j] = a * maps[0, :, i, j] + b
            return result

        norm.forward = blended
    strength = sum(row[-1] * mask for row, mask in zip(rows, masks, strict=True))
    with torch.no_grad():
        style = torch.ones(1, net.styles, dtype=torch.float64)
        net.painter.gate.forward = lambda strength: strength
        painted = net.painter(image.permute(2, 0, 1)[None], style, strength[None, None])
    for module in (net.painter.gate, *net.normalisations.values()):
        del module.forward
    return painted[0].permute(1, 2, 0)


def mirrored(net, place: int, length: int) -> int:
    """The pixel of a photo's row that stands at a place of the network's frame, which is made by mirroring twice."""
    before, _ = net.painter.reflections[net.painter.stride]
    longest = length + before - 1
    place = -2 * before - place if place < -before else place
    place = 2 * longest - place if place > longest else place
    place = abs(place)
    return 2 * (length - 1) - place if place > length - 1 else place


def cells(net) -> dict[str, tuple[int, int]]:
    """For each normalisation the pixels of a side of a position's cell, and where the first one begins in the photo."""
    found = {}
    everything = net.normalisations
    for name in everything:
        seen: list[Tensor] = []
        for other, norm in everything.items():
            kept = seen if other == name else []
            norm.forward = lambda maps, style, strength, kept=kept: kept.append(maps) or maps  # or all is seen
        image = torch.rand(4, 3, 64, 160, dtype=torch.float64, requires_grad=True)  # several, for ReLUs to be open
        net.painter(image, torch.ones(4, net.styles, dtype=torch.float64), torch.ones(4, dtype=torch.float64))
        maps = seen[0]
        start = maps.shape[3] // 2 // PHASES * PHASES
        middles = [_middle(maps[:, :, maps.shape[2] // 2, start + step], image) for step in range(PHASES + 1)]
        side = round((middles[-1] - middles[0]) / PHASES)
        firsts = [middle - side / 2 - (start + step) * side for step, middle in enumerate(middles[:-1])]
        found[name] = (side, round(sum(firsts) / PHASES))
        for norm in everything.values():
            del norm.forward
    return found


def _middle(values: Tensor, image: Tensor) -> float:
    """The middle of the columns that values depend on."""
    (gradient,) = torch.autograd.grad(values.sum(), image, retain_graph=True)
    columns = gradient.abs().amax((0, 1, 2)).nonzero().flatten()
    return (int(columns[0]) + int(columns[-1]) + 1) / 2
