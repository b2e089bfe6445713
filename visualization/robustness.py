"""How robust a network of digits is, and whether the attack that says so can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from impasto.visualization.judging import rounded
from impasto.visualization.model import Model
from impasto.visualization.perturbations import log_odds, perturbed
from impasto.visualization.robust_networks import noise_attack, pgd_attack

ATTACK_STEPS = 20
"""Steps of the attack that measures."""

SLACK = 0.01
"""By how much of the digits an attack may be weaker than one that should be weaker, before that counts as a sign of
gradients that are hidden."""


@dataclass(frozen=True)
class Arm:
    """A trained network, and what it is measured on.

    Attributes:
        model: the network.
        pictures: (N, 3, 8, 8), digits that it has not seen.
        labels: (N,).
        epsilon: of the attacks, in steps of an 8-bit picture.
        seed: of their starts.
        learning: accuracy under attack after each epoch.
        transfer: accuracy on what fools each network, by its name.
        hidden: what says that gradients mislead the attack.
    """

    model: Model
    pictures: Tensor
    labels: Tensor
    epsilon: float
    seed: int
    learning: list[float]
    transfer: dict[str, float]
    hidden: list[str]

    def attack(self, epsilon: float, steps: int = ATTACK_STEPS) -> Tensor:
        """The digits, attacked by projected gradient descent."""
        generator = torch.Generator().manual_seed(self.seed)
        return pgd_attack(epsilon, steps, generator)(self.model, self.pictures, self.labels)

    @cached_property
    def attacked(self) -> Tensor:
        """The digits, attacked with the epsilon trained with."""
        return self.attack(self.epsilon)

    @torch.no_grad()
    def taken(self, pictures: Tensor) -> Tensor:
        """What each picture is taken for, (N,)."""
        logits: Tensor = self.model(pictures)
        return logits.argmax(1)

    def accuracy(self, pictures: Tensor) -> float:
        """The part that is taken for what it is."""
        return float((self.taken(pictures) == self.labels).double().mean())

    def accuracies(self) -> dict[str, float]:
        """On digits as they are and under each attack."""
        generator = torch.Generator().manual_seed(self.seed)
        noisy = noise_attack(self.epsilon, generator)(self.model, self.pictures, self.labels)
        fgsm = perturbed(self.model, self.pictures, self.labels, epsilon=self.epsilon, rate=self.epsilon, steps=1)
        shown = {
            "clean": self.pictures,
            "random": noisy,
            "fgsm": fgsm,
            "pgd": self.attacked,
            "pgd_8_bits": rounded(self.attacked),
            "pgd_double": self.attack(2 * self.epsilon),
        }
        return {name: self.accuracy(pictures) for name, pictures in shown.items()}

    @cached_property
    def gradients(self) -> Tensor:
        """Of the log-odds of its label with respect to each digit, (N, 8, 8): what would make it more like itself."""
        with torch.enable_grad():
            pictures = self.pictures.detach().requires_grad_()
            (found,) = torch.autograd.grad(log_odds(self.model(pictures), self.labels).sum(), pictures)
        return found.sum(1)

    def data(self) -> dict[str, Any]:
        """For a result's data."""
        return {
            **self.accuracies(),
            "transfer": self.transfer,
            "linf": float((self.attacked - self.pictures).abs().max()) * 255,
            "alignment": alignment(self.pictures, self.gradients),
            "hidden": self.hidden,
        }


def signs_of_hidden_gradients(name: str, accuracies: dict[str, float], transfer: dict[str, float]) -> list[str]:
    """What says that a network is not robust but its gradients mislead: a weaker attack that is the stronger one.

    Source: Athalye et al. 2018, section 3.1.

    Args:
        name: of the network.
        accuracies: under ``fgsm`` and ``pgd``.
        transfer: on what was made for each network, by its name.

    Returns:
        Sentences; none for a network whose gradients can be trusted.
    """
    found = []
    if accuracies["fgsm"] < accuracies["pgd"] - SLACK:
        found.append(f"one step fools more than {ATTACK_STEPS}")
    stronger = [source for source, value in transfer.items() if value < transfer[name] - SLACK]
    return found + [
        f"what was made for the network {source!r} fools more than what was made for it" for source in stronger
    ]


def alignment(pictures: Tensor, gradients: Tensor) -> float:
    """The mean cosine of each grey picture (N, 3, H, W) and its gradient (N, H, W). Source: Etmann et al. 2019."""
    return float(F.cosine_similarity(pictures.mean(1).flatten(1), gradients.flatten(1)).mean())
