"""Pictures that move a unit of any layer most: optimised from noise, and held against the best of many photos."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from impasto.errors import WrongCall
from impasto.losses import Step, adam, capture, optimize_image, steepest
from impasto.sheets import tiled
from impasto.visualization.canvas import FourierCanvas, PixelCanvas
from impasto.visualization.drawing import grid
from impasto.visualization.fields import Field, box_seen, receptive_fields
from impasto.visualization.goals import Goal, goal_of
from impasto.visualization.inputs import Pictures
from impasto.visualization.judging import rounded
from impasto.visualization.model import Box, Model
from impasto.visualization.progress import tell, track
from impasto.visualization.projections import Neurons, inside, largest_outside, stopped_text
from impasto.visualization.registry import Refused, technique
from impasto.visualization.result import Result
from impasto.visualization.rules import woken
from impasto.visualization.scene import to_image
from impasto.visualization.transforms import Transform, compose, jitter, random_affine

REDIRECTED = 16
"""Steps at first in which a gradient also passes ReLUs that are off, so that a unit that nothing moves wakes up."""

LAST = 1 / 4
"""Of the steps, at the end and without transforms, which bring the value up by a fifth and change little to look at."""

AT_ONCE = 9
"""Pictures that are optimised side by side."""

LEAST = 128
"""Height and width in pixels of a picture at least, if the network's own are not smaller."""

MULTIPLE = 32
"""Of so many pixels they are, unless they are the network's own: then all usual networks pad as in those."""

DEVIATION = 0.01
"""Of the normal noise that pictures start from."""

TILE = 96
"""Height and width in pixels of a picture on the sheet at least."""

FRAMES = 30
"""Of the animation, about."""


