"""Colour profiles (ICC) of curves and a matrix, at 16 bits a channel: LittleCMS, as Pillow has it, works at 8."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Deep = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float64]

_LEVELS = np.arange(65536) / 65535
_SRGB_XYZ = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
_ROWS = 64  # converted at a time


@dataclass(frozen=True)
class MatrixProfile:
    """What the values of a file mean.

    Attributes:
        curves: (3, 65536), the linear light that each value of each channel stands for, 0 to 1.
        matrix: (3, 3), from linear light to XYZ under D50.

    Source: ICC.1:2022, F.3 (three-component matrix-based profiles), 10.6 (curveType), 10.18 (parametricCurveType).
    """

    curves: Floats
    matrix: Floats

    @classmethod
    def parsed(cls, icc_profile: bytes) -> Self | None:
        """The profile in a file; None if it is of another kind, or broken."""
        try:
            count = struct.unpack_from(">I", icc_profile, 128)[0]
            entries = struct.iter_unpack(">4sII", icc_profile[132 : 132 + 12 * count])
            tags = {tag: icc_profile[start : start + length] for tag, start, length in entries}
            if icc_profile[16:24] != b"RGB XYZ " or {b"A2B0", b"A2B1"} & set(tags):
                return None
            curves = np.stack([_curve(tags[tag]) for tag in (b"rTRC", b"gTRC", b"bTRC")])
            columns = [struct.unpack_from(">3i", tags[tag], 8) for tag in (b"rXYZ", b"gXYZ", b"bXYZ")]
        except (LookupError, ValueError, ArithmeticError, struct.error):
            return None
        matrix = np.array(columns).T / 65536
        if (np.diff(curves) < 0).any() or abs(np.linalg.det(matrix)) < 1e-6:
            return None
        return cls(curves, matrix)

    def to_srgb(self, values: Deep) -> Deep:
        """From the profile's colours ``(H, W, 3)`` to sRGB; what sRGB does not have becomes the nearest per channel."""
        return _converted(values, self, SRGB)

    def from_srgb(self, values: Deep) -> Deep:
        """From sRGB ``(H, W, 3)`` to the profile's colours."""
        return _converted(values, SRGB, self)


def _converted(values: Deep, source: MatrixProfile, target: MatrixProfile) -> Deep:
    matrix = np.linalg.inv(target.matrix) @ source.matrix
    converted = np.empty_like(values)
    for top in range(0, len(values), _ROWS):
        part = values[top : top + _ROWS]
        linear = np.stack([source.curves[channel][part[..., channel]] for channel in range(3)], axis=2) @ matrix.T
        for channel in range(3):
            back = np.interp(linear[..., channel], target.curves[channel], _LEVELS)
            converted[top : top + _ROWS, :, channel] = np.rint(back * 65535)
    return converted


def _curve(tag: bytes) -> Floats:
    if tag[:4] == b"curv":
        count = struct.unpack_from(">I", tag, 8)[0]
        table = np.frombuffer(tag, ">u2", count, 12)
        if count == 0:
            return _LEVELS
        if count == 1:
            return np.asarray(_LEVELS ** (table[0] / 256))
        return np.interp(_LEVELS, np.linspace(0, 1, count), table / 65535)
    if tag[:4] != b"para":
        raise ValueError("a curve of an unknown type")
    kind = struct.unpack_from(">H", tag, 8)[0]
    length = (1, 3, 4, 5, 7)[kind]
    return _parametric(*(value / 65536 for value in struct.unpack_from(f">{length}i", tag, 12)))


def _parametric(g: float, a: float = 1, b: float = 0, *more: float) -> Floats:
    """The parametric curve of 1, 3, 4, 5 or 7 parameters, in the standard's letters."""
    slope, start, above, below = 0.0, -b / a, 0.0, 0.0
    if len(more) == 1:
        (above,) = (below,) = more
    elif len(more) >= 2:
        slope, start, *rest = more
        above, below = rest or (0.0, 0.0)
    power = np.maximum(a * _LEVELS + b, 0) ** g + above
    return np.clip(np.where(start <= _LEVELS, power, slope * _LEVELS + below), 0, 1)


SRGB = MatrixProfile(np.stack([_parametric(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)] * 3), _SRGB_XYZ)
"""sRGB, IEC 61966-2-1."""
