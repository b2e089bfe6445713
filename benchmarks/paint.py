"""`impasto paint` beside the command of another per-image optimiser, pastiche, in one run.

Both get the same PNG files and so the same pixels, VGG-19 with the same weights, the same layers, and as many threads.
What they minimise is one objective: pastiche's default, which in the convention ``gatys`` is half the squared error of
relu4_2 times 0.02 / (C H W), and the style terms of relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1 times 40 / C^2, for
features of C channels. The pictures that either leaves on its way are judged alike: 8-bit PNG, this objective, float32.

Seconds count from the start of the programs' work, after Python's imports, until the picture; for both, the loading of
the weights and the writing of the pictures is part of it.
"""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from impasto.benchmarks.judge import at_size
from impasto.errors import WrongCall, require
from impasto.formats import write_atomically
from impasto.images import picture_from_pil, read_rgb, write_picture
from impasto.losses import PerceptualLoss, VGGFeatures
from impasto.training.photos import to_tensor
from impasto.visualization import paint

PEER = "pastiche"
CONTENT, STYLE = "relu4_2", ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")

VARIANTS = ("impasto", "float32", "one size", "float32, one size")
"""`paint` as it is, in float32, at the full size only, and both."""

FRAMES = 60
"""Pictures of our way that are judged, evenly over the work."""

Point = tuple[float, float]
"""Seconds, and the objective of the picture that was there then."""


@dataclass(frozen=True)
class Way:
    """How a painting came about.

    Attributes:
        name: "pastiche", or one of `VARIANTS`.
        points: seconds and objective of the pictures on the way, the last one the result.
        evaluations: of the objective, at any size.
    """

    name: str
    points: list[Point]
    evaluations: int

    def at(self, seconds: float) -> float:
        """The lowest objective of the pictures that were there by then; infinity if there was none."""
        return min((value for when, value in self.points if when <= seconds), default=float("inf"))

    def until(self, objective: float) -> float | None:
        """Seconds until a picture was as good as that, or none."""
        return next((when for when, value in self.points if value <= objective), None)


@dataclass(frozen=True)
class Race:
    """All ways to one painting.

    Attributes:
        photo: the photo's file name.
        painting: the painting's.
        size: height and width in pixels.
        peer: pastiche's way.
        ways: ours, `VARIANTS` in their order.
    """

    photo: str
    painting: str
    size: tuple[int, int]
    peer: Way
    ways: list[Way]

    def times_faster(self, way: Way) -> float | None:
        """Pastiche's seconds over ours until the objective that pastiche ends with; none if ours ends above it."""
        goal = self.peer.points[-1]
        seconds = way.until(goal[1])
        return None if seconds is None else goal[0] / seconds


def races(
    photos: Sequence[str | Path],
    paintings: Sequence[str | Path],
    *,
    size: int = 256,
    steps: int = 200,
    variants: Sequence[str] = tuple(VARIANTS),
    folder: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Race]:
    """Paint each photo in the style of the painting beside it, by pastiche and by `paint`, in turns.

    Args:
        photos: files.
        paintings: as many files.
        size: long side of photos, paintings and results, in pixels.
        steps: pastiche's iterations.
        variants: of `VARIANTS`.
        folder: where the results are left as PNG; by default nowhere.
        progress: called with the paintings behind and in total.

    Raises:
        WrongCall: if there are not as many paintings as photos.
        MissingExtra: without pastiche.
        PictureError: for a file that cannot be read.
    """
    if len(photos) != len(paintings) or not photos:
        raise WrongCall(f"races: got {len(photos)} photos and {len(paintings)} paintings, expected one for each photo")
    require(PEER, purpose="impasto bench paint", extra="bench")
    done, total = itertools.count(1), len(photos) * (1 + len(variants))
    found = []
    for photo, painting in zip(map(Path, photos), map(Path, paintings), strict=True):
        with tempfile.TemporaryDirectory() as temporary:
            place = Path(temporary)
            content, style = _shrunk(photo, size, place / "photo.png"), _shrunk(painting, size, place / "style.png")
            objective = Objective(content, style)
            ways = []
            for name in (PEER, *variants):
                way, picture = _peer(objective, steps, place) if name == PEER else _ours(objective, name)
                ways.append(way)
                if folder is not None:
                    words = [photo.stem, painting.stem, str(size), *name.replace(",", "").split()]
                    write_picture(picture_from_pil(picture), Path(folder) / f"{'_'.join(words)}.png")
                if progress is not None:
                    progress(next(done), total)
            found.append(Race(photo.name, painting.name, objective.size, ways[0], ways[1:]))
    return found


