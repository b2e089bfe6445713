"""What the units of a layer stand for, watched while the network is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl

from impasto.errors import WrongCall
from impasto.visualization.charts import flow
from impasto.visualization.concepts import Concepts
from impasto.visualization.detectors import counts
from impasto.visualization.dissection import Dissection, Layer, dissection
from impasto.visualization.inputs import Masked, PicturesLike
from impasto.visualization.model import Model
from impasto.visualization.unit_changes import NONE, changes


class UnitLabels(pl.Callback):
    """Dissects a layer before training and after each epoch, and tells TensorBoard what changed.

    Logged are ``units/detectors``, ``units/concepts`` (different ones) and ``units/changed`` (units that stand for
    something else than the time before), against the global step; a table of the labels as text, and the flow from the
    time before as a picture. Training is left as it was: the network is copied, and no global generator is used.

    Args:
        pictures: photos, with masks or without, as of `dissect`.
        model_of: from the module in training to the network that is looked into, such as
            ``lambda module: load_model(module.network, size=64)``.
        layer: as of ``dissect``.
        every: epochs from one look to the next.
        concepts: as of ``dissect``.
        top: as of ``dissect``.
        detector: as of ``dissect``.
        least: as of ``dissect``.

    Attributes:
        history: for each look the global step and the label of each unit, None for one that is no detector.

    Raises:
        WrongCall: fewer than one epoch from look to look.

    Example:
        ``pl.Trainer(callbacks=[UnitLabels("photos", lambda module: load_model(module.network), layer="layer4")])``
    """

    def __init__(
        self,
        pictures: PicturesLike,
        model_of: Callable[[Any], Model],
        *,
        layer: str = "",
        every: int = 1,
        concepts: str = "all",
        top: float = 0.005,
        detector: float = 0.04,
        least: int = 5,
    ) -> None:
        if every < 1:
            raise WrongCall(f"every: got {every}, expected 1 epoch or more")
        self.concepts = Concepts.of(Masked.of(pictures), concepts)
        self.model_of, self.layer, self.every = model_of, layer, every
        self.top, self.detector, self.least = top, detector, least
        self.history: list[tuple[int, list[str | None]]] = []
        self._before: Dissection | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at what training begins with."""
        self._look(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look when it is time."""
        if (trainer.current_epoch + 1) % self.every == 0:
            self._look(trainer, pl_module)

    def _look(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        where = Layer.of(self.model_of(module), self.layer)
        found = dissection(where, self.concepts, top=self.top, least=self.least)
        names = [None if number is None else found.concepts.names[number] for number in found.labels(self.detector)]
        self.history.append((trainer.global_step, names))
        if trainer.logger is not None:
            self._log(trainer.logger.experiment, trainer.global_step, found)  # type: ignore[attr-defined]
        self._before = found

    def _log(self, writer: Any, step: int, found: Dissection) -> None:
        known = counts(found, self.detector)
        writer.add_scalar("units/detectors", known["detectors"], step)
        writer.add_scalar("units/concepts", known["concepts"], step)
        units = changes(self._before or found, found, self.detector)
        writer.add_text("units/labels", _table(units), step)
        if self._before is None:
            return
        changed = sum(unit["changed"] for unit in units)
        writer.add_scalar("units/changed", changed, step)
        names = [[unit[when] for unit in units] for when in ("before", "after")]
        height = max(360, 24 * len({*names[0], *names[1]}))
        drawn = flow(*names, titles=("the time before", f"step {step}"), height=height, nothing=NONE)
        writer.add_image("units/flow", np.asarray(drawn), step, dataformats="HWC")


def _table(units: list[dict[str, Any]]) -> str:
    """The detectors as a table in Markdown."""
    rows = [
        f"| {unit['unit']} | {unit['after']} | {unit['after_iou']:.3f} |" for unit in units if unit["after"] != NONE
    ]
    return "\n".join(["| unit | concept | IoU |", "| --- | --- | --- |", *rows])
