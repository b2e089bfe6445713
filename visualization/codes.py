"""What a network and the pixels say of many pictures: a vector for each, to be compared."""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from impasto.errors import WrongCall
from impasto.formats import write_atomically
from impasto.losses import capture
from impasto.visualization.answers import last_maps
from impasto.visualization.inputs import Pictures
from impasto.visualization.model import Model
from impasto.visualization.progress import track
from impasto.visualization.registry import Refused

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
    file = Path(cache, f"codes-{fingerprint(model, pictures, layer)}.npz") if cache else None
    if file and (stored := _stored(file)):
        return stored
    parts = [
        encode(model, images, layer)
        for _, images in track(pictures.batches(model, batch), math.ceil(len(pictures) / batch), "photos")
    ]
    codes = Codes(*(torch.cat([getattr(part, name) for part in parts]) for name in Codes.__dataclass_fields__))
    if file:
        content = io.BytesIO()
        np.savez(content, **{name: tensor.numpy() for name, tensor in vars(codes).items()})
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content.getvalue())
    return codes


def _stored(file: Path) -> Codes | None:
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as stored:
            return Codes(**{name: torch.from_numpy(stored[name]) for name in Codes.__dataclass_fields__})
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile):
        return None


def fingerprint(model: Model, pictures: Pictures, *facts: object) -> str:
    """32 letters that are the same for the same modules, weights, preprocessing, files and facts.

    The same files are those of the same names, sizes and times.
    """
    key = hashlib.sha256(repr((model.network, model.preprocessing, facts)).encode())
    for name, tensor in sorted(model.network.state_dict().items()):
        key.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    for path in pictures.paths:
        known = path.stat()
        key.update(f"{path.resolve()} {known.st_size} {known.st_mtime_ns}".encode())
    return key.hexdigest()[:32]


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
