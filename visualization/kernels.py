"""Weights beyond the first layer, and what the principal components of photos' patches look like beside filters."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from impasto.errors import WrongCall, unknown_name
from impasto.visualization.drawing import Grid, grid, panel, unit
from impasto.visualization.inputs import Pictures
from impasto.visualization.model import Model
from impasto.visualization.plots import plot
from impasto.visualization.progress import track
from impasto.visualization.registry import Refused, technique
from impasto.visualization.result import Result
from impasto.visualization.weights import filters


@technique("V02", "weights")
def deep_filters(
    model: Model, *, layer: str = "", max_out: int = 32, max_in: int = 32, page: int = 1, side: int = 32
) -> Result:
    """The weights of a deeper convolution: a row of grey tiles for each filter, one tile for each map it reads.

    The strongest filters are the first rows, the strongest inputs the first columns (sums of absolute weights). A
    depthwise convolution's filters read one map each and are drawn as a square instead.

    Source: the layout of ConvNetJS (Karpathy).

    Args:
        layer: A convolution; empty for the second, or the first after it that is neither 1x1 nor grouped.
        max_out: Rows of a page.
        max_in: Columns of a page.
        page: Which part of the weights, from 1: first all columns of the strongest filters, then the next filters.
        side: Least height and width of a tile in pixels.

    Returns:
        A `Result` with the image ``weights``: a picture of (h zoom + 1) rows + 1 by (w zoom + 1) columns + 1 pixels.
        ``data`` has the grid; for each row its ``filter``, ``norm`` (L1) and ``limit`` (white; black is -limit, 0
        mid-grey); the ``inputs`` (within a filter's group) of the columns; the number of ``pages``; and the largest
        error of a weight read back from the picture, as a part of its row's range.

    Raises:
        Refused: no such convolution.
        WrongCall: an unknown layer, a page that is not there, or less than one row or column.
    """
    name, weights = _convolution(model, layer)
    if max_out < 1 or max_in < 1:
        raise WrongCall(f"deep filters: got {max_out} rows and {max_in} columns, expected 1 or more of each")
    norms = weights.abs().sum((1, 2, 3))
    rows = torch.split(norms.argsort(descending=True, stable=True), max_out)
    columns = torch.split(weights.abs().sum((0, 2, 3)).argsort(descending=True, stable=True), max_in)
    pages = len(rows) * len(columns)
    if not 1 <= page <= pages:
        raise WrongCall(f"deep filters: got page {page}, expected 1 to {pages}")
    chosen, inputs = rows[(page - 1) // len(columns)], columns[(page - 1) % len(columns)]
    limits = weights.abs().amax((1, 2, 3))[chosen]
    shown = weights[chosen][:, inputs]
    tiles = unit(shown, -limits.view(-1, 1, 1, 1), limits.view(-1, 1, 1, 1)).flatten(0, 1)[:, None]
    drawn = grid(tiles, side=side, columns=len(inputs) if weights.shape[1] > 1 else None)
    data = {
        "layer": name,
        "shape": list(weights.shape),
        "grid": drawn.data(),
        "rows": [
            {"filter": index, "norm": float(norms[index]), "limit": float(limit)}
            for index, limit in zip(chosen.tolist(), limits, strict=True)
        ],
        "inputs": inputs.tolist(),
        "page": page,
        "pages": pages,
        "read_back_error": _read_back_error(drawn, tiles),
    }
    caption = (
        f"{len(chosen)} of the {len(weights)} filters of {name} ({'x'.join(map(str, weights.shape))}), the strongest "
        f"first, {len(inputs)} of {weights.shape[1]} inputs each (page {page} of {pages}); each filter on its own "
        f"scale, 0 mid-grey, white at most {float(limits.max()):.3g}. A tile weighs a map of the layer below and not a "
        "colour, so it says little without that map."
    )
    return Result({"weights": drawn.image}, data, caption=caption)


def _convolution(model: Model, layer: str) -> tuple[str, Tensor]:
    """The name and the weights (N, C, h, w) of a convolution after the first."""
    modules = dict(model.named_modules())
    found = {name: module for name, module in modules.items() if isinstance(module, nn.Conv2d)}
    if layer and layer not in modules:
        raise unknown_name("layer", layer, found)
    if layer and layer not in found:
        kind = type(modules[layer]).__name__
        raise Refused(f"deep filters: {layer} is a {kind}; expected a convolution, whose weights have places")
    later = list(found)[1:]
    if not layer and not later:
        raise Refused("deep filters: this network has no second convolution; for the first see filters")
    full = [name for name in later if found[name].groups == 1 and max(found[name].kernel_size) > 1]
    name = layer or (full or later)[0]
    return name, found[name].weight.detach().float().cpu()


def _read_back_error(drawn: Grid, tiles: Tensor) -> float:
    """The largest difference between a value of the tiles (N, C, h, w), in [0, 1], and the same in the picture."""
    pixels = np.asarray(drawn.image).astype(np.float64) / 255
    worst = 0.0
    for index, tile in enumerate(tiles.double().permute(0, 2, 3, 1).numpy()):
        left, top, right, bottom = drawn.box(index)
        worst = max(worst, float(np.abs(pixels[top : bottom : drawn.zoom, left : right : drawn.zoom] - tile).max()))
    return worst


@technique("V03", "weights")
def patch_pca(
    model: Model,
    pictures: Pictures,
    *,
    patch: int = 11,
    count: int = 20_000,
    top: int = 64,
    seed: int = 0,
) -> Result:
    """Why learned filters are not PCA: the principal components of photos' patches, beside the first layer's filters.

    Components are waves that fill the patch, each of one frequency, since photos look alike wherever one cuts them;
    learned filters are edges and blobs somewhere in it.

    Source: Olshausen and Field 1996, figure 1; eigenvectors of the patches' covariance, their mean subtracted.

    Args:
        pictures: Photos, as the network reads them.
        patch: Height and width of a patch.
        count: Patches, as many from each photo.
        top: Components that are drawn.
        seed: Of the patches' places.

    Returns:
        A `Result` with the images ``components``, ``variance`` (what the first explain together) and, if the network
        has filters of three channels, ``beside`` with both. ``data`` has the grid and, of each component drawn, its
        ``variance``, the part ``explained``, ``limit`` (white; black is -limit, 0 mid-grey), ``concentration`` (part of
        its energy at its strongest frequency of the cosine transform) and ``symmetry`` (the lesser of |<v, flipped v>|
        left to right and top to bottom; 1 for waves along or across); ``concentration`` of the first eight that are
        waves; ``orthonormal_error``; and the largest error of a value read back from the picture.

    Raises:
        Refused: photos of one colour.
        WrongCall: a patch that is larger than what the network reads or of less than 2 pixels, fewer than 2 patches, no
            component.
        PictureError: a file that cannot be read.
    """
    if not 2 <= patch <= model.size or count < 2 or top < 1:
        raise WrongCall(
            f"patch pca: got patch {patch}, count {count}, top {top}; expected 2 to {model.size}, 2 or more, 1 or more"
        )
    variances, vectors = principal_components(_patches(model, pictures, patch, count, seed))
    total = float(variances.sum())
    if total <= 1e-12:
        raise Refused("patch pca: the pictures are of one colour; give it photos")
    components = vectors[:top].view(-1, 3, patch, patch)
    limits = components.abs().amax((1, 2, 3))
    tiles = unit(components, -limits.view(-1, 1, 1, 1), limits.view(-1, 1, 1, 1))
    drawn = grid(tiles, side=32)
    concentrations, waves = concentration(components)
    facts = zip(variances[:top], limits, concentrations, symmetry(components), strict=True)
    share = (variances.cumsum(0) / total)[: len(components)].tolist()
    data: dict[str, Any] = {
        "patches": count,
        "patch": patch,
        "grid": drawn.data(),
        "components": [
            {
                "variance": float(variance),
                "explained": float(variance) / total,
                "limit": float(limit),
                "concentration": float(peak),
                "symmetry": float(mirrored),
            }
            for variance, limit, peak, mirrored in facts
        ],
        "concentration": float(concentrations[waves][:8].mean()) if waves.any() else 0.0,
        "orthonormal_error": float((vectors @ vectors.T - torch.eye(len(vectors))).abs().max()),
        "read_back_error": _read_back_error(drawn, tiles),
    }
    caption = (
        f"The first {len(components)} principal components of {count} patches of {patch} x {patch} pixels explain "
        f"{share[-1]:.1%} of their variance; {data['concentration']:.0%} of the energy of the first eight waves is at "
        "one frequency each: they fill the patch, where learned filters are edges and blobs at one place. Each "
        "from minus its largest magnitude (black) to it (white)."
    )
    curve = plot({"": list(enumerate(share, start=1))}, x="components", y="explained")
    images = {"components": drawn.image} | _beside(model, drawn) | {"variance": curve}
    return Result(images, data, caption=caption)


def _beside(model: Model, components: Grid) -> dict[str, Image.Image]:
    try:
        learned = filters(model)
    except Refused:
        return {}
    names = "principal components", f"filters of {learned.data['layer']}"
    return {"beside": panel(dict(zip(names, (components.image, learned.images["filters"]), strict=True)))}


def _patches(model: Model, pictures: Pictures, patch: int, count: int, seed: int) -> Tensor:
    """Patches from places drawn evenly, (count, 3 patch patch), as many from each photo (to one)."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    batches = track(pictures.batches(model, 1), len(pictures), "photos")
    for (index,), photo in batches:
        here = count * (index + 1) // len(pictures) - count * index // len(pictures)
        top, left = torch.randint(0, model.size - patch + 1, (2, here, 1, 1), generator=generator)
        steps = torch.arange(patch)
        cut = photo[0].cpu()[:, top + steps[:, None], left + steps]
        found.append(cut.permute(1, 0, 2, 3).flatten(1))
    return torch.cat(found)


def principal_components(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Variances (D,) along the principal components of rows (N, D), the greatest first, and these as rows (D, D).

    Of eigenvectors of the covariance with N - 1, in float64; the entry of largest magnitude is positive.
    """
    centred = rows.double() - rows.double().mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / (len(rows) - 1))
    vectors = vectors.flip(1).T
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return values.flip(0).clamp(min=0), vectors * largest.sign()


def concentration(patches: Tensor) -> tuple[Tensor, Tensor]:
    """How near patches (N, C, k, k) are to single waves.

    Returns:
        (N,): the part of the energy (over channels) that one frequency of the cosine transform (DCT-II) has; and (N,),
        bool: this frequency is not 0.
    """
    side = patches.shape[-1]
    places = torch.arange(side, dtype=torch.float64)
    cosines = torch.cos(math.pi / side * places[:, None] * (places + 0.5)) * math.sqrt(2 / side)
    cosines[0] /= math.sqrt(2)
    energy = (cosines @ patches.double() @ cosines.T).square().sum(1).flatten(1)
    peak, where = energy.max(1)
    return peak / energy.sum(1).clamp(min=1e-300), where > 0


def symmetry(patches: Tensor) -> Tensor:
    """The lesser of |<v, v flipped>| / |v|^2 left to right and top to bottom of patches (N, C, k, k), as (N,)."""
    energy = patches.square().sum((1, 2, 3)).clamp(min=1e-300)
    flips: Iterable[int] = (2, 3)
    return torch.stack([(patches * patches.flip(axis)).sum((1, 2, 3)).abs() / energy for axis in flips]).amin(0)
