"""Every technique on one photo: each done, refused with its reason, or left out; stopped and gone on with at will."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from impasto.errors import Interrupted, MissingExtra, WrongCall, unknown_name
from impasto.formats import write_atomically
from impasto.visualization.answers import answer
from impasto.visualization.inputs import Pictures
from impasto.visualization.model import Model
from impasto.visualization.progress import Report, reporting
from impasto.visualization.registry import FAMILIES, Card, Refused, Technique, registry
from impasto.visualization.report_page import PAGE, write_page
from impasto.visualization.result import Result
from impasto.visualization.scene import open_picture

RECORD = "report.json"

LIMIT = 60.0
"""Seconds that a technique may take when nothing is said."""

QUICK: dict[str, dict[str, Any]] = {
    "class_image": {"seeds": 2},
    "evolve": {"evaluations": 300},
    "invert": {"steps": 100},
    "texture": {"steps": 50},
    "texture_by_layer": {"steps": 30},
}
"""Options with which a technique takes half a minute at most where with its own it takes minutes."""

LONG = ("patch",)
"""Techniques that show nothing before minutes are over: only if they are asked for."""

OF_THE_PHOTO = ("faithfulness",)
"""Techniques that take many photos, but are asked about this one."""

NEEDED = {"class_image": "target", "guided_dream": "guide", "patch": "target"}
"""Options without which a technique does not run: the photo's class, or the first of the other photos."""


@dataclass(frozen=True)
class Entry:
    """What became of a technique.

    Attributes:
        name: of the technique.
        state: "done"; "refused", for this network or photo; "skipped", as something is missing or it took too long;
            "failed", for an error that nobody foresaw; or "waiting".
        reason: why it is not done, in a sentence.
        seconds: that it took.
        key: what it was made from; the same key is not worked on twice.
        files: the SHA-256 of each file in the technique's folder.
    """

    name: str
    state: str = "waiting"
    reason: str = ""
    seconds: float = 0.0
    key: str = ""
    files: dict[str, str] = field(default_factory=dict)


Tell = Callable[[float, str, Entry | None], None]
"""Called with the share of the work that is done, what is being done, and an entry when it is finished."""


class _OutOfTime(Exception):
    """Ends a technique from inside its own progress."""


