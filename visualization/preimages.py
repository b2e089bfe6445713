"""What a histogram of oriented gradients knows of a photo, and another picture with the same one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from PIL import Image
from torch import Tensor

from impasto.losses import Step
from impasto.visualization.colours import luminance
from impasto.visualization.drawing import panel
from impasto.visualization.hog import glyphs, hog
from impasto.visualization.inputs import Whole
from impasto.visualization.inversion import FRAMES
from impasto.visualization.judging import rounded
from impasto.visualization.model import Model
from impasto.visualization.progress import tell
from impasto.visualization.pyramid import resize
from impasto.visualization.reconstruction import Decode, Prior, as_it_is, inverted, psnr, relative_error, start_of
from impasto.visualization.registry import technique
from impasto.visualization.result import Result
from impasto.visualization.scene import to_image

ZOOM = 2
"""Pixels of a drawing to one of a picture: strokes of a cell of 8 pixels want more."""


@technique("V25", "synthesis")
def hog_preimage(
    model: Model,
    picture: Whole,
    *,
    like: Tensor | None = None,
    near: float = 0.05,
    cell: int = 8,
    binning: Literal["linear", "hard"] = "linear",
    steps: int = 150,
    tv: float = 0.05,
    noise: float = 0.1,
    seed: int = 0,
) -> Result:
    """A grey picture with the photo's histograms of oriented gradients (HOG); or another photo that gets them.

    No network has a part in it; of the model only the size that the picture is read at is used. What is minimised, and
    how, is as of `invert`, with `hog` in the place of a layer. With ``like`` the start is that picture, which stays
    near, while its histograms become the photo's: a collision of two pictures that HOG takes for one.

    Source: Mahendran and Vedaldi 2015, section 3.1; Vondrick et al. 2013; for collisions Tatu et al. 2011.

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1]; what is more than whole cells is cut off at the right and below.
        like: Another picture, to start from and to stay near.
        near: Weight of the distance from it, relative to its square.
        cell: Side in pixels; even.
        binning: A gradient's vote: shared by the two nearest of 18 directions, or all for the nearest.
        steps: Of L-BFGS.
        tv: Weight of the total variation.
        noise: The start without like: mid-grey with normal noise of this deviation in its Fourier coefficients.
        seed: Of the noise.

    Returns:
        A `Result` with the images ``hog_preimage`` (photo, its glyphs, the picture made and its glyphs, and with
        ``like`` that too), ``preimage`` and ``glyphs``, and frames of the way. ``data`` has the ``relative_error``
        |h - h0|^2 / |h0|^2 of the histograms of the picture in 8 bits, that of the start, ``psnr`` to the photo's
        luma (with like: to the photo) in dB, and with like ``psnr_like`` to that.

    Raises:
        WrongCall: a picture of less than two cells each way, an odd cell, or a number that cannot be.
    """
    height, width = (side // cell * cell if cell > 0 else side for side in picture.shape[2:])
    photo = picture.detach()[..., :height, :width]
    other = None if like is None else _covering(like.detach(), height, width)

    def features(images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        found = {"pixels": images, "hog": hog(images, cell, binning)}
        return {layer: found[layer] for layer in layers}

    targets, weights = features(photo, ["hog"]), {"hog": 1.0}
    start, decode = _grey_start(photo, noise, seed) if other is None else (other, as_it_is)
    if other is not None:
        targets, weights = targets | {"pixels": other}, weights | {"pixels": near}
    way = [decode(start)]

    def watch(step: Step) -> None:
        if FRAMES * step.index // steps > FRAMES * (step.index - 1) // steps:
            way.append(decode(step.image).clone())
        tell(step.index, steps, "steps")

    prior = Prior(tv)
    made = rounded(
        inverted(
            features, targets, start=start, weights=weights, decode=decode, steps=steps, prior=prior, on_step=watch
        )
    )
    error, before = (relative_error(features, "hog", image, photo) for image in (made, way[0]))
    goal = luminance(photo).expand_as(photo) if other is None else photo
    data = {
        "relative_error": error,
        "start_error": before,
        "psnr": psnr(made, goal),
        "cell": cell,
        "binning": binning,
        "tv": tv,
        "size": [height, width],
    } | ({"noise": noise, "seed": seed} if other is None else {"psnr_like": psnr(made, other), "near": near})
    drawn = _drawn(photo, other, made, targets["hog"], hog(made, cell, binning), cell)
    notes = {"made": f"error of its HOG {error:.2g}\n{data['psnr']:.1f} dB to the photo"}
    notes |= {} if other is None else {"made": f"{notes['made']}, {data['psnr_like']:.1f} to the other"}
    caption = (
        f"The picture's HOG is the photo's but for {error:.2g} of its square (the start's: {before:.2g}); its pixels "
        f"are at {data['psnr']:.1f} dB of the photo's"
        + ("." if other is None else f", and at {data['psnr_like']:.1f} dB of the other picture's.")
    )
    images = {"hog_preimage": panel(drawn, notes, columns=5), "preimage": to_image(made), "glyphs": drawn["its HOG"]}
    return Result(images, data, [_enlarged(each) for each in [*way, made]], caption)


def _grey_start(photo: Tensor, noise: float, seed: int) -> tuple[Tensor, Decode]:
    """Coefficients to begin with, and what makes a grey picture of a photo's size of them."""
    start, decode = start_of(photo, "fourier", noise, seed)
    return start, lambda numbers: luminance(decode(numbers)).expand(-1, 3, -1, -1)


def _covering(picture: Tensor, height: int, width: int) -> Tensor:
    """A picture resized to cover this many pixels, the middle of it."""
    if picture.shape[2:] == (height, width):
        return picture
    scale = max(height / picture.shape[2], width / picture.shape[3])
    high, wide = max(height, round(picture.shape[2] * scale)), max(width, round(picture.shape[3] * scale))
    top, left = (high - height) // 2, (wide - width) // 2
    return resize(picture, (high, wide)).clamp(0, 1)[..., top : top + height, left : left + width].contiguous()


def _drawn(
    photo: Tensor, other: Tensor | None, made: Tensor, wanted: Tensor, found: Tensor, cell: int
) -> dict[str, Image.Image]:
    drawn = {"photo": _enlarged(photo), "its HOG": glyphs(wanted, ZOOM * cell)}
    drawn |= {} if other is None else {"other picture": _enlarged(other)}
    return drawn | {"made": _enlarged(made), "HOG of made": glyphs(found, ZOOM * cell)}


def _enlarged(picture: Tensor) -> Image.Image:
    image = to_image(picture)
    return image.resize((ZOOM * image.width, ZOOM * image.height), Image.Resampling.BICUBIC)
