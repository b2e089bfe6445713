"""Photos for Lightning."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from impasto.errors import WrongCall
from impasto.training.networks import SMALLEST
from impasto.training.photos import PhotoBatches, PhotoCache, centre_crop, find_photos, hold_out, to_tensor

ENDLESS = 10**9
"""Batches of a run without a number of steps: it ends by its time."""


class _From(Sampler[int]):
    """Steps from the one where a run goes on."""

    def __init__(self, first: int, length: int) -> None:
        self.first, self.length = first, length

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.length))

    def __len__(self) -> int:
        return self.length - self.first


class HeldOutPhotos(Dataset[Tensor]):
    """Single photos that are not trained on, float (1, 3, size, size): their middle square."""

    def __init__(self, photos: list[Path], size: int) -> None:
        self.size = size
        self.cache = PhotoCache(megabytes=64)
        self.photos = [photo for photo in photos if self.cache.read(photo) is not None]

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Tensor:
        rgb = self.cache.read(self.photos[index])
        assert rgb is not None  # bad files were left out above
        return to_tensor(centre_crop(rgb, self.size))[None]


class PhotoData(pl.LightningDataModule):
    """Any folders of photos as training batches, float (N, 3, size, size) in [0, 1].

    The batch of step t is a pure function of the seed and t. Up to ``validation`` photos, a tenth of them at most, are
    chosen by their file names and never trained on; with fewer than ten photos the first four serve for previews.

    Args:
        photos: folders, searched recursively.
        size: height and width of a training picture, in pixels.
        batch: pictures a step.
        seed: of order, crops and mirroring.
        flat: share of flat and slowly varying pictures among them.
        validation: photos to hold out.
        megabytes: memory for decoded photos.

    Raises:
        ValueError: for a size or batch out of range.
        PictureError: when the run starts, if there is no photo.
    """

    def __init__(
        self,
        photos: list[str],
        size: int = 256,
        batch: int = 4,
        seed: int = 0,
        flat: float = 0.03,
        validation: int = 16,
        megabytes: int = 1024,
    ) -> None:
        super().__init__()
        if size < SMALLEST or size % 16:
            raise WrongCall(f"size: got {size}, expected a multiple of 16 pixels from {SMALLEST} up")
        if batch < 1 or not 0 <= flat < 1:
            raise WrongCall(f"PhotoData: got batch {batch} and flat {flat}, expected batch >= 1 and 0 <= flat < 1")
        self.folders = photos
        self.size, self.batch, self.seed, self.flat = size, batch, seed, flat
        self.validation, self.megabytes = validation, megabytes
        self.licence = ""
        self.first_step = 0
        self.train_photos: list[Path] = []
        self.held_out: list[Path] = []

    def setup(self, stage: str | None = None) -> None:
        """Find the photos and hold some out."""
        if not self.train_photos:
            self.train_photos, held = hold_out(find_photos(self.folders), self.validation)
            self.held_out = held or self.train_photos[:4]

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Batches from the step where the run stands."""
        steps = self.trainer.max_steps if self.trainer is not None else -1
        length = steps if steps > 0 else ENDLESS
        batches = PhotoBatches(
            self.train_photos, self.size, self.batch, self.seed, length, flat=self.flat, megabytes=self.megabytes
        )
        return DataLoader(batches, batch_size=None, sampler=_From(self.first_step, length))

    def val_dataloader(self) -> DataLoader[Tensor]:
        """The held-out photos, one by one."""
        return DataLoader(HeldOutPhotos(self.held_out, self.size), batch_size=None)

    def state_dict(self) -> dict[str, Any]:
        """Where the run stands, for a checkpoint."""
        return {"step": self.trainer.global_step if self.trainer is not None else 0}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.first_step = int(state_dict["step"])

    def describe(self) -> dict[str, Any]:
        """What a card says of the photos: how many, at which size, and a hash of their names and sizes in bytes."""
        listing = "".join(f"{path.name} {path.stat().st_size}\n" for path in sorted(self.train_photos))
        return {
            "photos": len(self.train_photos),
            "held_out": len(self.held_out),
            "licence": self.licence,
            "hash": hashlib.sha256(listing.encode()).hexdigest(),
            "size": self.size,
            "batch": self.batch,
            "flat": self.flat,
            "seed": self.seed,
        }
