"""What a network loses when a grey square hides a part of the picture."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from impasto.visualization.answers import Answer, answer, last_maps, logits_and_maps
from impasto.visualization.colours import luminance
from impasto.visualization.drawing import GREY, boxed, heat, overlay, panel, signed_map, span
from impasto.visualization.model import Model
from impasto.visualization.plots import COLOURS
from impasto.visualization.registry import technique
from impasto.visualization.result import Result
from impasto.visualization.scene import to_image
from impasto.visualization.windows import Sweep, Windows, mean_colour, sweep

FRAMES = 48
"""Of the animation, at most."""


@technique("V12", "attribution")
def occlusion(
    model: Model,
    picture: Tensor,
    *,
    target: int | str | None = None,
    patches: tuple[int, ...] = (),
    stride: int = 0,
    layer: str = "",
) -> Result:
    """What a class loses when a grey square hides a part of the picture, place by place.

    Red: hiding it lowers the class's logit. Blue: hiding it raises the logit, as over an object of another class. The
    square has the mean colour of the network's training pictures, set in pixels. The map depends on the square's size:
    try several.

    Source: Zeiler and Fergus 2014, section 4.2 and figure 6.

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        target: The class: its index, its name or how its name begins; by default the one with the highest logit.
        patches: Sides of the square in pixels; none for a seventh of the picture. With several, a map of each.
        stride: From one place to the next in pixels; 0 for a quarter of the square.
        layer: Of the activation that is summed; empty for the last layer with maps.

    Returns:
        A `Result` with the image ``occlusion`` (the map; the layer's strongest map, summed; the class's probability;
        the most probable class, each over the square's place), with several sizes ``sizes``, and frames of the sliding
        square. ``data`` has the class and, for each size, the values of all places, the strongest place and
        ``check_error``: how far the logit of that one picture, made and run apart, is from the one in the sweep.

    Raises:
        Refused: a network without classes or maps.
        WrongCall: an unknown class or layer; a square that is no part of the picture, or a stride that leaves gaps.
    """
    height, width = picture.shape[2:]
    found = answer(model, picture, target)
    layer = layer or last_maps(model)
    sides = patches or (max(1, min(height, width) // 7),)
    places = [Windows.over(height, width, side, stride or max(1, side // 4)) for side in sides]
    channel = int(logits_and_maps(model, picture, layer)[1].detach()[0].sum((1, 2)).argmax())
    sweeps = [sweep(model, picture, found.index, windows, layer, channel) for windows in places]
    maps = [each.windows.spread(found.logit - each.logits, height, width) for each in sweeps]
    rows = [_row(model, picture, found, *pair) for pair in zip(sweeps, maps, strict=True)]
    images = {"occlusion": _four_panels(model, picture, found, sweeps[0], maps[0], f"{layer}, map {channel}")}
    if len(sides) > 1:
        images["sizes"] = _sizes(picture, sweeps, maps)
    data = found.data() | {"layer": layer, "channel": channel, "colour": list(model.mean), "sizes": rows}
    best = rows[0]["strongest"]
    caption = (
        f"Hiding {sides[0]} x {sides[0]} pixels of {found}: its logit of {found.logit:.3g} falls to {best['logit']:.3g}"
        f" at worst, and the map goes from {span(maps[0])}; {len(places[0])} pictures, check error "
        f"{rows[0]['check_error']:.1g}."
    )
    return Result(images, data, _frames(model, picture, found, sweeps[0]), caption)


def occlusion_map(
    model: Model, picture: Tensor, target: int | str | None = None, *, patch: int = 0, stride: int = 0
) -> Tensor:
    """How much of the class's logit is lost, on average, when a square that covers the pixel is hidden.

    Args:
        model: a classifier.
        picture: (1, 3, H, W), float RGB in [0, 1].
        target: as `Model.class_index`: None for the class with the highest logit.
        patch: side of the square; 0 for a seventh of the picture.
        stride: from one place to the next; 0 for a quarter of the square.

    Returns:
        (H, W), float64: mean over squares of S - S_occluded; below 0 where hiding raises the logit.

    Raises:
        Refused: a network without classes or maps.
        WrongCall: an unknown class; a square that is no part of the picture, or a stride that leaves gaps.
    """
    height, width = picture.shape[2:]
    patch = patch or max(1, min(height, width) // 7)
    windows = Windows.over(height, width, patch, stride or max(1, patch // 4))
    found = answer(model, picture, target)
    return windows.spread(found.logit - sweep(model, picture, found.index, windows).logits, height, width)


def _row(model: Model, picture: Tensor, found: Answer, swept: Sweep, spread: Tensor) -> dict[str, Any]:
    """The numbers of one size."""
    windows = swept.windows
    index = int(swept.logits.argmin())
    place = list(windows)[index]
    alone = answer(model, windows.hide(picture, place, mean_colour(model, picture)), found.index)
    return {
        "patch": windows.patch,
        "stride": windows.stride,
        "pictures": len(windows),
        "tops": list(windows.tops),
        "lefts": list(windows.lefts),
        "logits": swept.logits.tolist(),
        "probabilities": swept.probabilities.tolist(),
        "labels": swept.labels.tolist(),
        "activations": swept.activations.tolist(),
        "names": {str(label): model.class_name(label) for label in sorted(set(swept.labels.flatten().tolist()))},
        "min": float(spread.min()),
        "max": float(spread.max()),
        "strongest": {"box": _box(windows, place, picture), "logit": alone.logit, "probability": alone.probability},
        "check_error": abs(alone.logit - float(swept.logits.flatten()[index])),
    }


def _box(windows: Windows, place: tuple[int, int], picture: Tensor) -> list[int]:
    top, left = place
    height, width = picture.shape[2:]
    return [left, top, min(left + windows.patch, width), min(top + windows.patch, height)]


def _four_panels(model: Model, picture: Tensor, found: Answer, swept: Sweep, spread: Tensor, layer: str) -> Image.Image:
    worst = list(swept.windows)[int(swept.logits.argmin())]
    labels, key = _labels(model, swept.labels)
    fit = _Fit(swept.windows, picture)
    shown = {
        "photo": boxed(to_image(picture), [_box(swept.windows, worst, picture)]),
        "logit lost": overlay(luminance(picture).expand_as(picture), signed_map(spread), 0.6),
        "activation": fit(heat(swept.activations)),
        "probability": fit(heat(swept.probabilities, 0, 1)),
        "most probable": fit(labels),
        "classes": key,
    }
    notes = {
        "photo": f"{found}\nbox: worst place",
        "logit lost": f"{span(spread)}\nred: lost, blue: won",
        "activation": f"{span(swept.activations)}\n{layer}",
        "probability": f"{span(swept.probabilities)}\nblack 0, white 1",
        "most probable": "by place of the square",
    }
    return panel(shown, notes, columns=3)


def _sizes(picture: Tensor, sweeps: list[Sweep], maps: list[Tensor]) -> Image.Image:
    """The maps of all sizes, each on its own scale."""
    names = [f"{each.windows.patch} px" for each in sweeps]
    grey = luminance(picture).expand_as(picture)
    drawn = {name: overlay(grey, signed_map(values), 0.6) for name, values in zip(names, maps, strict=True)}
    return panel(drawn, {name: span(values) for name, values in zip(names, maps, strict=True)})


class _Fit:
    """A picture of one pixel a place, on grey of the photo's size: each pixel around the middle of its square."""

    def __init__(self, windows: Windows, picture: Tensor) -> None:
        self.windows = windows
        self.height, self.width = picture.shape[2:]

    def __call__(self, drawn: Image.Image) -> Image.Image:
        stride, edge = self.windows.stride, (self.windows.patch - self.windows.stride) // 2
        ground = Image.new("RGB", (self.width, self.height), (GREY, GREY, GREY))
        size = drawn.width * stride, drawn.height * stride
        ground.paste(drawn.resize(size, Image.Resampling.NEAREST), (edge, edge))
        return ground


def _labels(model: Model, labels: Tensor) -> tuple[Image.Image, Image.Image]:
    """The most probable class of each place in a colour, the commonest ones first, and which colour is which."""
    commonest = [label for label, _ in Counter(labels.flatten().tolist()).most_common(len(COLOURS) - 1)]
    shades = torch.tensor([tuple(bytes.fromhex(colour[1:])) for colour in COLOURS], dtype=torch.uint8)
    indices = torch.full_like(labels, len(COLOURS) - 1)
    for rank, label in enumerate(commonest):
        indices[labels == label] = rank
    names = [model.class_name(label) for label in commonest]
    names += ["others"] if len(set(labels.flatten().tolist())) > len(commonest) else []
    key = Image.new("RGB", (224, 20 * len(names)), "white")
    draw = ImageDraw.Draw(key)
    for rank, name in enumerate(names):
        colour = COLOURS[rank if rank < len(commonest) else -1]
        draw.rectangle((0, 20 * rank + 3, 13, 20 * rank + 16), fill=colour)
        draw.text((20, 20 * rank + 2), name.encode("ascii", "replace").decode(), fill="black", font=_font())
    return Image.fromarray(np.asarray(shades[indices])), key


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=13)


def _frames(model: Model, picture: Tensor, found: Answer, swept: Sweep) -> list[Image.Image]:
    """The square on its way, beside what is known by then of the class's probability."""
    fit, places = _Fit(swept.windows, picture), list(swept.windows)
    colour = mean_colour(model, picture)
    chosen = range(0, len(places), math.ceil(len(places) / FRAMES))
    height, width = picture.shape[2:]
    frames = []
    for index in chosen:
        known = heat(swept.probabilities, 0, 1)
        pixels = np.asarray(known).copy().reshape(-1, 3)
        pixels[index + 1 :] = GREY
        known = Image.fromarray(pixels.reshape(known.height, known.width, 3))
        frame = Image.new("RGB", (2 * width + 4, height + 20), "white")
        frame.paste(to_image(swept.windows.hide(picture, places[index], colour)), (0, 0))
        frame.paste(fit(known), (width + 4, 0))
        label = model.class_name(int(swept.labels.flatten()[index]))
        text = f"p {float(swept.probabilities.flatten()[index]):.3f}  most probable: {label}"
        ImageDraw.Draw(frame).text((2, height + 2), text.encode("ascii", "replace").decode(), "black", _font())
        frames.append(frame)
    return frames