@dataclass(frozen=True)
class Subject:
    """What the techniques are given.

    Attributes:
        model: looked into.
        photo: its file.
        images: a folder of other photos, or None.
    """

    model: Model
    photo: Path
    images: str | None

    @cached_property
    def pictures(self) -> Pictures:
        """The other photos."""
        return Pictures() if self.images is None else Pictures.of(self.images)

    @cached_property
    def model_key(self) -> str:
        """Changes with the network and its weights."""
        key = hashlib.sha256(repr((self.model.network, self.model.preprocessing, self.model.command)).encode())
        for name, tensor in sorted(self.model.network.state_dict().items()):
            key.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return f"{key.hexdigest()} {self.model.device} {torch.__version__}"

    @cached_property
    def photo_key(self) -> str:
        """Changes with the photo."""
        return f"{self.photo} {_digest(self.photo)}"

    @cached_property
    def pictures_key(self) -> str:
        """Changes with the other photos, as far as names, sizes and times say so."""
        return repr([(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in self.pictures.paths])

    def key(self, card: Card) -> list[str]:
        """Changes with what a technique is given."""
        reads_photo = "picture" in card.reads.split() or card.name in OF_THE_PHOTO or NEEDED.get(card.name) == "target"
        reads_many = card.reads.startswith("pictures") or NEEDED.get(card.name) == "guide"
        return [self.model_key, self.photo_key if reads_photo else "", self.pictures_key if reads_many else ""]

    def inputs(self, card: Card) -> tuple[Any, ...]:
        """What goes into a technique after the model. Raises WrongCall where it is not there."""
        if card.reads == "nothing":
            return ()
        if "picture" in card.reads.split() or card.name in OF_THE_PHOTO:
            return (str(self.photo),)
        if self.images is None and not card.optional:
            raise WrongCall("it looks through many photos: give a folder with --images")
        return () if self.images is None else (self.images,)

    def options(self, technique: Technique, full: bool) -> dict[str, Any]:
        """The technique's own, the quick ones unless ``full``, and the one it needs. Raises as `inputs`."""
        options = {} if full else dict(QUICK.get(technique.card.name, {}))
        needed = NEEDED.get(technique.card.name)
        if needed == "target":
            found = answer(self.model, self.model.read(self.photo))
            options[needed] = found.name if self.model.classes.count(found.name) == 1 else str(found.index)
        elif needed == "guide":
            if self.images is None:
                raise WrongCall("it needs a second picture: give a folder with --images")
            options[needed] = str(self.pictures.paths[0])
        return options


def report(
    photo: str | Path,
    images: str | Path | None = None,
    *,
    model: Model,
    output: str | Path = Path("see/report"),
    only: Iterable[str] = (),
    limit: float = LIMIT,
    full: bool = False,
    tell: Tell | None = None,
) -> list[Entry]:
    """Run every technique on a photo, and write what came of it as one page.

    Each technique's pictures and numbers go into a folder of its name in ``output``, as the technique's own command
    writes them; ``report.json`` says what each was made from, and ``index.html`` shows all of it and refers to nothing
    outside itself. A technique that is there already, made from the same, is not run again, so that a report that was
    stopped goes on.

    Args:
        photo: the file of a photo.
        images: a folder of other photos, for techniques that look through many.
        model: a network.
        output: a folder, made if need be.
        only: techniques or families; none for all but those in `LONG`. The page shows the others as far as they are
            there.
        limit: seconds that a technique may take, as far as it says how far it is; 0 for any time.
        full: the techniques' own options, not the quicker ones in `QUICK`.
        tell: told how far it is.

    Returns:
        What became of each technique, in the order of the registry. The page is ``index.html`` in ``output``.

    Raises:
        PictureError: a photo that cannot be read, or a folder without one.
        WrongCall: an unknown technique.
        Interrupted: by Ctrl-C. The page is there, with what was finished.
    """
    open_picture(photo)
    if images is not None:
        Pictures.of(images)
    subject = Subject(model, Path(photo), None if images is None else str(images))
    run = _Run(subject, Path(output), limit, full, tell)
    chosen = _chosen(only)
    run.folder.mkdir(parents=True, exist_ok=True)
    record = _read(run.folder)
    entries = {name: run.again(record.get(name)) or _waiting(name, chosen) for name in registry}
    pending = [name for name, entry in entries.items() if entry.state == "waiting"]
    try:
        for done, name in enumerate(pending):
            entries[name] = run.anew(name, done / len(pending), (done + 1) / len(pending))
            _write(run.folder, record | {name: each for name, each in entries.items() if each.key})
    except KeyboardInterrupt:
        finished = sum(entries[name].state != "waiting" for name in pending)
        raise Interrupted(
            f"stopped after {finished} of {len(pending)} techniques; {run.folder / PAGE} shows them. "
            "Go on with the same call"
        ) from None
    finally:
        write_page(run.folder, run.subject, list(entries.values()))
    return list(entries.values())


def _waiting(name: str, chosen: Collection[str]) -> Entry:
    if name in chosen:
        return Entry(name)
    reason = (
        f"it takes minutes: add it with --only {name} --limit 0" if name in LONG else "it was not asked for (--only)"
    )
    return Entry(name, "skipped", reason)


def _chosen(only: Iterable[str]) -> set[str]:
    """The techniques that are meant by names of techniques and families; for none all but those in `LONG`."""
    wanted = {name.replace("-", "_") for name in only}
    for name in wanted - set(registry) - set(FAMILIES):
        raise unknown_name("technique or family", name, [*registry, *FAMILIES])
    if not wanted:
        return set(registry) - set(LONG)
    return {card.name for card in registry.cards.values() if wanted & {card.name, card.family}}


@dataclass(frozen=True)
class _Run:
    """One call of `report`; the attributes are its arguments."""

    subject: Subject
    folder: Path
    limit: float
    full: bool
    tell: Tell | None

    def again(self, entry: Entry | None) -> Entry | None:
        """What was found before, if it was made from the same and its files are as they were."""
        if entry is None or entry.key != self._key(entry.name, entry.state):
            return None
        try:
            whole = all(_digest(self.folder / entry.name / file) == known for file, known in entry.files.items())
        except OSError:
            return None
        return entry if whole else None

    def anew(self, name: str, before: float, after: float) -> Entry:
        """Run a technique, and say what became of it; whatever it raises is a reason."""
        began = time.monotonic()
        files: dict[str, str] = {}
        state, reason = "skipped", ""
        try:
            with reporting(self._steps(name, before, after)):
                result = self._result(name)
            files = {path.name: _digest(path) for path in result.save(self.folder / name)}
            state = "done"
        except Refused as refusal:
            state, reason = "refused", str(refusal)
        except (WrongCall, MissingExtra, _OutOfTime) as error:
            reason = str(error)
        except Exception as error:  # whatever is wrong with one technique, the others go on
            state, reason = "failed", f"{type(error).__name__}: {error}"
        key = "" if state == "failed" else self._key(name, state)
        entry = Entry(name, state, reason, time.monotonic() - began, key, files)
        if self.tell:
            self.tell(after, name, entry)
        return entry

    def _result(self, name: str) -> Result:
        technique = registry[name]
        inputs, options = self.subject.inputs(technique.card), self.subject.options(technique, self.full)
        return technique.function(self.subject.model, *inputs, **options)

    def _steps(self, name: str, before: float, after: float) -> Report:
        """Tells how far a technique is, and ends it when its time is over."""
        began = time.monotonic()

        def step(done: int, total: int, what: str) -> None:
            if self.tell:
                self.tell(before + (after - before) * done / max(1, total), f"{name}: {what}", None)
            if self.limit and done < total and time.monotonic() - began > self.limit:
                raise _OutOfTime(f"it was stopped after {self.limit:g} s, at {what} {done} of {total}; see --limit")

        step(0, 1, "begins")
        return step

    def _key(self, name: str, state: str) -> str:
        """Changes with everything that a result may depend on; for what was skipped also with the time it had."""
        card = registry.cards[name]
        module = importlib.util.find_spec(card.module)
        source = Path(module.origin).read_bytes() if module and module.origin else b""
        options = None if self.full else QUICK.get(name)
        made_from = [*self.subject.key(card), version("impasto"), source, options, state == "skipped" and self.limit]
        return hashlib.sha256(repr(made_from).encode()).hexdigest()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(folder: Path) -> dict[str, Entry]:
    """The record of an earlier report; nothing where there is none, or one that cannot be read."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        values = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return {name: Entry(**entry) for name, entry in values.items() if name in registry}
    return {}


def _write(folder: Path, entries: Mapping[str, Entry]) -> None:
    values = {name: asdict(entry) for name, entry in entries.items()}
    write_atomically(folder / RECORD, (json.dumps(values, indent=2) + "\n").encode())
