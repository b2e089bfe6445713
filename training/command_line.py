"""Lightning's command line, so that a recipe means the same as for ``impasto train``. Needs jsonargparse."""

from __future__ import annotations

from pytorch_lightning.cli import LightningCLI

from impasto.training.data import PhotoData
from impasto.training.module import StyleTransfer
from impasto.training.run import TRAINER, Run, Trainer, run_callbacks, take
from impasto.training.train import run_length

FOLDER = "runs/lightning"
"""Where a run goes."""


class CommandLine(LightningCLI):
    """Lightning's command line with the seed, the length and the end of a run that ``impasto train`` gives it."""

    def before_instantiate_classes(self) -> None:
        """One seed for everything; minutes, where they are given, instead of steps."""
        config = self.config[str(self.subcommand)]
        config.model.seed = config.data.seed = config.seed_everything
        steps, _ = run_length(None, None, {"model": config.model, "trainer": config.trainer})
        config.trainer.max_steps = -1 if steps is None else steps

    def fit(
        self,
        model: StyleTransfer,
        datamodule: PhotoData,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
    ) -> Run:
        """Train as `impasto.training.run.fit` does."""
        return take(self.trainer, model, datamodule, ckpt_path)


def run_command_line(arguments: list[str] | None = None) -> CommandLine:
    """Parse the arguments, by default the program's, and do what they say."""
    logger = {
        "class_path": "pytorch_lightning.loggers.TensorBoardLogger",
        "init_args": {"save_dir": FOLDER, "name": "", "default_hp_metric": False},
    }
    return CommandLine(
        StyleTransfer,
        PhotoData,
        trainer_class=Trainer,
        trainer_defaults=TRAINER | {"logger": logger, "callbacks": run_callbacks(FOLDER)},
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        args=arguments,
    )
