"""A training run from paintings to a style pack."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger

from impasto.card import Style
from impasto.errors import CheckpointError, Interrupted, WrongCall
from impasto.packs import Pack
from impasto.training.callbacks import Previews, Progress, StopOnInterrupt
from impasto.training.checkpoints import export_checkpoint, load_checkpoint
from impasto.training.data import PhotoData
from impasto.training.export import check_output, export_pack, join_styles, load_network, select_styles
from impasto.training.module import StyleTransfer
from impasto.training.recipe import Recipe, read_recipe

CHECKPOINT_MINUTES = 2.0
LOG_EVERY = 5
"""Steps between two points of a curve."""

VALIDATE_EVERY = 500
"""Steps between validations on the held-out photos."""

TRAINER: dict[str, Any] = {
    "accelerator": "auto",
    "devices": 1,
    "gradient_clip_val": 1.0,
    "log_every_n_steps": LOG_EVERY,
    "precision": "bf16-mixed",
    "val_check_interval": VALIDATE_EVERY,
    "check_val_every_n_epoch": None,
}


@dataclass(frozen=True)
class Run:
    """What a training run left behind.

    Attributes:
        checkpoint: the file to export, or to go on from.
        finished: false if it was interrupted.
        steps: steps taken, over all sittings.
        seconds: training time, over all sittings.
    """

    checkpoint: Path
    finished: bool
    steps: int
    seconds: float


def fit(
    module: StyleTransfer,
    data: PhotoData,
    folder: str | Path,
    *,
    steps: int | None = None,
    resume: str | Path | None = None,
    trainer: dict[str, Any] | None = None,
) -> Run:
    """Train: events for TensorBoard, previews and checkpoints go to a run folder.

    The first Ctrl-C ends the run after the step it is in; what was learned is saved. The second ends it at once.

    Args:
        module: what to train.
        data: photos to train on.
        folder: the run's folder; made if it is not there.
        steps: length of the run; None if the module has ``minutes``.
        resume: checkpoint to go on from.
        trainer: options for Lightning's Trainer beside `TRAINER`.

    Raises:
        WrongCall: if there is not exactly one of steps and the module's minutes.
        CheckpointError: for a checkpoint that cannot be used, or of another network or number of styles.
        Interrupted: at a Ctrl-C before the first step, after the last, or at the second one.
    """
    if (steps is None) == (module.minutes is None):
        raise WrongCall("length of the run: expected either steps or minutes, not both and not neither")
    if resume is not None:
        _check_resume(load_checkpoint(resume), module, resume)
    folder = Path(folder)
    interrupt = StopOnInterrupt()
    _quieten()
    runner = _trainer(folder, steps, interrupt, trainer or {})
    last = folder / "checkpoints" / "last.ckpt"
    try:
        runner.fit(module, data, ckpt_path=None if resume is None else str(resume), weights_only=True)
        steps_taken = runner.global_step
        runner.save_checkpoint(last, weights_only=False)
        runner.validate(module, datamodule=data, verbose=False, weights_only=True)
        runner.save_checkpoint(last, weights_only=False)  # again, with what validation found
    except SystemExit as error:  # Lightning's answer to a Ctrl-C outside the steps, or to the second one
        kept = f"the last checkpoint is {last}" if last.is_file() else "nothing is saved yet"
        raise Interrupted(f"stopped at once; {kept}") from error
    return Run(last, not interrupt.interrupted, steps_taken, module.elapsed)


def _trainer(folder: Path, steps: int | None, interrupt: StopOnInterrupt, options: dict[str, Any]) -> pl.Trainer:
    """Lightning's Trainer with our callbacks, writing to the run's folder."""
    checkpoints = ModelCheckpoint(
        folder / "checkpoints",
        filename="{step:06d}",
        train_time_interval=timedelta(minutes=CHECKPOINT_MINUTES),
        save_last=True,
        enable_version_counter=False,
    )
    return pl.Trainer(
        max_steps=-1 if steps is None else steps,
        max_epochs=-1,
        logger=TensorBoardLogger(str(folder), name="", version="", default_hp_metric=False),
        callbacks=[checkpoints, Previews(folder / "previews"), Progress(), interrupt],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **(TRAINER | options),
    )


def _check_resume(checkpoint: dict[str, Any], module: StyleTransfer, path: str | Path) -> None:
    """Refuse a checkpoint of other weights than the module's."""
    found = {key: tuple(value.shape) for key, value in checkpoint["state_dict"].items()}
    if found != {key: tuple(value.shape) for key, value in module.state_dict().items()}:
        settings = checkpoint["hyper_parameters"]
        raise CheckpointError(
            f"{path} is of a network {settings['network']!r} with {len(settings['style_images'])} styles, expected "
            f"one of the run's shape: {module.hparams['network']!r} with {len(module.names)} styles"
        )


def _quieten() -> None:
    """Silence what Lightning says of choices that are meant as they are."""
    for choice in (
        "does not have many workers",
        "exists and is not empty",
        "LeafSpec",
        "logging interval",
        "not resumable",
        "dirpath has changed",
        "in eval mode at the start",
    ):
        warnings.filterwarnings("ignore", message=f".*{choice}.*")
    for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.trainer.connectors.checkpoint_connector"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _length(steps: int | None, minutes: float | None, recipe: Recipe) -> tuple[int | None, float | None]:
    """Steps or minutes: the call's, else the recipe's."""
    if steps is not None and minutes is not None:
        raise WrongCall(f"length of the run: got {steps} steps and {minutes} minutes, expected one of them")
    if steps is None and minutes is None:
        minutes = recipe["model"].get("minutes")
        steps = None if minutes is not None else recipe["trainer"].get("max_steps", 8000)
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


def train(
    style_images: Sequence[str],
    photos: Sequence[str],
    output: str | Path,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    network: str | None = None,
    config: str | Path = "fast",
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
    steps, minutes = _length(steps, minutes, recipe)
    seed = _seed(seed, recipe)
    model = _model(recipe, style_images, minutes, seed, styles)
    if network is not None:
        model["network"] = network
    data, trainer = _data(recipe, photos, seed, photos_licence), _trainer_options(recipe)
    run = run or Path("runs") / output.name
    left = fit(StyleTransfer(**model), data, run, steps=steps, resume=resume, trainer=trainer)
    if not left.finished:
        raise Interrupted(
            f"stopped after {left.steps} steps; saved. Go on with --resume {left.checkpoint}, "
            f"or make a pack of it as it is: impasto export {left.checkpoint} -o PACK"
        )
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
    steps, minutes = _length(steps, minutes, recipe)
    seed = _seed(seed, recipe)
    trunk = load_network(pack)
    model = _model(recipe, style_images, minutes, seed, styles)
    module = StyleTransfer(**(model | {"network": trunk.network, "sizes": trunk.sizes, "rows_only": True}))
    names = module.names
    for name in set(names) & set(pack.card.style_names):
        raise WrongCall(f"the pack {pack.card.name} has a style {name!r} already: rename the new painting's file")
    module.start_from(select_styles(trunk, torch.full((len(names), trunk.styles), 1 / trunk.styles)))
    data, trainer = _data(recipe, photos, seed, photos_licence), _trainer_options(recipe)
    left = fit(module, data, run or Path("runs") / output.name, steps=steps, resume=resume, trainer=trainer)
    if not left.finished:
        raise Interrupted(f"stopped after {left.steps} steps; saved. Go on with --resume {left.checkpoint}")
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
