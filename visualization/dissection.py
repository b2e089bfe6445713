"""How well each unit of a layer stands for a concept: thresholds, overlaps, and how large an overlap can be at most."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from impasto.errors import WrongCall
from impasto.losses import capture
from impasto.visualization.cascade import reinitialise
from impasto.visualization.concepts import Concepts
from impasto.visualization.fields import Field, receptive_fields
from impasto.visualization.model import Model
from impasto.visualization.progress import track
from impasto.visualization.registry import Refused

BATCH = 8
"""Photos at once."""

UNITS = 64
"""Units whose maps are enlarged at once."""


@dataclass(frozen=True)
class Layer:
    """A layer that is dissected.

    Attributes:
        model: reads the photos.
        name: as `impasto.losses.capture` has it; gives maps (N, C, h, w).
        field: the units' receptive field; None where they see everything.
        rotation: (C, C), what the units are multiplied by, for a basis other than their own; None: their own.
    """

    model: Model
    name: str
    field: Field | None
    rotation: Tensor | None = None

    @classmethod
    def of(cls, model: Model, name: str = "") -> Layer:
        """A layer by its name; empty for the last stage with maps.

        Raises:
            Refused: a network or a layer without maps.
            WrongCall: an unknown layer.
        """
        stages = model.stages()
        if not name and not stages:
            raise Refused("dissection: this network has no maps")
        name = name or stages[-1]
        shape = model.layers().get(name.removesuffix(":in"), (0, 0, 0))
        if len(shape) != 3 and not name.endswith(":in"):
            raise Refused(f"dissection: {name} gives shape {shape} for a photo, expected maps (C, h, w)")
        try:
            field = receptive_fields(model.network, [name], size=model.size)[name]
        except Refused:
            field = None
        return cls(model, name, field)

    def untrained(self, seed: int = 0) -> Layer:
        """The same layer of a copy of the network with random weights: what comes of the architecture alone."""
        model = copy.deepcopy(self.model)
        generator = torch.Generator().manual_seed(seed)
        for module in model.network.modules():
            reinitialise(module, generator)
        return replace(self, model=model)

    def rotated(self, seed: int = 0) -> Layer:
        """The same layer along other axes, turned at random: as much information, other units (Bau et al. 2017)."""
        count = self.model.layers()[self.name][0]
        generator = torch.Generator().manual_seed(seed)
        turned, upper = torch.linalg.qr(torch.randn(count, count, generator=generator, dtype=torch.float64))
        return replace(self, rotation=turned * upper.diagonal().sign())

    def maps(self, images: Tensor, indices: range) -> Tensor:
        """The maps of photos, (N, C, h, w), float64, no two values of a unit the same.

        Equal values, of which a unit that is saturated or dead has many, are put in an order at random, the same each
        time, by what float32 does not see: a threshold then lets through exactly what it is meant to.
        """
        with torch.no_grad():
            maps = capture(self.model, [self.name])(images)[self.name].double().cpu()
        if maps.ndim != 4:
            raise Refused(f"dissection: {self.name} gives shape {tuple(maps.shape)}, expected maps (N, C, h, w)")
        if self.rotation is not None:
            maps = torch.einsum("uv,nvhw->nuhw", self.rotation, maps)
        for index, each in zip(indices, maps, strict=True):
            noise = torch.rand(each.shape[1:], generator=torch.Generator().manual_seed(index), dtype=torch.float64)
            each += noise * (each.abs() * 2**-26 + 1e-300)
        return maps

    def at_pixels(self, maps: Tensor) -> Tensor:
        """Maps of a photo (C, h, w) at its pixels (C, size, size), bilinear between receptive fields' middles."""
        rows, columns = (self._weights(axis, length) for axis, length in enumerate(maps.shape[1:]))
        return rows @ maps @ columns.T

    def _weights(self, axis: int, length: int) -> Tensor:
        """(size, length): what each unit adds to each pixel of a row; beyond the last units their values go on."""
        size = self.model.size
        first, stride = size / length / 2, size / length
        if self.field is not None:
            first, stride = self.field.start[axis] + self.field.size[axis] / 2, self.field.stride[axis]
        places = ((torch.arange(size, dtype=torch.float64) + 0.5 - first) / stride).clamp(0, length - 1)
        distances = (places[:, None] - torch.arange(length)).abs()
        return (1 - distances).clamp(min=0)


