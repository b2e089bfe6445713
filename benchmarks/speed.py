"""How long a network takes: style packs side by side, interleaved in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from impasto.errors import WrongCall
from impasto.images import MIN_SIDE
from impasto.inference import Stylizer
from impasto.packs import installed_packs


@dataclass(frozen=True)
class Speed:
    """Time of one pack at one size, network alone: decoded pixels in, painted pixels out.

    Attributes:
        pack: the pack's name.
        network: "fast" or "johnson".
        size: height and width, in pixels.
        fastest: milliseconds of the fastest run.
        median: milliseconds of the median run.
        per_megapixel: the fastest, in milliseconds per million pixels.
        provider: what computed.
    """

    pack: str
    network: str
    size: int
    fastest: float
    median: float
    per_megapixel: float
    provider: str


def speed(
    packs: Sequence[str] = (),
    *,
    sizes: Sequence[int] = (256, 512, 1024),
    repeats: int = 10,
    provider: str = "auto",
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Speed]:
    """Time packs on square pictures of noise, in turns, after one run each that does not count.

    Args:
        packs: names or folders; by default all that are installed.
        sizes: heights and widths, in pixels.
        repeats: counted runs of each pack at each size.
        provider: one of `impasto.inference.sessions.PROVIDERS`.
        threads: CPU threads; None for all.
        progress: called with the runs behind and in total.

    Raises:
        WrongCall: for no pack, an unknown one, or a number out of range.
    """
    names = list(packs) or [pack.card.name for pack in installed_packs()]
    if not names or repeats < 1 or min(sizes, default=0) < MIN_SIDE:
        raise WrongCall(
            f"speed: got packs {names}, sizes {list(sizes)} and {repeats} repeats; "
            f"expected one or more of each, sizes from {MIN_SIDE} up"
        )
    stylizers = [Stylizer(name, provider=provider, threads=threads) for name in names]
    random = np.random.default_rng(0)
    rows = []
    for index, size in enumerate(sizes):
        picture = random.integers(0, 256, (1, size, size, 3), np.uint8)
        jobs = [partial(_paint, stylizer, picture) for stylizer in stylizers]
        times = interleaved(jobs, repeats, _part(progress, index, len(sizes)))
        rows += [_row(stylizer, size, taken) for stylizer, taken in zip(stylizers, times, strict=True)]
    return rows


def interleaved(
    jobs: Sequence[Callable[[], object]], repeats: int, progress: Callable[[int, int], None] | None = None
) -> list[list[float]]:
    """Milliseconds of each run of each job, in turns, so that what disturbs one disturbs all; first runs do not count.

    Args:
        jobs: what to time.
        repeats: counted runs of each.
        progress: called with the rounds behind and in total.
    """
    times: list[list[float]] = [[] for _ in jobs]
    for repeat in range(-1, repeats):
        for job, taken in zip(jobs, times, strict=True):
            start = time.perf_counter()
            job()
            taken += [1000 * (time.perf_counter() - start)] if repeat >= 0 else []
        if progress is not None:
            progress(repeat + 1, repeats)
    return times


def _paint(stylizer: Stylizer, picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    weights = np.full((1, len(stylizer.styles)), 1 / len(stylizer.styles), np.float32)
    stylizer.paint(picture, weights, np.ones(1, np.float32))


def _part(progress: Callable[[int, int], None] | None, index: int, parts: int) -> Callable[[int, int], None] | None:
    """The progress of one part of several of the same length."""
    return None if progress is None else lambda done, total: progress(index * total + done, parts * total)


def _row(stylizer: Stylizer, size: int, taken: list[float]) -> Speed:
    return Speed(
        pack=stylizer.card.name,
        network=str(stylizer.card.network["name"]),
        size=size,
        fastest=min(taken),
        median=statistics.median(taken),
        per_megapixel=min(taken) * 1e6 / size**2,
        provider=stylizer.provider,
    )
