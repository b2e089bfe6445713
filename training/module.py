"""The Lightning module: a network learns to paint in one or several styles."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from impasto.packs import find_pack
from impasto.training.export import WEIGHTS, load_network, select_styles
from impasto.training.networks import TransformerNet
from impasto.training.photos import to_tensor
from impasto.training.record import describe_run, source_commit
from impasto.training.steadiness import look_through, random_window, steadiness
from impasto.training.teacher import Teacher

CONTENT = {"relu3_3": 1.0}
STYLE = {"relu1_2": 4.0, "relu2_2": 4.0, "relu3_3": 4.0, "relu4_3": 4.0}

OUTPUT_SHARE = 0.02
"""Share of the learning rate that the output convolution gets: no normalisation follows it, so Adam's steps of one size
for each of its hundreds of taps add up to whole levels of brightness, and a run begins with a hundred lost steps."""

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
    steps or minutes of the run, and an average of the weights, which is what is validated and exported. Some steps
    paint at a random strength, with the style's weights multiplied by it, so that strengths between 0 and 1 are
    trained as well. Styles of a batch differ: each picture's is drawn from the seed and the step.

    Args:
        style_images: paintings, one a style.
        network: "fast" or "johnson".
        content: weight of each content layer.
        style: weight of each style layer.
        tv: weight of the total variation.
        steady: weight of `steadiness`; 0 leaves it, and the second painting that it asks for, out.
        partial: share of the steps that paint at a random strength.
        convention: what the weights mean; see `impasto.losses.CONVENTIONS`.
        style_size: short side to which larger paintings are shrunk, in pixels.
        rate: learning rate at its highest.
        warm_up: steps over which the rate rises to it.
        average: decay of the average of the weights.
        minutes: length of the run by time; else Lightning's ``max_steps`` counts.
        seed: of the draw of styles and strengths.
        styles: for the pack's card, what is known of each style: name, title, painter, year, source, licence.
        sizes: of the network, see `TransformerNet`.
        start: a pack, by name or folder, whose weights the run begins with instead of random ones: a style's row with
            that of the pack's style of the same name, else with the mean of them all. Of the same network and sizes.
        teacher: a pack, by name or folder and of any network, that has styles of the same names. The run copies its
            paintings: the mean absolute difference to them stands in place of content, style and total variation,
            which are still validated. Leave ``steady`` at 0 beside it: the teacher's paintings are as steady as they
            are. Ten times as many pictures a second; a good beginning for a smaller network. Source: Hinton et al.
            2015, of pictures instead of classes.
        rows_only: train the rows of the styles and nothing else.

    Raises:
        ValueError: for no style, two of one name, numbers out of range, a start of another shape, or a teacher
            without one of the styles.
        PackError: for a start or a teacher that is no pack, or a damaged one.
    """

    def __init__(
        self,
        style_images: list[str],
        network: str = "fast",
        content: Mapping[str, float] = CONTENT,
        style: Mapping[str, float] = STYLE,
        tv: float = 1.0,
        steady: float = 0.5,
        partial: float = 0.25,
        convention: str = "relative",
        style_size: int = 512,
        rate: float = 4e-3,
        warm_up: int = 50,
        average: float = 0.998,
        minutes: float | None = None,
        seed: int = 0,
        styles: list[dict[str, str]] | None = None,
        sizes: Mapping[str, int] | None = None,
        start: str | None = None,
        rows_only: bool = False,
        teacher: str | None = None,
    ) -> None:
        super().__init__()
        known = [Style(**entry) for entry in styles or [{"name": style_name(path)} for path in style_images]]
        self.names = [entry.name for entry in known]
        if not self.names or len(set(self.names)) < len(self.names) or len(known) != len(style_images):
            raise WrongCall(
                f"styles: got {self.names} for {len(style_images)} paintings, expected one or more, of different names"
            )
        if (
            rate <= 0
            or warm_up < 1
            or not 0 <= average < 1
            or not 0 <= partial <= 1
            or (minutes is not None and minutes <= 0)
        ):
            raise WrongCall(
                f"StyleTransfer: got rate {rate}, warm_up {warm_up}, average {average}, partial {partial}, "
                f"minutes {minutes}; expected rate > 0, warm_up >= 1, 0 <= average < 1, 0 <= partial <= 1, minutes > 0"
            )
        content, style, sizes = dict(content), dict(style), dict(sizes or {})
        styles = [asdict(entry) for entry in known]
        self.save_hyperparameters()
        self.style_images, self.style_size = style_images, style_size
        self.content, self.style, self.tv, self.convention = content, style, tv, convention
        self.steady, self.partial = steady, partial
        self.rate, self.warm_up, self.average, self.minutes = rate, warm_up, average, minutes
        self.seed, self.rows_only = seed, rows_only
        self.net = TransformerNet(network, styles=len(self.names), **sizes)
        self.averaged = copy.deepcopy(self.net).requires_grad_(False)
        if rows_only:  # before several processes look for what they have to exchange
            self.net.requires_grad_(False)
            for row in self.net.rows:
                row.requires_grad_(True)
        self.started_from: dict[str, str] = {}
        if start is not None:
            pack, _ = find_pack(start)
            self.start_from(load_network(pack), f"the pack {pack.card.name}", pack.card.style_names)
            self.started_from = {"pack": pack.card.name, "weights": pack.card.files[WEIGHTS]}
        self.teacher = None if teacher is None else Teacher(teacher, self.names)
        self.elapsed = 0.0
        self.rate_factor = 1.0
        self.commit = ""
        self.quality: dict[str, Any] = {}
        self.loss: PerceptualLoss | None = None
        self._since: float | None = None
        self._counted = 0.0

    def start_from(self, trunk: TransformerNet, name: str = "the network", styles: Sequence[str] = ()) -> None:
        """Begin with another network's weights instead of random ones.

        Args:
            trunk: the network.
            name: what an error calls it.
            styles: names of its rows: a style of the run takes the row of its name, else the mean of all.

        Raises:
            ValueError: for a network of another shape.
        """
        if (trunk.network, trunk.sizes) != (self.net.network, self.net.sizes):
            raise WrongCall(
                f"start: {name} is {trunk.network!r} with {trunk.sizes}, expected the shape of the run: "
                f"{self.net.network!r} with {self.net.sizes}"
            )
        rows = torch.full((self.net.styles, trunk.styles), 1 / trunk.styles)
        for row, style in zip(rows, self.names, strict=True):
            if style in styles:
                row.copy_(torch.eye(trunk.styles)[list(styles).index(style)])
        for net in (self.net, self.averaged):
            net.load_state_dict(select_styles(trunk, rows).state_dict())

    def setup(self, stage: str) -> None:
        """Load the loss network and measure the paintings, once; note the source that does it, which may change."""
        if self.loss is None:
            self.commit = source_commit()
            features = VGGFeatures().to(self.device)
            self.loss = PerceptualLoss(features, self.content, self.style, self.tv, self.convention)
            found = [self.loss.style_targets(self._painting(path)) for path in self.style_images]
            for layer in self.style:  # as buffers, which follow the module to its device
                self.register_buffer(f"goal_{layer}", torch.cat([goals[layer] for goals in found]), persistent=False)

    @property
    def goals(self) -> dict[str, Tensor]:
        """The paintings' Gram matrices by style layer, (styles, C, C); there from `setup` on."""
        return {layer: self.get_buffer(f"goal_{layer}") for layer in self.style}

    def _painting(self, path: str) -> Tensor:
        return to_tensor(read_rgb(path, short_side=self.style_size))[None].to(self.device)

    @property
    def progress(self) -> float:
        """How much of the run is done, from 0 to 1."""
        if self.minutes is not None:
            return min(self.elapsed / (60 * self.minutes), 1.0)
        return min(self.global_step / self.trainer.max_steps, 1.0) if self.trainer.max_steps > 0 else 0.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over all weights, or over the styles' rows; the output convolution at a share of the rate."""
        output = set(self.net.painter.output.parameters())
        groups: dict[float, list[torch.nn.Parameter]] = {1.0: [], OUTPUT_SHARE: []}
        for parameter in self.net.parameters():
            if parameter.requires_grad:
                groups[OUTPUT_SHARE if parameter in output else 1.0].append(parameter)
        return torch.optim.Adam(
            [{"params": group, "share": share} for share, group in groups.items() if group], lr=self.rate
        )

    def on_train_start(self) -> None:
        """Start the clock."""
        self._since, self._counted = time.monotonic(), self.elapsed

    def on_validation_end(self) -> None:
        """Leave validation out of the training time."""
        self._since = time.monotonic()

    @contextmanager
    def off_the_clock(self) -> Iterator[None]:
        """Leave what happens inside out of the training time."""
        self._count()
        yield
        self._since = time.monotonic()

    def _count(self) -> None:
        """Add the time since the clock was last read."""
        now = time.monotonic()
        self.elapsed += 0.0 if self._since is None else now - self._since
        self._since = now

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        """Set the rate: a short warm-up, then a cosine down to a hundredth; `Guard` may have lowered it."""
        warm = min(1.0, (self.global_step + 1) / self.warm_up)
        rate = self.rate_factor * self.rate * warm * (0.01 + 0.99 * (1 + math.cos(math.pi * self.progress)) / 2)
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]  # one optimiser
            group["lr"] = rate * group["share"]
        self.log("rate", rate)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """One step on photos (N, 3, H, W)."""
        random = np.random.default_rng((self.seed, 2, self.global_step))
        rank, world = self.trainer.global_rank, self.trainer.world_size
        indices = random.integers(len(self.names), size=(world, len(batch)))[rank]  # of the batch of all processes
        strength = random.uniform() if random.random() < self.partial else 1.0
        styles = torch.from_numpy(indices).to(batch.device)
        painted = self._paint(self.net, batch, styles, strength)
        if self.teacher is not None:
            total = self.teacher.difference(painted, *self._call(batch, styles, strength))
            raw, weighted = {"copy": total}, {"copy": total}
        else:
            terms = self._judge(painted, batch, styles, strength)
            raw, weighted, total = dict(terms.raw), terms.weighted, terms.total
        if self.steady:
            window = random_window(random)
            again = self._paint(self.net, look_through(batch, window), styles, strength)
            raw["steady"] = steadiness(painted, again, window)
            weighted["steady"] = self.steady * raw["steady"]
            total = total + weighted["steady"]
        if strength == 1:
            self.log_dict({f"train/{name}": value.detach() for name, value in raw.items()})
            self.log_dict({f"weighted/{name}": value.detach() for name, value in weighted.items()})
            self.log("train/total", total.detach())
        return total

    def _paint(self, net: TransformerNet, photos: Tensor, styles: Tensor, strength: float) -> Tensor:
        """Paintings of photos (N, 3, H, W) in styles given by index (N,)."""
        painted: Tensor = net(*self._call(photos, styles, strength))
        return painted

    def _call(self, photos: Tensor, styles: Tensor, strength: float) -> tuple[Tensor, Tensor, Tensor]:
        """What a network of the run's styles is called with."""
        photos = photos.contiguous(memory_format=torch.channels_last)
        weights = torch.nn.functional.one_hot(styles, len(self.names)).to(photos.dtype)
        return photos, weights, photos.new_full((len(photos),), strength)

    def _judge(self, painted: Tensor, photos: Tensor, styles: Tensor, strength: float) -> LossTerms:
        """The loss of paintings of photos."""
        assert self.loss is not None  # Lightning calls setup first
        goals = {layer: goal[styles] for layer, goal in self.goals.items()}
        terms: LossTerms = self.loss(_mirror(painted), self.loss.content_targets(_mirror(photos)), goals, strength)
        return terms

    def terms(self, net: TransformerNet, photos: Tensor, styles: Tensor, strength: float = 1.0) -> LossTerms:
        """The loss of a network's paintings of photos (N, 3, H, W) in styles given by index (N,)."""
        styles = styles.to(photos.device)
        return self._judge(self._paint(net, photos, styles, strength), photos, styles, strength)

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
        self._count()
        self.elapsed = self.trainer.strategy.broadcast(self.elapsed)  # so that all processes end at the same step
        seconds = self.elapsed - self._counted
        self._counted = self.elapsed
        self.log("pictures_per_second", len(batch) * self.trainer.world_size / seconds)
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
        """Keep the elapsed training time, the rate's factor, and what the card will say of the run."""
        checkpoint["elapsed"] = self.elapsed
        checkpoint["rate_factor"] = self.rate_factor
        checkpoint["record"] = describe_run(self)
        checkpoint["quality"] = self.quality

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from the elapsed training time and the rate's factor."""
        self.elapsed = float(checkpoint["elapsed"])
        self.rate_factor = float(checkpoint.get("rate_factor", 1.0))
