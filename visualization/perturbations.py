"""Pictures changed a little so that a network takes them for something else: the ball, the loss, the loop, the ray.

Every size is in units of `LEVEL`, one step of an 8-bit picture: an epsilon of 2 lets each value change by 2/255, before
any normalisation, which is the network's own business. A length (norm l2) is the root mean square over a picture's
values in the same units, so that it does not depend on the picture's size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from impasto.errors import WrongCall, unknown_name
from impasto.losses import Step, optimize_image, steepest
from impasto.visualization.judging import rounded
from impasto.visualization.model import Model
from impasto.visualization.registry import Refused

LEVEL = 1 / 255
"""One step of an 8-bit picture in units of a picture in [0, 1]: what every epsilon counts."""

Norm = Literal["linf", "l2"]
"""What an epsilon bounds: each value's change, or its root mean square over the picture."""

FINENESS = 64
"""`flips_at` is right to one part in this many."""


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """log(p / (1 - p)) of a class of each picture: its logit minus the logsumexp of all others.

    Its gradient is that of the negative cross-entropy divided by 1 - p, so it points the same way; but where p is 1 to
    all digits and the cross-entropy's gradient is 0 or rounding, this one's is as long as ever.

    Args:
        logits: (N, K), K at least 2.
        labels: (N,), indices of classes.

    Returns:
        (N,).

    Raises:
        Refused: a network with a single number, or maps, instead of classes.
    """
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise Refused(f"this network has no two classes: it gives {tuple(logits.shape[1:])} numbers a picture")
    chosen = labels.view(-1, 1)
    return logits.gather(1, chosen)[:, 0] - logits.scatter(1, chosen, -torch.inf).logsumexp(1)


def within(centre: Tensor, epsilon: float, norm: str = "linf") -> Callable[[Tensor], Tensor]:
    """The map of pictures into a ball around others, and into [0, 1].

    Args:
        centre: (N, 3, H, W) in [0, 1].
        epsilon: the ball's radius in units of `LEVEL`, as `norm` measures it.
        norm: "linf" clamps, which is the projection; "l2" shortens what is too long, then clamps, which is in both sets
            but not always their nearest point.

    Raises:
        WrongCall: an epsilon that is not above 0 and at most 255; an unknown norm; pictures outside [0, 1].
    """
    radius = _radius(centre, epsilon, norm)
    if norm == "linf":
        low, high = (centre - radius).clamp(min=0), (centre + radius).clamp(max=1)
        return lambda pictures: pictures.clamp(low, high)

    def shorten(pictures: Tensor) -> Tensor:
        change = pictures - centre
        length = change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        shortened: Tensor = centre + change * (radius / length.clamp(min=radius))
        return shortened.clamp(0, 1)

    return shorten


def _radius(centre: Tensor, epsilon: float, norm: str) -> float:
    """Of the ball, in units of a picture in [0, 1]: each value's, or the Euclidean length of one picture's change."""
    if norm not in ("linf", "l2"):
        raise unknown_name("norm", norm, ("linf", "l2"))
    if not 0 < epsilon <= 255:
        raise WrongCall(f"epsilon: got {epsilon}, expected above 0 and up to 255, in steps of an 8-bit picture")
    check_range(centre)
    return epsilon * LEVEL * (1.0 if norm == "linf" else math.sqrt(centre[0].numel()))


def check_range(pictures: Tensor) -> None:
    """Raise WrongCall if a value is outside [0, 1]: an epsilon would mean nothing there."""
    if not (pictures.min() >= 0 and pictures.max() <= 1):
        raise WrongCall(f"a picture: got values from {pictures.min():.3g} to {pictures.max():.3g}, expected [0, 1]")


def random_start(centre: Tensor, epsilon: float, norm: str = "linf", *, generator: torch.Generator) -> Tensor:
    """A picture drawn in the ball of `within`: uniform with linf; with l2 in a uniform direction, of uniform length."""
    if norm == "linf":
        change = (2 * torch.rand(centre.shape, generator=generator) - 1).to(centre) * _radius(centre, epsilon, norm)
    else:
        change = torch.randn(centre.shape, generator=generator).to(centre)
        length = change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        part = torch.rand(len(centre), 1, 1, 1, generator=generator).to(centre)
        change = change * part * _radius(centre, epsilon, norm) / length
    return within(centre, epsilon, norm)(centre + change)


