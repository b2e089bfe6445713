"""What stands in for the colours of fully transparent pixels, which nobody sees but a network would."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Value = TypeVar("Value", bound=np.generic)


def fill_unseen(colours: npt.NDArray[Value], alpha: npt.NDArray[Any]) -> npt.NDArray[Value]:
    """The colours, with what is seen mirrored into the pixels that are fully transparent.

    What a network measures over the whole picture is then close to what it would measure over the part that is seen,
    whatever the file holds in the part that is not: a flat fill would make it count as a large calm sky. In every row
    what is seen is mirrored at its edges, again and again; then rows in which nothing is seen mirror those around them.

    Args:
        colours: ``(H, W, 3)``.
        alpha: ``(H, W)``, 0 is fully transparent.

    Returns:
        An array like ``colours``: a new one, or the same if all is seen. All 0 if nothing is.
    """
    seen: npt.NDArray[np.bool_] = np.asarray(alpha) > 0
    if seen.all():
        return colours
    in_row: npt.NDArray[np.bool_] = np.asarray(seen.any(1))
    rows = np.flatnonzero(in_row)
    if not len(rows):
        return np.zeros_like(colours)
    filled = np.zeros_like(colours)
    filled[rows] = np.take_along_axis(colours[rows], _mirrored(seen[rows])[..., None], 1)
    mirrored: npt.NDArray[Value] = filled[mirrored_rows(in_row)]
    return mirrored


def mirrored_rows(seen: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """For every row (R,) the one that stands in for it: itself where something is seen in it."""
    stand_ins: npt.NDArray[np.intp] = _mirrored(seen[None])[0]
    return stand_ins


def _mirrored(seen: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """For every place of every row ``(R, L)`` a place that is seen: itself, or the mirror image at the nearest edge.

    Mirrored is the row of those that are seen, closed up: a gap is as good as an edge.
    """
    places, length = np.arange(seen.shape[1]), seen.shape[1]
    to_left = places - np.maximum.accumulate(np.where(seen, places, -3 * length), axis=1)
    to_right = np.minimum.accumulate(np.where(seen, places, 3 * length)[:, ::-1], axis=1)[:, ::-1] - places
    rank = np.cumsum(seen, axis=1) - 1
    rank = np.where(to_left <= to_right, rank - np.maximum(to_left - 1, 0), rank + to_right)
    there_and_back = 2 * seen.sum(1)[:, None]
    rank %= there_and_back
    rank = np.minimum(rank, there_and_back - 1 - rank)
    return np.take_along_axis(np.argsort(~seen, axis=1, kind="stable"), rank, 1)
