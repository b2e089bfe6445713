"""How many things the units of networks stand for, side by side."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

from impasto.sheets import sheet
from impasto.visualization.charts import bars
from impasto.visualization.concepts import Concepts
from impasto.visualization.detectors import ROWS, counts
from impasto.visualization.dissection import Dissection, Layer, dissection
from impasto.visualization.inputs import Masked
from impasto.visualization.model import Model
from impasto.visualization.plots import COLOURS
from impasto.visualization.registry import technique
from impasto.visualization.result import Result

FLOORS = ("#b9bec7", "#d9c9a3")
"""Of random weights and of random axes."""


@technique("V45", "quantification")
def compare_dissections(
    model: Model,
    pictures: Masked,
    *,
    layer: str = "",
    other: Model | None = None,
    other_layer: str = "",
    concepts: Literal["all", "masks", "colours"] = "all",
    top: float = 0.005,
    detector: float = 0.04,
    least: int = 5,
    seed: int = 0,
) -> Result:
    """How many concepts the units of one or two networks detect, beside random weights and random axes.

    Each network is dissected (see dissect) with the same photos; so is each with random weights, which is what its
    architecture alone gives, and each with its layer turned at random, which keeps what the layer knows but not along
    which axes: a drop says that the units themselves, not just the layer, stand for concepts.

    Source: Bau et al. 2017, "Network Dissection".

    Args:
        pictures: Photos, with masks or without, as of dissect.
        layer: As capture has it, with maps; empty for the last stage.
        other: A second network.
        other_layer: Of the second network; empty for its last stage.
        concepts: What units are compared with.
        top: The share of a unit's values that is above its threshold; 0.05 where concepts are large.
        detector: A unit with an IoU above this is said to be a detector.
        least: A concept is in so many photos or more.
        seed: Of the random weights and axes.

    Returns:
        A `Result` with the images ``counts`` (detectors and different concepts, of all and of each category) and
        ``concepts`` (detectors of each concept, if there are any). ``data`` has the same for each of ``networks``, with
        ``units``, the number of units compared; for each concept its detectors in each; and ``only``: the concepts that
        one of two networks detects and the other does not.

    Raises:
        Refused: a layer without maps, masks asked for that are not there, or no concept in enough photos.
        WrongCall: an unknown layer, or less than one value above a threshold.
        PictureError: a file that cannot be read, or a mask that does not fit its photo.
    """
    known = Concepts.of(pictures, concepts)
    layers = {"this": Layer.of(model, layer)}
    if other is not None:
        layers["the other"] = Layer.of(other, other_layer)
    found: dict[str, Dissection] = {}
    for name, where in layers.items():
        kinds = {"": where, ", random weights": where.untrained(seed), ", random axes": where.rotated(seed)}
        for kind, each in kinds.items():
            found[f"{name}: {where.name}{kind}"] = dissection(each, known, top=top, least=least)
    networks = [{"name": name, "units": len(each.thresholds), **counts(each, detector)} for name, each in found.items()]
    rows = _concept_rows(found, detector)
    data = {
        "pictures": len(pictures),
        "masks": sum(mask is not None for mask in pictures.masks),
        "top": top,
        "networks": networks,
        "concepts": [
            {"concept": name, "category": category, "units": units} for (name, category), units in rows.items()
        ],
        "only": _only(rows, list(layers)),
    }
    return Result(_charts(networks, rows), data, caption=_caption(networks, data, detector))


def _concept_rows(found: dict[str, Dissection], detector: float) -> dict[tuple[str, str], list[int]]:
    """For each concept with a detector, and its category, the detectors in each network; the most first."""
    labels = [Counter(number for number in each.labels(detector) if number is not None) for each in found.values()]
    known = next(iter(found.values())).concepts
    numbers = sorted(set().union(*labels), key=lambda number: [-each[number] for each in labels])
    return {(known.names[number], known.categories[number]): [each[number] for each in labels] for number in numbers}


def _only(rows: dict[tuple[str, str], list[int]], layers: list[str]) -> dict[str, list[str]]:
    """The concepts that one of two networks detects and the other does not; each network has three columns."""
    columns = {name: 3 * place for place, name in enumerate(layers)}
    return {
        name: [
            concept
            for (concept, _), units in rows.items()
            if units[column] and not any(units[rival] for rival in columns.values() if rival != column)
        ]
        for name, column in columns.items()
        if len(columns) > 1
    }


def _charts(networks: list[dict[str, Any]], rows: dict[tuple[str, str], list[int]]) -> dict[str, Any]:
    names = [f"{network['name']} ({network['units']} units)" for network in networks]
    colours = [colour for place in range(len(networks) // 3) for colour in (COLOURS[place], *FLOORS)]
    charts = []
    for what, title in (("detectors", "units that are detectors"), ("concepts", "different concepts")):
        values = {title: [network[what] for network in networks]}
        categories = networks[0]["categories"] if len(networks[0]["categories"]) > 1 else ()
        values |= {f"of {name}": [network["categories"][name][what] for network in networks] for name in categories}
        charts.append(bars(values, names, colours=colours))
    images = {"counts": sheet([charts])}
    shown = {f"{name} ({category})": units for (name, category), units in list(rows.items())[: ROWS // 2]}
    if shown:
        images["concepts"] = bars(shown, names, colours=colours)
    return images


def _caption(networks: list[dict[str, Any]], data: dict[str, Any], detector: float) -> str:
    said = "; ".join(
        f"{network['name']}: {network['detectors']} of {network['units']} units are detectors of "
        f"{network['concepts']} concepts"
        for network in networks
    )
    return (
        f"{said}; a detector's IoU is above {detector:g}, its threshold at the top {data['top']:.1%} of its values, "
        f"among {data['pictures']} photos, {data['masks']} with masks."
    )
