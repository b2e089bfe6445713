"""Photos on a grid, near ones near each other: t-SNE without gaps and overlaps."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from impasto.errors import WrongCall
from impasto.visualization.codes import code_layer, expect, read_codes
from impasto.visualization.components import of_what
from impasto.visualization.drawing import GREY
from impasto.visualization.embeddings import embed
from impasto.visualization.inputs import Pictures
from impasto.visualization.layouts import scientific, tile
from impasto.visualization.model import Model
from impasto.visualization.progress import track
from impasto.visualization.registry import technique
from impasto.visualization.result import Result

MOST = 2500
"""Photos on a grid at most: the time to place them grows with their cube."""


def in_unit_square(places: Tensor) -> Tensor:
    """Places (N, 2), the second axis up, as parts of a picture's width and height, the second down.

    Each axis goes from 0 to 1 by itself; where all are the same it is 0.5.
    """
    low, high = places.amin(0), places.amax(0)
    parts = torch.where(high > low, (places - low) / torch.where(high > low, high - low, 1), 0.5)
    return torch.stack([parts[:, 0], 1 - parts[:, 1]], 1)


def cell_middles(rows: int, columns: int) -> Tensor:
    """The middles of a grid's cells in reading order, (rows * columns, 2), in parts of its width and height."""
    down, across = ((torch.arange(count, dtype=torch.float64) + 0.5) / count for count in (rows, columns))
    return torch.stack([across.repeat(rows), down.repeat_interleave(columns)], 1)


def fill(parts: Tensor, rows: int, columns: int) -> Tensor:
    """For each cell the picture nearest to its middle, as often as it comes; (rows, columns), of equal ones the first.

    Args:
        parts: (N, 2), where the pictures are, in parts of the grid's width and height.
        rows: of the grid.
        columns: likewise.
    """
    return torch.cdist(cell_middles(rows, columns), parts).argsort(dim=1, stable=True)[:, 0].view(rows, columns)


def assign(parts: Tensor, rows: int, columns: int) -> Tensor:
    """Each picture in a cell of its own, so that the sum of the squared ways to the cells' middles is the least.

    Args:
        parts: (N, 2), as of `fill`, N at most rows * columns.
        rows: of the grid.
        columns: likewise.

    Returns:
        (rows, columns), the picture in each cell, -1 for none.

    Raises:
        MissingExtra: scipy is missing.
    """
    optimize = scientific("scipy.optimize", purpose="a grid of pictures")
    cost = torch.cdist(parts, cell_middles(rows, columns)).square()
    indices, cells = (torch.from_numpy(each) for each in optimize.linear_sum_assignment(cost.numpy()))
    grid = torch.full((rows * columns,), -1)
    grid[cells] = indices
    return grid.view(rows, columns)


