"""What only a pack's halves can do: animations that do not flicker, 16 bits a channel, and regions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from impasto.animation import Animation, Frame
from impasto.errors import PackError, WrongCall
from impasto.images import Array, Picture
from impasto.inference.brush import paint_coarse
from impasto.inference.manner import Manner
from impasto.inference.places import StrPath
from impasto.inference.split import Floats, Split
from impasto.transparency import fill_unseen

SAMPLE = 8
"""Frames over which the statistics of an animation are pooled, spread from the first to the last."""

SAMPLE_PIXELS = 1 << 21
"""Most pixels that are measured at once, so that there is memory for it; at least one frame is."""

Whole = TypeVar("Whole", np.uint8, np.uint16)

PaintFrame = Callable[[Picture], Array]
"""Gives the painted ``rgb`` of a frame."""


class Halves:
    """The halves of a pack; opened when they are first used, or found to be missing.

    Args:
        name: as `impasto.inference.Stylizer`.
        provider: one of `impasto.inference.sessions.PROVIDERS`.
        threads: CPU threads; None for as many as the process may run on.
    """

    def __init__(self, name: StrPath, provider: str, threads: int | None) -> None:
        self._name, self._provider, self._threads = name, provider, threads
        self._opening = threading.Lock()
        self._split: Split | None = None
        self.missing: str | None = None

    def open(self) -> Split | None:
        """The halves; None, with the reason in ``missing``, if the pack has none or the provider does not run them."""
        with self._opening:
            if self._split is None and self.missing is None:
                try:
                    self._split = Split(self._name, provider=self._provider, threads=self._threads)
                except (PackError, WrongCall) as error:
                    self.missing = str(error)
            return self._split

    def with_regions(self) -> Split:
        """The halves of a pack that can paint by regions.

        Raises:
            PackError: they are missing, or were made before packs had regions.
        """
        split = self.open()
        if split is None:
            raise PackError(f"masks need a pack's halves: {self.missing}")
        split.check_regions()
        return split

    def paint(self, picture: Picture, manner: Manner, brush: int | None = None) -> Picture:
        """Paint a picture; one of 16 bits a channel (``deep``) as it is painted with 8.

        Args:
            picture: the photo.
            manner: how.
            brush: longer side of the size that strokes are made at; None for the picture's own.
        """
        deep = picture.deep
        if deep is None:
            return replace(picture, rgb=self._paint(picture.seen(), manner, brush))
        painted = self._paint(deep if deep.shape[2] == 3 else fill_unseen(deep[..., :3], deep[..., 3]), manner, brush)
        rgb = (painted >> 8).astype(np.uint8)
        return replace(picture, rgb=rgb, deep=np.concatenate([painted, deep[..., 3:]], axis=2))

    def of_frames(self, frames: Sequence[Picture], manner: Manner) -> PaintFrame:
        """What paints every frame of an animation by the statistics of these."""
        seen = [frame.seen() for frame in frames]
        paint = self._painting(np.stack([_floats(rgb) for rgb in seen]), manner, fold=True)

        def painted(rgb: Array) -> Array:
            levels: Array = np.rint(paint(_floats(rgb)[None])[0] * 255).astype(np.uint8)
            return levels

        colour = manner.colour
        matching = colour.matching(map(painted, seen), seen)

        def paint_frame(frame: Picture) -> Array:
            rgb = frame.seen()
            return colour.recolour(painted(rgb), rgb, matching)

        return paint_frame

    def paint_floats(self, image: Floats, manner: Manner) -> Floats:
        """Paint float RGB (H, W, 3) in [0, 1], whosever colours are wanted; the same shape and range."""
        painted: Floats = self._painting(image[None], manner)(image[None])[0]
        return painted

    def _paint(self, seen: npt.NDArray[Whole], manner: Manner, brush: int | None) -> npt.NDArray[Whole]:
        if brush is None:
            painted = np.rint(self.paint_floats(_floats(seen), manner) * np.iinfo(seen.dtype).max).astype(seen.dtype)
        else:
            painted = paint_coarse(seen, brush, lambda small: self.paint_floats(small, manner))
        return manner.colour.recolour(painted, seen)

    def _painting(self, crops: Floats, manner: Manner, *, fold: bool = False) -> Callable[[Floats], Floats]:
        """What paints pictures (1, H, W, 3) by what is measured on these, with each style over the whole of them."""
        split = self.open()
        assert split is not None
        rows = zip(manner.styles, manner.strengths, strict=True)
        affine = np.stack([split.measure(crops, style, strength).affine for style, strength in rows])
        if not manner.masks:
            return split.fold(affine[0]) if fold else partial(split.apply, affine=affine)
        mask = manner.regions(*crops.shape[1:3])
        return partial(split.apply, affine=affine[None], mask=mask[None])


def sampled(animation: Animation) -> list[Picture]:
    """The frames that an animation's statistics are measured on."""
    fitting = SAMPLE_PIXELS // (animation.height * animation.width)
    return animation.sample(max(1, min(SAMPLE, fitting)))


def painted_frames(animation: Animation, paint: PaintFrame) -> Iterator[Frame]:
    """The frames, painted in turn. One that is seen like the one before is painted like it, to the bit."""
    before: tuple[Array, Array] | None = None
    for frame in animation:
        seen = frame.picture.seen()
        if before is None or not np.array_equal(before[0], seen):
            before = seen, paint(frame.picture)
        yield replace(frame, picture=replace(frame.picture, rgb=before[1]))


def _floats(pixels: npt.NDArray[Whole]) -> Floats:
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
