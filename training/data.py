"""Photos for Lightning."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from impasto.errors import PictureError, WrongCall
from impasto.training.networks import SMALLEST
from impasto.training.photos import PhotoBatches, PhotoCache, centre_crop, find_photos, first_good, hold_out, to_tensor

ENDLESS = 10**9
"""Batches there are: a run ends by its steps or its time, never by its photos, so it is one epoch for Lightning."""

PREVIEWS = 4
"""Photos to paint where none can be held out."""


class _From(Sampler[int]):
    """Steps from the one where a run goes on."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, ENDLESS))

    def __len__(self) -> int:
        return ENDLESS  # also of a run that goes on: Lightning counts from the run's first batch


class HeldOutPhotos(Dataset[Tensor]):
    """Single good photos, float (1, 3, size, size): their middle square."""

    def __init__(self, photos: list[Path], size: int) -> None:
        self.size = size
        self.cache = PhotoCache(megabytes=64)
        self.photos = photos

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Tensor:
        photo = self.cache.read(self.photos[index])
        assert photo is not None  # bad files have been left out
        return to_tensor(centre_crop(photo.numpy(), self.size))[None]


class PhotoData(pl.LightningDataModule):
    """Any folders of photos as training batches, float (N, 3, size, size) in [0, 1].

    The batch of step t is a pure function of the seed and t; several processes share the batches of one process that
    takes as many pictures a step as all of them. Up to ``validation`` photos, a tenth of them at most, are
    chosen by their file names and never trained on; where that leaves no good one (as with fewer than ten photos), four
    that are trained on serve for previews.

    Args:
        photos: folders, searched recursively.
        size: height and width of a training picture, in pixels.
        batch: pictures a step.
        seed: of order, crops and mirroring.
        close: share of close crops: details at full size or enlarged, as in pictures of many more pixels.
        flat: share of flat and slowly varying pictures among them.
        validation: photos to hold out.
        megabytes: memory for decoded photos, the GPU's where a GPU trains.

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
        close: float = 0.25,
        flat: float = 0.05,
        validation: int = 16,
        megabytes: int = 1024,
    ) -> None:
        super().__init__()
        if size < SMALLEST or size % 16:
            raise WrongCall(f"size: got {size}, expected a multiple of 16 pixels from {SMALLEST} up")
        if batch < 1 or min(close, flat) < 0 or close + flat > 1 or validation < 0 or megabytes < 0:
            raise WrongCall(
                f"PhotoData: got batch {batch}, close {close}, flat {flat}, validation {validation}, megabytes "
                f"{megabytes}; expected batch >= 1, close and flat from 0 up and at most 1 together, validation >= 0, "
                "megabytes >= 0"
            )
        self.folders = photos
        self.size, self.batch, self.seed, self.close, self.flat = size, batch, seed, close, flat
        self.validation, self.megabytes = validation, megabytes
        self.licence = ""
        self.first_step = 0
        self.train_photos: list[Path] = []
        self.held_out: list[Path] = []

    def setup(self, stage: str | None = None) -> None:
        """Find the photos and hold some out."""
        if not self.train_photos:
            self.train_photos, held = hold_out(find_photos(self.folders), self.validation)
            self.held_out = first_good(held, len(held)) or first_good(self.train_photos, PREVIEWS)
            if not self.held_out:
                raise PictureError(
                    f"none of the {len(self.train_photos)} photos can be read: see the files named above"
                )

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Batches from the step where the run stands, made on the GPU where there is one."""
        device = None if self.trainer is None else self.trainer.strategy.root_device
        batches = PhotoBatches(
            self.train_photos,
            self.size,
            self.batch,
            self.seed,
            ENDLESS,
            close=self.close,
            flat=self.flat,
            megabytes=self.megabytes,
            rank=0 if self.trainer is None else self.trainer.global_rank,
            world=1 if self.trainer is None else self.trainer.world_size,
            device=device if device is not None and device.type == "cuda" else None,
        )
        return DataLoader(batches, batch_size=None, sampler=_From(self.first_step))

    def val_dataloader(self) -> DataLoader[Tensor]:
        """The held-out photos, one by one."""
        return DataLoader(HeldOutPhotos(self.held_out, self.size), batch_size=None)

    def state_dict(self) -> dict[str, Any]:
        """Where the run stands, for a checkpoint."""
        return {"step": self.trainer.global_step if self.trainer is not None else 0}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.first_step = int(state_dict["step"])

    def judged_on(self) -> dict[str, Any]:
        """The photos behind a card's quality: how many, at which size, and whether they were held out."""
        held_out = not set(self.held_out) & set(self.train_photos)
        return {"photos": len(self.held_out), "size": self.size, "held_out": held_out}

    def describe(self) -> dict[str, Any]:
        """What a card says of the photos: how many, at which size, and a hash of their names and sizes in bytes."""
        listing = "".join(f"{path.name} {path.stat().st_size}\n" for path in sorted(self.train_photos))
        return {
            "photos": len(self.train_photos),
            "held_out": len(set(self.held_out) - set(self.train_photos)),
            "licence": self.licence,
            "hash": hashlib.sha256(listing.encode()).hexdigest(),
            "size": self.size,
            "batch": self.batch,
            "close": self.close,
            "flat": self.flat,
            "seed": self.seed,
        }
