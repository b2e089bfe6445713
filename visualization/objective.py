"""What painting minimises: a photo's content, the styles of one or more paintings, and total variation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from impasto.errors import WrongCall, unknown_name
from impasto.losses import LossTerms, Moments, VGGFeatures, moments, statistic_loss, total_variation
from impasto.losses.statistics import check_statistic
from impasto.visualization.tiles import Part, check_tile, split, sum_over_parts

HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class StyleGoal:
    """A style, how much of it, and where.

    Attributes:
        name: tells the goals of one picture apart.
        weight: factor on the style layers' weights.
        targets: what `PaintObjective.style_targets` gave for the painting.
        region: (1, 1, H, W) of the picture's size, from 0 (nothing of this style) to 1; none means everywhere.

    Raises:
        ValueError: for a region of another shape or range.
    """

    name: str
    weight: float
    targets: Mapping[str, Moments]
    region: Tensor | None = None

    def __post_init__(self) -> None:
        if self.region is None:
            return
        if self.region.ndim != 4 or self.region.shape[:2] != (1, 1) or not self.region.is_floating_point():
            raise WrongCall(
                f"region of {self.name!r}: got {self.region.dtype} of shape {tuple(self.region.shape)}, "
                "expected float (1, 1, H, W)"
            )
        low, high = self.region.aminmax()
        if not (low >= 0 and high <= 1):
            raise WrongCall(f"region of {self.name!r}: got values from {low:g} to {high:g}, expected 0 to 1")


class PaintObjective:
    """Content, style and total variation of a picture, whole or in parts.

    ``total = sum_l a_l content_l + sum_g w_g sum_l b_l style_gl + c tv``: `PerceptualLoss` with several styles, each in
    its region (Gatys et al. 2017, section 4; `moments` says what differs), other statistics than Gram matrices, and
    memory that can be bounded. With one goal, no region, no padding and Gram matrices it is `PerceptualLoss`.

    Args:
        features: the loss network.
        content: weight of each content layer by name.
        style: weight of each style layer by name.
        tv: weight of the total variation.
        convention: one of `CONVENTIONS`.
        statistic: one of `STATISTICS`.
        mirrored: pixels by which picture, photo and painting are continued by reflection before the network sees them,
            so that its zero padding does not meet their edge. Total variation is of the picture alone.
        dtype: type that the features are computed in where the processor gains by it, such as ``torch.bfloat16``; the
            losses stay in float32.
        tile: compute features in parts of at most ``tile`` pixels a side, a multiple of the deepest layer's stride.
            Values and gradients are those of the whole picture; memory is that of one part, time four thirds of the
            whole's and that of the halos, which with small parts of deep layers is several times as much.

    Raises:
        ValueError: for an unknown layer, convention or statistic, a convention that the statistic does not have, a
            type, padding or tile that cannot be, or if no term is left.
    """

    def __init__(
        self,
        features: VGGFeatures,
        *,
        content: Mapping[str, float],
        style: Mapping[str, float],
        tv: float = 0.0,
        convention: str = "relative",
        statistic: str = "gram",
        mirrored: int = 0,
        dtype: torch.dtype | None = None,
        tile: int | None = None,
    ) -> None:
        check_statistic(statistic, convention)
        self.layers = list(dict.fromkeys([*content, *style]))
        for layer in self.layers:
            if layer not in features.layers:
                raise unknown_name(f"{features.architecture} layer", layer, features.layers)
        if not (content or style or tv):
            raise WrongCall("PaintObjective: got no term, expected weights for content, style or tv")
        if mirrored < 0:
            raise WrongCall(f"mirrored: got {mirrored} pixels, expected 0 or more")
        if dtype is not None and dtype not in HALF:
            raise WrongCall(f"dtype: got {dtype}, expected torch.bfloat16, torch.float16 or None")
        if tile is not None and self.layers:
            check_tile(tile, features, self.layers)
        self.features, self.content, self.style, self.tv = features, dict(content), dict(style), tv
        self.convention, self.statistic = convention, statistic
        self.mirrored, self.dtype, self.tile = mirrored, dtype, tile

    @torch.no_grad()
    def content_targets(self, photo: Tensor) -> dict[str, Tensor]:
        """Features (N, C, H', W') of the content layers of photos (N, 3, H, W)."""
        if not self.content:
            return {}
        picture = self._continued(photo)
        targets: dict[str, Tensor] = {}
        for part in self._parts(picture):
            for layer, maps in self._features(part.seen(picture), list(self.content)).items():
                stride = self.features.stride[layer]
                if layer not in targets:
                    targets[layer] = maps.new_empty(len(photo), *self._shape(layer, photo))
                part.own(targets[layer], stride).copy_(part.inside(maps, stride))
        return targets

    @torch.no_grad()
    def style_targets(self, painting: Tensor) -> dict[str, Moments]:
        """Moments of the style layers of paintings (N, 3, H, W)."""
        return self._sums(painting, {}, [None])[1][0] if self.style else {}

    def __call__(self, image: Tensor, content: Mapping[str, Tensor], goals: Sequence[StyleGoal]) -> LossTerms:
        """The terms for pictures (N, 3, H, W) in [0, 1]: ``content/relu4_2``, ``style/relu1_1``, ``tv``.

        With several goals a style term is named ``style/NAME/relu1_1``. Raw style terms are not multiplied by a goal's
        weight.

        Args:
            image: the pictures to judge.
            content: what `content_targets` gave for photos of the same size.
            goals: the styles; one at least if there are style layers.

        Raises:
            ValueError: for a target that is missing or does not fit, or goals of one name.
        """
        self._check(image, content, goals)
        raw: dict[str, Tensor] = {}
        weights: dict[str, float] = {}
        if self.layers:
            wanted = {layer: content[layer] for layer in self.content}
            errors, found = self._sums(image, wanted, [goal.region for goal in goals])
            for layer, weight in self.content.items():
                raw[f"content/{layer}"] = self._content_term(errors[layer], content[layer])
                weights[f"content/{layer}"] = weight
            for goal, sums in zip(goals, found, strict=True):
                place = "style" if len(goals) == 1 else f"style/{goal.name}"
                for layer, weight in self.style.items():
                    raw[f"{place}/{layer}"] = statistic_loss(
                        sums[layer], goal.targets[layer], self.statistic, self.convention
                    )
                    weights[f"{place}/{layer}"] = weight * goal.weight
        if self.tv:
            raw["tv"] = total_variation(image, convention=self.convention)
            weights["tv"] = self.tv
        return LossTerms(raw, weights)

    def _check(self, image: Tensor, content: Mapping[str, Tensor], goals: Sequence[StyleGoal]) -> None:
        for layer in self.content:
            if layer not in content:
                raise WrongCall(f"PaintObjective: no content target for {layer}; see content_targets")
            if content[layer].shape[1:] != self._shape(layer, image) or len(content[layer]) not in {1, len(image)}:
                raise WrongCall(
                    f"PaintObjective: got a content target {tuple(content[layer].shape)} for {layer}, expected "
                    f"{(len(image), *self._shape(layer, image))}: that of a photo of the picture's size"
                )
        names = [goal.name for goal in goals]
        if len(set(names)) < len(names) or (self.style and not goals):
            raise WrongCall(f"PaintObjective: got goals named {names}, expected at least one and each name once")
        for goal in goals:
            if missing := [layer for layer in self.style if layer not in goal.targets]:
                raise WrongCall(f"style {goal.name!r}: no target for {', '.join(missing)}; see style_targets")
            if goal.region is not None and goal.region.shape[2:] != image.shape[2:]:
                raise WrongCall(
                    f"region of {goal.name!r}: got {tuple(goal.region.shape[2:])} pixels, "
                    f"expected the picture's {tuple(image.shape[2:])}"
                )

    def _sums(
        self, image: Tensor, content: Mapping[str, Tensor], regions: Sequence[Tensor | None]
    ) -> tuple[dict[str, Tensor], list[dict[str, Moments]]]:
        """Squared errors (N,) of content layers, and for each region the moments of the style layers."""
        picture, stride = self._continued(image), self.features.stride
        distinct = {id(region): region for region in regions}
        grids = [self._on_grids(region, image) for region in distinct.values()]
        layers = [*content, *(layer for layer in self.style if grids and layer not in content)]

        def measure(seen: Tensor, part: Part) -> tuple[Tensor, ...]:
            maps = {layer: part.inside(found, stride[layer]) for layer, found in self._features(seen, layers).items()}
            sums = [_squared_error(maps[layer], part.own(goal, stride[layer])) for layer, goal in content.items()]
            for grid in grids:
                for layer in self.style:
                    region = part.own(grid[layer], stride[layer]) if grid else None
                    found = moments(maps[layer], region, self.statistic)
                    sums += [found.weight, found.first, found.second]
            return tuple(sums)

        sums = iter(sum_over_parts(picture, self._parts(picture), measure))
        errors = {layer: next(sums) for layer in content}
        found = {key: {layer: Moments(next(sums), next(sums), next(sums)) for layer in self.style} for key in distinct}
        return errors, [found[id(region)] for region in regions]

    def _content_term(self, errors: Tensor, target: Tensor) -> Tensor:
        """`content_loss` from the squared errors (N,)."""
        if self.convention == "gatys":
            return errors.mean() / 2
        if self.convention == "johnson":
            return errors.mean() / target[0].numel()
        scale = target.to(errors.dtype).square().sum((1, 2, 3))
        return (errors / torch.where(scale > 0, scale, 1)).mean()

    def _continued(self, pictures: Tensor) -> Tensor:
        if self.mirrored == 0:
            return pictures
        if pictures.ndim != 4 or min(pictures.shape[2:]) <= self.mirrored:
            raise WrongCall(
                f"mirrored={self.mirrored}: got a tensor of shape {tuple(pictures.shape)}, "
                "expected (N, C, H, W) with more pixels than that on each side"
            )
        return F.pad(pictures, [self.mirrored] * 4, mode="reflect")

    def _features(self, pictures: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        with torch.autocast(pictures.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            found: dict[str, Tensor] = self.features(pictures, layers)
            return found

    def _on_grids(self, region: Tensor | None, image: Tensor) -> dict[str, Tensor]:
        """The mean of a region at the positions of each style layer."""
        if region is None:
            return {}
        wide = self._continued(region.to(image))
        return {layer: F.avg_pool2d(wide, self.features.stride[layer]) for layer in self.style}

    def _parts(self, picture: Tensor) -> list[Part]:
        return split(picture.shape[2], picture.shape[3], self.features, self.layers, self.tile)

    def _shape(self, layer: str, image: Tensor) -> tuple[int, int, int]:
        """Of the features of a picture, its continuation included."""
        height, width = ((side + 2 * self.mirrored) // self.features.stride[layer] for side in image.shape[2:])
        return self.features.channels[layer], height, width


def _squared_error(maps: Tensor, target: Tensor) -> Tensor:
    """Sums (N,) in float32 or wider."""
    wide = torch.promote_types(maps.dtype, torch.float32)
    return (maps.to(wide) - target.to(wide)).square().sum((1, 2, 3))
