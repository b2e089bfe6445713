"""The page of ``make demo``: pictures with the commands that made them, and the curves of the run that learned a style.

One HTML file that refers to picture files beside it and to nothing else.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from impasto.errors import ImpastoError, require

RECORD = "record.json"
TAGS = re.compile(r"train/(total|tv|(?:content|style)/[^/]+)")
"""The scalars that the page draws."""
PREVIEWS = 5
SMOOTHING = 0.9
WIDTH, HEIGHT = 300, 100

Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Command:
    """A command as one types it, and how long it took."""

    line: str
    seconds: float


@dataclass(frozen=True)
class Picture:
    """A painted photo and the command that made it."""

    photo: str
    painted: str
    command: Command


@dataclass
class Record:
    """What the demo has done so far, kept beside the page."""

    pictures: list[Picture] = field(default_factory=list)
    sheet: Picture | None = None
    strengths: list[Picture] = field(default_factory=list)
    new_style: str = ""
    new_style_picture: str = ""
    learned: Command | None = None
    new_pictures: list[Picture] = field(default_factory=list)
    mixed: list[Picture] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write the record into the demo's folder."""
        (folder / RECORD).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Record:
        """Read the first part of the record back. Raises `ImpastoError` where there is none."""
        path = folder / RECORD
        if not path.is_file():
            raise ImpastoError(f"no {path}: the second part follows the first; run python -m impasto.demo first")
        values = json.loads(path.read_text(encoding="utf-8"))
        (sheet,) = _pictures([values["sheet"]])
        return cls(_pictures(values["pictures"]), sheet, _pictures(values["strengths"]))


def _pictures(values: list[dict[str, Any]]) -> list[Picture]:
    return [Picture(value["photo"], value["painted"], Command(**value["command"])) for value in values]


def write_page(folder: Path, record: Record, run_folder: Path | None = None) -> Path:
    """Write ``index.html`` into the demo's folder; with a run's folder also what was learned. Returns its path."""
    page = Template(files("impasto").joinpath("demo.html").read_text(encoding="utf-8"))
    second = _waiting() if run_folder is None else _second(folder, record, run_folder)
    path = folder / "index.html"
    path.write_text(page.substitute(first=_first(folder, record), second=second), encoding="utf-8")
    return path


def read_curves(run_folder: Path) -> dict[str, Curve]:
    """The loss curves in a run's event files: (seconds since the first value, value) by tag."""
    events = _events(run_folder)
    scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"] if TAGS.fullmatch(tag)}
    start = min((points[0].wall_time for points in scalars.values()), default=0.0)
    return {tag: [(point.wall_time - start, point.value) for point in points] for tag, points in scalars.items()}


