"""Curves as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from impasto.errors import WrongCall

COLOURS = ("#1f5fbf", "#c8401e", "#2c8a3d", "#8a4fb5", "#b58a00", "#1f9aa8", "#c2478f", "#555555")

_LEFT, _TOP, _RIGHT, _BOTTOM = 64, 12, 12, 40


def plot(
    curves: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str, size: tuple[int, int] = (480, 320)
) -> Image.Image:
    """Lines through points, with axes that begin at the least and end at the greatest value, and a key.

    Args:
        curves: points (x, y) by name, each at least one.
        x: what the horizontal axis is.
        y: what the vertical axis is.
        size: width and height in pixels.

    Raises:
        WrongCall: no point to draw.
    """
    points = [point for curve in curves.values() for point in curve]
    if not points:
        raise WrongCall("a plot: got no points, expected one or more")
    ends = [(min(values), max(values)) for values in zip(*points, strict=True)]
    (x_low, x_high), (y_low, y_high) = ((low, high if high > low else low + 1) for low, high in ends)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=12)
    width, height = size[0] - _LEFT - _RIGHT, size[1] - _TOP - _BOTTOM

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across, up = (point[0] - x_low) / (x_high - x_low), (point[1] - y_low) / (y_high - y_low)
        return _LEFT + across * width, _TOP + (1 - up) * height

    draw.rectangle((_LEFT, _TOP, _LEFT + width, _TOP + height), outline="#999999")
    draw.text((_LEFT, _TOP + height + 4), f"{x_low:.4g}", fill="black", font=font)
    draw.text((_LEFT + width, _TOP + height + 4), f"{x_high:.4g}", fill="black", font=font, anchor="ra")
    draw.text((_LEFT + width / 2, _TOP + height + 4), x, fill="black", font=font, anchor="ma")
    draw.text((_LEFT - 4, _TOP), f"{y_high:.4g}", fill="black", font=font, anchor="ra")
    draw.text((_LEFT - 4, _TOP + height), f"{y_low:.4g}", fill="black", font=font, anchor="rs")
    draw.text((_LEFT - 4, _TOP + height / 2), y, fill="black", font=font, anchor="rm")
    for index, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[index % len(COLOURS)]
        places = [place(point) for point in curve]
        draw.line(places, fill=colour, width=2)
        for across, down in places:
            draw.ellipse((across - 2, down - 2, across + 2, down + 2), fill=colour)
        draw.text((_LEFT + 6, _TOP + 4 + 15 * index), name, fill=colour, font=font)
    return image
