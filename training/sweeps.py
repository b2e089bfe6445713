"""Short runs that differ in one setting, side by side on one sheet."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from impasto.card import Style
from impasto.errors import Interrupted, WrongCall, unknown_name
from impasto.formats import write_atomically
from impasto.images import picture_from_pil, read_rgb, write_picture
from impasto.packs import Pack
from impasto.sheets import sheet
from impasto.training.data import PhotoData
from impasto.training.export import check_output, load_network
from impasto.training.module import CONTENT, STYLE, StyleTransfer
from impasto.training.recipe import Recipe, read_recipe
from impasto.training.train import train

LAYERED = {"style": STYLE, "content": CONTENT}
"""Terms with a weight a layer, and the weights where a recipe gives none."""

NUMBERS = ("tv", "steady", "rate", "style_size")
"""Other settings that can be swept, each one number."""

SHEET = "sheet.png"
PHOTOS = 4
"""Photos on the sheet, each once a style."""


def sweep(
    style_images: Sequence[str],
    photos: Sequence[str],
    output: str | Path,
    *,
    term: str,
    values: Sequence[float],
    steps: int | None = None,
    minutes: float | None = None,
    network: str | None = None,
    config: str | Path = "fast",
    start: str | Path | None = None,
    seed: int | None = None,
    run: str | Path | None = None,
    styles: Sequence[Style] | None = None,
    photos_licence: str = "",
) -> dict[str, Pack]:
    """Train once for each value of one setting, and lay the results side by side.

    All else is equal, the seed included. The packs go to ``output/style_4`` and so on, the labelled sheet to
    ``output/sheet.png`` (anew after each run), the runs to ``run/style=4`` and so on, where TensorBoard compares them.
    The same call again goes on: finished runs are kept, one that was stopped goes on from its checkpoint.

    Args:
        style_images: as for `train`, like all that is not named here.
        photos: folders of photos.
        output: folder of the sheet and the packs; new or empty, or that of the same sweep.
        term: "style" or "content" (every layer gets the value for its weight), one layer's weight such as
            "style/relu4_3", "tv", "steady", "rate" or "style_size".
        values: what to try.
        steps: length of each run by steps.
        minutes: or by training time.
        network: "fast" or "johnson".
        config: recipe, a file or a packaged name.
        start: pack that each run begins from.
        seed: of every run.
        run: folder of the runs; by default ``runs/`` and the output's name.
        styles: what is known of each painting.
        photos_licence: what the cards say of the photos' terms.

    Returns:
        The packs by label, such as ``style=4``.

    Raises:
        WrongCall: also for an unknown term, a value that it cannot have, or folders of another sweep.
        Interrupted: if it was stopped by Ctrl-C.
    """
    if (steps is None) == (minutes is None):
        raise WrongCall("a sweep: expected either steps or minutes, the length of each of its runs")
    recipe = read_recipe(config)
    recipe["model"] |= {} if network is None else {"network": network}
    recipe["model"] |= {} if start is None else {"start": str(start)}
    recipe["seed_everything"] = recipe["seed_everything"] if seed is None else seed
    recipes = _recipes(recipe, term, values)
    facts = {"styles": None if styles is None else [dict(vars(style)) for style in styles]}
    paintings, folders = [str(path) for path in style_images], [str(path) for path in photos]
    _check_models(recipes, paintings, facts)
    shown = _held_out(recipe, folders)
    output = Path(output)
    folder = Path(run or Path("runs") / output.name)
    length = {"steps": steps, "minutes": minutes}
    options = {
        "style_images": paintings,
        "photos": folders,
        "styles": styles,
        "photos_licence": photos_licence,
        **length,
    }
    _claim(folder, output, {"sweep": term, "paintings": paintings, "photos": folders, **length, **facts, **recipe})
    tqdm.write(f"{len(recipes)} runs; watch them side by side: tensorboard --logdir {folder}", file=sys.stderr)
    packs: dict[str, Pack] = {}
    columns: list[Column] = []
    for number, label in enumerate(recipes, 1):
        where = f"run {number} of {len(recipes)}, {label}"
        pack = output / label.replace("=", "_")
        finished = (pack / "card.json").is_file()
        tqdm.write(where + (": finished" if finished else ""), file=sys.stderr)
        try:
            packs[label] = Pack.load(pack) if finished else _trained(recipes[label], folder / label, pack, options)
        except (Interrupted, KeyboardInterrupt) as error:
            raise Interrupted(f"stopped in {where}; give the same command again to go on") from error
        columns += [] if columns else [_photo_column(packs[label], shown)]
        columns.append(_painted_column(label, packs[label], shown))
        beside = _side_by_side(columns, _captions(packs[label], shown))
        write_picture(picture_from_pil(beside), output / SHEET)
    return packs


def _trained(recipe: Recipe, folder: Path, pack: Path, options: dict[str, Any]) -> Pack:
    """Train and export, going on from the run's checkpoint if there is one."""
    last = folder / "checkpoints" / "last.ckpt"
    _save(folder / "recipe.yaml", recipe)
    resume = last if last.is_file() else None
    return train(output=pack, config=folder / "recipe.yaml", run=folder, resume=resume, **options)