def random_signs(picture: Tensor, epsilon: float, draws: int, *, generator: torch.Generator) -> Tensor:
    """Copies of a picture (1, 3, H, W) with ``epsilon`` added to or taken from each value: the control of an attack.

    The size of such a change is ``epsilon`` in both norms, so it stands for the one as for the other.

    Returns:
        (draws, 3, H, W), clipped to [0, 1].
    """
    signs = torch.randint(0, 2, (draws, *picture.shape[1:]), generator=generator).to(picture) * 2 - 1
    return (picture + epsilon * LEVEL * signs).clamp(0, 1)


def perturbed(
    model: Model,
    pictures: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    rate: float,
    steps: int,
    norm: str = "linf",
    targeted: bool = False,
    start: Tensor | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Tensor:
    """Steps of one size away from classes, or towards them, that stay near the pictures: each its own.

    ``x <- within(x + rate * sign(g))`` for linf, ``g / |g|`` for l2, g being the gradient of the cross-entropy of the
    logits with the labels (its negative if targeted) up to a factor, see `log_odds`. A value without a gradient stays.
    One step of ``rate = epsilon`` is the fast gradient sign method.

    Differs from a loop with ``project=`` in that the gradient keeps what points out of the ball or of [0, 1]: so do the
    papers, and it is part of the length that l2 divides by.

    Args:
        model: a classifier.
        pictures: (N, 3, H, W), float RGB in [0, 1].
        labels: (N,), indices of the classes.
        epsilon: the most a picture may change, in units of `LEVEL`, as ``norm`` measures it.
        rate: a step's size, likewise.
        steps: one or more.
        norm: "linf" or "l2".
        targeted: towards the labels instead of away from them.
        start: (N, 3, H, W), where to begin; the pictures themselves if None.
        on_step: as `optimize_image`.

    Returns:
        (N, 3, H, W) in [0, 1], detached.

    Raises:
        Refused: a network without classes; pictures of which no value moves any of the classes.
        WrongCall: sizes or a norm that cannot be; pictures outside [0, 1].
    """
    inside = within(pictures, epsilon, norm)
    if steps < 1 or not 0 < rate <= 255:
        raise WrongCall(f"steps: got {steps} of rate {rate}, expected 1 or more of a rate above 0 and up to 255")
    sign = -1 if targeted else 1

    def stay(shown: Tensor, gradient: Tensor, index: int) -> Tensor:
        if index == 1 and not gradient.any():
            raise Refused("no value of this picture moves the class: the network's gradient is 0; use another picture")
        return inside(shown)

    return optimize_image(
        pictures if start is None else start,
        lambda shown: sign * log_odds(model(shown), labels).sum(),
        step=steepest(rate * LEVEL, "sign" if norm == "linf" else "l2"),
        steps=steps,
        operators=[stay],
        on_step=on_step,
    )


@torch.no_grad()
def labels_of(model: Model, pictures: Tensor) -> Tensor:
    """The class with the highest logit of each picture, (N,): what an attack that looks at no true label goes by."""
    logits: Tensor = model(pictures)
    model.class_index(None, logits)
    return logits.argmax(1)


@torch.no_grad()
def target_of(model: Model, picture: Tensor, target: int | str | None) -> int:
    """The class that a picture (1, 3, H, W) is to be taken for: as `Model.class_index`, but None for the least likely.

    Raises:
        Refused: a network without classes.
        WrongCall: a class that is unknown, or is what the network says already.
    """
    logits = model(picture)
    best = model.class_index(None, logits)
    index = int(logits[0].argmin()) if target is None else model.class_index(target, logits)
    if index == best:
        raise WrongCall(f"target: got {model.class_name(index)}, which the network says already; choose another class")
    return index


def flips_at(
    model: Model, picture: Tensor, change: Tensor, fooled: Callable[[int], bool], *, most: float = 1, png: bool = False
) -> float | None:
    """How much of a change it takes: where, on the ray from a picture, the network's answer flips.

    Found by halving, so that the answer is one crossing: the network is fooled there and is not 1 / `FINENESS` before.

    Args:
        model: a classifier.
        picture: (1, 3, H, W), float RGB in [0, 1].
        change: (1, 3, H, W), what is added.
        fooled: whether a class is what the attack wants.
        most: where to stop looking, as a multiple of the change: reached in doublings from 1.
        png: ask for the picture rounded to 8 bits.

    Returns:
        The multiple of the change: 0 if the picture is enough by itself, None if it does not flip up to ``most``.
    """

    def flips(multiple: float) -> bool:
        shown = (picture + multiple * change).clamp(0, 1)
        return fooled(int(labels_of(model, rounded(shown) if png else shown)))

    if flips(0):
        return 0.0
    low, high = 0.0, 1.0
    while not flips(high):
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > high / FINENESS:
        middle = (low + high) / 2
        low, high = (low, middle) if flips(middle) else (middle, high)
    return high
