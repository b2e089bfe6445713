"""What techniques look at: one picture as a tensor, or many, read when they are wanted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
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


Whole = Tensor
"""A picture that a technique gets uncropped (`Model.read_whole`), for networks that take any size."""

PicturesLike = Pictures | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A file, a folder, or several of them."""


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
    if reads == "pictures":
        pictures = Pictures.of(given)
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
