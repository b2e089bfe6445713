"""Photos as training batches: the batch of step t is a pure function of the seed and t."""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from impasto.errors import PictureError
from impasto.images import IMAGE_SUFFIXES, read_rgb

LARGEST_SIDE = 1024
"""Photos are shrunk to this short side, in pixels, before they are kept in memory."""

CLOSEST = 0.25
"""Side of the smallest close crop as a share of the training size: such crops are enlarged."""

logger = logging.getLogger(__name__)

Rgb = NDArray[np.uint8]


def find_photos(folders: Sequence[str | Path]) -> list[Path]:
    """All picture files below the folders, sorted.

    Raises:
        PictureError: if a folder does not exist or there is no picture at all.
    """
    found: list[Path] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise PictureError(f"no folder of photos at {folder}: expected a folder with {', '.join(IMAGE_SUFFIXES)}")
        found += [path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not found:
        raise PictureError(
            f"no photo in {', '.join(map(str, folders))}: expected files ending in {', '.join(IMAGE_SUFFIXES)}"
        )
    return sorted(set(found))


def hold_out(photos: Sequence[Path], count: int) -> tuple[list[Path], list[Path]]:
    """Split photos into those to train on and at most ``count`` to validate on, a tenth at most, by their names."""
    count = min(count, len(photos) // 10)
    order = sorted(photos, key=lambda path: hashlib.sha256(path.name.encode()).hexdigest())
    held = sorted(order[:count])
    return [photo for photo in photos if photo not in set(held)], held


def to_tensor(rgb: Rgb) -> Tensor:
    """uint8 (..., H, W, 3) to float (..., 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(rgb, -1, -3))).float() / 255


class PhotoCache:
    """Decoded photos, kept in a device's memory up to a limit; those beyond it are decoded and moved there each time.

    Args:
        megabytes: how much to keep.
        device: where; by default in main memory.
    """

    def __init__(self, megabytes: int, device: torch.device | None = None) -> None:
        self.left = megabytes * 2**20
        self.device = device or torch.device("cpu")
        self.kept: dict[Path, Tensor | None] = {}

    def read(self, path: Path) -> Tensor | None:
        """uint8 (H, W, 3) with a short side of at most `LARGEST_SIDE`; None, with a warning, for a bad file."""
        if path in self.kept:
            return self.kept[path]
        try:
            photo: Tensor | None = torch.tensor(read_rgb(path, short_side=LARGEST_SIDE), device=self.device)
        except (PictureError, OSError) as error:
            logger.warning("skipped: %s", error)
            photo = None
        size = 0 if photo is None else photo.nbytes
        if size <= self.left:
            self.left -= size
            self.kept[path] = photo
        return photo


def first_good(photos: Sequence[Path], count: int) -> list[Path]:
    """The first ``count`` of the photos that can be read."""
    cache = PhotoCache(megabytes=0)
    good = (photo for photo in photos if cache.read(photo) is not None)
    return list(itertools.islice(good, count))


def centre_crop(rgb: Rgb, size: int) -> Rgb:
    """The largest square in the middle of the picture, resized to (size, size, 3)."""
    height, width = rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(rgb).resize((size, size), Image.Resampling.BICUBIC, box=box))


def resize_by_pil(square: Tensor, size: int) -> Tensor:
    """uint8 (S, S, 3) to (size, size, 3), on the CPU."""
    image = Image.fromarray(square.numpy()).resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image))


def resize_by_torch(square: Tensor, size: int) -> Tensor:
    """`resize_by_pil` on the square's device, to two levels: across, then down, each in whole levels as PIL does."""
    picture = square.movedim(-1, 0)[None].float()
    for shape in ((len(square), size), (size, size)):
        picture = F.interpolate(picture, shape, mode="bicubic", antialias=True).round().clamp(0, 255)
    return picture[0].movedim(0, -1).byte()


def random_crop(
    photo: Tensor,
    size: int,
    random: np.random.Generator,
    close: bool = False,
    resize: Callable[[Tensor, int], Tensor] = resize_by_pil,
) -> Tensor:
    """A square of whole pixels of a photo (H, W, 3), resized to (size, size, 3) and mirrored half the time.

    Its side is drawn log-uniformly: from ``size`` to the short side, or, ``close``, from a quarter of ``size`` to
    ``size``, which shows a detail at full size or enlarged, as in a picture of many more pixels.
    """
    height, width = photo.shape[:2]
    longest = min(height, width)
    low, high = (CLOSEST * size, size) if close else (size, longest)
    drawn = math.exp(random.uniform(math.log(min(low, longest)), math.log(min(high, longest))))
    side = max(1, round(drawn))
    left, top = round(random.uniform(0, width - side)), round(random.uniform(0, height - side))
    crop = resize(photo[top : top + side, left : left + side], size)
    return crop.flip(1) if random.random() < 0.5 else crop


def flat_picture(size: int, random: np.random.Generator) -> Rgb:
    """A sky or a wall: one colour that turns slowly into another, with a noise of about one level, (size, size, 3)."""
    angle = random.uniform(0, 2 * math.pi)
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    along = (x * math.cos(angle) + y * math.sin(angle) + 0.5)[..., None]
    first, second = random.uniform(0, 255, 3), random.normal(0, 40, 3)
    picture = first + second * along + random.normal(0, 1, (size, size, 3))
    levels: Rgb = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return levels


class PhotoBatches(Dataset[Tensor]):
    """Batch t of a training run, float (N, 3, size, size) in [0, 1].

    Photos come in an order that is shuffled anew for each pass over them; a bad file's place is taken by the next good
    one.

    Args:
        photos: files.
        size: height and width, in pixels.
        batch: pictures in a batch.
        seed: of everything random here.
        length: number of batches.
        close: share of the pictures that are close crops.
        flat: share of the pictures that are flat or slowly varying instead (`flat_picture`).
        megabytes: memory for decoded photos.
        rank: which of several processes this is: their batches of a step follow one another in one sequence.
        world: how many there are.
        device: keeps the photos and makes the batches, the same ones to two levels of 255; by default PIL makes them
            on the CPU.
    """

    def __init__(
        self,
        photos: Sequence[Path],
        size: int,
        batch: int,
        seed: int,
        length: int,
        close: float,
        flat: float,
        megabytes: int,
        rank: int = 0,
        world: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self.photos = list(photos)
        self.size, self.batch, self.seed, self.length = size, batch, seed, length
        self.close, self.flat = close, flat
        self.rank, self.world = rank, world
        self.cache = PhotoCache(megabytes, device)
        self.resize = resize_by_pil if device is None else resize_by_torch
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, step: int) -> Tensor:
        if not 0 <= step < self.length:
            raise IndexError(step)
        first = (step * self.world + self.rank) * self.batch
        pictures = torch.stack([self._item(first + i) for i in range(self.batch)])
        return pictures.movedim(-1, -3).contiguous().float() / 255

    def _item(self, index: int) -> Tensor:
        random = np.random.default_rng((self.seed, 1, index))
        kind = random.random()
        if kind < self.flat:
            return torch.from_numpy(flat_picture(self.size, random)).to(self.cache.device)
        close = kind < self.flat + self.close
        return random_crop(self._photo(index), self.size, random, close, self.resize)

    def _photo(self, index: int) -> Tensor:
        for later in range(len(self.photos)):
            photo = self.cache.read(self._path(index + later))
            if photo is not None:
                return photo
        raise PictureError(f"none of the {len(self.photos)} photos can be read: see the files named above")

    def _path(self, index: int) -> Path:
        passes, place = divmod(index, len(self.photos))
        if self._order is None or self._order[0] != passes:
            order = np.random.default_rng((self.seed, 0, passes)).permutation(len(self.photos))
            self._order = (passes, order)
        return self.photos[int(self._order[1][place])]
