"""What paints a video's frames: a pack's halves with statistics smoothed over time, or the whole network alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from impasto.inference.measured import Halves
from impasto.inference.places import StrPath
from impasto.inference.split import Floats
from impasto.inference.stylizer import Stylizer
from impasto.packs import CARD, find_pack, sha256_of

FOLD_FROM = 1 << 18
"""Pixels of a frame from which on scales and shifts are folded into the convolutions anew for each: 10 ms at most, and
a tenth of the time of `Split.apply` saved."""

Rgb = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


class FramePainter:
    """A pack with a mixture of its styles and a strength, for frames.

    Args:
        name: as `impasto.inference.Stylizer`.
        style: as `impasto.inference.Stylizer.mixture`.
        strength: 0 (the photo) to 1 (the painting).
        provider: one of `impasto.inference.sessions.PROVIDERS`.
        threads: CPU threads; None for as many as the process may run on.

    Attributes:
        weights: of every style in the mixture that has one, by name.
        provider: what runs the network.
        stride: of the network, pixels; 1 if the pack does not say.
        alone: why every frame is painted by its own statistics; None if they are shared.

    Raises:
        WrongCall, PackError: as `impasto.inference.Stylizer`.
    """

    def __init__(
        self,
        name: StrPath,
        *,
        style: str | None = None,
        strength: float = 1.0,
        provider: str = "auto",
        threads: int | None = None,
    ) -> None:
        stylizer = Stylizer(name, provider=provider, threads=threads)
        manner = stylizer.manner(style, strength)
        self.provider = stylizer.provider
        halves = Halves(name, self.provider, threads)
        self._split, self.alone = halves.open(), halves.missing
        self._stylizer, self._style, self._strength = stylizer, manner.styles[0].astype(np.float32), strength
        self._folded: tuple[Floats, Callable[[Floats], Floats]] | None = None
        self.weights = manner.weights(stylizer.styles)
        self.stride = int(stylizer.card.network.get("stride", 1)) if self.alone is None else 1
        self.settings: dict[str, Any] = {
            "pack": sha256_of(find_pack(name)[0].path / CARD),
            "style": self.weights,
            "strength": strength,
            "provider": self.provider,
        }

    def measure(self, rgb: Rgb) -> Floats:
        """A frame's own scales and shifts (K,); none, (0,), if the pack cannot be split."""
        if self._split is None:
            return np.zeros(0, np.float32)
        return self._split.measure(_floats(rgb)[None], self._style, self._strength).affine

    def paint(self, rgb: Rgb, affine: Floats, offset: npt.NDArray[np.int64]) -> Rgb:
        """Paint a frame (H, W, 3).

        Args:
            rgb: uint8 or uint16.
            affine: what `measure` gave, or a mean of such.
            offset: pixels at the top and left that move the network's grid: `video_track.grid_offsets`.

        Returns:
            The same shape and type; 8 bits if the pack cannot be split.
        """
        if self._split is None:
            return self._paint_alone(rgb)
        height, width = rgb.shape[:2]
        top, left = map(int, offset)
        edges = ((top, self.stride - top), (left, self.stride - left), (0, 0))
        padded: Any = np.pad(rgb, edges, mode="reflect")
        image = _floats(padded)[None]
        if self.provider == "cpu" and height * width >= FOLD_FROM:
            painted = self._fold(affine)(image)[0]
        else:
            painted = self._split.apply(image, affine[None])[0]
        return _levels(painted[top : top + height, left : left + width], rgb.dtype)

    def _fold(self, affine: Floats) -> Callable[[Floats], Floats]:
        assert self._split is not None
        if self._folded is None or not np.array_equal(self._folded[0], affine):
            self._folded = affine, self._split.fold(affine)
        return self._folded[1]

    def _paint_alone(self, rgb: Rgb) -> Rgb:
        eight = (rgb >> 8 * (rgb.itemsize - 1)).astype(np.uint8)
        painted = self._stylizer.paint(eight[None], self._style[None], np.array([self._strength], np.float32))[0]
        return _levels(_floats(painted), rgb.dtype)


def _floats(rgb: Rgb) -> Floats:
    return rgb.astype(np.float32) / np.float32(np.iinfo(rgb.dtype).max)


def _levels(painted: Floats, dtype: npt.DTypeLike) -> Rgb:
    largest = np.iinfo(np.dtype(dtype)).max
    levels: Rgb = np.rint(painted * np.float32(largest)).astype(dtype)
    return levels
