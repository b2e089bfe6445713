"""What excites the units of a layer, beside what each of them sends back to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from impasto.errors import WrongCall
from impasto.sheets import sheet
from impasto.visualization.backprop import SAME_FOR_ANY, same_for_any
from impasto.visualization.drawing import GREY, grid
from impasto.visualization.drawing import unit as scaled
from impasto.visualization.fields import Field, box_seen, receptive_fields
from impasto.visualization.hits import Hits, on_page, remembered
from impasto.visualization.inputs import Pictures
from impasto.visualization.model import Box, Model
from impasto.visualization.neurons import full_at
from impasto.visualization.progress import track
from impasto.visualization.projections import Place, inside, largest, largest_outside, neurons_of, project, stopped_text
from impasto.visualization.registry import Refused, technique
from impasto.visualization.result import Result
from impasto.visualization.scene import open_picture

BLOCKS = {"deconvnet": "deconv", "guided": "guided"}
"""What stands beside the patches, and its rule."""

PAGE = 8
"""Units on a page."""


@technique("V07", "activations")
def zeiler_sheet(
    model: Model,
    pictures: Pictures,
    *,
    layer: str = "",
    units: tuple[int, ...] = (),
    count: int = 9,
    border: bool = True,
    page: int = 1,
    side: int = 64,
    scale: Literal["max", "std"] = "std",
    cache: str = "",
) -> Result:
    """The patches that excite each unit most, beside what the deconvnet and guided backpropagation send back to them.

    The hits are those of top-patches. From exactly that neuron, at its row and column in that photo, 1 is sent back,
    and what arrives is cut out with the patch's box: RGB around mid-grey, which is 0, each tile on its own scale.

    Source: Zeiler and Fergus 2014, figure 2; Springenberg et al. 2015, figure 3.

    Args:
        pictures: Photos to search.
        layer: As capture has it; empty for the middle stage.
        units: Channels; none for all, 8 on a page.
        count: Patches of each unit.
        border: Also places whose receptive field reaches beyond the picture, where padding may matter.
        page: Which units, from 1.
        side: Height or width of a tile in pixels, whichever is less.
        scale: Drawn full: the largest magnitude, or 5 standard deviations within the box.
        cache: The folder in which top-patches remembers what it found.

    Returns:
        A `Result` with the image ``zeiler_sheet``: a row for each unit. ``data`` has for each unit its ``hits``:
        ``path``, ``value``, ``row``, ``column`` and ``box`` as top-patches has them, and for each of ``deconvnet`` and
        ``guided`` the largest magnitudes ``inside`` and ``outside`` the box and what is drawn full (``limit``); the
        units ``never`` active; the largest magnitude ``outside`` any box, which is 0; ``silent``: from how many neurons
        each sends nothing back; and ``same_for_any``: which of the two would send the same back to any other picture.

    Raises:
        Refused: a layer without maps or numbers; a network without ReLUs; units that are never active; without border,
            a layer whose units all see beyond the picture.
        WrongCall: an unknown layer or unit, or a page that is not there.
        PictureError: a file that cannot be read.
    """
    stages = model.stages()
    layer = layer or (stages[len(stages) // 2] if stages else "")
    if count < 1 or side < 1:
        raise WrongCall(f"zeiler sheet: got count {count} and side {side}, expected 1 or more of each")
    field = receptive_fields(model.network, [layer], size=model.size)[layer]
    hits = remembered(cache, model, pictures, layer, count, field, border)
    shown = on_page("zeiler sheet", units, len(hits.values), page, PAGE)
    active = [unit for unit in shown if hits.values[unit, 0] != 0]
    if not active:
        raise Refused(f"zeiler sheet: these units of {layer} are never active in these photos; choose others")
    view = _View(model, pictures, layer, field, scale, side)
    rows = {unit: view.row(unit, hits) for unit in track(active, len(active), "units")}
    facts = [fact for row in rows.values() for fact in row.facts]
    data = {
        "layer": layer,
        "rf": list(field.size) if field else "global",
        "pictures": len(pictures),
        "scale": scale,
        "units": [{"unit": unit, "hits": rows[unit].facts if unit in rows else []} for unit in shown],
        "never": [unit for unit in shown if unit not in rows],
        "outside": max(fact[name]["outside"] for fact in facts for name in BLOCKS),
        "silent": {name: sum(not fact[name]["inside"] for fact in facts) for name in BLOCKS},
        "same_for_any": view.same_for_any(active[0], hits),
    }
    image = sheet(
        [row.blocks for row in rows.values()],
        titles=["patches", *BLOCKS],
        captions=[f"unit {unit}" for unit in rows],
        labels=[row.labels for row in rows.values()],
    )
    return Result({"zeiler_sheet": image}, data, caption=_caption(data, len(hits.values)))


def _caption(data: dict[str, Any], units: int) -> str:
    field = "everything" if data["rf"] == "global" else "x".join(map(str, data["rf"])) + " pixels"
    notes = [f" {_CAPITAL[name]}: {SAME_FOR_ANY}." for name in data["same_for_any"]]
    notes += [
        f" {_CAPITAL[name]} sends nothing back from {silent} neurons: {stopped_text(data['layer'])}."
        for name, silent in data["silent"].items()
        if silent
    ]
    return (
        f"Among {data['pictures']} photos, what excites {len(data['units'])} of the {units} units of {data['layer']} "
        f"most, and what these neurons send back to it; a unit sees {field}, and outside that box there is "
        f"{data['outside']:.3g}; never active: {len(data['never'])}.{''.join(notes)}"
    )


_CAPITAL = {"deconvnet": "The deconvnet", "guided": "Guided backpropagation"}


@dataclass(frozen=True)
class _Row:
    """A unit's pictures, the text beneath each, and what data says of its hits."""

    blocks: list[Image.Image]
    labels: list[str]
    facts: list[dict[str, Any]]


