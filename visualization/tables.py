"""Numbers in coloured cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

CELL = 44
"""Height of a row in pixels."""

DARK = 140
"""Luminance below which a cell is written on in white."""

_GAP, _TEXT = 12, 16


def table(
    rows: Mapping[str, Sequence[str]],
    colours: Mapping[str, Image.Image],
    *,
    columns: Sequence[str] = (),
    notes: Mapping[str, str] | None = None,
) -> Image.Image:
    """Rows of texts, each on the colour of its own pixel.

    Args:
        rows: texts of the cells by the row's name, as many in every row.
        colours: of each row a picture, one pixel high, with a pixel for each cell.
        columns: what stands above each column.
        notes: what stands to the right of a row.
    """
    notes, font = notes or {}, ImageFont.load_default(size=_TEXT)
    texts = [text for cells in rows.values() for text in cells]
    side = max(CELL, *(_GAP + round(font.getlength(text)) for text in [*texts, *columns]))
    left, right = (
        2 * _GAP + max((round(font.getlength(text)) for text in some), default=0) for some in (rows, notes.values())
    )
    top, count = (CELL if columns else _GAP), len(next(iter(rows.values())))
    image = Image.new("RGB", (left + count * side + right, top + len(rows) * CELL + _GAP), "white")
    draw = ImageDraw.Draw(image)
    for column, title in enumerate(columns):
        draw.text((left + (column + 0.5) * side, CELL / 2), title, fill="black", font=font, anchor="mm")
    for row, (name, cells) in enumerate(rows.items()):
        y = top + row * CELL
        draw.text((left - _GAP, y + CELL / 2), name, fill="black", font=font, anchor="rm")
        draw.text((left + count * side + _GAP, y + CELL / 2), notes.get(name, ""), fill="black", font=font, anchor="lm")
        for column, text in enumerate(cells):
            x = left + column * side
            pixel = colours[name].crop((column, 0, column + 1, 1))
            image.paste(pixel.resize((side - 1, CELL - 1)), (round(x), y))
            ink = "white" if pixel.convert("L").tobytes()[0] < DARK else "black"
            draw.text((x + side / 2, y + CELL / 2), text, fill=ink, font=font, anchor="mm")
    return image
