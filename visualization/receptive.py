"""Where a unit looks: the receptive field that the graph allows, and the one that training made of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from impasto.losses import capture
from impasto.visualization.drawing import boxed, heat, panel, span
from impasto.visualization.fields import Field, receptive_fields
from impasto.visualization.inputs import Pictures
from impasto.visualization.model import Box, Model
from impasto.visualization.plots import plot
from impasto.visualization.registry import Refused, technique
from impasto.visualization.result import Result

EFFECTIVE = 1 - 0.9545
"""Pixels above this part of the peak belong to the effective receptive field (Luo et al. 2016: two sigma)."""


@technique("V06", "activations")
def receptive_field(model: Model, *, layers: tuple[str, ...] = ()) -> Result:
    """What a unit of each layer can see at most: size, stride and start, exact for any network.

    Source: the definition. Differs from the usual formula for chains in that it is measured, so that branches count.

    Args:
        layers: As capture has them; none for the last of each stage.

    Returns:
        A `Result` with the images ``boxes`` (the middle unit's box of each layer on the picture's frame) and ``curve``.
        ``data`` has a row for each layer: ``rf``, ``stride`` and ``start``, each down and across; "global" for one that
        sees everything.

    Raises:
        Refused: a network that has no receptive fields (attention), or cannot run on larger pictures.
        WrongCall: an unknown layer.
    """
    names = list(layers) or model.stages()
    fields = receptive_fields(model.network, names, size=model.size)
    rows = [_row(layer, field) for layer, field in fields.items()]
    sized = {layer: field for layer, field in fields.items() if field is not None}
    images: dict[str, Image.Image] = {"boxes": _boxes(model, fields)}
    if sized:
        points = [(float(index), float(field.size[0])) for index, field in enumerate(sized.values())]
        images["curve"] = plot({"receptive field": points}, x="layer", y="pixels")
    text = ", ".join(f"{layer} {_size_text(field)}" for layer, field in fields.items())
    return Result(images, {"size": model.size, "layers": rows}, caption=f"Receptive fields in pixels: {text}.")


def _row(layer: str, field: Field | None) -> dict[str, Any]:
    if field is None:
        return {"layer": layer, "rf": "global"}
    return {"layer": layer, "rf": list(field.size), "stride": list(field.stride), "start": list(field.start)}


def _size_text(field: Field | None) -> str:
    if field is None:
        return "global"
    return str(field.size[0]) if field.size[0] == field.size[1] else f"{field.size[0]}x{field.size[1]}"


def _boxes(model: Model, fields: dict[str, Field | None]) -> Image.Image:
    """For each layer the frame of a picture, grey, and in it the middle unit's box, cut where it reaches beyond."""
    shapes = model.layers()
    frames = {}
    for layer, field in fields.items():
        image = Image.new("RGB", (model.size, model.size), (128, 128, 128))
        left, top, right, bottom = 0, 0, model.size, model.size
        if field is not None and len(shapes.get(layer, ())) == 3:
            _, height, width = shapes[layer]
            edges = field.box(height // 2, width // 2)
            left, top, right, bottom = (min(max(round(edge), 0), model.size) for edge in edges)
            image.paste((225, 225, 225), (left, top, right, bottom))
        frames[layer] = boxed(image, [(left, top, right, bottom)])
    return panel(frames, {layer: _size_text(field) for layer, field in fields.items()})


@technique("V06", "activations")
def effective_receptive_field(
    model: Model,
    pictures: Pictures = Pictures(),  # noqa: B008 - frozen
    *,
    layer: str = "",
    count: int = 20,
    seed: int = 0,
) -> Result:
    """How much the middle unit of a layer really depends on each pixel, beside what it can see at most.

    Source: Luo et al. 2016: |d(sum of the unit's channels) / d(pixel)|, its mean over channels and pictures; the field
    is where it is above 1 - 0.9545 of its peak.

    Args:
        pictures: Photos; none for noise of the network's own mean and standard deviation.
        layer: As capture has it; empty for the middle stage.
        count: So many photos at most, or pictures of noise.
        seed: Of the noise.

    Returns:
        A `Result` with the image ``field``: the mean gradient, and the box of the receptive field. ``data`` has ``rf``,
        ``area_root`` (the square root of the effective field's pixels), their ``ratio``, and ``sigma`` (down, across)
        of a Gaussian with the same variance; and the largest value ``outside`` the box, which is 0.

    Raises:
        Refused: a layer without maps, one that sees everything, or a network that takes no larger pictures.
        WrongCall: an unknown layer.
    """
    stages = model.stages()
    layer = layer or (stages[len(stages) // 2] if stages else "")
    field = receptive_fields(model.network, [layer], size=model.size)[layer]
    if field is None:
        raise Refused(
            f"effective receptive field: {layer} sees the whole picture, or has no maps; choose an earlier layer"
        )
    step = max(field.stride)
    size = max(model.size, math.ceil((max(field.size) + 2 * step) / 32) * 32)
    values, box = effective_field(model, layer, _pictures(model, pictures, size, count, seed), field)
    inside = int((values > EFFECTIVE * values.max()).sum())
    sigma = _sigma(values)
    data = {
        "layer": layer,
        "rf": list(field.size),
        "pictures": min(count, len(pictures)) or count,
        "noise": not len(pictures),
        "size": size,
        "box": list(box),
        "area_root": math.sqrt(inside),
        "ratio": math.sqrt(inside / math.prod(field.size)),
        "sigma": list(sigma),
        "outside": _largest_outside(values, box),
    }
    caption = (
        f"The middle unit of {layer} can see {_size_text(field)} pixels; {math.sqrt(inside):.1f} squared of them "
        f"matter ({data['ratio']:.0%} of the side), like a Gaussian of {sigma[0]:.1f} and {sigma[1]:.1f} pixels."
    )
    drawn = {
        "mean gradient": boxed(heat(values), [box], width=1),
        "its square root": boxed(heat(values.sqrt()), [box], width=1),
    }
    notes = {"mean gradient": span(values), "its square root": span(values.sqrt())}
    return Result({"field": panel(drawn, notes)}, data, caption=caption)


def _pictures(model: Model, pictures: Pictures, size: int, count: int, seed: int) -> Iterable[Tensor]:
    """Photos enlarged to ``size``, or noise, one at a time."""
    if len(pictures):
        chosen = Pictures(pictures.paths[:count])
        for _, photo in chosen.batches(model, 1):
            yield F.interpolate(photo, (size, size), mode="bilinear")
        return
    generator = torch.Generator().manual_seed(seed)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.mean, model.std))
    for _ in range(count):
        yield (mean + std * torch.randn(1, 3, size, size, generator=generator)).clamp(0, 1).to(model.device)


def effective_field(model: nn.Module, layer: str, pictures: Iterable[Tensor], field: Field) -> tuple[Tensor, Box]:
    """The mean of |d(unit) / d(pixel)| over channels and pictures, for the middle unit of a layer.

    Args:
        model: takes the pictures.
        layer: as `impasto.losses.capture` reads it.
        pictures: (N, 3, H, W) each, of one size, at least one.
        field: the layer's receptive field.

    Returns:
        (H, W), and the unit's box.

    Raises:
        Refused: the network does not take pictures of this size.
    """
    features = capture(model, [layer])
    total, seen = torch.zeros(()), 0
    unit = (0, 0)
    for given in pictures:
        picture = given.detach().requires_grad_()
        try:
            activation = features(picture)[layer]
        except RuntimeError as error:
            size = "x".join(map(str, picture.shape[2:]))
            raise Refused(f"effective receptive field: the network takes no pictures of {size}") from error
        unit = activation.shape[2] // 2, activation.shape[3] // 2
        (gradient,) = torch.autograd.grad(activation[:, :, unit[0], unit[1]].sum(), picture)
        total = total.to(gradient) + gradient.abs().mean(1).sum(0)
        seen += len(picture)
    return (total / seen).cpu(), field.box(*unit)


def _sigma(values: Tensor) -> tuple[float, float]:
    """Standard deviations down and across of a map taken as a distribution."""
    weights = values.double() / values.double().sum()
    found = []
    for axis in (1, 0):
        profile = weights.sum(axis)
        places = torch.arange(len(profile), dtype=torch.float64)
        mean = (profile * places).sum()
        found.append(float((profile * (places - mean).square()).sum().sqrt()))
    return found[0], found[1]


def _largest_outside(values: Tensor, box: Box) -> float:
    left, top, right, bottom = (max(0, round(edge)) for edge in box)
    outside = values.clone()
    outside[top:bottom, left:right] = 0
    return float(outside.max())
