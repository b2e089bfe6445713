"""The principal components of what a network says of photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from impasto.errors import WrongCall
from impasto.sheets import sheet
from impasto.visualization.codes import code_layer, expect, labels_of, read_codes
from impasto.visualization.inputs import Pictures
from impasto.visualization.layouts import by_chance, scattered, tile, trustworthiness
from impasto.visualization.model import Model
from impasto.visualization.plots import plot
from impasto.visualization.registry import Refused, technique
from impasto.visualization.result import Result

SHOWN = 50
"""Components in the scree plot."""

ENDS = 5
"""Photos at each end of a component."""


@dataclass(frozen=True)
class Components:
    """The principal components of N vectors, K = min(N, D) of them, those of most variance first.

    Attributes:
        mean: (D,).
        axes: (K, D), orthonormal; of each the entry of the largest magnitude is positive.
        places: (N, K); ``mean + places @ axes`` are the vectors.
        shares: (K,), of the variance; they sum to 1.
    """

    mean: Tensor
    axes: Tensor
    places: Tensor
    shares: Tensor


def principal_components(vectors: Tensor) -> Components:
    """By singular values.

    Args:
        vectors: (N, D), float64, not all the same.

    Raises:
        Refused: vectors that are all the same.
    """
    mean = vectors.mean(0)
    centred = vectors - mean
    if float(centred.abs().max()) <= 1e-9 * float(vectors.abs().max()):
        raise Refused("all pictures have the same features: nothing tells them apart; see --layer, or other pictures")
    left, values, axes = torch.linalg.svd(centred, full_matrices=False)
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    signs = torch.where(largest < 0, -1.0, 1.0).to(axes)
    return Components(mean, axes * signs, left * values * signs.T, values.square() / values.square().sum())


@technique("V09", "representations")
def pca(
    model: Model,
    pictures: Pictures,
    *,
    layer: str = "",
    distance: Literal["cosine", "l2", "pixels"] = "cosine",
    top: int = 4,
    side: int = 2000,
    thumbnail: int = 0,
    cache: str = "",
) -> Result:
    """Photos in the plane of the two directions in which their features differ most, and what those directions mean.

    Source: Pearson 1901; by singular values of the centred features.

    Args:
        pictures: Photos; of several folders (up to 8) each has a colour.
        layer: As capture has it, of maps the means; empty for what the last linear layer takes.
        distance: Of what the components are: features of length 1, features as they are, or 32 x 32 pixels.
        top: Components whose ends are drawn.
        side: Longer side of the scatter picture in pixels.
        thumbnail: Height and width of a photo in it; 0 for what leaves them room.
        cache: A folder that remembers the features, for the same photos and network.

    Returns:
        A `Result` with the images ``scatter`` (first component to the right, second up, one scale), ``scree`` (the
        variance that each of the first 50 components holds, and all so far) and ``ends`` (the photos at both ends of
        each of the first components). ``data`` has ``points`` (``path``, ``label``, ``x``, ``y``), the ``shares`` of
        variance, and the trustworthiness (10 neighbours) of the plane and of places by chance.

    Raises:
        Refused: a layer that gives neither maps nor numbers, or the same numbers for all pictures.
        WrongCall: fewer than 3 photos, an unknown layer, or sizes that cannot be.
        PictureError: a file that cannot be read.
        MissingExtra: scikit-learn is missing.
    """
    expect("pca", pictures, 3)
    if top < 1 or side < 1 or thumbnail < 0:
        raise WrongCall(f"pca: got top {top}, side {side} and thumbnail {thumbnail}, expected 1, 1 and 0 or more")
    layer, labels = code_layer(model, layer), labels_of(pictures)
    vectors = read_codes(model, pictures, layer, cache=cache).vectors(distance)
    found = principal_components(vectors)
    plane = torch.nn.functional.pad(found.places, (0, 2))[:, :2]
    data: dict[str, Any] = {
        "layer": layer,
        "distance": distance,
        "points": points(pictures, labels, plane),
        "shares": found.shares.tolist(),
        "trustworthiness": trusts(vectors, pca=plane),
    }
    images = {
        "scatter": scattered(model, pictures, plane, labels=labels, side=side, thumbnail=thumbnail),
        "scree": _scree(found.shares),
        "ends": _ends(model, pictures, found, top),
    }
    trust = data["trustworthiness"]
    caption = (
        f"{len(pictures)} photos in the plane of the first two principal components of {of_what(layer, distance)}, "
        f"which hold {float(found.shares[:2].sum()):.0%} of the variance; trustworthiness {trust['pca']:.2f} (by "
        f"chance {trust['chance']:.2f})."
    )
    return Result(images, data, caption=caption)


def points(pictures: Pictures, labels: tuple[str, ...], places: Tensor) -> list[dict[str, Any]]:
    """For a result's data: where each photo is."""
    return [
        {"path": str(path), "label": labels[index] if labels else None, "x": x, "y": y}
        for index, (path, (x, y)) in enumerate(zip(pictures.paths, places.tolist(), strict=True))
    ]


def trusts(vectors: Tensor, **planes: Tensor) -> dict[str, float]:
    """The trustworthiness of planes by name, and of places by chance."""
    return {name: trustworthiness(vectors, plane) for name, plane in planes.items()} | {
        "chance": trustworthiness(vectors, by_chance(len(vectors)))
    }


def of_what(layer: str, distance: str) -> str:
    """What is compared, in words."""
    features = f"the features of {layer}"
    return {"cosine": f"{features} at length 1", "l2": features, "pixels": "32 x 32 pixels"}[distance]


def _scree(shares: Tensor) -> Image.Image:
    """The first components' shares, and their sums, each on its own scale."""
    shown = shares[:SHOWN]
    plots = [
        plot({"": [(start + at, float(value)) for at, value in enumerate(values)]}, x="component", y="share")
        for values, start in ((shown, 1), (torch.cat([torch.zeros_like(shown[:1]), shown.cumsum(0)]), 0))
    ]
    return sheet([plots], titles=["of each component", "of all so far"])


def _ends(model: Model, pictures: Pictures, found: Components, top: int, side: int = 112) -> Image.Image:
    """A row for each component: the photos of the lowest values, a gap, those of the highest."""
    gap = Image.new("RGB", (side // 8, 1), "white")
    rows, captions, labels = [], [], []
    count = min(ENDS, len(pictures) // 2)
    for component in range(min(top, found.places.shape[1])):
        values = found.places[:, component]
        order = values.argsort(stable=True).tolist()
        low, high = order[:count], order[-count:]
        tiles = [[tile(model, pictures.paths[index], side) for index in end] for end in (low, high)]
        texts = [[f"{float(values[index]):.3g}" for index in end] for end in (low, high)]
        rows.append([*tiles[0], gap, *tiles[1]])
        labels.append([*texts[0], "", *texts[1]])
        captions.append(f"component {component + 1}: {float(found.shares[component]):.1%} of the variance")
    return sheet(rows, captions=captions, labels=labels)
