"""Photos laid out in a plane: where each is drawn, and how far the plane can be trusted."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from impasto.errors import WrongCall, require
from impasto.visualization.drawing import boxed
from impasto.visualization.inputs import Pictures
from impasto.visualization.model import Model
from impasto.visualization.plots import COLOURS
from impasto.visualization.progress import track
from impasto.visualization.scene import open_picture

NEIGHBOURS = 10
"""Neighbours of each picture that a plane is asked for."""


def tile(model: Model, path: str | Path, side: int) -> Image.Image:
    """What the model reads of a photo, cut from the photo itself, ``side`` pixels high and wide."""
    photo = Image.fromarray(open_picture(path).rgb)
    left, top, right, bottom = model.to_photo((0, 0, model.size, model.size), photo.size)
    box = (max(0, left), max(0, top), min(photo.width, right), min(photo.height, bottom))
    return photo.resize((side, side), Image.Resampling.LANCZOS, box, reducing_gap=3)


def scientific(module: str, *, purpose: str) -> ModuleType:
    """Import a module of scikit-learn or scipy, and put Python's random generator back.

    What scikit-learn imports in its turn (rich) draws from it.

    Raises:
        MissingExtra: it is not installed.
    """
    state = random.getstate()
    try:
        return require(module, purpose=purpose, extra="see")
    finally:
        random.setstate(state)


def trustworthiness(vectors: Tensor, places: Tensor, count: int = NEIGHBOURS) -> float:
    """How far neighbours in a plane are neighbours at all: 1 if all are, 0.5 for places by chance.

    Args:
        vectors: (N, D), compared by L2; N at least 3.
        places: (N, 2).
        count: neighbours of each, k; fewer than half of N.

    Source: Venna and Kaski 2001, as scikit-learn has it.
    """
    manifold = scientific("sklearn.manifold", purpose="trustworthiness")
    count = min(count, (len(vectors) - 1) // 2)
    return float(manifold.trustworthiness(vectors.numpy(), places.numpy(), n_neighbors=count))


def by_chance(count: int) -> Tensor:
    """Places (N, 2) that have nothing to do with the pictures, each time the same."""
    return torch.rand(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def scattered(
    model: Model,
    pictures: Pictures,
    places: Tensor,
    *,
    labels: tuple[str, ...] = (),
    side: int = 2000,
    thumbnail: int = 0,
) -> Image.Image:
    """Thumbnails on white, each with its middle at its place, later ones over earlier ones.

    Both axes have one scale; the first goes right, the second up.

    Args:
        model: as it reads the photos they are cut.
        pictures: the photos.
        places: (N, 2), finite.
        labels: of each, or none: up to 8 are told apart by frames, with a key.
        side: the longer side of the picture in pixels.
        thumbnail: height and width of one; 0 for what leaves them room.

    Raises:
        WrongCall: thumbnails that are larger than the picture.
        PictureError: a file that cannot be read.
    """
    thumbnail = thumbnail or max(16, round(0.65 * side / math.sqrt(len(places) + 4)))
    if not 1 <= thumbnail <= side:
        raise WrongCall(f"thumbnails of {thumbnail} pixels in a picture of {side}: expected 1 to {side}")
    places = places.double()
    low, high = places.amin(0), places.amax(0)
    scale = (side - thumbnail) / max(float((high - low).max()), 1e-300)
    corners = ((places - low) * scale).round().long()
    width, height = (corners.amax(0) + thumbnail).tolist()
    ground = Image.new("RGB", (width, height), "white")
    colours = colours_of(labels)
    for index, path in enumerate(track(pictures.paths, len(pictures), "thumbnails")):
        small = tile(model, path, thumbnail)
        if colours:
            small = boxed(small, [(0, 0, thumbnail, thumbnail)], colours[labels[index]], max(2, thumbnail // 20))
        ground.paste(small, (int(corners[index, 0]), height - thumbnail - int(corners[index, 1])))
    return keyed(ground, colours)


def colours_of(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each label, none at all if there are more labels than colours."""
    known = sorted(set(labels))
    return dict(zip(known, COLOURS, strict=False)) if len(known) <= len(COLOURS) else {}


def keyed(image: Image.Image, colours: dict[str, str]) -> Image.Image:
    """The picture with a line of colours and their names above it, if there are any."""
    if not colours:
        return image
    size = max(12, image.width // 70)
    font = ImageFont.load_default(size=size)
    ends, left = [], float(size)
    for label in colours:
        ends.append(left)
        left += font.getlength(label) + 2.5 * size
    ground = Image.new("RGB", (max(image.width, math.ceil(left)), image.height + 2 * size), "white")
    ground.paste(image, (0, 2 * size))
    draw = ImageDraw.Draw(ground)
    for (label, colour), start in zip(colours.items(), ends, strict=True):
        draw.rectangle((start, size // 2, start + size, size // 2 + size), fill=colour)
        draw.text((start + 1.4 * size, size), label, fill="black", font=font, anchor="lm")
    return ground
