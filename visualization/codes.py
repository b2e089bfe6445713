"""What a network and the pixels say of many pictures: a vector for each, to be compared."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from impasto.errors import WrongCall
from impasto.losses import capture
from impasto.visualization.answers import last_maps
from impasto.visualization.inputs import Pictures
from impasto.visualization.model import Model
from impasto.visualization.progress import track
from impasto.visualization.registry import Refused
from impasto.visualization.remembering import kept_in

PIXELS = 32
"""Height and width of the small pictures that are compared pixel by pixel."""


@dataclass(frozen=True)
class Codes:
    """What is known of N pictures, all of it as the network reads them, on the CPU.

    Attributes:
        features: (N, D), float32, a layer's answers.
        pixels: (N, 3, 32, 32), float32 RGB in [0, 1], means of areas.
        digests: (N,), int64, equal for pictures that are equal in every pixel.
    """

    features: Tensor
    pixels: Tensor
    digests: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def vectors(self, distance: str) -> Tensor:
        """What is compared by L2, (N, D), float64.

        Args:
            distance: "cosine", features of length 1 (L2 squared is then twice 1 - cos); "l2", features as they are;
                "pixels".
        """
        if distance == "pixels":
            return self.pixels.flatten(1).double()
        features = self.features.double()
        return nn.functional.normalize(features) if distance == "cosine" else features


@torch.no_grad()
def encode(model: Model, images: Tensor, layer: str) -> Codes:
    """The codes of pictures.

    Args:
        model: the network.
        images: (N, 3, H, W), float RGB in [0, 1].
        layer: as `impasto.losses.capture` reads it; of maps (N, C, h, w) the mean over places is taken.

    Raises:
        Refused: a layer of another shape, or answers that are no finite numbers.
        WrongCall: an unknown layer.
    """
    found = capture(model, [layer])(images)[layer]
    if found.ndim not in (2, 4):
        raise Refused(f"the layer {layer} gives shape {tuple(found.shape)}, expected (N, C, h, w) or (N, C)")
    features = (found.mean((2, 3)) if found.ndim == 4 else found).float().cpu()
    if not features.isfinite().all():
        raise Refused(f"the layer {layer} gives numbers that are not finite, so that nothing is near or far")
    pixels = nn.functional.interpolate(images.float(), (PIXELS, PIXELS), mode="area").cpu()
    digests = [hashlib.sha256(image.cpu().contiguous().numpy().tobytes()).digest() for image in images]
    numbers = [int.from_bytes(digest[:8], "little", signed=True) for digest in digests]
    return Codes(features, pixels, torch.tensor(numbers))


def read_codes(model: Model, pictures: Pictures, layer: str, *, cache: str = "", batch: int = 32) -> Codes:
    """The codes of photos, read a few at a time.

    Args:
        model: reads the photos.
        pictures: at least one.
        layer: as of `encode`.
        cache: a folder that remembers them, for the same photos, network and layer; empty for none.
        batch: photos at once.

    Raises:
        PictureError: a file that cannot be read.
        Refused, WrongCall: as `encode`.
    """

    def read() -> Codes:
        total = math.ceil(len(pictures) / batch)
        parts = [encode(model, images, layer) for _, images in track(pictures.batches(model, batch), total, "photos")]
        return Codes(*(torch.cat([getattr(part, name) for part in parts]) for name in Codes.__dataclass_fields__))

    return kept_in(cache, "codes", (model, pictures, layer), Codes, read)


def code_layer(model: Model, layer: str) -> str:
    """The layer that is asked for; if none is, what the last linear layer takes, or else the last maps."""
    if layer:
        return layer
    modules = dict(model.named_modules())
    linear = [name for name in model.layers() if isinstance(modules.get(name), nn.Linear)]
    return f"{linear[-1]}:in" if linear else last_maps(model)


def labels_of(pictures: Pictures) -> tuple[str, ...]:
    """For each photo the name of the folder it is in; nothing if all names are the same."""
    labels = tuple(path.parent.name for path in pictures.paths)
    return labels if len(set(labels)) > 1 else ()


def expect(technique: str, pictures: Pictures, count: int) -> None:
    """Raises WrongCall for fewer photos than a technique needs."""
    if len(pictures) < count:
        raise WrongCall(f"{technique}: got {len(pictures)} pictures, expected {count} or more")
