"""Dreams: what layers see in a picture, made more of, from coarse to fine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from impasto.errors import WrongCall
from impasto.losses import capture, clip, optimize_image, steepest
from impasto.losses.optimize import Step
from impasto.visualization.model import Model
from impasto.visualization.pyramid import resize
from impasto.visualization.transforms import jitter

SMALLEST = 8
"""Height and width in pixels of an octave at least."""

TILE = 768
"""Pictures of more pixels a side are given to the network in tiles, which bounds the memory by that of one tile."""

LAYERS = ("_blocks.9", "relu4_3", "inception4c", "layer3", "features.7")
"""Whose dreams are worth seeing: the first of them that a network has."""

Value = Callable[[Tensor], Tensor]
"""From a picture (1, 3, H, W) to a number."""

Watch = Callable[[Tensor], None]
"""Called after each step with what was dreamt so far: its difference (1, 3, h, w) from the octave's base."""


@dataclass(frozen=True)
class Plan:
    """How a dream goes on.

    Attributes:
        octaves: sizes of the picture, each ``octave_scale`` times the one before.
        octave_scale: more than 1.
        steps: at each size.
        rate: mean change of a value in a step, in 1/255.
        jitter: pixels that the picture is rolled by at most before a step.

    Raises:
        WrongCall: a value that cannot be.
    """

    octaves: int = 4
    octave_scale: float = 1.4
    steps: int = 10
    rate: float = 1.5
    jitter: int = 32

    def __post_init__(self) -> None:
        for name, least in (("octaves", 1), ("steps", 0), ("rate", 0), ("jitter", 0)):
            if not least <= getattr(self, name) < math.inf:
                raise WrongCall(f"{name}: got {getattr(self, name)}, expected {least} or more")
        if not 1 < self.octave_scale < math.inf:
            raise WrongCall(f"octave_scale: got {self.octave_scale}, expected more than 1")

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Height and width of each octave, round(side / octave_scale^k), from the coarsest to the picture's own.

        Raises:
            WrongCall: the coarsest would be under 8 pixels.
        """
        scales = [self.octave_scale**octave for octave in reversed(range(self.octaves))]
        sizes = [(round(height / scale), round(width / scale)) for scale in scales]
        if min(sizes[0]) < SMALLEST:
            raise WrongCall(
                f"octaves: {self.octaves} of a picture of {width} x {height} begin at {sizes[0][1]} x {sizes[0][0]} "
                f"pixels, expected {SMALLEST} or more; choose fewer, or a larger size"
            )
        return sizes


@dataclass(frozen=True)
class Dreamt:
    """What came of a dream.

    Attributes:
        picture: (1, 3, H, W), in [0, 1].
        octaves: for each its ``size`` (height, width) and ``change``, the mean change of a value in a step, in 1/255.
    """

    picture: Tensor
    octaves: list[dict[str, Any]]


def dream_of(
    picture: Tensor, value: Value, plan: Plan, generator: torch.Generator, watch: Watch = lambda detail: None
) -> Dreamt:
    """Climb a value over the pixels, octave after octave.

    At each size the dream starts from the picture at that size, the base, plus what the octave before added to its own
    base, enlarged: so the picture itself is never enlarged, and stays
    as sharp as it is; without steps nothing changes.

    Source: Mordvintsev, Olah and Tyka 2015, the DeepDream notebook: L1-normalised steps, jitter, octaves.

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        value: what is made larger; of large pictures the sum over tiles (`tiled`).
        plan: steps and octaves.
        generator: of the jitter.
        watch: called after each step.

    Raises:
        WrongCall: as `Plan.sizes`.
    """
    sizes = plan.sizes(picture.shape[2], picture.shape[3])
    detail = torch.zeros_like(resize(picture, sizes[0]))
    octaves = []
    for size in sizes:
        base = clip(resize(picture, size))
        begun = clip(base + F.interpolate(detail, size, mode="bilinear", align_corners=False))
        follower = _Follower(begun, base, watch)
        found = optimize_image(
            begun,
            lambda image: -tiled(value, image),
            step=steepest(plan.rate / 255, "l1"),
            steps=plan.steps,
            transforms=jitter(plan.jitter, generator),
            project=clip,
            on_step=follower,
        )
        detail = found - base
        octaves.append({"size": list(size), "change": follower.change})
    return Dreamt(found, octaves)


class _Follower:
    """Measures steps, and says to ``watch`` what they have added to the base."""

    def __init__(self, begun: Tensor, base: Tensor, watch: Watch) -> None:
        self.before, self.base, self.watch = begun, base, watch
        self.changes: list[float] = []

    def __call__(self, step: Step) -> None:
        self.changes.append(255 * float((step.image - self.before).abs().mean()))
        self.before = step.image.clone()
        self.watch(self.before - self.base)

    @property
    def change(self) -> float:
        """Mean change of a value in a step, in 1/255."""
        return sum(self.changes) / max(1, len(self.changes))


def tiled(value: Value, image: Tensor, side: int = TILE) -> Tensor:
    """The sum of a value over tiles of a picture (1, 3, H, W), as few and as equal ones as have ``side`` at most.

    The graph of a tile is built again when its gradient is wanted, so that there is never more than one. A tile does
    not see its neighbours; jitter moves the seams from step to step.
    """
    rows, columns = (math.ceil(length / side) for length in image.shape[2:])
    if rows == columns == 1:
        return value(image)
    tiles = [tile for band in image.tensor_split(rows, 2) for tile in band.tensor_split(columns, 3)]
    parts = [checkpoint(value, tile, use_reentrant=False, preserve_rng_state=False) for tile in tiles]
    return torch.stack(parts).sum()


def energy(model: Model, layers: Sequence[str], unit: int | None = None) -> Value:
    """Half the sum of squares of what layers give: its gradient with respect to them is what they give.

    Args:
        model: to look into.
        layers: as `impasto.losses.capture` has them.
        unit: one channel of each; None for all.

    Raises:
        WrongCall: an unknown layer; when run, a unit that a layer does not have.
    """
    features = capture(model, layers)

    def value(image: Tensor) -> Tensor:
        found = features(image)
        for layer, maps in found.items():
            if unit is not None and not 0 <= unit < maps.shape[1]:
                raise WrongCall(f"unit {unit}: expected 0 to {maps.shape[1] - 1} in {layer}")
        chosen = [maps if unit is None else maps[:, unit] for maps in found.values()]
        return torch.stack([maps.square().sum() / 2 for maps in chosen]).sum()

    return value


@torch.no_grad()
def norm_of(model: Model, layer: str, unit: int | None, picture: Tensor) -> float:
    """The length (L2) of what a layer, or one channel of it, gives for a picture; of a large one over its tiles."""
    return math.sqrt(2 * float(tiled(energy(model, [layer], unit), picture)))


def layer_of(model: Model) -> str:
    """The layer to dream of where none is named: one that is known for it, or the middle stage.

    Raises:
        WrongCall: a network without stages of maps.
    """
    layers, stages = model.layers(), model.stages()
    found = [layer for layer in LAYERS if layer in layers] + stages[len(stages) // 2 :]
    if not found:
        raise WrongCall("a dream: this network has no stages of maps; name a layer")
    return found[0]
