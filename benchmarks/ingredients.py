"""Which ingredient of the training mix does what: the same network trained with and without each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from impasto.benchmarks.judge import SIZES, at_size, middle, painter
from impasto.benchmarks.variants import Variants
from impasto.images import read_rgb
from impasto.sheets import sheet

VARIANTS: Variants = {
    "full": {},
    "no_close": {"data": {"close": 0.0}},
    "no_flat": {"data": {"flat": 0.0}},
    "no_steady": {"model": {"steady": 0.0}},
    "none": {"data": {"close": 0.0, "flat": 0.0}, "model": {"steady": 0.0}},
}
"""The mix as the recipe has it; without crops of photos at full size and enlarged; without flat and slowly varying
pictures; without the term that asks the same of a shifted, slightly zoomed copy; without any of the three."""

TILE = 320


def side_by_side(photos: Sequence[Path], packs: Sequence[Path]) -> Image.Image:
    """A sheet with a row for each photo at each of the judge's sizes, a column for the photo and for each pack.

    A tile is the middle of the picture, at most 320 pixels high and wide, pixel for pixel.
    """
    paints = {pack.name: painter(pack) for pack in packs}
    pictures = [at_size(read_rgb(photo), size) for photo in photos for size in SIZES]
    rows, captions = [], []
    for index, picture in enumerate(pictures):
        tiles = [picture, *(paint(picture) for paint in paints.values())]
        rows.append([Image.fromarray(np.ascontiguousarray(middle(tile, TILE))) for tile in tiles])
        captions.append(f"{photos[index // len(SIZES)].stem}, {picture.shape[1]} x {picture.shape[0]}")
    return sheet(rows, titles=["photo", *paints], captions=captions)
