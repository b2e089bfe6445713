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
from impasto.packs import APPLY, FOLDED, MEASURE, REGIONS, SHARED, find_pack

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
    of a huge picture meet without a seam, frames of a shot do not flicker, regions have styles of their own, and the
    scales fold into the convolutions, which saves time.

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
        wanted = (MEASURE, APPLY, FOLDED, SHARED, *([REGIONS] if REGIONS in pack.card.files else []))
        self._set({file: pack.read(file) for file in wanted}, provider, threads, str(pack.path))

    @classmethod
    def of_files(cls, files: Mapping[str, bytes], *, provider: str = "auto", threads: int | None = None) -> Self:
        """The halves from the bytes of their files by name."""
        split = cls.__new__(cls)
        split._set(files, provider, threads)
        return split

    def _set(self, files: Mapping[str, bytes], provider: str, threads: int | None, pack: str = "the pack") -> None:
        self._files, self._threads, self._pack = files, threads, pack
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

    def apply(self, image: Floats, affine: Floats, mask: Floats | None = None) -> Floats:
        """Paint by scales and shifts.

        Args:
            image: float RGB (N, H, W, 3) in [0, 1].
            affine: (N, K), of each picture; with a mask (N, R, K), of each of its regions.
            mask: (N, R, H, W), how much of each region a pixel has, with sum 1 over the regions; None without regions.

        Returns:
            The same shape and range as ``image``.

        Raises:
            PackError: a mask, and a pack made before packs had regions.
        """
        if mask is not None:
            self.check_regions()
        file = APPLY if mask is None else REGIONS
        if file not in self._sessions:
            self._sessions[file], _ = self._open(file, self.provider)
        feeds = {"image": image, "affine": affine} | ({} if mask is None else {"mask": mask})
        painted: Floats = self._sessions[file].run(["painted"], feeds)[0]
        return painted

    def check_regions(self) -> None:
        """Raise `PackError` unless the pack can paint by regions."""
        if REGIONS not in self._files:
            raise PackError(
                f"{self._pack}: the pack has no {REGIONS}, which masks need; "
                f"write it anew: impasto export {self._pack} -o NEW"
            )

    def fold(self, affine: Floats) -> Callable[[Floats], Floats]:
        """Fold scales and shifts (K,) into the convolutions: what is left is `apply` of an image, and faster."""
        session, _ = self._open(FOLDED, self.provider, np.ascontiguousarray(affine[None], np.float32))

        def paint(image: Floats) -> Floats:
            painted: Floats = session.run(["painted"], {"image": image})[0]
            return painted

        return paint
