"""What in a folder of photos excites the units of a layer most."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from impasto.errors import WrongCall
from impasto.losses import capture
from impasto.sheets import tiled
from impasto.visualization.drawing import GREY, boxed, grid
from impasto.visualization.fields import Field, box_seen, receptive_fields
from impasto.visualization.hits import Hits, on_page, remembered
from impasto.visualization.inputs import Pictures
from impasto.visualization.model import Box, Model
from impasto.visualization.progress import track
from impasto.visualization.registry import technique
from impasto.visualization.result import Result
from impasto.visualization.scene import open_picture, to_image

PAGE = 36
"""Units on a page."""

CHECKED = 4
"""Units of which the technique checks that nothing outside the patch matters."""


@technique("V05", "activations")
def top_patches(
    model: Model,
    pictures: Pictures,
    *,
    layer: str = "",
    units: tuple[int, ...] = (),
    count: int = 9,
    border: bool = True,
    page: int = 1,
    side: int = 64,
    cache: str = "",
) -> Result:
    """The patches of photos that excite each unit of a layer most, cut out where the unit looks.

    A unit is a channel at its strongest place, at most one in a photo; of equal ones the first photo and place count.
    A patch is the unit's receptive field, cut from the photo itself; grey where the field reaches beyond what the
    network reads. Units that see everything show the whole picture. A photo in which a unit is 0 is left out.

    Source: Zeiler and Fergus 2014, figure 2; Girshick et al. 2014, figure 4.

    Args:
        pictures: Photos to search.
        layer: As capture has it; empty for the middle stage.
        units: Channels; none for all, 36 on a page.
        count: Patches of each unit.
        border: Also places whose receptive field reaches beyond the picture, where padding may matter.
        page: Which units, from 1.
        side: Least height and width of a tile in pixels.
        cache: A folder that remembers what was found, for other units of the same layer, photos and network.

    Returns:
        A `Result` with the images ``patches`` and ``photos`` (what the network read, with the patch's box), a block for
        each unit. ``data`` has for each unit its ``hits``: ``path``, ``value``, ``row`` and ``column`` on the map,
        ``box`` in the photo's pixels (left, top, right, bottom; it may reach beyond); the units ``never`` active; those
        ``tied``, whose hits all have one value, so that others may be as good; and ``outside``: how much the value of
        the first hits changes at most, as a part of it, if all outside their boxes is noise (None: nothing is outside).

    Raises:
        Refused: a layer without maps or numbers; without border, one whose units all see beyond the picture.
        WrongCall: an unknown layer or unit, or a page that is not there.
        PictureError: a file that cannot be read.
    """
    stages = model.stages()
    layer = layer or (stages[len(stages) // 2] if stages else "")
    if count < 1 or side < 1:
        raise WrongCall(f"top patches: got count {count} and side {side}, expected 1 or more of each")
    field = receptive_fields(model.network, [layer], size=model.size)[layer]
    hits = remembered(cache, model, pictures, layer, count, field, border)
    shown = on_page("top patches", units, len(hits.values), page, PAGE)
    tiles = _Tiles(model, pictures, field, side)
    blocks, facts = tiles.blocks({unit: _hits_of(hits, unit) for unit in shown})
    labels = [f"unit {unit}\n{_span(unit, hits)}" for unit in shown]
    best, last = hits.values[:, 0], hits.values[:, -1]
    never = (best == 0).nonzero().flatten().tolist()
    tied = ((best == last) & (best != 0) & (hits.values.shape[1] > 1)).nonzero().flatten().tolist()
    data = {
        "layer": layer,
        "rf": list(field.size) if field else "global",
        "pictures": len(pictures),
        "units": [{"unit": unit, "hits": facts[unit]} for unit in shown],
        "never": never,
        "tied": tied,
        "outside": _outside(model, pictures, layer, field, hits, [unit for unit in shown if facts[unit]][:CHECKED]),
    }
    images = {name: tiled(blocks[name], labels) for name in ("patches", "photos")}
    return Result(images, data, caption=_caption(data, len(hits.values), border))


def _caption(data: dict[str, Any], units: int, border: bool) -> str:
    field = "everything" if data["rf"] == "global" else "x".join(map(str, data["rf"])) + " pixels"
    beyond = "" if border else ", none of it beyond the picture"
    checked = "" if data["outside"] is None else f" With noise outside its box a unit changes by {data['outside']:.1e}."
    return (
        f"Among {data['pictures']} photos, what excites {len(data['units'])} of the {units} units of {data['layer']} "
        f"most; a unit sees {field}{beyond}. Beneath each unit its values; of all units {len(data['never'])} are never "
        f"active, and {len(data['tied'])} have only equal hits, so that other photos may be as good.{checked}"
    )


def _span(unit: int, hits: Hits) -> str:
    values = hits.values[unit]
    return f"{float(values[0]):.3g} to {float(values[values != 0][-1]):.3g}" if values[0] != 0 else "never active"


def _hits_of(hits: Hits, unit: int) -> list[tuple[float, int, int, int]]:
    """Value, picture, row and column of a unit's hits, without those of value 0."""
    fields = (hits.values[unit], hits.pictures[unit], hits.rows[unit], hits.columns[unit])
    return [hit for hit in zip(*(field.tolist() for field in fields), strict=True) if hit[0] != 0]


@dataclass(frozen=True)
class _Tiles:
    """Draws the patches of a layer's units.

    Attributes:
        model: read the photos.
        pictures: the photos.
        field: the layer's receptive field; None: everything.
        side: least height and width of a patch's tile.
    """

    model: Model
    pictures: Pictures
    field: Field | None
    side: int

    def blocks(
        self, units: dict[int, list[tuple[float, int, int, int]]]
    ) -> tuple[dict[str, list[Image.Image]], dict[int, list[dict[str, Any]]]]:
        """For each unit a square of its patches and one of its pictures; and what data says of each hit."""
        wanted: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for unit, hits in units.items():
            for rank, (_, index, _, _) in enumerate(hits):
                wanted[index].append((unit, rank))
        patches, pictures, facts = {}, {}, {}
        for index in track(sorted(wanted), len(wanted), "patches"):
            photo = Image.fromarray(open_picture(self.pictures.paths[index]).rgb)
            read = self.model.read(photo)
            seen = to_image(read)
            for place in wanted[index]:
                value, _, row, column = units[place[0]][place[1]]
                box = self.box(row, column)
                patches[place] = self.patch(photo, box)
                pictures[place] = boxed(seen, [box], width=max(2, self.model.size // 56)).resize(
                    (2 * self.side, 2 * self.side), Image.Resampling.BOX, reducing_gap=2
                )
                facts[place] = {
                    "path": str(self.pictures.paths[index]),
                    "value": value,
                    "row": row,
                    "column": column,
                    "box": list(self.model.to_photo(box, photo.size)),
                }
        drawn = {
            name: [_block([tiles[unit, rank] for rank in range(len(hits))], size) for unit, hits in units.items()]
            for name, tiles, size in (
                ("patches", patches, self.tile_size()),
                ("photos", pictures, (2 * self.side, 2 * self.side)),
            )
        }
        return drawn, {unit: [facts[unit, rank] for rank in range(len(hits))] for unit, hits in units.items()}

    def box(self, row: int, column: int) -> Box:
        """Where a unit looks, in pixels the network reads."""
        return box_seen(self.field, self.model.size, row, column)

    def tile_size(self) -> tuple[int, int]:
        """Width and height of a patch's tile, in the proportion of a unit's box."""
        left, top, right, bottom = self.box(0, 0)
        scale = self.side / min(right - left, bottom - top)
        return round((right - left) * scale), round((bottom - top) * scale)

    def patch(self, photo: Image.Image, box: Box) -> Image.Image:
        """A box of pixels the network reads, cut from the photo; grey where the network reads nothing."""
        tile = Image.new("RGB", self.tile_size(), (GREY, GREY, GREY))
        inner = tuple(min(max(edge, 0), self.model.size) for edge in box)
        scale = tile.width / (box[2] - box[0]), tile.height / (box[3] - box[1])
        left, top, right, bottom = (
            round((edge - box[index % 2]) * scale[index % 2]) for index, edge in enumerate(inner)
        )
        if right <= left or bottom <= top:
            return tile
        limits = (*photo.size, *photo.size)
        cut = self.model.to_photo((inner[0], inner[1], inner[2], inner[3]), photo.size)
        edges = [min(max(edge, 0), limit) for edge, limit in zip(cut, limits, strict=True)]
        resized = photo.resize(
            (right - left, bottom - top), Image.Resampling.BICUBIC, (edges[0], edges[1], edges[2], edges[3])
        )
        tile.paste(resized, (left, top))
        return tile


def _block(tiles: list[Image.Image], size: tuple[int, int]) -> Image.Image:
    """Tiles of one size as a square, or one grey tile."""
    tiles = tiles or [Image.new("RGB", size, (GREY, GREY, GREY))]
    pixels = torch.from_numpy(np.stack([np.asarray(tile) for tile in tiles]))
    return grid(pixels.permute(0, 3, 1, 2) / 255, side=1).image


def _outside(
    model: Model, pictures: Pictures, layer: str, field: Field | None, hits: Hits, units: list[int]
) -> float | None:
    """How much the first hits of units change at most, as a part, if all outside their receptive fields is noise."""
    if field is None or min(field.size) >= model.size or not units:
        return None
    generator = torch.Generator().manual_seed(0)
    features = capture(model, [layer])
    worst = 0.0
    for unit in units:
        index, row, column = (int(each[unit, 0]) for each in (hits.pictures, hits.rows, hits.columns))
        photo = model.read(pictures.paths[index])
        left, top, right, bottom = (max(0, round(edge)) for edge in field.box(row, column))
        noisy = torch.rand(photo.shape, generator=generator).to(photo)
        noisy[..., top:bottom, left:right] = photo[..., top:bottom, left:right]
        with torch.no_grad():
            before, after = features(torch.cat([photo, noisy]))[layer][:, unit, row, column].tolist()
        worst = max(worst, abs(after - before) / max(abs(before), 1e-12))
    return worst
