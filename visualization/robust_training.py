"""What becomes of a network that learns from the pictures that fool it, and what still fools it then."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from impasto.errors import WrongCall
from impasto.sheets import sheet
from impasto.visualization.digits import load_digits
from impasto.visualization.drawing import heat, signed_map, span
from impasto.visualization.judging import rounded
from impasto.visualization.model import Model
from impasto.visualization.plots import plot
from impasto.visualization.progress import tell
from impasto.visualization.registry import technique
from impasto.visualization.result import Result
from impasto.visualization.robust_networks import Attack, new_network, noise_attack, pgd_attack, trained
from impasto.visualization.robustness import ATTACK_STEPS, Arm, alignment, signs_of_hidden_gradients
from impasto.visualization.scene import to_image
from impasto.visualization.tables import table

CURVE = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""Epsilons of the curves as multiples of the one trained with."""

TILE = 96
"""Pixels of a digit's side in the pictures."""


@technique("V43", "fooling")
def adversarial_training(
    model: Model,
    *,
    epsilon: float = 48.0,
    steps: int = 7,
    epochs: int = 20,
    width: int = 16,
    examples: int = 10,
    seed: int = 0,
) -> Result:
    """A small network trained on digits, on noisy digits and on adversarial ones, and each attacked again.

    Learning from attacked digits makes attacks of that size much less likely to succeed, at a small cost in digits as
    they are, and gives gradients in which digits are to be seen; noise as large does hardly anything. Larger changes
    fool that network, too: one can always find new ones.

    Source: Madry et al. 2018 (training, and the attack by projected gradient descent, here 20 steps from a random
    start); Tsipras et al. 2019 (gradients); Athalye et al. 2018 (signs of hidden gradients). The model is not used: the
    digits are scikit-learn's, and what is measured is measured on those of other writers.

    Args:
        epsilon: The most that a value may change, in steps of an 8-bit picture.
        steps: Of the attack in training.
        epochs: Passes over the digits in training.
        width: Channels of the network's first layer.
        examples: Digits on the pages.
        seed: Of weights, order and starts of attacks.

    Returns:
        A `Result` with the images ``accuracies`` (a table), ``robustness`` (the part that is mistaken under attack, by
        epsilon), ``training`` (the part that is right under attack, by epoch), ``attacked`` (digits and what each
        network takes them for) and ``gradients``. ``data`` has for each of ``standard``, ``noise`` and ``adversarial``
        its accuracies on digits as they are (``clean``), with random signs, under ``fgsm``, ``pgd``, the same rounded
        to 8 bits (``pgd_8_bits``), at twice the epsilon (``pgd_double``), and on what fools each network (``transfer``,
        by the one that it was made for); the ``linf`` of its attack; ``alignment``, the mean cosine of digit and
        gradient; and ``hidden``: what says that its gradients mislead the attack, which should be nothing.

    Raises:
        WrongCall: numbers that cannot be.
    """
    if min(steps, epochs, width, examples) < 1 or not 0 < epsilon <= 127:
        raise WrongCall(
            f"adversarial training: got {steps} steps, {epochs} epochs, width {width}, {examples} examples and epsilon "
            f"{epsilon}; expected 1 or more of each, and an epsilon above 0 and up to 127"
        )
    arms = _arms(epsilon, steps, epochs, width, seed)
    for name, arm in arms.items():
        arm.transfer.update({source: arm.accuracy(other.attacked) for source, other in arms.items()})
        arm.hidden.extend(signs_of_hidden_gradients(name, arm.accuracies(), arm.transfer))
    curves = {
        name: [(0.0, 1 - arm.accuracy(arm.pictures))]
        + [(multiple * epsilon, 1 - arm.accuracy(arm.attack(multiple * epsilon))) for multiple in CURVE]
        for name, arm in arms.items()
    }
    learning = {name: list(enumerate(arm.learning, start=1)) for name, arm in arms.items()}
    images = {
        "accuracies": _table(arms, epsilon),
        "robustness": plot(curves, x="epsilon in steps of 1/255", y="mistaken"),
        "training": plot(learning, x="epoch (the part that is right under attack)", y="right"),
        "attacked": _attacked(arms, examples, epsilon),
        "gradients": _gradients(arms, examples),
    }
    data: dict[str, Any] = {name: arm.data() for name, arm in arms.items()}
    caption = _caption(data, epsilon)
    data |= {"epsilon": epsilon, "steps": steps, "epochs": epochs, "width": width, "seed": seed}
    return Result(images, data | {"curves": curves, "learning": learning}, caption=caption)


