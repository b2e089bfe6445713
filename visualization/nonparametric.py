"""Textures without a network: pixels of a picture, put where their surroundings fit."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from impasto.errors import WrongCall
from impasto.images import MIN_SIDE
from impasto.visualization.correlations import best_shift, correlation_length
from impasto.visualization.drawing import panel
from impasto.visualization.growth import SEED, Growth, Raster
from impasto.visualization.inputs import Whole
from impasto.visualization.model import Model
from impasto.visualization.neighbourhoods import rows_of
from impasto.visualization.progress import tell, track
from impasto.visualization.pyramid import resize
from impasto.visualization.registry import technique
from impasto.visualization.result import Result
from impasto.visualization.scene import fit_within, to_image

SHOWN = 192
"""Pixels to which the sheet enlarges a picture's side, as near as a whole factor comes."""


@technique("V31", "synthesis")
def efros_leung(
    model: Model,
    picture: Whole,
    *,
    side: int = 96,
    source: int = 64,
    window: int = 11,
    tolerance: float = 0.1,
    frames: int = 32,
    seed: int = 0,
) -> Result:
    """A texture grown pixel by pixel from a seed, each a pixel of the source with like surroundings; no network.

    From 3 x 3 pixels of the source outwards, those with most neighbours first: a pixel's neighbourhood is compared
    where it is filled, weighted by a Gaussian of standard deviation window / 6.4, with every one in the source that
    does not reach over its edge, and one of those at most 1 + tolerance times as far as the nearest is drawn.

    Source: Efros and Leung 1999, and their pseudocode (MaxErrThreshold 0.3, raised by 1.1 where nothing fits better).
    The model is not used, but for the size at which the picture is read.

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        side: Height and width of the texture in pixels.
        source: Long side in pixels that the picture is made smaller to, if it is larger. The time grows with its area.
        window: Height and width of a neighbourhood, odd: as large as what is regular in the texture.
        tolerance: How much worse than the best fit is as good.
        frames: Pictures of the growth to keep.
        seed: Of what is drawn.

    Returns:
        A `Result` with the images ``efros_leung`` (source, texture, and where its pixels come from), ``texture`` and
        ``origins`` (red: column, green: row in the source). ``data`` has the self-checks of `wei_levoy`, ``waited``
        (the final error threshold) and ``least_distance`` (the mean of what the best fits missed by).

    Raises:
        WrongCall: a window that is even or larger than the source, or other numbers that cannot be.
    """
    shown = shrunk(picture, source)
    _check(shown, side, window, frames)
    if not tolerance >= 0:
        raise WrongCall(f"tolerance: got {tolerance}, expected 0 or more")
    growth = Growth(shown, side, window, tolerance, torch.Generator().manual_seed(seed))
    total = side**2 - SEED**2
    kept = []
    for done, _ in enumerate(track(growth.run(), total, "pixels"), start=1):
        if frames * done // total > frames * (done - 1) // total:
            kept.append(to_image(growth.picture()))
    data = {
        "window": window,
        "tolerance": tolerance,
        "waited": growth.max_error,
        "least_distance": growth.least / max(1, total),
    }
    return _result("efros_leung", shown, growth.origins, kept, data | {"seed": seed})


