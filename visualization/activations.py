"""What the layers of a network answer to a picture."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from impasto.losses import capture
from impasto.visualization.drawing import Grid, grid, panel, unit
from impasto.visualization.model import Model
from impasto.visualization.registry import Refused, technique
from impasto.visualization.result import Result

STRIP = 16
"""Maps of each layer in the film strip."""


@technique("V04", "activations")
def activation_maps(
    model: Model,
    picture: Tensor,
    *,
    layer: str = "",
    scale: Literal["map", "shared", "percentile", "sqrt"] = "map",
    order: Literal["channel", "mean"] = "channel",
    top: int = 0,
) -> Result:
    """Every channel of a layer as a grey picture, and a film strip of the whole network.

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        layer: Its name, name@2 (its second call) or name:in (what goes into it); empty for the middle stage.
        scale: Black to white: each map's least to greatest value; the layer's; the layer's up to the 99th percentile;
            the layer's, of square roots with their sign.
        order: Of the maps: as in the network, or the strongest mean first.
        top: Only so many maps; 0 for all.

    Returns:
        A `Result` with the images ``maps`` and ``strip``. ``data`` has the grid and, for each map shown, its channel,
        share of exact zeros, mean, maximum and scale (``low`` is black, ``high`` white), the share of zeros in the
        layer, and the channels that are 0 everywhere.

    Raises:
        Refused: a layer that gives no maps and no numbers.
        WrongCall: an unknown layer.
    """
    stages = model.stages()
    layer = layer or (stages[len(stages) // 2] if stages else "")
    with torch.no_grad():
        found = capture(model, list(dict.fromkeys([*stages, layer])))(picture)
    maps = _maps(found[layer], layer)
    means = maps.mean((1, 2))
    chosen = means.argsort(descending=True, stable=True) if order == "mean" else torch.arange(len(maps))
    chosen = chosen[: top or None]
    drawn, low, high = _drawn(maps[chosen], scale)
    zeros = (maps == 0).float().mean((1, 2))
    channels = [
        {
            "channel": channel,
            "zeros": float(zeros[channel]),
            "mean": float(means[channel]),
            "max": float(maps[channel].max()),
            "low": float(low[place]),
            "high": float(high[place]),
        }
        for place, channel in enumerate(chosen.tolist())
    ]
    dead = (zeros == 1).nonzero().flatten().tolist()
    share = float((maps == 0).double().mean())
    data = {
        "layer": layer,
        "shape": list(maps.shape),
        "scale": scale,
        "grid": drawn.data(),
        "zeros": share,
        "dead": dead,
        "channels": channels,
    }
    strip, data["strip"] = _strip({name: found[name] for name in stages}, scale)
    caption = (
        f"{len(chosen)} of {len(maps)} maps of {layer}, {_SCALES[scale]}, from {float(maps.min()):.3g} to "
        f"{float(maps.max()):.3g}; {share:.1%} exact zeros, {len(dead)} channels 0 everywhere."
    )
    return Result({"maps": drawn.image} | strip, data, caption=caption)


_SCALES = {
    "map": "each from its least value (black) to its greatest (white)",
    "shared": "all on one scale",
    "percentile": "all on one scale up to the 99th percentile",
    "sqrt": "square roots on one scale",
}


def _maps(activation: Tensor, layer: str) -> Tensor:
    """(C, h, w) of an activation (1, C, h, w), or (C, 1, 1) of one (1, C)."""
    if activation.ndim == 2:
        activation = activation[:, :, None, None]
    if activation.ndim != 4 or len(activation) != 1:
        raise Refused(
            f"activation maps: {layer} gives shape {tuple(activation.shape)}, expected (1, C, h, w) or (1, C)"
        )
    return activation[0].float().cpu()


def _drawn(maps: Tensor, scale: str) -> tuple[Grid, Tensor, Tensor]:
    """The grid of maps (C, h, w), and what is black and what is white in each."""
    if scale == "sqrt":
        maps = maps.sign() * maps.abs().sqrt()
    if scale == "map":
        low, high = maps.amin((1, 2)), maps.amax((1, 2))
    else:
        top = torch.tensor(np.percentile(maps, 99)).float() if scale == "percentile" else maps.max()
        low, high = maps.min().expand(len(maps)), top.expand(len(maps))
    return grid(unit(maps, low[:, None, None], high[:, None, None])[:, None]), low, high


def _strip(found: dict[str, Tensor], scale: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The strongest maps of each layer in the order of the network, as one picture; and each layer's zeros."""
    pictures, notes, zeros = {}, {}, {}
    for name, activation in found.items():
        maps = _maps(activation, name)
        strongest = maps.mean((1, 2)).argsort(descending=True, stable=True)[:STRIP]
        pictures[name] = _drawn(maps[strongest], scale)[0].image.resize((264, 264))
        zeros[name] = float((maps == 0).double().mean())
        notes[name] = f"{'x'.join(map(str, maps.shape))}\n{zeros[name]:.0%} zeros"
    return ({"strip": panel(pictures, notes)} if pictures else {}), zeros
