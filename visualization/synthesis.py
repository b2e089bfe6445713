"""Noise that becomes a texture: painting a style without a photo, with any network's layers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from impasto.errors import WrongCall
from impasto.images import MIN_SIDE
from impasto.losses import LossTerms, capture, lbfgs
from impasto.visualization.brush import Brush, Watch
from impasto.visualization.model import Model
from impasto.visualization.objective import PaintObjective
from impasto.visualization.painting import HISTORY, MIRRORED, stages_of, start_picture
from impasto.visualization.progress import tell
from impasto.visualization.registry import Refused
from impasto.visualization.rules import average_pooling
from impasto.visualization.scene import Scene
from impasto.visualization.vgg import vgg_features

VGG19 = ("relu1_1", "pool1", "pool2", "pool3", "pool4")
"""The layers of Gatys et al. 2015."""


@dataclass(frozen=True)
class Plan:
    """How a texture is made.

    Attributes:
        layers: weight of each by name.
        steps: at the full size.
        smallest: long side in pixels below which no coarser size is begun with.
        pooling: "avg" or "max".
        convention: "relative" or "gatys".
        frames: pictures of the way to keep.
        seed: of the noise.

    Raises:
        WrongCall: a number that cannot be.
    """

    layers: Mapping[str, float]
    steps: int = 100
    smallest: int = 32
    pooling: str = "avg"
    convention: str = "relative"
    frames: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.smallest < MIN_SIDE or self.frames < 0:
            raise WrongCall(
                f"texture: got steps {self.steps}, smallest {self.smallest}, frames {self.frames}; "
                f"expected steps >= 1, smallest >= {MIN_SIDE}, frames >= 0"
            )
        if not all(0 <= weight < math.inf for weight in self.layers.values()):
            raise WrongCall(f"texture: got layers {dict(self.layers)}, expected finite weights from 0 up")


@dataclass(frozen=True)
class Texture:
    """What came of a `Plan`.

    Attributes:
        picture: (1, 3, H, W) in [0, 1].
        terms: how far it is from the source, layer by layer.
        of_noise: how far noise of this size is.
        of_shuffled: how far the source with its pixels shuffled is.
        frames: pictures of the way.
        losses: the objective after each step.
        evaluations: of the objective.
    """

    picture: Tensor
    terms: LossTerms
    of_noise: LossTerms
    of_shuffled: LossTerms
    frames: list[Image.Image]
    losses: list[float]
    evaluations: int

    @property
    def drop(self) -> float:
        """How many times nearer than noise it is."""
        return _ratio(self.of_noise.total, self.terms.total)

    @property
    def shuffled(self) -> float:
        """The objective as a part of the shuffled source's: what is left when the colours are right."""
        return _ratio(self.terms.total, self.of_shuffled.total)

    def data(self) -> dict[str, Any]:
        """The numbers, by the names of layers."""
        layers = {name.removeprefix("style/"): name for name in self.terms.raw}
        return {
            "objective": float(self.terms.total),
            "raw": {layer: float(self.terms.raw[name]) for layer, name in layers.items()},
            "drop": self.drop,
            "drops": {layer: _ratio(self.of_noise.raw[name], self.terms.raw[name]) for layer, name in layers.items()},
            "of_shuffled": self.shuffled,
            "losses": self.losses,
            "evaluations": self.evaluations,
        }


def synthesise(
    model: Model, source: Tensor, size: tuple[int, int], plan: Plan, done: int = 0, runs: int = 1
) -> Texture:
    """A texture like a source, as `impasto.visualization.paint` paints a style where there is no content.

    Args:
        model: whose layers.
        source: (1, 3, H, W), float RGB in [0, 1], on the model's device.
        size: height and width of the texture.
        plan: the rest.
        done: of several runs that are one to whoever watches, those before.
        runs: how many.

    Raises:
        WrongCall: a layer that the network does not have; one without maps; a size that cannot be.
    """
    if min(size) < MIN_SIDE:
        raise WrongCall(f"side: got {min(size)}, expected {MIN_SIDE} pixels or more, or 0 for the picture's own")
    objective = PaintObjective(
        features_of(model, list(plan.layers), plan.pooling, source),
        content={},
        style=plan.layers,
        convention=plan.convention,
        mirrored=MIRRORED if plan.convention == "relative" else 0,
    )
    scene = Scene(source.new_zeros(1, 3, *size), (source,), ("source",), (1.0,), (None,))
    stages = stages_of(size, plan.steps, plan.smallest)
    each = sum(stage.steps for stage in stages)
    steps = itertools.count(done * each + 1)
    watch = Watch(frames=plan.frames, progress=lambda *_: tell(next(steps), runs * each, "steps"))
    brush = Brush(scene, objective, lbfgs(HISTORY), watch=watch)
    picture = brush.paint(start_picture("noise", scene, stages[0].size, plan.seed), stages)
    if brush.interrupted:
        raise KeyboardInterrupt
    with torch.no_grad():
        judge = scene.at(size, objective)
        noise = start_picture("noise", scene, size, plan.seed)
        terms, of_noise, of_shuffled = map(judge, (picture, noise, shuffled(source, plan.seed)))
    losses = [loss for *_, loss in brush.trace]
    return Texture(picture, terms, of_noise, of_shuffled, brush.frames, losses, brush.trace[-1][1])


def features_of(model: Model, layers: Sequence[str], pooling: str, picture: Tensor) -> Any:
    """The layers of a model as `PaintObjective` takes them: ``features(pictures, layers)``, and what it asks of them.

    Of VGG-19 they are those that paint: `impasto.visualization.vgg.vgg_features`.
    """
    return vgg_features(model, pooling) or _Captured(model, layers, pooling, picture)


class _Captured:
    """Any network's layers. They are never cut into parts, so it takes no more than this to find them."""

    architecture = "network"

    def __init__(self, model: Model, layers: Sequence[str], pooling: str, picture: Tensor) -> None:
        self.layers, self.stride = list(layers), dict.fromkeys(layers, 1)
        self._capture = capture(model, layers)
        self.pooling = average_pooling if pooling == "avg" else nullcontext
        try:
            self(picture, layers)
        except Refused:  # it has no max-pooling
            self.pooling = nullcontext

    def __call__(self, pictures: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        with self.pooling():
            found = self._capture(pictures)
        return {layer: found[layer] for layer in layers}


def shuffled(picture: Tensor, seed: int) -> Tensor:
    """The same pixels (1, 3, H, W) in random places."""
    order = torch.randperm(picture.shape[2] * picture.shape[3], generator=torch.Generator().manual_seed(seed))
    return picture.flatten(2)[..., order.to(picture.device)].view_as(picture)


def match_histogram(picture: Tensor, source: Tensor) -> Tensor:
    """A picture with the histogram of a source in each channel: its values' ranks, the source's values.

    Args:
        picture: (1, 3, H, W).
        source: (1, 3, H', W').

    Returns:
        Like ``picture``. With as many pixels as the source it has exactly its values, otherwise its quantiles.
    """
    values, goal = picture.flatten(2), source.flatten(2).sort(2).values
    ranks = values.argsort(dim=2, stable=True).argsort(dim=2)
    places = (ranks.double() + 0.5) * goal.shape[2] / values.shape[2] - 0.5
    return goal.gather(2, places.round().long().clamp(0, goal.shape[2] - 1)).view_as(picture)


def _ratio(above: Tensor, below: Tensor) -> float:
    return float(above) / max(float(below), 1e-30)