@technique("V31", "synthesis")
def wei_levoy(
    model: Model,
    picture: Whole,
    *,
    side: int = 128,
    source: int = 64,
    window: int = 7,
    parents: int = 3,
    levels: int = 3,
    passes: int = 2,
    frames: int = 32,
    seed: int = 0,
) -> Result:
    """A texture that tiles, in reading order from coarse to fine, each pixel the best fit to those before; no network.

    Noise with the source's histogram, on a torus, is replaced level by level of a pyramid: each pixel by the one of the
    source whose causal neighbourhood (the rows above, and what is left of it), together with the square around its
    parent one level coarser, is nearest. Every neighbourhood of the source that does not reach over its edge is
    compared (the paper's exhaustive search, not its tree).

    Source: Wei and Levoy 2000, sections 2 and 3. Differs from it in a second pass over each level, which compares the
    whole window, as the paper does where it fills holes: the first rows were fitted to noise, and without it a seam is
    to be seen. The model is not used, but for the size at which the picture is read.

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        side: Height and width of the texture in pixels, a multiple of 2^(levels - 1).
        source: Long side in pixels that the picture is made smaller to, if it is larger. The time grows with its area.
        window: Height and width of the window whose causal half is a neighbourhood, odd.
        parents: Height and width of the square around the parent, odd.
        levels: Of the pyramid, each half the size of the next.
        passes: Over each level; 1 for the paper's way.
        frames: Pictures of the growth to keep.
        seed: Of the noise.

    Returns:
        A `Result` with the images ``wei_levoy`` (source, texture, and where its pixels come from), ``texture``,
        ``tiled`` (twice in each direction) and ``origins`` (red: column, green: row in the source). ``data`` has
        ``foreign_colours`` (pixels whose colour the source does not have: 0), ``continued`` (the share of neighbouring
        pixels that are neighbours in the source too: near 1 it is copied in pieces), ``ncc`` (the largest correlation
        with the source over all shifts), ``length`` and ``source_length`` (of their autocorrelation, in pixels), and
        ``seam`` (the mean difference of neighbours across the seam, as a multiple of that inside).

    Raises:
        WrongCall: a window that is even or larger than the coarsest source, or other numbers that cannot be.
    """
    shown, step = shrunk(picture, source), 2 ** max(0, levels - 1)
    height, width = (length // step * step for length in shown.shape[2:])
    shown = shown[..., :height, :width]
    if levels < 1 or passes < 1 or side % step:
        raise WrongCall(
            f"wei_levoy: got levels {levels}, passes {passes}, side {side}; expected levels >= 1, passes >= 1, and a "
            f"side that is a multiple of {step} (2^(levels - 1))"
        )
    _check(shown, side, window, frames, step)
    _check_window("parents", parents, shown, step, least=1)
    draw = torch.Generator().manual_seed(seed)
    total = passes * sum(side >> level for level in range(levels))
    grown: Raster | None = None
    kept: list[Image.Image] = []
    done = 0
    for level in reversed(range(levels)):
        small = resize(shown, (height >> level, width >> level)).clamp(0, 1)
        grown = Raster(small, side >> level, window, draw, grown, parents)
        for _ in grown.run(passes):
            done += 1
            tell(done, total, "rows")
            if frames * done // total > frames * (done - 1) // total:
                kept.append(to_image(F.interpolate(grown.picture(), (side, side))))
    assert grown is not None
    data = {"window": window, "parents": parents, "levels": levels, "passes": passes, "seed": seed}
    return _result("wei_levoy", shown, grown.origins, kept, data)


def shrunk(picture: Tensor, long_side: int) -> Tensor:
    """A picture (1, 3, H, W) in colours of 8 bits, on the CPU, made smaller if its long side is longer than this."""
    if long_side < MIN_SIDE:
        raise WrongCall(f"source: got {long_side}, expected {MIN_SIDE} pixels or more")
    height, width = picture.shape[2:]
    size = fit_within(height, width, min(long_side, max(height, width)))
    return resize(picture.detach().cpu().float(), size).clamp(0, 1).mul(255).round().div(255)


def _check(source: Tensor, side: int, window: int, frames: int, step: int = 1) -> None:
    if side < MIN_SIDE or frames < 0:
        raise WrongCall(f"got side {side}, frames {frames}; expected side >= {MIN_SIDE}, frames >= 0")
    _check_window("window", window, source, step)


def _check_window(name: str, window: int, source: Tensor, step: int, least: int = 3) -> None:
    short = min(source.shape[2:]) // step
    if window < least or window % 2 == 0 or window > short:
        where = f"the short side of the source{f' at its coarsest (1/{step})' if step > 1 else ''}"
        raise WrongCall(f"{name}: got {window}, expected an odd number from {least} to {short} pixels, {where}")


def _result(name: str, source: Tensor, origins: Tensor, frames: list[Image.Image], settings: dict[str, Any]) -> Result:
    """What both show and check: the texture is made of its origins, so its colours are the source's."""
    height, width = source.shape[2:]
    texture = rows_of(source).flatten(0, 1)[origins].permute(2, 0, 1)[None]
    come_from = torch.stack((origins % width / width, origins // width / height, torch.full(origins.shape, 0.5)))[None]
    drawn = {"source": to_image(source), "texture": to_image(texture), "origins": to_image(come_from)}
    known = {colour for _, colour in drawn["source"].getcolors(height * width) or ()}
    pixels = drawn["texture"].getcolors(origins.numel()) or ()
    ncc, _ = best_shift(texture, source)
    data = settings | {
        "source_size": [height, width],
        "size": list(origins.shape),
        "foreign_colours": sum(count for count, colour in pixels if colour not in known),
        "continued": continued(origins, width),
        "ncc": ncc,
        "length": correlation_length(texture),
        "source_length": correlation_length(source),
        "seam": seam(texture),
    }
    caption = (
        f"{origins.shape[1]} x {origins.shape[0]} pixels, all of them of the source ({width} x {height}); "
        f"{data['continued']:.0%} of neighbours are neighbours there too. No network is used."
    )
    tiled = {"tiled": to_image(texture.repeat(1, 1, 2, 2))} if name == "wei_levoy" else {}
    enlarged = {title: _enlarged(image) for title, image in drawn.items()}
    return Result({name: panel(enlarged), **drawn, **tiled}, data, frames, caption)


def _enlarged(image: Image.Image) -> Image.Image:
    factor = max(1, round(SHOWN / max(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def continued(origins: Tensor, width: int) -> float:
    """The share of pairs of neighbours whose origins (in reading order of a source so wide) are neighbours too."""
    across = origins[:, 1:] - origins[:, :-1] == 1
    down = origins[1:] - origins[:-1] == width
    return float(torch.cat((across.flatten(), down.flatten())).double().mean())


def seam(texture: Tensor) -> float:
    """The mean difference of neighbours across the edges of a picture that is put beside itself, by that inside."""
    ratios = []
    for axis in (2, 3):
        steps = (texture - texture.roll(1, axis)).abs().mean((0, 1, 5 - axis))
        ratios.append((float(steps[0]), float(steps[1:].mean())))
    across, inside = (sum(values) for values in zip(*ratios, strict=True))
    return across / inside if inside else float(across > 0)
