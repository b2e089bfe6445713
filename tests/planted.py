"""Photos that show concepts of known size, and networks whose units are detectors of known concepts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from impasto.visualization import Model, load_model

SIZE = 40
PHOTOS = 25
CONCEPTS = {
    "coral": (230, 120, 100), "lime": (120, 230, 60), "navy": (30, 40, 140), "teal": (20, 150, 150),
    "rose": (240, 60, 150), "sand": (220, 200, 140), "plum": (120, 20, 120), "moss": (60, 90, 20),
    "sky": (110, 190, 250), "rust": (150, 60, 20),
}  # fmt: skip
"""What the regions in the photos are called and their colours; the ground is mid-grey."""


def write_planted(folder: Path, *, pixels: int = 8, photos: int = PHOTOS) -> Path:
    """Photos in which each concept covers ``pixels``, a multiple of 4, of the 1600 pixels, somewhere, with noise."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    cells = [(row, column) for row in range(5) for column in range(4)]
    for photo in range(photos):
        rgb = np.full((SIZE, SIZE, 3), 128)
        mask = np.zeros((SIZE, SIZE), np.uint8)
        chosen = rng.permutation(len(cells))[: len(CONCEPTS)]
        for number, (cell, colour) in enumerate(zip(chosen, CONCEPTS.values(), strict=True), start=1):
            row, column = cells[cell]
            place = (slice(8 * row + 2, 8 * row + 6), slice(10 * column + 2, 10 * column + 2 + pixels // 4))
            rgb[place], mask[place] = colour, number
        rgb = np.clip(rgb + rng.integers(-9, 10, rgb.shape), 0, 255).astype(np.uint8)
        Image.fromarray(rgb).save(folder / "images" / f"{photo:02d}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{photo:02d}.png")
    names = {str(number): name for number, name in enumerate(CONCEPTS, start=1)}
    (folder / "labels.json").write_text(json.dumps({"labels": {"0": "ground", **names}, "ignore": 0}))
    return folder


class Detectors(nn.Module):
    """Units that are the higher the nearer a pixel is to their colour, and units that are noise."""

    def __init__(self, colours: list[tuple[int, int, int]], noise: int = 20, reach: float | None = None) -> None:
        super().__init__()
        self.colours = nn.Parameter(torch.tensor(colours) / 255)
        self.noise, self.reach = noise, reach

    def forward(self, x: Tensor) -> Tensor:
        near = -(x[:, None] - self.colours[None, :, :, None, None]).square().sum(2)
        if self.reach is not None:
            near = 6.0 * (near > -self.reach)
        waves = (x * torch.tensor([12.9898, 78.233, 37.719]).view(3, 1, 1)).sum(1, keepdim=True) * 997
        phases = torch.arange(self.noise).view(-1, 1, 1) + 1.0
        return torch.cat([near, torch.sin(waves * phases) * 43758.5453 % 1], 1)


class Planted(nn.Module):
    """`Detectors` and a head."""

    def __init__(self, names: tuple[str, ...], noise: int = 20, reach: float | None = None) -> None:
        super().__init__()
        self.units = Detectors([CONCEPTS[name] for name in names], noise, reach)

    def forward(self, x: Tensor) -> Tensor:
        return self.units(x).mean((2, 3))


FIRST_SIX = tuple(CONCEPTS)[:6]


def planted_model(names: tuple[str, ...] = FIRST_SIX, noise: int = 20, reach: float | None = None) -> Model:
    """Looks at pixels as they are."""
    return load_model(Planted(names, noise, reach), size=SIZE, mean=(0, 0, 0), std=(1, 1, 1))
