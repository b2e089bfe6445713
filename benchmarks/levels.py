"""Where networks lie on the curves of per-image optimisation: record, table, plot, and what the card says of it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from statistics import fmean, median
from typing import Any

from impasto.benchmarks.curves import Curve, mean_curve
from impasto.errors import WrongCall, require
from impasto.formats import write_atomically
from impasto.packs import load_card, save_card

PARTS = ("content", "style", "tv")
"""Weighted parts of the objective."""

COLUMNS = 3
"""Panels of the plot side by side, at most."""


@dataclass(frozen=True)
class Level:
    """A network's objective on each photo, and the evaluations that L-BFGS needs for the same.

    Attributes:
        network: name of the pack's folder.
        pictures: pictures it was trained on; None where the card does not say.
        parts: for each photo ``objective`` and its `PARTS`.
        evaluations: for each photo; None where the cap came first.
        cap: evaluations after which the optimisation was stopped.
    """

    network: str
    pictures: int | None
    parts: list[dict[str, float]]
    evaluations: list[int | None]
    cap: int

    def part(self, name: str) -> float:
        """The mean of the objective, or of a part of it, over the photos."""
        return fmean(parts[name] for parts in self.parts)

    @property
    def mean(self) -> float | None:
        """Equivalent evaluations: the mean over the photos, None if one of them was not reached."""
        reached = [count for count in self.evaluations if count is not None]
        return fmean(reached) if len(reached) == len(self.evaluations) else None

    @property
    def median(self) -> float | None:
        """The median over the photos, None if it rests on one that was not reached."""
        found = median(math.inf if count is None else count for count in self.evaluations)
        return float(found) if found < math.inf else None

    @property
    def shown(self) -> str:
        """The mean as text; ``> n`` if a photo was not reached, n being the mean with the cap in its place."""
        least = fmean(self.cap if count is None else count for count in self.evaluations)
        return f"> {least:.0f}" if self.mean is None else f"{least:.0f}"


@dataclass(frozen=True)
class Result:
    """What a pack is worth in one style at one size.

    Attributes:
        style: its name.
        size: height and width of the pictures, in pixels.
        photos: their names.
        level: of the pack.
        beside: of other packs, on the same photos by the same objective.
        scores: ``checkerboard``, ``blotch``, ``clipping``, ``non_finite``, ``parity`` of the pack.
        curves: for each photo.
    """

    style: str
    size: int
    photos: list[str]
    level: Level
    beside: list[Level]
    scores: dict[str, Any]
    curves: list[Curve]

    def ratio(self, other: Level) -> float | None:
        """The pack's equivalent evaluations over another's; None where one is not known, or the other's are 0."""
        return self.level.mean / other.mean if self.level.mean is not None and other.mean else None

    @property
    def mean_curve(self) -> list[tuple[int, float]]:
        """`impasto.benchmarks.curves.mean_curve` of the photos."""
        return mean_curve(self.curves)

    def entry(self) -> dict[str, Any]:
        """The result for the card."""
        beside = {
            other.network: {
                "pictures": other.pictures,
                "objective": other.part("objective"),
                "objective_ratio": self.level.part("objective") / other.part("objective"),
                "equivalent_evaluations": other.mean,
                "median": other.median,
                "ratio": self.ratio(other),
            }
            for other in self.beside
        }
        return {
            "style": self.style,
            "size": self.size,
            "photos": self.photos,
            "objective": self.level.part("objective"),
            **{f"{name}_part": self.level.part(name) for name in PARTS},
            "equivalent_evaluations": self.level.mean,
            "median": self.level.median,
            "evaluations": self.level.evaluations,
            "cap": self.level.cap,
            "beside": beside,
            **self.scores,
            "device": ", ".join(sorted({curve.device for curve in self.curves})),
            "torch": ", ".join(sorted({curve.torch for curve in self.curves})),
        }


def check_card(folder: Path) -> None:
    """Raise `WrongCall` if a pack's card cannot be written, before the work for it is done."""
    if not os.access(folder, os.W_OK):
        raise WrongCall(f"{folder} takes no files, so its card cannot be written: copy the pack, or leave --write out")