def _arms(epsilon: float, steps: int, epochs: int, width: int, seed: int) -> dict[str, Arm]:
    """The three networks, from the same weights and in the same order of digits."""
    digits = load_digits()
    pictures, test = (images.expand(-1, 3, -1, -1).contiguous() for images in (digits.images, digits.test_images))
    arms = {}
    for number, name in enumerate(("standard", "noise", "adversarial")):
        starts = torch.Generator().manual_seed(seed + 1)
        attack: Attack | None = {
            "standard": None,
            "noise": noise_attack(epsilon, starts),
            "adversarial": pgd_attack(epsilon, steps, starts),
        }[name]
        learning: list[float] = []

        def look(epoch: int, model: Model, done: int = number * epochs, learning: list[float] = learning) -> None:
            arm = Arm(model, test, digits.test_labels, epsilon, seed, [], {}, [])
            learning.append(arm.accuracy(arm.attack(epsilon, steps)))
            tell(done + epoch, 3 * epochs, "epochs")

        order = torch.Generator().manual_seed(seed)
        network = new_network(seed, width)
        found = trained(network, pictures, digits.labels, epochs=epochs, attack=attack, generator=order, on_epoch=look)
        arms[name] = Arm(found, test, digits.test_labels, epsilon, seed, learning, {}, [])
    return arms


def _table(arms: dict[str, Arm], epsilon: float) -> Image.Image:
    titles = {
        "clean": "as they are",
        "random": "random signs",
        "fgsm": "FGSM",
        "pgd": f"PGD-{ATTACK_STEPS}",
        "pgd_8_bits": "in 8 bits",
        "pgd_double": "twice as large",
    }
    values = {
        name: [*arm.accuracies().values(), arm.transfer["standard"], arm.transfer["adversarial"]]
        for name, arm in arms.items()
    }
    columns = [*titles.values(), "made for standard", "for adversarial"]
    colours = {name: heat(torch.tensor([row]) * 0.6 + 0.25, 0, 1) for name, row in values.items()}
    rows = {name: [f"{value:.1%}" for value in row] for name, row in values.items()}
    return table(rows, colours, columns=columns)


def _digit(values: Tensor) -> Image.Image:
    return to_image(F.interpolate(values[None], (TILE, TILE)))


def _chosen(labels: Tensor, examples: int) -> list[int]:
    """A digit of each label in turn."""
    return [int((labels == number % 10).nonzero()[number // 10]) for number in range(examples)]


def _attacked(arms: dict[str, Arm], examples: int, epsilon: float) -> Image.Image:
    first = next(iter(arms.values()))
    chosen = _chosen(first.labels, examples)
    rows = [[_digit(first.pictures[index]) for index in chosen]]
    labels = [[f"a {int(first.labels[index])}" for index in chosen]]
    captions = ["digits"]
    for name, arm in arms.items():
        for multiple in (1, 2) if name == "adversarial" else (1,):
            pictures = rounded(arm.attack(multiple * epsilon))
            taken = arm.taken(pictures)
            rows.append([_digit(pictures[index]) for index in chosen])
            labels.append([f"taken for {int(taken[index])}" for index in chosen])
            captions.append(f"attacked by up to {multiple * epsilon:g}/255: {name} training")
    return sheet(rows, labels=labels, captions=captions)


def _gradients(arms: dict[str, Arm], examples: int) -> Image.Image:
    first = next(iter(arms.values()))
    chosen = _chosen(first.labels, examples)
    rows = [[_digit(first.pictures[index]) for index in chosen]]
    labels = [[f"a {int(first.labels[index])}" for index in chosen]]
    captions = ["digits"]
    for name, arm in arms.items():
        maps = arm.gradients
        drawn = [signed_map(maps[index]).resize((TILE, TILE), Image.Resampling.NEAREST) for index in chosen]
        rows.append(drawn)
        labels.append([span(maps[index]) for index in chosen])
        cosine = alignment(arm.pictures, maps)
        captions.append(f"gradient of the label's log-odds: {name} training; mean cosine with the digit {cosine:.2f}")
    return sheet(rows, labels=labels, captions=captions)


def _caption(data: dict[str, Any], epsilon: float) -> str:
    under, twice, clean, shown = (
        [f"{data[name][key]:.1%}" for name in ("standard", "noise", "adversarial")]
        for key in ("pgd", "pgd_double", "clean", "pgd_8_bits")
    )
    hidden = [sign for arm in data.values() for sign in arm["hidden"]]
    signs = f"Gradients may mislead the attack: {'; '.join(hidden)}." if hidden else "No sign of hidden gradients."
    return (
        f"Right under attack by {epsilon:g}/255: {under[0]} after standard, {under[1]} after noisy, {under[2]} after "
        f"adversarial training ({shown[2]} in 8 bits), by twice that {twice[2]}; without attack {clean[0]}, {clean[1]} "
        f"and {clean[2]}. {signs}"
    )
