"""The run behind `paint`: size after size, watched, stopped and resumed."""

from __future__ import annotations

import io
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from impasto.errors import CheckpointError, require
from impasto.formats import write_atomically
from impasto.losses import LossTerms, Step, optimize_image
from impasto.losses.optimize import StepRule
from impasto.visualization.objective import PaintObjective
from impasto.visualization.pyramid import Carried, resize
from impasto.visualization.scene import Scene, fit_within, to_image

SAVE_SECONDS = 60.0
"""Seconds between two savings of the state."""

SHOW_SECONDS = 10.0
"""Seconds between two pictures in TensorBoard."""

FRAME_SIDE = 512
"""Long side of an animation's frames, at most, in pixels."""


@dataclass(frozen=True)
class Stage:
    """Steps at one size (height, width)."""

    size: tuple[int, int]
    steps: int

    @property
    def work(self) -> float:
        """Pixels times steps."""
        return float(self.size[0] * self.size[1] * self.steps)


@dataclass(frozen=True)
class Watch:
    """What is done with a painting on its way; the arguments of `paint`.

    Attributes:
        frames: how many pictures to keep for an animation.
        state: file of the state, or none.
        resume: whether to go on from it.
        digest: of all that makes the painting: a state of another one is refused.
        log_dir: folder for TensorBoard, or none.
        progress: called with the work done, the work in total, and a text.
    """

    frames: int = 0
    state: Path | None = None
    resume: bool = True
    digest: str = ""
    log_dir: Path | None = None
    progress: Callable[[float, float, str], None] | None = None


