"""The smallest change that makes a network say something else, by taking it for linear again and again."""

from __future__ import annotations

from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from impasto.errors import WrongCall, unknown_name
from impasto.visualization.answers import answer
from impasto.visualization.model import Model
from impasto.visualization.outcomes import Aim, outcome, size_of
from impasto.visualization.panda import attack_result, panda
from impasto.visualization.perturbations import check_range, flips_at
from impasto.visualization.progress import tell
from impasto.visualization.registry import Refused, technique
from impasto.visualization.result import Result
from impasto.visualization.scene import to_image

FURTHEST = 64.0
"""Multiple of the perturbation up to which one is looked for that an 8-bit file keeps."""


@technique("V38", "fooling")
def deepfool(
    model: Model,
    picture: Tensor,
    *,
    norm: Literal["l2", "linf"] = "l2",
    candidates: int = 10,
    overshoot: float = 0.02,
    steps: int = 50,
    seed: int = 0,
    judge: Model | None = None,
) -> Result:
    """The least that has to change for the network to say something else, and how much more a file needs.

    The change is `minimal_perturbation`'s, cut back by halving to where the answer flips. Often it is smaller than half
    a step of an 8-bit picture and gone in the file: so it is lengthened, too, until the file fools the network.

    Source: Moosavi-Dezfooli et al. 2016, algorithm 2.

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        norm: What is to be small: the change's length, or its largest value.
        candidates: Classes that are tried, the first included: those with the highest logits.
        overshoot: How much further than the linear boundary, as a part.
        steps: How many are taken at most.
        seed: Of the control's random signs.
        judge: A second network that says what it sees in the two pictures, such as efficientnet_lite1.

    Returns:
        A `Result` with the images ``deepfool`` (photo + perturbation = adversarial), ``adversarial``, ``perturbation``,
        and ``as_png`` and ``adversarial_png``, the same of the lengthened change (not there if no length will do).
        ``data`` has what came of the change as it is in floating point (`Outcome.data`), ``steps`` taken, ``flips_at``
        (the part of algorithm 2's change that does), and ``png``: ``times`` the change, ``linf``, ``rms`` and the
        answer to that file, or none.

    Raises:
        Refused: a network without classes; a picture without a gradient; a judge that does not know the class.
        WrongCall: fewer than two candidates, no step, an overshoot below 0.
    """
    check_range(picture)
    aim = Aim(answer(model, picture).index)
    whole, taken = minimal_perturbation(
        model, picture, norm=norm, candidates=candidates, overshoot=overshoot, steps=steps
    )
    part = flips_at(model, picture, whole, aim.reached, most=2)
    change = whole if part is None else part * whole
    found = outcome(model, picture, (picture + change).clamp(0, 1), norm=norm, judge=judge, seed=seed)
    data = {"norm": norm, "candidates": candidates, "overshoot": overshoot, "seed": seed, "steps": taken}
    images, file = _in_a_file(model, picture, change, aim, norm, seed)
    return attack_result("deepfool", found, data | {"flips_at": part, "png": file}, images=images)


def _in_a_file(
    model: Model, picture: Tensor, change: Tensor, aim: Aim, norm: str, seed: int
) -> tuple[dict[str, Image.Image], dict[str, Any] | None]:
    """The change lengthened until it is there in an 8-bit file: what is to be seen and said of it."""
    times = flips_at(model, picture, change, aim.reached, most=FURTHEST, png=True)
    if times is None:
        return {}, None
    found = outcome(model, picture, (picture + times * change).clamp(0, 1), norm=norm, seed=seed)
    sizes = {"linf": size_of(found.change, "linf"), "rms": size_of(found.change, "l2")}
    images = {"as_png": panda(found), "adversarial_png": to_image(found.adversarial)}
    return images, {"times": times, **sizes, "after_png": found.after_png.data()}


def minimal_perturbation(
    model: Model,
    picture: Tensor,
    *,
    norm: str = "l2",
    candidates: int = 10,
    overshoot: float = 0.02,
    steps: int = 50,
) -> tuple[Tensor, int]:
    """The change that takes a picture over the nearest boundary of its class, each boundary taken for a plane.

    From the picture as it is by now, the nearest plane f_k - f_0 = 0 of the candidates is where
    |f_k - f_0| / ||w_k - w_0|| is least (the norm being the dual one: l1 for linf); the change to it is added to what
    there is, until the class is another one. What is tried and given back is 1 + overshoot times the sum.

    Not clipped to [0, 1] on the way, as in the paper: for a network whose logits are linear in the picture, one step
    gives the smallest change there is.

    Args:
        model: a classifier.
        picture: (1, 3, H, W), float RGB in [0, 1].
        norm: "l2" or "linf".
        candidates: classes that are tried, the picture's own included, by their logits for the picture itself.
        overshoot: as a part.
        steps: at most.

    Returns:
        (1, 3, H, W), what to add; and the steps taken, of which the last may not have led over the boundary.

    Raises:
        Refused: a network without classes, or where no candidate's logit moves away from the class's own.
        WrongCall: fewer than two candidates, no step, an overshoot below 0, an unknown norm.
    """
    if candidates < 2 or steps < 1 or overshoot < 0:
        raise WrongCall(
            f"deepfool: got {candidates} candidates, {steps} steps and overshoot {overshoot}; "
            "expected 2 or more, 1 or more, 0 or more"
        )
    if norm not in ("l2", "linf"):
        raise unknown_name("norm", norm, ("l2", "linf"))
    own = answer(model, picture).index
    total, others = torch.zeros_like(picture), list[int]()
    for taken in range(1, steps + 1):
        logits, point = _logits(model, picture + (1 + overshoot) * total)
        if not others:
            others = [int(index) for index in logits[0].argsort(descending=True)[:candidates] if index != own]
        elif int(logits[0].argmax()) != own:
            return (1 + overshoot) * total, taken - 1
        total = total + _to_nearest_plane(logits[0], point, own, others, norm)
        tell(taken, steps, "steps")
    return (1 + overshoot) * total, steps


def _logits(model: Model, picture: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        point = picture.detach().requires_grad_()
        return model(point), point


def _to_nearest_plane(logits: Tensor, point: Tensor, own: int, others: list[int], norm: str) -> Tensor:
    """The smallest change that makes the nearest of the planes where another class's logit is the own one's."""
    best, distance = torch.zeros_like(point), torch.inf
    for index in others:
        gap = logits[own] - logits[index]
        (slope,) = torch.autograd.grad(-gap, point, retain_graph=True)
        dual = slope.norm() if norm == "l2" else slope.abs().sum()
        if dual > 0 and float(gap.detach() / dual) < distance:
            distance = float(gap.detach() / dual)
            best = distance * (slope / dual if norm == "l2" else slope.sign())
    if distance == torch.inf:
        raise Refused(
            "no value of this picture moves the classes apart: the network's gradient is 0; use another picture"
        )
    return best
