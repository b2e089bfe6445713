"""A training run from paintings to a style pack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only

from impasto.card import Style
from impasto.errors import ImpastoError, Interrupted, WrongCall
from impasto.packs import Pack
from impasto.training.checkpoints import export_checkpoint, load_checkpoint
from impasto.training.data import PhotoData
from impasto.training.export import check_output, export_pack, join_styles, load_network
from impasto.training.module import StyleTransfer
from impasto.training.recipe import Recipe, read_recipe
from impasto.training.run import TRAINER, Run, fit


def run_length(steps: int | None, minutes: float | None, recipe: Recipe) -> tuple[int | None, float | None]:
    """Steps or minutes: the call's, else the recipe's."""
    if steps is not None and minutes is not None:
        raise WrongCall(f"length of the run: got {steps} steps and {minutes} minutes, expected one of them")
    if steps is None and minutes is None:
        minutes = recipe["model"].get("minutes")
        steps = None if minutes is not None else recipe["trainer"].get("max_steps", TRAINER["max_steps"])
    if (steps is not None and steps < 1) or (minutes is not None and not 0 < minutes < math.inf):
        raise WrongCall(f"length of the run: got {steps if minutes is None else minutes}, expected more than 0")
    return steps, minutes


def _seed(seed: int | None, recipe: Recipe) -> int:
    """The call's seed, else the recipe's; set for everything that draws without a generator of its own."""
    seed = int(recipe.get("seed_everything", 0)) if seed is None else seed
    if not 0 <= seed < 2**32:
        raise WrongCall(f"seed: got {seed}, expected a number from 0 to {2**32 - 1}")
    return pl.seed_everything(seed, verbose=False)


def _model(
    recipe: Recipe, style_images: Sequence[str], minutes: float | None, seed: int, styles: Sequence[Style] | None
) -> dict[str, Any]:
    """The arguments of `StyleTransfer`: the recipe's, with the call's over them."""
    model: dict[str, Any] = recipe["model"] | {"style_images": [str(path) for path in style_images]}
    known = {} if styles is None else {"styles": [vars(style) for style in styles]}
    return model | known | {"minutes": minutes, "seed": seed}


def _data(recipe: Recipe, photos: Sequence[str], seed: int, licence: str) -> PhotoData:
    """The photos: the recipe's settings, the call's folders."""
    data = PhotoData(**(recipe["data"] | {"photos": [str(path) for path in photos], "seed": seed}))
    data.licence = licence
    return data


def _trainer_options(recipe: Recipe) -> dict[str, Any]:
    """The recipe's options for the Trainer; the length of the run goes its own way."""
    return {key: value for key, value in recipe["trainer"].items() if key != "max_steps"}


def _to_its_end(module: StyleTransfer, data: PhotoData, folder: str | Path, makes_pack: bool, **options: Any) -> Run:
    """Train; come back with a finished run. Of several processes only the first comes back, or speaks of an error.

    Raises:
        Interrupted: for a run that was stopped by Ctrl-C.
        SystemExit: in the other processes of a run.
    """
    try:
        left = fit(module, data, folder, **options)
        if not left.finished:
            export = f", or make a pack of it as it is: impasto export {left.checkpoint} -o PACK" if makes_pack else ""
            raise Interrupted(f"stopped after {left.steps} steps; saved. Go on with --resume {left.checkpoint}{export}")
    except ImpastoError as error:
        if _is_helper():
            raise SystemExit(error.exit_code) from error
        raise
    if _is_helper():
        raise SystemExit
    return left


def _is_helper() -> bool:
    """Whether this is another process of a run than the first."""
    return bool(rank_zero_only.rank)  # type: ignore[attr-defined]  # Lightning keeps it there


def train(
    style_images: Sequence[str],
    photos: Sequence[str],
    output: str | Path,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    network: str | None = None,
    config: str | Path = "fast",
    start: str | Path | None = None,
    seed: int | None = None,
    run: str | Path | None = None,
    resume: str | Path | None = None,
    styles: Sequence[Style] | None = None,
    photos_licence: str = "",
) -> Pack:
    """Train a network on paintings and write a style pack.

    Args:
        style_images: paintings, one a style.
        photos: folders of photos to train on.
        output: folder of the pack; must not exist or be empty.
        steps: length of the run by steps.
        minutes: or by training time.
        network: "fast" or "johnson"; by default the recipe's.
        config: recipe, a file or a packaged name.
        start: pack to begin from, by name or folder, of the same network; by default random weights.
        seed: of weights, order, crops, styles and strengths; by default the recipe's.
        run: folder of events, previews and checkpoints; by default ``runs/`` and the pack's name.
        resume: checkpoint to go on from.
        styles: what is known of each painting; by default its name only, from the file.
        photos_licence: what the card says of the photos' terms.

    Raises:
        WrongCall: for arguments or a recipe that cannot be right.
        PictureError: for a painting that cannot be read or a folder without photos.
        ExportError: if the exported network does not do what the trained one does.
        Interrupted: if the run was stopped by Ctrl-C; its message names the checkpoint.
    """
    output = check_output(output)
    recipe = read_recipe(config)
    steps, minutes = run_length(steps, minutes, recipe)
    seed = _seed(seed, recipe)
    model = _model(recipe, style_images, minutes, seed, styles)
    if network is not None:
        model["network"] = network
    if start is not None:
        model["start"] = str(start)
    data, trainer = _data(recipe, photos, seed, photos_licence), _trainer_options(recipe)
    run = run or Path("runs") / output.name
    left = _to_its_end(StyleTransfer(**model), data, run, True, steps=steps, resume=resume, trainer=trainer)
    return export_checkpoint(left.checkpoint, output)


def add_style(
    pack: Pack,
    style_images: Sequence[str],
    photos: Sequence[str],
    output: str | Path,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    config: str | Path = "add_style",
    seed: int | None = None,
    run: str | Path | None = None,
    resume: str | Path | None = None,
    styles: Sequence[Style] | None = None,
    photos_licence: str = "",
) -> Pack:
    """Learn new styles into a copy of a pack: only their rows are trained, the old styles stay as they are to the bit.

    The new rows start from the mean of the old ones. Arguments and errors as for `train`; ``output`` is a new folder.

    Raises:
        WrongCall: also if a style of that name is in the pack already.
    """
    output = check_output(output)
    recipe = read_recipe(config)
    steps, minutes = run_length(steps, minutes, recipe)
    seed = _seed(seed, recipe)
    trunk = load_network(pack)
    model = _model(recipe, style_images, minutes, seed, styles)
    module = StyleTransfer(**(model | {"network": trunk.network, "sizes": trunk.sizes, "rows_only": True}))
    names = module.names
    for name in set(names) & set(pack.card.style_names):
        raise WrongCall(f"the pack {pack.card.name} has a style {name!r} already: rename the new painting's file")
    module.start_from(trunk)
    data, trainer = _data(recipe, photos, seed, photos_licence), _trainer_options(recipe)
    run = run or Path("runs") / output.name
    left = _to_its_end(module, data, run, False, steps=steps, resume=resume, trainer=trainer)
    checkpoint = load_checkpoint(left.checkpoint)
    added = [Style(**style) for style in checkpoint["hyper_parameters"]["styles"]]
    record = dict(pack.card.training)
    record["added"] = [*record.get("added", []), {"styles": names, **checkpoint["record"]}]
    quality = dict(pack.card.quality) | {"added": {"styles": names, **checkpoint["quality"]}}
    return export_pack(
        join_styles(trunk, module.averaged),
        output,
        styles=[*pack.card.styles, *added],
        training=record,
        quality=quality,
    )
