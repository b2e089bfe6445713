"""Bars and flows as pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from impasto.errors import WrongCall
from impasto.visualization.plots import COLOURS

PALE = "#b9bec7"
"""Of what is only there to compare with."""

PALER = "#dfe3ea"

_GAP, _LINE, _LENGTH, _FINE = 12, 14, 360, 3


def bars(
    rows: Mapping[str, Sequence[float]], names: Sequence[str], *, colours: Sequence[str] = (), form: str = "{:g}"
) -> Image.Image:
    """A group of horizontal bars for each row, their values beside them, and a key.

    Args:
        rows: what each row is called, and its values, 0 or more, one for each name.
        names: of the bars of a group.
        colours: of the bars of a group; none for `impasto.visualization.plots.COLOURS`.
        form: how a value is written.

    Raises:
        WrongCall: no row to draw.
    """
    if not rows:
        raise WrongCall("bars: got no rows, expected one or more")
    font = ImageFont.load_default(size=12)
    colours = colours or COLOURS
    most = max(max(values) for values in rows.values()) or 1
    left = max(_width(font, name) for name in rows) + 2 * _GAP
    pitch = _LINE * len(names) + 6
    key = (_LINE + 4) * len(names)
    image = Image.new("RGB", (left + _LENGTH + 80, key + pitch * len(rows) + 3 * _GAP), "white")
    draw = ImageDraw.Draw(image)
    for place, name in enumerate(names):
        top = _GAP + place * (_LINE + 4)
        draw.rectangle((left, top, left + 10, top + 10), fill=colours[place % len(colours)])
        draw.text((left + 18, top + 5), _plain(name), fill="black", font=font, anchor="lm")
    for row, (name, values) in enumerate(rows.items()):
        top = 2 * _GAP + key + row * pitch
        draw.text((left - 8, top + (pitch - 6) / 2), _plain(name), fill="black", font=font, anchor="rm")
        for place, value in enumerate(values):
            upper = top + place * _LINE
            right = left + value / most * _LENGTH
            draw.rectangle((left, upper + 1, right, upper + _LINE - 2), fill=colours[place % len(colours)])
            draw.text((right + 6, upper + _LINE / 2), form.format(value), fill="black", font=font, anchor="lm")
    draw.line((left, _GAP + key, left, image.height - _GAP), fill="#999999")
    return image


def flow(
    before: Sequence[str], after: Sequence[str], *, titles: tuple[str, str], height: int = 640, nothing: str = ""
) -> Image.Image:
    """What became of things that had one name before and have one after: a band for each pair, as thick as it is often.

    What kept its name is pale, and paler what came to ``nothing``.

    Args:
        before: a name for each thing.
        after: likewise.
        titles: of the two columns.
        height: of the columns in pixels, without the gaps.
        nothing: the name of what is none of the others.

    Raises:
        WrongCall: nothing to draw, or not as many after as before.
    """
    if not before or len(before) != len(after):
        raise WrongCall(f"a flow: got {len(before)} before and {len(after)} after, expected as many, and one or more")
    order = [name for name, _ in Counter([*after, *before]).most_common()]
    scale = height / len(before)
    font = ImageFont.load_default(size=13)
    columns = list(zip((before, after), titles, strict=True))
    margins = [max(_width(font, f"{name}  {len(names)}") for name in {*names, title}) for names, title in columns]
    across = margins[0] + 2 * _GAP, margins[0] + 2 * _GAP + _LENGTH
    tops = [_stacked(order, Counter(names), scale) for names in (before, after)]
    width, bottom = across[1] + margins[1] + 2 * _GAP, round(max(column[""] for column in tops))
    image = Image.new("RGB", (width * _FINE, bottom * _FINE), "white")
    draw = ImageDraw.Draw(image)
    for (one, other), (start, end), thick in _bands(order, list(zip(before, after, strict=True)), tops, scale):
        colour = COLOURS[order.index(other) % (len(COLOURS) - 1)]
        if other in (one, nothing):
            colour = PALE if one == other else PALER
        _band(draw, across, (start, end), thick, colour)
    image = image.resize((width, bottom), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    for (names, title), column, left, (x, anchor) in zip(
        columns, tops, (across[0] - 5, across[1]), ((across[0] - 12, "rm"), (across[1] + 12, "lm")), strict=True
    ):
        draw.text((x, _GAP + 4), _plain(title), fill="#666666", font=font, anchor=anchor)
        for name, count in Counter(names).items():
            top, size = column[name], count * scale
            draw.rectangle((left, top, left + 5, top + max(1, size)), fill="#333333")
            draw.text((x, top + size / 2), f"{_plain(name)}  {count}", fill="black", font=font, anchor=anchor)
    return image


def _bands(
    order: Sequence[str], pairs: Sequence[tuple[str, str]], tops: Sequence[Mapping[str, float]], scale: float
) -> Iterator[tuple[tuple[str, str], tuple[float, float], float]]:
    """Each pair, the top of its band at either end, and how thick it is; bands leave and arrive in one order."""
    counts = Counter(pairs)
    free = [dict(column) for column in tops]
    for one in order:
        for other in order:
            thick = counts[one, other] * scale
            if thick:
                yield (one, other), (free[0][one], free[1][other]), thick
                free[0][one] += thick
                free[1][other] += thick


def _stacked(order: Sequence[str], counts: Counter[str], scale: float) -> dict[str, float]:
    """The top of each name's place in a column, far enough apart to be written beside; of "" what is beneath all."""
    tops, top = {}, 3.0 * _GAP
    for name in order:
        if counts[name]:
            size = counts[name] * scale
            room = max(0.0, 16 - size) / 2
            tops[name] = top + room
            top += size + 2 * room + 6
    return tops | {"": top + _GAP}


def _band(
    draw: ImageDraw.ImageDraw, across: tuple[int, int], tops: tuple[float, float], thick: float, colour: str
) -> None:
    """A band from one column to the other that leaves and arrives level."""
    steps = [step / 40 for step in range(41)]
    xs = [across[0] + (across[1] - across[0]) * step for step in steps]
    ys = [tops[0] + (tops[1] - tops[0]) * step * step * (3 - 2 * step) for step in steps]
    upper = [(x * _FINE, y * _FINE) for x, y in zip(xs, ys, strict=True)]
    lower = [(x, y + max(1.0, thick) * _FINE) for x, y in reversed(upper)]
    draw.polygon(upper + lower, fill=colour)


def _width(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> int:
    return round(font.getlength(_plain(text)))


def _plain(text: str) -> str:
    """A text in the letters that Pillow's own font has."""
    return text.encode("ascii", "replace").decode()
