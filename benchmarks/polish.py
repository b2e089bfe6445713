"""What it saves to begin per-image optimisation with a network's painting: `impasto paint --init PACK`.

The objective is the pack's own, as in `impasto.benchmarks.quality`: L-BFGS minimises it from the network's painting and
from the photo, and what counts is how many evaluations the latter needs for pictures as good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from impasto.benchmarks.curves import Curve, Yardstick, objective_settings, optimisation_curve
from impasto.benchmarks.judge import choose_photos, painter
from impasto.benchmarks.quality import square
from impasto.errors import WrongCall
from impasto.images import read_rgb
from impasto.packs import find_pack

CAP = 400
"""Evaluations from the photo after which it is given up."""


@dataclass(frozen=True)
class Polish:
    """Pictures as good, from the network's painting and from the photo; means over photos.

    Attributes:
        evaluations: from the network's painting.
        objective: after them.
        from_photo: evaluations from the photo for the same; where it was given up they count as `CAP`.
        given_up: photos where it was.
    """

    evaluations: int
    objective: float
    from_photo: float
    given_up: int

    @property
    def saved(self) -> float:
        """Evaluations that the network's painting saves."""
        return self.from_photo - self.evaluations


def polish(
    pack: str,
    painting: str | Path,
    photos: str | Path,
    *,
    size: int = 256,
    count: int = 4,
    evaluations: Sequence[int] = (0, 10, 30),
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> list[Polish]:
    """Optimise photos from a pack's paintings of them, and from themselves until they are as good.

    Args:
        pack: name or folder, of which the first style is taken.
        painting: the file that it was trained on.
        photos: a folder of photos never trained on.
        size: height and width in pixels.
        count: photos.
        evaluations: from the network's painting; a row for each.
        device: "cpu" or "cuda".
        progress: called with the evaluations behind, and in total at most.

    Raises:
        WrongCall: for numbers out of range, or too few photos.
        PackError: for a pack that does not say what it was trained for.
        PictureError: for a file that cannot be read.
    """
    chosen = choose_photos(photos)[:count]
    if len(chosen) < max(1, count) or min(evaluations, default=-1) < 0:
        raise WrongCall(
            f"polish: got {count} photos, of which there are {len(chosen)}, and evaluations {list(evaluations)}; "
            "expected 1 photo or more that are there, and 0 evaluations or more"
        )
    longest = max(evaluations)
    paint = painter(pack)
    yardstick = Yardstick(objective_settings(find_pack(pack)[0].card), Path(painting), torch.device(device))
    pairs: list[tuple[Curve, Curve]] = []

    def advance(before: int, now: int) -> None:
        if progress is not None:
            progress(len(pairs) * (longest + CAP) + before + now, len(chosen) * (longest + CAP))

    for photo in chosen:
        seen = square(read_rgb(photo), size)
        content = yardstick.content(seen)

        def objective(picture: torch.Tensor, content: dict[str, torch.Tensor] = content) -> torch.Tensor:
            return yardstick.terms(picture, content).total

        start = yardstick.tensor(paint(seen))
        polished = optimisation_curve(start, objective, float("-inf"), longest, partial(advance, 0))
        level = polished.at(longest)
        plain = optimisation_curve(yardstick.tensor(seen), objective, level, CAP, partial(advance, longest))
        pairs.append((polished, plain))
        advance(0, 0)
    return [_row(pairs, number) for number in evaluations]


def _row(pairs: Sequence[tuple[Curve, Curve]], evaluations: int) -> Polish:
    levels = [polished.at(evaluations) for polished, _ in pairs]
    needed = [plain.crossing(level, CAP) for (_, plain), level in zip(pairs, levels, strict=True)]
    counted = [CAP if number is None else number for number in needed]
    return Polish(evaluations, float(np.mean(levels)), float(np.mean(counted)), needed.count(None))