@dataclass
class Brush:
    """Paints a scene.

    Attributes:
        scene: photo, paintings, regions.
        objective: what is minimised.
        rule: makes the optimiser.
        average: decay of the average of pictures; 0 for none.
        watch: what is done on the way.
        began: when seconds begin to count, on the clock `time.perf_counter`.
        trace: (seconds, evaluations, stage, objective) after each step.
        frames: pictures kept for an animation.
        frame_steps: the step after which each was, counted from 1.
        terms: the weighted terms, at the end those of what is given back.
        raw: the same before weighing.
        interrupted: whether Ctrl-C ended it.
    """

    scene: Scene
    objective: PaintObjective
    rule: StepRule
    average: float = 0.0
    watch: Watch = field(default_factory=Watch)
    began: float = field(default_factory=time.perf_counter)
    trace: list[tuple[float, int, int, float]] = field(default_factory=list)
    frames: list[Image.Image] = field(default_factory=list)
    frame_steps: list[int] = field(default_factory=list)
    terms: dict[str, float] = field(default_factory=dict)
    raw: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False

    def paint(self, start: Tensor, stages: Sequence[Stage]) -> Tensor:
        """The picture (1, 3, H, W) after the last stage, or as far as it came."""
        self._stages, self._carried = stages, Carried(self.rule)
        self._stage, self._step = 0, 0
        self._image = start
        self._mean: Tensor | None = None
        self._resume()
        self._spent = self.trace[-1][0] if self.trace else 0.0
        self._saved = self._shown = time.perf_counter()
        with self._writer() as self._log, self._stop_on_interrupt():
            while self._stage < len(stages) and not self.interrupted:
                self._paint_stage(stages[self._stage])
        if self.interrupted:
            self._save()
        elif self.watch.state is not None:
            self.watch.state.unlink(missing_ok=True)
        painted = self._image if self._mean is None else self._mean
        self._judge(painted)
        return painted

    @torch.no_grad()
    def _judge(self, painted: Tensor) -> None:
        """Evaluate what is given back: the last evaluation was of another step, or of no average."""
        size = (painted.shape[2], painted.shape[3])
        self._note(self.scene.at(size, self.objective)(painted))

    def _note(self, terms: LossTerms) -> None:
        self.raw = {name: float(value.detach()) for name, value in terms.raw.items()}
        self.terms = {name: terms.weights[name] * value for name, value in self.raw.items()}

    def _paint_stage(self, stage: Stage) -> None:
        within = self.scene.within(stage.size)
        self._image = within(resize(self._image, stage.size))
        self._mean = None if self._mean is None else within(resize(self._mean, stage.size))
        self._before = self.trace[-1][1] if self.trace else 0
        self._image = optimize_image(
            self._image,
            self.scene.at(stage.size, self.objective),
            step=self._carried,
            steps=stage.steps - self._step,
            project=within,
            on_step=self._after_step,
            stop=lambda _: self.interrupted,
        )
        if self._step == stage.steps:
            self._stage, self._step = self._stage + 1, 0

    def _after_step(self, step: Step) -> None:
        self._step += 1
        self._image = step.image
        if self.average:
            self._mean = step.image.clone() if self._mean is None else self._mean.lerp(step.image, 1 - self.average)
        seconds = self._spent + time.perf_counter() - self.began
        self.trace.append((seconds, self._before + step.evaluations, self._stage, step.loss))
        if step.terms is not None:
            self._note(step.terms)
        total = sum(stage.work for stage in self._stages)
        done = sum(stage.work for stage in self._stages[: self._stage])
        done += self._stages[self._stage].work * self._step / self._stages[self._stage].steps
        before = done - self._stages[self._stage].work / self._stages[self._stage].steps
        if int(self.watch.frames * done / total) > int(self.watch.frames * before / total):
            self.frames.append(self._frame())
            self.frame_steps.append(len(self.trace))
        self._show()
        if self.watch.progress is not None:
            high, wide = self._stages[self._stage].size
            self.watch.progress(done, total, f"{wide} x {high}, objective {step.loss:.4g}")
        if self.watch.state is not None and time.perf_counter() - self._saved > SAVE_SECONDS:
            self._save()

    def _seen(self) -> Tensor:
        return self.scene.finished(self._image if self._mean is None else self._mean)

    def _frame(self) -> Image.Image:
        high, wide = self.scene.size
        size = fit_within(high, wide, min(FRAME_SIDE, max(high, wide)))
        return to_image(resize(self._seen(), size))

    @contextmanager
    def _writer(self) -> Iterator[Any]:
        """TensorBoard's writer, or none."""
        if self.watch.log_dir is None:
            yield None
            return
        module = require("torch.utils.tensorboard", purpose="log_dir", extra="train")
        with module.SummaryWriter(str(self.watch.log_dir)) as writer:
            yield writer

    def _show(self) -> None:
        """The terms after each step, the picture now and then and at the end of each size."""
        if self._log is None:
            return
        step, (_, evaluations, stage, loss) = len(self.trace), self.trace[-1]
        self._log.add_scalar("objective", loss, step)
        self._log.add_scalar("evaluations", evaluations, step)
        self._log.add_scalar("long_side", max(self._stages[stage].size), step)
        for name, value in self.terms.items():
            self._log.add_scalar(f"weighted/{name}", value, step)
        if time.perf_counter() - self._shown > SHOW_SECONDS or self._step == self._stages[stage].steps:
            self._log.add_image("painted", self._seen()[0], step)
            self._shown = time.perf_counter()

    @contextmanager
    def _stop_on_interrupt(self) -> Iterator[None]:
        """The first Ctrl-C ends the painting after the step it is in; the second at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(signum: int, frame: FrameType | None) -> None:
            self.interrupted = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _save(self) -> None:
        if self.watch.state is None:
            return
        optimizer = self._carried.optimizer
        buffer = io.BytesIO()
        torch.save(
            {
                "digest": self.watch.digest,
                "stage": self._stage,
                "step": self._step,
                "image": self._image,
                "mean": self._mean,
                "optimizer": None if optimizer is None else optimizer.state_dict(),
                "trace": self.trace,
                "terms": self.terms,
                "raw": self.raw,
            },
            buffer,
        )
        write_atomically(self.watch.state, buffer.getvalue())
        self._saved = time.perf_counter()

    def _resume(self) -> None:
        """Go on from the state, if there is one."""
        path = self.watch.state
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self.watch.resume or not path.exists():
            return
        try:
            state = torch.load(path, map_location=self.scene.photo.device, weights_only=True)
            digest = state["digest"]
        except Exception as error:  # torch raises a dozen types for a file that is not its own
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(f"{path}: not the state of a painting ({reason}); delete it to begin anew") from error
        if digest != self.watch.digest:
            raise CheckpointError(
                f"{path}: the state of a painting from other pictures or with other settings; "
                "call with those, or delete it to begin anew"
            )
        self._stage, self._step, self._image, self._mean = (state[key] for key in ("stage", "step", "image", "mean"))
        self.trace, self.terms, self.raw = [tuple(row) for row in state["trace"]], state["terms"], state["raw"]
        self._carried.restore(self._image, state["optimizer"])