def seams(vectors: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """How far apart the pictures of neighbouring cells are, by L2.

    Args:
        vectors: (N, D).
        grid: (rows, columns), indices, -1 for none.

    Returns:
        Across the lines between columns, (rows, columns - 1), and between rows, (rows - 1, columns); NaN beside an
        empty cell.
    """
    codes = torch.cat([vectors, torch.full_like(vectors[:1], torch.nan)])[grid]
    return (codes[:, 1:] - codes[:, :-1]).norm(dim=2), (codes[1:] - codes[:-1]).norm(dim=2)


@technique("V11", "representations")
def tsne_grid(
    model: Model,
    pictures: Pictures,
    *,
    layer: str = "",
    distance: Literal["cosine", "l2", "pixels"] = "cosine",
    perplexity: float = 30,
    side: int = 4000,
    cache: str = "",
) -> Result:
    """t-SNE as a grid without gaps: each photo in a cell of its own; each cell with the nearest photo; and its seams.

    Source: Karpathy's t-SNE of ImageNet, "every space is filled with its nearest neighbor" and the seams, which are the
    redder the farther apart the features on their two sides are. For a cell of its own: linear assignment, as
    RasterFairy and lapjv do.

    Args:
        pictures: Photos; of more than 2500 so many, evenly spaced.
        layer: As capture has it, of maps the means; empty for what the last linear layer takes.
        distance: What is near: features at length 1, features as they are, or 32 x 32 pixels.
        perplexity: How many neighbours of a photo count, about; at most a third of the photos.
        side: Width of the pictures in pixels, rounded down to whole cells.
        cache: A folder that remembers the features, for the same photos and network.

    Returns:
        A `Result` with the images ``assigned`` (each photo once; empty cells are grey), ``filled`` (each cell has the
        photo nearest to it, so that those at corners and gaps come often) and ``seams`` (``filled`` with lines from
        black, the nearest, to red, the farthest apart; none between two of the same photo). ``data`` has the
        ``paths``; the grids of their indices (``assigned``, -1 for none, and ``filled``); the sum of squared ways to
        the cells (``cost``, in parts of the width and height); the mean distance of vectors in neighbouring cells
        (``adjacent``) and of any two photos (``shuffled``, what a grid in no order has); and the seams' distances
        ``across`` columns and ``down`` rows, with what is black (``low``) and what is red (``high``).

    Raises:
        Refused: a layer that gives neither maps nor numbers, or the same numbers for all pictures.
        WrongCall: fewer than 3 photos, an unknown layer, a perplexity that is not above 0, or a side that leaves a cell
            less than 8 pixels.
        PictureError: a file that cannot be read.
        MissingExtra: scikit-learn or scipy is missing.
    """
    expect("tsne grid", pictures, 3)
    shown = pictures if len(pictures) <= MOST else _fewer(pictures)
    columns = math.ceil(math.sqrt(len(shown)))
    rows, cell = math.ceil(len(shown) / columns), side // columns
    if cell < 8 or not 0 < perplexity < float("inf"):
        raise WrongCall(
            f"tsne grid: got side {side} for {columns} columns and perplexity {perplexity}, expected {8 * columns} or "
            "more and a number above 0"
        )
    layer = code_layer(model, layer)
    vectors = read_codes(model, shown, layer, cache=cache).vectors(distance)
    parts = in_unit_square(embed(vectors, perplexity)[0])
    assigned, filled = assign(parts, rows, columns), fill(parts, rows, columns)
    across, down = seams(vectors, filled)
    adjacent = torch.cat([each.flatten() for each in seams(vectors, assigned)]).nanmean()
    kept = assigned.flatten() >= 0
    cost = (cell_middles(rows, columns)[kept] - parts[assigned.flatten()[kept]]).square().sum()
    used = len(set(filled.flatten().tolist()))
    lengths = torch.cat([across.flatten(), down.flatten()])
    high = float(lengths.max())
    low = float(lengths[lengths > 0].min()) if high else 0.0
    data: dict[str, Any] = {
        "layer": layer,
        "distance": distance,
        "pictures": len(pictures),
        "cell": cell,
        "paths": [str(path) for path in shown.paths],
        "assigned": assigned.tolist(),
        "filled": filled.tolist(),
        "cost": float(cost),
        "adjacent": float(adjacent),
        "shuffled": float(torch.pdist(vectors).mean()),
        "across": across.tolist(),
        "down": down.tolist(),
        "low": low,
        "high": high,
    }
    tiles = [tile(model, path, cell) for path in track(shown.paths, len(shown), "thumbnails")]
    images = {"assigned": _mosaic(tiles, assigned), "filled": _mosaic(tiles, filled)}
    images["seams"] = _seamed(images["filled"], across, down, cell, low, high)
    caption = (
        f"t-SNE of {of_what(layer, distance)} of {len(shown)} of {len(pictures)} photos on a grid of {columns} x "
        f"{rows}: each in a cell of its own, or each cell with the photo nearest to it ({used} photos). Between "
        f"neighbouring cells the distance is {data['adjacent']:.3g}, between any two photos {data['shuffled']:.3g}; "
        f"seams are black at {low:.3g} and red at {high:.3g}."
    )
    return Result(images, data, caption=caption)


def _fewer(pictures: Pictures) -> Pictures:
    chosen = torch.linspace(0, len(pictures) - 1, MOST).round().long().tolist()
    return Pictures(tuple(pictures.paths[index] for index in chosen), pictures.given)


def _mosaic(tiles: list[Image.Image], grid: Tensor) -> Image.Image:
    cell = tiles[0].width
    ground = Image.new("RGB", (grid.shape[1] * cell, grid.shape[0] * cell), (GREY, GREY, GREY))
    for row, indices in enumerate(grid.tolist()):
        for column, index in enumerate(indices):
            if index >= 0:
                ground.paste(tiles[index], (column * cell, row * cell))
    return ground


def _seamed(mosaic: Image.Image, across: Tensor, down: Tensor, cell: int, low: float, high: float) -> Image.Image:
    """Lines between cells, as wide as a twelfth of them, from black for ``low`` to red for ``high``; none for 0."""
    image, half = mosaic.copy(), max(1, cell // 24)
    draw = ImageDraw.Draw(image)
    for distances, turned in ((across, False), (down, True)):
        for row, lengths in enumerate(distances.tolist()):
            for column, length in enumerate(lengths):
                if length == 0:
                    continue
                x, y = (column * cell, (row + 1) * cell) if turned else ((column + 1) * cell, row * cell)
                end = (x + cell - 1, y + half - 1) if turned else (x + half - 1, y + cell - 1)
                unit = (length - low) / (high - low) if high > low else 1.0
                start = (x, y - half) if turned else (x - half, y)
                draw.rectangle((*start, *end), fill=(round(255 * unit), 0, 0))
    return image
