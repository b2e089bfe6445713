"""A video gone through once before it is painted: times, cuts, motion and statistics."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from impasto.errors import PictureError
from impasto.formats import write_atomically
from impasto.inference.video_ahead import ahead
from impasto.inference.video_looks import to_gray, to_rgb, to_thumbnail
from impasto.inference.video_painter import FramePainter
from impasto.inference.video_source import VideoSource
from impasto.inference.video_track import CUT, Doubles, Motion, Track, find_cuts, grid_offsets

EVERY = 0.5
"""Seconds between the frames that statistics are measured on."""


@dataclass(frozen=True)
class Survey:
    """What is known of a video's T frames.

    Attributes:
        pts: (T,), rising, in units of the time base.
        durations: (T,), the same; 0 where the file does not say.
        cuts: (T,), which frames begin a shot.
        offsets: (T, 2), of `video_track.grid_offsets`.
        track: the statistics.
        damage: what could not be read.
    """

    pts: npt.NDArray[np.int64]
    durations: npt.NDArray[np.int64]
    cuts: npt.NDArray[np.bool_]
    offsets: npt.NDArray[np.int64]
    track: Track
    damage: str | None

    @property
    def shots(self) -> npt.NDArray[np.int64]:
        """(T,), the number of each frame's shot."""
        return np.cumsum(self.cuts) - 1

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, whole or not at all."""
        fields: dict[str, Any] = vars(self) | vars(self.track) | {"damage": self.damage or ""}
        del fields["track"]
        buffer = io.BytesIO()
        np.savez(buffer, **fields)
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Survey:
        """Read what `save` has written."""
        with np.load(path) as file:
            fields = dict(file)
        track = Track(**{name: fields.pop(name) for name in ("times", "shots", "affine")})
        return cls(track=track, damage=str(fields.pop("damage")) or None, **fields)


def survey(video: VideoSource, painter: FramePainter, progress: Callable[[int, int], None]) -> Survey:
    """Go through a video.

    Args:
        video: read once.
        painter: measures a frame every `EVERY` seconds, and those that may begin a shot.
        progress: called with the numbers of frames behind and, as far as the file tells, in all.

    Raises:
        PictureError: as `VideoSource.frames`; no frame at all.
    """
    looks, motion = video.looks, Motion()
    times: list[tuple[int, int]] = []
    thumbnails: list[npt.NDArray[np.uint8]] = []
    steps: list[tuple[float, float]] = []
    measured: dict[int, npt.NDArray[np.float32]] = {}
    regular: set[int] = set()
    due = 0.0
    progress(0, video.expected)
    with ahead(video.frames()) as frames:
        for index, frame in enumerate(frames):
            times.append((frame.pts, frame.duration))
            thumbnails.append(to_thumbnail(frame.decoded))
            steps.append(motion.step(to_gray(frame.decoded, looks)))
            seconds = float(frame.pts * looks.time_base)
            if index == 0 or seconds >= due:
                regular.add(index)
                due = seconds + EVERY
            if index in regular or np.abs(thumbnails[-1].astype(np.float32) - thumbnails[-2]).mean() >= CUT:
                measured[index] = painter.measure(to_rgb(frame.decoded, looks))
            progress(index + 1, max(video.expected, index + 1))
    if not times:
        raise PictureError(f"{video.path}: no frame can be decoded; {video.damage or 'it holds none'}")
    pts, durations = np.array(times, np.int64).T
    cuts = find_cuts(np.stack(thumbnails))
    kept = [index for index in measured if index in regular or cuts[index]]
    track = Track(
        times=np.array([float(pts[index] * looks.time_base) for index in kept]),
        shots=(np.cumsum(cuts) - 1)[kept],
        affine=np.stack([measured[index] for index in kept]),
    )
    moved: Doubles = np.array(steps)
    moved[cuts] = 0
    return Survey(pts, durations, cuts, grid_offsets(moved, cuts, painter.stride), track, video.damage)
