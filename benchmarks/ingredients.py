"""Which ingredient of the training mix does what: the same network trained with and without each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from impasto.benchmarks.judge import SIZES, at_size, middle, painter
from impasto.benchmarks.variants import Variants
from impasto.images import read_rgb

VARIANTS: Variants = {
    "full": {},
    "no_close": {"data": {"close": 0.0}},
    "no_flat": {"data": {"flat": 0.0}},
    "no_steady": {"model": {"steady": 0.0}},
    "none": {"data": {"close": 0.0, "flat": 0.0}, "model": {"steady": 0.0}},
}
"""The mix as the recipe has it; without crops of photos at full size and enlarged; without flat and slowly varying
pictures; without the term that asks the same of a shifted, slightly zoomed copy; without any of the three."""

TILE, GAP, LABEL = 320, 8, 24


def side_by_side(photos: Sequence[Path], packs: Sequence[Path]) -> Image.Image:
    """A sheet with a row for each photo at each of the judge's sizes, a column for the photo and for each pack.

    A tile is the middle of the picture, at most 320 pixels high and wide, pixel for pixel.
    """
    paints = {pack.name: painter(pack) for pack in packs}
    pictures = [at_size(read_rgb(photo), size) for photo in photos for size in SIZES]
    step, top = TILE + GAP, LABEL + GAP
    sheet = Image.new("RGB", (GAP + step * (1 + len(paints)), top + (step + LABEL) * len(pictures)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for column, name in enumerate(["photo", *paints]):
        draw.text((GAP + step * column, GAP), name, fill="black", font=font)
    for row, picture in enumerate(pictures):
        y = top + row * (step + LABEL)
        label = f"{photos[row // len(SIZES)].stem}, {picture.shape[1]} x {picture.shape[0]}"
        draw.text((GAP, y + TILE + 2), label, fill="black", font=font)
        tiles = [picture, *(paint(picture) for paint in paints.values())]
        for column, tile in enumerate(tiles):
            sheet.paste(Image.fromarray(np.ascontiguousarray(middle(tile, TILE))), (GAP + step * column, y))
    return sheet
