"""How many pictures a second training takes: our recipes beside the widely copied PyTorch example, in one run.

The reference is the training step of ``fast_neural_style`` in pytorch/examples, written anew for the comparison:
float32 in NCHW; Johnson's network with reflection padding in every convolution and no clipping, pictures in 0-255;
VGG-16 with ImageNet normalisation on the photos and on the paintings, relu1_2, relu2_2, relu3_3, relu4_3; mean squared
errors of relu2_2, times 1e5, and of the Gram matrices divided by C H W, times 1e10; Adam at 1e-3. Its VGG-16 has random
weights, which take the same time. Its photos lie ready in memory; the example itself decodes each one in turn.

Each contestant has a process of its own, as it would have in use: what ours ask of the memory allocator is not the
reference's gain.

Ours is what ``impasto train`` does with the recipe: `StyleTransfer` in Lightning's Trainer, with the `Guard`, without
previews, checkpoints and TensorBoard. Photos are decoded already, as after the first pass over them; crops are drawn,
resized and counted.
"""

from __future__ import annotations

import itertools
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from impasto.errors import WrongCall
from impasto.images import read_rgb
from impasto.training import PhotoData, StyleTransfer
from impasto.training.guard import Guard
from impasto.training.photos import to_tensor
from impasto.training.recipe import read_recipe
from impasto.training.record import device_name
from impasto.training.run import TRAINER, Trainer

REFERENCE = "reference"
RECIPES = ("johnson", "fast")
PAINTING_SIZE, PHOTO_SIZE = (512, 512), (480, 640)
"""Height and width of the pictures made up where none are given, in pixels."""

Turn = Callable[[], float]
"""Takes some steps and says how many seconds each took."""


@dataclass(frozen=True)
class TrainingSpeed:
    """Training speed of one contestant, in pictures per second.

    Attributes:
        name: "reference" or a recipe's.
        best: in its fastest turn.
        median: in its median turn.
        ratio: how many times the reference's speed: the median over the rounds of the two turns' ratio.
        device: what computed, by its own name.
    """

    name: str
    best: float
    median: float
    ratio: float
    device: str


