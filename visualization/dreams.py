"""Dreams of a whole layer or a channel, and of another picture's features."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from impasto.errors import WrongCall
from impasto.losses import capture, clip
from impasto.visualization.drawing import panel
from impasto.visualization.dreaming import Dreamt, Plan, Value, Watch, dream_of, energy, layer_of, norm_of, tiled
from impasto.visualization.inputs import Whole
from impasto.visualization.model import Model
from impasto.visualization.progress import tell
from impasto.visualization.pyramid import resize
from impasto.visualization.registry import Refused, technique
from impasto.visualization.result import Result
from impasto.visualization.scene import fit_within, to_image

FRAMES = 40
"""Frames of a dream at most, after the first."""

FRAME_SIDE = 512
"""Pixels of a frame's longer side at most."""

BLOCK = 2**23
"""Dot products that are held at a time."""


@technique("V26", "synthesis")
def dream(
    model: Model,
    picture: Whole,
    *,
    layer: tuple[str, ...] = (),
    unit: int | None = None,
    octaves: int = 4,
    octave_scale: float = 1.4,
    steps: int = 10,
    rate: float = 1.5,
    jitter: int = 32,
    sweep: bool = False,
    seed: int = 0,
) -> Result:
    """DeepDream: a photo in which a layer sees more of what it sees there already.

    Climbs half the sum of squares of a layer, whose gradient is the layer itself, over the pixels: at each size of the
    photo, from coarse to fine, with jitter and steps of one mean length, in [0, 1]. Low layers draw strokes, middle
    ones eyes and fur, high ones animals and buildings; larger pictures (--size 512) give them more room.

    The photo is whole. Photos of more than 768 pixels a side are given to the network in tiles, so that the network's
    memory does not grow with them. Networks that pad for one size, such as EfficientNet-Lite, run at others too, with
    maps that are misaligned by up to a pixel at the border.

    Source: Mordvintsev, Olah and Tyka 2015, the DeepDream notebook. Differs: octaves are made from the photo, not each
    from the next larger one; of several layers the sum is climbed, to which those with large activations add most.

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        layer: Names as capture has them; by default one in the middle whose dreams are worth seeing.
        unit: Channel of them; none for the whole layer.
        octaves: Sizes of the photo.
        octave_scale: Each is so many times the one before.
        steps: At each size.
        rate: Mean change of a pixel's value in a step, in 1/255.
        jitter: Pixels that the photo is rolled by at most before each step.
        sweep: Dream of each stage of the network too.
        seed: Of the jitter.

    Returns:
        A `Result` with the images ``dream`` (photo and dream), ``picture`` (the dream alone) and with sweep ``layers``;
        the frames are the steps. ``data`` has the octaves (``size``, height and width; ``change``, the mean change of a
        value in a step, which is ``rate`` but for what was clipped), and for each layer its L2 norm before and after
        (``gain``), and, as a control, of the photo with noise of random signs as large as the change
        (``noise_gain``).

    Raises:
        Refused: what never answers in this photo.
        WrongCall: an unknown layer or unit, or a number that cannot be.
    """
    plan, layers = Plan(octaves, octave_scale, steps, rate, jitter), layer or (layer_of(model),)
    film = _Film(picture, plan)
    before = {name: _norm(model, name, unit, picture) for name in layers}
    found = dreamt(picture, energy(model, layers, unit), plan, seed, watch=film)
    noisy = with_noise(picture, float((found.picture - picture).abs().mean()), seed)
    facts = []
    for name, norm in before.items():
        after, noise = (norm_of(model, name, unit, each) for each in (found.picture, noisy))
        gains = {"gain": after / norm, "noise_gain": noise / norm}
        facts.append({"layer": name, "norm_before": norm, "norm_after": after, "norm_noise": noise} | gains)
    what = " and ".join(layers) if unit is None else f"unit {unit} of {' and '.join(layers)}"
    gains_text = ", ".join(f"x{each['gain']:.2f}" for each in facts)
    image = to_image(found.picture)
    images = {"dream": panel({"photo": to_image(picture), what: image}, {what: gains_text}), "picture": image}
    if sweep:
        images["layers"] = _sweep(model, picture, plan, seed)
    data = {"unit": unit, "octaves": found.octaves, "rate": rate, "jitter": jitter, "seed": seed, "layers": facts}
    noise_text = ", ".join(f"x{each['noise_gain']:.2f}" for each in facts)
    caption = f"A dream of {what}: its norm {gains_text}; with noise as large as the change {noise_text}."
    return Result(images, data, film.frames, caption)