@dataclass(frozen=True)
class _Seen:
    """Photos in which a unit is strong, the best first, as the network reads them.

    Attributes:
        photos: (n, 3, H, W).
        places: of the neurons.
        boxes: that the neurons see.
        facts: what data says of each.
    """

    photos: Tensor
    places: Sequence[Place]
    boxes: list[Box]
    facts: list[dict[str, Any]]


@dataclass(frozen=True)
class _View:
    """A layer, the photos that it is shown with, and how.

    Attributes:
        model: to look into.
        pictures: the photos.
        layer: as capture has it.
        field: its receptive field; None: everything.
        scale: "max" or "std".
        side: of a tile.
    """

    model: Model
    pictures: Pictures
    layer: str
    field: Field | None
    scale: str
    side: int

    def row(self, unit: int, hits: Hits) -> _Row:
        """A unit's patches, and what comes back to them."""
        seen = self.seen(unit, hits)
        drawn = [[_cut(photo, box, GREY / 255) for photo, box in zip(seen.photos, seen.boxes, strict=True)]]
        labels = [_ends(fact["value"] for fact in seen.facts)]
        for name, rule in BLOCKS.items():
            tiles = []
            sent = project(self.neurons, seen.photos, seen.places, rule).pixels
            for pixels, box, fact in zip(sent, seen.boxes, seen.facts, strict=True):
                limit = full_at(pixels, self.scale, box)
                tiles.append(_cut(scaled(pixels, -limit, limit), box, 0.5))
                ends = {"inside": largest(inside(pixels, box)), "outside": largest_outside(pixels, box)}
                fact[name] = ends | {"limit": limit}
            drawn.append(tiles)
            labels.append(_scales([fact[name] for fact in seen.facts]))
        return _Row([self.block(tiles) for tiles in drawn], labels, seen.facts)

    def seen(self, unit: int, hits: Hits) -> _Seen:
        """The photos of a unit's hits, without those in which it is 0."""
        photos, places, boxes, facts = [], [], [], []
        columns = (hits.values[unit], hits.pictures[unit], hits.rows[unit], hits.columns[unit])
        for value, index, row, column in zip(*(each.tolist() for each in columns), strict=True):
            if value != 0:
                photo = Image.fromarray(open_picture(self.pictures.paths[index]).rgb)
                box = self.box(row, column)
                whole = list(self.model.to_photo(box, photo.size))
                known = {"path": str(self.pictures.paths[index]), "value": value, "row": row, "column": column}
                photos.append(self.model.read(photo))
                places.append((unit, row, column))
                boxes.append(box)
                facts.append(known | {"box": whole})
        return _Seen(torch.cat(photos), places, boxes, facts)

    def neurons(self, pictures: Tensor) -> Tensor:
        """The layer's maps, (N, C, h, w); one of 1 x 1 for each number of a vector."""
        values = neurons_of(self.model, self.layer)(pictures)
        return values if values.ndim == 4 else values[:, :, None, None]

    def box(self, row: int, column: int) -> Box:
        """Where a unit looks, in pixels the network reads."""
        return box_seen(self.field, self.model.size, row, column)

    def same_for_any(self, unit: int, hits: Hits) -> list[str]:
        """Which blocks would be the same for any other photo, from a unit's best hit."""
        best = Hits(*(each[:, :1] for each in vars(hits).values()))
        seen = self.seen(unit, best)
        return [name for name, rule in BLOCKS.items() if same_for_any(rule, self.neurons, seen.photos, seen.places)]

    def block(self, tiles: list[Tensor]) -> Image.Image:
        """Tiles (3, h, w) as a square, of which each value is a square, or the mean of several if they are large."""
        together = torch.stack(tiles)
        if min(together.shape[2:]) > 2 * self.side:
            factor = 2 * self.side / min(together.shape[2:])
            together = F.interpolate(together, scale_factor=factor, mode="area")
        return grid(together, side=self.side).image


def _cut(pixels: Tensor, box: Box, beyond: float) -> Tensor:
    """A box of (3, H, W), which may reach beyond it, where it is ``beyond``."""
    left, top, right, bottom = (int(edge) for edge in box)
    height, width = pixels.shape[1:]
    margins = max(0, -left), max(0, right - width), max(0, -top), max(0, bottom - height)
    framed = F.pad(pixels, margins, value=beyond)
    return framed[:, top + margins[2] : bottom + margins[2], left + margins[0] : right + margins[0]]


def _scales(facts: list[dict[str, float]]) -> str:
    """What stands beneath a block: what is drawn full, and how many tiles are empty."""
    limits = [fact["limit"] for fact in facts if fact["inside"]]
    silent = len(facts) - len(limits)
    full = [f"full at {_ends(limits)}"] if limits else []
    return "\n".join(full + ([f"nothing back from {silent}"] if silent else []))


def _ends(values: Iterable[float]) -> str:
    """From the least to the greatest, in words."""
    known = list(values)
    return f"{min(known):.3g} to {max(known):.3g}"
