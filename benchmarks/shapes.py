"""The shape of ``fast``: what a network paints at equal pictures seen, against the time it takes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from impasto.benchmarks.peers import JOHNSON, LITE, lite_job, lite_model, random_johnson
from impasto.benchmarks.speed import interleaved
from impasto.benchmarks.variants import Result, Variants
from impasto.errors import require
from impasto.formats import write_atomically
from impasto.inference import Stylizer
from impasto.training.networks import default_sizes

VARIANTS: Variants = {
    "w48_b5": {"model": {"sizes": {"width": 48, "blocks": 5, "head": 24}}},
    "w32_b5": {"model": {"sizes": {"width": 32, "blocks": 5, "head": 24}}},
    "w48_b5_head_12": {"model": {"sizes": {"width": 48, "blocks": 5, "head": 12}}},
    "w48_b4_head_16": {"model": {"sizes": {"width": 48, "blocks": 4, "head": 16}}},
    "w48_b3_head_16": {"model": {"sizes": {"width": 48, "blocks": 3, "head": 16}}},
    "w32_b8_head_16": {"model": {"sizes": {"width": 32, "blocks": 8, "head": 16}}},
    "w48_b5_head_0": {"model": {"sizes": {"width": 48, "blocks": 5, "head": 0}}},
    "w48_b5_stem_2": {"model": {"sizes": {"width": 48, "blocks": 5, "head": 24, "stem": 2}}},
    "w64_b5_separable": {"model": {"sizes": {"width": 64, "blocks": 5, "head": 24, "separable": 1}}},
    "w64_b5_stride_8": {"model": {"sizes": {"width": 64, "blocks": 5, "head": 24, "stride": 8}}},
    "w96_b4_stride_8": {"model": {"sizes": {"width": 96, "blocks": 4, "head": 24, "stride": 8}}},
}
"""Sizes not named are the network's own defaults."""

SIDE = 1024
"""Height and width of the picture that is timed, in pixels."""

REPEATS = 10


def milliseconds(packs: Sequence[Path], progress: Callable[[int, int], None] | None = None) -> dict[str, float]:
    """Fastest of ten runs on a square picture of noise of 1024 pixels: each pack, johnson, and the peer if installed.

    In turns, in ONNX Runtime on the CPU with all threads, decoded pixels in and painted pixels out.

    Args:
        packs: folders; a pack's name in the answer is its folder's.
        progress: called with the runs behind and in total.
    """
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        johnson = random_johnson(Path(folder))
        jobs = {pack.name: _pack_job(pack, picture) for pack in [*packs, johnson]}
    model = lite_model()
    if model is not None:
        jobs[LITE] = lite_job(model, picture)
    times = interleaved(list(jobs.values()), REPEATS, progress)
    return {name: min(taken) for name, taken in zip(jobs, times, strict=True)}


def _pack_job(pack: Path, picture: np.ndarray[Any, np.dtype[np.uint8]]) -> Callable[[], object]:
    stylizer = Stylizer(pack, provider="cpu")
    weights, strength = np.eye(1, len(stylizer.styles), dtype=np.float32), np.ones(1, np.float32)
    return lambda: stylizer.paint(picture[None], weights, strength)


def plot(results: Sequence[Result], times: Mapping[str, float], path: str | Path) -> None:
    """Draw the objective, its mean over the sizes, against the time; references as lines; as a PNG.

    The star is the shape that `Fast` has by default.

    Raises:
        MissingExtra: without matplotlib.
    """
    figures = require("matplotlib.figure", purpose="the plot", extra="bench")
    ticker = require("matplotlib.ticker", purpose="the plot", extra="bench")
    figure = figures.Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(xlabel=f"milliseconds at {SIDE} x {SIDE}", ylabel="objective, mean over sizes")
    timed = [result for result in results if result.name in times]
    across = [times[result.name] for result in timed]
    up = [fmean(size["objective"] for size in result.scores["sizes"].values()) for result in timed]
    axes.plot(across, up, "o", label="fast")
    chosen = default_sizes("fast")
    for result, x, y in zip(timed, across, up, strict=True):
        if {size: result.network[size] for size in chosen} == chosen:
            axes.plot(x, y, "*", color="tab:green", markersize=16, label="fast by default")
    for result, x, y in zip(timed, across, up, strict=True):
        axes.annotate(result.name, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8)
    for name, colour in ((LITE, "tab:orange"), (JOHNSON, "tab:red")):
        if name in times:
            axes.axvline(times[name], color=colour, linestyle="--", label=f"{name}: {times[name]:.0f} ms")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter(ticker.ScalarFormatter())
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.legend()
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomically(path, buffer.getvalue())


def kept_times(output: Path) -> dict[str, float]:
    """The times of an earlier call, from ``times.json``."""
    path = output / "times.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
