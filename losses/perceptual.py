"""The perceptual loss: named content, style and total-variation terms, weighed and summed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from impasto.losses.functional import _check_convention, content_loss, gram_matrix, style_loss, total_variation

Features = Callable[[Tensor, Sequence[str]], dict[str, Tensor]]


@dataclass(frozen=True)
class LossTerms:
    """The terms of a loss by name: ``content/relu3_3``, ``style/relu1_2``, ``tv``.

    Attributes:
        raw: the terms before weighing; they can be compared between runs with different weights.
        weights: the weight of each term.
    """

    raw: Mapping[str, Tensor]
    weights: Mapping[str, float]

    @property
    def weighted(self) -> dict[str, Tensor]:
        """Each term times its weight."""
        return {name: self.weights[name] * term for name, term in self.raw.items()}

    @property
    def total(self) -> Tensor:
        """The sum of the weighted terms: what is minimised."""
        return torch.stack(list(self.weighted.values())).sum()


class PerceptualLoss(nn.Module):
    """Content, style and total variation of a picture, measured in a network's features.

    ``total = sum_l a_l content_l + sum_l b_l style_l + c tv``: Gatys et al. 2016, equation 7; Johnson et al. 2016,
    equation 5. The module holds weights only: targets are plain dicts that the caller computes once and passes in.

    Args:
        features: ``features(images, layers) -> dict``, such as `VGGFeatures`.
        content: weight of each content layer by name.
        style: weight of each style layer by name.
        tv: weight of the total variation.
        convention: one of `CONVENTIONS`; the weights' meaning depends on it.
        beta: exponent of the total variation.

    Raises:
        ValueError: for an unknown convention, or if no term is left.
    """

    def __init__(
        self,
        features: Features,
        content: Mapping[str, float] | None = None,
        style: Mapping[str, float] | None = None,
        tv: float = 0.0,
        convention: str = "relative",
        beta: float = 2.0,
    ) -> None:
        super().__init__()
        _check_convention(convention)
        self.features = features
        self.content = dict(content or {})
        self.style = dict(style or {})
        self.tv = tv
        self.convention = convention
        self.beta = beta
        if not (self.content or self.style or tv):
            raise ValueError("PerceptualLoss: got no term, expected weights for content, style or tv")

    @torch.no_grad()
    def content_targets(self, images: Tensor) -> dict[str, Tensor]:
        """Features (N, C, H, W) of the content layers of pictures (N, 3, H, W)."""
        return self.features(images, list(self.content)) if self.content else {}

    @torch.no_grad()
    def style_targets(self, images: Tensor) -> dict[str, Tensor]:
        """Gram matrices (N, C, C) of the style layers of pictures (N, 3, H, W)."""
        found = self.features(images, list(self.style)) if self.style else {}
        return {layer: gram_matrix(maps) for layer, maps in found.items()}

    def forward(
        self,
        images: Tensor,
        content: Mapping[str, Tensor] | None = None,
        style: Mapping[str, Tensor] | None = None,
        strength: float = 1.0,
    ) -> LossTerms:
        """The terms for pictures (N, 3, H, W) in [0, 1].

        Args:
            images: the pictures to judge.
            content: what `content_targets` gave.
            style: what `style_targets` gave, one item or one for each picture.
            strength: factor on the style weights.
        """
        layers = list(dict.fromkeys([*self.content, *self.style]))
        found = self.features(images, layers) if layers else {}
        raw: dict[str, Tensor] = {}
        weights: dict[str, float] = {}
        for layer, weight in self.content.items():
            raw[f"content/{layer}"] = content_loss(found[layer], (content or {})[layer], self.convention)
            weights[f"content/{layer}"] = weight
        for layer, weight in self.style.items():
            raw[f"style/{layer}"] = style_loss(found[layer], (style or {})[layer], self.convention)
            weights[f"style/{layer}"] = weight * strength
        if self.tv:
            raw["tv"] = total_variation(images, self.beta, self.convention)
            weights["tv"] = self.tv
        return LossTerms(raw, weights)
