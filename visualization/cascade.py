"""Networks that forget, from the last layer back: what still looks the same afterwards does not explain the network."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import nn

from impasto.visualization.model import Model


def forgetting(model: Model, seed: int = 0) -> Iterator[tuple[str, Model]]:
    """Copies of a model with ever more layers re-initialised: the last alone, then all after each stage, then all.

    Source: Adebayo et al. 2018, cascading randomization.

    Args:
        model: stays as it is.
        seed: of the new weights.

    Yields:
        The first layer, in the order of running, that is re-initialised, and the model: one copy, changed further by
        the next step.
    """
    forgetful = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    modules = dict(forgetful.named_modules())
    for names in parts(model):
        for name in names:
            reinitialise(modules[name], generator)
        yield names[0], forgetful


def parts(model: Model) -> list[list[str]]:
    """The layers with weights, in the order of running, in the parts in which `forgetting` comes to them."""
    ran = list(dict.fromkeys(name.partition("@")[0] for name in model.layers()))
    stages = [ran.index(stage.partition("@")[0]) for stage in model.stages()]
    found: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            place = ran.index(name) if name in ran else -1
            found.setdefault(sum(stage < place for stage in stages), []).append(name)
    ordered = [sorted(found[key], key=lambda name: ran.index(name) if name in ran else -1) for key in sorted(found)]
    last = ordered[-1].pop()
    return [[last], *(part for part in reversed(ordered) if part)]


@torch.no_grad()
def reinitialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw weights anew, uniformly within 1 / sqrt(inputs of a unit) as torch does; norms do nothing then."""
    weight = getattr(module, "weight", None)
    for name, parameter in module.named_parameters(recurse=False):
        shape = weight.shape if isinstance(weight, torch.Tensor) else parameter.shape
        if len(shape) < 2:
            parameter.fill_(float(name == "weight"))
        else:
            drawn = torch.rand(parameter.shape, generator=generator) * 2 - 1
            parameter.copy_(drawn / math.sqrt(shape[1:].numel()))
    for name, buffer in module.named_buffers(recurse=False):
        if name in ("running_mean", "running_var"):
            buffer.fill_(float(name == "running_var"))