def parse_sweep(text: str) -> tuple[str, list[float]]:
    """``style=4,8,16`` as a term and its values.

    Raises:
        WrongCall: for anything else.
    """
    term, _, values = text.partition("=")
    try:
        return term.strip(), [float(value) for value in values.split(",")]
    except ValueError:
        raise WrongCall(f"sweep: got {text!r}, expected a setting and numbers, such as style=4,8,16") from None


def _recipes(recipe: Recipe, term: str, values: Sequence[float]) -> dict[str, Recipe]:
    """The recipe of each run by its label."""
    model = recipe["model"]
    layers = {kind: dict(model.get(kind, weights)) for kind, weights in LAYERED.items()}
    one_layer = [f"{kind}/{layer}" for kind, weights in layers.items() for layer in weights]
    if term not in (known := [*LAYERED, *NUMBERS, *one_layer]):
        raise unknown_name("setting to sweep", term, known)
    kind, _, layer = term.partition("/")
    recipes = {}
    for value in values:
        setting: Any = _checked(term, value)
        if kind in layers:
            setting = layers[kind] | dict.fromkeys([layer] if layer else layers[kind], setting)
        recipes[f"{term.replace('/', '_')}={value:.10g}"] = recipe | {"model": model | {kind: setting}}
    if not values or len(recipes) < len(values):
        raise WrongCall(f"sweep of {term}: got {list(values)}, expected one or more different values")
    return recipes


def _checked(term: str, value: float) -> float:
    positive = term in ("rate", "style_size")
    if not 0 <= value < math.inf or (positive and value == 0) or (term == "style_size" and value != int(value)):
        kind = "a whole number of pixels" if term == "style_size" else "a number"
        raise WrongCall(f"sweep of {term}: got {value:g}, expected {kind} {'above' if positive else 'from'} 0")
    return int(value) if term == "style_size" else float(value)


def _check_models(recipes: Mapping[str, Recipe], paintings: list[str], facts: dict[str, Any]) -> None:
    """Let the first run fail now rather than the last one later."""
    for path in paintings:
        read_rgb(path)
    for recipe in recipes.values():
        known = {key: value for key, value in facts.items() if value is not None}
        StyleTransfer(**(recipe["model"] | {"style_images": paintings} | known))


def _held_out(recipe: Recipe, folders: list[str]) -> Tensor:
    """The photos of the sheet (N, 3, size, size)."""
    data = PhotoData(**(recipe["data"] | {"photos": folders}))
    data.setup()
    return torch.cat([photo for photo, _ in zip(data.val_dataloader(), range(PHOTOS), strict=False)])


def _claim(folder: Path, output: Path, settings: dict[str, Any]) -> None:
    """Note in the folder of the runs what sweep it holds, or refuse to mix two."""
    note = folder / "sweep.yaml"
    if note.is_file() and (output.exists() or any(folder.glob("*/checkpoints/*.ckpt"))):
        before = yaml.safe_load(note.read_text(encoding="utf-8"))
        if differ := [key for key in settings if before.get(key) != settings[key]]:
            raise WrongCall(
                f"{folder} holds a sweep with other settings ({', '.join(differ)}): choose another output and run "
                "folder, or move the old ones away"
            )
    else:
        check_output(output)
        _save(note, settings)


def _save(path: Path, settings: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True).encode())


# the sheet


@dataclass(frozen=True)
class Column:
    """A column of the sheet: its title, its pictures from the top down, and the lines beneath them."""

    title: str
    pictures: Sequence[Image.Image]
    notes: Sequence[str]


def validation_terms(pack: Pack) -> dict[str, float]:
    """The terms on held-out photos that a pack's card has; not their sum, which means little where weights differ."""
    return {name: value for name, value in pack.card.quality.items() if isinstance(value, float) and name != "total"}


def _photo_column(pack: Pack, photos: Tensor) -> Column:
    """The photos, once for each style, and the names of the terms."""
    quality = pack.card.quality
    judged = f"{quality['photos']} photos {'held out' if quality['held_out'] else 'of the training'}:"
    return Column("photo", _images(photos) * len(pack.card.styles), [judged, *validation_terms(pack)])


@torch.no_grad()
def _painted_column(label: str, pack: Pack, photos: Tensor) -> Column:
    """The photos as a pack paints them, and its terms."""
    net = load_network(pack).eval()
    pictures = [net(photos, style.expand(len(photos), -1)) for style in torch.eye(net.styles)]
    terms = [f"{value:.4g}" for value in validation_terms(pack).values()]
    return Column(label, [image for painted in pictures for image in _images(painted)], ["", *terms])


def _captions(pack: Pack, photos: Tensor) -> list[str]:
    """The style of each row, if there are several."""
    names = pack.card.style_names
    return [name for name in names for _ in photos] if len(names) > 1 else []


def _images(pictures: Tensor) -> list[Image.Image]:
    return [Image.fromarray(picture) for picture in (pictures * 255).round().byte().permute(0, 2, 3, 1).numpy()]


def _side_by_side(columns: Sequence[Column], captions: Sequence[str]) -> Image.Image:
    rows = list(zip(*(column.pictures for column in columns), strict=True))
    titles, notes = [column.title for column in columns], [column.notes for column in columns]
    return sheet(rows, titles=titles, captions=captions, notes=notes)
