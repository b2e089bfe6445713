"""From one neuron back to the picture, plainly or by the rules of guided backpropagation and the deconvnet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from impasto.errors import WrongCall, unknown_name
from impasto.losses import capture
from impasto.visualization.fields import receptive_fields
from impasto.visualization.model import Box, Model
from impasto.visualization.registry import Refused
from impasto.visualization.rules import deconv, guided

RULES = {"plain": None, "guided": guided, "deconv": deconv}
"""How a ReLU passes a gradient back."""

Neurons = Callable[[Tensor], Tensor]
"""From pictures (N, 3, H, W) to the values of neurons, (N, C, h, w) or (N, C)."""

Place = tuple[int, ...]
"""Where a neuron is among those of one picture: (unit, row, column), or (unit,) in a vector."""


@dataclass(frozen=True)
class Projection:
    """What neurons send back to their pictures.

    Attributes:
        pixels: (N, 3, H, W), in the neuron's unit to one of the picture's, which is in [0, 1].
        values: (N,), of the neurons.
        others: activation functions that the rule does not reach, and how often they were called.
    """

    pixels: Tensor
    values: Tensor
    others: dict[str, int]


def neurons_of(model: Model, layer: str = "") -> Neurons:
    """The neurons of a layer, as `impasto.losses.capture` names it; the logits for none. Raises as `capture`."""
    if not layer:
        return model
    features = capture(model, [layer], whole=True)  # a rule looks for ReLUs in all of it
    return lambda pictures: features(pictures)[layer]


def project(neurons: Neurons, pictures: Tensor, places: Sequence[Place], rule: str = "plain") -> Projection:
    """Backpropagate from one neuron for each picture to its pixels: 1 there, 0 at every other neuron.

    Args:
        neurons: of which some are meant.
        pictures: (N, 3, H, W), float RGB in [0, 1].
        places: a neuron for each picture.
        rule: one of `RULES`.

    Raises:
        Refused: a rule for ReLUs, and a network without any.
        WrongCall: an unknown rule.
    """
    if rule not in RULES:
        raise unknown_name("rule", rule, RULES)
    make, others = RULES[rule], dict[str, int]()
    with torch.enable_grad():
        pictures = pictures.detach().requires_grad_()
        if make is None:
            activations = neurons(pictures)
        else:
            with make() as made:
                activations = neurons(pictures)
            others = dict(made.others)
        values = torch.stack([activations[(index, *place)] for index, place in enumerate(places)])
        (pixels,) = torch.autograd.grad(values.sum(), pictures)
    return Projection(pixels, values.detach(), others)


@torch.no_grad()
def place_in(
    model: Model,
    picture: Tensor,
    layer: str,
    unit: int | None = None,
    position: Sequence[int] = (),
    *,
    middle: bool = False,
) -> Place:
    """The neuron of a layer that is meant.

    Args:
        model: to look into.
        picture: (1, 3, H, W), float RGB in [0, 1].
        layer: as `impasto.losses.capture` names it.
        unit: channel; None for the one with the highest value, at ``position`` if that is given.
        position: row and column; none for where the unit is highest.
        middle: without a position, the middle instead.

    Raises:
        Refused: a layer that gives neither maps nor a vector.
        WrongCall: an unknown layer, or a unit or a position that it does not have.
    """
    values = neurons_of(model, layer)(picture)
    if values.ndim not in (2, 4) or len(values) != 1:
        shape = tuple(values.shape)
        raise Refused(f"a neuron: {layer} gives shape {shape}, expected (1, C, h, w) or (1, C); choose another layer")
    units, *size = values.shape[1:]
    if unit is not None and not 0 <= unit < units:
        raise WrongCall(f"unit {unit}: expected 0 to {units - 1} in {layer}")
    if middle and not position:
        position = [side // 2 for side in size]
    if position and not (len(position) == len(size) and all(map(range.__contains__, map(range, size), position))):
        expected = f"a row below {size[0]} and a column below {size[1]}" if size else "none, as it gives a vector"
        raise WrongCall(f"position {','.join(map(str, position))} in {layer}: expected {expected}")
    meant = (slice(None) if unit is None else unit, *position)
    allowed = torch.full_like(values[0], -torch.inf)
    allowed[meant] = values[0][meant]
    return tuple(int(at) for at in torch.unravel_index(allowed.argmax(), allowed.shape))


def neuron_text(layer: str, place: Place) -> str:
    """A neuron in a sentence."""
    return f"unit {place[0]} of {layer}" + (f" at row {place[1]}, column {place[2]}" if place[1:] else "")


def stopped_text(layer: str) -> str:
    """Why nothing may come back from a neuron, and what to do."""
    before = "" if layer.endswith(":in") else f"{layer}:in, which is before it, or "
    return f"a ReLU in between is off, or a ReLU6 is at 6; choose {before}another neuron"


def place_data(place: Place) -> dict[str, Any]:
    """A neuron for a result's data."""
    return {"unit": place[0], "position": list(place[1:])}


def seen_text(data: dict[str, Any]) -> str:
    """What a caption says of a neuron's receptive field, from its data."""
    if data["box"] is None:
        return "it sees the whole picture, as far as is known"
    left, top, right, bottom = data["box"]
    return f"outside the {right - left:.0f}x{bottom - top:.0f} pixels that it can see there is {data['outside']:.3g}"


def box_of(model: Model, layer: str, place: Place) -> Box | None:
    """The receptive field of a neuron in the picture's pixels; None for one that sees everything, or is not known."""
    if len(place) != 3:
        return None
    try:
        field = receptive_fields(model.network, [layer], size=model.size)[layer]
    except Refused:
        return None
    return field.box(*place[1:]) if field else None


def inside(pixels: Tensor, box: Box) -> Tensor:
    """The part of (..., H, W) in a box, which may reach beyond it; a view."""
    left, top, right, bottom = (max(0, int(edge)) for edge in box)
    return pixels[..., top:bottom, left:right]


def largest(pixels: Tensor) -> float:
    """The largest magnitude; 0 of nothing, such as a box that is all in the padding."""
    return float(pixels.abs().max()) if pixels.numel() else 0.0


def largest_outside(pixels: Tensor, box: Box) -> float:
    """The largest magnitude of (..., H, W) outside a box: exactly 0 for a receptive field."""
    outside = pixels.clone()
    inside(outside, box).zero_()
    return largest(outside)