class Objective:
    """What both minimise for one photo and one painting, PNG files that are read as they are."""

    def __init__(self, photo: Path, painting: Path) -> None:
        self.photo, self.painting = photo, painting
        features = VGGFeatures()
        picture = _tensor(photo)
        self.size = (picture.shape[2], picture.shape[3])
        stride = features.stride[CONTENT]
        values = features.channels[CONTENT] * (self.size[0] // stride) * (self.size[1] // stride)
        self.content_weights = {CONTENT: 0.02 / values}
        self.style_weights = {layer: 40 / features.channels[layer] ** 2 for layer in STYLE}
        self._loss = PerceptualLoss(
            features, content=self.content_weights, style=self.style_weights, convention="gatys"
        )
        self._content, self._style = self._loss.content_targets(picture), self._loss.style_targets(_tensor(painting))

    @torch.no_grad()
    def __call__(self, picture: Path | Image.Image) -> float:
        """Of an 8-bit picture of the photo's size."""
        return float(self._loss(_tensor(picture), self._content, self._style).total)


def _peer(objective: Objective, steps: int, place: Path) -> tuple[Way, Image.Image]:
    """Pastiche's own command, with a picture and a line with its seconds after every tenth of the steps."""
    every, out = max(1, steps // 10), place / "out.png"
    options = {
        "content": objective.photo,
        "styles": objective.painting,
        "size": max(objective.size),
        "style-size": max(_tensor(objective.painting).shape),
        "num-steps": steps,
        "info-step": every,
        "workspace": place / "way",
        "workspace-step": every,
        "device": "cpu",
        "seed": 0,
        "output": out,
    }
    command = [sys.executable, "-m", PEER, *(f"--{name}={value}" for name, value in options.items())]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | threads)
    lines = [line.split() for line in run.stdout.splitlines()]
    seconds = {int(line[0]): float(line[1]) for line in lines if len(line) == 3 and line[0].isdigit()}
    pictures = sorted((place / "way").iterdir())
    points = [(seconds[int(picture.stem)], objective(picture)) for picture in pictures]
    return Way(PEER, points, steps), Image.fromarray(read_rgb(out))


def _ours(objective: Objective, variant: str) -> tuple[Way, Image.Image]:
    settings: dict[str, Any] = {"smallest": max(objective.size)} if "one size" in variant else {}
    if "float32" in variant:
        settings["precision"] = "float32"
    result = paint(
        str(objective.photo),
        str(objective.painting),
        size=None,
        content_layers=objective.content_weights,
        style_layers=objective.style_weights,
        convention="gatys",
        frames=FRAMES,
        device="cpu",
        **settings,
    )
    seconds = [result.data["trace"][step - 1][0] for step in result.data["frame_steps"]]
    points = [(when, objective(frame)) for when, frame in zip(seconds, result.frames, strict=True)]
    painted = result.images["painted"]
    points.append((result.data["seconds"], objective(painted)))
    return Way(variant, points, result.data["evaluations"]), painted


def _shrunk(picture: Path, size: int, path: Path) -> Path:
    """The picture with a long side of at most ``size`` pixels, as PNG."""
    Image.fromarray(at_size(read_rgb(picture), size)).save(path)
    return path


def _tensor(picture: Path | Image.Image) -> Tensor:
    """(1, 3, H, W) in [0, 1]."""
    return to_tensor(read_rgb(picture) if isinstance(picture, Path) else np.asarray(picture))[None]


def table(races: Sequence[Race]) -> str:
    """Markdown: for each painting seconds and objective of pastiche, and what each of our ways makes of them."""
    lines = [
        "| photo, painting | pixels | way | evaluations | seconds | objective | at pastiche's time | "
        "seconds to pastiche's objective | times faster |",
        "| --- | --- | --- | --: | --: | --: | --: | --: | --: |",
    ]
    for race in races:
        name, (height, width) = f"{Path(race.photo).stem}, {Path(race.painting).stem}", race.size
        end, goal = race.peer.points[-1]
        for way in (race.peer, *race.ways):
            seconds, objective = way.points[-1]
            until, faster = way.until(goal), race.times_faster(way)
            lines.append(
                f"| {name} | {width} x {height} | {way.name} | {way.evaluations} | {seconds:.1f} | {objective:.0f} | "
                f"{way.at(end):.0f} | {'not reached' if until is None else f'{until:.1f}'} | "
                f"{'' if faster is None else f'{faster:.1f}'} |"
            )
    return "\n".join(lines) + "\n"


def plot(races: Sequence[Race], path: str | Path) -> None:
    """Draw the objective against the seconds, a panel for each painting, as a PNG.

    Raises:
        MissingExtra: without matplotlib.
    """
    figures = require("matplotlib.figure", purpose="the plot", extra="bench")
    figure = figures.Figure(figsize=(5.5 * len(races), 4.5), layout="constrained")
    for index, race in enumerate(races, start=1):
        axes = figure.add_subplot(1, len(races), index, xlabel="seconds", ylabel="objective", yscale="log")
        axes.set_title(f"{Path(race.photo).stem}, {Path(race.painting).stem}, {max(race.size)} pixels", fontsize=10)
        for way in (race.peer, *race.ways):
            seconds, values = zip(*way.points[1:], strict=True)
            axes.plot(seconds, values, label=way.name, color="black" if way is race.peer else None)
        axes.axhline(race.peer.points[-1][1], color="0.7", linewidth=0.8)
        axes.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomically(path, buffer.getvalue())
