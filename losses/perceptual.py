"""The perceptual loss: named content, style and total-variation terms, weighed and summed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from impasto.errors import WrongCall
from impasto.losses.functional import (
    check_beta,
    check_convention,
    content_loss,
    gram_matrix,
    style_loss,
    total_variation,
)

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


def _leave_out(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: object) -> None:
    """Keep the extractor's weights out of every checkpoint."""
    for key in [key for key in state if key.startswith(prefix)]:
        del state[key]


def _do_not_miss(module: nn.Module, keys: Any) -> None:
    """And let a checkpoint without them be loaded."""
    keys.missing_keys[:] = [key for key in keys.missing_keys if "features." not in key]


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
        ValueError: for an unknown convention, an exponent below 1, or if no term is left.
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
        check_convention(convention)
        check_beta(beta)
        self.features = features
        self.content = dict(content or {})
        self.style = dict(style or {})
        self.tv = tv
        self.convention = convention
        self.beta = beta
        if not (self.content or self.style or tv):
            raise WrongCall("PerceptualLoss: got no term, expected weights for content, style or tv")
        self.register_state_dict_post_hook(_leave_out)  # type: ignore[no-untyped-call]  # torch's
        self.register_load_state_dict_post_hook(_do_not_miss)  # type: ignore[no-untyped-call]  # torch's

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

        Raises:
            ValueError: if the target of a layer is missing.
        """
        content, style = content or {}, style or {}
        for kind, weights_of, targets in (("content", self.content, content), ("style", self.style, style)):
            if missing := [layer for layer in weights_of if layer not in targets]:
                raise WrongCall(f"PerceptualLoss: no {kind} target for {', '.join(missing)}; see {kind}_targets")
        layers = list(dict.fromkeys([*self.content, *self.style]))
        found = self.features(images, layers) if layers else {}
        raw: dict[str, Tensor] = {}
        weights: dict[str, float] = {}
        for layer, weight in self.content.items():
            raw[f"content/{layer}"] = content_loss(found[layer], content[layer], self.convention)
            weights[f"content/{layer}"] = weight
        for layer, weight in self.style.items():
            raw[f"style/{layer}"] = style_loss(found[layer], style[layer], self.convention)
            weights[f"style/{layer}"] = weight * strength
        if self.tv:
            raw["tv"] = total_variation(images, self.beta, self.convention)
            weights["tv"] = self.tv
        return LossTerms(raw, weights)
