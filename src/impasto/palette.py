"""Whose colours a painting has: the style's, the photo's, or some between. On arrays whose last axis is RGB.

From Gatys, Bethge, Hertzmann, Shechtman, "Preserving Color in Neural Artistic Style Transfer", 2016 (arXiv:1606.05897).
All of it works on the encoded values of sRGB, as the paper does. Statistics are over the pixels of a picture (divided
by their number), in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from impasto.errors import WrongCall, unknown_name

COLOURS = ("style", "luminance", "match")
"""The style's; the photo's, under the painting's luminance; the painting's, with the photo's mean and covariance."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma Y of YIQ (ITU-R BT.601)."""

ROUNDING = (1 / 255) ** 2 / 12
"""Variance that rounding to 8 bits brings into a picture. A direction of colour that varies less is taken for flat: to
stretch it would show the rounding."""

BAND = 1 << 18
"""Pixels that are recoloured at once."""

Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Value = TypeVar("Value", np.uint8, np.uint16, np.float32, np.float64)


@dataclass(frozen=True)
class Moments:
    """How many colours there are, their mean (C,) and their covariance (C, C)."""

    count: int
    mean: Doubles
    covariance: Doubles

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Self:
        """Of colours (..., C); whole numbers count from 0 to the largest of their type, as 0 to 1."""
        moments = None
        for band in _bands(values.reshape(-1, values.shape[-1])):
            colours = band / _largest(values)
            mean = colours.mean(0, dtype=np.float64)
            apart = colours - mean
            found = cls(len(band), mean, apart.T @ apart / len(band))
            moments = found if moments is None else moments + found
        if moments is None:
            raise WrongCall("moments: got no pixels, expected at least one")
        return moments

    def __add__(self, other: Self) -> Self:
        """Of both together."""
        count = self.count + other.count
        ours, theirs = self.count / count, other.count / count
        apart = other.mean - self.mean
        between = ours * theirs * np.outer(apart, apart)
        mean, covariance = self.mean + theirs * apart, ours * self.covariance + theirs * other.covariance + between
        return type(self)(count, mean, covariance)


@dataclass(frozen=True)
class Matching:
    """The map ``x A^T + b`` that gives colours the mean and covariance of others; equation and names of section 3.

    A = S_photo^(1/2) S_painting^(-1/2), with the symmetric roots of "Image Analogies". What a painting lacks is not
    invented: with a covariance that is singular (flat, grey, or two colours) its missing directions stay missing, and
    those of a grey photo vanish.
    """

    a: Doubles
    b: Doubles

    @classmethod
    def between(cls, painting: Moments, photo: Moments) -> Self:
        """From a painting's colours to a photo's."""
        a = power(photo.covariance, 0.5) @ power(painting.covariance, -0.5, floor=ROUNDING)
        return cls(a, photo.mean - a @ painting.mean)

    def __call__(self, colours: Floats) -> Floats:
        """Colours (..., C), matched; not clipped."""
        return colours @ self.a.T.astype(colours.dtype) + self.b.astype(colours.dtype)


