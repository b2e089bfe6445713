"""Attacks within a size: one step, many steps, and towards the class that a network finds least likely."""

from __future__ import annotations

import functools
from typing import Any, Literal

import torch
from torch import Tensor

from impasto.losses import Step
from impasto.visualization.answers import answer
from impasto.visualization.model import Model
from impasto.visualization.outcomes import Outcome, outcome
from impasto.visualization.panda import attack_result
from impasto.visualization.perturbations import flips_at, perturbed, random_start, target_of
from impasto.visualization.progress import tell
from impasto.visualization.registry import technique
from impasto.visualization.result import Result


@technique("V35", "fooling")
def fgsm(model: Model, picture: Tensor, *, epsilon: float = 2.0, seed: int = 0, judge: Model | None = None) -> Result:
    """One step in the direction of the gradient's signs, too small to see, and the network says something else.

    x' = clip(x + epsilon sign(g)), g the gradient of the cross-entropy with the network's own answer (no true label
    leaks, Kurakin et al. 2017), in pixels and from logits. The panda of the paper had an epsilon of 1.8.

    Source: Goodfellow et al. 2015, equation in section 4.

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        epsilon: The most that a value changes, in steps of an 8-bit picture (1/255).
        seed: Of the control's random signs.
        judge: A second network that says what it sees in the two pictures, such as efficientnet_lite1.

    Returns:
        A `Result` with the images ``fgsm`` (photo + perturbation = adversarial), ``adversarial`` and ``perturbation``.
        ``data`` has what the network says before, after and of the picture re-read from its PNG, the sizes, the control
        (`Outcome.data`), and ``flips_at``: which part of the perturbation would do (None if all of it does not).

    Raises:
        Refused: a network without classes; a picture without a gradient; a judge that does not know the class.
        WrongCall: an epsilon not above 0 and at most 255; a picture outside [0, 1].
    """
    label = answer(model, picture).index
    found = perturbed(model, picture, _labels(picture, label), epsilon=epsilon, rate=epsilon, steps=1)
    result = outcome(model, picture, found, judge=judge, seed=seed)
    return attack_result("fgsm", result, {"epsilon": epsilon, "seed": seed} | _ray(model, result))


@technique("V36", "fooling")
def pgd(
    model: Model,
    picture: Tensor,
    *,
    epsilon: float = 4.0,
    norm: Literal["linf", "l2"] = "linf",
    method: Literal["pgd", "bim"] = "pgd",
    rate: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    judge: Model | None = None,
) -> Result:
    """Many small steps away from the network's answer that stay in a ball around the photo: the strongest within it.

    Sources: Madry et al. 2018 (pgd: a random start in the ball, 10 steps of 2); Kurakin et al. 2017 (bim: from the
    photo itself, steps of 1, min(epsilon + 4, 1.25 epsilon) of them). One step of bim with rate epsilon is `fgsm`.
    Differs from the papers in that with l2 what is too long is shortened, then clipped to [0, 1].

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        epsilon: The most that the picture changes, in steps of an 8-bit picture (1/255).
        norm: What may be at most epsilon: each value's change, or the root mean square of all of them.
        method: With a random start or without; sets rate and steps where they are not given.
        rate: The size of a step, measured as epsilon is.
        steps: How many.
        seed: Of the random start and of the control's random signs.
        judge: A second network that says what it sees in the two pictures, such as efficientnet_lite1.

    Returns:
        As `fgsm`, the first image being ``pgd``.

    Raises:
        Refused: as `fgsm`.
        WrongCall: sizes that cannot be; no step; a picture outside [0, 1].
    """
    if rate is None:
        rate = 2.0 if method == "pgd" else 1.0
    if steps is None:
        steps = 10 if method == "pgd" else max(1, int(min(epsilon + 4, 1.25 * epsilon)))
    label = answer(model, picture).index
    generator = torch.Generator().manual_seed(seed)
    start = random_start(picture, epsilon, norm, generator=generator) if method == "pgd" else picture
    found = perturbed(
        model,
        picture,
        _labels(picture, label),
        epsilon=epsilon,
        rate=rate,
        steps=steps,
        norm=norm,
        start=start,
        on_step=functools.partial(_told, steps),
    )
    result = outcome(model, picture, found, norm=norm, judge=judge, seed=seed)
    data = {"epsilon": epsilon, "norm": norm, "method": method, "rate": rate, "steps": steps, "seed": seed}
    return attack_result("pgd", result, data | _ray(model, result))


@technique("V37", "fooling")
def least_likely(
    model: Model,
    picture: Tensor,
    *,
    target: int | str | None = None,
    epsilon: float = 4.0,
    rate: float = 1.0,
    steps: int = 10,
    seed: int = 0,
    judge: Model | None = None,
) -> Result:
    """Small steps towards the class that the network finds the least likely of all, or towards any other.

    x <- clip(x - rate sign(g)), g the gradient of the cross-entropy with the target, kept within epsilon of the photo.

    Source: Kurakin et al. 2017, section 2.3, with 10 steps whatever epsilon is.

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        target: The class: its index, its name or how its name begins; by default the one with the lowest logit.
        epsilon: The most that a value changes, in steps of an 8-bit picture (1/255).
        rate: The size of a step, likewise.
        steps: How many.
        seed: Of the control's random signs.
        judge: A second network that says what it sees in the two pictures, such as efficientnet_lite1.

    Returns:
        As `fgsm`, the first image being ``least_likely``; fooled means that the network says the target.

    Raises:
        Refused: as `fgsm`.
        WrongCall: a class that is unknown, or is what the network says already; sizes that cannot be; no step.
    """
    index = target_of(model, picture, target)
    found = perturbed(
        model,
        picture,
        _labels(picture, index),
        epsilon=epsilon,
        rate=rate,
        steps=steps,
        targeted=True,
        on_step=functools.partial(_told, steps),
    )
    result = outcome(model, picture, found, target=index, judge=judge, seed=seed)
    data = {"epsilon": epsilon, "rate": rate, "steps": steps, "seed": seed}
    return attack_result("least_likely", result, data | _ray(model, result))


def _labels(picture: Tensor, index: int) -> Tensor:
    return torch.tensor([index], device=picture.device)


def _told(steps: int, step: Step) -> None:
    tell(step.index, steps, "steps")


def _ray(model: Model, found: Outcome) -> dict[str, Any]:
    """The part of the perturbation at which the network is fooled, for a result's data."""
    return {"flips_at": flips_at(model, found.original, found.change, found.aim.reached)}
