"""Recipes: the settings of a run as a YAML file, the same for ``impasto train`` and Lightning's command line."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from impasto.card import Style
from impasto.errors import WrongCall, unknown_name
from impasto.training.data import PhotoData
from impasto.training.module import StyleTransfer

SECTIONS = ("seed_everything", "model", "data", "trainer")
TRAINER_KEYS = {
    "accelerator": "str",
    "devices": "",
    "gradient_clip_val": "float | None",
    "log_every_n_steps": "int",
    "max_steps": "int",
    "num_nodes": "int",
    "precision": "",
    "strategy": "str",
    "val_check_interval": "",
}
"""What a recipe may say to Lightning's Trainer, and of what kind it is; "" is left to Lightning."""

KINDS: dict[str, tuple[Any, str]] = {
    "int": (int, "a whole number"),
    "float": ((int, float), "a number such as 0.004"),  # 4e-3 is text in YAML, which asks for a point
    "bool": (bool, "true or false"),
    "str": (str, "text"),
    "list": (list, "a list"),
    "Mapping": (dict, "a mapping"),
}
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
    path = packaged if packaged.is_file() and not Path(name).is_file() else Path(name)
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise WrongCall(f"recipe {name}: {error.strerror}; expected a YAML file, or one of: {known}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise WrongCall(f"recipe {path} is not YAML: {' '.join(str(error).split())}") from error
    _check_keys(f"section of the recipe {path}", recipe, SECTIONS)
    sections = {"model": _arguments(StyleTransfer), "data": _arguments(PhotoData), "trainer": TRAINER_KEYS}
    for section, kinds in sections.items():
        if recipe.get(section) is None:
            recipe[section] = {}
        _check_keys(f"key under {section!r} in the recipe {path}", recipe[section], list(kinds))
        for key, value in recipe[section].items():
            _check_kind(f"{section}: {key} in the recipe {path}", value, kinds[key])
    _check_kind(f"seed_everything in the recipe {path}", recipe.setdefault("seed_everything", 0), "int")
    for style in recipe["model"].get("styles") or []:
        _check_keys(f"key of a style in the recipe {path}", style, [field.name for field in fields(Style)])
        if "name" not in style:
            raise WrongCall(f"style in the recipe {path}: got {style!r}, expected a name")
    return dict(recipe)


def _arguments(of: type) -> dict[str, str]:
    """The arguments of a class and their annotations."""
    return {name: argument.annotation for name, argument in inspect.signature(of).parameters.items()}


def _check_kind(what: str, got: Any, annotation: str) -> None:
    kind = annotation.partition("[")[0].partition(" ")[0]
    if kind not in KINDS or (got is None and annotation.endswith("| None")):
        return
    accepted, name = KINDS[kind]
    if not isinstance(got, accepted) or (isinstance(got, bool) and kind != "bool"):
        raise WrongCall(f"{what}: got {got!r}, expected {name}")


def _check_keys(kind: str, got: Any, known: Sequence[str]) -> None:
    if not isinstance(got, dict):
        raise WrongCall(f"{kind}: got {got!r}, expected a mapping with keys among {', '.join(known)}")
    for key in got:
        if key not in known:
            raise unknown_name(kind, str(key), known)
