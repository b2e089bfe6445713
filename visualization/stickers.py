"""A sticker that makes a network see one class in whatever lies beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from impasto.errors import WrongCall
from impasto.losses import Step, adam, optimize_image
from impasto.sheets import sheet
from impasto.visualization.answers import answer
from impasto.visualization.inputs import Pictures
from impasto.visualization.judging import rounded
from impasto.visualization.model import Model
from impasto.visualization.pasting import disc, disc_side, paste, random_places
from impasto.visualization.plots import plot
from impasto.visualization.progress import tell
from impasto.visualization.registry import Refused, technique
from impasto.visualization.result import Result
from impasto.visualization.scene import to_image, to_tensor
from impasto.visualization.universal_noise import Seen, read, split

DPI = 300
"""Of the printed sticker, pixels to an inch of 2.54 cm."""

SIZES = 5
"""Sizes at which the sticker is tried."""

FRAMES = 30
"""Pictures of the way there."""

SHOWN = 4
"""Pictures in the comparison."""


@technique("V40", "fooling")
def patch(
    model: Model,
    pictures: Pictures,
    *,
    target: int | str | None = None,
    photo: Tensor | None = None,
    area: tuple[float, ...] = (0.05, 0.25),
    degrees: float = 22.5,
    steps: int = 500,
    batch: int = 8,
    rate: float = 0.1,
    learned_from: int = 100,
    held_out: int = 64,
    centimetres: float = 10.0,
    seed: int = 0,
) -> Result:
    """A round sticker to print and lay beside things, which a network then takes for one class.

    It is optimised in random photos, at random places, sizes and turns, so that it works in others as well. What is
    tried is the print itself, read back from its 8 bits, in photos that it was not made from, beside a sticker of noise
    and, if there is one, a photo of the class cut round: that a picture of a toaster makes a toaster is no fooling.

    Source: Brown et al. 2017. Differs from it in no term for printable colours, and in no perspective.

    Args:
        pictures: Photos to lay it in; which of them are learned from, and which are held out, is drawn.
        target: The class: its index, its name or how its name begins.
        photo: A photo of the class, as a control.
        area: The least and the largest part of a picture that the sticker covers.
        degrees: The largest turn either way.
        steps: Steps of Adam.
        batch: Pictures in a step.
        rate: Of a step, in the logit of a pixel value.
        learned_from: Pictures that the sticker is made in; with fewer photos, this share of them.
        held_out: Pictures that it is tried in.
        centimetres: Diameter of the print, at 300 pixels to an inch.
        seed: Of the split, the places, and the sticker of noise.

    Returns:
        A `Result` with the images ``sticker`` (the print, white around it), ``rates`` (how often each sticker wins, by
        the part of the picture that it covers) and ``pictures`` (held-out photos with each); the frames show the way
        there. ``data`` has the class, ``areas`` and for each of them the ``rates`` of ``sticker``, ``noise`` and
        ``photo`` (if there is one) at the same places in the same pictures, those that are of the class anyway left
        out; ``held_out``, how many are left; ``learned``, the sticker's rate in the pictures that it was made in, at
        the largest area; ``probabilities``, those of the class, the mean over the pictures.

    Raises:
        Refused: a network without classes; a class that every held-out picture is of anyway.
        WrongCall: no class, or an unknown one; fewer than two pictures; a number that cannot be.
        PictureError: a file that cannot be read.
    """
    _check(target, area, steps, batch, learned_from, held_out, centimetres)
    index = answer(model, torch.zeros(1, 3, model.size, model.size, device=model.device), target).index
    learned, others = (
        without(read(model, part, batch), index, model) for part in split(pictures, learned_from, held_out, seed)
    )
    made = optimised(model, learned, index, _sides(model, area), degrees=degrees, steps=steps, rate=rate, seed=seed)
    printed = to_print(made.sticker, centimetres)
    noise = torch.rand(made.sticker.shape, generator=torch.Generator().manual_seed(seed))
    stickers = {"sticker": to_tensor(printed), "noise": rounded(noise)} | ({} if photo is None else {"photo": photo})
    areas = [area[0] + (area[1] - area[0]) * step / (SIZES - 1) for step in range(SIZES)]
    trials = {
        name: [tried(model, others, each.to(model.device), index, part, degrees, seed) for part in areas]
        for name, each in stickers.items()
    }
    data = {
        "class": index,
        "name": model.class_name(index),
        "learned_from": len(learned.labels),
        "held_out": len(others.labels),
        "areas": areas,
        "rates": {name: [trial.rate for trial in each] for name, each in trials.items()},
        "probabilities": {name: [trial.probability for trial in each] for name, each in trials.items()},
        "learned": tried(model, learned, stickers["sticker"].to(model.device), index, area[1], degrees, seed).rate,
        "steps": steps,
        "seed": seed,
    }
    curves = {name: [*zip(areas, (trial.rate for trial in each), strict=True)] for name, each in trials.items()}
    images = {
        "sticker": printed,
        "rates": plot(curves, x="part of the picture that is covered", y="rate"),
        "pictures": _compared(model, others, trials),
    }
    return Result(images, data, made.frames, _caption(data))


def _check(
    target: object,
    area: tuple[float, ...],
    steps: int,
    batch: int,
    learned_from: int,
    held_out: int,
    centimetres: float,
) -> None:
    if target is None:
        raise WrongCall("patch: got no target, expected the class to be seen: its index or its name")
    if len(area) != 2 or not 0 < area[0] <= area[1] <= math.pi / 4:
        raise WrongCall(f"area: got {area}, expected the least and the largest part covered, up to {math.pi / 4:.3f}")
    if min(steps, batch, learned_from, held_out) < 1 or not 0 < centimetres <= 100:
        raise WrongCall(
            f"patch: got {steps} steps, batch {batch}, learned_from {learned_from}, held_out {held_out}, {centimetres} "
            "cm; expected 1 step or more, 1 or more pictures of each kind, a diameter above 0 and up to 100 cm"
        )


def _sides(model: Model, area: tuple[float, ...]) -> tuple[int, int]:
    low, high = (disc_side(part, (model.size, model.size)) for part in area)
    return low, high


def without(seen: Seen, index: int, model: Model) -> Seen:
    """Pictures that the network does not say to be of a class anyway.

    Raises:
        Refused: there is none.
    """
    kept = seen.labels != index
    if not kept.any():
        raise Refused(f"patch: the network finds {model.class_name(index)} in every picture of a lot; use other photos")
    return Seen(seen.pixels[kept], seen.labels[kept], seen.batch)


@dataclass(frozen=True)
class Made:
    """A sticker that was optimised.

    Attributes:
        sticker: (1, 3, P, P) in [0, 1]; what lies outside the disc is never seen.
        losses: cross entropy at each step.
        frames: the way there.
    """

    sticker: Tensor
    losses: list[float]
    frames: list[Image.Image] = field(default_factory=list)


def optimised(
    model: Model,
    learned: Seen,
    target: int,
    sides: tuple[int, int],
    *,
    degrees: float = 22.5,
    steps: int = 500,
    rate: float = 0.1,
    seed: int = 0,
) -> Made:
    """The sticker whose class is most probable in pictures, over all places, sizes and turns.

    Args:
        model: a classifier.
        learned: the pictures; as many as their batch are drawn at each step.
        target: index of the class.
        sides: least and largest diameter in pixels; the sticker has the largest.
        degrees: the largest turn either way.
        steps: of Adam.
        rate: of a step, in the logit of a pixel value.
        seed: of the draws.

    Raises:
        Refused: no pixel of the sticker moves the class's probability.
    """
    generator = torch.Generator().manual_seed(seed)
    mask, size = disc(sides[1]).to(model.device), (model.size, model.size)
    losses: list[float] = []
    frames: list[Image.Image] = []
    shown_at = {round((number + 1) * steps / FRAMES) for number in range(FRAMES)}
    start = 0.1 * torch.randn(1, 3, sides[1], sides[1], generator=generator).to(model.device)

    def objective(sticker: Tensor) -> Tensor:
        lot = torch.randint(len(learned.labels), (learned.batch,), generator=generator)
        places = random_places(len(lot), size, sides, degrees, generator)
        logits = model(paste(learned.images(lot), sticker, mask, places))
        loss = F.cross_entropy(logits, torch.full_like(logits[:, 0], target, dtype=torch.long))
        losses.append(float(loss.detach()))
        return loss

    def look(step: Step) -> None:
        tell(step.index, steps, "steps")
        if step.index in shown_at:
            frames.append(to_image(_on_white(step.image.sigmoid())))

    found = optimize_image(start, objective, step=adam(rate), steps=steps, transforms=torch.sigmoid, on_step=look)
    if torch.equal(found, start):
        raise Refused("patch: no pixel of the sticker moves the class's probability, so nothing can be learned")
    return Made(found.sigmoid(), losses, frames)


def _on_white(sticker: Tensor) -> Tensor:
    mask = disc(sticker.shape[3]).to(sticker)
    return sticker * mask + (1 - mask)


def to_print(sticker: Tensor, centimetres: float) -> Image.Image:
    """A round sticker (1, 3, P, P) for the printer: white around it, as many pixels as its diameter has at `DPI`.

    The picture knows its resolution (``info["dpi"]``).
    """
    side = max(1, round(centimetres / 2.54 * DPI))
    large = F.interpolate(sticker, (side, side), mode="bicubic").clamp(0, 1)
    printed = to_image(_on_white(large))
    printed.info["dpi"] = (DPI, DPI)
    return printed


@dataclass(frozen=True)
class Trial:
    """What a sticker does in pictures.

    Attributes:
        pictures: (N, 3, size, size), rounded to 8 bits, with the sticker.
        rate: the part of them in which the network puts the class first.
        probability: of the class, their mean.
    """

    pictures: Tensor
    rate: float
    probability: float


@torch.no_grad()
def tried(model: Model, seen: Seen, sticker: Tensor, target: int, area: float, degrees: float, seed: int = 0) -> Trial:
    """Lay a sticker in pictures, one place in each, and ask the network.

    Args:
        model: a classifier.
        seen: the pictures.
        sticker: (1, 3, P, P), of which the disc is laid.
        target: index of the class.
        area: the part of each picture that it covers.
        degrees: the largest turn either way.
        seed: of the places.
    """
    generator = torch.Generator().manual_seed(seed)
    side = disc_side(area, (model.size, model.size))
    places = random_places(len(seen.labels), (model.size, model.size), (side, side), degrees, generator)
    mask = disc(sticker.shape[3]).to(sticker)
    pictures = torch.cat(
        [
            rounded(
                paste(seen.images(slice(start, start + seen.batch)), sticker, mask, places[start : start + seen.batch])
            )
            for start in range(0, len(places), seen.batch)
        ]
    )
    logits = torch.cat([model(each) for each in torch.split(pictures, seen.batch)])
    probability = float(logits.double().softmax(1)[:, target].mean())
    return Trial(pictures, float((logits.argmax(1) == target).double().mean()), probability)


def _compared(model: Model, others: Seen, trials: Mapping[str, list[Trial]]) -> Image.Image:
    """A few held-out pictures as they are and with each sticker, at the size in the middle."""
    rows = {"as it is": others.images(slice(0, SHOWN))}
    rows |= {name: each[SIZES // 2].pictures[:SHOWN] for name, each in trials.items()}
    return sheet(
        [[to_image(picture) for picture in torch.split(pictures, 1)] for pictures in rows.values()],
        captions=[f"with the {name}" if name in trials else name for name in rows],
        labels=[[str(answer(model, picture)) for picture in torch.split(pictures, 1)] for pictures in rows.values()],
    )


def _caption(data: dict[str, Any]) -> str:
    rates = {name: each[-1] for name, each in data["rates"].items()}
    controls = ", ".join(f"a {name} {rate:.0%}" for name, rate in rates.items() if name != "sticker")
    photo = "" if "photo" in rates else "; no photo of the class was given as a control"
    return (
        f"Printed, read back, and covering {data['areas'][-1]:.0%} of a picture, the sticker makes {data['name']} of "
        f"{rates['sticker']:.0%} of {data['held_out']} pictures that it was not made from ({controls}{photo})."
    )
