"""From a class to its object: saliency says where to begin, colours say where it ends."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from impasto.errors import WrongCall, require
from impasto.visualization.answers import answer
from impasto.visualization.colours import luminance
from impasto.visualization.drawing import boxed, heat, overlay, panel, span
from impasto.visualization.gradients import saliency_map
from impasto.visualization.model import Model
from impasto.visualization.regions import bounds, largest_component
from impasto.visualization.registry import Refused, technique
from impasto.visualization.result import Result
from impasto.visualization.scene import to_image
from impasto.visualization.windows import mean_colour

ROUNDS = 5
"""Cuts that GrabCut makes, the first by the colours of the seeds alone."""


@technique("V14", "attribution")
def grabcut(
    model: Model,
    picture: Tensor,
    *,
    target: int | str | None = None,
    foreground: float = 0.95,
    background: float = 0.3,
    smoothing: float = 0.03,
    seeds: Literal["hard", "probable"] = "hard",
    crop: bool = False,
) -> Result:
    """The object of a class, cut out: its saliency seeds GrabCut.

    Seeds of the object are the pixels above one quantile of the smoothed saliency, seeds of the ground those below
    another; the rest is to be decided. The mask is the largest part that hangs together.

    Source: Simonyan et al. 2014, section 3.2; Rother et al. 2004 (OpenCV's). Differs from OpenCV's own start, which
    counts all that is not a seed to the ground: the first colour models are of the seeds alone, as in Simonyan et al.
    Differs from Simonyan et al.: the saliency is smoothed, since single noisy pixels are poor seeds, and after the
    first cut the colour models are fitted again.

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        target: The class: its index, its name or how its name begins; by default the one with the highest logit.
        foreground: Seeds of the object are above this quantile of the saliency.
        background: Seeds of the ground are below this quantile.
        smoothing: Standard deviation of the Gaussian over the saliency as a part of the short side; 0 for none.
        seeds: Those of the object stay in it, or may turn into ground by their colours.
        crop: Also the picture cut to the box.

    Returns:
        A `Result` with the images ``grabcut`` (photo with the box, saliency, seeds, cut-out), ``mask`` (L), ``cutout``
        (RGBA) and perhaps ``crop``. ``data`` has the class, the box in pixels of the picture, the mask's share of the
        picture and of the saliency, and the logit with everything but the object and with only the object hidden.

    Raises:
        Refused: a network without classes; a saliency too flat for seeds; no object found.
        WrongCall: an unknown class; quantiles or a smoothing that cannot be.
        MissingExtra: OpenCV or SciPy is not there.
    """
    if not 0 < background < foreground < 1 or not 0 <= smoothing < 1:
        raise WrongCall(
            f"grabcut: got background {background}, foreground {foreground}, smoothing {smoothing}; expected "
            "0 < background < foreground < 1 and 0 <= smoothing < 1"
        )
    found = answer(model, picture, target)
    values = smoothed(saliency_map(model, picture, found.index), smoothing * min(picture.shape[2:])).cpu()
    sown = seeds_of(values, foreground, background)
    mask = cut(picture, sown, hard=seeds == "hard")
    box = bounds(mask)
    inside = mask.to(picture.device)
    ground = mean_colour(model, picture)
    alone = answer(model, torch.where(inside, picture, ground), found.index)
    without = answer(model, torch.where(inside, ground, picture), found.index)
    data = found.data() | {
        "box": list(box),
        "area": float(mask.double().mean()),
        "saliency_inside": float(values[mask].sum() / values.sum()),
        "seeds_inside": float(mask[sown > 0].double().mean()),
        "logit_of_object": alone.logit,
        "logit_without_object": without.logit,
        "foreground": foreground,
        "background": background,
        "smoothing": smoothing,
        "seeds": seeds,
    }
    images = _images(picture, values, sown, mask, str(found))
    if crop:
        images["crop"] = to_image(picture).crop(box)
    caption = (
        f"The object of {found} by GrabCut: {data['area']:.0%} of the picture, {data['saliency_inside']:.0%} of the "
        f"saliency; logit {found.logit:.3g}, of the object alone {alone.logit:.3g}, without it {without.logit:.3g}"
        + (": the network finds the class outside of it." if without.logit >= alone.logit else ".")
    )
    return Result(images, data, caption=caption)


def smoothed(values: Tensor, deviation: float) -> Tensor:
    """A map (H, W) under a Gaussian of a standard deviation in pixels, cut at three of them; mirrored at the edge."""
    reach = min(round(3 * deviation), min(values.shape) - 1)
    if reach == 0:
        return values
    places = torch.arange(-reach, reach + 1, dtype=values.dtype, device=values.device)
    weights = torch.exp(-places.square() / (2 * deviation**2))
    weights = weights / weights.sum()
    padded = F.pad(values[None, None], (reach,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))[0, 0]


def seeds_of(values: Tensor, foreground: float, background: float) -> Tensor:
    """1 above one quantile of a map (H, W), -1 below another, 0 between.

    Raises:
        Refused: where one of them is empty, or both are the same.
    """
    low, high = (float(torch.quantile(values.double(), part)) for part in (background, foreground))
    seeds = (values > high).int() - (values < low).int()
    if not (seeds > 0).any() or not (seeds < 0).any():
        raise Refused(
            f"grabcut: the saliency ({span(values)}) is too flat to tell seeds of the object from seeds of the ground"
        )
    return seeds


def cut(picture: Tensor, seeds: Tensor, *, hard: bool = True) -> Tensor:
    """GrabCut from seeds, and of what it finds the largest part that hangs together.

    OpenCV draws the first colour models at random: its generator is set to the same state each time.

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        seeds: (H, W): 1 object, -1 ground, 0 to be decided.
        hard: seeds of the object stay in it.

    Returns:
        (H, W), bool.

    Raises:
        Refused: nothing is left of the object.
    """
    cv2 = require("cv2", purpose="the technique grabcut", extra="see")
    pixels: npt.NDArray[Any] = np.ascontiguousarray(np.asarray(to_image(picture))[..., ::-1])
    places = seeds.cpu().numpy()
    mask = np.select([places > 0, places < 0], [cv2.GC_FGD, cv2.GC_BGD], cv2.GC_PR_BGD).astype(np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    cv2.grabCut(pixels[places != 0][None], mask[places != 0][None], None, *models, 0, cv2.GC_INIT_WITH_MASK)
    if not hard:
        mask[places > 0] = cv2.GC_PR_FGD
    cv2.grabCut(pixels, mask, None, *models, 1, cv2.GC_EVAL_FREEZE_MODEL)
    cv2.grabCut(pixels, mask, None, *models, ROUNDS - 1, cv2.GC_EVAL)
    found = largest_component(torch.from_numpy(np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD))))
    if not found.any():
        raise Refused("grabcut: by its colours nothing belongs to an object; use hard seeds")
    return found


def _images(picture: Tensor, values: Tensor, seeds: Tensor, mask: Tensor, name: str) -> dict[str, Image.Image]:
    photo = to_image(picture)
    alpha = Image.fromarray(np.asarray(mask.byte() * 255))
    cutout = photo.copy()
    cutout.putalpha(alpha)
    checks = _checks(photo.size)
    checks.paste(photo, (0, 0), alpha)
    marked = torch.where(seeds[None] > 0, torch.tensor([0.9, 0.2, 0.1]).view(3, 1, 1), luminance(picture)[0].cpu())
    marked = torch.where(seeds[None] < 0, torch.tensor([0.1, 0.2, 0.9]).view(3, 1, 1) * 0.5 + marked * 0.5, marked)
    top = float(values.max())
    shown = {
        "photo": boxed(photo, [bounds(mask)]),
        "saliency, smoothed": overlay(luminance(picture).expand_as(picture), heat(values, 0, top), 0.6),
        "seeds": to_image(marked[None]),
        "cut out": checks,
    }
    notes = {
        "photo": name,
        "saliency, smoothed": f"{span(values)}\nblack 0",
        "seeds": "red: object\nblue: ground",
        "cut out": f"{float(mask.double().mean()):.0%} of the picture",
    }
    return {"grabcut": panel(shown, notes), "mask": alpha, "cutout": cutout}


def _checks(size: tuple[int, int], side: int = 8) -> Image.Image:
    """A chequered ground, as for what is transparent."""
    ground = Image.new("RGB", size, "#ffffff")
    draw = ImageDraw.Draw(ground)
    for left in range(0, size[0], side):
        for top in range(0, size[1], side):
            if (left + top) // side % 2:
                draw.rectangle((left, top, left + side - 1, top + side - 1), fill="#d0d0d0")
    return ground
