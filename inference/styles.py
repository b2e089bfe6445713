"""What is installed: a table of the styles, and a sheet with one photo painted in all of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from impasto.errors import PackError
from impasto.packs import PAINT, Pack, find_pack, installed_packs

if TYPE_CHECKING:
    from PIL import Image


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
    """The styles of a pack (a name or a path), or with None those of all installed packs.

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
    from impasto.sheets import tiled

    packs = _packs(pack)
    if not packs:
        raise PackError("no style pack is installed; list their folder in IMPASTO_PACKS")
    image = Image.fromarray(read_picture(photo).rgb)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    pictures, labels = [image], ["photo"]
    for found in packs:
        stylizer = Stylizer(found.path)
        for style in stylizer.styles:
            pictures.append(stylizer.stylize(np.asarray(image), style))
            labels.append(f"{stylizer.card.name}/{style}")
    return tiled(pictures, labels)


def _packs(pack: str | os.PathLike[str] | None) -> tuple[Pack, ...]:
    return installed_packs() if pack is None else (find_pack(pack)[0],)
