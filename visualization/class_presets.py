"""The papers' ways to make a class image, as numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from impasto.losses import Operator, adam, steepest
from impasto.losses.optimize import StepRule
from impasto.visualization import operators
from impasto.visualization.canvas import FourierCanvas, PixelCanvas
from impasto.visualization.model import Model
from impasto.visualization.transforms import Transform, jitter, random_affine

BYTE = 1 / 255
"""What papers that count pixels from 0 to 255 call 1; a rate of theirs is times its square here."""


@dataclass(frozen=True)
class Settings:
    """How a class image is made, in pixel values from 0 to 1; what is 0 is left out.

    Attributes:
        canvas: "pixels" around the network's mean, which decay and clips lead to, or "fourier".
        falloff: the decay of `FourierCanvas`.
        deviation: of the normal noise that it starts from.
        steps: their number.
        rule: "adam", "progress" (rate up to ``rate``, for a logit higher by 2), or the norm of `steepest`.
        rate: of the rule.
        penalty: lambda of lambda |I|^2, I the difference from the mean.
        tv: of the isotropic total variation, a mean per value.
        decay: the part of I that it loses each step.
        blur: standard deviation in pixels.
        blur_every: so many steps.
        small_norm: percentile of the pixels' norm, under which they become the mean.
        small_contribution: likewise of their contribution.
        jitter: pixels each way.
        degrees: turned by up to so many each way.
        scale: larger or smaller by up to this part.
        bounded: kept in [0, 1].
    """

    canvas: str = "pixels"
    falloff: float = 1.0
    deviation: float = 0.0
    steps: int = 100
    rule: str = "none"
    rate: float = 1.0
    penalty: float = 0.0
    tv: float = 0.0
    decay: float = 0.0
    blur: float = 0.0
    blur_every: int = 1
    small_norm: float = 0.0
    small_contribution: float = 0.0
    jitter: int = 0
    degrees: float = 0.0
    scale: float = 0.0
    bounded: bool = True

    def canvas_of(self, model: Model) -> PixelCanvas | FourierCanvas:
        """At the network's size."""
        if self.canvas == "fourier":
            return FourierCanvas(model.size, model.size, self.falloff)
        return PixelCanvas(model.size, model.size, model.mean)

    def step_rule(self) -> StepRule:
        """For the loop."""
        if self.rule == "adam":
            return adam(self.rate)
        return operators.progress(PROGRESS, self.rate) if self.rule == "progress" else steepest(self.rate, self.rule)

    def operators(self) -> list[Operator]:
        """In the order of the deep visualization toolbox."""
        made: list[Operator] = []
        made += [operators.decay(self.decay)] if self.decay else []
        made += [operators.blur(self.blur, self.blur_every)] if self.blur else []
        made += [operators.clip_small_norm(self.small_norm)] if self.small_norm else []
        made += [operators.clip_small_contribution(self.small_contribution)] if self.small_contribution else []
        return made

    def transforms(self, generator: torch.Generator) -> list[Transform]:
        """Jitter, a turn with a change of scale, and half of the jitter again, as lucid has them; or jitter alone."""
        if not (self.degrees or self.scale):
            return [jitter(self.jitter, generator)]
        turned = random_affine(self.degrees, self.scale, generator)
        return [jitter(self.jitter, generator), turned, jitter(self.jitter // 2, generator)]


PROGRESS = 2.0
"""By how much a step of the rule "progress" is to raise the logit (Yosinski et al. 2015)."""

_CS231N = 0.226
"""The standard deviation of ImageNet's pixels, by which that course divides them: its numbers are in units of it."""

_YOSINSKI = Settings(deviation=10 * BYTE, rate=100 * BYTE**2)

PRESETS = {
    "modern": Settings(
        canvas="fourier",
        falloff=1.5,
        deviation=0.01,
        steps=96,
        rule="adam",
        rate=0.01,
        tv=50.0,
        jitter=16,
        degrees=15,
        scale=0.2,
    ),
    "simonyan": Settings(steps=100, rule="l2", rate=0.01, penalty=0.005, bounded=False),
    "cs231n": Settings(
        deviation=_CS231N,
        steps=100,
        rate=25 * _CS231N**2,
        penalty=1e-3 / _CS231N**2,
        blur=0.5,
        blur_every=10,
        jitter=16,
    ),
    "yosinski1": replace(_YOSINSKI, steps=500, rule="progress", blur=0.5, blur_every=4, small_norm=50),
    "yosinski2": replace(_YOSINSKI, steps=750, decay=0.3, small_norm=20),
    "yosinski3": replace(_YOSINSKI, steps=1000, decay=1e-4, blur=1.0, blur_every=4),
    "yosinski4": replace(_YOSINSKI, steps=1000, rule="progress", blur=0.5, blur_every=4, small_contribution=90),
    "none": Settings(deviation=10 * BYTE, steps=80, rule="l1", rate=0.009),
}
"""modern: as Olah et al. 2017, with wider transforms, fewer steps and a penalty on roughness. simonyan: Simonyan et al.
2014, section 2, from the mean; lambda and the steps are not in the paper. cs231n: Stanford's exercise. yosinski1 to 4:
Yosinski et al. 2015, table 1, one row each (3 is that of most of its figures). none: steepest steps, nothing else."""

ABLATION = {
    "none": PRESETS["none"],
    "jitter": replace(PRESETS["none"], jitter=16),
    "decay, blur": replace(PRESETS["none"], jitter=16, decay=0.02, blur=1.0, blur_every=4),
    "modern": PRESETS["modern"],
}
"""What a regulariser brings: nothing, jitter, jitter with decay and blur, everything."""
