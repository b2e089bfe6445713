"""What a layer still knows of a photo: pictures whose features there are the photo's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from impasto.errors import WrongCall
from impasto.losses import Step
from impasto.losses.perceptual import Features
from impasto.visualization.answers import Answer, answer
from impasto.visualization.drawing import panel
from impasto.visualization.inputs import Whole
from impasto.visualization.judging import rounded
from impasto.visualization.model import Model
from impasto.visualization.progress import tell
from impasto.visualization.reconstruction import (
    Decode,
    Prior,
    continued,
    features_of,
    inverted,
    psnr,
    relative_error,
    start_of,
)
from impasto.visualization.registry import Refused, technique
from impasto.visualization.result import Result
from impasto.visualization.scene import to_image

VGG19 = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
"""The layers of VGG-19 that are inverted where none are named."""

FRAMES = 24
"""Pictures of the way, at most."""


@technique("V24", "synthesis")
def invert(
    model: Model,
    picture: Whole,
    *,
    layers: tuple[str, ...] = (),
    steps: int = 200,
    tv: float = 0.1,
    growth: float = 100.0,
    beta: float = 2.0,
    norm: float = 0.0,
    alpha: float = 6.0,
    box: float = 0.0,
    canvas: Literal["fourier", "pixel"] = "fourier",
    noise: float = 0.1,
    mirrored: int = 0,
    seed: int = 0,
    judge: Model | None = None,
) -> Result:
    """Pictures whose features in a layer are the photo's: what that layer still knows of it, and what no longer.

    For each layer L-BFGS with the strong Wolfe line search minimises

    |F - P|^2 / |P|^2 + tv growth^d mean((dx^2 + dy^2)^(beta / 2)) + norm mean(|2 x - 1|^alpha) + box mean(distance^2)

    with F the picture's features, P the photo's, d the layer's place in the network from 0 to 1, and the distance of a
    pixel from [0, 1]. The first two terms are those of `paint`: with vgg19, a photo whose long side is the size, and
    the options canvas pixel, noise 1, mirrored 8, growth 1 it is, bit for bit, ``paint(photo, ..., style_weight=0,
    init="noise", smallest=size, precision="float32", content_layers={layer: 1})`` of the same size, tv, steps and seed.

    Source: Mahendran and Vedaldi 2015, equation 2. Differs from it in the means of the regularisers (which then weigh
    the same at any size), in L-BFGS instead of momentum, and by default in what is optimised and in pixels that cannot
    leave [0, 1] (norm and box are there for the paper's way). That tv grows a hundredfold with depth is in the authors'
    code, deep-goggle.

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        layers: Which; empty for relu1_1 to relu5_1 of vgg19, and for the stages and the logits of another network.
        steps: Of L-BFGS, for each layer.
        tv: Weight of the total variation at the network's first layer.
        growth: How many times more it is at the last.
        beta: Its exponent, from 1 (edges stay sharp, and single pixels stick out) to 2 (smooth), or more.
        norm: Weight of the alpha-norm about mid-grey.
        alpha: Its exponent.
        box: Weight of the distance from the range of pixels; 0 to keep them in it at each step (canvas pixel).
        canvas: What is optimised: Fourier coefficients, which find coarse shapes and colours as easily as fine
            patterns; or pixels, as in the paper, which from deep layers end in fine patterns alone.
        noise: The start, mid-grey with noise: uniform in pixels, of this range; or normal, of this deviation.
        mirrored: Pixels by which the picture is continued by reflection before the network sees it.
        seed: Of the noise.
        judge: Another network, to say what it sees in each picture; none for the model itself if it has classes.

    Returns:
        A `Result` with the image ``inversions`` (photo and a picture for each layer) and one for each layer, and frames
        of the way. ``data`` has for each layer the ``relative_error`` |F - P|^2 / |P|^2 of the picture in 8 bits, that
        of the start, the ``psnr`` to the photo in dB (at most 99), and the class that is seen in it.

    Raises:
        Refused: a network without stages, if no layers are named; a judge without classes.
        WrongCall: an unknown layer, or a number that cannot be.
    """
    photo = picture.detach()
    chosen = layers or _default_layers(model)
    prior = Prior(tv, beta, norm, alpha, box)
    start, decode = start_of(photo, canvas, noise, seed)
    features = continued(features_of(model), mirrored, photo)
    judge = judge or (model if _has_classes(model, photo) else None)
    weights = tv_weights(model, chosen, tv, growth)
    found = [
        _inversion(features, photo, layer, replace(prior, tv=weight), start, decode, steps, index, len(chosen))
        for index, (layer, weight) in enumerate(weights.items())
    ]
    seen = _answers(judge, model, [photo, *(each.picture for each in found)])
    data = {
        "layers": [
            each.data() | ({} if answered is None else {"class": answered.index, "name": answered.name})
            for each, answered in zip(found, seen[1:], strict=True)
        ],
        "photo": {} if seen[0] is None else {"class": seen[0].index, "name": seen[0].name},
        "size": list(photo.shape[2:]),
        "growth": growth,
        "canvas": canvas,
        "noise": noise,
        "mirrored": mirrored,
        "seed": seed,
    } | vars(prior)
    strips = _strips(photo, found, seen)
    names = [each.layer.replace(":", "_").replace("@", "_") for each in found]
    pictures = dict(zip(["inversions", *names], [strips[-1], *(to_image(each.picture) for each in found)], strict=True))
    first, last = found[0], found[-1]
    caption = (
        f"From {first.layer} the photo comes back at {first.psnr:.1f} dB, from {last.layer} at {last.psnr:.1f} dB; "
        f"their features there are the photo's but for {first.error:.2g} and {last.error:.2g} of their square"
        + (f" (the start's: {first.start_error:.2g} and {last.start_error:.2g})." if steps else ".")
    )
    return Result(pictures, data, strips, caption)


@dataclass(frozen=True)
class Inversion:
    """A picture made from a layer's features.

    Attributes:
        layer: its name.
        picture: (1, 3, H, W) in [0, 1], rounded to 8 bits.
        error: |F - P|^2 / |P|^2 of it.
        start_error: the same of the start.
        psnr: to the photo, in dB, at most 99.
        tv_weight: weight of the total variation.
        losses: the objective after each step.
        evaluations: of the objective.
        way: some of the pictures on the way, the start first.
    """

    layer: str
    picture: Tensor
    error: float
    start_error: float
    psnr: float
    tv_weight: float
    losses: list[float]
    evaluations: int
    way: list[Tensor]

    def data(self) -> dict[str, Any]:
        """The numbers."""
        return {
            "layer": self.layer,
            "relative_error": self.error,
            "start_error": self.start_error,
            "psnr": self.psnr,
            "tv_weight": self.tv_weight,
            "losses": self.losses,
            "evaluations": self.evaluations,
        }


def _inversion(
    features: Features,
    photo: Tensor,
    layer: str,
    prior: Prior,
    start: Tensor,
    decode: Decode,
    steps: int,
    index: int,
    count: int,
) -> Inversion:
    """`inverted`, watched and measured; the layer is one of ``count``."""
    way, losses, evaluations = [decode(start)], [math.inf], [0]

    def watch(step: Step) -> None:
        losses.append(step.loss)
        evaluations.append(step.evaluations)
        if FRAMES * step.index // steps > FRAMES * (step.index - 1) // steps:
            way.append(decode(step.image).clone())
        tell(index * steps + step.index, count * steps, "steps")

    with torch.no_grad():
        targets = {layer: features(photo, [layer])[layer].contiguous()}  # as `PaintObjective` has them, to the bit
    made = rounded(inverted(features, targets, start=start, decode=decode, steps=steps, prior=prior, on_step=watch))
    error, before = (relative_error(features, layer, image, photo) for image in (made, way[0]))
    return Inversion(layer, made, error, before, psnr(made, photo), prior.tv, losses[1:], evaluations[-1], way)


def tv_weights(model: Model, layers: Sequence[str], tv: float, growth: float) -> dict[str, float]:
    """The weight of the total variation for each layer: ``tv`` at the network's first, ``tv * growth`` at its last."""
    if not 0 < growth < math.inf:
        raise WrongCall(f"growth: got {growth}, expected more than 0")
    order = list(model.layers())
    places = {layer: order.index(layer) if layer in order else len(order) - 1 for layer in layers}
    return {layer: tv * growth ** (place / max(1, len(order) - 1)) for layer, place in places.items()}


def _default_layers(model: Model) -> tuple[str, ...]:
    known = model.layers()
    if set(VGG19) <= set(known):
        return VGG19
    stages = model.stages()
    if not stages:
        raise Refused("invert: this network has no stages of maps; name its layers (impasto see activation-maps)")
    return (*stages, model.head.linear) if model.head else tuple(stages)


@torch.no_grad()
def _has_classes(model: Model, photo: Tensor) -> bool:
    logits: Tensor = model(photo)
    return logits.ndim == 2


def _answers(judge: Model | None, model: Model, pictures: Sequence[Tensor]) -> list[Answer | None]:
    """What a network sees in pictures (1, 3, H, W); of another network than theirs, cropped as it wants photos."""
    if judge is None:
        return [None] * len(pictures)
    if judge is model:
        return [answer(judge, rounded(picture)) for picture in pictures]
    return [answer(judge, judge.read(to_image(picture))) for picture in pictures]


def _strips(photo: Tensor, found: Sequence[Inversion], seen: Sequence[Answer | None]) -> list[Image.Image]:
    """Photo and layers side by side, on the way and in the end, with the numbers of the end."""
    names = [each.layer for each in found]
    notes = ["", *(f"{each.psnr:.1f} dB, error {each.error:.2g}" for each in found)]
    notes = [
        "\n".join(filter(None, [note, str(answered) if answered else ""]))
        for note, answered in zip(notes, seen, strict=True)
    ]
    labels = dict(zip(["photo", *names], notes, strict=True))
    moments = [[each.way[moment] for each in found] for moment in range(len(found[0].way))]
    return [
        panel(
            {name: to_image(image) for name, image in zip(labels, [photo, *images], strict=True)},
            labels,
            columns=len(labels),
        )
        for images in [*moments, [each.picture for each in found]]
    ]