def save_previews(run_folder: Path, style: str, folder: Path) -> list[tuple[int, Path]]:
    """Write some of the run's previews of a style, spread over the run, as files. Returns (step, path) of each."""
    events = _events(run_folder)
    tag = f"preview/{style}"
    images = events.Images(tag) if tag in events.Tags()["images"] else []
    count = min(PREVIEWS, len(images))
    chosen = [images[round(i * (len(images) - 1) / max(count - 1, 1))] for i in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    saved = []
    for image in chosen:
        path = folder / f"{image.step:06d}.png"
        path.write_bytes(image.encoded_image_string)
        saved.append((image.step, path))
    return saved


def _events(run_folder: Path) -> Any:
    accumulator = require(
        "tensorboard.backend.event_processing.event_accumulator", purpose="reading the run's curves", extra="train"
    )
    everything = {accumulator.SCALARS: 0, accumulator.IMAGES: 0}
    return accumulator.EventAccumulator(str(run_folder), size_guidance=everything).Reload()


def _first(folder: Path, record: Record) -> str:
    return f"""
<section>
  <h2>Any photo, any of these paintings</h2>
  <p>Each photo below went once through one small network, on the processor. Drag across a picture to compare it with
  the photo.</p>
  {_pairs(folder, record.pictures)}
</section>
<section>
  <h2>All styles of that network</h2>
  {_row(folder, [record.sheet] if record.sheet else [])}
</section>
<section>
  <h2>As strong as you like</h2>
  <p>At strength 0 the photo comes back, at strength 1 it is all paint.</p>
  {_row(folder, record.strengths)}
</section>"""


def _waiting() -> str:
    return """
<section>
  <h2>A style of your own</h2>
  <p>Comes here when the second half of <code>make demo</code> has run: it installs what trains and learns a new
  style in about two minutes.</p>
</section>"""


def _second(folder: Path, record: Record, run_folder: Path) -> str:
    curves = read_curves(run_folder)
    previews = save_previews(run_folder, record.new_style, folder / "previews")
    source = escape(_link(folder, record.new_style_picture))
    command = "" if record.learned is None else _command(record.learned)
    return f"""
<section>
  <h2>A style of your own</h2>
  <div class="learned">
    <img class="source" src="{source}" alt="the picture whose style was learned">
    <div>
      <p>A style can be any picture. This one, <b>{_words(record.new_style)}</b>, is a slice of tissue under a
      microscope. The network above was kept as it is; only the new style's scales and shifts were learned, from the
      four photos on this page.</p>
      {command}
      {_film(folder, previews)}
    </div>
  </div>
  {_pairs(folder, record.new_pictures)}
</section>
<section>
  <h2>How it learned</h2>
  <p>The objective (<i>total</i>) and its parts, named after the layers of the network that judges: <i>content</i>,
  how far from the photo; <i>style</i>, how far from the painting; 0 is a perfect match. Thin: single measurements;
  thick: their running mean.</p>
  {_charts(curves)}
</section>
<section>
  <h2>Mixed</h2>
  <p>Both styles now live in one network, so they mix.</p>
  {_row(folder, record.mixed)}
</section>"""


def _pairs(folder: Path, pictures: Iterable[Picture]) -> str:
    return f'<div class="pairs">{"".join(_pair(folder, picture) for picture in pictures)}\n</div>'


def _pair(folder: Path, picture: Picture) -> str:
    """Photo and painting on top of each other, with a slider between them."""
    name = _words(Path(picture.photo).stem)
    photo, painted = (escape(_link(folder, path)) for path in (picture.photo, picture.painted))
    return f"""
<figure>
  <div class="pair">
    <img src="{photo}" alt="{name}: the photo">
    <img class="over" src="{painted}" alt="{name}: painted">
    <input type="range" min="0" max="100" value="35" aria-label="{name}: photo on the left, painted on the right"
      oninput="this.parentNode.style.setProperty('--cut', this.value + '%')">
  </div>
  <figcaption>{_command(picture.command)}</figcaption>
</figure>"""


def _row(folder: Path, pictures: Iterable[Picture]) -> str:
    figures = (
        f'\n<figure><img src="{escape(_link(folder, picture.painted))}" alt="{_words(Path(picture.painted).stem)}">'
        f"<figcaption>{_command(picture.command)}</figcaption></figure>"
        for picture in pictures
    )
    return f'<div class="row">{"".join(figures)}\n</div>'


def _film(folder: Path, previews: Iterable[tuple[int, Path]]) -> str:
    figures = (
        f'\n<figure><img src="{escape(_link(folder, str(path)))}" alt="preview">'
        f"<figcaption>step {step}</figcaption></figure>"
        for step, path in previews
    )
    return f'<div class="film">{"".join(figures)}\n</div>'


def _command(command: Command) -> str:
    words = " ".join(f"<span>{escape(word)}</span>" for word in command.line.split(" "))  # lines break between words
    return f'<code class="command">{words}</code><small>{_duration(command.seconds)}</small>'


def _charts(curves: Mapping[str, Curve]) -> str:
    """All curves of more than one point, the objective first."""
    drawn = [tag for tag, curve in curves.items() if len(curve) > 1]
    order = sorted(drawn, key=lambda tag: (tag != "train/total", tag))
    return f'<div class="charts">{"".join(_chart(tag.removeprefix("train/"), curves[tag]) for tag in order)}\n</div>'


def _chart(name: str, curve: Curve) -> str:
    """One curve from 0 up, raw and smoothed, as SVG."""
    smooth = list(_smoothed(curve))
    seconds = max(curve[-1][0], 1e-9)
    top = max(max(value for _, value in curve), 1e-12)
    first, last = smooth[0][1], smooth[-1][1]
    lines = "".join(
        f'<polyline class="{kind}" points="{_points(points, seconds, top)}"/>'
        for kind, points in (("raw", curve), ("smooth", smooth))
    )
    return f"""
<figure class="chart {escape(name.split("/")[0])}">
  <figcaption><b>{escape(name)}</b><span>{first:.3g} → {last:.3g}</span></figcaption>
  <svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{escape(name)}">{lines}</svg>
  <small><span>0 s</span><span>{_duration(seconds)}</span></small>
</figure>"""


def _smoothed(curve: Curve) -> Iterable[tuple[float, float]]:
    """Exponential running mean, unbiased at the start; over less, the fewer values there are."""
    keep = max(0.0, min(SMOOTHING, 1 - 10 / len(curve)))
    mean, weight = 0.0, 0.0
    for seconds, value in curve:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        yield seconds, mean / weight


def _points(curve: Curve, seconds: float, top: float) -> str:
    return " ".join(f"{WIDTH * x / seconds:.1f},{HEIGHT - (HEIGHT - 2) * y / top:.1f}" for x, y in curve)


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _words(name: str) -> str:
    return escape(name.replace("_", " "))


def _link(folder: Path, path: str) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()