def write_card(folder: Path, results: Sequence[Result]) -> None:
    """Put results into a pack's card, under ``quality["bench"]``, in place of those of the same style and size.

    Raises:
        PackError: if the card cannot be read any more.
        OSError: if it cannot be written; then it is as it was.
    """
    card = load_card(folder)
    entries = [result.entry() for result in results]
    new = {(entry["style"], entry["size"]) for entry in entries}
    kept = [entry for entry in card.quality.get("bench", []) if (entry["style"], entry["size"]) not in new]
    save_card(replace(card, quality={**card.quality, "bench": kept + entries}), folder)


def table(results: Sequence[Result]) -> str:
    """The results as a Markdown table: a row for the pack in each style and size, and one for each pack beside it.

    ``ratio`` is the measured pack's equivalent evaluations over the row's.
    """
    head = ["network", "style", "size", "pictures", "objective", "content", "style part", "evaluations", "median"]
    head += ["ratio", "grid (floor)", "blotch", "clipped (photo)", "non-finite", "parity"]
    rows = [head, ["---", "---", *["--:"] * (len(head) - 2)]]
    for result in results:
        for level in (result.level, *result.beside):
            ratio = None if level is result.level else result.ratio(level)
            row = [
                level.network,
                result.style,
                str(result.size),
                "" if level.pictures is None else f"{level.pictures:,}",
                *(f"{level.part(name):.3f}" for name in ("objective", "content", "style")),
                level.shown,
                f"> {level.cap}" if level.median is None else f"{level.median:.0f}",
                "" if ratio is None else f"{ratio:.2f}",
            ]
            rows.append(row + (_shown_scores(result.scores) if level is result.level else [""] * 5))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def _shown_scores(scores: dict[str, Any]) -> list[str]:
    return [
        "{level:.2f} ({floor:.2f})".format(**scores["checkerboard"]),
        f"{scores['blotch']:.1f}",
        "{painting:.2%} ({photo:.2%})".format(**scores["clipping"]),
        str(scores["non_finite"]),
        "{largest_difference} of 255, {share_within_1_of_255:.3%} within 1".format(**scores["parity"]),
    ]


def plot(results: Sequence[Result], path: str | Path) -> None:
    """Draw the objective against the evaluations, a panel for each style and size, as a PNG.

    Thin lines are photos, the thick one their mean as far as all of them go; a dot on a thin line is where it comes
    down to the pack's painting of that photo. Horizontal lines are the networks' means, with a marker at their
    equivalent evaluations. The photo itself, which costs none, is drawn at 1.

    Raises:
        MissingExtra: without matplotlib.
    """
    figures = require("matplotlib.figure", purpose="the plot", extra="bench")
    ticker = require("matplotlib.ticker", purpose="the plot", extra="bench")
    columns = min(COLUMNS, len(results))
    rows = math.ceil(len(results) / columns)
    figure = figures.Figure(figsize=(8, 5) if len(results) == 1 else (6 * columns, 4 * rows), layout="constrained")
    for index, result in enumerate(results, start=1):
        axes = figure.add_subplot(rows, columns, index, xlabel="evaluations of the objective", ylabel="objective")
        axes.set_title(f"{result.style}, {result.size} x {result.size} pixels, {_counted(result.photos)}", fontsize=10)
        _draw(axes, result)
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(ticker.FormatStrFormatter("%g"))
            axis.set_minor_formatter(ticker.NullFormatter())
        axes.legend(fontsize=8)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomically(path, buffer.getvalue())


def _counted(photos: Sequence[str]) -> str:
    return f"{len(photos)} photo{'s' if len(photos) > 1 else ''}"


def _draw(axes: Any, result: Result) -> None:
    """One panel's curves and levels."""
    for curve, parts, crossing in zip(result.curves, result.level.parts, result.level.evaluations, strict=True):
        _line(axes, curve.points, color="0.7", linewidth=0.8)
        if crossing is not None:
            axes.plot(max(1, crossing), parts["objective"], ".", color="tab:blue")
    _line(axes, result.mean_curve, color="black", linewidth=2, label="L-BFGS from the photo")
    for number, level in enumerate((result.level, *result.beside)):
        height, colour = level.part("objective"), f"C{number}"
        axes.axhline(height, color=colour, linestyle="--", label=f"{level.network}: {level.shown} evaluations")
        if level.mean is not None:
            axes.plot(max(1, level.mean), height, "o", color=colour, markersize=9)


def _line(axes: Any, points: Sequence[tuple[int, float]], **style: Any) -> None:
    axes.step([max(1, count) for count, _ in points], [loss for _, loss in points], where="post", **style)
