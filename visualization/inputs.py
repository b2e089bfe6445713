"""What techniques look at: one picture as a tensor, or many, read when they are wanted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from PIL.ExifTags import Base
from torch import Tensor

from impasto.errors import PictureError, WrongCall
from impasto.formats import IMAGE_SUFFIXES
from impasto.visualization.model import Model, load_model


@dataclass(frozen=True)
class Pictures:
    """Files of pictures in order, none of them read yet.

    Attributes:
        paths: the files.
        given: the files and folders that they were found in.
    """

    paths: tuple[Path, ...] = ()
    given: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: PicturesLike) -> Pictures:
        """From a file, a folder (all that is in it and its folders, sorted), or several of them.

        Raises:
            PictureError: what is not there, or a folder without a picture.
        """
        if isinstance(source, Pictures):
            return source
        given = [source] if isinstance(source, str | os.PathLike) else list(source)
        return cls(tuple(path for place in given for path in _files(Path(place))), tuple(map(str, given)))

    def __len__(self) -> int:
        return len(self.paths)

    def batches(self, model: Model, size: int = 32) -> Iterator[tuple[range, Tensor]]:
        """The pictures as the model sees them, a few at a time: their indices and (n, 3, size, size).

        Raises:
            PictureError: a file that cannot be read.
        """
        for start in range(0, len(self), size):
            indices = range(start, min(start + size, len(self)))
            yield indices, torch.cat([model.read(self.paths[index]) for index in indices])


@dataclass(frozen=True)
class Masked(Pictures):
    """Photos and, for those that have one, a mask that says by a number what each pixel shows.

    The mask of ``images/dog.jpg`` is ``masks/dog.png`` in a folder beside ``images``: one channel, as large as the
    photo. What the numbers are called stands in ``labels.json`` beside the two, as ``{"labels": {"1": "sky"}}``; a
    number that is not there, or that is its ``ignore``, means nothing. Without that file 0 means nothing.

    Attributes:
        masks: the file of each photo's mask, or None.
    """

    masks: tuple[Path | None, ...] = ()

    @classmethod
    def of(cls, source: PicturesLike) -> Masked:
        """As `Pictures.of`, without the files that are masks themselves."""
        if isinstance(source, Masked):
            return source
        pictures = Pictures.of(source)
        paths = [path for path in pictures.paths if not (path.parent.name == "masks" and _images(path).is_dir())]
        masks = [path.parent.parent / "masks" / f"{path.stem}.png" for path in paths]
        there = [
            mask if path.parent.name == "images" and mask.is_file() else None
            for path, mask in zip(paths, masks, strict=True)
        ]
        return cls(tuple(paths), pictures.given, tuple(there))

    def folders(self) -> list[Path]:
        """The folders that photos with masks are in, each with ``images`` and ``masks``."""
        return sorted({mask.parent.parent for mask in self.masks if mask is not None})

    def labels(self, folder: Path) -> dict[int, str]:
        """What the numbers in the masks of one of `folders` mean. Raises PictureError."""
        file = folder / "labels.json"
        if not file.is_file():
            return {number: f"label {number}" for number in range(1, 256)}
        try:
            known = json.loads(file.read_bytes())
            labels = {int(number): str(name) for number, name in known["labels"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise PictureError(f'{file}: expected {{"labels": {{"1": "sky", ...}}}}') from None
        return {number: name for number, name in labels.items() if number != known.get("ignore") and number < 65536}

    def mask(self, index: int, model: Model) -> Tensor | None:
        """The numbers of a photo's pixels, framed as the model sees it: (size, size), int64; None without a mask.

        Raises:
            PictureError: a mask that cannot be read, is of several channels, or of another size than its photo.
        """
        file = self.masks[index]
        if file is None:
            return None
        try:
            with Image.open(file) as image:
                numbers = np.asarray(image)
            with Image.open(self.paths[index]) as photo:
                size = photo.size[::-1] if photo.getexif().get(Base.Orientation, 1) > 4 else photo.size
        except (OSError, ValueError, SyntaxError) as error:
            raise PictureError(f"{file}: {error}") from None
        if numbers.ndim != 2 or numbers.shape[::-1] != size:
            got = " x ".join(map(str, (numbers.shape[1], numbers.shape[0], *numbers.shape[2:])))
            raise PictureError(f"{file}: got {got}, expected one channel of {size[0]} x {size[1]}, as the photo")
        left, top, right, bottom = model.to_photo((0, 0, model.size, model.size), size)
        rows = _nearest(top, bottom, model.size, len(numbers))
        columns = _nearest(left, right, model.size, len(numbers[0]))
        return torch.from_numpy(numbers[rows[:, None], columns].astype(np.int64))


def _nearest(start: float, end: float, count: int, length: int) -> npt.NDArray[np.int64]:
    """The pixels, of ``length``, in which the middles of ``count`` equal parts of a stretch lie."""
    middles = start + (np.arange(count) + 0.5) * (end - start) / count
    return np.floor(middles).clip(0, length - 1).astype(np.int64)


def _images(mask: Path) -> Path:
    return mask.parent.parent / "images"


Whole = Tensor
"""A picture that a technique gets uncropped (`Model.read_whole`), for networks that take any size."""

PicturesLike = Pictures | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A file, a folder, or several of them."""


MANY = {"pictures": Pictures, "pictures, masks": Masked}
"""What techniques that read a folder are given."""


def _files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    found = sorted(path for path in place.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not found:
        raise PictureError(f"{place}: expected a picture, or a folder with pictures ({', '.join(IMAGE_SUFFIXES)})")
    return found


def read_inputs(model: Model, reads: str, inputs: tuple[Any, ...]) -> tuple[tuple[Any, ...], list[str] | None]:
    """What a technique is given, from what it was called with, and the words that name it on the command line.

    Args:
        model: reads a picture its own way.
        reads: as of `impasto.visualization.registry.Card`.
        inputs: nothing, or one thing.

    Returns:
        The inputs, and the words: None if no file is known.

    Raises:
        WrongCall: a tensor that is not one picture (1, 3, H, W).
        PictureError: what cannot be read.
    """
    if reads == "nothing" or not inputs:
        return inputs, []
    (given,) = inputs
    if reads in MANY:
        pictures = MANY[reads].of(given)
        return (pictures,), list(pictures.given)
    picture = read_picture_for(model, reads, given)
    return (picture,), [os.fspath(given)] if isinstance(given, str | os.PathLike) else None


def read_option(model: Model, opens: str, reads: str, value: Any) -> Any:
    """What an option of a technique stands for: a picture read as the technique's own is, a network, or the value."""
    if value is None or not opens:
        return value
    if opens == "picture":
        return read_picture_for(model, reads, value)
    return value if isinstance(value, Model) else load_model(value).to(model.device)


def read_picture_for(model: Model, reads: str, given: Any) -> Tensor:
    """One picture (1, 3, H, W) on the model's device, cropped or whole.

    Raises:
        WrongCall: a tensor that is not one picture.
        PictureError: what cannot be read.
    """
    if not isinstance(given, Tensor):
        return model.read_whole(given) if reads == "whole picture" else model.read(given)
    if given.ndim != 4 or given.shape[:2] != (1, 3) or not given.is_floating_point():
        raise WrongCall(
            f"a picture: got {given.dtype} of shape {tuple(given.shape)}, expected float RGB (1, 3, H, W) in [0, 1]"
        )
    return given.detach().to(model.device)
