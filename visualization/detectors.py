"""Which units of a layer stand for something people have a word for."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from impasto.errors import WrongCall
from impasto.sheets import tiled
from impasto.visualization.charts import PALE, bars
from impasto.visualization.concepts import Concepts
from impasto.visualization.dissection import Dissection, Layer, dissection
from impasto.visualization.drawing import grid
from impasto.visualization.hits import on_page
from impasto.visualization.inputs import Masked
from impasto.visualization.model import Model
from impasto.visualization.plots import COLOURS
from impasto.visualization.progress import track
from impasto.visualization.registry import technique
from impasto.visualization.result import Result

PAGE = 24
"""Units on a page."""

ROWS = 40
"""Concepts in a chart."""


@technique("V44", "quantification")
def dissect(
    model: Model,
    pictures: Masked,
    *,
    layer: str = "",
    concepts: Literal["all", "masks", "colours"] = "all",
    top: float = 0.005,
    detector: float = 0.04,
    least: int = 5,
    floor: bool = True,
    units: tuple[int, ...] = (),
    count: int = 5,
    page: int = 1,
    side: int = 96,
) -> Result:
    """What each unit of a layer stands for: the concept whose pixels it picks out best, and how well.

    A unit is on where it is above its own threshold; the concept with the highest intersection over union (IoU) of the
    pixels where it is on and those that show the concept is its label. Concepts are eleven colours, seen without any
    label, and what masks say: for images/dog.jpg, masks/dog.png beside that folder, one channel of numbers as large as
    the photo, with their names in labels.json beside the two as {"labels": {"1": "sky"}}.

    Two areas of different size cannot overlap wholly: beside each IoU stands the most that it could be. And units of
    any network are above some colour: the same is done with random weights.

    Source: Bau et al. 2017, "Network Dissection". Differs from it: equal values are told apart by chance, so that
    saturated units have a mask at all; colours are the nearest of CSS's; photos are cropped as the network is used to.

    Args:
        pictures: Photos, with masks or without.
        layer: As capture has it, with maps; empty for the last stage.
        concepts: What units are compared with.
        top: The share of a unit's values that is above its threshold; 0.05 where concepts are large.
        detector: A unit with an IoU above this is said to be a detector.
        least: A concept is in so many photos or more.
        floor: Also with random weights.
        units: Shown; none for all, the best first, 24 on a page.
        count: Photos of each unit, those in which it is strongest.
        page: Which units, from 1.
        side: Height and width of a photo in pixels.

    Returns:
        A `Result` with the images ``units`` (lit where the unit is on) and ``detectors`` (how many of each concept, if
        there are any). ``data`` has for each unit of the layer ``label``, ``category``, ``iou``, ``ceiling``,
        ``detector``, ``floor`` (the highest IoU of a unit with random weights for the same concept), ``threshold`` and
        ``tied``; for each concept its share of the pixels and its units, and whether any unit could be its detector;
        and the counts, also with random weights and of colours alone.

    Raises:
        Refused: a layer without maps, masks asked for that are not there, or no concept in enough photos.
        WrongCall: an unknown layer or unit, a page that is not there, or less than one value above a threshold.
        PictureError: a file that cannot be read, or a mask that does not fit its photo.
    """
    if count < 1 or side < 1:
        raise WrongCall(f"dissect: got count {count} and side {side}, expected 1 or more of each")
    known = Concepts.of(pictures, concepts)
    where = Layer.of(model, layer)
    found = dissection(where, known, top=top, least=least)
    untrained = dissection(where.untrained(), known, top=top, least=least) if floor else None
    order = found.best_iou.argsort(descending=True, stable=True).tolist()
    shown = on_page("dissect", units or tuple(order), len(order), page, PAGE)
    cards = cards_of(found, shown, count, side)
    facts = [unit_facts(found, untrained, unit, detector) for unit in range(len(order))]
    data: dict[str, Any] = {
        "layer": where.name,
        "units_in_layer": len(order),
        "pictures": len(pictures),
        "masks": sum(mask is not None for mask in pictures.masks),
        "top": top,
        "counts": counts(found, detector),
        "floor": counts(untrained, detector) if untrained else None,
        "tied": int(found.tied.sum()),
        "concepts": concept_facts(found, untrained, detector),
        "units": facts,
        "shown": [{"unit": unit, "pictures": strongest_photos(found, unit, count)} for unit in shown],
    }
    images = {"units": tiled([cards[unit] for unit in shown], [_label(facts[unit]) for unit in shown])}
    images |= _chart(data["concepts"], found, floor)
    return Result(images, data, caption=_caption(data, detector))


def unit_facts(found: Dissection, untrained: Dissection | None, unit: int, detector: float) -> dict[str, Any]:
    """What data says of a unit."""
    number = int(found.best[unit])
    return {
        "unit": unit,
        "label": found.concepts.names[number],
        "category": found.concepts.categories[number],
        "iou": float(found.best_iou[unit]),
        "ceiling": float(found.ceiling[unit, number]),
        "floor": float(untrained.iou[:, number].max()) if untrained else None,
        "detector": bool(found.best_iou[unit] > detector),
        "threshold": float(found.thresholds[unit]),
        "tied": bool(found.tied[unit]),
    }


def concept_facts(found: Dissection, untrained: Dissection | None, detector: float) -> list[dict[str, Any]]:
    """What data says of each concept that counts, those with the most detectors first."""
    units = [Counter(each.labels(detector)) if each else None for each in (found, untrained)]
    facts = [
        {
            "concept": found.concepts.names[number],
            "category": found.concepts.categories[number],
            "photos": int(found.photos[number]),
            "share": int(found.pixels[number]) / int(found.labelled[number]),
            "reachable": bool(found.ceiling[:, number].max() > detector),
            "best": float(found.iou[:, number].max()),
            "units": (units[0] or {})[number],
            "floor_units": units[1][number] if units[1] is not None else None,
        }
        for number in found.counted.nonzero().flatten().tolist()
    ]
    return sorted(facts, key=lambda fact: (-fact["units"], -fact["best"]))


def counts(found: Dissection, detector: float) -> dict[str, Any]:
    """Detectors and different concepts of a layer, in all and by category, and the highest IoU."""
    labels = [number for number in found.labels(detector) if number is not None]
    categories: dict[str, dict[str, int]] = {
        name: {"detectors": 0, "concepts": 0} for name in found.concepts.categories
    }
    for number in labels:
        categories[found.concepts.categories[number]]["detectors"] += 1
    for number in set(labels):
        categories[found.concepts.categories[number]]["concepts"] += 1
    return {
        "detectors": len(labels),
        "concepts": len(set(labels)),
        "best": float(found.best_iou.max()),
        "categories": categories,
    }


def strongest_photos(found: Dissection, unit: int, count: int) -> list[dict[str, Any]]:
    """The photos in which a unit is strongest, and how strong."""
    values, indices = found.peaks[unit].sort(descending=True, stable=True)
    best = list(zip(indices.tolist(), values.tolist(), strict=True))[:count]
    return [{"path": str(found.concepts.pictures.paths[index]), "index": index, "peak": peak} for index, peak in best]


def cards_of(found: Dissection, units: list[int], count: int, side: int) -> dict[int, Image.Image]:
    """For each unit the photos in which it is strongest, side by side, lit where it is on."""
    wanted: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for unit in units:
        for rank, photo in enumerate(strongest_photos(found, unit, count)):
            wanted[photo["index"]].append((unit, rank))
    tiles: dict[tuple[int, int], Tensor] = {}
    model = found.layer.model
    for index in track(sorted(wanted), len(wanted), "cards"):
        image = model.read(found.concepts.pictures.paths[index])
        masks = found.masks(image, index, [unit for unit, _ in wanted[index]])
        for place, mask in zip(wanted[index], masks, strict=True):
            tiles[place] = _lit(image[0].cpu(), mask, side)
    return {
        unit: grid(
            torch.stack([tiles[place] for place in sorted(tiles) if place[0] == unit]), side=1, columns=count
        ).image
        for unit in units
    }


def _lit(photo: Tensor, mask: Tensor, side: int) -> Tensor:
    """A photo (3, size, size) dark but for a mask, with a yellow edge unless it is all specks, as a tile."""
    edge = (torch.nn.functional.max_pool2d(mask[None, None].float(), 5, 1, 2)[0, 0] > 0) & ~mask
    shown = torch.where(mask, photo, photo * 0.45)
    if edge.sum() < 1.5 * mask.sum():
        shown = torch.where(edge, torch.tensor([1.0, 0.82, 0.0]).view(3, 1, 1), shown)
    pixels = np.asarray(shown.permute(1, 2, 0).mul(255).round().byte())
    tile = Image.fromarray(pixels).resize((side, side), Image.Resampling.BOX, reducing_gap=3)
    return torch.from_numpy(np.array(tile)).permute(2, 0, 1) / 255


def _label(fact: dict[str, Any]) -> str:
    name = fact["label"] if fact["detector"] else f"no detector (nearest: {fact['label']})"
    floor = "" if fact["floor"] is None else f"; random weights {fact['floor']:.3f}"
    return f"unit {fact['unit']}: {name}\nIoU {fact['iou']:.3f} of at most {fact['ceiling']:.3f}{floor}"


def _chart(concepts: list[dict[str, Any]], found: Dissection, floor: bool) -> dict[str, Image.Image]:
    """Detectors of each concept as bars, beside them those with random weights."""
    rows = {
        f"{fact['concept']} ({fact['category']})": [fact["units"], *([fact["floor_units"]] if floor else [])]
        for fact in concepts
        if fact["units"] or fact["floor_units"]
    }
    names = [
        f"detectors among the {len(found.thresholds)} units of {found.layer.name}",
        *(["with random weights"] * floor),
    ]
    shown = dict(list(rows.items())[:ROWS])
    return {"detectors": bars(shown, names, colours=[COLOURS[0], PALE])} if shown else {}


def _caption(data: dict[str, Any], detector: float) -> str:
    floor, counted = data["floor"], data["counts"]
    beside = f" (with random weights {floor['detectors']} of {floor['concepts']})" if floor else ""
    beyond = [fact["concept"] for fact in data["concepts"] if not fact["reachable"]]
    unreachable = (
        f" For their size no unit can be a detector of {len(beyond)}, such as {', '.join(beyond[:3])}: change --top."
        if beyond
        else ""
    )
    tied = f" {data['tied']} units have equal values at their threshold." if data["tied"] else ""
    return (
        f"{counted['detectors']} of the {data['units_in_layer']} units of {data['layer']} have an IoU above "
        f"{detector:g} and are detectors of {counted['concepts']} concepts{beside}, among {data['pictures']} photos, "
        f"{data['masks']} with masks; lit is where a unit is above its threshold, {data['top']:.1%} of its values."
        f"{unreachable}{tied}"
    )
