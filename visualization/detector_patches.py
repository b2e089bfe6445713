"""A patch beside the objects that keeps a detector from finding them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from impasto.errors import WrongCall
from impasto.losses import clip, optimize_image, steepest
from impasto.visualization.detections import Objects, detected, detection_loss, scores_of
from impasto.visualization.drawing import boxed, panel
from impasto.visualization.inputs import Whole
from impasto.visualization.judging import rounded
from impasto.visualization.model import Model
from impasto.visualization.pasting import Place, paste
from impasto.visualization.perturbations import LEVEL
from impasto.visualization.progress import tell
from impasto.visualization.registry import Refused, technique
from impasto.visualization.result import Result
from impasto.visualization.scene import to_image

LEAST = 8
"""Pixels of the smallest patch's side."""

MOVED = 8
"""Random shifts, turns and brightnesses under which the patch is tried too."""

DRAWN = 320
"""Least width of a drawn picture in pixels."""


@technique("V41", "fooling")
def detector_patch(
    model: Model,
    picture: Whole,
    *,
    goal: Literal["hide", "confuse"] = "hide",
    area: float = 0.1,
    threshold: float = 0.5,
    steps: int = 200,
    rate: float = 8.0,
    degrees: float = 5.0,
    shift: int = 2,
    brightness: float = 0.1,
    seed: int = 0,
) -> Result:
    """A patch that touches no object, and what a detector still finds beside it.

    Its values take steps of one size, shifted, turned and lit at random: down the scores of the objects (hide), or up
    the detector's own training losses for what it finds without the patch (confuse), for which it is enough that the
    patch itself is taken for an object. What it can reach is what sees it: detections in whose receptive field it lies,
    or all, through a part of the network that sees the whole picture.

    For a detector: a module of ``torchvision.models.detection``, or one that is called as they are, given to
    `load_model`. The networks that the command line knows by name find no objects, and are refused.

    Source: Lee and Kolter 2019, who confuse. Differs from them in that the patch is made in one picture, not in many.

    Args:
        goal: Whether the patch is to hide the objects, or to make as much as possible wrong.
        area: The part of the picture that the patch covers at most: less where the objects leave less room.
        threshold: What the detector finds with at least this score is an object.
        steps: Number of steps.
        rate: Of a step, in steps of an 8-bit picture.
        degrees: The largest turn either way.
        shift: The largest shift each way, in pixels.
        brightness: The largest part by which it is darker or lighter.
        seed: Of the start and of the shifts, turns and brightnesses.

    Returns:
        A `Result` with the images ``detections`` (the picture as it is, with a patch of noise, and with the patch, and
        what is found in each; red is what was no object before) and ``patch``. ``data`` has the ``objects``, for each
        its ``distance`` from the patch in pixels and its ``scores`` with ``noise`` and with the ``patch`` (the
        detector's best box of its class on it, 0 for none); ``recall``, the part of them found with at least the
        threshold, with ``noise``, ``patch``, and ``moved`` (the patch at random shifts, turns and brightnesses, a
        mean); ``others``, what is found besides; ``highest``, the highest score of all with each; and the patch's box.
        All of it in pictures rounded to 8 bits.

    Raises:
        Refused: a network that is no detector; a picture in which it finds nothing, or that objects fill; a patch that
            moves no loss.
        WrongCall: a number that cannot be.
    """
    _check(area, threshold, steps, rate, shift, brightness)
    objects = detected(model, rounded(picture)).surer_than(threshold)
    if not len(objects.boxes):
        raise Refused(f"detector patch: it finds nothing with a score of {threshold:g} or more; use another picture")
    ways = Ways(free_place(objects.boxes, picture, area, shift), degrees, shift, brightness)
    noise = torch.rand(1, 3, ways.place.side, ways.place.side, generator=torch.Generator().manual_seed(seed)).to(
        picture
    )
    made = attack(model, picture, objects, noise, ways, goal=goal, steps=steps, rate=rate * LEVEL, seed=seed)
    shown = {"as it is": picture, "noise": ways.still(picture, noise), "patch": ways.still(picture, rounded(made))}
    shown = {name: rounded(each) for name, each in shown.items()}
    found = {name: detected(model, each) for name, each in shown.items()}
    data = _data(model, objects, found, ways.place, threshold) | {"goal": goal, "steps": steps, "seed": seed}
    data["recall"]["moved"] = _moved(model, picture, made, objects, ways, threshold, seed)
    images = {"detections": _drawn(shown, objects, found, threshold), "patch": _enlarged(to_image(made))}
    return Result(images, data, caption=_caption(data))


