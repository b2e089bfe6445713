"""The layers that the networks are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConditionalInstanceNorm(nn.Module):
    """Instance normalisation with one row of scales and shifts a style.

    ``y = scale * (x - mean(x)) / sqrt(var(x) + eps) + shift``, mean and variance over the positions of each map of each
    picture, in float32. Rows are mixed by the style weights, which is how styles mix. Source: Ulyanov et al. 2016 and
    Dumoulin et al. 2017, equation 5.

    Args:
        channels: maps.
        styles: rows.
        eps: added to the variance.
        by_strength: whether the strength is a factor on the row.
    """

    def __init__(self, channels: int, styles: int, eps: float, by_strength: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.by_strength = by_strength
        self.scale = nn.Parameter(torch.ones(styles, channels))
        self.shift = nn.Parameter(torch.zeros(styles, channels))

    def forward(self, x: Tensor, style: Tensor, strength: Tensor) -> Tensor:
        """Normalise (N, C, H, W) under style weights (N, S) and strengths (N,)."""
        with torch.autocast(x.device.type, enabled=False):
            if self.by_strength:
                style = style * strength.unsqueeze(1)
            scale, shift = style @ self.scale, style @ self.shift
            normalised = F.instance_norm(x.float(), eps=self.eps)
            return torch.addcmul(shift[..., None, None], normalised, scale[..., None, None]).to(x.dtype)


class UpsampleConv(nn.Module):
    """Nearest-neighbour upsampling, then a convolution without bias, in its exact phase form.

    Upsampling is by ``factor`` and the kernel has ``2 factor + 1`` taps a side: 5x5 for 2, 9x9 for 4. Each of the
    factor^2 phases of the output sees 3x3 positions of the input, through sums of the kernel's taps; so one 3x3
    convolution at the low resolution gives all phases and a pixel shuffle puts them in place. Same numbers, no tensor
    at the high resolution before the shuffle, and no grid: on a flat input all phases agree. (A 3x3 kernel after
    upsampling by 2 would cost the same: its phases see 2x2 positions, each a corner of the same 3x3.)

    Source: Odena et al. 2016 for resize-convolution; the rewriting is algebra.
    """

    def __init__(self, inputs: int, outputs: int, factor: int = 2) -> None:
        super().__init__()
        self.outputs, self.factor = outputs, factor
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 2 * factor + 1, 2 * factor + 1))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        # taps[p, low, high] = 1 where phase p reads the upsampled position `high` from the input position `low`
        taps = torch.zeros(factor, 3, 2 * factor + 1)
        for phase in range(factor):
            for high in range(2 * factor + 1):
                taps[phase, (phase + high - factor) // factor + 1, high] = 1
        self.register_buffer("taps", taps.flatten(0, 1), persistent=False)

    def phase_kernel(self) -> Tensor:
        """The kernel of the low-resolution convolution, (factor^2 outputs, inputs, 3, 3)."""
        outputs, inputs = self.weight.shape[:2]
        taps, factor = self.get_buffer("taps"), self.factor
        kernel = (taps @ self.weight @ taps.mT).reshape(outputs, inputs, factor, 3, factor, 3)
        return kernel.permute(0, 2, 4, 1, 3, 5).reshape(factor**2 * outputs, inputs, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, factor H, factor W)."""
        return F.pixel_shuffle(F.conv2d(x, self.phase_kernel(), padding=1), self.factor)


class _Clip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        outwards = ((x < 0) & (gradient > 0)) | ((x > 1) & (gradient < 0))
        return gradient.masked_fill(outwards, 0)


def clip_picture(x: Tensor) -> Tensor:
    """Clip to [0, 1] with a gradient that still pulls values back into the range, but pushes none out of it.

    A plain clamp has no gradient outside the range, so a value that has left it never comes back; without any clamp the
    loss judges a picture that nobody can see.
    """
    clipped: Tensor = _Clip.apply(x) if x.requires_grad else x.clamp(0, 1)
    return clipped


class Gate(nn.Module):
    """The strength of each picture as a factor on its pixels: where one of each pixel may take its place."""

    def forward(self, strength: Tensor) -> Tensor:
        """(N,) -> (N, 1, 1, 1)."""
        return strength.view(-1, 1, 1, 1)
