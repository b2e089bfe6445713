"""Which pixels a class's logit depends on, to first order."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from impasto.errors import WrongCall
from impasto.visualization.answers import answer
from impasto.visualization.colours import luminance
from impasto.visualization.drawing import heat, overlay, panel, span
from impasto.visualization.model import Model
from impasto.visualization.progress import track
from impasto.visualization.registry import technique
from impasto.visualization.result import Result
from impasto.visualization.scene import to_image

STEP = 0.002
"""Length (L2, in pixel values) of the step that checks a gradient."""


@technique("V13", "attribution")
def saliency(
    model: Model,
    picture: Tensor,
    *,
    target: int | str | None = None,
    method: Literal["plain", "smooth", "times_input"] = "plain",
    samples: int = 25,
    noise: float = 0.15,
    seed: int = 0,
    clip: float = 0.99,
) -> Result:
    """How much a class's logit changes with each pixel: the gradient's largest channel.

    M = max over channels of |d S / d x|, S before softmax, x in pixels from 0 to 1. A network that normalises its
    pictures has another gradient behind the normalisation (divided by no std), and the maximum may be another channel.

    Source: Simonyan et al. 2014, section 3. smooth: Smilkov et al. 2017, the mean gradient of noisy copies.
    times_input: Shrikumar et al. 2016, gradient times pixel value (black pixels get 0).

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        target: The class: its index, its name or how its name begins; by default the one with the highest logit.
        method: Of the gradient: as it is, averaged over noisy copies, or times the picture.
        samples: Noisy copies, with smooth.
        noise: Their standard deviation as a part of the picture's range, with smooth.
        seed: Of the noise.
        clip: Drawn white from this quantile of the map on.

    Returns:
        A `Result` with the images ``saliency`` (photo, map, overlay) and ``map``. ``data`` has the class, its logit,
        the map's numbers, and ``slope_error``: how far the logit's change over a small step along the plain gradient
        is from what the gradient says, as a part of it.

    Raises:
        Refused: a network without classes.
        WrongCall: an unknown class; no sample; a quantile or noise that cannot be.
    """
    if not 0 < clip <= 1:
        raise WrongCall(f"clip: got {clip}, expected a quantile above 0 and up to 1")
    found = answer(model, picture, target)
    values = saliency_map(model, picture, found.index, method=method, samples=samples, noise=noise, seed=seed).cpu()
    top = float(torch.quantile(values.double(), clip))
    drawn = heat(values, 0, top)
    shown = {
        "photo": to_image(picture),
        method.replace("_", " "): drawn,
        "overlay": overlay(luminance(picture).expand_as(picture), drawn, 0.6),
    }
    notes = {"photo": str(found), method.replace("_", " "): span(values), "overlay": f"white from {top:.3g} on"}
    error = slope_error(model, picture, found.index)
    data = found.data() | {
        "method": method,
        "min": float(values.min()),
        "max": float(values.max()),
        "mean": float(values.mean()),
        "white_from": top,
        "clip": clip,
        "slope_error": error,
    }
    data |= {"samples": samples, "noise": noise, "seed": seed} if method == "smooth" else {}
    caption = (
        f"Saliency of {found} ({method.replace('_', ' ')}), from {span(values)}; over a small step "
        f"the logit follows the gradient to {error:.1g} of it."
    )
    return Result({"saliency": panel(shown, notes), "map": drawn}, data, caption=caption)


def saliency_map(
    model: Model,
    picture: Tensor,
    target: int | str | None = None,
    *,
    method: str = "plain",
    samples: int = 25,
    noise: float = 0.15,
    seed: int = 0,
) -> Tensor:
    """The largest magnitude over the channels of the class's gradient.

    Args:
        model: a classifier.
        picture: (1, 3, H, W), float RGB in [0, 1].
        target: as `Model.class_index`: None for the class with the highest logit.
        method: "plain", "smooth" or "times_input", as of `saliency`.
        samples: with smooth.
        noise: with smooth.
        seed: with smooth.

    Returns:
        (H, W), at least 0.

    Raises:
        Refused: a network without classes.
        WrongCall: an unknown class; no sample, or less than no noise.
    """
    if method == "smooth":
        target = answer(model, picture, target).index
        gradient = _smoothed(model, picture, target, samples, noise, seed)
    else:
        gradient = class_gradient(model, picture, target)
    if method == "times_input":
        gradient = gradient * picture.detach()
    return gradient[0].abs().amax(0)


def class_gradient(model: Model, picture: Tensor, target: int | str | None = None) -> Tensor:
    """d (logit of a class) / d (pixel), (1, 3, H, W): of the logit, not of a probability; target as `saliency_map`."""
    with torch.enable_grad():
        picture = picture.detach().requires_grad_()
        logits = model(picture)
        (gradient,) = torch.autograd.grad(logits[0, model.class_index(target, logits)], picture)
    return gradient


def _smoothed(model: Model, picture: Tensor, target: int, samples: int, noise: float, seed: int) -> Tensor:
    """The mean gradient of copies with normal noise."""
    if samples < 1 or noise < 0:
        raise WrongCall(f"saliency: got {samples} samples and noise {noise}, expected samples >= 1 and noise >= 0")
    generator = torch.Generator().manual_seed(seed)
    deviation = noise * float(picture.max() - picture.min())
    total = torch.zeros_like(picture)
    for _ in track(range(samples), samples, "noisy copies"):
        drawn = torch.randn(picture.shape, generator=generator).to(picture)
        total += class_gradient(model, picture + deviation * drawn, target)
    return total / samples


@torch.no_grad()
def slope_error(model: Model, picture: Tensor, target: int) -> float:
    """|change of the logit per length along the gradient - the gradient's length| / its length; 0 for no gradient."""
    gradient = class_gradient(model, picture, target)
    length = gradient.norm()
    if length == 0:
        return 0.0
    step = STEP * gradient / length
    change = (model(picture + step) - model(picture - step))[0, target] / (2 * STEP)
    return float((change - length).abs() / length)
