"""Which pixels move one neuron, and how what is sent back to a picture is drawn."""

from __future__ import annotations

from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from impasto.visualization.drawing import boxed, panel, signed_rgb, span
from impasto.visualization.drawing import unit as scaled
from impasto.visualization.model import Box, Model
from impasto.visualization.projections import (
    Neurons,
    Place,
    box_of,
    inside,
    largest,
    largest_outside,
    neuron_text,
    neurons_of,
    place_data,
    place_in,
    project,
    seen_text,
    stopped_text,
)
from impasto.visualization.registry import Refused, technique
from impasto.visualization.result import Result
from impasto.visualization.scene import to_image

DEVIATIONS = 5
"""So many standard deviations are drawn full at the scale "std": x / std / 10 + 1/2, as it is usually drawn."""

STEP = 0.005
"""Length (L2, in pixel values) of the step that checks a gradient."""


@technique("V17", "attribution")
def neuron_gradient(
    model: Model,
    picture: Tensor,
    *,
    layer: str = "",
    unit: int | None = None,
    position: tuple[int, ...] = (),
    at: Literal["highest", "middle"] = "highest",
    start: Literal["one", "activation"] = "one",
    scale: Literal["max", "std"] = "std",
) -> Result:
    """Which pixels move one neuron of any layer, and which way.

    The gradient of the neuron, after Simonyan et al. 2014 for a class, with respect to pixels from 0 to 1.

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        layer: Its name, name@2 (its second call) or name:in (what goes into it); empty for the middle stage.
        unit: Channel; none for the one with the highest value.
        position: Row and column; none for at.
        at: Where the unit is highest, or in the middle of its map.
        start: What is sent back from the neuron: 1, or its activation, as the deep visualization toolbox does.
        scale: Drawn full: the largest magnitude, or 5 standard deviations of what the neuron sees.

    Returns:
        A `Result` with the images ``neuron_gradient`` (photo and maps with the neuron's receptive field), ``signed``
        (RGB around mid-grey, which is 0) and ``magnitude`` (the largest of the three channels). ``data`` has the neuron
        and its value, the least and the greatest gradient, what is drawn full (``limit``), the receptive field
        (``box``; None for a neuron that sees everything), the largest magnitude ``outside`` it, which is 0, and
        ``slope_error``: how far the neuron's change over a small step along the gradient is from what the gradient
        says, as a part of it.

    Raises:
        Refused: a layer without maps or a vector; a neuron that no pixel moves, such as one behind a ReLU that is off,
            or a ReLU6 that is at 6.
        WrongCall: an unknown layer, or a unit or a position that it does not have.
    """
    layer = layer or _middle_stage(model)
    place = place_in(model, picture, layer, unit, position, middle=at == "middle")
    neurons, name = neurons_of(model, layer), neuron_text(layer, place)
    found = project(neurons, picture, [place])
    value = float(found.values)
    if not found.pixels.any():
        raise Refused(f"neuron gradient: no pixel moves {name} (value {value:.3g}): {stopped_text(layer)}")
    pixels = found.pixels * (value if start == "activation" else 1)
    images, data = drawn(picture, pixels, scale, box_of(model, layer, place))
    data = {"layer": layer, **place_data(place), "value": value, "start": start} | data
    data["slope_error"] = _slope_error(neurons, picture, place, found.pixels)
    caption = (
        f"The gradient of {name}, {value:.3g}, from {span(pixels)}; along it the neuron changes as it says to "
        f"{data['slope_error']:.1%}; {seen_text(data)}."
    )
    return Result({"neuron_gradient": images.pop("sheet")} | images, data, caption=caption)


def _middle_stage(model: Model) -> str:
    if not (stages := model.stages()):
        raise Refused("neuron gradient: this network has no stages of maps; name a layer")
    return stages[len(stages) // 2]


@torch.no_grad()
def _slope_error(neurons: Neurons, picture: Tensor, place: Place, pixels: Tensor) -> float:
    """|change of the neuron per length along its gradient - the gradient's length| / its length."""
    length = pixels.norm()
    step = STEP * pixels / length
    ahead, behind = (neurons(picture + sign * step)[(0, *place)] for sign in (1, -1))
    return float(((ahead - behind) / (2 * STEP) - length).abs() / length)


def full_at(pixels: Tensor, scale: str, box: Box | None = None) -> float:
    """The magnitude that is drawn full: the largest, or at "std" 5 standard deviations in the box if that is less."""
    seen = pixels if box is None else inside(pixels, box)
    limit = largest(seen)
    if limit and scale == "std":
        limit = min(limit, DEVIATIONS * float(seen.std(correction=0)))
    return limit or 1.0


def drawn(
    picture: Tensor, pixels: Tensor, scale: str, box: Box | None
) -> tuple[dict[str, Image.Image], dict[str, Any]]:
    """What was sent back to a picture, (1, 3, H, W) both, as images and numbers.

    Args:
        picture: float RGB in [0, 1].
        pixels: signed.
        scale: "max" or "std".
        box: the neuron's receptive field, if it has one.

    Returns:
        The images ``sheet``, ``signed`` and ``magnitude``; and ``min``, ``max``, ``scale``, ``limit`` (drawn full),
        ``box`` and ``outside``.
    """
    magnitude, limit = pixels.abs().amax(1)[0], full_at(pixels, scale, box)
    grey = scaled(magnitude, 0.0, limit).expand(1, 3, -1, -1)
    images = {"signed": signed_rgb(pixels, limit), "magnitude": to_image(grey)}
    full = f"full at {limit:.3g}" + (f" ({DEVIATIONS} std)" if limit < magnitude.max() else "")
    notes = {"signed": f"{span(pixels)}\n{full}", "magnitude": f"{span(magnitude)}\n{full}"}
    plain = {"photo": to_image(picture.detach())} | images
    shown = plain if box is None else {name: boxed(image, [box]) for name, image in plain.items()}
    large = {} if box is None else _enlarged(plain, box)
    data: dict[str, Any] = {
        "min": float(pixels.min()),
        "max": float(pixels.max()),
        "scale": scale,
        "limit": limit,
        "box": None if box is None else list(box),
        "outside": None if box is None else largest_outside(pixels, box),
    }
    return {"sheet": panel(shown | large, notes, columns=3)} | images, data


def _enlarged(images: dict[str, Image.Image], box: Box) -> dict[str, Image.Image]:
    """What is in a box, as large as the images; nothing if the box is nearly as large itself."""
    width, height = images["photo"].size
    left, top, right, bottom = max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])
    zoom = min(width / (right - left), height / (bottom - top))
    if zoom < 1.5:
        return {}
    size = round((right - left) * zoom), round((bottom - top) * zoom)
    return {
        f"{name} in the box": image.resize(size, Image.Resampling.NEAREST, (left, top, right, bottom))
        for name, image in images.items()
    }
