"""Why it is so easy to fool a network, shown on a linear classifier, where all of it can be written down."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from impasto.errors import WrongCall
from impasto.sheets import sheet
from impasto.visualization.digits import SIDE, load_digits
from impasto.visualization.drawing import signed_map, span
from impasto.visualization.judging import rounded
from impasto.visualization.margins import Linear, Margins, least_changes, softmax_regression
from impasto.visualization.model import Model
from impasto.visualization.plots import plot
from impasto.visualization.registry import technique
from impasto.visualization.result import Result
from impasto.visualization.scene import to_image
from impasto.visualization.tables import table

TOY_X = (2.0, -1.0, 3.0, -2.0, 2.0, 2.0, 1.0, -4.0, 5.0, 1.0)
TOY_W = (-1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0, 1.0)
TOY_STEP = 0.5
"""The lectures' example: a vector of ten numbers, a classifier, and how much each number is changed."""

SIZES = (10, 100, 1_000, 10_000, 150_528)
"""Numbers of values for which changes are added up: the last is that of 224 x 224 RGB."""

DRAWS = 64
"""Random changes for each of `SIZES`."""

CONTRAST = 0.5
"""The digits are drawn from 1/4 to 3/4, so that no change that is shown leaves [0, 1] and nothing is ever clipped."""

LIMIT = 0.125
"""Change of a value that is drawn in full colour."""

TILE = 96
"""Pixels of a digit's side in the pictures."""


@technique("V42", "fooling")
def linear_toy(
    model: Model,
    *,
    weak: float = 1e-5,
    strong: float = 1e-2,
    epsilon: float = 1.0,
    examples: int = 10,
    overshoot: float = 1.1,
    seed: int = 0,
) -> Result:
    """Why fooling is easy, on linear classifiers: many small changes that all push the same way add up.

    Three demonstrations. Ten numbers, each changed by 1/2, turn a probability of 0.05 into 0.88. A change of epsilon
    along the signs of d weights of 1 moves a score by epsilon d, one with random signs only by about epsilon times the
    square root of d. And softmax regression on digits, whose weights are pictures (templates): the least change that
    turns a digit from y into t is (s_y - s_t) / ||w_t - w_y||_1 in every value; the shortest is a bit of the template
    of t less that of y. Templates are noisy where the weights were hardly held down (weak), and less so, and harder to
    fool, where they were (strong).

    Source: Goodfellow et al. 2015, section 3; Stanford's CS231n, lecture 9. The model is not used: the digits are
    scikit-learn's, at half contrast, so that no change is clipped.

    Args:
        weak: Weight decay of the first classifier of digits.
        strong: Of the second.
        epsilon: Of the changes that are added up, in steps of an 8-bit picture.
        examples: Digits that are fooled on the page.
        overshoot: How much more than the least change is shown, as a multiple of it.
        seed: Of the random changes.

    Returns:
        A `Result` with the images ``toy``, ``sums`` (the growth with d), ``templates`` and ``fooled``. ``data`` has the
        ``toy``'s numbers; the ``sums`` and the exponents of their growth (1 and 1/2); and of each classifier its
        accuracies, the `roughness` of its templates, and for the least changes in every value (``linf``) and in length
        (``l2``) the median and the part of the digits that flip at 0.99 and at 1.01 times it, at ``overshoot`` times it
        as pictures of 8 bits, and under random signs of that size.

    Raises:
        WrongCall: a decay of 0 or less, no example, an overshoot of 1 or less.
    """
    if examples < 1 or overshoot <= 1 or not epsilon > 0:
        raise WrongCall(
            f"linear toy: got {examples} examples, overshoot {overshoot} and epsilon {epsilon}; expected 1 example or "
            "more, an overshoot above 1, an epsilon above 0"
        )
    toy, sums = toy_numbers(), sums_of(epsilon / 255, seed)
    trained = {"weak": _Trained.on_digits(weak), "strong": _Trained.on_digits(strong)}
    facts = {name: each.data(overshoot, seed) for name, each in trained.items()}
    curves = {
        title: [(math.log10(d), math.log10(value)) for d, value in sums[name]]
        for title, name in {"along the signs of the weights": "signs", "along random signs": "random"}.items()
    }
    images = {
        "toy": _toy_image(toy),
        "sums": plot(curves, x="log10 of the number of values d", y="log10 shift"),
        "templates": _templates_image(trained, facts),
        "fooled": _fooled_image(trained["weak"], examples, overshoot),
    }
    found, held = facts["weak"]["linf"], facts["strong"]["linf"]
    caption = (
        f"Ten changes of {TOY_STEP} add up: p {toy['probability']:.4f} becomes {toy['probability_after']:.4f}. Of the "
        f"digits {found['flipped_below']:.0%} flip at 0.99 times the least change that the margin allows, "
        f"{found['flipped_above']:.0%} at 1.01 times it; its median is {found['median'] * 255:.1f}/255, with strong "
        f"decay {held['median'] * 255:.1f}/255; as much with random signs flips {found['random']:.1%}."
    )
    return Result(images, {"toy": toy, "sums": sums, "digits": facts, "seed": seed}, caption=caption)


