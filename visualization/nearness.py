"""Which photos are near one another, to a network and in pixels."""

from __future__ import annotations

from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from impasto.errors import WrongCall
from impasto.sheets import sheet
from impasto.visualization.codes import PIXELS, Codes, code_layer, encode, expect, labels_of, read_codes
from impasto.visualization.drawing import boxed
from impasto.visualization.inputs import Pictures
from impasto.visualization.layouts import tile
from impasto.visualization.model import Model
from impasto.visualization.registry import technique
from impasto.visualization.result import Result
from impasto.visualization.scene import to_image

SAME, OTHER = "#1e9e3c", "#d02a1e"
"""Frames of neighbours from the query's folder, and from another."""

BLOCK = 256
"""Queries whose distances are computed at once."""


@technique("V08", "representations")
def neighbours(
    model: Model,
    pictures: Pictures,
    *,
    query: Tensor | None = None,
    rows: int = 8,
    count: int = 5,
    layer: str = "",
    distance: Literal["cosine", "l2"] = "cosine",
    side: int = 112,
    cache: str = "",
) -> Result:
    """The photos nearest to a photo by a network's features, beside the nearest by pixels.

    Pixels are compared by L2 between pictures of 32 x 32. The photo itself and exact copies of it are no neighbours.
    As a check each query is mirrored: to features the nearest of all is then the query itself, to pixels rarely.

    Source: Krizhevsky et al. 2012, figure 4. Differs from it in that features are compared by their angle, since by L2
    those of small norm are near to everything; ``distance`` has L2 too.

    Args:
        pictures: Photos to search; if they are in several folders, a neighbour is framed green if its folder is the
            query's, red if not.
        query: A photo to find neighbours of; none for some of the photos themselves.
        rows: So many of the photos themselves, evenly spaced.
        count: Neighbours of each.
        layer: As capture has it, of maps the means; empty for what the last linear layer takes.
        distance: Between features: 1 - cosine of their angle, or L2.
        side: Height and width of a tile in pixels.
        cache: A folder that remembers the features, for the same photos and network.

    Returns:
        A `Result` with the image ``neighbours``: a query, its neighbours by features and by pixels in each row, their
        distances beneath. ``data`` has these ``rows`` (``path``, ``label`` (the folder, if there are several) and
        ``distance``); ``mirrored``: the share of queries that are found again from their mirror image; ``shared``: the
        share of neighbours by features that are also neighbours by pixels; and ``purity``, of photos in folders: the
        share of neighbours, of all photos, that are from the same folder, and what chance would give.

    Raises:
        Refused: a layer that gives neither maps nor numbers.
        WrongCall: fewer than 2 photos, an unknown layer, or less than one row, neighbour or pixel.
        PictureError: a file that cannot be read.
    """
    expect("neighbours", pictures, 2)
    if min(rows, count, side) < 1:
        raise WrongCall(f"neighbours: got rows {rows}, count {count} and side {side}, expected 1 or more of each")
    layer, labels = code_layer(model, layer), labels_of(pictures)
    codes = read_codes(model, pictures, layer, cache=cache)
    if query is None:
        chosen = torch.linspace(0, len(codes) - 1, min(rows, len(codes))).round().long().tolist()
        asked = torch.cat([model.read(pictures.paths[index]) for index in chosen])
        names = [(str(pictures.paths[index]), labels[index] if labels else None) for index in chosen]
    else:
        asked, names = query, [("query", None)]
    queries = encode(model, asked, layer)
    by_features = nearest(queries, codes, count, distance)
    by_pixels = nearest(queries, codes, count, "pixels")
    found = [
        {"path": path, "label": label}
        | {
            space: _facts(hits, row, pictures, labels)
            for space, hits in (("features", by_features), ("pixels", by_pixels))
        }
        for row, (path, label) in enumerate(names)
    ]
    data = {
        "layer": layer,
        "distance": distance,
        "pictures": len(codes),
        "rows": found,
        "mirrored": _mirrored(queries, encode(model, asked.flip(3), layer), codes, distance) if query is None else None,
        "shared": _shared(by_features[0], by_pixels[0], by_features[1].isfinite()),
        "purity": _purities(codes, labels, count, distance) if labels else None,
    }
    drawn = _drawn(model, asked, found, count, side)
    return Result({"neighbours": drawn}, data, caption=_caption(data, count))


