"""How steady a painted video is, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from impasto.errors import MissingExtra, require
from impasto.images import Array
from impasto.inference.split import Floats
from impasto.inference.video_looks import to_gray, to_rgb
from impasto.inference.video_painter import FramePainter, Rgb
from impasto.inference.video_source import VideoSource
from impasto.inference.video_survey import Survey

PAIRS = 12
"""Pairs of frames that are looked at, spread over the video; none across a cut."""


@dataclass(frozen=True)
class Stability:
    """What changes between two frames in a row that should not, in levels of 255 (root mean square over the pairs).

    It is measured on what is painted, before it is encoded. A number under ``_alone`` is that of frames painted each by
    itself, as `impasto stylize` would.

    Attributes:
        pairs: how many pairs of frames were looked at.
        flicker: one frame painted by its own statistics and by those of the next: what normalisation does alone.
        flicker_alone: the same.
        warping: a painted frame, moved along the optical flow of the source, beside the next one; where the flow there
            and back does not agree (Ruder et al. 2016, eq. 4) nothing is counted. None without OpenCV.
        warping_alone: the same.
        warping_source: the same of the source's own frames: what of it is the flow's fault.
        counted: share of the pixels that the warping errors are over.
    """

    pairs: int
    flicker: float
    flicker_alone: float
    warping: float | None
    warping_alone: float | None
    warping_source: float | None
    counted: float | None


def measure_stability(video: VideoSource, painter: FramePainter, found: Survey) -> Stability | None:
    """The numbers of a video that `survey` went through; None if it has no two frames in one shot.

    The optical flow is that of OpenCV (Kroeger et al. 2016, DIS), which comes with the extra ``see``.
    """
    firsts = np.flatnonzero(~found.cuts[1:])
    if not len(firsts):
        return None
    firsts = firsts[np.unique(np.linspace(0, len(firsts) - 1, PAIRS).round().astype(int))]
    needed = np.union1d(firsts, firsts + 1)
    frames = zip(needed.tolist(), video.chosen(found.pts[needed].tolist()), strict=True)
    errors: list[dict[str, float]] = []
    before: tuple[int, Rgb, Array] | None = None
    for index, frame in frames:
        rgb, gray = to_rgb(frame.decoded, video.looks), np.ascontiguousarray(to_gray(frame.decoded, video.looks))
        if before is not None and before[0] == index - 1 and index - 1 in firsts:
            errors.append(_pair(video, painter, found, before, (index, rgb, gray)))
        before = index, rgb, gray
    mean = {name: float(np.sqrt(np.mean([pair[name] ** 2 for pair in errors]))) for name in errors[0]}
    if "counted" in mean:
        mean["counted"] = float(np.mean([pair["counted"] for pair in errors]))
    names = ("flicker", "flicker_alone", "warping", "warping_alone", "warping_source", "counted")
    return Stability(len(errors), *(mean.get(name) for name in names))  # type: ignore[arg-type]


def _pair(
    video: VideoSource, painter: FramePainter, found: Survey, one: tuple[int, Rgb, Array], two: tuple[int, Rgb, Array]
) -> dict[str, float]:
    still = np.zeros(2, np.int64)
    own = [painter.measure(rgb) for _, rgb, _ in (one, two)]
    smooth = [_smoothed(video, found, index) for index, _, _ in (one, two)]
    offsets = found.offsets[one[0]], found.offsets[two[0]]
    ways = zip((one, two), smooth, offsets, strict=True)
    painted = [painter.paint(frame[1], affine, offset) for frame, affine, offset in ways]
    alone = [painter.paint(frame[1], affine, still) for frame, affine in zip((one, two), own, strict=True)]
    errors = {
        "flicker": _rms(painter.paint(one[1], smooth[1], offsets[0]), painted[0]),
        "flicker_alone": _rms(painter.paint(one[1], own[1], still), alone[0]),
    }
    try:
        cv2 = require("cv2", purpose="a warping error", extra="see")
    except MissingExtra:
        return errors
    positions, valid = _flow(cv2, one[2], two[2])
    for name, (first, second) in {
        "warping": painted,
        "warping_alone": alone,
        "warping_source": (one[1], two[1]),
    }.items():
        moved = cv2.remap(np.ascontiguousarray(first), positions, None, cv2.INTER_CUBIC)
        errors[name] = _rms(moved, second, valid)
    return errors | {"counted": float(valid.mean())}


def _smoothed(video: VideoSource, found: Survey, index: int) -> Floats:
    return found.track.at(float(found.pts[index] * video.looks.time_base), int(found.shots[index]))


def _rms(one: Rgb, two: Rgb, valid: npt.NDArray[np.bool_] | None = None) -> float:
    apart = (one.astype(np.float32) - two) * np.float32(255 / np.iinfo(one.dtype).max)
    return float(np.sqrt(np.square(apart if valid is None else apart[valid]).mean()))


def _flow(cv2: Any, one: Array, two: Array) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Where in frame one each pixel of frame two was, (H, W, 2) as x and y, and where that is known, (H, W)."""
    height, width = one.shape
    engine = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    back, there = engine.calc(two, one, None), engine.calc(one, two, None)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    positions = np.stack([x, y], axis=2) + back
    returned = cv2.remap(there, positions, None, cv2.INTER_LINEAR)
    apart = np.square(back + returned).sum(2)
    agree = apart < 0.01 * (np.square(back).sum(2) + np.square(returned).sum(2)) + 0.5
    inside = (positions >= 0).all(2) & (positions[..., 0] <= width - 1) & (positions[..., 1] <= height - 1)
    return positions, agree & inside
