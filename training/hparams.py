"""What a run was given and what it came to, as TensorBoard's HPARAMS tab compares runs."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

from impasto.training.module import StyleTransfer
from impasto.training.record import describe_run, pictures_seen


class HyperParameters(pl.Callback):
    """A row for the run in TensorBoard's HPARAMS table.

    Hyper-parameters are written when training begins. At every validation follow five scalars: ``compare/content`` and
    ``compare/style``, the means over the layers of the terms on held-out photos, before weighing, so that runs of
    different weights can be compared; ``compare/minutes``, ``compare/pictures``, ``compare/steps``. The table shows the
    first five scalars by name until told otherwise. A run that went to its end is marked as a success.

    A list of all columns, which TensorBoard calls the experiment, is not written: the first run's would stand for all
    runs. Without it TensorBoard finds the columns itself, and puts those that differ first.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what the run was given."""
        assert isinstance(pl_module, StyleTransfer)
        _, start, self._success = hparams(hyper_parameters(pl_module), {})  # type: ignore[no-untyped-call]  # torch's
        _write(trainer, start)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what it has come to."""
        assert isinstance(pl_module, StyleTransfer)
        pl_module.log_dict({f"compare/{name}": value for name, value in _outcome(pl_module).items()})

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Mark a finished run; an interrupted one may go on."""
        assert isinstance(pl_module, StyleTransfer)
        if pl_module.progress >= 1:
            _write(trainer, self._success)


def hyper_parameters(module: StyleTransfer) -> dict[str, float | str]:
    """The settings of a run in progress by flat names, such as ``rate``, ``style/relu4_3``, ``styles`` (as one text).

    Args:
        module: a `StyleTransfer` with its trainer attached.
    """
    record = describe_run(module)
    apart = ("hash", "held_out", "licence")
    data = {key: value for key, value in record["data"].items() if key not in apart}
    steps = module.trainer.max_steps if module.trainer.max_steps > 0 else None
    about = {"styles": module.names, "steps": steps, "device": record["device"], "commit": record["commit"]}
    about |= {role: record[role].get("pack") for role in ("start", "teacher")}
    return _flat(record["config"] | data | about)


def _flat(settings: Mapping[str, Any]) -> dict[str, float | str]:
    """Numbers and texts: what is nested gets a path for its name, a list becomes one text, None is left out."""
    flat: dict[str, float | str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{key}": inner for key, inner in _flat(value).items()}
        elif isinstance(value, list | tuple):
            flat[name] = ", ".join(str(item) for item in value)
        elif value is not None:
            flat[name] = value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
    return flat


def _outcome(module: StyleTransfer) -> dict[str, float]:
    """Means of the latest terms on held-out photos, and what they took."""
    terms = module.trainer.callback_metrics
    means = {
        kind: fmean(float(terms[f"validation/{kind}/{layer}"]) for layer in layers)
        for kind, layers in (("content", module.content), ("style", module.style))
        if layers
    }
    trainer = module.trainer
    taken = {"minutes": module.elapsed / 60, "pictures": pictures_seen(trainer), "steps": trainer.global_step}
    return means | {name: float(value) for name, value in taken.items()}


def _write(trainer: pl.Trainer, summary: Any) -> None:
    """Add a summary to TensorBoard's log, in the one process that writes it."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            logger.experiment._get_file_writer().add_summary(summary)
