"""One perturbation, too small to be seen, that changes what a network says of pictures it was not made from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from impasto.errors import WrongCall
from impasto.losses import optimize_image, steepest
from impasto.sheets import sheet
from impasto.visualization.answers import answer
from impasto.visualization.drawing import signed_rgb, span
from impasto.visualization.inputs import Pictures
from impasto.visualization.judging import rounded
from impasto.visualization.model import Model
from impasto.visualization.perturbations import LEVEL, labels_of, log_odds
from impasto.visualization.progress import tell, track
from impasto.visualization.registry import Refused, technique
from impasto.visualization.result import Result
from impasto.visualization.scene import to_image
from impasto.visualization.transforms import jitter

MARGIN = 5.0
"""A picture whose class has log odds as low as minus this is fooled well enough: the others count."""

ENLARGED = 10
"""How many times larger the perturbation is drawn."""

SHOWN = 4
"""Pictures in the comparison."""


@technique("V39", "fooling")
def universal(
    model: Model,
    pictures: Pictures,
    *,
    epsilon: float = 10.0,
    learned_from: int = 100,
    held_out: int = 128,
    passes: int = 8,
    batch: int = 16,
    rate: float = 2.0,
    shift: int = 16,
    judge: Model | None = None,
    seed: int = 0,
) -> Result:
    """One perturbation for all pictures, and how many it fools of those that it was not made from.

    A few pictures teach a perturbation that fools nearly all of them and hardly any other: what counts is the rate on
    pictures held out, beside that of random signs of the same size. Fooled is a picture, rounded to 8 bits, of which
    the network says another class than before; no true class is asked for.

    Source: Moosavi-Dezfooli et al. 2017. Differs from it in how the perturbation is found: not DeepFool's steps of one
    picture after the other, but steps of one size in each value down the log odds of a few pictures at a time; and in
    that those are rolled around at random first, without which so few pictures teach next to nothing about others.

    Args:
        pictures: Photos; which of them are learned from, and which are held out, is drawn.
        epsilon: The largest change of a value, in steps of an 8-bit picture.
        learned_from: Pictures that the perturbation is made from; with fewer photos, this share of them.
        held_out: Pictures that it is tried on.
        passes: Times that each picture is learned from.
        batch: Pictures in a step.
        rate: Of a step, in steps of an 8-bit picture.
        shift: How far pictures are rolled at most, in pixels; with 0 they are learned by heart.
        judge: A second network, to see whether it is fooled too, such as efficientnet_lite1.
        seed: Of the split, the order, and the random signs.

    Returns:
        A `Result` with the images ``universal`` (the perturbation, ten times enlarged around grey, with the rates) and
        ``pictures`` (held-out photos, with it and with random signs). ``data`` has ``rates``: the fooled part of the
        pictures learned from (``learned``), of those held out (``held_out``, and ``held_out_unrounded``), with random
        signs (``control``), with the perturbation mirrored (``mirrored``), and for a judge ``judge`` and
        ``judge_control``; ``linf`` and ``l2`` of the perturbation in pixel values from 0 to 1; ``becomes``: the classes
        that fooled pictures become, most frequent first, with their share.

    Raises:
        Refused: a network without classes; pictures from which nothing can be learned.
        WrongCall: fewer than two pictures, or a number that cannot be.
        PictureError: a file that cannot be read.
    """
    if not (0 < epsilon <= 255 and rate > 0 and min(learned_from, held_out, passes, batch) >= 1 and shift >= 0):
        raise WrongCall(
            f"universal: got epsilon {epsilon}, rate {rate}, learned_from {learned_from}, held_out {held_out}, passes "
            f"{passes}, batch {batch}, shift {shift}; expected epsilon above 0 and up to 255, a rate above 0, a shift "
            "from 0 on, 1 or more of the others"
        )
    limit = epsilon * LEVEL
    learned, others = (read(model, part, batch) for part in split(pictures, learned_from, held_out, seed))
    noise = perturbation(model, learned, limit, passes=passes, rate=rate * LEVEL, shift=shift, seed=seed)
    control = signs(model, limit, seed)
    after = others.with_noise(model, noise)
    rates = {
        "learned": learned.fooled(learned.with_noise(model, noise)),
        "held_out": others.fooled(after),
        "held_out_unrounded": others.fooled(others.with_noise(model, noise, to_8_bits=False)),
        "control": others.fooled(others.with_noise(model, control)),
        "mirrored": others.fooled(others.with_noise(model, noise.flip(3))),
    }
    if judge is not None:
        seen = _resized(others, judge)
        rates["judge"] = seen.fooled(seen.with_noise(judge, _at(noise, judge.size)))
        rates["judge_control"] = seen.fooled(seen.with_noise(judge, signs(judge, limit, seed)))
    data = {
        "epsilon": epsilon,
        "linf": float(noise.abs().max()),
        "l2": float(noise.norm()),
        "learned_from": len(learned.labels),
        "held_out": len(others.labels),
        "rates": rates,
        "becomes": _becomes(model, others.labels, after),
        "seed": seed,
    }
    images = {"universal": _drawn(noise, rates), "pictures": _compared(model, others, after, noise, control)}
    return Result(images, data, caption=_caption(data))


def split(pictures: Pictures, first: int, second: int, seed: int) -> tuple[Pictures, Pictures]:
    """Two lots of pictures without one in common, drawn; if there are fewer, in the same proportion.

    Raises:
        WrongCall: fewer than two pictures.
    """
    count = len(pictures)
    if count < 2:
        raise WrongCall(f"pictures: got {count}, expected two or more, to learn from some and try the others")
    if count < first + second:
        first = min(max(1, round(count * first / (first + second))), count - 1)
        second = count - first
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    lots = order[:first], order[first : first + second]
    one, other = (Pictures(tuple(pictures.paths[index] for index in sorted(lot))) for lot in lots)
    return one, other


@dataclass(frozen=True)
class Seen:
    """Pictures as a network takes them, and what it says of them.

    Attributes:
        pixels: (N, 3, size, size), 8 bits.
        labels: (N,), the class with the highest logit.
        batch: pictures that go through the network at a time.
    """

    pixels: Tensor
    labels: Tensor
    batch: int

    def images(self, indices: Tensor | slice) -> Tensor:
        """Some of the pictures, float in [0, 1]."""
        return self.pixels[indices].float() / 255

    def with_noise(self, model: Model, noise: Tensor, *, to_8_bits: bool = True) -> Tensor:
        """What a network says of each with a perturbation, cut to [0, 1]: (N,) classes."""
        found = []
        for start in range(0, len(self.pixels), self.batch):
            changed = (self.images(slice(start, start + self.batch)) + noise).clamp(0, 1)
            found.append(labels_of(model, rounded(changed) if to_8_bits else changed))
        return torch.cat(found)

    def fooled(self, after: Tensor) -> float:
        """The part of the pictures whose class is another one now."""
        return float((after != self.labels).double().mean())


def read(model: Model, pictures: Pictures, batch: int) -> Seen:
    """Pictures of files, and what a network says of them.

    Raises:
        Refused: a network without classes.
        PictureError: a file that cannot be read.
    """
    pixels: list[Tensor] = []
    labels: list[Tensor] = []
    for _, images in track(pictures.batches(model, batch), -(-len(pictures) // batch), "pictures"):
        labels.append(labels_of(model, images))
        pixels.append(images.mul(255).round().byte())
    return Seen(torch.cat(pixels), torch.cat(labels), batch)


def perturbation(
    model: Model, learned: Seen, limit: float, *, passes: int, rate: float, shift: int = 16, seed: int = 0
) -> Tensor:
    """A perturbation that lowers, in all pictures, the log odds of the class that the network sees.

    What is minimised is the mean of ``max(log(p / (1 - p)), -MARGIN)``.

    Args:
        model: a classifier.
        learned: the pictures; as many as their batch are in a step.
        limit: on the magnitude of each value, in pixel values from 0 to 1.
        passes: times that each picture is used.
        rate: of a step, in pixel values.
        shift: how far the pictures of a step are rolled at most, in pixels.
        seed: of the order and the shifts.

    Returns:
        (1, 3, size, size), no value larger than ``limit``.

    Raises:
        Refused: if no pixel moves a margin.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = passes * -(-len(learned.labels) // learned.batch)
    orders = [torch.randperm(len(learned.labels), generator=generator) for _ in range(passes)]
    lots = iter([lot for order in orders for lot in torch.split(order, learned.batch)])

    moved = jitter(shift, generator)

    def objective(noise: Tensor) -> Tensor:
        lot = next(lots).to(noise.device)
        logits = model((moved(learned.images(lot)) + noise).clamp(0, 1))
        return log_odds(logits, learned.labels[lot]).clamp(min=-MARGIN).mean()

    noise = optimize_image(
        torch.zeros_like(learned.images(slice(0, 1))),
        objective,
        step=steepest(rate, "sign"),
        steps=steps,
        project=lambda noise: noise.clamp(-limit, limit),
        on_step=lambda step: tell(step.index, steps, "steps"),
    )
    if not noise.any():
        raise Refused("universal: no pixel of these pictures moves the network's answer, so nothing can be learned")
    return noise


def signs(model: Model, limit: float, seed: int) -> Tensor:
    """A perturbation (1, 3, size, size) of random signs, every value as large as is allowed: the control."""
    drawn = torch.randint(0, 2, (1, 3, model.size, model.size), generator=torch.Generator().manual_seed(seed))
    return limit * (2 * drawn - 1).to(model.device)


def _resized(seen: Seen, judge: Model) -> Seen:
    """The same pictures as another network takes them, and what it says of them."""
    pixels = torch.cat([_at(seen.images(slice(i, i + 1)), judge.size) for i in range(len(seen.labels))])
    pixels = pixels.clamp(0, 1).mul(255).round().byte()
    labels = torch.cat([labels_of(judge, each.float() / 255) for each in torch.split(pixels, seen.batch)])
    return Seen(pixels, labels, seen.batch)


def _at(image: Tensor, size: int) -> Tensor:
    return F.interpolate(image, (size, size), mode="bilinear", antialias=True) if image.shape[3] != size else image


def _becomes(model: Model, before: Tensor, after: Tensor) -> list[dict[str, Any]]:
    """The classes that fooled pictures become, the most frequent first."""
    found = Counter(after[after != before].tolist())
    return [
        {"class": index, "name": model.class_name(index), "share": count / found.total()}
        for index, count in sorted(found.items(), key=lambda item: (-item[1], item[0]))
    ]


def _drawn(noise: Tensor, rates: dict[str, float]) -> Image.Image:
    """The perturbation around grey, and the rates beneath it."""
    names = {"learned": "of those it was made from", "held_out": "of others", "control": "of others by random signs"}
    names |= {"mirrored": "of others if mirrored", "judge": "of others, by the judge"}
    names |= {"judge_control": "of others by random signs, by the judge"}
    lines = [f"{rates[key]:.0%} {name}" for key, name in names.items() if key in rates]
    label = "\n".join([f"the perturbation x {ENLARGED} around grey, {span(noise * 255)} of 255", "fooled:", *lines])
    return sheet([[signed_rgb(noise, 0.5 / ENLARGED)]], labels=[[label]])


def _compared(model: Model, others: Seen, after: Tensor, noise: Tensor, control: Tensor) -> Image.Image:
    """A few held-out pictures that are fooled (or, if none is, any): as they are, perturbed, and with random signs."""
    order = (after == others.labels).int().argsort(stable=True)[:SHOWN]
    rows = {
        f"{name}": rounded(others.images(order) + added)
        for name, added in {
            "as it is": torch.zeros_like(noise),
            "with the perturbation": noise,
            "with random signs": control,
        }.items()
    }
    return sheet(
        [[to_image(picture) for picture in torch.split(pictures, 1)] for pictures in rows.values()],
        captions=list(rows),
        labels=[[str(answer(model, picture)) for picture in torch.split(pictures, 1)] for pictures in rows.values()],
    )


def _caption(data: dict[str, Any]) -> str:
    rates = data["rates"]
    return (
        f"One perturbation of at most {data['epsilon']:g}/255, made from {data['learned_from']} pictures, changes what "
        f"the network says of {rates['held_out']:.0%} of {data['held_out']} others, rounded to 8 bits (random signs of "
        f"that size: {rates['control']:.0%}; those it was made from: {rates['learned']:.0%})."
    )