def _check(area: float, threshold: float, steps: int, rate: float, shift: int, brightness: float) -> None:
    if not (0 < area <= 1 and 0 < threshold <= 1 and steps >= 1 and rate > 0 and shift >= 0 and 0 <= brightness < 1):
        raise WrongCall(
            f"detector patch: got area {area}, threshold {threshold}, {steps} steps of {rate}, shift {shift}, "
            f"brightness {brightness}; expected parts above 0 and up to 1, 1 step or more of a size above 0, a shift "
            "from 0 on, a brightness from 0 to under 1"
        )


def _data(model: Model, objects: Objects, found: dict[str, Objects], place: Place, threshold: float) -> dict[str, Any]:
    """The objects and what became of them."""
    scores = {name: scores_of(objects, found[name]) for name in ("noise", "patch")}
    apart = distances(objects.boxes, torch.tensor([_box(place)]).to(objects.boxes))[:, 0].tolist()
    facts = [
        each | {"distance": distance, "scores": {name: float(values[index]) for name, values in scores.items()}}
        for index, (each, distance) in enumerate(zip(objects.data(model), apart, strict=True))
    ]
    return {
        "threshold": threshold,
        "place": _box(place),
        "objects": facts,
        "recall": {name: recall(values, threshold) for name, values in scores.items()},
        "others": {name: len(_news(objects, found[name], threshold).boxes) for name in scores},
        "highest": {name: float(F.pad(each.scores, (1, 0)).max()) for name, each in found.items()},
    }


@dataclass(frozen=True)
class Ways:
    """How the patch may lie in the picture.

    Attributes:
        place: where it lies.
        degrees: the largest turn either way.
        shift: the largest shift each way, in pixels.
        brightness: the largest part by which it is darker or lighter.
    """

    place: Place
    degrees: float
    shift: int
    brightness: float

    def still(self, picture: Tensor, patch: Tensor) -> Tensor:
        """The picture with the patch as it is."""
        return paste(picture, patch, torch.ones_like(patch[:, :1]), [self.place])

    def drawn(self, picture: Tensor, patch: Tensor, generator: torch.Generator) -> Tensor:
        """The picture with the patch shifted, turned and lit at random."""
        down, across = torch.randint(-self.shift, self.shift + 1, (2,), generator=generator).tolist()
        turn, light = (2 * torch.rand(2, generator=generator) - 1).tolist()
        place = Place(self.place.top + down, self.place.left + across, self.place.side, self.degrees * turn)
        lit = (patch * (1 + self.brightness * light)).clamp(0, 1)
        return paste(picture, lit, torch.ones_like(patch[:, :1]), [place])


