"""What a run does when its loss is no longer a number: back to the last good state, once."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch.nn.utils import get_total_norm

from impasto.errors import Diverged
from impasto.training.module import StyleTransfer

KEEP_EVERY = 50
"""Steps between two copies of the state in memory."""

logger = logging.getLogger(__name__)


class Guard(pl.Callback):
    """Back to the last good state, at half the rate, when a step's loss or the weights after it are not finite.

    Weights, their average and the optimiser go back to a copy that is at most `KEEP_EVERY` steps old. The count of
    steps, the schedule and the photos go on: the same photos at the same rate would only lead there again. The half is
    `StyleTransfer.rate_factor`, part of every checkpoint, and lasts to the end of the run. The second time ends it.

    Several processes decide alike, and a checkpoint or a preview of a step comes after its check.

    Raises:
        Diverged: at the second bad step of a run, over all sittings.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the state that the run begins with."""
        self._keep(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the step that was taken."""
        assert isinstance(pl_module, StyleTransfer)
        finite = torch.isfinite(outputs["loss"] + get_total_norm(pl_module.net.parameters()))
        if trainer.strategy.reduce_boolean_decision(bool(finite)):
            if trainer.global_step % KEEP_EVERY == 0:
                self._keep(trainer, pl_module)
        else:
            self._go_back(trainer, pl_module)

    def _keep(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        state = {"step": trainer.global_step, "weights": module.state_dict()}
        self._kept = copy.deepcopy(state | {"optimiser": trainer.optimizers[0].state_dict()})

    def _go_back(self, trainer: pl.Trainer, module: StyleTransfer) -> None:
        step = trainer.global_step
        if module.rate_factor < 1:
            raise Diverged(
                f"step {step}: the loss is not finite, for the second time and at half the rate already: set a rate "
                f"below {module.rate} under model in the recipe, and go on with --resume from the last checkpoint"
            )
        module.rate_factor = 0.5
        module.load_state_dict(self._kept["weights"])
        trainer.optimizers[0].load_state_dict(self._kept["optimiser"])
        _tell(
            f"step {step}: the loss is not finite; back to the weights of step {self._kept['step']}, at half the rate"
        )


@rank_zero_only
def _tell(message: str) -> None:
    logger.warning(message)