def training_speed(
    *,
    rounds: int = 5,
    steps: int = 2,
    size: int = 256,
    batch: int = 4,
    style_image: str | Path | None = None,
    photos: Sequence[str] = (),
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> list[TrainingSpeed]:
    """Train the reference and our recipes in turns, so that what disturbs one disturbs all.

    A turn is one step that does not count and some that do. On a GPU, the time of a turn ends when its work is done.

    Args:
        rounds: turns of each.
        steps: counted steps of a turn.
        size: height and width of a training picture, in pixels.
        batch: pictures a step.
        style_image: the painting; by default blotches of colour.
        photos: folders of photos, of which as many as a batch has are used; by default blotches of colour.
        device: "auto", "cpu" or "cuda".
        progress: called with the turns behind and in total.

    Raises:
        WrongCall: for a device that is not there, or a number out of range.
        PictureError: if the painting cannot be read or there is no photo.
    """
    where = _device(device)
    if min(rounds, steps) < 1:
        raise WrongCall(f"training_speed: got {rounds} rounds of {steps} steps, expected 1 or more of each")
    with tempfile.TemporaryDirectory() as folder:
        painting = style_image or _blotches(Path(folder) / "paintings", PAINTING_SIZE, 1) / "0.png"
        photos = photos or [str(_blotches(Path(folder) / "photos", PHOTO_SIZE, batch))]
        names = (REFERENCE, *RECIPES)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        with ExitStack() as stack:
            homes = {name: stack.enter_context(_home()) for name in names}
            for name, home in homes.items():
                home.submit(
                    _prepare, name, painting, list(photos), size, batch, steps, where, torch.get_num_threads()
                ).result()
            for done, (_, name) in enumerate(itertools.product(range(rounds), names), start=1):
                seconds[name].append(homes[name].submit(_take_turn, name).result())
                if progress is not None:
                    progress(done, rounds * len(names))
    return [_row(name, batch, taken, seconds[REFERENCE], device_name(where)) for name, taken in seconds.items()]


def _home() -> ProcessPoolExecutor:
    """A new process that remembers its contestant."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


_turns: dict[str, Turn] = {}
"""The contestant of this process, by its name."""


def _prepare(
    name: str,
    painting: str | Path,
    photos: list[str],
    size: int,
    batch: int,
    steps: int,
    device: torch.device,
    threads: int,
) -> None:
    """Make the contestant of this process."""
    torch.set_num_threads(threads)
    data = PhotoData(photos, size=size, batch=batch)
    if name == REFERENCE:
        _turns[name] = reference_turn(painting, data, steps, device)
    else:
        _turns[name] = recipe_turn(name, painting, data, steps, device)


def _take_turn(name: str) -> float:
    return _turns[name]()


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise WrongCall(f"device: got {name!r}, expected auto or cpu, or cuda where torch sees a GPU")
    return torch.device(name, 0) if name == "cuda" else torch.device(name)


def _blotches(folder: Path, size: tuple[int, int], count: int) -> Path:
    """A new folder of pictures of blotches of colour, ``0.png`` and on."""
    folder.mkdir()
    for seed in range(count):
        coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC).save(folder / f"{seed}.png")
    return folder


def _row(name: str, batch: int, taken: list[float], reference: list[float], device: str) -> TrainingSpeed:
    return TrainingSpeed(
        name=name,
        best=batch / min(taken),
        median=batch / statistics.median(taken),
        ratio=statistics.median(theirs / ours for theirs, ours in zip(reference, taken, strict=True)),
        device=device,
    )


def _now(device: torch.device) -> float:
    """The time when all work given to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class _Watch(pl.Callback):
    """The time from the end of the first step to the end of the last."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start = self.end = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 1:
            self.start = _now(self.device)
        if trainer.global_step == trainer.max_steps:
            self.end = _now(self.device)


def recipe_turn(recipe: str, style_image: str | Path, data: PhotoData, steps: int, device: torch.device) -> Turn:
    """Steps of a packaged recipe at the data's size and batch: a short run of Lightning's Trainer each turn."""
    found = read_recipe(recipe)
    photos = PhotoData(**(found["data"] | {"photos": data.folders, "size": data.size, "batch": data.batch}))
    photos.setup()
    photos.train_photos = photos.train_photos[: data.batch]  # the step that does not count decodes them
    module = StyleTransfer(**(found["model"] | {"style_images": [str(style_image)], "minutes": None}))
    options = TRAINER | found["trainer"] | {"accelerator": device.type, "devices": 1, "max_steps": 1 + steps}

    def turn() -> float:
        watch = _Watch(device)
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        with warnings.catch_warnings(action="ignore"):  # Lightning's, of choices that are meant as they are
            Trainer(
                **options, limit_val_batches=0, logger=False, enable_checkpointing=False, callbacks=[Guard(), watch]
            ).fit(module, datamodule=photos)
        return (watch.end - watch.start) / steps

    return turn


def reference_turn(style_image: str | Path, data: PhotoData, steps: int, device: torch.device) -> Turn:
    """Steps of the example on one batch of the data's photos."""
    data.setup()
    photos = 255 * next(iter(data.train_dataloader())).to(device)
    painting = 255 * to_tensor(read_rgb(style_image, short_side=512)).to(device)
    step = ReferenceStep(painting, data.batch)

    def turn() -> float:
        step(photos)
        start = _now(device)
        for _ in range(steps):
            step(photos)
        return (_now(device) - start) / steps

    return turn


class ReferenceStep:
    """The example's network, its loss and its optimiser.

    Args:
        painting: float (3, H, W) in 0-255, on the device that is to compute.
        batch: pictures a step.
    """

    def __init__(self, painting: Tensor, batch: int) -> None:
        self.net = reference_network().to(painting.device)
        self.features = reference_features().to(painting.device)
        self.optimizer = torch.optim.Adam(self.net.parameters(), 1e-3)
        self.goals = [_gram(maps).expand(batch, -1, -1) for maps in self.judge(painting[None])]

    def judge(self, pictures: Tensor) -> list[Tensor]:
        """relu1_2, relu2_2, relu3_3 and relu4_3 of pictures (N, 3, H, W) in 0-255."""
        mean = pictures.new_tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        deviation = pictures.new_tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        maps, found = (pictures / 255 - mean) / deviation, []
        for part in self.features:
            maps = part(maps)
            found.append(maps)
        return found

    def __call__(self, photos: Tensor) -> float:
        """Take one step on photos (N, 3, H, W) in 0-255; returns the loss."""
        self.optimizer.zero_grad()
        found = self.judge(self.net(photos))
        content = 1e5 * F.mse_loss(found[1], self.judge(photos)[1])
        errors = [F.mse_loss(_gram(maps), goal) for maps, goal in zip(found, self.goals, strict=True)]
        style = 1e10 * torch.stack(errors).sum()
        (content + style).backward()  # type: ignore[no-untyped-call]  # torch's
        self.optimizer.step()
        return content.item() + style.item()  # the example keeps a sum of each


def _gram(maps: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, C), divided by C H W."""
    flat = maps.flatten(2)
    return flat.bmm(flat.mT) / maps[0].numel()


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [nn.ReflectionPad2d(kernel // 2), nn.Conv2d(inputs, outputs, kernel, stride)]


def _normalised(*layers: nn.Module, channels: int) -> list[nn.Module]:
    return [*layers, nn.InstanceNorm2d(channels, affine=True)]


class _Residual(nn.Sequential):
    """Two convolutions added to what came in."""

    def __init__(self, channels: int) -> None:
        half = _normalised(*_convolution(channels, channels, 3), channels=channels)
        rest = _normalised(*_convolution(channels, channels, 3), channels=channels)
        super().__init__(*half, nn.ReLU(), *rest)

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)  # type: ignore[no-any-return,no-untyped-call]  # torch's


def reference_network() -> nn.Sequential:
    """The example's network, pictures (N, 3, H, W) in 0-255 to pictures of sides rounded up to a multiple of 4."""
    layers: list[nn.Module] = []
    for inputs, outputs, kernel, stride in [(3, 32, 9, 1), (32, 64, 3, 2), (64, 128, 3, 2)]:
        layers += [*_normalised(*_convolution(inputs, outputs, kernel, stride), channels=outputs), nn.ReLU()]
    layers += [_Residual(128) for _ in range(5)]
    for inputs, outputs in [(128, 64), (64, 32)]:
        layers += [nn.Upsample(scale_factor=2, mode="nearest")]
        layers += [*_normalised(*_convolution(inputs, outputs, 3), channels=outputs), nn.ReLU()]
    return nn.Sequential(*layers, *_convolution(32, 3, 9))


def reference_features() -> nn.Sequential:
    """VGG-16 up to relu4_3 in four parts that end with relu1_2, relu2_2, relu3_3 and relu4_3, weights drawn, frozen."""
    parts, inputs = nn.Sequential(), 3
    for block, (outputs, convolutions) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3)]):
        layers: list[nn.Module] = [nn.MaxPool2d(2)] if block else []
        for _ in range(convolutions):
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")  # so that half of the maps is zero
            layers += [convolution, nn.ReLU(inplace=True)]
            inputs = outputs
        parts.append(nn.Sequential(*layers))
    return parts.requires_grad_(False)
