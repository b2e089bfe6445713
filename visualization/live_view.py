"""What the live view shows of one picture: the likeliest classes, all maps of a layer, and one unit of it closely."""

from __future__ import annotations

import base64
import copy
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from impasto.errors import WrongCall, unknown_name
from impasto.images import read_picture
from impasto.visualization.answers import answers, logits_and_maps
from impasto.visualization.drawing import heat, overlay, signed_rgb, unit
from impasto.visualization.inputs import Pictures
from impasto.visualization.model import Model
from impasto.visualization.patches import top_patches
from impasto.visualization.projections import neurons_of, project
from impasto.visualization.registry import Refused
from impasto.visualization.scene import to_image

CLOSELY = ("overlay", "gradient", "guided", "deconv")
"""How a unit is drawn: its map over the picture; or what its map sends back to the pixels, by one of the rules of
`impasto.visualization.projections.RULES`."""

SCALES = ("map", "shared")
"""What is black and white in a tile: its map's least and greatest value, or the layer's."""

TOP = 5
MAX_PIXELS = 4_000_000
MAX_VALUES = 500_000
"""Values in all tiles of a frame; maps of larger layers are averaged over squares."""
SEARCHED = 200
"""Photos that are searched for patches, evenly spread over the folder."""


@dataclass(frozen=True)
class Wish:
    """What somebody wants to see.

    Attributes:
        layer: one of `Viewer.layers`.
        unit: a channel of it.
        closely: one of `CLOSELY`.
        scale: one of `SCALES`.
    """

    layer: str
    unit: int = 0
    closely: str = "overlay"
    scale: str = "map"


