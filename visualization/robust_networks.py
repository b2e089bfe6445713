"""A small network that learns digits, as they are or as an attack makes them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impasto.visualization.digits import NAMES, SIDE
from impasto.visualization.model import Model
from impasto.visualization.perturbations import perturbed, random_start
from impasto.visualization.zoo import Preprocessing

BATCH = 100
"""Digits of a step of training."""

RATE = 3e-3
"""Of Adam, at first; it falls to 0 along a cosine."""

Attack = Callable[[Model, Tensor, Tensor], Tensor]
"""The model, pictures (N, 3, 8, 8) in [0, 1] and labels (N,) -> pictures to learn from instead."""


class DigitNetwork(nn.Module):
    """Two convolutions and two linear layers with ReLUs on the mean of the colours: what is grey stays so under attack.

    Args:
        width: channels of the first convolution; the second has twice, the linear layer four times as many.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, padding=1, stride=2)
        self.hidden = nn.Linear(2 * width * (SIDE // 2) ** 2, 4 * width)
        self.classes = nn.Linear(4 * width, len(NAMES))

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits (N, 10) of pictures (N, 3, 8, 8)."""
        x = F.relu(self.second(F.relu(self.first(pictures.mean(1, keepdim=True)))))
        logits: Tensor = self.classes(F.relu(self.hidden(x.flatten(1))))
        return logits


def new_network(seed: int, width: int = 16) -> DigitNetwork:
    """With weights that depend on the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DigitNetwork(width)


def as_model(network: nn.Module) -> Model:
    """A network of digits, looked into; its parameters are frozen."""
    return Model(network, Preprocessing(size=SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)), NAMES)


def trained(
    network: nn.Module,
    pictures: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    attack: Attack | None,
    generator: torch.Generator,
    on_epoch: Callable[[int, Model], None],
) -> Model:
    """Minimise the cross-entropy with Adam, of pictures as they are or as an attack on the network makes them.

    Source: Madry et al. 2018, equation 2.1: the least loss of the worst pictures in a ball.

    Args:
        network: is changed.
        pictures: (N, 3, 8, 8) in [0, 1].
        labels: (N,).
        epochs: passes over the pictures.
        attack: of each batch before each step.
        generator: of the order of the pictures.
        on_epoch: called after each with its number, from 1, and the model so far.

    Returns:
        The network as a model.
    """
    model = as_model(network)
    parameters = list(network.parameters())
    optimizer = torch.optim.Adam(parameters, RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    cuts = list(range(BATCH, len(pictures), BATCH))
    for epoch in range(1, epochs + 1):
        for chosen in torch.randperm(len(pictures), generator=generator).tensor_split(cuts):
            shown = attack(model, pictures[chosen], labels[chosen]) if attack else pictures[chosen]
            network.requires_grad_(True)
            loss = F.cross_entropy(model(shown), labels[chosen])
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter.grad = gradient
            optimizer.step()
            network.requires_grad_(False)
        schedule.step()
        on_epoch(epoch, model)
    return model


def pgd_attack(epsilon: float, steps: int, generator: torch.Generator) -> Attack:
    """Steps of 2.5 epsilon / steps along the gradient's signs from a random start. Source: Madry et al. 2018.

    Args:
        epsilon: the most that a value may change, in steps of an 8-bit picture.
        steps: one or more; the random start is grey.
        generator: of the starts.
    """

    def attack(model: Model, pictures: Tensor, labels: Tensor) -> Tensor:
        grey = random_start(pictures[:, :1], epsilon, generator=generator).expand_as(pictures)
        rate = 2.5 * epsilon / steps
        return perturbed(model, pictures, labels, epsilon=epsilon, rate=rate, steps=steps, start=grey.contiguous())

    return attack


def noise_attack(epsilon: float, generator: torch.Generator) -> Attack:
    """Every grey value changed by epsilon, up or down at random: augmentation with as much noise as an attack has."""

    def attack(model: Model, pictures: Tensor, labels: Tensor) -> Tensor:
        signs = torch.randint(0, 2, pictures[:, :1].shape, generator=generator).to(pictures) * 2 - 1
        return (pictures + epsilon / 255 * signs).clamp(0, 1)

    return attack
