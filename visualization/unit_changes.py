"""What became of a layer's units while the network was trained."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

from PIL import Image

from impasto.errors import WrongCall
from impasto.sheets import sheet
from impasto.visualization.charts import flow
from impasto.visualization.concepts import Concepts
from impasto.visualization.detectors import cards_of, counts
from impasto.visualization.dissection import Dissection, Layer, dissection
from impasto.visualization.inputs import Masked
from impasto.visualization.model import Model
from impasto.visualization.registry import technique
from impasto.visualization.result import Result

NONE = "no detector"
"""A unit that stands for nothing it was compared with."""


@technique("V46", "quantification")
def unit_transitions(
    model: Model,
    pictures: Masked,
    *,
    layer: str = "",
    before: Model | None = None,
    concepts: Literal["all", "masks", "colours"] = "all",
    top: float = 0.005,
    detector: float = 0.04,
    least: int = 5,
    shown: int = 12,
    count: int = 4,
    side: int = 96,
) -> Result:
    """Which units came to stand for something else between two states of a network.

    The same layer of both is dissected (see dissect) with the same photos; what a unit was a detector of before and
    what it is one of now are put side by side.

    Source: Zhou et al. 2018, "Interpreting Deep Visual Representations via Network Dissection".

    Args:
        pictures: Photos, with masks or without, as of dissect.
        layer: As capture has it, with maps; empty for the last stage.
        before: The network as it was; none for one with random weights.
        concepts: What units are compared with.
        top: The share of a unit's values that is above its threshold; 0.05 where concepts are large.
        detector: A unit with an IoU above this is said to be a detector.
        least: A concept is in so many photos or more.
        shown: Units that changed, those that are the best detectors now first.
        count: Photos of each unit, those in which it is strongest.
        side: Height and width of a photo in pixels.

    Returns:
        A `Result` with the images ``flow`` and ``units`` (before and after, if any changed). ``data`` has for each unit
        ``before`` and ``after`` (a concept, or "no detector"), their IoU, and whether it changed; the ``transitions``
        with how many units made each; the number that ``changed``; and the counts of both.

    Raises:
        Refused: a layer without maps, masks asked for that are not there, or no concept in enough photos.
        WrongCall: an unknown layer, networks whose layers have different numbers of units, or less than one value above
            a threshold.
        PictureError: a file that cannot be read, or a mask that does not fit its photo.
    """
    if min(shown, count, side) < 1:
        raise WrongCall(f"unit transitions: got shown {shown}, count {count}, side {side}, expected 1 or more of each")
    known = Concepts.of(pictures, concepts)
    now = Layer.of(model, layer)
    then = Layer.of(before, now.name) if before is not None else now.untrained()
    found = [dissection(each, known, top=top, least=least) for each in (then, now)]
    if len(found[0].thresholds) != len(found[1].thresholds):
        raise WrongCall(
            f"unit transitions: {now.name} had {len(found[0].thresholds)} units and has {len(found[1].thresholds)}; "
            "expected two states of one network"
        )
    units = changes(found[0], found[1], detector)
    changed = [unit for unit in units if unit["changed"]]
    changed.sort(key=lambda unit: -unit["after_iou"])
    data = {
        "layer": now.name,
        "pictures": len(pictures),
        "masks": sum(mask is not None for mask in pictures.masks),
        "top": top,
        "changed": len(changed),
        "transitions": transitions(units),
        "counts": {name: counts(each, detector) for name, each in zip(("before", "after"), found, strict=True)},
        "units": units,
    }
    names = [[unit[when] for unit in units] for when in ("before", "after")]
    titles = ("before" if before is not None else "random weights", "after")
    images = {"flow": flow(*names, titles=titles, height=max(480, 24 * len({*names[0], *names[1]})), nothing=NONE)}
    if changed:
        images["units"] = _side_by_side(found, changed[:shown], titles, count, side)
    return Result(images, data, caption=_caption(data, titles[0], detector))


def changes(before: Dissection, after: Dissection, detector: float) -> list[dict[str, Any]]:
    """For each unit what it was a detector of, what it is one of, and both IoU."""
    names = after.concepts.names
    return [
        {
            "unit": unit,
            "before": NONE if one is None else names[one],
            "after": NONE if other is None else names[other],
            "before_iou": float(before.best_iou[unit]),
            "after_iou": float(after.best_iou[unit]),
            "changed": one != other,
        }
        for unit, (one, other) in enumerate(zip(before.labels(detector), after.labels(detector), strict=True))
    ]


def transitions(units: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many units went from what to what, the most first; also those that stayed what they were."""
    pairs = Counter((unit["before"], unit["after"]) for unit in units)
    return [{"before": one, "after": other, "units": number} for (one, other), number in pairs.most_common()]


def _side_by_side(
    found: list[Dissection], units: list[dict[str, Any]], titles: tuple[str, str], count: int, side: int
) -> Image.Image:
    """A row for each unit: its photos before and after."""
    chosen = [unit["unit"] for unit in units]
    cards = [cards_of(each, chosen, count, side) for each in found]
    labels = [
        [f"unit {unit['unit']}: {unit[when]}\nIoU {unit[f'{when}_iou']:.3f}" for when in ("before", "after")]
        for unit in units
    ]
    return sheet([[each[unit] for each in cards] for unit in chosen], titles=titles, labels=labels)


def _caption(data: dict[str, Any], before: str, detector: float) -> str:
    one, other = (data["counts"][when] for when in ("before", "after"))
    return (
        f"{data['changed']} of the {len(data['units'])} units of {data['layer']} stand for something else than "
        f"{'with ' if before != 'before' else ''}{before}: {one['detectors']} detectors of {one['concepts']} concepts "
        f"became {other['detectors']} of {other['concepts']} (IoU above {detector:g}), among "
        f"{data['pictures']} photos, {data['masks']} with masks."
    )
