"""A picture that a network takes for a class of one's choice, made from a photo or from nothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from impasto.errors import WrongCall
from impasto.losses import Step, clip, optimize_image, steepest
from impasto.visualization.judging import rounded
from impasto.visualization.model import Model
from impasto.visualization.outcomes import outcome
from impasto.visualization.panda import attack_result
from impasto.visualization.perturbations import LEVEL, check_range, log_odds, target_of
from impasto.visualization.plots import plot
from impasto.visualization.progress import tell
from impasto.visualization.registry import Refused, technique
from impasto.visualization.result import Result

NOTHING = torch.empty(0)
"""Where there is no photo: noise."""


@technique("V33", "fooling")
def fool(
    model: Model,
    picture: Tensor = NOTHING,
    *,
    target: int | str | None = None,
    confidence: float | None = None,
    rate: float | None = None,
    steps: int = 100,
    seed: int = 0,
    judge: Model | None = None,
) -> Result:
    """A photo, or noise, changed by gradient ascent until the network says the class of one's choice.

    A photo goes along g / |g|, g the gradient of the class's cross-entropy up to a factor (`log_odds`); noise (every
    value uniform in [0, 1]) along its signs. What counts is the picture rounded to 8 bits. Nothing of the class is to
    be seen in it: another network, asked with judge, does not see it.

    Sources: Szegedy et al. 2014 and Nguyen et al. 2015; the photo's steps are the ones of the course EECS-498 (A6),
    whose length of 1 behind a normalisation is a root mean square of about 0.15/255 in a picture of 224 pixels.
    Differs from the course's in that the other classes are pushed down, too: along the class's logit alone one that is
    like it may stay ahead (SqueezeNet, from a cat to a stingray: a puffer, for 100 steps and more).

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1]; noise if there is none.
        target: The class: its index, its name or how its name begins; by default the one with the lowest logit.
        confidence: The probability to stop at; by default the photo's stop is being first, the noise's 0.99.
        rate: Of each step, in steps of an 8-bit picture (1/255): the root mean square over a photo's values, by default
            0.15; each of the noise's values, by default 2.
        steps: How many are taken at most.
        seed: Of the noise, and of the control's random signs.
        judge: A second network that says what it sees in the two pictures, such as efficientnet_lite1.

    Returns:
        A `Result` with the images ``fool`` (start + perturbation = adversarial), ``adversarial``, ``perturbation`` and
        ``logits``: of the target and of the best other class, at the start and after each step. ``data`` has what came
        of it (`Outcome.data`), those logits as ``trajectory``, and ``steps`` taken.

    Raises:
        Refused: a network without classes; a start from which no value moves the class; a judge that does not know the
            class.
        WrongCall: a class that is unknown, or is what the network says already; a rate, confidence or number of steps
            that cannot be.
    """
    photo = picture.numel() > 0
    start = picture if photo else _noise(model, seed)
    check_range(start)
    start = rounded(start)
    confidence = confidence if confidence is not None else 0.0 if photo else 0.99
    rate = rate if rate is not None else 0.15 if photo else 2.0
    if not 0 < rate <= 255 or steps < 1 or not 0 <= confidence < 1:
        raise WrongCall(
            f"fool: got rate {rate}, {steps} steps and confidence {confidence}; expected a rate above 0 and up to 255, "
            "1 step or more, a confidence from 0 to below 1"
        )
    index = target_of(model, start, target)
    found, curves = _climbed(model, start, index, photo=photo, confidence=confidence, rate=rate, steps=steps)
    result = outcome(model, start, rounded(found), target=index, norm="l2", judge=judge, seed=seed)
    beginning = "photo" if photo else "noise"
    data = {"from": beginning, "confidence": confidence, "rate": rate, "steps": len(curves["target"]) - 1, "seed": seed}
    drawn = plot({name: list(enumerate(values)) for name, values in curves.items()}, x="step", y="logit")
    return attack_result("fool", result, data | {"trajectory": curves}, first=beginning, images={"logits": drawn})


def _climbed(
    model: Model, start: Tensor, index: int, *, photo: bool, confidence: float, rate: float, steps: int
) -> tuple[Tensor, dict[str, list[float]]]:
    """The picture at the end, not rounded, and the logits on the way of the same, rounded."""
    wanted = torch.tensor([index], device=start.device)
    least = math.log(confidence / (1 - confidence)) if confidence else -math.inf
    curves: dict[str, list[float]] = {"target": [], "best other": []}

    @torch.no_grad()
    def look(shown: Tensor) -> bool:
        """Note what the network says, and whether that is enough."""
        logits = model(rounded(shown)).double()
        values = logits[0, index], logits[0].scatter(0, wanted, -torch.inf).max()
        for curve, value in zip(curves.values(), values, strict=True):
            curve.append(float(value))
        return bool(values[0] > values[1]) and float(log_odds(logits, wanted)) >= least

    def there(step: Step) -> bool:
        tell(step.index, steps, "steps")
        return look(step.image)

    look(start)
    rule = steepest(rate * LEVEL, "l2" if photo else "sign")
    found = optimize_image(
        start,
        lambda shown: -log_odds(model(shown), wanted).sum(),
        step=rule,
        steps=steps,
        project=clip,
        stop=there,
    )
    if torch.equal(found, start):
        raise Refused("fool: no value of this picture moves the class: the network's gradient is 0; use another one")
    return found, curves


def _noise(model: Model, seed: int) -> Tensor:
    drawn = torch.rand(1, 3, model.size, model.size, generator=torch.Generator().manual_seed(seed))
    return drawn.to(model.device)
