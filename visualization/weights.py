"""A network's weights as pictures."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from impasto.errors import unknown_name
from impasto.visualization.drawing import GREY, Grid, grid, unit
from impasto.visualization.model import Model
from impasto.visualization.registry import Refused, technique
from impasto.visualization.result import Result

DEAD = 1e-3
"""A filter whose norm is below this part of the largest norm is reported as dead."""


@technique("V01", "weights")
def filters(model: Model, *, layer: str = "", scale: Literal["filter", "shared"] = "filter", side: int = 32) -> Result:
    """The filters of the first convolution, as small colour pictures.

    Source: Krizhevsky et al. 2012, figure 3.

    Args:
        layer: A convolution that takes a picture's three channels; empty for the first.
        scale: Each filter from its least weight (black) to its greatest; or all alike, 0 mid-grey.
        side: Least height and width of a tile in pixels.

    Returns:
        A `Result` with the image ``filters``, channels as RGB whatever order the network takes. ``data`` has the grid,
        each filter's scale (``low`` is black, ``high`` white) and norm, the dead ones, the share of filters that are
        ``oriented``, and the largest error of a weight read back from the picture, as a part of its filter's range.

    Raises:
        Refused: no such convolution.
        WrongCall: an unknown layer or scale.
    """
    name, weights = _colour_convolution(model, layer)
    if scale == "filter":
        low, high = weights.amin((1, 2, 3)), weights.amax((1, 2, 3))
    else:
        high = weights.abs().max().expand(len(weights))
        low = -high
    drawn = grid(unit(weights, low.view(-1, 1, 1, 1), high.view(-1, 1, 1, 1)), side=side)
    norms = weights.flatten(1).norm(dim=1)
    dead = (norms <= DEAD * norms.max()).nonzero().flatten().tolist()
    share = oriented(weights).float().mean().item()
    data = {
        "layer": name,
        "scale": scale,
        "grid": drawn.data(),
        "low": low.tolist(),
        "high": high.tolist(),
        "norms": norms.tolist(),
        "dead": dead,
        "oriented": share,
        "read_back_error": _read_back_error(drawn, weights, low, high),
    }
    size = "x".join(map(str, weights.shape))
    caption = (
        f"The {len(weights)} filters of {name} ({size}), {_scale_text(scale, low, high)}; {len(dead)} dead, "
        f"{share:.0%} of them oriented; norms {norms.min():.3g} to {norms.max():.3g}."
    )
    return Result({"filters": drawn.image}, data, caption=caption)


def _scale_text(scale: str, low: Tensor, high: Tensor) -> str:
    if scale == "filter":
        return "each from its least weight (black) to its greatest (white)"
    return f"all from {float(low[0]):.3g} (black) to {float(high[0]):.3g} (white)"


def _colour_convolution(model: Model, layer: str) -> tuple[str, Tensor]:
    """The name and the weights (N, 3, h, w), RGB, of a convolution that takes a picture's channels."""
    modules = dict(model.named_modules())
    found = {
        name: module.weight.detach()
        for name, module in modules.items()
        if isinstance(module, nn.Conv2d) and module.in_channels == 3 and module.groups == 1
    }
    if layer and layer not in modules:
        raise unknown_name("layer", layer, found)
    if not found or (layer and layer not in found):
        what = f"{layer} is no convolution" if layer else "this network has no convolution"
        raise Refused(f"filters: {what} of three channels, so its weights are no colours; see deep-filters")
    name = layer or next(iter(found))
    weights = found[name].float().cpu()
    return name, weights.flip(1) if model.preprocessing.channels == "bgr" else weights


def oriented(weights: Tensor) -> Tensor:
    """Which filters prefer an orientation, as edges and Gabors do and blobs and noise do not.

    Those whose spectrum (power P summed over channels, 32 x 32 points) is highest elsewhere than at frequency 0, and
    for which |sum P exp(2 i angle)| / sum P over all other frequencies up to half a cycle a pixel is more than 0.5.

    Args:
        weights: (N, C, h, w).

    Returns:
        (N,), bool.
    """
    power = torch.fft.fft2(weights.double(), s=(32, 32)).abs().square().sum(1)
    frequencies = torch.fft.fftfreq(32, dtype=torch.float64)
    angle = torch.atan2(frequencies[:, None], frequencies[None, :])
    radius = torch.hypot(frequencies[:, None], frequencies[None, :])
    elsewhere = power * ((radius > 0) & (radius <= 0.5))
    total = elsewhere.sum((1, 2)).clamp(min=1e-300)
    selectivity = (elsewhere * torch.exp(2j * angle)).sum((1, 2)).abs() / total
    prefers: Tensor = (elsewhere.flatten(1).amax(1) > power[:, 0, 0]) & (selectivity > 0.5)
    return prefers


def _read_back_error(drawn: Grid, weights: Tensor, low: Tensor, high: Tensor) -> float:
    """The largest difference between a weight and the same read from the picture, as a part of the range."""
    worst = 0.0
    for index, (weight, bottom, top) in enumerate(zip(weights, low, high, strict=True)):
        tile = torch.tensor(list(drawn.image.crop(drawn.box(index)).tobytes()), dtype=torch.float64)
        tile = tile.view(drawn.height, drawn.width, 3)[:: drawn.zoom, :: drawn.zoom].permute(2, 0, 1) / 255
        expected = (weight - bottom) / (top - bottom) if top > bottom else torch.full_like(weight, GREY / 255)
        worst = max(worst, float((tile - expected).abs().max()))
    return worst
