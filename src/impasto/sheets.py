"""Labelled sheets of pictures: the one place that draws them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from PIL import Image, ImageDraw, ImageFont

from impasto.errors import WrongCall

GAP = 8
"""Pixels of white around each picture."""

LINE = 20
"""Height of a line of text in pixels."""

_SPELLED = str.maketrans(
    {
        "\N{MULTIPLICATION SIGN}": "x",
        "\N{EN DASH}": "-",
        "\N{EM DASH}": "-",
        "\N{MINUS SIGN}": "-",
        "\N{RIGHTWARDS ARROW}": "->",
        "\N{LATIN SMALL LETTER SHARP S}": "ss",
    }
)


def sheet(
    rows: Sequence[Sequence[Image.Image | None]],
    *,
    titles: Sequence[str] = (),
    captions: Sequence[str] = (),
    labels: Sequence[Sequence[str]] = (),
    notes: Sequence[Sequence[str]] = (),
) -> Image.Image:
    """Rows of pictures on white, with text around them.

    A column is as wide as its widest picture or text, a row as high as its highest picture, and pictures stand at the
    top left of their place: text is neither cut nor runs into other text. Every text may have several lines.

    Args:
        rows: pictures of any size from the top down, None for an empty place; rows may differ in length.
        titles: a text above each column.
        captions: a text above each row.
        labels: for each row the texts beneath its pictures.
        notes: for each column the lines beneath it.

    Returns:
        The sheet, mode RGB. Where a picture is transparent it is white. Letters that Pillow's own font lacks are
        spelled in ASCII, or drawn as a question mark.

    Raises:
        WrongCall: no picture, or more texts than places for them.
    """
    columns = max(map(len, rows), default=0)
    if not any(picture for row in rows for picture in row):
        raise WrongCall("a sheet: got no picture, expected one or more")
    _check_counts(titles=(titles, columns), notes=(notes, columns))
    _check_counts(captions=(captions, len(rows)), labels=(labels, len(rows)))
    bands = [_Band([_text(title) for title in titles])]
    for row, caption, texts in zip_longest(rows, captions, labels, fillvalue=()):
        _check_counts(**{"labels of a row": (texts, len(row))})
        bands += [_Band([_text(caption or "")], spans=True), _Band(list(row))]
        bands += [_Band([_text(text) for text in texts], gap=GAP)]
    bands += [_Band([_text("\n".join(lines)) for lines in notes], gap=GAP if notes else 0)]
    return _stacked(bands, columns)


def tiled(pictures: Sequence[Image.Image], labels: Sequence[str] = ()) -> Image.Image:
    """A sheet of pictures in reading order, as near to a square as whole rows come; labels beneath the pictures.

    Raises:
        WrongCall: as `sheet`.
    """
    wide, high = (max((side(picture) for picture in pictures), default=1) for side in (_width, _height))
    columns = min(len(pictures), max(1, round(math.sqrt(len(pictures) * high / wide)))) or 1
    starts = range(0, max(len(pictures), len(labels)), columns)
    return sheet(
        [pictures[start : start + columns] for start in starts],
        labels=[labels[start : start + columns] for start in starts],
    )


@dataclass(frozen=True)
class _Band:
    """Pictures side by side, one a column; one that ``spans`` may be wider than its column. ``gap`` is left below."""

    pictures: Sequence[Image.Image | None]
    gap: int = 0
    spans: bool = False


def _stacked(bands: Sequence[_Band], columns: int) -> Image.Image:
    """Bands from the top down on white."""
    within = [band.pictures for band in bands if not band.spans]
    widths = [max(map(_width, column)) for column in zip_longest(*within)]
    lefts = [GAP + sum(widths[:column]) + GAP * column for column in range(columns)]
    width = max(lefts[-1] + widths[-1], *(GAP + _width(picture) for band in bands for picture in band.pictures))
    heights = [max(map(_height, band.pictures), default=0) + band.gap for band in bands]
    ground = Image.new("RGB", (width + GAP, GAP + sum(heights)), "white")
    top = GAP
    for band, height in zip(bands, heights, strict=True):
        for left, picture in zip(lefts, band.pictures, strict=False):
            if picture is not None:
                opaque = picture.convert("RGBA")
                ground.paste(opaque, (left, top), opaque)
        top += height
    return ground


def _width(picture: Image.Image | None) -> int:
    return picture.width if picture else 0


def _height(picture: Image.Image | None) -> int:
    return picture.height if picture else 0


def _text(text: str) -> Image.Image | None:
    """A picture of a text, black on white; None if there is nothing to write."""
    if not text:
        return None
    font = ImageFont.load_default(size=14)
    lines = [_spelled(line) for line in text.split("\n")]
    width = max(1, *(math.ceil(font.getlength(line)) for line in lines))
    picture = Image.new("RGB", (width, LINE * len(lines)), "white")
    draw = ImageDraw.Draw(picture)
    for index, line in enumerate(lines):
        draw.text((0, index * LINE), line, fill="black", font=font)
    return picture


def _spelled(text: str) -> str:
    """A text in printable ASCII, which is what Pillow's own font has: accents dropped, other letters as ``?``."""
    apart = unicodedata.normalize("NFKD", text.translate(_SPELLED))
    letters = (letter for letter in apart if not unicodedata.combining(letter))
    return "".join(letter if " " <= letter <= "~" else "?" for letter in letters)


def _check_counts(**given: tuple[Sequence[object], int]) -> None:
    for what, (texts, places) in given.items():
        if len(texts) > places:
            raise WrongCall(f"a sheet: got {len(texts)} {what}, expected at most {places}")
