"""Whether a model is the network that paints."""

from __future__ import annotations

import torch
from torch import nn

from impasto.losses import VGGFeatures
from impasto.visualization.model import Model


def vgg_features(model: Model, pooling: str = "max") -> VGGFeatures | None:
    """The features that `impasto paint` looks at, if the model is VGG-19 with the same weights.

    They end with the deepest layer asked for, and what is made of them is what painting makes.

    Args:
        model: any.
        pooling: as of `VGGFeatures`.
    """
    convolutions = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    if not {"conv1_1", "conv5_4"} <= convolutions.keys():
        return None
    vgg = VGGFeatures("vgg19", pooling=pooling).to(model.device)
    known = {name.removesuffix("_weight"): weight for name, weight in vgg.named_buffers() if "_weight" in name}
    same = known.keys() == convolutions.keys() and all(
        torch.equal(weight, convolutions[name].weight) for name, weight in known.items()
    )
    return vgg if same else None