@technique("V23", "synthesis")
def neuron_image(
    model: Model,
    pictures: Pictures = Pictures(),  # noqa: B008 - frozen
    *,
    layer: str = "",
    of: Literal["channel", "neuron", "layer", "direction"] = "channel",
    units: tuple[int, ...] = (),
    coefficients: tuple[float, ...] = (),
    count: int = 9,
    canvas: Literal["fourier", "pixels"] = "fourier",
    steps: int = 128,
    jitter: int = 8,
    degrees: float = 5.0,
    scale: float = 0.05,
    seed: int = 0,
) -> Result:
    """What picture moves a unit of any layer most: optimised from noise.

    It climbs the unit's mean over the map (channel); its value in the middle, of which only what that neuron sees is
    shown (neuron); half the sum of squares of all units, its mean over the map (layer); or the dot product with a
    combination of units times their cosine, its mean over the map (direction). In the first 16 steps the gradient also
    passes ReLUs that are off; the last quarter of the steps is without transforms. All start from the same noise: a
    picture does not depend on those beside it. Without any transforms (jitter, degrees and scale 0) the value is
    higher, and more of the picture is noise.

    Source: Erhan et al. 2009; Yosinski et al. 2015; Olah et al. 2017, and lucid, optvis. Differs from lucid in its
    transforms: a picture is rolled around, not padded, and turned and scaled less.

    Args:
        pictures: Photos to hold it against: the highest value in any of them, of a neuron at any place.
        layer: Its name, name@2 (its second call) or name:in (what goes into it); empty for the middle stage.
        of: What is made large.
        units: Channels, a picture for each; none for the first few. Of a direction: those that it combines.
        coefficients: Of the units of a direction; none for 1 each.
        count: How many without units: of the first channels, or of random directions.
        canvas: What is optimised: Fourier coefficients of decorrelated colours, or pixels.
        steps: Of Adam (fourier), or of steepest ascent (pixels).
        jitter: Pixels that a picture is rolled by at most before each step; of a neuron 1/16 of what it sees at most.
        degrees: By how much it is turned before each step, at most.
        scale: By what part it is scaled before each step, at most.
        seed: Of the noise, the transforms and random directions.

    Returns:
        A `Result` with the image ``neuron_image``, a sheet with the values, and each picture by itself, such as
        ``channel_3``; the frames show the way there. ``data`` has for each of ``found`` its ``unit`` or its
        ``coefficients``; its ``value`` in 8 bits as it is shown (for a neuron: on a ground of the network's mean), and
        at the ``start``; the unit that is ``highest`` there; whether nothing moved it (``still``); with photos the
        highest value in one, ``photo``, its ``path``, and the ``ratio`` to it (None if that is not above 0). ``size``
        is the side of the optimised picture, ``box`` what of it is shown, and ``outside`` how far a pixel elsewhere is
        from its start: by exactly 0, on pixels without transforms (None: on another canvas).

    Raises:
        Refused: a layer without maps or numbers; one of which no pixel moves what is asked for.
        WrongCall: an unknown layer or unit; coefficients that are not as many as units; a number that cannot be.
        PictureError: a photo that cannot be read.
    """
    stages = model.stages()
    layer = layer or (stages[len(stages) // 2] if stages else "")
    plan = Plan(canvas, steps, jitter, degrees, scale, seed)
    view, channels = _view(model, layer, of, plan)
    if of == "neuron":
        plan = replace(plan, jitter=min(jitter, int(view.box[2] - view.box[0]) // 16))
    goal = goal_of(of, channels, units, coefficients, count, seed)
    parts = goal.split(AT_ONCE)
    climbs = [_climb(view, part, plan, index * steps, len(parts) * steps) for index, part in enumerate(parts)]
    found = [each for part, climb in zip(parts, climbs, strict=True) for each in _measured(view, part, climb)]
    if all(each["still"] for each in found):
        raise Refused(f"neuron image: no pixel moves what is asked for of {layer}: {stopped_text(layer)}")
    found = [each | rival for each, rival in zip(found, _rivals(model, layer, goal, pictures, found), strict=True)]
    pixels = canvas == "pixels"
    data: dict[str, Any] = {
        "layer": layer,
        "of": of,
        "size": view.side,
        "box": list(view.box),
        "outside": max(largest_outside(climb.pictures - climb.start, view.box) for climb in climbs) if pixels else None,
        "found": found,
    }
    tiles = torch.cat([inside(view.shown(climb.pictures), view.box) for climb in climbs])
    names = [_name(of, each, index) for index, each in enumerate(found)]
    images = {"neuron_image": _sheet(tiles, [_label(*each) for each in zip(names, found, strict=True)])}
    images |= {name: to_image(tile[None]) for name, tile in zip(names, tiles, strict=True)}
    frames = [
        grid(torch.cat(tiles), side=TILE).image for tiles in zip(*(climb.frames for climb in climbs), strict=True)
    ]
    return Result(images, data | vars(plan), frames, _caption(layer, of, found, len(pictures)))


@dataclass(frozen=True)
class Plan:
    """How pictures are optimised, as of `neuron_image`.

    Raises:
        WrongCall: a number that cannot be.
    """

    canvas: str
    steps: int
    jitter: int
    degrees: float
    scale: float
    seed: int

    def __post_init__(self) -> None:
        limits = {"steps": (1, math.inf), "jitter": (0, math.inf), "degrees": (0, 180), "scale": (0, 0.9)}
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                raise WrongCall(f"{name}: got {getattr(self, name)}, expected {least} to {most}")

    def transforms(self, generator: torch.Generator) -> Transform:
        """What a picture goes through before each step."""
        turned = [random_affine(self.degrees, self.scale, generator)] if self.degrees or self.scale else []
        return compose(jitter(self.jitter, generator), *turned)


@dataclass(frozen=True)
class _View:
    """A layer, (N, C, h, w) for square pictures of a size, and the part of them that is shown."""

    maps_of: Neurons
    side: int
    box: Box
    mean: tuple[float, ...]
    device: torch.device

    def shown(self, pictures: Tensor) -> Tensor:
        """In 8 bits, the mean colour around what is shown."""
        ground = pictures.new_tensor(self.mean).view(1, 3, 1, 1).expand_as(pictures).clone()
        inside(ground, self.box).copy_(inside(rounded(pictures), self.box))
        return ground


def _view(model: Model, layer: str, of: str, plan: Plan) -> tuple[_View, int]:
    """What is looked at, and how many channels it has."""
    maps_of, field = _maps_of(model, layer), _field(model, layer)
    side = _side(model, field, plan)
    with torch.no_grad():
        _, channels, height, width = maps_of(torch.zeros(1, 3, side, side, device=model.device)).shape
    box = box_seen(field if of == "neuron" else None, side, height // 2, width // 2)
    return _View(maps_of, side, box, model.mean, model.device), channels


def _maps_of(model: Model, layer: str) -> Neurons:
    """The layer's maps; those of a vector have one place."""
    features = capture(model, [layer]) if layer else None

    def maps(pictures: Tensor) -> Tensor:
        values = features(pictures)[layer] if features else model(pictures)
        if values.ndim not in (2, 4) or len(values) != len(pictures):
            shape = tuple(values.shape)
            raise Refused(f"neuron image: {layer} gives shape {shape}, expected (N, C, h, w) or (N, C)")
        return values[:, :, None, None] if values.ndim == 2 else values

    return maps


def _field(model: Model, layer: str) -> Field | None:
    try:
        return receptive_fields(model.network, [layer], size=model.size)[layer] if layer else None
    except Refused:
        return None


def _side(model: Model, field: Field | None, plan: Plan) -> int:
    """Of a picture in which the middle unit sees no border, if the network's own is not smaller."""
    if field is None:
        return model.size
    needed = max(LEAST, max(field.size) + 2 * max(field.stride) + 2 * plan.jitter)
    return min(model.size, MULTIPLE * math.ceil(needed / MULTIPLE))


@dataclass(frozen=True)
class _Climb:
    """Pictures (K, 3, side, side) at the start and at the end, and what is shown of them on the way."""

    start: Tensor
    pictures: Tensor
    frames: list[Tensor]


def _climb(view: _View, goal: Goal, plan: Plan, before: int, total: int) -> _Climb:
    """Optimise a picture for each; ``before`` of the ``total`` steps of all were done before."""
    generator = torch.Generator().manual_seed(plan.seed)
    size = view.side, view.side
    canvas = FourierCanvas(*size) if plan.canvas == "fourier" else PixelCanvas(*size, view.mean)
    start = canvas.start(generator, DEVIATION).to(view.device)
    start = start.expand(len(goal.vectors), *start.shape[1:])
    frames: list[Tensor] = []
    moved, steps = plan.transforms(generator), itertools.count()

    def transforms(numbers: Tensor) -> Tensor:
        picture = canvas.picture(numbers)
        return moved(picture) if next(steps) < (1 - LAST) * plan.steps else picture

    evaluations = itertools.count()

    def objective(pictures: Tensor) -> Tensor:
        maps = woken(view.maps_of, pictures) if next(evaluations) < REDIRECTED else view.maps_of(pictures)
        return -goal.climbed(maps).sum()

    def on_step(step: Step) -> None:
        tell(before + step.index, total, "steps")
        if step.index % math.ceil(plan.steps / FRAMES) == 0:
            frames.append(inside(canvas.picture(step.image), view.box).cpu())

    found = optimize_image(
        start,
        objective,
        step=adam(0.05) if isinstance(canvas, FourierCanvas) else steepest(0.05, "l2"),
        steps=plan.steps,
        transforms=transforms,
        project=canvas.within if isinstance(canvas, PixelCanvas) else None,
        on_step=on_step,
    )
    return _Climb(canvas.picture(start), canvas.picture(found), frames)


def _measured(view: _View, goal: Goal, climb: _Climb) -> list[dict[str, Any]]:
    """What is said of each picture as it is shown; still is one that no pixel moves, and not above its start."""
    shown = view.shown(climb.pictures).requires_grad_()
    maps = view.maps_of(shown)
    values = goal.values(maps).diagonal()
    (gradient,) = torch.autograd.grad(values.sum(), shown)
    with torch.no_grad():
        starts = goal.values(view.maps_of(climb.start)).diagonal()
    still = ~gradient.flatten(1).any(1) & (values <= starts)
    numbers = zip(goal.data(maps.detach()), starts.tolist(), values.tolist(), still.tolist(), strict=True)
    return [said | {"start": start, "value": value, "still": stopped} for said, start, value, stopped in numbers]


@torch.no_grad()
def _rivals(
    model: Model, layer: str, goal: Goal, pictures: Pictures, found: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """For each picture the highest value in a photo, which photo, and how many times that it is; {} without photos."""
    maps_of, best = _maps_of(model, layer), [(-math.inf, 0)] * len(found)
    for indices, images in track(pictures.batches(model, 16), math.ceil(len(pictures) / 16), "photos"):
        highest, rows = goal.values(maps_of(images), anywhere=True).max(0)
        here = zip(highest.tolist(), (rows + indices.start).tolist(), strict=True)
        best = [max(before, now, key=lambda each: each[0]) for before, now in zip(best, here, strict=True)]
    if not len(pictures):
        return [{}] * len(found)
    return [
        {"photo": value, "path": str(pictures.paths[index]), "ratio": each["value"] / value if value > 0 else None}
        for each, (value, index) in zip(found, best, strict=True)
    ]


def _name(of: str, found: dict[str, Any], index: int) -> str:
    return "layer" if of == "layer" else f"{of}_{found.get('unit', index)}"


def _label(name: str, found: dict[str, Any]) -> str:
    value = "nothing moves it" if found["still"] else f"{found['value']:.3g}"
    rival = f"\nphotos up to {found['photo']:.3g}" if "photo" in found else ""
    return f"{name.replace('_', ' ')}: {value}{rival}"


def _sheet(tiles: Tensor, labels: list[str]) -> Image.Image:
    zoom = max(1, math.ceil(TILE / min(tiles.shape[2:])))
    return tiled([to_image(tile[None].repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)) for tile in tiles], labels)


def _caption(layer: str, of: str, found: list[dict[str, Any]], photos: int) -> str:
    what = "all units" if of == "layer" else f"{len(found)} {of}{'s' if len(found) > 1 else ''}"
    caption = f"What moves {what} of {layer} most: {_between([each['value'] for each in found])} in 8 bits"
    ratios = [each["ratio"] for each in found if each.get("ratio") is not None]
    caption += f", {_between(ratios)} times the best of {photos} photos" if ratios else ""
    if "unit" in found[0]:
        own = sum(each["highest"] == each["unit"] for each in found)
        caption += f"; in {own} of {len(found)} the unit is the highest of all"
    still = sum(each["still"] for each in found)
    return caption + (f"; nothing moves {still}" if still else "") + "."


def _between(values: list[float]) -> str:
    return f"{min(values):.3g} to {max(values):.3g}" if len(values) > 1 else f"{values[0]:.3g}"
