"""A style pack, ready to paint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from impasto.errors import PackError, PictureError, WrongCall
from impasto.images import MIN_SIDE, Array, Picture, picture_from_array, picture_from_pil, read_picture
from impasto.inference.manner import Manner
from impasto.inference.measured import Halves
from impasto.inference.regions import Mask, masks_of
from impasto.inference.sessions import giving_back, open_session
from impasto.packs import PAINT, Card, find_pack, mixture

if TYPE_CHECKING:
    from onnxruntime import RunOptions

_INPUTS = {
    "image": ("tensor(uint8)", 4),
    "style": ("tensor(float)", 2),
    "strength": ("tensor(float)", 1),
}
_OUTPUTS = {"painted": ("tensor(uint8)", 4)}

KEPT = 2**20
"""Pixels up to which a picture's memory is kept for the next one."""


class Stylizer:
    """Paints pictures in the styles of one pack.

    Args:
        name: a pack's name or path, a style's name or mixture, or ``pack/style``: see `impasto.packs.find_pack`.
        provider: one of `impasto.inference.sessions.PROVIDERS`.
        threads: CPU threads an operator may use; None for as many as the process may run on.

    Attributes:
        card: the pack's card.
        provider: what runs the network: "cpu", "cuda", ...

    Raises:
        WrongCall: an unknown name, or a provider that cannot run here.
        PackError: a pack with a missing, altered or unreadable file, or with a graph that does not paint.
    """

    card: Card
    provider: str

    def __init__(self, name: str | os.PathLike[str], *, provider: str = "auto", threads: int | None = None) -> None:
        pack, self._style = find_pack(name)
        self.card = pack.card
        model = pack.read(PAINT)
        try:
            self._session, self.provider = open_session(model, provider=provider, threads=threads)
            self._check_graph()
        except PackError as error:
            raise PackError(f"{pack.path / PAINT}: {error}") from error
        self._halves = Halves(pack.path, self.provider, threads)

    @property
    def styles(self) -> tuple[str, ...]:
        """Names of the styles, in the order of `paint`'s weights."""
        return self.card.style_names

    def mixture(self, style: str | None = None) -> tuple[float, ...]:
        """The weight of every style, in the order of `styles`, with sum 1.

        Args:
            style: a name, or a mixture (``a:0.6,b:0.4``); None for the style this Stylizer was opened by, or the only
                one of the pack.

        Raises:
            WrongCall: an unknown name or a wrong weight, or None and the pack has several styles.
        """
        style = style or self._style
        if style is None and len(self.styles) > 1:
            raise WrongCall(f"the pack {self.card.name!r} has several styles; choose one of: {', '.join(self.styles)}")
        return mixture(style or self.styles[0], self.styles)

    def stylize(
        self,
        picture: str | os.PathLike[str] | Image.Image | npt.NDArray[np.generic],
        style: str | None = None,
        strength: float = 1.0,
        *,
        color: str = "style",
        masks: Sequence[str | Mask] = (),
    ) -> Image.Image:
        """Paint one picture.

        Args:
            picture: a file, a Pillow image of any mode, or a uint8 RGB array ``(H, W, 3)``; 16 pixels a side or more.
            style: as `mixture`.
            strength: 0 (the photo) to 1 (the painting).
            color: whose colours: "style", "luminance" or "match", the latter two with a share if wanted, "match:0.5"
                (`impasto.palette`).
            masks: other styles in their own places: `impasto.inference.regions.Mask`, or "FILE=STYLE@STRENGTH".

        Returns:
            An image of the same size in sRGB, upright; mode RGB, or RGBA if the picture has transparency.

        Raises:
            WrongCall: an unknown style or colour, or a strength outside 0 to 1.
            PictureError: a picture or a mask that cannot be read, is too small or too large; a mask of another shape.
            PackError: masks, and a pack made before packs had regions.
        """
        if isinstance(picture, Image.Image):
            read = picture_from_pil(picture)
        elif isinstance(picture, np.ndarray):
            read = picture_from_array(picture)
        else:
            read = read_picture(picture)
        return self.stylize_picture(read, self.manner(style, strength, color=color, masks=masks)).to_pil()

    def manner(
        self, style: str | None = None, strength: float = 1.0, *, color: str = "style", masks: Sequence[str | Mask] = ()
    ) -> Manner:
        """How `stylize_picture` is to paint, from the arguments of `stylize`. Raises as `stylize`."""
        return Manner.of(self.mixture, style, strength, color, masks_of(masks))

    def stylize_picture(self, picture: Picture, manner: Manner | None = None) -> Picture:
        """Paint one picture as `stylize`, 8 bits a channel, and keep what its file said about it.

        What is fully transparent does not count: `impasto.transparency.fill_unseen`.
        """
        manner = manner or self.manner()
        if manner.masks:
            self._halves.with_regions()
            return self._halves.paint(replace(picture, deep=None), manner)
        seen = picture.seen()
        painted = self.paint(seen[None], manner.styles.astype(np.float32), np.array(manner.strengths, np.float32))[0]
        return replace(picture, rgb=manner.colour.recolour(painted, seen), deep=None)

    def paint(
        self,
        images: Array,
        styles: npt.NDArray[np.float32],
        strengths: npt.NDArray[np.float32],
        *,
        run_options: RunOptions | None = None,
    ) -> Array:
        """Paint a batch of pictures of one size, each in its own mixture of styles.

        Args:
            images: uint8 RGB ``(N, H, W, 3)``, sRGB, 16 pixels a side or more.
            styles: ``(N, S)``, weights of the pack's styles, not negative, each row with sum 1.
            strengths: ``(N,)``, 0 (the photo) to 1 (the painting).
            run_options: of ONNX Runtime; ``terminate`` set from another thread stops the work.

        Returns:
            uint8 RGB ``(N, H, W, 3)``.

        Raises:
            WrongCall: weights or strengths of another shape or range.
            PictureError: another type, shape or size of images; or the provider has no memory for them, or the
                work was stopped.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or min(images.shape[1:3]) < MIN_SIDE:
            expected = f"expected uint8 (N, H, W, 3), at least {MIN_SIDE} pixels a side"
            raise PictureError(f"{expected}; got {images.dtype} {images.shape}")
        count = len(images)
        if (
            styles.shape != (count, len(self.styles))
            or (styles < 0).any()
            or not np.allclose(styles.sum(1), 1, atol=1e-3)
        ):
            shape = f"({count}, {len(self.styles)})"
            raise WrongCall(f"expected style weights {shape}, not negative, rows with sum 1; got {styles.tolist()}")
        if strengths.shape != (count,) or not ((strengths >= 0) & (strengths <= 1)).all():
            raise WrongCall(f"expected {count} strengths from 0 to 1; got {strengths.tolist()}")
        feeds = {
            "image": images,
            "style": styles.astype(np.float32, copy=False),
            "strength": strengths.astype(np.float32, copy=False),
        }
        if images.size > 3 * KEPT and self.provider == "cpu":
            run_options = giving_back(run_options)
        try:
            painted: Array = self._session.run(["painted"], feeds, run_options)[0]
        except Exception as error:  # ONNX Runtime's errors share no base class
            size = f"{images.shape[2]} x {images.shape[1]} pixels"
            raise PictureError(
                f"{size} could not be painted on {self.provider}; try a smaller picture: {error}"
            ) from error
        return painted

    def _check_graph(self) -> None:
        """Raise `PackError` unless the graph takes and gives what a pack's ``paint.onnx`` does."""
        for kind, values, expected in (
            ("inputs", self._session.get_inputs(), _INPUTS),
            ("outputs", self._session.get_outputs(), _OUTPUTS),
        ):
            got = {value.name: (value.type, len(value.shape)) for value in values}
            if got != expected:
                raise PackError(
                    f"not the paint graph of a style pack: {kind} {_shown(got)}; expected {_shown(expected)}"
                )
        rows = self._session.get_inputs()[list(_INPUTS).index("style")].shape[1]
        if isinstance(rows, int) and rows != len(self.styles):
            raise PackError(f"the graph has {rows} styles, the card {len(self.styles)}; export the pack again")


def _shown(values: dict[str, tuple[str, int]]) -> str:
    return ", ".join(f"{name} {kind} of {rank} axes" for name, (kind, rank) in values.items())
