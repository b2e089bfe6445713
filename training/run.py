"""One training run: Lightning's Trainer with our callbacks, and what it leaves behind."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy, Strategy

from impasto.errors import Interrupted, WrongCall
from impasto.training.allocator import keep_memory
from impasto.training.callbacks import Checkpoints, Previews, Progress, StopOnInterrupt
from impasto.training.checkpoints import check_resume
from impasto.training.data import PhotoData
from impasto.training.guard import Guard
from impasto.training.hparams import HyperParameters
from impasto.training.module import StyleTransfer

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
    "max_steps": 8000,
    "max_epochs": -1,
    "num_sanity_val_steps": 0,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}
"""Options of the Trainer that are not Lightning's own."""


class Trainer(pl.Trainer):
    """Lightning's Trainer, quieter, with a strategy ``ddp`` that does not send the loss network around at each step.

    Several processes (a recipe's ``trainer: {devices: 2, strategy: ddp}``) train as one process with their batches in
    one: process r of W takes the r-th part of each W times larger batch of the same sequence.
    """

    def __init__(self, *, strategy: str | Strategy = "auto", **options: Any) -> None:
        _quieten()
        keep_memory()
        super().__init__(strategy=DDPStrategy(broadcast_buffers=False) if strategy == "ddp" else strategy, **options)


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
        CheckpointError: for a checkpoint that cannot be used or gone on from exactly, see `check_resume`.
        Diverged: if the loss is not finite, for the second time.
        Interrupted: at a Ctrl-C before the first step, after the last, or at the second one.
    """
    if (steps is None) == (module.minutes is None):
        raise WrongCall("length of the run: expected either steps or minutes, not both and not neither")
    options: dict[str, Any] = {
        "max_steps": -1 if steps is None else steps,
        "logger": TensorBoardLogger(str(folder), name="", version="", default_hp_metric=False),
        "callbacks": run_callbacks(folder),
    }
    return take(Trainer(**(TRAINER | options | (trainer or {}))), module, data, resume)


def run_callbacks(folder: str | Path) -> list[pl.Callback]:
    """Fresh callbacks of a run that writes to a folder, the guard before what shows or saves what it has checked."""
    folder = Path(folder)
    return [
        Guard(),
        Previews(folder / "previews"),
        HyperParameters(),
        Progress(),
        StopOnInterrupt(),
        Checkpoints(folder / "checkpoints"),
    ]


def take(runner: pl.Trainer, module: StyleTransfer, data: PhotoData, resume: str | Path | None = None) -> Run:
    """Train with a Trainer that has `run_callbacks`; arguments and errors as for `fit`."""
    if resume is not None:
        check_resume(resume, module, data, runner.world_size)
    last = _one(runner, Checkpoints).last
    try:
        runner.fit(module, datamodule=data, ckpt_path=None if resume is None else str(resume), weights_only=True)
        steps = runner.global_step
        runner.validate(module, datamodule=data, verbose=False, weights_only=True)
        runner.save_checkpoint(last, weights_only=False)  # again, with what validation found
    except SystemExit as error:  # Lightning's answer to a Ctrl-C outside the steps, or to the second one
        kept = f"the last checkpoint is {last}" if last.is_file() else "nothing is saved yet"
        raise Interrupted(f"stopped at once; {kept}") from error
    return Run(last, not _one(runner, StopOnInterrupt).interrupted, steps, module.elapsed)


def _one(runner: pl.Trainer, kind: type[Any]) -> Any:
    return next(each for each in runner.callbacks if isinstance(each, kind))  # type: ignore[attr-defined]  # a list


def _quieten() -> None:
    """Silence what Lightning says of choices that are meant as they are."""
    for choice in (
        "does not have many workers",
        "exists and is not empty",
        "LeafSpec",
        "logging interval",
        "not resumable",
        "in eval mode at the start",
        "when logging on epoch level in distributed setting",  # every process validates on all photos
        "broadcast_buffers",
    ):
        warnings.filterwarnings("ignore", message=f".*{choice}.*")
    for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.trainer.connectors.checkpoint_connector"):
        logging.getLogger(name).setLevel(logging.WARNING)
