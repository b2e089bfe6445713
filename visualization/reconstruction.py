"""A picture with given features: the loop behind inversion and pre-images, what it asks of a picture, and measures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from impasto.errors import WrongCall
from impasto.losses import (
    LossTerms,
    PerceptualLoss,
    Step,
    capture,
    clip,
    content_loss,
    lbfgs,
    optimize_image,
)
from impasto.losses.functional import check_beta
from impasto.losses.perceptual import Features
from impasto.visualization.canvas import FourierCanvas
from impasto.visualization.model import Model
from impasto.visualization.painting import HISTORY
from impasto.visualization.vgg import vgg_features

SAME = 99.0
"""PSNR in dB of two pictures that are the same, or nearer to it than this."""

Decode = Callable[[Tensor], Tensor]
"""Makes a picture of the numbers that are optimised."""


def as_it_is(picture: Tensor) -> Tensor:
    """The numbers are the picture."""
    return picture


@dataclass(frozen=True)
class Prior:
    """What is asked of a picture besides its features; the options of `invert`.

    Raises:
        WrongCall: a weight under 0 or an exponent under 1.
    """

    tv: float = 0.1
    beta: float = 2.0
    norm: float = 0.0
    alpha: float = 6.0
    box: float = 0.0

    def __post_init__(self) -> None:
        check_beta(self.beta)
        if not all(0 <= weight < math.inf for weight in (self.tv, self.norm, self.box)) or not self.alpha >= 1:
            raise WrongCall(
                f"invert: got tv {self.tv}, norm {self.norm}, alpha {self.alpha}, box {self.box}; "
                "expected finite weights from 0 up, alpha >= 1"
            )

    def of_range(self, image: Tensor) -> LossTerms:
        """The terms that keep pixels in range: ``norm`` and ``box``, those that have a weight."""
        raw = {
            "norm": (2 * image - 1).abs().pow(self.alpha).mean(),
            "box": (image - image.clamp(0, 1)).square().mean(),
        }
        weights = {name: getattr(self, name) for name in raw if getattr(self, name)}
        return LossTerms({name: raw[name] for name in weights}, weights)


def inverted(
    features: Features,
    targets: Mapping[str, Tensor],
    *,
    start: Tensor,
    weights: Mapping[str, float] | None = None,
    decode: Decode = as_it_is,
    steps: int = 100,
    prior: Prior | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Tensor:
    """A picture with given features: what `invert` and `hog_preimage` minimise, and how.

    Args:
        features: ``features(pictures, layers) -> dict``, such as `VGGFeatures`.
        targets: the features by layer, (1, C, h, w) each.
        start: (1, 3, H, W), or what ``decode`` makes one of.
        weights: of each layer; None for 1.
        decode: numbers such as ``start`` to a picture; by default they are the picture.
        steps: of L-BFGS.
        prior: what else is asked of the picture; its ``tv`` is the weight here.
        on_step: called after each step.

    Returns:
        (1, 3, H, W), in [0, 1] unless ``prior.box`` or ``decode`` lets it leave.
    """
    prior = prior or Prior()
    loss = PerceptualLoss(features, weights or dict.fromkeys(targets, 1.0), tv=prior.tv, beta=prior.beta)

    def objective(numbers: Tensor) -> LossTerms:
        image = decode(numbers)
        terms, more = loss(image, targets), prior.of_range(image)
        return LossTerms({**terms.raw, **more.raw}, {**terms.weights, **more.weights})

    project = clip if decode is as_it_is and not prior.box else None
    return decode(optimize_image(start, objective, step=lbfgs(HISTORY), steps=steps, project=project, on_step=on_step))


@torch.no_grad()
def relative_error(features: Features, layer: str, image: Tensor, photo: Tensor) -> float:
    """|F - P|^2 / |P|^2 in a layer, with F the features of a picture and P the photo's, both (1, 3, H, W)."""
    ours, theirs = (features(each, [layer])[layer] for each in (image, photo))
    return float(content_loss(ours, theirs))


def psnr(image: Tensor, photo: Tensor) -> float:
    """Peak signal to noise ratio of two pictures in [0, 1], in dB, at most 99: -10 log10 of the mean square error."""
    error = float((image - photo).double().square().mean())
    return min(SAME, -10 * math.log10(error)) if error else SAME


def start_of(photo: Tensor, canvas: str, noise: float, seed: int) -> tuple[Tensor, Decode]:
    """Numbers to begin with, and what makes a picture of a photo's size of them; options of `invert`."""
    if not 0 <= noise <= 1:
        raise WrongCall(f"noise: got {noise}, expected a range from 0 to 1")
    generator = torch.Generator().manual_seed(seed)
    if canvas == "fourier":
        coefficients = FourierCanvas(photo.shape[2], photo.shape[3])
        return coefficients.start(generator, noise).to(photo), coefficients.picture
    return (0.5 + noise * (torch.rand(photo.shape, generator=generator) - 0.5)).to(photo), as_it_is


def features_of(model: Model) -> Features:
    """A model's features by the names of its layers, as `PerceptualLoss` takes them; what is no map becomes one.

    Of VGG-19 they are those that paint: `impasto.visualization.vgg.vgg_features`.
    """
    vgg = vgg_features(model)
    if vgg is not None:
        return vgg

    def features(images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        found = capture(model, layers)(images)
        return {name: maps if maps.ndim == 4 else maps.flatten(1)[..., None, None] for name, maps in found.items()}

    return features


def continued(features: Features, pixels: int, photo: Tensor) -> Features:
    """The same of pictures that are continued by reflection, so that zero padding does not meet their edge."""
    if not 0 <= pixels < min(photo.shape[2:]):
        raise WrongCall(f"mirrored: got {pixels} pixels, expected 0 to {min(photo.shape[2:]) - 1}, less than a side")
    if not pixels:
        return features
    return lambda images, layers: features(F.pad(images, [pixels] * 4, mode="reflect"), layers)
