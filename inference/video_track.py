"""What a video's frames are normalised by: statistics smoothed within shots, and a grid that moves with the picture."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from impasto.images import Array
from impasto.inference.split import Floats

Doubles = npt.NDArray[np.float64]

THUMBNAIL = 16
"""Pixels a side of the small pictures that cuts are found in: so few that a pan changes them slowly."""

CUT = 14.0
"""Levels of 255 that a thumbnail differs by across a cut, at least: the mean over its values."""

CUT_RATIO = 3.0
"""How many times that difference is that of the frames around it: a fast pan or zoom is no cut."""

NEIGHBOURS = 6
"""The frames on each side that a difference is compared with."""

FLASH = 6
"""A picture that is back within so many frames has seen a flash, and no cut."""

SIGMA = 0.75
"""Seconds: the standard deviation of the Gaussian that statistics are smoothed by."""

WINDOW = 128
"""Pixels a side, at most, of the four windows that motion is seen through."""

SURE = 0.08
"""The height of the peak of a phase correlation, 1 for a copy, from which on it is taken for motion."""


def find_cuts(thumbnails: Array) -> npt.NDArray[np.bool_]:
    """Which frames begin a shot.

    Frame t does if its thumbnail differs from that before by `CUT` levels and by `CUT_RATIO` times the median
    difference of the frames around it, if the one before it is not back within `FLASH` frames, and if it is not itself
    back after as many.

    Args:
        thumbnails: uint8 (T, h, w, 3), of all frames.

    Returns:
        (T,); the first frame begins a shot.
    """
    levels = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    steps = np.abs(np.diff(levels, axis=0)).mean(1)
    cuts = np.zeros(len(levels), bool)
    cuts[:1] = True
    for index in np.flatnonzero(steps >= CUT):
        around = np.concatenate([steps[max(0, index - NEIGHBOURS) : index], steps[index + 1 : index + 1 + NEIGHBOURS]])
        usual = float(np.median(around)) if len(around) else 0.0
        before, after = levels[max(0, index + 1 - FLASH) : index + 1], levels[index + 1 : index + 1 + FLASH]
        back = min(np.abs(after - before[-1]).mean(1).min(), np.abs(before - after[0]).mean(1).min())
        cuts[index + 1] = steps[index] >= CUT_RATIO * usual and back >= max(CUT, 0.5 * steps[index])
    return cuts


@dataclass
class Motion:
    """How far the picture as a whole moves from frame to frame, by phase correlation (Kuglin and Hines 1975).

    The normalised cross-power spectra of up to four windows are summed, so that what moves in most of them wins.
    """

    _before: npt.NDArray[np.complex64] | None = field(default=None, init=False)

    def step(self, gray: Array) -> tuple[float, float]:
        """Pixels, down and to the right, that the picture has moved by since the last call; 0 where that is unsure.

        Args:
            gray: uint8 (H, W).
        """
        spectra = _spectra(gray)
        before, self._before = self._before, spectra
        if before is None:
            return 0.0, 0.0
        cross = spectra * before.conj()
        cross /= np.abs(cross) + np.float32(1e-6)
        side = spectra.shape[1]
        peaks = np.fft.irfft2(cross.mean(0), (side, side))
        y, x = np.unravel_index(int(peaks.argmax()), peaks.shape)
        if peaks[y, x] < SURE:
            return 0.0, 0.0
        return _between(peaks[:, x], int(y)), _between(peaks[y], int(x))


def grid_offsets(motion: Doubles, cuts: npt.NDArray[np.bool_], stride: int) -> npt.NDArray[np.int64]:
    """Pixels to pad each frame by at its top and left, so that the network's grid moves with the picture.

    A network with a stride is the same for pictures that are moved by multiples of it only. From frame to frame the
    grid moves by as many whole pixels as are nearest to the motion; with ``D`` their sum since the shot began, the
    padding is ``-D mod stride``. (Rounding the sum would keep the grid nearer over many frames, and let it jump between
    two of a slow pan.)

    Args:
        motion: (T, 2), pixels down and right since the frame before.
        cuts: (T,), which frames begin a shot.
        stride: of the network, pixels.

    Returns:
        (T, 2), from 0 to ``stride - 1``.
    """
    way = np.cumsum(np.rint(motion).astype(np.int64), axis=0)
    starts = np.flatnonzero(cuts)
    begun = way[starts][np.cumsum(cuts) - 1]
    offsets: npt.NDArray[np.int64] = np.mod(begun - way, stride)
    return offsets


@dataclass(frozen=True)
class Track:
    """Statistics over the time of a video.

    Attributes:
        times: (M,), seconds, rising: when they were measured.
        shots: (M,), in which shot.
        affine: (M, K), as of `impasto.inference.split.Measurement`.
    """

    times: Doubles
    shots: npt.NDArray[np.int64]
    affine: Floats

    def at(self, time: float, shot: int) -> Floats:
        """Scales and shifts (K,): the mean of those of the shot, weighted by a Gaussian of `SIGMA` around ``time``."""
        within = slice(*np.searchsorted(self.shots, [shot, shot + 1]))
        distances = (self.times[within] - time) / SIGMA
        weights = np.exp(-(distances**2 - (distances**2).min()) / 2)
        near = weights > 1e-6
        smoothed: Floats = np.average(self.affine[within][near], axis=0, weights=weights[near]).astype(np.float32)
        return smoothed


def _spectra(gray: Array) -> npt.NDArray[np.complex64]:
    """Fourier transforms (4, S, S // 2 + 1) of windows around the middles of the picture's quarters."""
    height, width = gray.shape
    side = min(WINDOW, 1 << (min(height, width).bit_length() - 1))
    tops, lefts = ([(size - side) * part // 4 for part in (1, 3)] for size in (height, width))
    windows = np.stack([gray[top : top + side, left : left + side] for top in tops for left in lefts])
    values = windows.astype(np.float32)
    values -= values.mean((1, 2), keepdims=True)
    taper = np.hanning(side + 2)[1:-1].astype(np.float32)
    return np.fft.rfft2(values * taper[:, None] * taper).astype(np.complex64)


def _between(peaks: npt.NDArray[np.floating], at: int) -> float:
    """A peak's place between the positions of a line that ends where it begins (Foroosh et al. 2002)."""
    size = len(peaks)
    here, after, before = (max(float(peaks[(at + step) % size]), 0.0) for step in (0, 1, -1))
    part = after / (here + after) if after > before else -before / (here + before)
    return (at + part + size / 2) % size - size / 2
