"""How pictures are to be painted: styles, strengths, where each goes, and whose colours are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from impasto.card import PAINT, Card
from impasto.errors import WrongCall
from impasto.inference.manifest import Settings
from impasto.inference.regions import Mask, regions
from impasto.palette import Colour

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Manner:
    """How pictures are to be painted.

    Attributes:
        styles: (R, S), the weights of the styles in each region; the first region is what the masks leave.
        strengths: (R,), 0 (the photo) to 1 (the painting).
        masks: of the other regions, their names and their values, as `impasto.inference.regions.regions` takes them.
        colour: whose colours.
    """

    styles: npt.NDArray[np.float64]
    strengths: tuple[float, ...]
    masks: tuple[tuple[str, Floats], ...] = ()
    colour: Colour = field(default_factory=Colour)

    @classmethod
    def of(
        cls,
        mixture: Callable[[str | None], Sequence[float]],
        style: str | None,
        strength: float,
        color: str,
        masks: Sequence[Mask],
    ) -> Manner:
        """From names, with what gives the weights of a style or a mixture; the masks are read.

        Raises:
            WrongCall: an unknown style or colour, or a strength outside 0 to 1.
            PictureError: a mask that cannot be read.
        """
        if not 0 <= strength <= 1:
            raise WrongCall(f"expected a strength from 0 to 1; got {strength}")
        colour = Colour.parse(color)
        styles = [mixture(style), *(mixture(mask.style or style) for mask in masks)]
        strengths = (strength, *(mask.strength for mask in masks))
        return cls(np.array(styles), strengths, tuple((mask.name, mask.read()) for mask in masks), colour)

    def regions(self, height: int, width: int) -> Floats:
        """How much of each region the pixels of a photo have, (R, H, W), with sum 1 over the regions."""
        return regions(self.masks, height, width)

    def weights(self, names: Sequence[str], region: int = 0) -> dict[str, float]:
        """The styles of a region's mixture by their names, and the weights of each."""
        return {name: float(weight) for name, weight in zip(names, self.styles[region], strict=True) if weight}

    def settings(self, card: Card) -> Settings:
        """What stands of it in the manifest of a folder, beside the pack."""
        texts = [
            ",".join(f"{name}:{weight:.6g}" for name, weight in self.weights(card.style_names, region).items())
            for region in range(len(self.styles))
        ]
        rest = zip(self.masks, texts[1:], self.strengths[1:], strict=True)
        masks = [f"{hashlib.sha256(mask.data).hexdigest()}={text}@{strength:g}" for (_, mask), text, strength in rest]
        colour = self.colour if self.colour.changes else Colour()
        return Settings(card.name, card.files[PAINT], texts[0], self.strengths[0], str(colour), ";".join(masks))
