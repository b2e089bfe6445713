"""A style pack's card: what stands in its ``card.json``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from impasto.errors import PackError
from impasto.formats import write_atomically

CARD = "card.json"
"""The card's file in a pack."""
PAINT = "paint.onnx"
"""The graph from picture to picture."""
MEASURE, APPLY, FOLDED, SHARED = "measure.onnx", "apply.onnx", "apply_folded.onnx", "weights.bin"
REGIONS = "apply_regions.onnx"
"""The graph that applies a style to each region."""
SCHEMA = 1
"""The version of the card's schema."""
_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")


def snake_case(text: str) -> str:
    """The nearest name that a style or a pack may have: ``"My Painting (2)"`` -> ``"my_painting_2"``; may be empty."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


@dataclass(frozen=True)
class Style:
    """One style of a pack.

    Attributes:
        name: a snake_case word, by which the style is called.
        title: the painting's title.
        painter: who painted it.
        year: when, as text ("1831", "about 1500").
        source: where the picture of the painting comes from.
        licence: the terms of that picture.
    """

    name: str
    title: str = ""
    painter: str = ""
    year: str = ""
    source: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        _check_name("style", self.name)


@dataclass(frozen=True)
class Card:
    """What stands in a pack's ``card.json``.

    Attributes:
        name: the pack's name, a snake_case word.
        styles: in the order of the network's rows; names are unique.
        network: ``{"name": "johnson" | "fast", ...}`` and its sizes.
        normalisations: ``{"name": ..., "channels": ...}`` of every normalisation, in the order of the network.
        training: configuration, data, versions, seed, steps, duration, device.
        quality: what the pack is worth, on photos it never saw.
        parity: largest differences between the trained network and the exported one.
        files: name of every other file of the pack -> its SHA-256 in hexadecimal digits.
        schema: version of this list.
    """

    name: str
    styles: tuple[Style, ...]
    network: Mapping[str, Any]
    normalisations: tuple[Mapping[str, Any], ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        _check_name("pack", self.name)
        if self.schema != SCHEMA:
            raise PackError(f"card of schema {self.schema}; this version reads schema {SCHEMA}: update impasto")
        if not self.styles or len(set(self.style_names)) < len(self.styles):
            raise PackError(f"the styles of a pack must have unique names, at least one; got {self.style_names}")
        for name in self.files:
            if name in ("", ".", "..", CARD) or re.search(r"[/\\:]", name):
                raise PackError(f"a card lists plain names of files in its own folder; got {name!r}")

    @property
    def style_names(self) -> tuple[str, ...]:
        """Names of the styles, in the order of the network's rows."""
        return tuple(style.name for style in self.styles)


def save_card(card: Card, folder: str | os.PathLike[str]) -> None:
    """Write ``card`` to ``folder/card.json``, whole or not at all.

    Raises:
        OSError: the folder or the disk does not take the file.
    """
    entries = {"schema": card.schema, **asdict(card)}
    text = json.dumps(entries, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(Path(folder) / CARD, text.encode())


def load_card(folder: str | os.PathLike[str]) -> Card:
    """Read ``folder/card.json``.

    Raises:
        PackError: there is none, or it cannot be used.
    """
    path = Path(folder) / CARD
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PackError(f"{folder}: no {CARD} in it; a style pack has {CARD} and {PAINT}") from error
    except (OSError, ValueError) as error:
        raise PackError(f"{path}: cannot be read: {error}") from error
    if not isinstance(entries, dict) or not isinstance(entries.get("schema"), int):
        raise PackError(f"{path}: not the card of a style pack: it states no schema")
    try:
        return _card(entries)
    except PackError as error:
        raise PackError(f"{path}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise PackError(f"{path}: not the card of a style pack: {error!r}") from error


def _card(entries: dict[str, Any]) -> Card:
    """The card with these entries; keys it does not know are for later versions, and are passed over."""
    if entries["schema"] != SCHEMA:  # before anything of it is looked at
        raise PackError(f"card of schema {entries['schema']}; this version reads schema {SCHEMA}: update impasto")
    known = {key: value for key, value in entries.items() if key in Card.__dataclass_fields__}
    styles = tuple(
        Style(**{key: str(value) for key, value in style.items() if key in Style.__dataclass_fields__})
        for style in entries["styles"]
    )
    for key in ("network", "training", "quality", "parity", "files"):
        if not isinstance(known.get(key, {}), dict):
            raise PackError(f"expected an object under {key!r}")
    return Card(**{**known, "styles": styles, "normalisations": tuple(known.get("normalisations", ()))})


def _check_name(kind: str, name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PackError(f"the {kind}'s name {name!r} is not a snake_case word such as 'starry_night'")
