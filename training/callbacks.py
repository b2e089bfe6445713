"""What happens beside a training run: previews, progress, a graceful end on Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from impasto.training.checkpoints import WholeFiles
from impasto.training.module import StyleTransfer

CHECKPOINT_MINUTES = 2.0
"""Minutes between two checkpoints."""

FIRST_PREVIEWS = (1, 20, 50, 100, 200)
"""Steps of the early previews; later ones come by time."""


class Previews(pl.Callback):
    """Fixed photos, painted by the averaged network, in TensorBoard and as files in the run's folder.

    Args:
        folder: where the files go.
        photos: how many of the held-out photos to paint.
        every: seconds between previews after the early ones.
    """

    def __init__(self, folder: str | Path, photos: int = 4, every: float = 60.0) -> None:
        self.folder, self.photos, self.every = Path(folder), photos, every
        self.batch: Tensor | None = None
        self._last = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fetch the photos and show them."""
        if not trainer.is_global_zero:
            return
        loader = trainer.datamodule.val_dataloader()  # type: ignore[attr-defined]  # PhotoData is always there
        chosen = [photo for photo, _ in zip(loader, range(self.photos), strict=False)]
        self.batch = torch.cat(chosen)
        self._write(trainer, "photo", self.batch)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Paint early and then every so often."""
        due = trainer.global_step in FIRST_PREVIEWS or time.monotonic() - self._last > self.every
        if due and trainer.is_global_zero:
            self._paint(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Paint what the run came to."""
        if trainer.is_global_zero:
            self._paint(trainer, pl_module)

    @torch.no_grad()
    def _paint(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, StyleTransfer) and self.batch is not None
        with module.off_the_clock():
            photos = self.batch.to(module.device)
            for index, name in enumerate(module.names):
                weights = torch.zeros(len(photos), len(module.names), device=module.device)
                weights[:, index] = 1
                self._write(trainer, name, module.averaged(photos, weights).float().cpu())
        self._last = time.monotonic()

    def _write(self, trainer: pl.Trainer, name: str, pictures: Tensor) -> None:
        strip = np.rint(np.concatenate([*pictures.permute(0, 2, 3, 1).numpy()], axis=1) * 255).astype(np.uint8)
        self.folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(strip).save(self.folder / f"{name}_{trainer.global_step:06d}.jpg", quality=90)
        if trainer.logger is not None:
            trainer.logger.experiment.add_image(  # type: ignore[attr-defined]  # TensorBoard's writer
                f"preview/{name}", strip, trainer.global_step, dataformats="HWC"
            )


def _sum(logged: Mapping[str, Tensor], part: str) -> float:
    """The terms of a part of the loss together."""
    return sum(float(value) for name, value in logged.items() if name.split("/")[:2] == ["train", part])


class Progress(pl.Callback):
    """Where the run is, then one line with the step, the terms of the loss, pictures a second and the time left."""

    def __init__(self) -> None:
        self.bar: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the line."""
        assert isinstance(pl_module, StyleTransfer)
        log_dir = trainer.log_dir  # for Lightning a broadcast: every process has to ask
        if not trainer.is_global_zero:
            return
        if log_dir is not None:
            folder = Path(log_dir)
            tqdm.write(f"run: {folder}; watch it: tensorboard --logdir {folder}", file=sys.stderr)
        form = "{percentage:3.0f}%|{bar:24}| {elapsed}, {remaining} left{postfix}"
        self.bar = tqdm(
            total=1.0, initial=pl_module.progress, bar_format=form, file=sys.stderr, mininterval=0.5, miniters=0
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move on."""
        assert isinstance(pl_module, StyleTransfer)
        if self.bar is None:
            return
        logged = trainer.callback_metrics
        content, style, copy = (_sum(logged, part) for part in ("content", "style", "copy"))
        terms = f"copy {copy:.4f}" if copy else f"content {content:.3f}, style {style:.4f}"
        speed = float(logged.get("pictures_per_second", 0))
        self.bar.set_postfix_str(
            f"step {trainer.global_step}, {terms}, {speed:.1f} pictures/s",
            refresh=False,
        )
        self.bar.update(max(0.0, pl_module.progress - self.bar.n))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the line."""
        if self.bar is not None:
            self.bar.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the line."""
        self.on_train_end(trainer, pl_module)


class Checkpoints(pl.callbacks.Checkpoint):
    """The run's state in ``last.ckpt``, every `CHECKPOINT_MINUTES` and when it ends; the one before is kept as well.

    Args:
        folder: where the files go.
    """

    def __init__(self, folder: str | Path) -> None:
        self.last = Path(folder) / "last.ckpt"
        self._since = 0.0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """See to it that files are written whole."""
        trainer.strategy.checkpoint_io = WholeFiles()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._since = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write when it is time, by the first process's clock."""
        if trainer.strategy.broadcast(time.monotonic() - self._since >= 60 * CHECKPOINT_MINUTES):
            self._write(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what the run came to."""
        self._write(trainer, pl_module)

    def _write(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, StyleTransfer)
        with module.off_the_clock():
            trainer.save_checkpoint(self.last, weights_only=False)
        self._since = time.monotonic()


class StopOnInterrupt(pl.Callback):
    """The first Ctrl-C ends the run after the step it is in, so that it is saved; the second ends it at once.

    Several processes stop after the same step, whichever of them heard it.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._before: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over Ctrl-C, which belongs to the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return

        def stop(signum: int, frame: FrameType | None) -> None:
            self.interrupted = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        self._before = signal.signal(signal.SIGINT, stop)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if any process was told to."""
        self.interrupted = trainer.strategy.reduce_boolean_decision(self.interrupted, all=False)
        trainer.should_stop = trainer.should_stop or self.interrupted

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give it back."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give it back."""
        self.on_train_end(trainer, pl_module)