def attack(
    model: Model,
    picture: Tensor,
    objects: Objects,
    start: Tensor,
    ways: Ways,
    *,
    goal: str = "hide",
    steps: int,
    rate: float,
    seed: int = 0,
) -> Tensor:
    """A patch in whose presence a detector does not find objects, or makes errors.

    What is minimised is the sum of ``-log(1 - score)`` over the objects that are still found (hide), or minus the sum
    of the detector's training losses (confuse).

    Args:
        model: a detector.
        picture: (1, 3, H, W), float RGB in [0, 1].
        objects: what is found without the patch.
        start: (1, 3, P, P), where it begins.
        ways: how the patch may lie.
        goal: "hide" or "confuse".
        steps: number of steps.
        rate: of a step, in pixel values.
        seed: of the draws.

    Returns:
        (1, 3, P, P) in [0, 1].

    Raises:
        Refused: a patch that moves nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = iter(range(seed, seed + steps))

    def objective(patch: Tensor) -> Tensor:
        shown = ways.drawn(picture, patch, generator)
        if goal == "confuse":
            return -detection_loss(model, shown, objects, next(draws))
        scores = scores_of(objects, detected(model, shown))
        return 0 * patch.sum() - torch.log1p(1e-6 - scores).sum()

    found = optimize_image(
        start,
        objective,
        step=steepest(rate, "sign"),
        steps=steps,
        project=clip,
        on_step=lambda step: tell(step.index, steps, "steps"),
    )
    if torch.equal(found, start):
        raise Refused(f"detector patch: nothing in it moves what is found ({goal}); no receptive field reaches it")
    return found


def free_place(boxes: Tensor, picture: Tensor, area: float, margin: int) -> Place:
    """The square farthest from all objects, as large as is asked for or as there is room.

    Args:
        boxes: (N, 4), left, top, right and bottom, N at least 1.
        picture: (1, 3, H, W).
        area: the part of the picture that the square is to cover.
        margin: pixels that it keeps from the boxes and from the picture's edges.

    Raises:
        Refused: no room for one of `LEAST` pixels a side.
    """
    height, width = picture.shape[2:]
    side = min(round(math.sqrt(area * height * width)), height - 2 * margin, width - 2 * margin)
    while side >= LEAST:
        tops, lefts = torch.arange(margin, height - margin - side + 1), torch.arange(margin, width - margin - side + 1)
        top, left = (each.flatten().to(boxes) for each in torch.meshgrid(tops, lefts, indexing="ij"))
        nearest = distances(boxes, torch.stack([left, top, left + side, top + side], 1)).amin(0)
        best = int(nearest.argmax())
        if nearest[best] >= margin and nearest[best] > 0:
            return Place(int(top[best]), int(left[best]), side)
        side = int(side * 0.9)
    raise Refused(f"detector patch: the objects leave no room for {LEAST} pixels beside them; use another picture")


def distances(boxes: Tensor, squares: Tensor) -> Tensor:
    """Pixels between each box (N, 4) and each square (M, 4), (N, M); 0 if they touch."""
    before = boxes[:, None, :2] - squares[None, :, 2:]
    after = squares[None, :, :2] - boxes[:, None, 2:]
    apart: Tensor = torch.maximum(before, after).clamp(min=0).norm(dim=2)
    return apart


def recall(scores: Tensor, threshold: float) -> float:
    """The part of the objects that are found with at least a score."""
    return float((scores >= threshold).double().mean())


def _moved(
    model: Model, picture: Tensor, patch: Tensor, objects: Objects, ways: Ways, threshold: float, seed: int
) -> float:
    generator = torch.Generator().manual_seed(seed + 1)
    pictures = [rounded(ways.drawn(picture, patch, generator)) for _ in range(MOVED)]
    return sum(recall(scores_of(objects, detected(model, each)), threshold) for each in pictures) / MOVED


def _news(objects: Objects, found: Objects, threshold: float) -> Objects:
    """What is found and was no object."""
    sure = found.surer_than(threshold)
    known = scores_of(sure, objects) > 0
    return Objects(sure.boxes[~known], sure.labels[~known], sure.scores[~known], {})


def _box(place: Place) -> list[int]:
    return [place.left, place.top, place.left + place.side, place.top + place.side]


def _enlarged(image: Image.Image) -> Image.Image:
    factor = max(1, -(-DRAWN // image.width))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _drawn(shown: dict[str, Tensor], objects: Objects, found: dict[str, Objects], threshold: float) -> Image.Image:
    """Each picture with the objects that are found in it, and in red what was none."""
    drawn, notes = {}, {}
    for name, picture in shown.items():
        image = _enlarged(to_image(picture))
        scale = image.width / picture.shape[3]
        sure, news = found[name].surer_than(threshold), _news(objects, found[name], threshold)
        kept = scores_of(objects, sure) > 0
        image = boxed(image, (sure.boxes * scale).tolist(), width=3)
        name = name if name == "as it is" else f"with {name}" if name == "noise" else "with the patch"
        drawn[name] = boxed(image, (news.boxes * scale).tolist(), "#ff2020", 3)
        notes[name] = f"{int(kept.sum())} of {len(objects.boxes)} objects found"
        notes[name] += f", {len(news.boxes)} that are none" if len(news.boxes) else ""
    return panel(drawn, notes)


def _caption(data: dict[str, Any]) -> str:
    rates, nearest = data["recall"], min(each["distance"] for each in data["objects"])
    return (
        f"Of {len(data['objects'])} objects the detector finds {rates['patch']:.0%} with a patch that touches none "
        f"({nearest:.0f} pixels from the nearest; shifted, turned and lit at random {rates['moved']:.0%}), "
        f"{rates['noise']:.0%} with noise in its place."
    )
