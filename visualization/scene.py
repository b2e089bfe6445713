"""What a painting is made of: the photo, the paintings and their regions, at any size."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from impasto.errors import WrongCall, unknown_name
from impasto.images import MIN_SIDE, Picture, picture_from_array, picture_from_pil, read_picture
from impasto.losses import LossTerms, clip
from impasto.visualization.colours import keep_colours, luminance, match_luminance, match_statistics
from impasto.visualization.objective import PaintObjective, StyleGoal
from impasto.visualization.pyramid import resize

Source = str | os.PathLike[str] | Image.Image | npt.NDArray[np.generic]
"""A picture: a file, a Pillow image, or a uint8 RGB array (H, W, 3)."""

COLOURS = ("style", "luminance", "match")
"""Whose colours a painting has: the style's; the photo's, by painting the luminance only; the photo's mean and
covariance, by recolouring the style first."""


def open_picture(source: Source) -> Picture:
    """The picture of a file, an image or an array.

    Raises:
        WrongCall: for something else.
        PictureError: for one that cannot be read, or is too small or too large.
    """
    if isinstance(source, Image.Image):
        return picture_from_pil(source)
    if isinstance(source, np.ndarray):
        return picture_from_array(source)
    if isinstance(source, str | os.PathLike):
        return read_picture(source)
    raise WrongCall(f"a picture: got {type(source).__name__}, expected a file, a Pillow image or a uint8 RGB array")


def to_tensor(source: Source) -> Tensor:
    """A picture as float RGB (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(open_picture(source).rgb.copy()).permute(2, 0, 1)[None].float().div(255).contiguous()


def to_image(picture: Tensor) -> Image.Image:
    """A picture (1, 3, H, W) rounded to 8 bits."""
    rgb = picture[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(rgb.cpu().numpy()))


def fit_within(height: int, width: int, long_side: float) -> tuple[int, int]:
    """The height and width whose longer one is ``long_side``, in the same proportion."""
    scale = long_side / max(height, width)
    return max(MIN_SIDE, round(height * scale)), max(MIN_SIDE, round(width * scale))


@dataclass(frozen=True)
class Scene:
    """A photo, paintings and regions, on one device.

    Attributes:
        photo: (1, 3, H, W), at the size of the result.
        paintings: (1, 3, H', W') each, at the size that goes with the result's.
        names: of the paintings, all different.
        weights: of the paintings' style terms: with sum 1, or the share of the picture that all regions cover.
        regions: (1, 1, H, W) where each is wanted, or none for everywhere.
        color: one of `COLOURS`.
    """

    photo: Tensor
    paintings: tuple[Tensor, ...]
    names: tuple[str, ...]
    weights: tuple[float, ...]
    regions: tuple[Tensor | None, ...]
    color: str = "style"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result."""
        return self.photo.shape[2], self.photo.shape[3]

    def subject(self, size: tuple[int, int]) -> Tensor:
        """The photo at a size, (1, 3, *size), as it is painted: grey if only its luminance is."""
        photo = resize(self.photo, size).clamp(0, 1)
        return luminance(photo).expand_as(photo).contiguous() if self.color == "luminance" else photo

    def at(self, size: tuple[int, int], objective: PaintObjective) -> Callable[[Tensor], LossTerms]:
        """What is minimised when painting at a size of the same proportion: the targets are computed here, once.

        Content in the convention ``gatys`` is a sum over positions, of which a coarser size has fewer: its weight is
        raised there, so that content and style are in the balance of the full size.
        """
        scale = max(size) / max(self.size)
        content = objective.content_targets(self.subject(size))
        goals = []
        for name, weight, painting, region in zip(self.names, self.weights, self.paintings, self.regions, strict=True):
            small = resize(painting, _scaled(painting, scale)).clamp(0, 1)
            targets = objective.style_targets(small)
            grid = None if region is None else resize(region, size).clamp(0, 1)
            goals.append(StyleGoal(name, weight, targets, grid))
        summed = objective.convention == "gatys"
        balance = self.size[0] * self.size[1] / (size[0] * size[1]) if summed else 1.0
        return lambda image: _balanced(objective(image, content, goals), balance)

    def within(self, size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
        """The projection on what a picture of a size may be: in [0, 1], and the photo where no style is wanted."""
        covered, subject = self._covered(size), self.subject(size)
        return clip if covered is None else lambda image: torch.where(covered, image.clamp(0, 1), subject)

    def finished(self, painted: Tensor) -> Tensor:
        """A picture as it is to be seen: with the photo's colours if those were to be kept, and its unpainted parts."""
        size = (painted.shape[2], painted.shape[3])
        photo, covered, painted = resize(self.photo, size).clamp(0, 1), self._covered(size), painted.clamp(0, 1)
        if self.color == "luminance":
            painted = keep_colours(painted, photo)
        return painted if covered is None else torch.where(covered, painted, photo)

    def _covered(self, size: tuple[int, int]) -> Tensor | None:
        """Where a style is wanted, (1, 1, *size); none if one is wanted everywhere."""
        regions = [region for region in self.regions if region is not None]
        if len(regions) < len(self.regions):
            return None
        return functools.reduce(torch.maximum, [resize(region, size) for region in regions]) > 0


def _balanced(terms: LossTerms, balance: float) -> LossTerms:
    """The terms with the weights of content times a factor."""
    factors = {name: balance if name.startswith("content/") else 1.0 for name in terms.weights}
    return LossTerms(terms.raw, {name: weight * factors[name] for name, weight in terms.weights.items()})


def read_scene(
    content: Source,
    styles: Sequence[Source],
    *,
    weights: Sequence[float] | None,
    masks: Sequence[Source | None] | None,
    size: int | None,
    style_scale: float,
    color: str,
    device: torch.device,
) -> Scene:
    """Read and check everything that `paint` paints from; its arguments are described there."""
    if color not in COLOURS:
        raise unknown_name("color", color, COLOURS)
    masks = [None] * len(styles) if masks is None else masks
    if not isinstance(masks, list | tuple):
        raise WrongCall(f"masks: got {type(masks).__name__}, expected a list with a mask, or None, for each painting")
    if not styles or len(masks) != len(styles):
        raise WrongCall(
            f"paint: got {len(styles)} paintings and {len(masks)} masks, expected one painting or more and "
            "a mask (or none) for each or no masks"
        )
    if (size is not None and size < MIN_SIDE) or not 0 < style_scale <= 8:
        raise WrongCall(
            f"paint: got size {size}, style_scale {style_scale}; expected size >= {MIN_SIDE}, 0 < scale <= 8"
        )
    photo = to_tensor(content)
    high, wide = fit_within(photo.shape[2], photo.shape[3], size or max(photo.shape[2:]))
    photo = resize(photo, (high, wide)).clamp(0, 1).to(device)
    paintings = [_painting(source, style_scale * max(high, wide), photo, color) for source in styles]
    regions = tuple(None if mask is None else _region(mask, (high, wide)).to(device) for mask in masks)
    return Scene(photo, tuple(paintings), _names(styles), _weights(weights, regions), regions, color)


def _painting(source: Source, long_side: float, photo: Tensor, color: str) -> Tensor:
    """A painting at the size that goes with the photo's, never enlarged; recoloured if that is asked for."""
    painting = to_tensor(source)
    long_side = min(long_side, max(painting.shape[2:]))
    painting = (
        resize(painting, fit_within(painting.shape[2], painting.shape[3], long_side)).clamp(0, 1).to(photo.device)
    )
    if color == "luminance":
        return match_luminance(painting, photo).clamp(0, 1)
    return match_statistics(painting, photo).clamp(0, 1) if color == "match" else painting


def _region(mask: Source, size: tuple[int, int]) -> Tensor:
    """A mask (white: here) as (1, 1, H, W) in [0, 1]."""
    region = resize(luminance(to_tensor(mask)), size).clamp(0, 1)
    if region.max() == 0:
        raise WrongCall("paint: got a mask that is black everywhere, expected white where its style is wanted")
    return region


def _names(styles: Sequence[Source]) -> tuple[str, ...]:
    """The files' names where there are, else numbers; made different."""
    names: list[str] = []
    for index, source in enumerate(styles, start=1):
        known = (
            os.path.splitext(os.path.basename(os.fspath(source)))[0] if isinstance(source, str | os.PathLike) else ""
        )
        name = known or f"style_{index}"
        while name in names:
            name = f"{name}_{index}"
        names.append(name)
    return tuple(names)


def _weights(weights: Sequence[float] | None, regions: Sequence[Tensor | None]) -> tuple[float, ...]:
    """The weight of each painting times the share of the picture that its region covers, normalised.

    A style term is of its region alone while the content term is of the whole picture: weighed by its share, a region
    is as much style and as much content as the whole picture would be.
    """
    weights = [1.0] * len(regions) if weights is None else list(weights)
    if len(weights) != len(regions) or any(not 0 <= weight < math.inf for weight in weights) or sum(weights) <= 0:
        raise WrongCall(
            f"paint: got weights {weights} for {len(regions)} paintings, expected a number from 0 up for each"
        )
    everywhere = torch.ones(1, 1, 1, 1)
    shares = [
        weight * (1.0 if region is None else float(region.mean()))
        for weight, region in zip(weights, regions, strict=True)
    ]
    covered = [everywhere if region is None else region.cpu() for region in regions]
    union = float(functools.reduce(torch.maximum, covered).mean())
    return tuple(union * share / sum(shares) for share in shares)


def _scaled(painting: Tensor, scale: float) -> tuple[int, int]:
    return fit_within(painting.shape[2], painting.shape[3], max(painting.shape[2:]) * scale)
