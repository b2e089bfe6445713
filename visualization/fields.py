"""What a unit of a network can see at most: exact receptive fields, for any graph of layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from impasto.losses import capture
from impasto.visualization.model import Box
from impasto.visualization.registry import Refused
from impasto.visualization.rules import linearised

LARGEST = 4096
"""A unit that sees more pixels than this in a row is said to see everything."""


@dataclass(frozen=True)
class Field:
    """What the units of a layer see; every pair is (down, across), in pixels.

    Attributes:
        size: of the box that one unit sees.
        stride: from the box of one unit to the next one's.
        start: the top and left edge of the first unit's box; below 0 where it begins in the padding.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    start: tuple[int, int]

    def box(self, row: int, column: int) -> Box:
        """Left, top, right and bottom of what a unit sees; it may reach beyond the picture."""
        top, left = self.start[0] + row * self.stride[0], self.start[1] + column * self.stride[1]
        return left, top, left + self.size[1], top + self.size[0]


def receptive_fields(network: nn.Module, layers: Sequence[str], *, size: int = 224) -> dict[str, Field | None]:
    """The exact receptive field of each layer of any network of convolutions, pools and branches.

    The box of pixels to which a unit's gradient is not 0 in the linearised network (`impasto.visualization.rules`), of
    two neighbouring units, measured on strips that are made longer until no box touches their ends.

    Args:
        network: takes (1, 3, H, W), also of other sizes than ``size``.
        layers: as `impasto.losses.capture` reads them.
        size: of the pictures the network takes, across the strip.

    Returns:
        layer -> `Field`, or None for a layer whose units see everything, or that has no maps.

    Raises:
        Refused: a network that cannot run on strips, or has attention.
        WrongCall: an unknown layer.
    """
    down, across = (_extents(network, layers, size, axis) for axis in (2, 3))
    fields: dict[str, Field | None] = {}
    for layer in layers:
        rows, columns = down[layer], across[layer]
        fields[layer] = None
        if rows is not None and columns is not None:
            extent, stride, start = zip(rows, columns, strict=True)
            fields[layer] = Field(extent, stride, start)
    return fields


Extent = tuple[int, int, int] | None
"""Size, stride and start along one axis."""


def _extents(network: nn.Module, layers: Sequence[str], size: int, axis: int) -> dict[str, Extent]:
    found: dict[str, Extent] = dict.fromkeys(layers)
    pending = list(dict.fromkeys(layers))
    length = 2 * size
    while pending and length <= LARGEST:
        shape = [1, 3, size, size]
        shape[axis] = length
        strip = torch.ones(shape, dtype=torch.float64, device=_device(network), requires_grad=True)
        again = []
        activations = _linear_activations(network, pending, strip)
        for layer in pending:
            activation = activations[layer]
            if activation.ndim != 4 or activation.shape[axis] <= activation.shape[5 - axis]:
                continue  # it does not grow with the picture: what all its units see together
            found[layer] = _extent(activation, strip, axis)
            again += [] if found[layer] else [layer]
        pending, length = again, 2 * length
    return found


def box_seen(field: Field | None, size: int, row: int, column: int) -> tuple[float, float, float, float]:
    """Where a unit looks in a picture of ``size`` pixels a side: its field, or all if that is as large or global."""
    if field is None or min(field.size) >= size:
        return 0, 0, size, size
    return field.box(row, column)


def _device(network: nn.Module) -> torch.device:
    return next((each.device for each in (*network.parameters(), *network.buffers())), torch.device("cpu"))


def _linear_activations(network: nn.Module, layers: Sequence[str], picture: Tensor) -> dict[str, Tensor]:
    try:
        with torch.enable_grad(), linearised():
            return capture(network, layers)(picture)
    except RuntimeError as error:
        height, width = picture.shape[2:]
        reason = " ".join(str(error).split())[:120]
        raise Refused(
            f"receptive field: the network does not take a picture of {height} x {width}: {reason}"
        ) from error


def _extent(activation: Tensor, strip: Tensor, axis: int) -> Extent:
    """Of two neighbouring units in the middle; None if one of them sees an end of the strip."""
    middle = [activation.shape[2] // 2, activation.shape[3] // 2]
    seen = []
    for step in (0, 1):
        unit = list(middle)
        unit[axis - 2] += step
        if unit[axis - 2] >= activation.shape[axis]:
            return None
        value = activation[0, :, unit[0], unit[1]].sum()
        (gradient,) = torch.autograd.grad(value, strip, retain_graph=True)
        rows = gradient[0].abs().amax(0).amax(3 - axis).nonzero().flatten()
        if len(rows) == 0 or rows[0] == 0 or rows[-1] == strip.shape[axis] - 1:
            return None
        seen.append((int(rows[0]), int(rows[-1]) + 1))
    stride = seen[1][0] - seen[0][0]
    return seen[0][1] - seen[0][0], stride, seen[0][0] - middle[axis - 2] * stride
