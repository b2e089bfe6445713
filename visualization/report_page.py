"""The page of a report: one HTML file that holds its pictures, needs no script and asks nothing of anybody."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from impasto.formats import write_atomically
from impasto.visualization.answers import answers
from impasto.visualization.registry import FAMILIES, registry
from impasto.visualization.result import DATA, FRAMES
from impasto.visualization.scene import open_picture

if TYPE_CHECKING:
    from impasto.visualization.model import Model
    from impasto.visualization.reports import Entry, Subject

PAGE = "index.html"

WHOLE = 160_000
"""Bytes up to which a PNG goes into the page as it is."""

LARGEST = (1400, 2400)
"""Width and height in pixels that a larger one is reduced to."""

TOP = 5
"""Classes at the head of the page."""

WORDS = {
    "done": "done",
    "refused": "refused (no meaning here)",
    "skipped": "left out",
    "failed": "failed",
    "waiting": "not yet run",
}
"""What a state is called, in the order of the summary."""


def write_page(folder: Path, subject: Subject, entries: Sequence[Entry]) -> Path:
    """Write ``index.html`` into a report's folder: every technique with its pictures, or the reason why not."""
    template = files("impasto.visualization").joinpath("pages/report.html").read_text(encoding="utf-8")
    cards = registry.cards
    families = {family: [each for each in entries if cards[each.name].family == family] for family in FAMILIES}
    families = {family: members for family, members in families.items() if members}
    page = Template(template).substitute(
        title=escape(f"{_network(subject.model)} looks at {subject.photo.name}"),
        photo=_photo(subject.photo),
        network=escape(_network(subject.model)),
        name=escape(subject.photo.name),
        answers=_answers(subject),
        summary=escape(_summary(entries)),
        versions=escape(_versions()),
        contents="".join(_contents(family, members) for family, members in families.items()),
        sections="".join(_section(folder, family, members) for family, members in families.items()),
    )
    write_atomically(folder / PAGE, page.encode())
    return folder / PAGE


def _versions() -> str:
    threads = torch.get_num_threads()
    plural = "" if threads == 1 else "s"
    return f"impasto {version('impasto')} and torch {torch.__version__} on {threads} thread{plural}"


def _network(model: Model) -> str:
    return model.command[1] if model.command else type(model.network).__name__


def _photo(path: Path) -> str:
    image = Image.fromarray(open_picture(path).rgb)
    image.thumbnail((800, 600), Image.Resampling.LANCZOS)
    return f'<img class="photo" alt="the photo" {_embedded(_webp(image), "webp", image.size)}>'


def _answers(subject: Subject) -> str:
    """The likeliest classes with their probabilities; nothing for a network without classes."""
    with torch.no_grad():
        logits = subject.model(subject.model.read(subject.photo))
    if logits.ndim != 2:
        return "<p>It is a network of features: it names no classes.</p>"
    found = answers(subject.model, logits, logits[0].topk(min(TOP, logits.shape[1])).indices.tolist())
    rows = (
        f"<tr><th>{escape(each.name)}</th><td>{each.probability:.1%}</td>"
        f'<td><span style="width: {each.probability:.1%}"></span></td></tr>'
        for each in found
    )
    return f'<table class="answers"><tbody>{"".join(rows)}</tbody></table>'


def _summary(entries: Sequence[Entry]) -> str:
    counts = Counter(each.state for each in entries)
    said = ", ".join(f"{counts[state]} {words}" for state, words in WORDS.items() if counts[state])
    return f"Of {len(entries)} techniques: {said}."


def _contents(family: str, members: Iterable[Entry]) -> str:
    links = (
        f'<li class="{each.state}"><a href="#{each.name}">{escape(_title(each.name))}</a>'
        + ("" if each.state == "done" else f" <small>{each.state}</small>")
        + "</li>"
        for each in members
    )
    return f"<div><h3>{family.capitalize()}</h3><ul>{''.join(links)}</ul></div>"


def _title(name: str) -> str:
    return name.replace("_", " ")


def _section(folder: Path, family: str, members: Iterable[Entry]) -> str:
    return (
        f"\n<section>\n<h2>{family.capitalize()}</h2>{''.join(_article(folder, each) for each in members)}\n</section>"
    )


def _article(folder: Path, entry: Entry) -> str:
    card = registry.cards[entry.name]
    state = "" if entry.state == "done" else f' <span class="state">{entry.state}</span>'
    body = _done(folder, entry) if entry.state == "done" else f'<p class="reason">{escape(entry.reason)}</p>'
    return f"""
<article id="{entry.name}" class="{entry.state}">
  <h3><small>{card.number}</small> {escape(_title(entry.name))}{state}</h3>
  <p class="meaning">{escape(card.meaning)}</p>
  {body}
</article>"""


def _done(folder: Path, entry: Entry) -> str:
    place = folder / entry.name
    found = json.loads((place / DATA).read_text(encoding="utf-8"))
    figures = (_figure(place / name, digest) for name, digest in entry.files.items() if name != DATA)
    command = f'<code class="command">{escape(found["command"])}</code>' if found["command"] else ""
    return f"""<div class="body">
    <div class="figures">{"".join(figures)}</div>
    <div class="text">
      <p>{escape(found["caption"])}</p>
      {_numbers(found["data"])}
      {command}<small>{_duration(entry.seconds)}</small>
    </div>
  </div>"""


def _figure(path: Path, digest: str) -> str:
    """A picture with its name and the first digits of its file's SHA-256; a large one reduced."""
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as opened:
        size = shown = opened.size
        if path.name == FRAMES or len(content) <= WHOLE:
            kind = "webp" if path.name == FRAMES else "png"
        else:
            reduced = opened.convert("RGBA" if opened.mode == "RGBA" else "RGB")
            reduced.thumbnail(LARGEST, Image.Resampling.LANCZOS)
            content, kind, shown = _webp(reduced), "webp", reduced.size
    note = "" if shown == size else f", {size[0]} &times; {size[1]} pixels in the file"
    name = _title(path.stem)
    small = ' class="small"' if max(size) <= 224 else ""
    return (
        f'<figure{small}><img loading="lazy" alt="{escape(name)}" {_embedded(content, kind, shown)}>'
        f'<figcaption>{escape(name)}{note} <code title="SHA-256 of {escape(path.name)}: {digest}">{digest[:12]}</code>'
        f"</figcaption></figure>"
    )


def _webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=82, method=4)
    return buffer.getvalue()


def _embedded(content: bytes, kind: str, size: tuple[int, int]) -> str:
    data = base64.b64encode(content).decode()
    return f'width="{size[0]}" height="{size[1]}" src="data:image/{kind};base64,{data}"'


def _numbers(data: Mapping[str, Any]) -> str:
    """What is one number, one word, or a few of them; maps and tables stay in the file."""
    rows = [(name, _text(value)) for name, value in data.items()]
    cells = "".join(f"<tr><th>{escape(_title(name))}</th><td>{escape(text)}</td></tr>" for name, text in rows if text)
    return f"<details><summary>Numbers</summary><table>{cells}</table></details>" if cells else ""


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int | str):
        return str(value)
    few = isinstance(value, list) and 0 < len(value) <= 8 and not any(isinstance(each, list | dict) for each in value)
    return ", ".join(map(_text, value)) if few else ""


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