@dataclass(frozen=True)
class Dissection:
    """What was found of a layer's C units and the K numbers of `Concepts`.

    Attributes:
        layer: that was dissected.
        concepts: what its units were compared with.
        thresholds: (C,), float64: above it are just so many of the values of a unit as was asked for.
        tied: (C,), of each unit whether its threshold is among equal values, so that chance decided.
        peaks: (C, photos), the maximum of each map.
        table: (C, K), pixels above a unit's threshold that show a concept.
        pixels: (K,), pixels that show it.
        photos: (K,), photos that show it.
        least: photos that have to show a concept for it to count.
    """

    layer: Layer
    concepts: Concepts
    thresholds: Tensor
    tied: Tensor
    peaks: Tensor
    table: Tensor
    pixels: Tensor
    photos: Tensor
    least: int

    @cached_property
    def counted(self) -> Tensor:
        """(K,), whether a number is a concept in enough photos."""
        return torch.tensor([bool(name) for name in self.concepts.names]) & (self.photos >= self.least)

    @cached_property
    def areas(self) -> Tensor:
        """(C, K), pixels above a unit's threshold in all photos that are labelled for a concept's category."""
        return (self.table.double() @ self._of_one_category).long()

    @cached_property
    def labelled(self) -> Tensor:
        """(K,), all pixels of the photos that are labelled for a concept's category."""
        return (self.pixels.double() @ self._of_one_category).long()

    @cached_property
    def _of_one_category(self) -> Tensor:
        """(K, K), 1 for two numbers of one category."""
        names = self.concepts.categories
        return torch.tensor([[one == other for one in names] for other in names], dtype=torch.float64)

    @cached_property
    def iou(self) -> Tensor:
        """(C, K), pixels that are both above the threshold and show a concept, of those that are either."""
        either = self.areas + self.pixels - self.table
        return torch.where(self.counted, self.table.double() / either.clamp(min=1), 0.0)

    @cached_property
    def ceiling(self) -> Tensor:
        """(C, K), the most that the IoU can be for such areas: the smaller by the larger."""
        small, large = torch.minimum(self.areas, self.pixels), torch.maximum(self.areas, self.pixels)
        return torch.where(self.counted, small.double() / large.clamp(min=1), 0.0)

    @cached_property
    def best(self) -> Tensor:
        """(C,), the number of the concept with the highest IoU, the first of equal ones."""
        return self.iou.argmax(1)

    @cached_property
    def best_iou(self) -> Tensor:
        """(C,), the highest IoU."""
        return self.iou.amax(1)

    def labels(self, detector: float) -> list[int | None]:
        """Of each unit the number of its concept, None if the IoU is not above ``detector``."""
        known = zip(self.best.tolist(), (self.best_iou > detector).tolist(), strict=True)
        return [number if above else None for number, above in known]

    def masks(self, image: Tensor, index: int, units: list[int]) -> Tensor:
        """Where units are above their thresholds in a photo (1, 3, size, size): (units, size, size), bool."""
        maps = self.layer.maps(image, range(index, index + 1))[0, units]
        return self.layer.at_pixels(maps) > self.thresholds[units, None, None]


def dissection(layer: Layer, concepts: Concepts, *, top: float = 0.005, least: int = 5) -> Dissection:
    """Compare the units of a layer with concepts, reading the photos twice, a few at a time.

    A unit is on where it is above its threshold; the pixels where it is on and those that show a concept are counted
    over all photos that are labelled for the concept's category.

    Source: Bau et al. 2017, "Network Dissection".

    Args:
        layer: whose units.
        concepts: in photos.
        top: the share of a unit's values, over all places of all photos, above its threshold.
        least: photos that have to show a concept for it to count.

    Raises:
        WrongCall: less than one value would be above the threshold, or all of them.
        Refused: no concept is in enough photos; a layer without maps.
        PictureError: a photo or a mask that cannot be read.
    """
    if not 0 < top < 1:
        raise WrongCall(f"top: got {top}, expected a share between 0 and 1")
    thresholds, tied, peaks = _thresholds(layer, concepts, top)
    table = torch.zeros(len(thresholds), len(concepts), dtype=torch.int64)
    pixels, photos = torch.zeros(2, len(concepts), dtype=torch.int64)
    total = math.ceil(len(concepts.pictures) / BATCH)
    for indices, images in track(concepts.pictures.batches(layer.model, BATCH), total, "photos and concepts"):
        for index, image, maps in zip(indices, images, layer.maps(images, indices), strict=True):
            numbers = concepts.at(index, image, layer.model)
            for each in numbers:
                counts = torch.bincount(each, minlength=len(concepts))
                pixels += counts
                photos += counts > 0
            for some in torch.split(_anywhere_on(maps, thresholds), UNITS):
                on = layer.at_pixels(maps[some]) > thresholds[some, None, None]
                table[some] += _counted(on.flatten(1), numbers, len(concepts))
    found = Dissection(layer, concepts, thresholds, tied, peaks, table, pixels, photos, least)
    if not found.counted.any():
        raise Refused(f"dissection: no concept is in {least} photos or more; give more photos or lower --least")
    return found


def _thresholds(layer: Layer, concepts: Concepts, top: float) -> tuple[Tensor, Tensor, Tensor]:
    """Thresholds, whether each is among equal values, and the maxima of the maps: keeps no more than the top values."""
    pictures = concepts.pictures
    kept: Tensor | None = None
    peaks, above = [], 0
    for indices, images in track(
        pictures.batches(layer.model, BATCH), math.ceil(len(pictures) / BATCH), "photos and thresholds"
    ):
        maps = layer.maps(images, indices)
        peaks.append(maps.amax((2, 3)).T)
        above = round(top * len(pictures) * maps[0, 0].numel())
        if above < 1:
            raise WrongCall(f"top: {top} of the values of a unit is less than one; give more photos or raise --top")
        values = maps.transpose(0, 1).flatten(1)
        kept = values if kept is None else torch.cat([kept, values], 1)
        kept = kept.topk(min(above + 1, kept.shape[1])).values
    assert kept is not None
    thresholds = kept[:, above]
    return thresholds, thresholds.float() == kept[:, above - 1].float(), torch.cat(peaks, 1)


def _anywhere_on(maps: Tensor, thresholds: Tensor) -> Tensor:
    """The units (C, h, w) that may be on at some pixel: an interpolated value lies between those around it.

    Interpolation rounds, hence the slack.
    """
    return (maps.amax((1, 2)) >= thresholds - 1e-12 * thresholds.abs()).nonzero()[:, 0]


def _counted(on: Tensor, numbers: list[Tensor], count: int) -> Tensor:
    """(units, count), pixels that are on (units, pixels) and have a number."""
    unit, place = on.nonzero(as_tuple=True)
    tables = [torch.bincount(unit * count + each[place], minlength=len(on) * count) for each in numbers]
    return torch.stack(tables).sum(0).view(len(on), count) if tables else torch.zeros(len(on), count).long()
