"""The maps whose means are a network's logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from impasto.losses import capture
from impasto.visualization.answers import logits_and_maps
from impasto.visualization.model import Model
from impasto.visualization.registry import Refused


@dataclass(frozen=True)
class ClassMaps:
    """The maps M of all classes of one picture: the logit is a class's mean of M, plus its bias.

    Attributes:
        layer: whose maps are weighed, or are the classes' own.
        maps: (K, h, w).
        biases: (K,).
        logits: (K,), what the network itself gives.
        rectified: the mean is of max(M, 0): a ReLU follows the classes' own maps.
    """

    layer: str
    maps: Tensor
    biases: Tensor
    logits: Tensor
    rectified: bool = False

    def errors(self) -> Tensor:
        """|mean of M + bias - logit| of each class, (K,)."""
        maps = self.maps.clamp(min=0) if self.rectified else self.maps
        return (maps.double().mean((1, 2)) + self.biases.double() - self.logits.double()).abs()


@torch.no_grad()
def class_maps(model: Model, picture: Tensor) -> ClassMaps:
    """The maps of all classes.

    Args:
        model: a classifier.
        picture: (1, 3, H, W), float RGB in [0, 1].

    Raises:
        Refused: a network that ends neither in global average pooling and a linear layer, nor in the mean of a map for
            each class.
    """
    head = model.head
    if head is None:
        return _own_maps(model, picture)
    logits, maps = logits_and_maps(model, picture, head.features)
    linear = dict(model.named_modules())[head.linear.partition("@")[0]]
    weight, bias = linear.get_parameter("weight"), dict(linear.named_parameters()).get("bias")
    biases = torch.zeros_like(logits[0]) if bias is None else bias
    return ClassMaps(head.features, torch.einsum("kc,chw->khw", weight, maps[0]), biases, logits[0])


def _own_maps(model: Model, picture: Tensor) -> ClassMaps:
    """Of a network that has a map for each class and takes their means, as SqueezeNet; a ReLU may lie between."""
    logits = model(picture)
    shapes = model.layers()
    names = [name for name, shape in shapes.items() if len(shape) == 3 and shape[:1] == logits.shape[1:]]
    for name, maps in (capture(model, names)(picture) if names and logits.ndim == 2 else {}).items():
        for rectified in (False, True):
            found = ClassMaps(name, maps[0], torch.zeros_like(logits[0]), logits[0], rectified)
            if found.errors().max() <= 1e-4 * logits.abs().max():
                return found
    raise Refused(
        "cam: this network does not end in global average pooling and one linear layer, nor in a map for each class; "
        "its logits are no means of maps: use gradcam"
    )
