"""What runs in a network, and how it ends, seen from one pass."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Head(NamedTuple):
    """Layers of a network that ends in global average pooling and one linear layer.

    Attributes:
        features: the layer whose maps are pooled, as `impasto.losses.capture` reads names.
        linear: the linear layer that turns their means into logits.
    """

    features: str
    linear: str


class Probe(NamedTuple):
    """What ran on one picture of the network's size.

    Attributes:
        shapes: of each layer's output without the batch, in the order the layers finished.
        head: how the network ends, if it is global average pooling and a linear layer.
    """

    shapes: dict[str, torch.Size]
    head: Head | None


@torch.no_grad()
def probed(model: nn.Module, size: int, device: torch.device) -> Probe:
    """Run a network on one picture of noise, (1, 3, size, size), and look at every module."""
    shapes: dict[str, torch.Size] = {}
    means: dict[str, Tensor] = {}
    linear: list[tuple[str, Tensor, Tensor]] = []
    calls: Counter[str] = Counter()
    modules = dict(model.named_modules())

    def look(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        calls[name] += 1
        address = f"{name}@{calls[name]}" if calls[name] > 1 else name
        if not isinstance(output, Tensor):
            return
        shapes[address] = output.shape[1:]
        if output.ndim == 4 and output[0, 0].numel() > 1:
            means[address] = output.mean((2, 3))
        if isinstance(module, nn.AdaptiveAvgPool2d) and inputs[0].ndim == 4:
            means[f"{address}:in"] = inputs[0].mean((2, 3))
        if isinstance(module, nn.Linear):
            linear.append((address, inputs[0].clone(), output.clone()))

    with ExitStack() as hooks:
        for name, module in modules.items():
            if name:
                hooks.callback(module.register_forward_hook(partial(look, name)).remove)
        noise = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        logits = model(noise.to(device))
    return Probe(shapes, _head(logits, linear, means))


def _head(logits: Tensor, linear: list[tuple[str, Tensor, Tensor]], means: dict[str, Tensor]) -> Head | None:
    """The last linear layer, if it gives the logits and takes the means of some layer's maps."""
    if not linear or not torch.equal(linear[-1][2], logits):
        return None
    name, taken, _ = linear[-1]
    pooled = [
        address
        for address, mean in means.items()
        if mean.shape == taken.shape and taken.any() and torch.allclose(mean, taken, rtol=1e-4, atol=1e-6)
    ]
    entries = [address for address in pooled if address.endswith(":in")]
    return Head((entries or pooled)[-1], name) if pooled else None
