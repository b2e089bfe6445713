"""What every technique draws with: grids of tiles, signed maps, heat maps, overlays, boxes and panels.

Maps are tensors; what is drawn are Pillow images, mode RGB. Nothing here hides a scale: whoever draws a map says from
what to what it goes (`span`), and a grid's scales stand in its `Grid`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from impasto.sheets import sheet
from impasto.visualization.scene import to_image

GREY = 128
"""Of an empty place, and of 0 on a signed map."""

_HEAT = torch.tensor(
    [
        (0, 0, 4),
        (40, 11, 84),
        (101, 21, 110),
        (159, 42, 99),
        (212, 72, 66),
        (245, 125, 21),
        (250, 193, 39),
        (252, 255, 164),
    ]
)
"""Black, violet, red, yellow, white: evenly spaced, ever lighter, so that grey print still reads right."""

_SIGNED = torch.tensor([(20, 60, 170), (90, 130, 225), (GREY, GREY, GREY), (235, 110, 80), (170, 20, 20)])
"""Blue below 0, mid-grey at 0, red above."""


@dataclass(frozen=True)
class Grid:
    """A picture of tiles, and where each is: enough to cut a tile out and to undo its scale.

    Attributes:
        image: the picture, with a white line of 1 px around each tile.
        count: tiles, in reading order.
        columns: tiles in a row.
        zoom: pixels of the picture to one value of a tile, in both directions.
        height: of a tile in pixels of the picture.
        width: likewise.
    """

    image: Image.Image
    count: int
    columns: int
    zoom: int
    height: int
    width: int

    def box(self, index: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of a tile in the picture."""
        left = 1 + index % self.columns * (self.width + 1)
        top = 1 + index // self.columns * (self.height + 1)
        return left, top, left + self.width, top + self.height

    def data(self) -> dict[str, int]:
        """Everything but the picture, for a result's data."""
        return {name: value for name, value in vars(self).items() if name != "image"}


def grid(tiles: Tensor, *, side: int = 32, columns: int | None = None) -> Grid:
    """Tiles in reading order, as near to a square as comes, each value a square of pixels: nothing is interpolated.

    Args:
        tiles: (N, 3, h, w) or (N, 1, h, w), in [0, 1].
        side: the least height and width of a tile in the picture; larger tiles stay as they are.
        columns: in a row; None for ceil(sqrt(N)).

    Returns:
        A `Grid`; empty places are mid-grey.
    """
    count, _, rows_of_tile, columns_of_tile = tiles.shape
    zoom = max(1, math.ceil(side / min(rows_of_tile, columns_of_tile)))
    columns = columns or math.ceil(math.sqrt(count))
    height, width = rows_of_tile * zoom, columns_of_tile * zoom
    rows = math.ceil(count / columns)
    ground = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, 3), 255, np.uint8)
    pixels = _bytes(tiles.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)).repeat(zoom, 1).repeat(zoom, 2)
    for place in range(rows * columns):
        left, top = 1 + place % columns * (width + 1), 1 + place // columns * (height + 1)
        ground[top : top + height, left : left + width] = pixels[place] if place < count else GREY
    return Grid(Image.fromarray(ground), count, columns, zoom, height, width)


def _bytes(values: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(values.detach().float().clamp(0, 1).mul(255).round().byte().cpu())


def unit(maps: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Values from ``low`` to ``high`` as 0 to 1, mid-grey where the two are the same; clipped."""
    low, high = (torch.as_tensor(end, dtype=maps.dtype, device=maps.device) for end in (low, high))
    flat = high <= low
    return torch.where(flat, GREY / 255, (maps - low) / torch.where(flat, 1, high - low)).clamp(0, 1)


def signed_rgb(gradient: Tensor, limit: float | None = None) -> Image.Image:
    """A signed picture (1, 3, H, W) around mid-grey, which is 0; ``limit`` (None: the largest magnitude) is full."""
    limit = limit or float(gradient.abs().max()) or 1.0
    return to_image(gradient.detach() / limit * (GREY - 1) / 255 + GREY / 255)


def signed_map(values: Tensor, limit: float | None = None, size: tuple[int, int] | None = None) -> Image.Image:
    """A signed map (H, W): blue below 0, mid-grey at 0, red above.

    Args:
        values: the map.
        limit: what is drawn full; None for the largest magnitude.
        size: width and height of the picture; None for the map's own. Enlarged bilinearly.
    """
    limit = limit or float(values.abs().max()) or 1.0
    return _coloured(values.detach() / limit / 2 + 0.5, _SIGNED, size)


def heat(
    values: Tensor, low: float | None = None, high: float | None = None, size: tuple[int, int] | None = None
) -> Image.Image:
    """A map (H, W) from black over red to white.

    Args:
        values: the map.
        low: what is drawn black; None for the least value.
        high: what is drawn white; None for the greatest value.
        size: width and height of the picture; None for the map's own. Enlarged bilinearly.
    """
    values = values.detach()
    ends = float(values.min()) if low is None else low, float(values.max()) if high is None else high
    return _coloured(unit(values, *ends), _HEAT, size)


def _coloured(values: Tensor, table: Tensor, size: tuple[int, int] | None) -> Image.Image:
    """Values in [0, 1] by a table of colours, linearly between them."""
    if size is not None and size != tuple(values.shape[::-1]):
        values = torch.nn.functional.interpolate(values[None, None].float(), size[::-1], mode="bilinear")[0, 0]
    places = values.float().cpu().clamp(0, 1) * (len(table) - 1)
    below = places.floor().long().clamp(max=len(table) - 2)
    part = (places - below)[..., None]
    colours = table[below] * (1 - part) + table[below + 1] * part
    return Image.fromarray(np.asarray(colours.round().byte()))


def overlay(picture: Tensor, drawn: Image.Image, opacity: float = 0.5) -> Image.Image:
    """A drawn map over the picture (1, 3, H, W), enlarged to its size."""
    below = to_image(picture.detach())
    return Image.blend(below, drawn.resize(below.size, Image.Resampling.BILINEAR), opacity)


def boxed(image: Image.Image, boxes: Iterable[Sequence[float]], colour: str = "#ffd000", width: int = 2) -> Image.Image:
    """A copy with boxes (left, top, right, bottom) drawn just inside their edges."""
    image = image.convert("RGB")
    draw = ImageDraw.Draw(image)
    for left, top, right, bottom in boxes:
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=width)
    return image


def span(values: Tensor) -> str:
    """From what to what a map goes, as it is printed beneath its picture."""
    return f"{float(values.min()):.3g} to {float(values.max()):.3g}"


def panel(
    pictures: Mapping[str, Image.Image], notes: Mapping[str, str] | None = None, *, columns: int = 4
) -> Image.Image:
    """Pictures side by side, their names beneath them, and beneath a name its note (`span`, a number, a caveat)."""
    notes = notes or {}
    labels = [f"{name}\n{notes[name]}" if name in notes else name for name in pictures]
    drawn, starts = list(pictures.values()), range(0, len(pictures), columns)
    return sheet(
        [drawn[start : start + columns] for start in starts],
        labels=[labels[start : start + columns] for start in starts],
    )
