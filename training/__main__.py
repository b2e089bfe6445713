"""Lightning's own command line on the same classes: ``python -m impasto.training fit --config recipe.yaml``."""

from __future__ import annotations

from typing import Any

from impasto.errors import require
from impasto.training.data import PhotoData
from impasto.training.module import StyleTransfer


def main(arguments: list[str] | None = None) -> Any:
    """Run Lightning's command line, with our callbacks; events go to ``runs/lightning`` unless told otherwise."""
    require("jsonargparse", purpose="Lightning's command line", extra="train")
    from pytorch_lightning.cli import LightningCLI

    from impasto.training.callbacks import Previews, Progress, SaveLast
    from impasto.training.train import TRAINER

    folder = "runs/lightning"
    defaults = TRAINER | {
        "callbacks": [Previews(f"{folder}/previews"), Progress(), SaveLast(f"{folder}/checkpoints/last.ckpt")],
        "logger": {
            "class_path": "pytorch_lightning.loggers.TensorBoardLogger",
            "init_args": {"save_dir": folder, "name": "", "default_hp_metric": False},
        },
        "enable_progress_bar": False,
        "num_sanity_val_steps": 0,
        "max_epochs": -1,
    }
    return LightningCLI(
        StyleTransfer,
        PhotoData,
        trainer_defaults=defaults,
        save_config_kwargs={"overwrite": True},
        args=arguments,
    )


if __name__ == "__main__":
    main()
