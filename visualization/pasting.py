"""Stickers in pictures: where they lie, how large and how turned, so that a gradient reaches them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from impasto.errors import WrongCall


@dataclass(frozen=True)
class Place:
    """Where a square sticker lies in a picture.

    Attributes:
        top: row of its upper edge.
        left: column of its left edge.
        side: its height and width in pixels.
        degrees: how far it is turned about its centre, counterclockwise; what leaves its square is cut off.
    """

    top: int
    left: int
    side: int
    degrees: float = 0.0


def disc(side: int) -> Tensor:
    """The mask of a round sticker, (1, 1, side, side): 1 inside, 0 outside, between them on the edge's pixels."""
    across = torch.arange(side) + 0.5 - side / 2
    distance = torch.hypot(across[:, None], across[None, :])
    return (side / 2 - distance + 0.5).clamp(0, 1)[None, None]


def disc_side(area: float, size: tuple[int, int]) -> int:
    """The diameter of the disc that covers a part of a picture (height, width)."""
    return max(1, min(round(math.sqrt(area * size[0] * size[1] * 4 / math.pi)), *size))


def random_places(
    count: int, size: tuple[int, int], sides: tuple[int, int], degrees: float, generator: torch.Generator
) -> list[Place]:
    """Places wholly inside a picture, each with its own size, position and turn.

    Args:
        count: of places.
        size: height and width of the picture.
        sides: the least and the largest side; between them the sticker's area is uniform.
        degrees: the largest turn either way.
        generator: of the draws, four for each place.

    Raises:
        WrongCall: a sticker that is larger than the picture.
    """
    low, high = sides
    if not 1 <= low <= high <= min(size):
        raise WrongCall(f"a sticker's side: got {low} to {high}, expected 1 to {min(size)}, the picture's side")
    draws = torch.rand(count, 4, generator=generator).tolist()
    found = []
    for growth, down, across, turn in draws:
        side = round(math.sqrt(low**2 + growth * (high**2 - low**2)))
        top, left = (int(part * (room - side + 1)) for part, room in zip((down, across), size, strict=True))
        found.append(Place(top, left, side, degrees * (2 * turn - 1)))
    return found


def paste(pictures: Tensor, sticker: Tensor, mask: Tensor, places: Sequence[Place]) -> Tensor:
    """Pictures with a sticker on each.

    A pixel where the mask is 0 is exactly the picture's; where it is 1, exactly the sticker's. The sticker is made
    smaller or larger by bilinear interpolation, with its high frequencies filtered out first where it is made smaller.

    Source: Brown et al. 2017, the operator A. Differs from it in that positions are whole pixels, so that a sticker
    that is neither scaled nor turned comes out as it is.

    Args:
        pictures: (N, 3, H, W).
        sticker: (1, 3, P, P).
        mask: (1, 1, P, P), from 0 to 1.
        places: one for each picture.

    Returns:
        (N, 3, H, W).
    """
    return torch.cat(
        [
            _paste_one(picture, sticker, mask, place)
            for picture, place in zip(torch.split(pictures, 1), places, strict=True)
        ]
    )


def _paste_one(picture: Tensor, sticker: Tensor, mask: Tensor, place: Place) -> Tensor:
    colours, cover = _scaled(sticker, place.side), _scaled(mask.to(sticker), place.side)
    if place.degrees:
        colours, cover = _turned(colours, place.degrees, "border"), _turned(cover, place.degrees, "zeros")
    height, width = picture.shape[2:]
    around = (place.left, width - place.left - place.side, place.top, height - place.top - place.side)
    colours, cover = F.pad(colours, around), F.pad(cover, around)
    return picture * (1 - cover) + colours * cover


def _scaled(image: Tensor, side: int) -> Tensor:
    if image.shape[2:] == (side, side):
        return image
    return F.interpolate(image, (side, side), mode="bilinear", antialias=True)


def _turned(image: Tensor, degrees: float, outside: str) -> Tensor:
    """Turned counterclockwise about its centre, in its own square."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = image.new_tensor([[[cosine, -sine, 0], [sine, cosine, 0]]])
    grid = F.affine_grid(matrix, list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, padding_mode=outside, align_corners=False)