def nearest(queries: Codes, codes: Codes, count: int, distance: str, *, copies: bool = False) -> tuple[Tensor, Tensor]:
    """The nearest pictures to each query, the nearest first; of equally near ones the first.

    Args:
        queries: M pictures.
        codes: the N pictures that are searched.
        count: of neighbours, k; at most N.
        distance: "cosine" (1 - cos), "l2" or "pixels" (L2), in float64.
        copies: also find pictures that are equal to the query in every pixel.

    Returns:
        Indices and distances, both (M, k); the distance is infinite where no picture is left.
    """
    asked, vectors = queries.vectors(distance), codes.vectors(distance)
    indices, distances = [], []
    for start in range(0, len(asked), BLOCK):
        block = slice(start, start + BLOCK)
        between = torch.cdist(asked[block], vectors)
        if not copies:
            between[queries.digests[block, None] == codes.digests] = torch.inf
        order = between.argsort(dim=1, stable=True)[:, :count]
        indices.append(order)
        distances.append(between.gather(1, order))
    lengths = torch.cat(distances)
    return torch.cat(indices), lengths.square() / 2 if distance == "cosine" else lengths


def purity(indices: Tensor, distances: Tensor, labels: tuple[str, ...]) -> float:
    """The share of neighbours (N, k) with the label of the picture whose neighbours they are."""
    numbers = _numbers(labels)
    found = distances.isfinite()
    same = (numbers[indices] == numbers[:, None]) & found
    return int(same.sum()) / max(1, int(found.sum()))


def _numbers(labels: tuple[str, ...]) -> Tensor:
    known = sorted(set(labels))
    return torch.tensor([known.index(label) for label in labels])


def _purities(codes: Codes, labels: tuple[str, ...], count: int, distance: str) -> dict[str, float]:
    sizes = _numbers(labels).bincount()
    return {
        "features": purity(*nearest(codes, codes, count, distance), labels),
        "pixels": purity(*nearest(codes, codes, count, "pixels"), labels),
        "chance": float((sizes * (sizes - 1)).sum()) / (len(codes) * (len(codes) - 1)),
    }


def _mirrored(queries: Codes, mirrors: Codes, codes: Codes, distance: str) -> dict[str, float]:
    """The share of queries that are the nearest picture to their own mirror image."""
    found = {}
    for space, way in (("features", distance), ("pixels", "pixels")):
        first = nearest(mirrors, codes, 1, way, copies=True)[0][:, 0]
        found[space] = float((codes.digests[first] == queries.digests).double().mean())
    return found


def _shared(ours: Tensor, theirs: Tensor, found: Tensor) -> float:
    same = (ours[:, :, None] == theirs[:, None, :]).any(2) & found
    return int(same.sum()) / max(1, int(found.sum()))


def _facts(hits: tuple[Tensor, Tensor], row: int, pictures: Pictures, labels: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {"path": str(pictures.paths[index]), "label": labels[index] if labels else None, "distance": length}
        for index, length in zip(hits[0][row].tolist(), hits[1][row].tolist(), strict=True)
        if length < float("inf")
    ]


def _drawn(model: Model, asked: Tensor, found: list[dict[str, Any]], count: int, side: int) -> Image.Image:
    """A row for each query: the query, a gap, its neighbours by features, a gap, its neighbours by pixels."""
    gap = Image.new("RGB", (max(1, side // 8), 1), "white")
    rows: list[list[Image.Image | None]] = []
    texts = []
    for picture, facts in zip(asked, found, strict=True):
        row: list[Image.Image | None] = [to_image(picture[None]).resize((side, side), Image.Resampling.LANCZOS)]
        text = [facts["label"] or ""]
        for space in ("features", "pixels"):
            empty = count - len(facts[space])
            row += [gap, *(_framed(tile(model, hit["path"], side), hit, facts) for hit in facts[space])]
            row += [None] * empty
            text += ["", *("\n".join(filter(None, (f"{hit['distance']:.3g}", hit["label"]))) for hit in facts[space])]
            text += [""] * empty
        rows.append(row)
        texts.append(text)
    blanks = [""] * (count - 1)
    return sheet(rows, titles=["query", "", "by features", *blanks, "", "by pixels", *blanks], labels=texts)


def _framed(image: Image.Image, hit: dict[str, Any], query: dict[str, Any]) -> Image.Image:
    if query["label"] is None:
        return image
    colour = SAME if hit["label"] == query["label"] else OTHER
    return boxed(image, [(0, 0, *image.size)], colour, max(2, image.width // 28))


def _caption(data: dict[str, Any], count: int) -> str:
    measure = "1 - cosine" if data["distance"] == "cosine" else "L2"
    text = (
        f"The {count} nearest of {data['pictures']} photos by the features of {data['layer']} ({measure}) and by the "
        f"L2 of {PIXELS} x {PIXELS} pixels; {data['shared']:.0%} of the first are among the second."
    )
    if data["mirrored"]:
        text += (
            f" Mirrored, {data['mirrored']['features']:.0%} of the queries are found again by features, "
            f"{data['mirrored']['pixels']:.0%} by pixels."
        )
    if data["purity"]:
        shares = data["purity"]
        text += (
            f" From the photo's own folder (framed green) are {shares['features']:.0%} of all photos' neighbours by "
            f"features and {shares['pixels']:.0%} by pixels; chance gives {shares['chance']:.0%}."
        )
    return text
