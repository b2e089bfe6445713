"""Results that take a pass over many photos, kept in a folder for the next call."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from impasto.formats import write_atomically
from impasto.visualization.inputs import Pictures
from impasto.visualization.model import Model

Tensors = TypeVar("Tensors")
"""A dataclass of tensors."""


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


def kept_in(
    folder: str, name: str, facts: tuple[Model, Pictures, object], kind: type[Tensors], make: Callable[[], Tensors]
) -> Tensors:
    """What a folder holds of a result with such facts, if it is there and whole; else what is made anew, and put there.

    Args:
        folder: need not exist yet; empty to make anew and keep nothing.
        name: what the file's name begins with.
        facts: all that the result depends on: network, photos, and whatever else is asked.
        kind: of the result, a dataclass of tensors.
        make: makes it.
    """
    if not folder:
        return make()
    file = Path(folder, f"{name}-{fingerprint(*facts)}.npz")
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # a dataclass
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as stored:
            return kind(**{name: torch.from_numpy(stored[name]) for name in names})
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile):
        made = make()
    content = io.BytesIO()
    np.savez(content, **{name: getattr(made, name).numpy() for name in names})
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, content.getvalue())
    return made
