"""Recipes: the settings of a run as a YAML file, the same for ``impasto train`` and Lightning's command line."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from impasto.errors import WrongCall, unknown_name
from impasto.training.data import PhotoData
from impasto.training.module import StyleTransfer

SECTIONS = ("seed_everything", "model", "data", "trainer")
TRAINER_KEYS = ("accelerator", "devices", "gradient_clip_val", "max_steps", "precision", "val_check_interval")
FOLDER = Path(__file__).parent / "recipes"

Recipe = dict[str, Any]


def read_recipe(name: str | Path) -> Recipe:
    """Read a recipe.

    Args:
        name: a file, or the name of a recipe that comes with the package (``fast``, ``johnson``).

    Returns:
        The sections ``model`` (arguments of `StyleTransfer`), ``data`` (of `PhotoData`), ``trainer`` (of Lightning's
        Trainer), each perhaps empty, and ``seed_everything``.

    Raises:
        WrongCall: for a file that is missing or not such a recipe, or an unknown key, with the nearest that exists.
    """
    packaged = FOLDER / f"{name}.yaml"
    path = packaged if packaged.is_file() and not Path(name).exists() else Path(name)
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise WrongCall(f"recipe {name}: {error.strerror}; expected a YAML file, or one of: {known}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise WrongCall(f"recipe {path} is not YAML: {' '.join(str(error).split())}") from error
    _check_keys(f"section of the recipe {path}", recipe, SECTIONS)
    sections = {"model": _arguments(StyleTransfer), "data": _arguments(PhotoData), "trainer": TRAINER_KEYS}
    for section, known_keys in sections.items():
        _check_keys(f"key under {section!r} in the recipe {path}", recipe.setdefault(section, {}), known_keys)
    return dict(recipe)


def _arguments(of: type) -> list[str]:
    return [name for name in inspect.signature(of).parameters if name != "self"]


def _check_keys(kind: str, got: Any, known: Sequence[str]) -> None:
    if not isinstance(got, dict):
        raise WrongCall(f"{kind}: got {got!r}, expected a mapping with keys among {', '.join(known)}")
    for key in got:
        if key not in known:
            raise unknown_name(kind, str(key), known)
