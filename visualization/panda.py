"""The picture of an attack, laid out as the panda of Goodfellow et al. 2015: original + perturbation = adversarial."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from impasto.sheets import sheet
from impasto.visualization.drawing import GREY, signed_rgb
from impasto.visualization.outcomes import Outcome, size_of
from impasto.visualization.result import Result
from impasto.visualization.scene import to_image

FULL = 0.995
"""The quantile of a perturbation's magnitudes that is drawn full."""

SIGN = 28
"""Width in pixels of the plus and of the equals sign."""


def attack_result(
    name: str,
    found: Outcome,
    data: dict[str, Any],
    *,
    first: str = "photo",
    images: Mapping[str, Image.Image] | None = None,
) -> Result:
    """What a technique of this family returns.

    Args:
        name: the technique's, and the main picture's.
        found: what came of the attack.
        data: beside the outcome's own.
        first: what the original is called.
        images: more of them, by name.

    Returns:
        A `Result` with the images ``name`` (`panda`), ``adversarial`` (the picture that ``after_png`` speaks of) and
        ``perturbation``, as it is drawn; ``data`` has the outcome's, ``drawn_times`` and what was given.
    """
    drawn, times = drawn_change(found.change)
    shown = {name: panda(found, first=first), "adversarial": to_image(found.adversarial), "perturbation": drawn}
    return Result(shown | dict(images or {}), found.data() | {"drawn_times": times} | data, caption=found.caption())


def panda(found: Outcome, *, first: str = "photo") -> Image.Image:
    """Original, perturbation and adversarial picture in a row, with what the network says of each beneath them."""
    drawn, times = drawn_change(found.change)
    height, change = drawn.height, found.change
    tiles = [to_image(found.original), _sign("+", height), drawn, _sign("=", height), to_image(found.adversarial)]
    file = "the same" if found.after_png.index == found.after.index else found.after_png.name
    judges = (
        [f"\njudge: {each.top[0]}" for each in (found.judged.before, found.judged.after)] if found.judged else ["", ""]
    )
    texts = [
        f"{first}\n{found.before}{judges[0]}",
        "",
        f"perturbation x {times:.3g}\nlargest {size_of(change, 'linf'):.3g}/255, rms {size_of(change, 'l2'):.2g}/255\n"
        f"random signs do it {found.control}",
        "",
        f"adversarial\n{found.after}\nPNG: {file} (p {found.after_png.probability:.3g}){judges[1]}",
    ]
    return sheet([tiles], labels=[texts])


def drawn_change(change: Tensor) -> tuple[Image.Image, float]:
    """A perturbation around mid-grey, which is 0, and how many times enlarged: so that 99.5 % of its values fit."""
    magnitudes = change.detach().abs().flatten()
    limit = float(magnitudes.kthvalue(math.ceil(FULL * len(magnitudes)))[0]) or float(magnitudes.max()) or 1.0
    return signed_rgb(change, limit), (GREY - 1) / 255 / limit


def _sign(text: str, height: int) -> Image.Image:
    """A plus or an equals sign at half the height of the pictures beside it."""
    image = Image.new("RGB", (SIGN, height), "white")
    font = ImageFont.load_default(size=SIGN)
    ImageDraw.Draw(image).text((SIGN / 2, height / 2), text, fill="black", font=font, anchor="mm")
    return image
