"""What is installed: a table of the styles, and a sheet with one photo painted in all of them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from impasto.errors import PackError
from impasto.packs import PAINT, Pack, find_pack, installed_packs

if TYPE_CHECKING:
    from PIL import Image

_GAP, _LABEL = 8, 28


@dataclass(frozen=True)
class StyleRow:
    """One style of one pack; ``size`` is that of the pack's ``paint.onnx`` in bytes."""

    pack: str
    style: str
    title: str
    painter: str
    year: str
    network: str
    size: int


def list_styles(pack: str | os.PathLike[str] | None = None) -> tuple[StyleRow, ...]:
    """The styles of a pack (a name or a path), or with None those of all packs that can be called by name.

    Raises:
        WrongCall: an unknown name.
        PackError: a pack with a card that cannot be used, or without its ``paint.onnx``.
    """
    rows = []
    for found in _packs(pack):
        try:
            size = (found.path / PAINT).stat().st_size
        except OSError as error:
            raise PackError(f"{found.path / PAINT}: {error.strerror}; copy or export the pack again") from error
        network = str(found.card.network.get("name", ""))
        for style in found.card.styles:
            rows.append(StyleRow(found.card.name, style.name, style.title, style.painter, style.year, network, size))
    return tuple(rows)


def style_sheet(
    photo: str | os.PathLike[str], pack: str | os.PathLike[str] | None = None, *, side: int = 512
) -> Image.Image:
    """A sheet with the photo, and the photo painted in every style of `list_styles`, each with its name.

    Args:
        photo: the file; shrunk so that its longer side has at most ``side`` pixels.
        pack: as `list_styles`.
        side: pixels.

    Raises:
        WrongCall, PackError: as `list_styles`; or no pack is installed.
        PictureError: the photo cannot be used.
    """
    import numpy as np
    from PIL import Image

    from impasto.images import read_picture
    from impasto.inference.stylizer import Stylizer

    packs = _packs(pack)
    if not packs:
        raise PackError("no style pack is installed; list their folder in IMPASTO_PACKS")
    image = Image.fromarray(read_picture(photo).rgb)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    tiles = [("photo", image)]
    for found in packs:
        stylizer = Stylizer(found.path)
        for style in stylizer.styles:
            tiles.append((f"{stylizer.card.name}/{style}", stylizer.stylize(np.asarray(image), style)))
    return _tiled(tiles)


def _packs(pack: str | os.PathLike[str] | None) -> tuple[Pack, ...]:
    return installed_packs() if pack is None else (find_pack(pack)[0],)


def _tiled(tiles: list[tuple[str, Image.Image]]) -> Image.Image:
    """Images of one size in rows, their labels below them, on white."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = tiles[0][1].size
    columns = min(len(tiles), max(1, round(math.sqrt(len(tiles) * height / width))))
    rows = math.ceil(len(tiles) / columns)
    step_x, step_y = width + _GAP, height + _LABEL + _GAP
    sheet = Image.new("RGB", (columns * step_x + _GAP, rows * step_y + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(16)
    for index, (label, image) in enumerate(tiles):
        x, y = _GAP + index % columns * step_x, _GAP + index // columns * step_y
        sheet.paste(image, (x, y))
        draw.text((x, y + height + 4), label, fill="black", font=font)
    return sheet
