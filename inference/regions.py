"""Styles in their own places: masks, read and made to fit a photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from impasto.errors import PictureError, WrongCall
from impasto.images import read_picture
from impasto.inference.places import StrPath
from impasto.palette import LUMA

Floats = npt.NDArray[np.float32]

_FORM = "expected FILE=STYLE, FILE=STYLE@STRENGTH or FILE=@STRENGTH"


@dataclass(frozen=True)
class Mask:
    """A style for a part of a picture.

    Attributes:
        where: a picture's file, white where the style goes, grey for a part of it; or an array (H, W), uint8, or float
            from 0 to 1. It is stretched to the photo, which it has to resemble in shape, as the photo is displayed.
        style: a style of the pack, or a mixture; None for the style of the rest of the picture.
        strength: 0 (the photo) to 1 (the painting).

    Raises:
        WrongCall: a strength outside 0 to 1.
    """

    where: StrPath | npt.NDArray[np.generic]
    style: str | None = None
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise WrongCall(f"mask {self.name}: expected a strength from 0 to 1; got {self.strength:g}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``FILE=STYLE@STRENGTH``; the strength may be left out (1), or the style (that of the rest).

        Raises:
            WrongCall: another form.
        """
        file, equals, about = text.rpartition("=")
        style, at, strength = about.partition("@")
        if not equals or not file or not about:
            raise WrongCall(f"mask {text!r}: {_FORM}, such as sky.png=starry_night@0.8")
        try:
            return cls(file, style.strip() or None, float(strength) if at else 1.0)
        except WrongCall:
            raise
        except ValueError as error:
            raise WrongCall(f"mask {text!r}: the strength {strength!r} is no number; {_FORM}") from error

    @property
    def name(self) -> str:
        """What it is called in errors: the file's name."""
        return "array" if isinstance(self.where, np.ndarray) else str(self.where)

    def read(self) -> Floats:
        """How much of the style each pixel of the mask asks for, (H, W) in [0, 1]; nothing where it is transparent.

        Raises:
            PictureError: a file that cannot be read.
            WrongCall: an array of another shape, type or range; or a mask that is black everywhere.
        """
        if isinstance(self.where, np.ndarray):
            share = _of_array(self.where)
        else:
            picture = read_picture(Path(self.where))
            share = (picture.rgb @ np.array(LUMA, np.float32) / 255).astype(np.float32)
            if picture.alpha is not None:
                share *= picture.alpha.astype(np.float32) / 255
        if not share.any():
            raise WrongCall(f"mask {self.name}: black everywhere; expected white where its style goes")
        return share


def masks_of(masks: Sequence[str | Mask]) -> tuple[Mask, ...]:
    """Masks, those that are written as text read as such.

    Raises:
        WrongCall: text of another form, or something that is no list of masks.
    """
    if isinstance(masks, str):
        raise WrongCall(f"masks: got the text {masks!r}; expected a list such as [{masks!r}]")
    return tuple(Mask.parse(mask) if isinstance(mask, str) else mask for mask in masks)


def regions(masks: Sequence[tuple[str, Floats]], height: int, width: int) -> Floats:
    """How much of each region the pixels of a photo have.

    Args:
        masks: the name and the values (H', W') of each, as `Mask.read` gives them.
        height, width: of the photo.

    Returns:
        (1 + masks, H, W), with sum 1 over the regions. The first is the rest: what the masks leave. Where they ask for
        more than 1 together, each gets its share.

    Raises:
        PictureError: a mask whose shape is not the photo's.
    """
    fitted = np.stack([_fitted(name, values, height, width) for name, values in masks])
    asked = fitted.sum(0)
    fitted /= np.maximum(asked, 1)
    return np.concatenate([np.maximum(1 - asked, 0)[None], fitted])


def _fitted(name: str, mask: Floats, height: int, width: int) -> Floats:
    """A mask at a photo's size."""
    if abs(mask.shape[1] * height / mask.shape[0] - width) > max(0.01 * width, 2):
        raise PictureError(
            f"mask {name}: {mask.shape[1]} x {mask.shape[0]} pixels for a photo of {width} x {height} (as displayed); "
            "expected the same shape"
        )
    if mask.shape == (height, width):
        return mask
    image = Image.fromarray(mask).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).clip(0, 1)


def _of_array(values: npt.NDArray[np.generic]) -> Floats:
    if values.ndim == 2 and values.dtype == np.bool_:
        return values.astype(np.float32)
    if values.ndim == 2 and values.dtype == np.uint8:
        return values.astype(np.float32) / np.float32(255)
    if values.ndim == 2 and np.issubdtype(values.dtype, np.floating) and values.min() >= 0 and values.max() <= 1:
        return values.astype(np.float32)
    raise WrongCall(f"mask: got an array {values.dtype} {values.shape}; expected (H, W), uint8, or float from 0 to 1")
