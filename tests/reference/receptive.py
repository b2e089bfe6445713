"""Receptive fields of chains by the usual formula, and of stacks by convolution: written from the definitions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def chain(layers: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """(size, stride, start) after each layer (kernel, stride, padding) of a chain.

    r += (k - 1) j; start -= p j; j *= s, with j the product of the strides before.
    """
    size, jump, start = 1, 1, 0
    found = []
    for kernel, stride, padding in layers:
        size += (kernel - 1) * jump
        start -= padding * jump
        jump *= stride
        found.append((size, jump, start))
    return found


def stacked_ones(kernel: int, count: int) -> np.ndarray:
    """What a unit of ``count`` stacked convolutions of ones, kernel x kernel, weighs each pixel with."""
    row = np.ones(1)
    for _ in range(count):
        row = np.convolve(row, np.ones(kernel))
    return np.outer(row, row)
