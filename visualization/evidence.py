"""Whether the pixels that a map points to are those that a class depends on: measures, and maps to compare with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from impasto.visualization.colours import luminance
from impasto.visualization.model import Model

BATCH = 16
"""Changed pictures at once."""

Probability = Callable[[Tensor], Tensor]
"""The class's probability, (N,), in each of N pictures."""


def probability_of(model: Model, target: int) -> Probability:
    """The probability of a class, after softmax, float64, a few pictures at a time."""

    @torch.no_grad()
    def probability(pictures: Tensor) -> Tensor:
        return torch.cat([model(some).double().softmax(1)[:, target] for some in torch.split(pictures, BATCH)]).cpu()

    return probability


@dataclass(frozen=True)
class Curves:
    """A class's probability while pixels are blurred, the most important first, and while they come back.

    Attributes:
        fractions: of the pixels, from 0 to 1; (S + 1,), float64, as the others.
        deletion: p with so many of the first pixels blurred.
        insertion: p with all but so many of the first pixels blurred.
    """

    fractions: Tensor
    deletion: Tensor
    insertion: Tensor

    def areas(self) -> tuple[float, float]:
        """Under deletion (good maps: low) and under insertion (high), from 0 to 1, by the trapezoid rule."""
        deletion, insertion = (torch.trapezoid(curve, self.fractions) for curve in (self.deletion, self.insertion))
        return float(deletion), float(insertion)


def curves(
    probability: Probability, picture: Tensor, baseline: Tensor, values: Tensor, *, steps: int = 14, seed: int = 0
) -> Curves:
    """Deletion and insertion of a map.

    Args:
        probability: of the class.
        picture: (1, 3, H, W), float RGB in [0, 1].
        baseline: what a pixel becomes, (1, 3, H, W); see `blurred`.
        values: the map, (H, W); higher is more important.
        steps: equal parts of the pixels.
        seed: of the order of equal values.

    Source: Petsiuk et al. 2018 (RISE), section 4.2. Differs from it in that deleted pixels are blurred too, not grey:
    a hard edge of grey is evidence for something itself.
    """
    deletion = probability(deleted(picture, baseline, values, steps=steps, seed=seed))
    insertion = probability(deleted(baseline, picture, values, steps=steps, seed=seed))
    counts = torch.tensor(_counts(values, steps), dtype=torch.float64)
    return Curves(counts / counts[-1], deletion, insertion)


def _counts(values: Tensor, steps: int) -> list[int]:
    return [round(values.numel() * step / steps) for step in range(steps + 1)]


def deleted(picture: Tensor, baseline: Tensor, values: Tensor, *, steps: int, seed: int = 0) -> Tensor:
    """The picture on its way to the baseline, the most important pixels first, (S + 1, 3, H, W); as `curves`."""
    order = ranking(values, seed)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    rank = rank.view(picture.shape[2:]).to(picture.device)
    return torch.cat([torch.where(rank < count, baseline, picture) for count in _counts(values, steps)])


def ranking(values: Tensor, seed: int = 0) -> Tensor:
    """Indices of a map's values, the highest first; equal ones in an order that is drawn, not in reading order."""
    shuffled = torch.randperm(values.numel(), generator=torch.Generator().manual_seed(seed))
    flat = values.detach().flatten().cpu()[shuffled]
    return shuffled[flat.argsort(descending=True, stable=True)]


def drop_and_increase(probability: Probability, picture: Tensor, mean: Tensor, values: Tensor) -> tuple[float, float]:
    """How much of a class's probability is lost if only what the map shows is left, and whether it rises.

    Of the picture only the part M (the map's positive part over its maximum) of each pixel's difference from the mean
    colour stays. A map without a positive value leaves nothing.

    Args:
        probability: of the class.
        picture: (1, 3, H, W), float RGB in [0, 1].
        mean: colour of the network's training pictures, (3, 1, 1).
        values: the map, (H, W).

    Returns:
        max(0, p - p_M) / p, and 1 if p_M > p, or 0.

    Source: Chattopadhyay et al. 2018 (Grad-CAM++), section 4.1; their means over pictures are the average drop (as
    a part, not in per cent) and the increase in confidence.
    """
    positive = values.clamp(min=0).to(picture)
    mask = positive / positive.max().clamp(min=1e-30)
    before, after = probability(torch.cat([picture, mean + (picture - mean) * mask])).tolist()
    return max(0.0, before - after) / before, float(after > before)


def blurred(picture: Tensor, deviation: float) -> Tensor:
    """Maps or pictures (N, C, H, W) under a Gaussian, in pixels, cut at three of them, repeating the edge's pixels."""
    reach = round(3 * deviation)
    if reach == 0:
        return picture
    places = torch.arange(-reach, reach + 1, dtype=picture.dtype, device=picture.device)
    weights = torch.exp(-places.square() / (2 * deviation**2))
    weights = (weights / weights.sum()).expand(picture.shape[1], 1, 1, -1)
    padded = F.pad(picture, (reach,) * 4, mode="replicate")
    across = F.conv2d(padded, weights, groups=picture.shape[1])
    return F.conv2d(across, weights.transpose(2, 3), groups=picture.shape[1])


def random_map(picture: Tensor, seed: int = 0) -> Tensor:
    """Uniform noise, (H, W)."""
    return torch.rand(picture.shape[2:], generator=torch.Generator().manual_seed(seed))


def edge_map(picture: Tensor) -> Tensor:
    """The length of the brightness's gradient (Sobel), (H, W): evidence of no class."""
    grey = luminance(picture.detach().cpu()).mean(1, keepdim=True)
    kernel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    kernels = torch.stack([kernel, kernel.T])[:, None].to(grey)
    across, down = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), kernels)[0]
    return torch.hypot(across, down)


def centre_map(picture: Tensor) -> Tensor:
    """1 in the middle, 0 in the corners, (H, W): photographers put things there."""
    rows, columns = (torch.linspace(-1, 1, length) for length in picture.shape[2:])
    return 1 - torch.hypot(rows[:, None], columns) / 2**0.5
