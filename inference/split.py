"""A pack's two halves: one measures the scales and shifts of every normalisation, the other paints by them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from impasto.errors import PackError
from impasto.inference.sessions import open_session
from impasto.packs import APPLY, FOLDED, MEASURE, SHARED, find_pack

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Measurement:
    """What a picture is normalised by.

    Attributes:
        affine: (K,), for each normalisation its scales and its shifts, and the strength at the end.
        moments: (K - 1,), means and variances at the same places.
    """

    affine: Floats
    moments: Floats


class Split:
    """The halves ``measure`` and ``apply`` of a pack.

    Instance normalisation makes every pixel depend on the whole picture. With the normalisations measured once, tiles
    of a huge picture meet without a seam, frames of a shot do not flicker, and the scales fold into the convolutions,
    which saves time.

    Args:
        name: as of `impasto.inference.Stylizer`.
        provider: one of `impasto.inference.sessions.PROVIDERS`.
        threads: CPU threads an operator may use; None for as many as the process may run on.

    Raises:
        WrongCall: an unknown name, or a provider that cannot run here.
        PackError: a pack with a missing, altered or unreadable file, or one made before packs had halves.
    """

    def __init__(self, name: str | os.PathLike[str], *, provider: str = "auto", threads: int | None = None) -> None:
        pack, _ = find_pack(name)
        if MEASURE not in pack.card.files:
            raise PackError(f"{pack.path}: the pack has no {MEASURE}; export it again with this version")
        files = {file: pack.read(file) for file in (MEASURE, APPLY, FOLDED, SHARED)}
        self._set(files, provider, threads)

    @classmethod
    def of_files(cls, files: Mapping[str, bytes], *, provider: str = "auto", threads: int | None = None) -> Self:
        """The halves from the bytes of their files by name."""
        split = cls.__new__(cls)
        split._set(files, provider, threads)
        return split

    def _set(self, files: Mapping[str, bytes], provider: str, threads: int | None) -> None:
        self._files, self._threads = files, threads
        self._sessions: dict[str, Any] = {}
        self._sessions[MEASURE], self.provider = self._open(MEASURE, provider)

    def _open(self, file: str, provider: str, affine: Floats | None = None) -> tuple[InferenceSession, str]:
        return open_session(
            self._files[file],
            provider=provider,
            threads=self._threads,
            files={SHARED: self._files[SHARED]},
            constants={} if affine is None else {"affine": affine},
        )

    @property
    def length(self) -> int:
        """The length K of a row of scales and shifts."""
        return int(self._sessions[MEASURE].get_inputs()[3].shape[1])

    def measure(
        self,
        crops: Floats,
        style: Floats,
        strength: float = 1.0,
        *,
        given: Floats | None = None,
        known: int = 0,
        margins: npt.NDArray[np.int64] | None = None,
    ) -> Measurement:
        """Measure crops of one picture, their moments pooled layer by layer.

        Args:
            crops: float RGB (M, H, W, 3) in [0, 1], at full resolution: a thumbnail has other statistics.
            style: (S,), weights of the styles, as of `Stylizer.paint`.
            strength: 0 (the photo) to 1 (the painting).
            given: (K,), whose first ``known`` normalisations are used as they are.
            known: how many.
            margins: (M, 4), what of each crop's maps is not counted: top, left, bottom, right, in positions of the
                network's coarsest maps.
        """
        feeds = {
            "image": crops,
            "style": np.asarray(style, np.float32)[None],
            "strength": np.array([strength], np.float32),
            "given": np.zeros((1, self.length), np.float32) if given is None else given[None],
            "known": np.array([known], np.int64),
            "margins": np.zeros((len(crops), 4), np.int64) if margins is None else margins,
        }
        affine, moments = self._sessions[MEASURE].run(["affine", "moments"], feeds)
        return Measurement(affine[0], moments[0])

    def apply(self, image: Floats, affine: Floats) -> Floats:
        """Paint float RGB (N, H, W, 3) in [0, 1] by the scales and shifts (N, K) of each; the same shape and range."""
        if APPLY not in self._sessions:
            self._sessions[APPLY], _ = self._open(APPLY, self.provider)
        painted: Floats = self._sessions[APPLY].run(["painted"], {"image": image, "affine": affine})[0]
        return painted

    def fold(self, affine: Floats) -> Callable[[Floats], Floats]:
        """Fold scales and shifts (K,) into the convolutions: what is left is `apply` of an image, and faster."""
        session, _ = self._open(FOLDED, self.provider, np.ascontiguousarray(affine[None], np.float32))

        def paint(image: Floats) -> Floats:
            painted: Floats = session.run(["painted"], {"image": image})[0]
            return painted

        return paint
