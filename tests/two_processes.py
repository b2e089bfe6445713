"""What test_ddp runs in two processes: Lightning starts this program again for the second one."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tiny import TRAINER, make

from impasto.cli import main
from impasto.errors import Diverged
from impasto.training import StyleTransfer
from impasto.training.run import fit

TWO: dict[str, Any] = TRAINER | {"devices": 2, "strategy": "ddp"}


def as_a_command(world: Path, folder: Path) -> None:
    """A recipe with two processes, from the paintings to the pack."""
    words = ["train", str(world / "sea.png"), str(world / "red.png"), "--photos", str(world / "photos"), "--steps", "4"]
    words += ["--config", str(folder / "two.yaml"), "-o", str(folder / "pack"), "--run", str(folder / "run")]
    try:
        main(words, standalone_mode=False)
    except SystemExit as end:
        report(folder, "left", code=end.code)


def by_minutes(world: Path, folder: Path) -> None:
    """The second process has a clock that is twenty times as fast."""
    if rank():
        begun, monotonic = time.monotonic(), time.monotonic
        time.monotonic = lambda: begun + 20 * (monotonic() - begun)
    run = fit(*make(world, minutes=0.05), folder / "minutes", trainer=TWO)
    if rank():
        time.monotonic = monotonic
    report(folder, "minutes", steps=run.steps, seconds=run.seconds, finished=run.finished)


def interrupted(world: Path, folder: Path) -> None:
    """Only the second process hears the Ctrl-C."""
    begin = StyleTransfer.on_train_batch_start

    def start(self: StyleTransfer, batch: torch.Tensor, batch_idx: int) -> None:
        if rank() and self.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        begin(self, batch, batch_idx)

    StyleTransfer.on_train_batch_start = start  # type: ignore[method-assign]
    run = fit(*make(world), folder / "interrupted", steps=9, trainer=TWO)
    StyleTransfer.on_train_batch_start = begin  # type: ignore[method-assign]
    report(folder, "interrupted", steps=run.steps, finished=run.finished)


def off_the_rails(world: Path, folder: Path) -> None:
    """Only the second process meets a loss that is not finite; its gradient is that of a good one."""
    step = StyleTransfer.training_step

    def spoilt(self: StyleTransfer, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return step(self, batch, batch_idx) + (float("inf") if rank() and self.global_step in (1, 3) else 0.0)

    StyleTransfer.training_step = spoilt  # type: ignore[method-assign]
    module, data = make(world, rows_only=True)  # with weights that have no gradient to exchange
    try:
        fit(module, data, folder / "rails", steps=9, trainer=TWO)
    except Diverged as error:
        weights = float(sum(value.double().abs().sum() for value in module.state_dict().values()))
        report(folder, "rails", error=str(error), rate_factor=module.rate_factor, weights=weights)


def rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def report(folder: Path, name: str, **facts: Any) -> None:
    (folder / f"{name}_{rank()}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for scenario in (as_a_command, by_minutes, interrupted, off_the_rails):
        scenario(Path(sys.argv[1]), Path(sys.argv[2]))
