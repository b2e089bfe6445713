"""Small networks and photos to look into, and the data that a gate may need."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from impasto.visualization import Model, load_model

SIDE = 32
CLASSES = ("acorn", "ant", "apple", "boat", "broom")


class Tiny(nn.Module):
    """Two convolutions with ReLUs, a pool between them, global average pooling and a linear layer."""

    def __init__(self, relu: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first = nn.Conv2d(3, 6, 3, padding=1)
            self.relu1 = relu()
            self.pool = nn.MaxPool2d(2)
            self.second = nn.Conv2d(6, 8, 3, padding=1)
            self.relu2 = relu()
            self.average = nn.AdaptiveAvgPool2d(1)
            self.linear = nn.Linear(8, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu2(self.second(self.pool(self.relu1(self.first(x)))))
        return self.linear(self.average(x).flatten(1))


def tiny_model(relu: type[nn.Module] = nn.ReLU, **options: Any) -> Model:
    """`Tiny`, looked into; pictures of 32 pixels, five classes."""
    return load_model(Tiny(relu), **({"size": SIDE, "classes": CLASSES} | options))


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Between 0 and 1."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def photo(seed: int = 0, size: int = SIDE) -> Tensor:
    """(1, 3, size, size), coarse coloured patches."""
    coarse = noise(1, 3, 5, 5, seed=seed)
    return nn.functional.interpolate(coarse, (size, size), mode="bilinear").contiguous()


def write_photos(folder: Path, count: int = 3, width: int = 48, height: int = 40) -> list[Path]:
    """Small files of pictures; their paths in sorted order."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{seed:02d}.png")
    return sorted(folder.glob("*.png"))


def data_folder(*parts: str) -> Path:
    """A folder or file in ``IMPASTO_DATA``; the test is skipped, with the reason, where there is none."""
    root = os.environ.get("IMPASTO_DATA")
    if not root:
        pytest.skip("needs the folder in IMPASTO_DATA")
    path = Path(root, *parts)
    if not path.exists():
        pytest.skip(f"needs {path}")
    return path