class Viewer:
    """One network, and perhaps a folder of photos. Safe to be called from several threads.

    Args:
        model: looked into.
        pictures: photos to choose from, and to look for patches in; or None.
    """

    def __init__(self, model: Model, pictures: Pictures | None = None) -> None:
        self.model = model
        self.pictures = pictures
        self.layers = {name: shape for name, shape in model.layers().items() if len(shape) == 3}
        if not self.layers:
            raise Refused("live: this network has no layer with maps (C, h, w), as convolutions give")
        self._one_at_a_time, self._one_search = Lock(), Lock()

    def facts(self) -> dict[str, Any]:
        """What there is to choose from: layers with their shapes, photos, ways to draw."""
        stages = [name for name in self.model.stages() if name in self.layers]
        network = self.model.command[1] if self.model.command else type(self.model.network).__name__
        return {
            "network": network,
            "side": self.model.preprocessing.resize,
            "size": self.model.size,
            "stages": stages,
            "layers": [{"name": name, "shape": shape} for name, shape in self.layers.items()],
            "pictures": [path.name for path in self.pictures.paths] if self.pictures else [],
            "closely": CLOSELY,
            "scales": SCALES,
        }

    def read(self, content: bytes) -> Tensor:
        """A picture (1, 3, size, size) from an encoded one. Raises PictureError."""
        return self.model.read(read_picture(io.BytesIO(content), max_pixels=MAX_PIXELS).to_pil().convert("RGB"))

    def read_from_folder(self, index: int) -> Tensor:
        """A photo of the folder as the network sees it. Raises WrongCall, PictureError."""
        count = len(self.pictures.paths) if self.pictures else 0
        if not self.pictures or not 0 <= index < count:
            raise WrongCall(f"picture {index}: expected 0 to {count - 1}" if count else "there is no folder of photos")
        return self.model.read(self.pictures.paths[index])

    def see(self, picture: Tensor, wish: Wish) -> dict[str, Any]:
        """All that the page shows of a picture.

        Args:
            picture: (1, 3, size, size), float RGB in [0, 1].
            wish: what of it.

        Returns:
            ``top`` (names and probabilities), ``seen`` (the picture), ``shape`` of the layer, ``tiles`` (uint8, all
            maps one after the other; a value is the mean of ``pooled`` x ``pooled``), ``map`` (float32 little-endian,
            the unit's exactly), its ``low``, ``high`` and share of ``zeros``, and ``drawn`` (RGB), or the reason in
            ``refused``. Arrays are in base64.

        Raises:
            WrongCall: an unknown layer, unit or way to draw.
        """
        self._check(wish)
        with self._one_at_a_time, torch.no_grad():
            logits, found = logits_and_maps(self.model, picture, wish.layer)
            drawn, refused = self._drawn(picture, found[0, wish.unit], wish)
        maps = found[0].float().cpu()
        chosen, tiles = maps[wish.unit], _pooled(maps)
        return {
            "top": self._top(logits),
            "seen": _base64(np.asarray(to_image(picture))),
            "shape": list(maps.shape),
            "tiles": _base64(_grey(tiles, wish.scale)),
            "pooled": -(-maps.shape[1] // tiles.shape[1]),
            "tile": list(tiles.shape[1:]),
            "unit": wish.unit,
            "map": _base64(chosen.numpy().astype("<f4")),
            "low": float(chosen.min()),
            "high": float(chosen.max()),
            "zeros": float((chosen == 0).float().mean()),
            "drawn": drawn and _base64(np.asarray(drawn)),
            "refused": refused,
        }

    def patches(self, layer: str, unit: int) -> bytes | None:
        """V05's picture of the patches of photos that excite a unit most, as PNG; None while another is searched for.

        The first of a layer takes a pass over the photos; the others are remembered. Raises WrongCall, Refused.
        """
        self._check(Wish(layer, unit))
        if not self.pictures:
            raise WrongCall("there is no folder of photos to search; give one: impasto see live FOLDER")
        paths = self.pictures.paths
        few = Pictures(paths[:: -(-len(paths) // SEARCHED)])
        if not self._one_search.acquire(blocking=False):
            return None
        try:
            result = top_patches(self._searched, few, layer=layer, units=(unit,), cache=self._found.name)
        finally:
            self._one_search.release()
        buffer = io.BytesIO()
        result.images["patches"].save(buffer, "PNG")
        return buffer.getvalue()

    def close(self) -> None:
        """Forget the patches that were found."""
        if "_found" in vars(self):
            self._found.cleanup()
            del self._found

    @cached_property
    def _found(self) -> tempfile.TemporaryDirectory[str]:
        """Remembers a layer's patches for its other units."""
        return tempfile.TemporaryDirectory(prefix="impasto-live-")

    @cached_property
    def _searched(self) -> Model:
        """A second network, so that a search stops no frame. A frame's hooks are not copied with it."""
        with self._one_at_a_time:
            return copy.deepcopy(self.model)

    def _check(self, wish: Wish) -> None:
        if wish.layer not in self.layers:
            raise unknown_name("layer", wish.layer, self.layers)
        units = self.layers[wish.layer][0]
        if not 0 <= wish.unit < units:
            raise WrongCall(f"unit {wish.unit}: expected 0 to {units - 1} in {wish.layer}")
        for kind, value, known in (("view", wish.closely, CLOSELY), ("scale", wish.scale, SCALES)):
            if value not in known:
                raise unknown_name(kind, value, known)

    def _top(self, logits: Tensor) -> list[dict[str, Any]]:
        if logits.ndim != 2:
            return []
        indices = logits[0].topk(min(TOP, logits.shape[1])).indices.tolist()
        return [each.data() for each in answers(self.model, logits, indices)]

    def _drawn(self, picture: Tensor, chosen: Tensor, wish: Wish) -> tuple[Image.Image | None, str]:
        if wish.closely == "overlay":
            return overlay(picture, heat(chosen, size=(self.model.size, self.model.size))), ""
        rule = "plain" if wish.closely == "gradient" else wish.closely
        try:
            pixels = project(_energies(self.model, wish.layer), picture, [(wish.unit,)], rule).pixels
        except Refused as refusal:
            return None, str(refusal)
        return signed_rgb(pixels, _limit(pixels)), ""


def _energies(model: Model, layer: str) -> Callable[[Tensor], Tensor]:
    """Half the sum of squares of each map, (N, C): its gradient at a map is the map itself, which is sent back."""
    maps = neurons_of(model, layer)
    return lambda pictures: maps(pictures).square().sum((2, 3)) / 2


def _limit(pixels: Tensor) -> float:
    """Three standard deviations, as full colour: single pixels do not make all others grey."""
    return 3 * float(pixels.std()) or 1.0


def _pooled(maps: Tensor) -> Tensor:
    """Maps (C, h, w) averaged over squares, until they are few enough values."""
    side = 1
    while maps.numel() / side**2 > MAX_VALUES:
        side += 1
    return maps if side == 1 else F.avg_pool2d(maps, side, ceil_mode=True)


def _grey(maps: Tensor, scale: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """As V04 draws them, (C, h, w)."""
    axes = (1, 2) if scale == "map" else (0, 1, 2)
    low, high = maps.amin(axes, keepdim=True), maps.amax(axes, keepdim=True)
    return np.asarray(unit(maps, low, high).mul(255).round().byte())


def _base64(values: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
