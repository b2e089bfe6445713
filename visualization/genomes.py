"""Pictures that can be inherited: bytes that become pixels, directly or through a small network of patterns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

STRENGTH = 15
"""Of the polynomial mutation (its eta): the larger, the smaller its changes."""


@dataclass(frozen=True)
class Direct:
    """Every pixel by itself: hue, saturation and value.

    Source: Nguyen et al. 2015, section 2.3.

    Attributes:
        size: height and width of the picture in pixels.
    """

    size: int

    @property
    def length(self) -> int:
        """Genes of a picture."""
        return 3 * self.size**2

    def pictures(self, genomes: Tensor) -> Tensor:
        """Genomes (N, length), uint8, as pictures (N, 3, size, size) of 8 bits in [0, 1]."""
        planes = genomes.float().div(255).view(-1, 3, self.size, self.size)
        return eight_bits(rgb_of_hsv(planes))


@dataclass(frozen=True)
class Cppn:
    """A compositional pattern-producing network: a function from a place to a colour, with regular, smooth pictures.

    A place is x and y, from -1 to 1, its distance from the centre, and 1. Two layers of units lead to hue, saturation
    and value; a quarter of a layer's units each are sines, sigmoids, Gaussians and linear. Genes are weights, even from
    -``reach`` to ``reach`` over the square root of how many a unit has.

    Source: Stanley 2007; Nguyen et al. 2015, section 2.3. Differs from them in that the network does not grow: all
    pictures have as many units of each kind.

    Attributes:
        size: height and width of the picture in pixels.
        units: of a hidden layer, a multiple of 4.
        reach: of the weights.
    """

    size: int
    units: int = 16
    reach: float = 3.0

    @property
    def length(self) -> int:
        """Genes of a picture."""
        return sum(rows * columns for rows, columns in self._layers())

    def pictures(self, genomes: Tensor) -> Tensor:
        """Genomes (N, length), uint8, as pictures (N, 3, size, size) of 8 bits in [0, 1]."""
        x = self._places(genomes.device).expand(len(genomes), -1, -1)
        layers = self._layers()
        genes = (genomes.float() / 127.5 - 1).tensor_split(list(accumulate(map(math.prod, layers[:-1]))), 1)
        for number, (weights, (rows, columns)) in enumerate(zip(genes, layers, strict=True)):
            x = torch.bmm(weights.view(-1, rows, columns) * (self.reach / math.sqrt(columns)), x)
            x = _waved(x) if number < len(layers) - 1 else x
        hue, saturation, value = x.view(-1, 3, self.size, self.size).unbind(1)
        return eight_bits(rgb_of_hsv(torch.stack([hue / 2, saturation.sigmoid(), (2 * value).sigmoid()], 1)))

    def _layers(self) -> tuple[tuple[int, int], ...]:
        return (self.units, 4), (self.units, self.units), (3, self.units)

    def _places(self, device: torch.device) -> Tensor:
        """x, y, distance and 1 of each pixel, (4, size^2)."""
        line = torch.linspace(-1, 1, self.size, device=device)
        y, x = torch.meshgrid(line, line, indexing="ij")
        return torch.stack([x, y, torch.hypot(x, y), torch.ones_like(x)]).flatten(1)


def _waved(x: Tensor) -> Tensor:
    """Sums (N, units, places), each quarter of the units through its own function."""
    sines, sigmoids, gaussians, lines = x.chunk(4, 1)
    return torch.cat([torch.sin(math.pi * sines), torch.tanh(sigmoids), torch.exp(-gaussians.square()), lines], 1)


def random_genomes(count: int, length: int, generator: torch.Generator) -> Tensor:
    """(count, length), uint8, all alike likely."""
    return torch.randint(0, 256, (count, length), generator=generator, dtype=torch.uint8)


def mutated(genomes: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Children: each gene is changed with probability ``rate``, by polynomial mutation, and kept from 0 to 255.

    Source: Deb 2001, section 4.3: with u in [0, 1), the change as a part of the range is (2u)^(1/(eta+1)) - 1 for u
    below 1/2, 1 - (2(1-u))^(1/(eta+1)) above.
    """
    u = torch.rand(genomes.shape, generator=generator)
    power = 1 / (STRENGTH + 1)
    change = torch.where(u < 0.5, (2 * u) ** power - 1, 1 - (2 * (1 - u)) ** power)
    chosen = torch.rand(genomes.shape, generator=generator) < rate
    return (genomes + 255 * change * chosen).round().clamp(0, 255).to(torch.uint8)


def rgb_of_hsv(planes: Tensor) -> Tensor:
    """Hue (any; 1 is once around), saturation and value (N, 3, H, W) as RGB in [0, 1]."""
    hue, saturation, value = planes.unbind(1)
    k = (torch.tensor([5.0, 3.0, 1.0]).to(planes).view(3, 1, 1) + 6 * hue[:, None]) % 6
    return value[:, None] * (1 - saturation[:, None] * torch.minimum(k, 4 - k).clamp(0, 1))


def eight_bits(pictures: Tensor) -> Tensor:
    """Pictures in [0, 1] as a file holds them."""
    return pictures.clamp(0, 1).mul(255).round().div(255)
