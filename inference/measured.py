"""What only a pack's halves can do: animations that do not flicker, and 16 bits a channel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from impasto.animation import Animation, Frame
from impasto.errors import PackError, WrongCall
from impasto.images import Array, Deep, Picture
from impasto.inference.places import StrPath
from impasto.inference.split import Floats, Split
from impasto.transparency import fill_unseen

SAMPLE = 8
"""Frames over which the statistics of an animation are pooled, spread from the first to the last."""

SAMPLE_PIXELS = 1 << 21
"""Most pixels that are measured at once, so that there is memory for it; at least one frame is."""

PaintFrame = Callable[[Picture], Array]
"""Gives the painted ``rgb`` of a frame."""


class Halves:
    """The halves of a pack with a mixture of its styles; opened when they are first used, or found to be missing.

    Args:
        name: as `impasto.inference.Stylizer`.
        provider: one of `impasto.inference.sessions.PROVIDERS`.
        threads: CPU threads; None for as many as the process may run on.
        style: (S,), weight of every style.
        strength: 0 (the photo) to 1 (the painting).
    """

    def __init__(self, name: StrPath, provider: str, threads: int | None, style: Floats, strength: float) -> None:
        self._name, self._provider, self._threads = name, provider, threads
        self._style, self._strength = style, strength
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

    def paint_deep(self, picture: Picture) -> Picture:
        """Paint a picture with 16 bits a channel (``deep``) as it is painted with 8."""
        split, deep = self.open(), picture.deep
        assert split is not None and deep is not None
        seen = deep if deep.shape[2] == 3 else fill_unseen(deep[..., :3], deep[..., 3])
        image = seen[None].astype(np.float32) / np.float32(65535)
        affine = split.measure(image, self._style, self._strength).affine
        painted: Deep = np.rint(split.apply(image, affine[None])[0] * 65535).astype(np.uint16)
        rgb = (painted >> 8).astype(np.uint8)
        return replace(picture, rgb=rgb, deep=np.concatenate([painted, deep[..., 3:]], axis=2))

    def of_frames(self, frames: Sequence[Picture]) -> PaintFrame:
        """What paints every frame of an animation by the statistics of these."""
        split = self.open()
        assert split is not None
        image = np.stack([_floats(frame) for frame in frames])
        paint = split.fold(split.measure(image, self._style, self._strength).affine)
        return lambda frame: np.rint(paint(_floats(frame)[None])[0] * 255).astype(np.uint8)


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


def _floats(picture: Picture) -> Floats:
    return picture.seen().astype(np.float32) / np.float32(255)
