"""Where in many photos the units of a layer are strongest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from impasto.errors import WrongCall
from impasto.losses import capture
from impasto.visualization.fields import Field
from impasto.visualization.inputs import Pictures
from impasto.visualization.model import Model
from impasto.visualization.progress import track
from impasto.visualization.registry import Refused
from impasto.visualization.remembering import kept_in


@dataclass(frozen=True)
class Hits:
    """The strongest places of each unit of a layer, the best first, at most one in a picture; each tensor (C, k).

    Attributes:
        values: activations, float32.
        pictures: indices of the pictures.
        rows: on the layer's map.
        columns: likewise.
    """

    values: Tensor
    pictures: Tensor
    rows: Tensor
    columns: Tensor


def strongest(
    model: Model,
    pictures: Pictures,
    layer: str,
    count: int = 9,
    *,
    field: Field | None = None,
    border: bool = True,
    batch: int = 32,
) -> Hits:
    """Look through photos, a few at a time, for the strongest places of each unit of a layer.

    Args:
        model: reads the photos.
        pictures: at least one.
        layer: as `impasto.losses.capture` reads it; gives (N, C, h, w) or (N, C).
        count: hits of each unit; fewer if there are fewer photos.
        field: the layer's receptive field; None: it sees everything. Only for ``border``.
        border: also places whose field reaches beyond the picture.
        batch: photos at once. Which places are found does not depend on it.

    Raises:
        Refused: a layer of another shape; without border, no place is left.
        PictureError: a file that cannot be read.
    """
    features = capture(model, [layer])
    found: list[Tensor] = []
    for indices, images in track(pictures.batches(model, batch), math.ceil(len(pictures) / batch), "photos"):
        with torch.no_grad():
            activation = features(images)[layer]
        values, rows, columns = _peaks(activation, layer, model.size, field, border)
        index = torch.tensor(indices).view(-1, 1).expand_as(rows)
        new = [each.T for each in (values, index, rows, columns)]
        joined = [torch.cat(pair, 1) for pair in zip(found, new, strict=True)] if found else new
        order = joined[0].argsort(dim=1, descending=True, stable=True)[:, :count]
        found = [each.gather(1, order) for each in joined]
    return Hits(*found)


def _peaks(
    activation: Tensor, layer: str, size: int, field: Field | None, border: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The maximum of each map, its row and its column, each (N, C); of equal ones the first in reading order."""
    if activation.ndim == 2:
        activation = activation[:, :, None, None]
    if activation.ndim != 4:
        raise Refused(f"the layer {layer} gives shape {tuple(activation.shape)}, expected (N, C, h, w) or (N, C)")
    rows, columns = (_whole(length, axis, size, field, border) for axis, length in enumerate(activation.shape[2:]))
    if not rows or not columns:
        raise Refused(
            f"every unit of {layer} sees beyond the picture: leave out --no-border, or choose an earlier layer"
        )
    inside = activation[:, :, rows.start : rows.stop, columns.start : columns.stop].float().cpu()
    values, places = inside.flatten(2).max(2)
    return values, places // len(columns) + rows.start, places % len(columns) + columns.start


def _whole(length: int, axis: int, size: int, field: Field | None, border: bool) -> range:
    """The rows (axis 0) or columns of a map whose receptive fields are inside the picture, or all."""
    if border:
        return range(length)
    if field is None:
        return range(0)
    starts = [field.start[axis] + place * field.stride[axis] for place in range(length)]
    inside = [place for place, start in enumerate(starts) if start >= 0 and start + field.size[axis] <= size]
    return range(inside[0], inside[-1] + 1) if inside else range(0)


def remembered(
    cache: str, model: Model, pictures: Pictures, layer: str, count: int, field: Field | None, border: bool
) -> Hits:
    """`strongest`, kept in the folder ``cache``; empty for none."""
    facts = (model, pictures, (layer, count, border))
    return kept_in(
        cache, "top-patches", facts, Hits, lambda: strongest(model, pictures, layer, count, field=field, border=border)
    )


def on_page(technique: str, units: tuple[int, ...], count: int, page: int, size: int) -> list[int]:
    """The units of a page of ``size``, counted from 1: of those asked for, in their order, or of all ``count``.

    Raises:
        WrongCall: an unknown unit, or a page that is not there.
    """
    if unknown := [unit for unit in units if not 0 <= unit < count]:
        raise WrongCall(f"unit {unknown[0]}: expected 0 to {count - 1}")
    chosen = list(dict.fromkeys(units)) or list(range(count))
    pages = math.ceil(len(chosen) / size)
    if not 1 <= page <= pages:
        raise WrongCall(f"{technique}: got page {page}, expected 1 to {pages}")
    return chosen[(page - 1) * size : page * size]
