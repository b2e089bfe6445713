"""Losses of one picture for many paintings at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from impasto.benchmarks.artefacts import Rgb
from impasto.losses import Moments, content_loss, moments, statistic_loss
from impasto.training import StyleTransfer
from impasto.training.module import MIRRORED
from impasto.training.photos import to_tensor

Array = npt.NDArray[np.float64]


class Ruler:
    """Content and style losses of a picture: of a photo's content, and of every painting's style.

    The losses are the weighted ones that the pack was trained on, in float32, of pictures continued by reflection.

    Args:
        settings: what `objective_settings` found.
        paintings: files, one a style.
        device: where to compute.
    """

    def __init__(self, settings: Mapping[str, Any], paintings: Mapping[str, Path], device: str = "cpu") -> None:
        styles = [{"name": name} for name in paintings]
        module = StyleTransfer([str(path) for path in paintings.values()], styles=styles, **settings).to(device)
        module.setup("validate")
        assert module.loss is not None
        self._loss, self._device = module.loss, device
        self._goals = {
            layer: [Moments(torch.ones(1), gram[None, :0, 0], gram[None] * len(gram)) for gram in grams]
            for layer, grams in module.goals.items()
        }

    @torch.no_grad()
    def content(self, photo: Rgb) -> dict[str, Tensor]:
        """What `measure` compares paintings of a photo (H, W, 3) with."""
        return self._loss.content_targets(self._seen(photo))

    @torch.no_grad()
    def measure(self, picture: Rgb, content: Mapping[str, Tensor]) -> tuple[float, Array]:
        """The content loss of a picture (H, W, 3), and its style loss for every painting (S,)."""
        loss = self._loss
        found = loss.features(self._seen(picture), list(dict.fromkeys([*loss.content, *loss.style])))
        of_content = sum(
            weight * float(content_loss(found[layer], content[layer], loss.convention))
            for layer, weight in loss.content.items()
        )
        of_style = np.zeros(len(next(iter(self._goals.values()))))
        for layer, weight in loss.style.items():
            seen = moments(found[layer])
            errors = [float(statistic_loss(seen, goal, convention=loss.convention)) for goal in self._goals[layer]]
            of_style += weight * np.array(errors)
        return of_content, of_style

    def _seen(self, picture: Rgb) -> Tensor:
        tensor = to_tensor(picture)[None].to(self._device)
        return torch.nn.functional.pad(tensor, [MIRRORED] * 4, mode="reflect")
