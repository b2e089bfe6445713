"""The Lightning module: a network learns to paint in one or several styles."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from impasto.card import Style, snake_case
from impasto.errors import WrongCall
from impasto.images import read_rgb
from impasto.losses import LossTerms, PerceptualLoss, VGGFeatures
from impasto.training.networks import TransformerNet
from impasto.training.photos import to_tensor
from impasto.training.record import describe_run, source_commit

CONTENT = {"relu3_3": 1.0}
STYLE = {"relu1_2": 4.0, "relu2_2": 4.0, "relu3_3": 4.0, "relu4_3": 4.0}

MIRRORED = 8
"""Pixels by which pictures are continued before the loss network sees them."""


def style_name(path: str | Path) -> str:
    """A style's name by default: the painting's file name as a snake_case word."""
    return snake_case(Path(path).stem) or "style"


def _mirror(images: Tensor) -> Tensor:
    """Pictures continued by reflection, so that the loss network's zero padding does not meet their edge.

    Without it a frame of bright pixels, which makes up for the padding, lowers the loss.
    """
    return torch.nn.functional.pad(images, [MIRRORED] * 4, mode="reflect")


class StyleTransfer(pl.LightningModule):
    """Training of a `TransformerNet` with the perceptual loss.

    Johnson et al. 2016, equation 5, in the convention ``relative`` by default, with Adam, a cosine schedule over the
    steps or minutes of the run, and an average of the weights, which is what is validated and exported. One step in
    four paints at a random strength, with the style's weights multiplied by it, so that strengths between 0 and 1 are
    trained as well. Styles of a batch differ: each picture's is drawn from the seed and the step.

    Args:
        style_images: paintings, one a style.
        network: "fast" or "johnson".
        content: weight of each content layer.
        style: weight of each style layer.
        tv: weight of the total variation.
        convention: what the weights mean; see `impasto.losses.CONVENTIONS`.
        style_size: short side to which larger paintings are shrunk, in pixels.
        rate: learning rate at its highest.
        warm_up: steps over which the rate rises to it.
        average: decay of the average of the weights.
        minutes: length of the run by time; else Lightning's ``max_steps`` counts.
        seed: of the draw of styles and strengths.
        styles: for the pack's card, what is known of each style: name, title, painter, year, source, licence.
        sizes: of the network, see `TransformerNet`.
        rows_only: train the rows of the styles and nothing else.

    Raises:
        ValueError: for no style, two of one name, or numbers out of range.
    """

    def __init__(
        self,
        style_images: list[str],
        network: str = "fast",
        content: Mapping[str, float] = CONTENT,
        style: Mapping[str, float] = STYLE,
        tv: float = 1.0,
        convention: str = "relative",
        style_size: int = 512,
        rate: float = 4e-3,
        warm_up: int = 50,
        average: float = 0.998,
        minutes: float | None = None,
        seed: int = 0,
        styles: list[dict[str, str]] | None = None,
        sizes: Mapping[str, int] | None = None,
        rows_only: bool = False,
    ) -> None:
        super().__init__()
        known = [Style(**entry) for entry in styles or [{"name": style_name(path)} for path in style_images]]
        self.names = [entry.name for entry in known]
        if not self.names or len(set(self.names)) < len(self.names) or len(known) != len(style_images):
            raise WrongCall(
                f"styles: got {self.names} for {len(style_images)} paintings, expected one or more, of different names"
            )
        if rate <= 0 or warm_up < 1 or not 0 <= average < 1 or (minutes is not None and minutes <= 0):
            raise WrongCall(
                f"StyleTransfer: got rate {rate}, warm_up {warm_up}, average {average}, minutes {minutes}; "
                "expected rate > 0, warm_up >= 1, 0 <= average < 1, minutes > 0"
            )
        content, style, sizes = dict(content), dict(style), dict(sizes or {})
        styles = [asdict(entry) for entry in known]
        self.save_hyperparameters()
        self.style_images, self.style_size = style_images, style_size
        self.content, self.style, self.tv, self.convention = content, style, tv, convention
        self.rate, self.warm_up, self.average, self.minutes = rate, warm_up, average, minutes
        self.seed, self.rows_only = seed, rows_only
        self.net = TransformerNet(network, styles=len(self.names), **sizes)
        self.averaged = copy.deepcopy(self.net).requires_grad_(False)
        self.elapsed = 0.0
        self.commit = ""
        self.quality: dict[str, Any] = {}
        self.loss: PerceptualLoss | None = None
        self.goals: dict[str, Tensor] = {}
        self._since = 0.0

    def start_from(self, net: TransformerNet) -> None:
        """Begin with another network's weights (same shape) instead of random ones."""
        self.net.load_state_dict(net.state_dict())
        self.averaged.load_state_dict(net.state_dict())

    def setup(self, stage: str) -> None:
        """Load the loss network and measure the paintings, once; note the source that does it, which may change."""
        if self.loss is None:
            self.commit = source_commit()
            features = VGGFeatures().to(self.device)
            self.loss = PerceptualLoss(features, self.content, self.style, self.tv, self.convention)
            found = [self.loss.style_targets(self._painting(path)) for path in self.style_images]
            self.goals = {layer: torch.cat([goals[layer] for goals in found]) for layer in self.style}

    def _painting(self, path: str) -> Tensor:
        return to_tensor(read_rgb(path, short_side=self.style_size))[None].to(self.device)

    @property
    def progress(self) -> float:
        """How much of the run is done, from 0 to 1."""
        if self.minutes is not None:
            return min(self.elapsed / (60 * self.minutes), 1.0)
        return min(self.global_step / self.trainer.max_steps, 1.0) if self.trainer.max_steps > 0 else 0.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over all weights, or over the styles' rows."""
        if self.rows_only:
            self.net.requires_grad_(False)
            for row in self.net.rows:
                row.requires_grad_(True)
        trained = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        return torch.optim.Adam(trained, lr=self.rate)

    def on_train_start(self) -> None:
        """Start the clock."""
        self._since = time.monotonic()

    def on_validation_end(self) -> None:
        """Leave validation out of the training time."""
        self._since = time.monotonic()

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        """Set the rate: a short warm-up, then a cosine down to a hundredth."""
        warm = min(1.0, (self.global_step + 1) / self.warm_up)
        rate = self.rate * warm * (0.01 + 0.99 * (1 + math.cos(math.pi * self.progress)) / 2)
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]  # one optimiser
            group["lr"] = rate
        self.log("rate", rate)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """One step on photos (N, 3, H, W)."""
        random = np.random.default_rng((self.seed, 2, self.global_step))
        indices = random.integers(len(self.names), size=len(batch))
        strength = random.uniform() if random.random() < 0.25 else 1.0
        terms = self.terms(self.net, batch, torch.from_numpy(indices), strength)
        if strength == 1:
            self.log_dict({f"train/{name}": value.detach() for name, value in terms.raw.items()})
            self.log_dict({f"weighted/{name}": value.detach() for name, value in terms.weighted.items()})
            self.log("train/total", terms.total.detach())
        return terms.total

    def terms(self, net: TransformerNet, photos: Tensor, styles: Tensor, strength: float = 1.0) -> LossTerms:
        """The loss of a network's paintings of photos (N, 3, H, W) in styles given by index (N,)."""
        assert self.loss is not None  # Lightning calls setup first
        photos = photos.contiguous(memory_format=torch.channels_last)
        styles = styles.to(photos.device)
        weights = torch.nn.functional.one_hot(styles, len(self.names)).to(photos.dtype)
        painted = net(photos, weights, photos.new_full((len(photos),), strength))
        goals = {layer: goal[styles] for layer, goal in self.goals.items()}
        terms: LossTerms = self.loss(_mirror(painted), self.loss.content_targets(_mirror(photos)), goals, strength)
        return terms

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Take the step and average the weights: here, so that a checkpoint of this step holds both."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        step = self.global_step + 1  # Lightning counts it later
        decay = min(self.average, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, latest in zip(self.averaged.parameters(), self.net.parameters(), strict=True):
                mean.lerp_(latest, 1 - decay)

    def on_train_batch_end(self, outputs: Any, batch: Tensor, batch_idx: int) -> None:
        """Count the time, stop when it is up."""
        now = time.monotonic()
        seconds = now - self._since
        self.elapsed += seconds
        self._since = now
        self.log("pictures_per_second", len(batch) / seconds)
        if self.minutes is not None and self.progress >= 1:
            self.trainer.should_stop = True

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """The terms of the averaged network on a photo it never saw, each style in turn."""
        for index, name in enumerate(self.names):
            terms = self.terms(self.averaged, batch, torch.full((len(batch),), index))
            named = {f"validation/{term}": value for term, value in terms.raw.items()} | {
                "validation/total": terms.total
            }
            self.log_dict(named, batch_size=len(batch))
            if len(self.names) > 1:
                self.log(f"validation_total/{name}", terms.total, batch_size=len(batch))

    def on_validation_epoch_end(self) -> None:
        """Keep the terms on photos never seen, for the card."""
        metrics = self.trainer.callback_metrics
        terms = {
            name.partition("/")[2]: float(value) for name, value in metrics.items() if name.startswith("validation/")
        }
        self.quality = self.trainer.datamodule.judged_on() | terms  # type: ignore[attr-defined]  # PhotoData

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the elapsed training time, and what the card will say of the run."""
        checkpoint["elapsed"] = self.elapsed
        checkpoint["record"] = describe_run(self)
        checkpoint["quality"] = self.quality

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from the elapsed training time."""
        self.elapsed = float(checkpoint["elapsed"])
