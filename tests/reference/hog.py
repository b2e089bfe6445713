"""Histograms of oriented gradients as loops over plain numbers, in float64.

Written from the papers, slowly and literally:

* Dalal, Triggs. Histograms of Oriented Gradients for Human Detection. CVPR 2005. Section 6: centred [-1, 0, 1]
  gradients, votes weighted by the gradient's magnitude and interpolated between neighbouring bins in orientation and
  position, blocks of 2 x 2 cells, L2-Hys (L2 norm, then clipping at 0.2).
* Felzenszwalb, Girshick, McAllester, Ramanan. Object Detection with Discriminatively Trained Part-Based Models. PAMI
  2010. Section 6.2: 18 contrast-sensitive and 9 contrast-insensitive orientations; each cell is normalised by the four
  blocks that it belongs to, by the energy of its contrast-insensitive orientations, truncated at 0.2, summed with 1/2.
"""

from __future__ import annotations

import math

import numpy as np


def cell_histograms(luma: np.ndarray, cell: int, hard: bool) -> np.ndarray:
    """(H, W) -> (H // cell, W // cell, 18): each pixel looks for the cells whose centres are near."""
    height, width = luma.shape
    rows, columns = height // cell, width // cell
    found = np.zeros((rows, columns, 18))
    for y in range(height):
        for x in range(width):
            across = (luma[y, min(x + 1, width - 1)] - luma[y, max(x - 1, 0)]) / 2
            down = (luma[min(y + 1, height - 1), x] - luma[max(y - 1, 0), x]) / 2
            magnitude = math.hypot(across, down)
            place = math.degrees(math.atan2(down, across)) % 360 / 20
            below = math.floor(place)
            part = float(round(place - below)) if hard else place - below
            for row in range(rows):
                for column in range(columns):
                    near_y = 1 - abs(y - (row * cell + (cell - 1) / 2)) / cell
                    near_x = 1 - abs(x - (column * cell + (cell - 1) / 2)) / cell
                    if near_y > 0 and near_x > 0:
                        found[row, column, below % 18] += magnitude * near_y * near_x * (1 - part)
                        found[row, column, (below + 1) % 18] += magnitude * near_y * near_x * part
    return found


def hog(picture: np.ndarray, cell: int = 8, hard: bool = False, flat: float = 0.01) -> np.ndarray:
    """(3, H, W) -> (27, H // cell, W // cell); ``flat`` is the constant in the norm, sqrt(v^2 + flat^2)."""
    red, green, blue = np.asarray(picture, dtype=np.float64)
    cells = cell_histograms(0.299 * red + 0.587 * green + 0.114 * blue, cell, hard)
    rows, columns, _ = cells.shape
    result = np.zeros((27, rows, columns))
    for row in range(rows):
        for column in range(columns):
            sensitive = cells[row, column]
            insensitive = sensitive[:9] + sensitive[9:]
            for top in (row - 1, row):
                for left in (column - 1, column):
                    if top < 0 or left < 0 or top + 1 >= rows or left + 1 >= columns:
                        continue
                    energy = 0.0
                    for y in (top, top + 1):
                        for x in (left, left + 1):
                            energy += sum((cells[y, x, bin] + cells[y, x, bin + 9]) ** 2 for bin in range(9))
                    norm = math.sqrt(energy + flat**2)
                    for bin, value in enumerate([*sensitive, *insensitive]):
                        result[bin, row, column] += min(value / norm, 0.2) / 2
    return result
