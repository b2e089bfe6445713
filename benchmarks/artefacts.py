"""Scores of what a painted sky or wall should not have: grids at the network's stride, and blotches.

Both paint the same ten flat and slowly varying pictures with one level of noise (`flat_inputs`), where a grid or a
blotch can only come from the network. Numbers are in levels of 255.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from impasto.errors import WrongCall

Rgb = NDArray[np.uint8]
Paint = Callable[[Rgb], Rgb]
"""uint8 (H, W, 3) to uint8 (H, W, 3)."""

SIDE = 512
"""Height and width of the inputs, in pixels."""

MARGIN = 64
"""Pixels at the painting's edge that are not measured for grids."""

NEIGHBOURS = 3
"""How many lines of the spectrum beside the grid's the floor is measured."""

SIGMA = 16.0
"""Standard deviation of the Gaussian that separates strokes from blotches, in pixels: it averages over as much as a
square of 57 pixels (area 4 pi sigma^2), so strokes of 10 x 30 pixels cancel and a spot of 64 pixels stays."""

COLOURS = {
    "sky": ((135, 190, 235), (190, 215, 240)),
    "wall": ((236, 233, 226), (215, 210, 200)),
    "dark": ((28, 30, 36), (60, 50, 60)),
    "grey": ((128, 128, 128), (150, 145, 140)),
    "skin": ((224, 172, 140), (198, 140, 110)),
}
"""A colour, and the one that it turns into from corner to corner in the slow picture."""


def flat_inputs() -> dict[str, Rgb]:
    """The inputs by name: five flat pictures and five ramps, uint8 (512, 512, 3), each with noise of -1, 0 or 1."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1)
    along = {"flat": np.zeros((SIDE, SIDE, 1)), "slow": ((x + y) / 2)[..., None]}
    inputs = {}
    for (name, colours), (kind, share) in itertools.product(COLOURS.items(), along.items()):
        first, second = np.array(colours, float)
        noise = random.integers(-1, 2, (SIDE, SIDE, 3))
        inputs[f"{name} {kind}"] = np.rint(first + (second - first) * share + noise).astype(np.uint8)
    return inputs


@dataclass(frozen=True)
class Checkerboard:
    """A painter's grid in levels of 255, root mean square over pixels, channels and inputs.

    Attributes:
        level: the grid above the floor, ``sqrt(max(0, found^2 - floor^2))``: the score; 0 is best.
        found: what the spectrum holds at the grid's frequencies, strokes included.
        floor: what it holds beside them: strokes alone.
    """

    level: float
    found: float
    floor: float


def checkerboard(paint: Paint, stride: int) -> Checkerboard:
    """How strong a grid a painter draws on flat and slow pictures.

    A pattern that repeats every ``stride`` pixels has its energy at the frequencies ``(k / stride, l / stride)``, the
    mean aside: ``found^2 = sum |Y(k / stride, l / stride)|^2`` over ``(k, l) != (0, 0)``, which by Parseval is the
    variance of the picture folded by the stride. ``floor^2`` is the same sum three lines of the spectrum beside these
    frequencies, the mean over eight directions: strokes, which have no period, hold as much there. The spectrum Y is of
    the painting less its mean over ``stride x stride`` pixels (a box that is zero at exactly the grid's frequencies,
    so slow trends go and grids stay as they are), under a Hann window of sum 1. A checkerboard of amplitude a has level
    a.

    Args:
        paint: the painter.
        stride: period to look for, in pixels, from 2; its divisors are included.

    Raises:
        WrongCall: for a stride out of range.
    """
    if not 2 <= stride <= 32:
        raise WrongCall(f"checkerboard: got stride {stride}, expected 2 to 32 pixels")
    energies = [grid_energy(paint(picture), stride) for picture in flat_inputs().values()]
    found, floor = np.mean(energies, axis=0)
    return Checkerboard(float(np.sqrt(max(0.0, found - floor))), float(np.sqrt(found)), float(np.sqrt(floor)))


def grid_energy(painted: NDArray[np.generic], stride: int) -> tuple[float, float]:
    """``found^2`` and ``floor^2`` of one painting (H, W, 3), the mean over its channels; see `checkerboard`."""
    levels = painted.astype(np.float64)
    side = (min(levels.shape[:2]) - 2 * MARGIN) // stride * stride
    local = levels
    for axis in (0, 1):
        local = np.mean([np.roll(local, shift, axis) for shift in range(stride)], axis=0)
    fast = (levels - local)[MARGIN : MARGIN + side, MARGIN : MARGIN + side]
    hann = 1 - np.cos(2 * np.pi * np.arange(side) / side)  # of mean 1
    spectrum = np.fft.fft2(fast * hann[:, None, None] * hann[:, None], axes=(0, 1)) / side**2
    power = (np.abs(spectrum) ** 2).mean(axis=2)
    lines = np.arange(stride) * (side // stride)

    def energy(down: int, right: int) -> float:
        return float(power[np.ix_((lines + down) % side, (lines + right) % side)].sum() - power[down, right])

    beside = [shift for shift in itertools.product((-NEIGHBOURS, 0, NEIGHBOURS), repeat=2) if shift != (0, 0)]
    return energy(0, 0), float(np.mean([energy(*shift) for shift in beside]))


def blotch(paint: Paint) -> float:
    """The largest blotch on flat and slow pictures, in levels: the median of `largest_spot` over the inputs."""
    return float(np.median([largest_spot(paint(picture)) for picture in flat_inputs().values()]))


def largest_spot(painted: NDArray[np.generic]) -> float:
    """How far one painting (H, W, 3) strays from its slow trend: ``max |G * y - plane|`` over places and channels.

    ``G * y`` is the mean under a Gaussian of `SIGMA` pixels, where it does not meet the edge (cut off at three sigma);
    ``plane`` the least-squares plane through it, channel by channel.
    """
    levels = painted.astype(np.float64)
    smooth = np.einsum("ih,hwc,jw->ijc", _gaussian(levels.shape[0]), levels, _gaussian(levels.shape[1]), optimize=True)
    y, x = np.mgrid[: smooth.shape[0], : smooth.shape[1]]
    plane = np.stack([y.ravel(), x.ravel(), np.ones(y.size)], axis=1)
    flat = smooth.reshape(-1, smooth.shape[2])
    trend = plane @ np.linalg.lstsq(plane, flat, rcond=None)[0]
    return float(np.abs(flat - trend).max())


def _gaussian(length: int) -> NDArray[np.float64]:
    """The Gaussian as a matrix (length - 2 reach, length) on a line of pixels."""
    reach = round(3 * SIGMA)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / SIGMA) ** 2)
    rows = length - 2 * reach
    matrix = np.zeros((rows, length))
    for row in range(rows):
        matrix[row, row : row + len(weights)] = weights / weights.sum()
    return matrix