@dataclass(frozen=True)
class Colour:
    """Whose colours a painting is to have.

    Attributes:
        name: one of `COLOURS`.
        share: of the way from the style's colours to these, 0 to 1.

    Raises:
        WrongCall: an unknown name, or another share.
    """

    name: str = "style"
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in COLOURS:
            raise unknown_name("color", self.name, COLOURS)
        if not 0 <= self.share <= 1:
            raise WrongCall(f"the share of {self.name} is {self.share:g}; expected 0 to 1, such as {self.name}:0.5")

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``style``, ``luminance`` or ``match``; with a share, ``match:0.5``."""
        name, colon, share = text.partition(":")
        if not colon:
            return cls(name)
        try:
            return cls(name, float(share))
        except ValueError as error:
            if isinstance(error, WrongCall):
                raise
            raise WrongCall(f"color {text!r}: {share!r} is no number; expected such as match:0.5") from error

    def __str__(self) -> str:
        """As `parse` reads it."""
        return self.name if self.share == 1 else f"{self.name}:{self.share:.6g}"

    @property
    def changes(self) -> bool:
        """Whether a painting does not keep the colours it has."""
        return self.name != "style" and self.share > 0

    def matching(self, paintings: Iterable[npt.NDArray[Any]], photos: Iterable[npt.NDArray[Any]]) -> Matching | None:
        """What `recolour` needs to know of all paintings and photos together; None where it needs nothing."""
        if self.name != "match" or not self.changes:
            return None
        return Matching.between(_pooled(paintings), _pooled(photos))

    def recolour(
        self, painted: npt.NDArray[Value], photo: npt.NDArray[Value], matching: Matching | None = None
    ) -> npt.NDArray[Value]:
        """A painting with these colours.

        Args:
            painted: (H, W, 3); uint8, uint16, or float in [0, 1].
            photo: what it was painted from, of the same shape and type.
            matching: of `matching`, where parts of a picture or frames of an animation are to be treated alike; None to
                match this painting to this photo.

        Returns:
            A new array like ``painted``, clipped; or ``painted`` itself if nothing `changes`.
        """
        if painted.shape != photo.shape or painted.dtype != photo.dtype:
            raise WrongCall(
                f"recolour: got {painted.dtype} {painted.shape} and {photo.dtype} {photo.shape}, expected a painting "
                "and its photo, of one shape and type"
            )
        if not self.changes:
            return painted
        matching = matching or self.matching([painted], [photo])
        result, largest = np.empty_like(painted), _largest(painted)
        whole = not np.issubdtype(painted.dtype, np.floating)
        pixels = (values.reshape(-1, 3) for values in (painted, photo, result))
        for ours, theirs, place in zip(*map(_bands, pixels), strict=True):
            colours = ours / largest
            wanted = keep_colours(colours, theirs / largest) if matching is None else matching(colours).clip(0, 1)
            mixed = (colours + self.share * (wanted - colours)) * largest
            place[...] = np.rint(mixed) if whole else mixed
        return result


def keep_colours(painted: Floats, photo: Floats) -> Floats:
    """The luma of a painting with the colours (I and Q) of the photo; section 4.

    Where luma and colour together lie outside [0, 1], the colour is brought towards grey, no further than needed: luma
    and hue stay. Differs from the paper, which does not say; clipping each channel would change the luma.

    Args:
        painted: (..., 3) in [0, 1].
        photo: of the same shape.

    Returns:
        (..., 3) in [0, 1].
    """
    weights = np.array(LUMA, painted.dtype)
    luma = (painted @ weights)[..., None]
    colour = photo - (photo @ weights)[..., None]  # I and Q alone: RGB is Y + this
    room = np.where(colour > 0, 1 - luma, luma)  # how far the colour may go
    share = np.divide(room, np.abs(colour), out=np.ones_like(room), where=colour != 0).min(-1, keepdims=True)
    kept: Floats = np.clip(luma + share.clip(0, 1) * colour, 0, 1)
    return kept


def power(covariance: Doubles, exponent: float, floor: float = 0.0) -> Doubles:
    """A symmetric power of a covariance (C, C), zero in directions whose variance is not above ``floor``."""
    variances, directions = np.linalg.eigh(covariance)
    above = variances > floor
    scales = np.where(above, np.where(above, variances, 1.0) ** exponent, 0.0)
    result: Doubles = directions * scales @ directions.T
    return result


def _pooled(pictures: Iterable[npt.NDArray[Any]]) -> Moments:
    first, *others = map(Moments.of, pictures)
    return sum(others, first)


def _bands(pixels: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    for start in range(0, len(pixels), BAND):
        yield pixels[start : start + BAND]


def _largest(values: npt.NDArray[Any]) -> np.floating[Any]:
    """What stands for 1: of the type to compute in."""
    whole = not np.issubdtype(values.dtype, np.floating)
    return np.float32(np.iinfo(values.dtype).max) if whole else values.dtype.type(1)
