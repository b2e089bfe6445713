"""What a picture is optimised as: its pixels around a zero, or Fourier coefficients of decorrelated colours.

A canvas starts with numbers and turns any such numbers into a picture, so the loop optimises the numbers:

    picture = canvas.picture(optimize_image(canvas.start(generator), objective, transforms=canvas.picture))
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
"""A square root of the covariance of ImageNet's colours: how much red, green and blue (rows) there is in each of three
colours that do not depend on one another (columns). Source: lucid, optvis/param/color.py."""

_LENGTH = max(math.hypot(*column) for column in zip(*COLOURS, strict=True))


@dataclass(frozen=True)
class PixelCanvas:
    """Pixels as differences from a colour, such as the mean of the pictures that a network was trained on.

    Attributes:
        height: of the picture in pixels.
        width: likewise.
        mean: the RGB colour, in [0, 1], that a difference of 0 is.
    """

    height: int
    width: int
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)

    def start(self, generator: torch.Generator, deviation: float = 0.0, count: int = 1) -> Tensor:
        """Normal noise, (count, 3, height, width), each picture's drawn after the one before."""
        return _drawn((3, self.height, self.width), generator, deviation, count)

    def picture(self, differences: Tensor) -> Tensor:
        """The pictures, (N, 3, height, width): in [0, 1] only where the differences keep `within` it."""
        return differences + self._zero(differences)

    def within(self, differences: Tensor) -> Tensor:
        """Projection on the differences of pictures in [0, 1]."""
        zero = self._zero(differences)
        return torch.minimum(torch.maximum(differences, -zero), 1 - zero)

    def _zero(self, like: Tensor) -> Tensor:
        return like.new_tensor(self.mean).view(3, 1, 1)


@dataclass(frozen=True)
class FourierCanvas:
    """Fourier coefficients of three decorrelated colours, scaled as natural pictures' fall off.

    A step in these coefficients, all of one size, changes coarse shapes and brightness as easily as fine patterns and
    single colours, where a step in pixels makes high frequencies first.

    Source: Olah et al. 2017, Feature Visualization, section "Preconditioning and Parameterization"; lucid,
    optvis/param/spatial.py, fft_image. Differs from it for odd widths, for which lucid makes one column more and cuts
    it off.

    Attributes:
        height: of the picture in pixels.
        width: likewise.
        decay: a coefficient of frequency f, in cycles a pixel, is multiplied by max(f, 1 / longer side)^-decay.
    """

    height: int
    width: int
    decay: float = 1.0

    def start(self, generator: torch.Generator, deviation: float = 0.01, count: int = 1) -> Tensor:
        """Normal noise, (count, 3, height, width // 2 + 1, 2): real and imaginary parts; each drawn after the last."""
        return _drawn((3, self.height, self.width // 2 + 1, 2), generator, deviation, count)

    def picture(self, coefficients: Tensor) -> Tensor:
        """The pictures, (N, 3, height, width), in (0, 1); coefficients of 0 are mid-grey."""
        spectrum = torch.view_as_complex(coefficients.contiguous()) * self._scale(coefficients)
        planes = torch.fft.irfft2(spectrum, s=(self.height, self.width), norm="ortho") / 4
        mix = coefficients.new_tensor(COLOURS) / _LENGTH
        return torch.einsum("rc,nchw->nrhw", mix, planes).sigmoid()

    def _scale(self, like: Tensor) -> Tensor:
        down = torch.fft.fftfreq(self.height, device=like.device, dtype=like.dtype)
        across = torch.fft.rfftfreq(self.width, device=like.device, dtype=like.dtype)
        frequency = torch.hypot(down[:, None], across)
        return frequency.clamp(min=1 / max(self.height, self.width)) ** -self.decay


def _drawn(shape: tuple[int, ...], generator: torch.Generator, deviation: float, count: int) -> Tensor:
    return deviation * torch.stack([torch.randn(shape, generator=generator) for _ in range(count)])