@technique("V28", "synthesis")
def guided_dream(
    model: Model,
    picture: Whole,
    *,
    guide: Tensor | None = None,
    layer: str = "",
    octaves: int = 4,
    octave_scale: float = 1.4,
    steps: int = 10,
    rate: float = 1.5,
    jitter: int = 32,
    seed: int = 0,
) -> Result:
    """A dream of what another picture shows: each place grows toward the guide's feature that suits it best.

    Each place of the layer's maps x climbs its dot product with that y of the guide's places that has the largest, so
    that the gradient is y[:, argmax_j x . y_j].

    Source: Mordvintsev, Olah and Tyka 2015, the DeepDream notebook, "Controlling dreams". Otherwise as dream.

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        guide: A picture whose features are wanted; needed.
        layer: Its name; by default one in the middle whose dreams are worth seeing.
        octaves: Sizes of the photo.
        octave_scale: Each is so many times the one before.
        steps: At each size.
        rate: Mean change of a pixel's value in a step, in 1/255.
        jitter: Pixels that the photo is rolled by at most before each step.
        seed: Of the jitter.

    Returns:
        A `Result` with the images ``guided_dream`` (photo, guide, the guided dream and an unguided one of equal steps)
        and ``picture`` (the guided dream alone); the frames are the steps. ``data`` has the octaves as of ``dream``,
        and the mean over places of the largest dot product with the guide's features: ``match_before`` of the photo,
        ``match_after`` of the guided dream, and, as a control, ``match_unguided``.

    Raises:
        Refused: a layer without maps, or one in which the guide is 0 everywhere.
        WrongCall: no guide, an unknown layer, or a number that cannot be.
    """
    if guide is None:
        raise WrongCall("guided dream: got no guide, expected a picture whose features are wanted: --guide FILE")
    plan, layer = Plan(octaves, octave_scale, steps, rate, jitter), layer or layer_of(model)
    film = _Film(picture, plan)
    match = toward(model, layer, guide_features(model, layer, guide))
    found = dreamt(picture, match, plan, seed, watch=film)
    unguided = dreamt(picture, energy(model, [layer]), plan, seed, "steps without the guide")
    places = _places(model, layer, picture)
    with torch.no_grad():
        values = [float(tiled(match, each)) / places for each in (picture, found.picture, unguided.picture)]
    image, names = to_image(found.picture), ("match_before", "match_after", "match_unguided")
    shown = {"photo": to_image(picture), "guide": to_image(guide), "guided": image}
    shown["unguided"] = to_image(unguided.picture)
    shown_as = ("photo", "guided", "unguided")
    notes = {name: f"match {value:.3g}" for name, value in zip(shown_as, values, strict=True)}
    data: dict[str, Any] = {"layer": layer, "octaves": found.octaves, "rate": rate, "jitter": jitter, "seed": seed}
    data |= dict(zip(names, values, strict=True))
    caption = (
        f"A dream of {layer} toward the guide: the mean largest dot product of its places with the guide's goes from "
        f"{values[0]:.3g} to {values[1]:.3g}, in an unguided dream to {values[2]:.3g}."
    )
    images = {"guided_dream": panel(shown, notes), "picture": image}
    return Result(images, data, film.frames, caption)