def toy_numbers() -> dict[str, Any]:
    """The lectures' example, x . w = -3, and what adding `TOY_STEP` times the signs of w makes of it."""
    x, w = (torch.tensor(values, dtype=torch.float64) for values in (TOY_X, TOY_W))
    changed = x + TOY_STEP * w.sign()
    before, after = x @ w, changed @ w
    return {
        "x": x.tolist(),
        "w": w.tolist(),
        "changed": changed.tolist(),
        "score": float(before),
        "score_after": float(after),
        "probability": float(before.sigmoid()),
        "probability_after": float(after.sigmoid()),
    }


def sums_of(epsilon: float, seed: int) -> dict[str, Any]:
    """How far a change of epsilon in each of d values moves a score with weights of 1 and -1, for each of `SIZES`.

    Returns:
        ``signs`` and ``random``: pairs of d and the shift, along the weights' signs and the mean magnitude under random
        signs; ``signs_exponent`` and ``random_exponent``: of its growth with d, by least squares in logarithms.
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Any] = {"epsilon": epsilon, "signs": [], "random": []}
    for size in SIZES:
        weights = _signs(1, size, generator)[0]
        shifts = _signs(DRAWS, size, generator) @ weights * epsilon
        found["signs"].append((size, float(weights @ weights.sign() * epsilon)))
        found["random"].append((size, float(shifts.abs().mean())))
    for name in ("signs", "random"):
        found[f"{name}_exponent"] = _slope([(math.log(d), math.log(value)) for d, value in found[name]])
    return found


def _signs(count: int, size: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, (count, size), generator=generator).float() * 2 - 1


def _slope(points: list[tuple[float, float]]) -> float:
    x, y = torch.tensor(points, dtype=torch.float64).T
    x = x - x.mean()
    return float(x @ y / (x @ x))


@dataclass(frozen=True)
class _Trained:
    """A classifier of digits, the digits that it is measured on, and the least changes of these."""

    classifier: Linear
    decay: float
    accuracy: float
    x: Tensor
    labels: Tensor
    margins: dict[str, Margins]

    @classmethod
    def on_digits(cls, decay: float) -> _Trained:
        digits = load_digits()
        x, test = (
            (0.5 + CONTRAST * (images - 0.5)).double().flatten(1) for images in (digits.images, digits.test_images)
        )
        classifier = softmax_regression(x, digits.labels, decay)
        margins = {norm: least_changes(classifier, test, norm) for norm in ("linf", "l2")}
        return cls(classifier, decay, classifier.accuracy(x, digits.labels), test, digits.test_labels, margins)

    @property
    def taken(self) -> Tensor:
        """What each digit is taken for."""
        return self.margins["linf"].taken

    def changed(self, norm: str, multiple: float) -> Tensor:
        """The digits (N, 64), each changed by a multiple of its least change."""
        found = self.margins[norm]
        return self.x + multiple * found.size[:, None] * found.change

    def flipped(self, x: Tensor) -> float:
        """The part of the digits that is no longer taken for what it was."""
        return float((self.classifier.scores(x).argmax(1) != self.taken).double().mean())

    def data(self, overshoot: float, seed: int) -> dict[str, Any]:
        """Measured on all digits but those learned from."""
        signs = _signs(len(self.x), SIDE**2, torch.Generator().manual_seed(seed)).double()
        found: dict[str, Any] = {
            "decay": self.decay,
            "accuracy": self.accuracy,
            "test_accuracy": self.classifier.accuracy(self.x, self.labels),
            "roughness": roughness(self.classifier.weights),
        }
        for norm, margins in self.margins.items():
            unit = signs if norm == "linf" else signs / SIDE
            found[norm] = {
                "median": float(margins.size.median()),
                "flipped_below": self.flipped(self.changed(norm, 0.99)),
                "flipped_above": self.flipped(self.changed(norm, 1.01)),
                "flipped_8_bits": self.flipped(rounded(self.changed(norm, overshoot))),
                "random": self.flipped(self.x + overshoot * margins.size[:, None] * unit),
            }
        return found


def roughness(templates: Tensor) -> float:
    """The mean squared difference of neighbours in templates (K, 64), as a part of what it is for white noise."""
    maps = templates.view(-1, SIDE, SIDE) - templates.mean()
    steps = [(maps[:, 1:] - maps[:, :-1]), (maps[:, :, 1:] - maps[:, :, :-1])]
    return float(torch.cat([step.flatten() for step in steps]).square().mean() / (2 * maps.square().mean()))


def _toy_image(toy: dict[str, Any]) -> Image.Image:
    """The numbers in coloured cells, as the slides have them."""
    changed = f"x + {TOY_STEP} sign(w)"
    rows = {"x": toy["x"], "w": toy["w"], changed: toy["changed"]}
    return table(
        {name: [f"{value:g}" for value in values] for name, values in rows.items()},
        {name: signed_map(torch.tensor([values]), limit=6.0) for name, values in rows.items()},
        notes={
            "x": f"w.x = {toy['score']:g}, p = {toy['probability']:.4f}",
            changed: f"w.x = {toy['score_after']:g}, p = {toy['probability_after']:.4f}",
        },
    )


def _map(values: Tensor, limit: float | None = None) -> Image.Image:
    return signed_map(values.view(SIDE, SIDE), limit).resize((TILE, TILE), Image.Resampling.NEAREST)


def _digit(values: Tensor) -> Image.Image:
    picture = F.interpolate(values.float().view(1, 1, SIDE, SIDE), (TILE, TILE))
    return to_image(picture.expand(-1, 3, -1, -1))


def _templates_image(trained: dict[str, _Trained], facts: dict[str, dict[str, Any]]) -> Image.Image:
    rows, labels, captions = [], [], []
    for name, each in trained.items():
        weights = each.classifier.weights
        rows.append([_map(template) for template in weights])
        labels.append([f"{number}\n{span(template)}" for number, template in enumerate(weights)])
        captions.append(
            f"{name} decay ({each.decay:g}): {facts[name]['test_accuracy']:.0%} right; "
            f"half of the digits can be flipped by {facts[name]['linf']['median'] * 255:.1f}/255 or less in every value"
        )
    return sheet(rows, labels=labels, captions=captions)


def _fooled_image(trained: _Trained, examples: int, overshoot: float) -> Image.Image:
    """A digit of each label in turn that is taken for what it is; its least changes; and what they make of it."""
    right = trained.taken == trained.labels
    chosen = [int(((trained.labels == number % 10) & right).nonzero()[number // 10]) for number in range(examples)]
    rows = [[_digit(trained.x[index]) for index in chosen]]
    labels = [[f"taken for {int(trained.taken[index])}" for index in chosen]]
    captions = ["digits"]
    for norm, title in {
        "linf": "the least change in every value: signs of one template less another",
        "l2": "the shortest change: a bit of one template less another",
    }.items():
        changed = rounded(trained.changed(norm, overshoot))
        taken = trained.classifier.scores(changed).argmax(1)
        changes = changed - trained.x
        rows += [[_map(changes[index], LIMIT) for index in chosen], [_digit(changed[index]) for index in chosen]]
        sizes = [float(changes[index].norm(p=math.inf if norm == "linf" else 2)) for index in chosen]
        words = "{:.1f}/255" if norm == "linf" else "length {:.1f}/255"
        labels += [[words.format(size * 255) for size in sizes], [f"taken for {int(taken[index])}" for index in chosen]]
        captions += [f"{title} (full colour at {LIMIT})", "digit and change, rounded to 8 bits"]
    return sheet(rows, labels=labels, captions=captions)
