"""Lightning's own command line on the same classes: ``python -m impasto.training fit --config recipe.yaml``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from impasto.errors import require
from impasto.training.data import PhotoData
from impasto.training.module import StyleTransfer


def main(arguments: list[str] | None = None) -> Any:
    """Run Lightning's command line, with our callbacks; events go to ``runs/lightning`` unless told otherwise."""
    require("jsonargparse", purpose="Lightning's command line", extra="train")
    from pytorch_lightning.cli import LightningCLI
    from pytorch_lightning.loggers import TensorBoardLogger

    from impasto.training.callbacks import Previews, Progress
    from impasto.training.train import TRAINER

    folder = Path("runs/lightning")
    defaults = TRAINER | {
        "callbacks": [Previews(folder / "previews"), Progress()],
        "logger": TensorBoardLogger(str(folder), name="", default_hp_metric=False),
        "enable_progress_bar": False,
        "num_sanity_val_steps": 0,
        "max_epochs": -1,
    }
    return LightningCLI(
        StyleTransfer,
        PhotoData,
        trainer_defaults=defaults,
        save_config_kwargs={"overwrite": True},
        args=sys.argv[1:] if arguments is None else arguments,
    )


if __name__ == "__main__":
    main()
