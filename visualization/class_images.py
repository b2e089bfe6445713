"""What a class looks like to a network: pictures that its logit climbs on, under every regulariser of the papers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from impasto.errors import WrongCall
from impasto.losses import Step, optimize_image, total_variation
from impasto.visualization.answers import answer
from impasto.visualization.canvas import PixelCanvas
from impasto.visualization.class_presets import ABLATION, PRESETS, Settings
from impasto.visualization.drawing import grid, panel
from impasto.visualization.judging import Verdict, rounded, verdicts
from impasto.visualization.model import Model
from impasto.visualization.progress import tell
from impasto.visualization.registry import Refused, technique
from impasto.visualization.result import Result
from impasto.visualization.rules import woken
from impasto.visualization.scene import to_image
from impasto.visualization.transforms import compose

FRAMES = 40
"""Pictures in the animation."""

WAKING = 16
"""Steps at first in which a logit that a ReLU holds at 0, such as SqueezeNet's, has a gradient all the same."""


@dataclass(frozen=True)
class Made:
    """Pictures that were optimised.

    Attributes:
        pictures: (N, 3, H, W), not rounded and not clipped.
        logits: of the class, the mean of the pictures as they were shown to the network, at each step.
        frames: the way there.
    """

    pictures: Tensor
    logits: list[float]
    frames: list[Image.Image] = field(default_factory=list)

    def ends(self) -> dict[str, float]:
        """The mean logit of the first and of the last tenth of the steps."""
        part = max(1, len(self.logits) // 10)
        first, last = self.logits[:part], self.logits[-part:]
        return {"logit_first": sum(first) / part, "logit_last": sum(last) / part}


@technique("V21 V22", "synthesis")
def class_image(
    model: Model,
    *,
    target: int | str | None = None,
    preset: Literal[
        "modern", "simonyan", "cs231n", "yosinski1", "yosinski2", "yosinski3", "yosinski4", "none"
    ] = "modern",
    seeds: int = 4,
    steps: int | None = None,
    seed: int = 0,
    judge: Model | None = None,
    ablation: bool = False,
) -> Result:
    """What a network thinks that a class looks like: pictures optimised for its logit, from several starts.

    Nothing but the network is put in. Without regularisers any noise does it, with a probability of 1; with them other
    networks, too, see what it is: ask one with judge.

    Sources: Simonyan et al. 2014 (section 2), Yosinski et al. 2015 (section 3, table 1), Olah et al. 2017.
    Differs from Yosinski et al. in that a blur comes after every k-th step, where theirs began with the first, and
    in that it repeats the pixels of the edge, where theirs mirrored them.

    Args:
        target: The class: its index, its name or how its name begins.
        preset: How: modern is the clearest; the others are the papers' own settings; none has no regulariser.
        seeds: Starts, one picture from each; simonyan starts from the mean, so it has one only.
        steps: Instead of the preset's own number.
        seed: Of the starts and of what the network is shown.
        judge: A second network that says what it sees in the pictures, such as efficientnet_lite1.
        ablation: Also draw one picture each without regularisers, with jitter, with decay and blur, and modern.

    Returns:
        A `Result` with the images ``class_image`` (all, with what is said of each), ``best`` (the one that the judge,
        without one the network itself, gives the highest probability) and, if asked for, ``ablation``; the frames show
        the way there. ``data`` has the class, the settings, and for each picture, rounded to 8 bits, the network's and
        the judge's five best classes, the class's rank and probability, and the total variation; the mean logit in the
        first and the last tenth of the steps, ``own_first`` and ``judge_top5`` (how many pictures the network puts
        first, and the judge among its five best).

    Raises:
        Refused: a network without classes; a class that the judge does not know; a picture that does not move.
        WrongCall: no class, or an unknown one; no start or no step.
    """
    settings = PRESETS[preset] if steps is None else replace(PRESETS[preset], steps=steps)
    if target is None or seeds < 1 or settings.steps < 1:
        raise WrongCall(
            f"class image: got target {target}, {seeds} seeds and {settings.steps} steps; expected a class (its index "
            "or its name), 1 seed or more, 1 step or more"
        )
    picture_of_nothing = _mean(model)
    index = answer(model, picture_of_nothing, target).index
    _found(model, index, judge, picture_of_nothing)
    made = class_pictures(model, index, settings, count=seeds, seed=seed)
    found = _found(model, index, judge, made.pictures)
    best = max(found, key=lambda each: (each.judge or each.own).asked.probability)
    images = {"class_image": _drawn(made.pictures, found), "best": to_image(made.pictures[[found.index(best)]])}
    data = {"class": index, "name": model.class_name(index), "preset": preset, "seed": seed}
    data |= {"settings": asdict(settings)} | made.ends() | _summary(found)
    if ablation:
        images["ablation"], data["ablation"] = _ablation(model, index, judge, steps, seed)
    return Result(images, data, made.frames, _caption(data))


def class_pictures(model: Model, target: int, settings: Settings, *, count: int = 1, seed: int = 0) -> Made:
    """Optimise pictures for the logit of a class: for the logit, not for a probability, which other classes lower too.

    Args:
        model: a classifier.
        target: index of the class.
        settings: such as one of `PRESETS`.
        count: starts; one if the start has no noise.
        seed: of the starts and the transforms.

    Raises:
        Refused: a start from where no pixel moves the logit.
    """
    canvas = settings.canvas_of(model)
    noise, turns = (torch.Generator().manual_seed(seed) for _ in range(2))
    start = canvas.start(noise, settings.deviation, count if settings.deviation else 1).to(model.device)
    mean, logits = _mean(model), list[float]()
    frames: list[Image.Image] = []
    shown_at = {round((number + 1) * settings.steps / FRAMES) for number in range(FRAMES)}

    def objective(pictures: Tensor) -> Tensor:
        logit = (woken(model, pictures) if len(logits) < WAKING else model(pictures))[:, target]
        logits.append(float(logit.detach().mean()))
        total = settings.penalty * (pictures - mean).square().sum() - logit.sum()
        return total + settings.tv * len(pictures) * total_variation(pictures, beta=1) if settings.tv else total

    def look(step: Step) -> None:
        tell(step.index, settings.steps, "steps")
        if step.index in shown_at:
            frames.append(_grid(canvas.picture(step.image)))

    found = optimize_image(
        start,
        objective,
        step=settings.step_rule(),
        steps=settings.steps,
        transforms=compose(canvas.picture, *settings.transforms(turns)),
        operators=settings.operators(),
        project=canvas.within if settings.bounded and isinstance(canvas, PixelCanvas) else None,
        on_step=look,
    )
    if torch.equal(found, start):
        raise Refused("class image: no pixel moves the class's logit from this start; use another preset or seed")
    return Made(canvas.picture(found), logits, frames)


def _mean(model: Model) -> Tensor:
    """The mean of the network's pictures, (1, 3, size, size)."""
    return torch.tensor(model.mean, device=model.device).view(1, 3, 1, 1).expand(1, 3, model.size, model.size)


@dataclass(frozen=True)
class Found:
    """What is said of one picture, rounded to 8 bits.

    Attributes:
        own: by the network that it was made for.
        judge: by another, if there is one.
        roughness: its isotropic total variation, a mean per value.
    """

    own: Verdict
    judge: Verdict | None
    roughness: float

    def data(self) -> dict[str, Any]:
        """For a result's data."""
        judge = self.judge.data() if self.judge else None
        return {"network": self.own.data(), "judge": judge, "total_variation": self.roughness}

    def __str__(self) -> str:
        said = {"network": self.own, "judge": self.judge}
        lines = [f"{who}: rank {each.rank}, p {each.asked.probability:.2f}" for who, each in said.items() if each]
        return "\n".join([*lines, f"total variation {self.roughness:.3f}"])


def _found(model: Model, index: int, judge: Model | None, pictures: Tensor) -> list[Found]:
    own = verdicts(model, pictures, index)
    other = verdicts(judge, pictures, model.class_name(index)) if judge else [None] * len(pictures)
    rough = [float(total_variation(picture[None], beta=1)) for picture in rounded(pictures)]
    return [Found(*each) for each in zip(own, other, rough, strict=True)]


def _summary(found: list[Found]) -> dict[str, Any]:
    judged = [each.judge for each in found if each.judge]
    return {
        "own_first": sum(each.own.rank == 1 for each in found),
        "judge_top5": sum(each.in_top for each in judged) if judged else None,
        "pictures": [each.data() for each in found],
    }


def _grid(pictures: Tensor) -> Image.Image:
    return grid(pictures, side=1).image


def _drawn(pictures: Tensor, found: list[Found]) -> Image.Image:
    shown = {f"start {number + 1}": to_image(pictures[[number]]) for number in range(len(pictures))}
    return panel(shown, dict(zip(shown, map(str, found), strict=True)), columns=math.ceil(math.sqrt(len(pictures))))


def _ablation(
    model: Model, index: int, judge: Model | None, steps: int | None, seed: int
) -> tuple[Image.Image, dict[str, Any]]:
    """One picture with each of `ABLATION`, and what is said of it."""
    pictures = []
    for settings in ABLATION.values():
        settings = settings if steps is None else replace(settings, steps=steps)
        pictures.append(class_pictures(model, index, settings, seed=seed).pictures)
    found = [_found(model, index, judge, picture)[0] for picture in pictures]
    shown = dict(zip(ABLATION, map(to_image, pictures), strict=True))
    data = {name: each.data() for name, each in zip(ABLATION, found, strict=True)}
    return panel(shown, dict(zip(ABLATION, map(str, found), strict=True))), data


def _caption(data: dict[str, Any]) -> str:
    pictures, count = data["pictures"], len(data["pictures"])
    least = min(each["network"]["probability"] for each in pictures)
    own = f"{data['name']} ({data['preset']}): rounded to 8 bits, the network puts {data['own_first']} of {count} first"
    if data["judge_top5"] is None:
        return f"{own} (p {least:.2g} or more), as it might noise: ask a second network (judge)."
    return f"{own} (p {least:.2g} or more), the judge {data['judge_top5']} of {count} among its five best."
