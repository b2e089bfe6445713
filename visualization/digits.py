"""Handwritten digits that come with scikit-learn: small enough to learn in seconds, without a download."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from impasto.errors import MissingExtra

SIDE = 8
"""Height and width of a digit in pixels."""

TRAINING = 1200
"""Digits to learn from. They are in order of their writers, so the others are mostly of other hands."""

NAMES = tuple("0123456789")

FILE = "datasets/data/digits.csv.gz"
"""In scikit-learn's package, which is found and not imported: that takes seconds."""


@dataclass(frozen=True)
class Digits:
    """Digits, dark 0 and light 1, and their labels.

    Attributes:
        images: (1200, 1, 8, 8), float32 in [0, 1], to learn from.
        labels: (1200,), from 0 to 9.
        test_images: (597, 1, 8, 8), likewise, to measure on.
        test_labels: (597,).
    """

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load_digits() -> Digits:
    """The digits of scikit-learn (the test part of UCI's Optical Recognition of Handwritten Digits), 17 grey levels.

    Raises:
        MissingExtra: scikit-learn, of the extra ``see``, is missing.
    """
    found = find_spec("sklearn")
    if found is None or found.origin is None:
        raise MissingExtra("the digits", "see", "scikit-learn")
    rows = torch.from_numpy(np.loadtxt(Path(found.origin).parent / FILE, delimiter=","))
    images, labels = rows[:, :-1].view(-1, 1, SIDE, SIDE).float().div(16), rows[:, -1].long()
    return Digits(images[:TRAINING], labels[:TRAINING], images[TRAINING:], labels[TRAINING:])