@torch.no_grad()
def guide_features(model: Model, layer: str, guide: Tensor) -> Tensor:
    """What a layer gives at each place of a guide (1, 3, H, W), as (C, places).

    Raises:
        Refused: a layer without maps, or one that is 0 everywhere.
        WrongCall: an unknown layer.
    """
    maps = capture(model, [layer])(guide)[layer]
    if maps.ndim != 4:
        shape = tuple(maps.shape)
        raise Refused(f"guided dream: {layer} gives shape {shape}, expected maps (1, C, h, w); choose another layer")
    if not maps.any():
        raise Refused(f"guided dream: {layer} is 0 everywhere in the guide; choose another layer")
    return maps[0].flatten(1)


def toward(model: Model, layer: str, guide: Tensor) -> Value:
    """The sum over a layer's places of the largest dot product with a guide's features (C, places)."""
    features = capture(model, [layer])

    def value(image: Tensor) -> Tensor:
        maps = features(image)[layer][0].flatten(1)
        return (maps * matched(maps.detach(), guide)).sum()

    return value


def matched(maps: Tensor, guide: Tensor) -> Tensor:
    """For each place of (C, N) the one of a guide's features (C, M) with the largest dot product: (C, N)."""
    width = max(1, BLOCK // guide.shape[1])
    return torch.cat([guide[:, (guide.T @ part).argmax(0)] for part in torch.split(maps, width, 1)], 1)


def _places(model: Model, layer: str, picture: Tensor) -> int:
    """How many places the maps have, over all tiles."""
    features = capture(model, [layer])
    with torch.no_grad():
        return int(tiled(lambda image: torch.tensor(features(image)[layer][0, 0].numel()), picture))


def _norm(model: Model, layer: str, unit: int | None, picture: Tensor) -> float:
    """Before a dream. Raises Refused if there is nothing to make more of."""
    norm = norm_of(model, layer, unit, picture)
    if norm == 0:
        what = layer if unit is None else f"unit {unit} of {layer}"
        raise Refused(f"a dream: {what} is 0 everywhere in this picture: nothing to make more of; choose another")
    return norm


def dreamt(
    picture: Tensor, value: Value, plan: Plan, seed: int, what: str = "steps", watch: Watch = lambda detail: None
) -> Dreamt:
    """`dream_of` with a seed for its generator; its steps are told as ``what``."""
    total, done = plan.octaves * plan.steps, itertools.count(1)

    def told(detail: Tensor) -> None:
        watch(detail)
        tell(next(done), total, what)

    return dream_of(picture, value, plan, torch.Generator().manual_seed(seed), told)


def with_noise(picture: Tensor, size: float, seed: int) -> Tensor:
    """A picture with noise of random signs, which changes each value by ``size`` unless that is clipped."""
    draws = torch.rand(picture.shape, generator=torch.Generator().manual_seed(seed)).to(picture)
    return clip(picture + (draws - 0.5).sign() * size)


def _sweep(model: Model, picture: Tensor, plan: Plan, seed: int) -> Image.Image:
    """A dream of each stage."""
    shown, notes = {"photo": to_image(picture)}, {}
    for name in model.stages():
        before = norm_of(model, name, None, picture)
        found = dreamt(picture, energy(model, [name]), plan, seed, f"steps of {name}").picture
        shown[name] = to_image(found)
        notes[name] = f"x{norm_of(model, name, None, found) / before:.2f}" if before else "0 everywhere"
    return panel(shown, notes, columns=3)


class _Film:
    """Frames of a dream, of one size: the photo with what was dreamt so far, enlarged."""

    def __init__(self, picture: Tensor, plan: Plan) -> None:
        height, width = picture.shape[2:]
        self.size = fit_within(height, width, min(FRAME_SIDE, max(height, width)))
        self.photo = clip(resize(picture, self.size))
        self.total, self.done = plan.octaves * plan.steps, 0
        self.every = max(1, math.ceil(self.total / FRAMES))
        self.frames = [to_image(self.photo)]

    def __call__(self, detail: Tensor) -> None:
        self.done += 1
        if self.done % self.every == 0 or self.done == self.total:
            self.frames.append(to_image(self.photo + resize(detail, self.size)))
