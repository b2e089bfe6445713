"""A world of small photos and paintings, and runs on it that take well under a second a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from impasto.training import PhotoData, StyleTransfer, TransformerNet

SIZES = {"width": 8, "blocks": 1, "head": 4}
MODEL = {
    "sizes": SIZES,
    "style_size": 48,
    "rate": 0.01,
    "content": {"relu2_2": 1.0},
    "style": {"relu1_2": 4.0, "relu2_2": 4.0},
}
TRAINER = {"accelerator": "cpu", "precision": "32-true", "log_every_n_steps": 1}


def write_world(folder: Path) -> Path:
    """Eleven photos, two paintings, and a recipe for a network of a few hundred weights."""
    (folder / "photos").mkdir(parents=True)
    names = [f"photos/{i:02d}.png" for i in range(11)] + ["red.png", "sea.png"]
    for seed, name in enumerate(names):
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC).save(folder / name)
    write_recipe(folder / "tiny.yaml")
    return folder


def write_recipe(path: Path, batch: int = 2, **trainer: Any) -> Path:
    recipe = {
        "seed_everything": 3,
        "model": MODEL,
        "data": {"size": 32, "batch": batch, "flat": 0.0},
        "trainer": TRAINER | trainer,
    }
    path.write_text(yaml.safe_dump(recipe))
    return path


def make(world: Path, *, batch: int = 2, size: int = 32, photos: str = "photos", **options: Any) -> Any:
    """A module that paints like the sea, and its photos; always of the same first weights."""
    torch.manual_seed(options.get("seed", 0))
    module = StyleTransfer([str(world / "sea.png")], **(MODEL | options))
    data = PhotoData([str(world / photos)], size=size, batch=batch, flat=0.0, seed=options.get("seed", 0))
    return module, data


def network(name: str = "fast", **sizes: int) -> TransformerNet:
    """Of random weights, its rows too."""
    torch.manual_seed(0)
    net = TransformerNet(name, 3, **sizes).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def photo(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, 3, generator=torch.Generator().manual_seed(1))
