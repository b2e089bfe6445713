"""The style pack: a folder with a card (``card.json``) and the files that the card lists with their SHA-256.

    PACK/
      card.json            what the pack holds, how it was trained, what it is worth, sha256 of every other file
      paint.onnx           picture -> picture in one pass
      measure.onnx         picture or crops of it -> the scales and shifts of every normalisation
      apply.onnx           picture + scales and shifts -> picture
      apply_folded.onnx    the same with scales and shifts that are constants, folded into the convolutions
      apply_regions.onnx   picture + scales and shifts of several regions + where these are -> picture
      weights.bin          the constants that these four share
      weights.safetensors  to train on from

Packs are found by name: among the folders that ``IMPASTO_PACKS`` lists, then among those installed with the package,
then among those in its folder ``by_name``, whose styles are not called without the pack's name before them.
Imports neither numpy nor onnxruntime.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from impasto.card import (
    APPLY,
    CARD,
    FOLDED,
    MEASURE,
    PAINT,
    REGIONS,
    SCHEMA,
    SHARED,
    Card,
    Style,
    load_card,
    save_card,
)
from impasto.errors import PackError, WrongCall, unknown_name

__all__ = [
    "APPLY",
    "CARD",
    "FOLDED",
    "MEASURE",
    "PAINT",
    "REGIONS",
    "SCHEMA",
    "SHARED",
    "Card",
    "Pack",
    "Style",
    "find_pack",
    "installed_packs",
    "load_card",
    "mixture",
    "pack_with",
    "save_card",
    "sha256_of",
]


@dataclass(frozen=True)
class Pack:
    """A style pack on disk."""

    path: Path
    card: Card

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify: bool = True) -> Pack:
        """Read a pack's card, and with ``verify`` compare every file it lists with its SHA-256.

        Raises:
            PackError: not a folder, no card, a card that cannot be used, a file that is missing or altered.
        """
        folder = Path(path)
        if not folder.exists():
            raise PackError(f"{folder}: no such folder; expected a style pack (a folder with {CARD} and {PAINT})")
        if not folder.is_dir():
            raise PackError(f"{folder}: is a file; expected a style pack: the folder that holds {CARD} and {PAINT}")
        pack = cls(folder, load_card(folder))
        if verify:
            for name in pack.card.files:
                pack.read(name)
        return pack

    def read(self, name: str) -> bytes:
        """The bytes of one of the pack's files, compared with the card.

        Raises:
            PackError: the file is not on the card, missing, or altered.
        """
        expected = self.card.files.get(name)
        if expected is None:
            raise PackError(f"{self.path}: the card lists no {name}; export the pack again")
        try:
            data = (self.path / name).read_bytes()
        except OSError as error:
            raise PackError(f"{self.path / name}: {error.strerror}; copy or export the pack again") from error
        if hashlib.sha256(data).hexdigest() != expected:
            raise PackError(
                f"{self.path / name}: altered, its SHA-256 is not the card's; copy or export the pack again"
            )
        return data


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def installed_packs() -> tuple[Pack, ...]:
    """The packs whose styles can be called by name, in the order they are looked up; their files are not verified.

    First those of the folders in ``IMPASTO_PACKS`` (separated as in PATH; each a pack or a folder of packs), then those
    installed in ``impasto.checkpoints``. Of two packs with one name, the first counts.

    Raises:
        PackError: a folder in ``IMPASTO_PACKS`` that does not exist, or a pack with a card that cannot be used.
    """
    packs: dict[str, Pack] = {}
    for folder in _pack_folders():
        pack = Pack.load(folder, verify=False)
        packs.setdefault(pack.card.name, pack)
    return tuple(packs.values())


def _by_name() -> dict[str, Pack]:
    """The packs that ship beside: they answer to their names only, and their styles are not among those listed."""
    import impasto.checkpoints

    cards = [card for place in impasto.checkpoints.__path__ for card in sorted(Path(place).glob(f"by_name/*/{CARD}"))]
    packs = [Pack.load(card.parent, verify=False) for card in cards]
    return {pack.card.name: pack for pack in packs}


def _pack_folders() -> list[Path]:
    import impasto.checkpoints

    listed = [Path(entry) for entry in os.environ.get("IMPASTO_PACKS", "").split(os.pathsep) if entry]
    for place in listed:
        if not place.is_dir():
            raise PackError(f"IMPASTO_PACKS lists {str(place)!r}, which is not a folder")
    places = [*listed, *map(Path, impasto.checkpoints.__path__)]
    folders = []
    for place in places:
        is_pack = (place / CARD).is_file()
        folders += [place] if is_pack else sorted(path.parent for path in place.glob(f"*/{CARD}"))
    return folders


def find_pack(name: str | os.PathLike[str]) -> tuple[Pack, str | None]:
    """The pack that ``name`` stands for, and the style it names in it, if any.

    Args:
        name: the path of a pack; a pack's name; a style's name or a mixture (``a:0.6,b:0.4``), if one pack alone has
            it; or the first two with a style behind them, ``pack/style``. The packs of ``checkpoints/by_name``, whose
            styles others have too, answer to their own names only, and to those last.

    Returns:
        The pack (its files not verified), and the style or mixture as it was written; None if ``name`` names a pack
        that has no style of that name.

    Raises:
        WrongCall: no pack or style has that name (lists them, with the nearest), or several packs have the style.
        PackError: a path that is not a pack, or a pack with a card that cannot be used.
    """
    path, name = Path(name), os.fspath(name)
    if (path / CARD).is_file() or path.is_file():
        return Pack.load(path, verify=False), None
    installed, beside = installed_packs(), _by_name()
    packs = beside | {pack.card.name: pack for pack in installed}
    taken = packs.get(name) is beside.get(name) and any(name in pack.card.style_names for pack in installed)
    if name in packs and not taken:
        pack = packs[name]
        return pack, name if name in pack.card.style_names else None
    head, slash, style = name.rpartition("/")
    in_path = (Path(head) / CARD).is_file()
    if in_path or head in packs:
        pack = Pack.load(head, verify=False) if in_path else packs[head]
        mixture(style, pack.card.style_names)
        return pack, style
    if slash or path.is_dir():
        return Pack.load(path, verify=False), None  # raises: no such folder, or no card in it
    return pack_with(name, installed, packs), name


def pack_with(style: str, packs: tuple[Pack, ...], also: Iterable[str] = ()) -> Pack:
    """The one of these packs that has a style, or all the styles of a mixture.

    Args:
        style: its name, or a mixture.
        packs: the packs.
        also: names that could have been meant.

    Raises:
        WrongCall: none has it, or several have.
    """
    names = [part.partition(":")[0].strip() for part in style.split(",")]
    having = [pack for pack in packs if set(names) <= set(pack.card.style_names)]
    if len(having) > 1:
        choices = ", ".join(f"{pack.card.name}/{style}" for pack in having)
        raise WrongCall(f"several packs have the style {style!r}; choose one of: {choices}")
    if having:
        mixture(style, having[0].card.style_names)
        return having[0]
    styles = {name for pack in packs for name in pack.card.style_names}
    for name in names:
        if name not in styles:
            raise unknown_name("style or pack", name, {*styles, *(pack.card.name for pack in packs), *also})
    raise WrongCall(f"no pack has all the styles of {style!r}; the styles of a mixture come from one pack")


def mixture(style: str, names: tuple[str, ...]) -> tuple[float, ...]:
    """The weight of every style of a pack in a style or a mixture of styles.

    Args:
        style: ``name``, or a mixture ``name:0.6,other:0.4``; a name without a weight has weight 1.
        names: the names of the pack's styles.

    Returns:
        One weight a name, in the order of ``names``, not negative, with sum 1.

    Raises:
        WrongCall: an unknown name, one that stands twice, a weight that is not a number or negative, or a sum of 0.
    """
    weights: dict[str, float] = {}
    for part in style.split(","):
        name, colon, text = (word.strip() for word in part.partition(":"))
        if name not in names:
            raise unknown_name("style", name, names)
        if name in weights:
            raise WrongCall(f"the style {name!r} stands twice in {style!r}")
        weights[name] = _weight(text, style) if colon else 1.0
    total = sum(weights.values())
    if total <= 0:
        raise WrongCall(f"the weights in {style!r} sum to 0; expected at least one above 0")
    return tuple(weights.get(name, 0.0) / total for name in names)


def _weight(text: str, style: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not 0 <= weight < float("inf"):
        raise WrongCall(f"the weight {text!r} in {style!r} is not a number from 0 up; expected such as 'a:0.6,b:0.4'")
    return weight
