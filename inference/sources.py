"""Which files are read and where each goes: settled, and checked, before the first picture is painted."""

from __future__ import annotations

import os
import posixpath
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path

from impasto.errors import PictureError, WrongCall
from impasto.formats import IMAGE_SUFFIXES, SUFFIXES, check_write_format, format_of, written_format
from impasto.inference import places
from impasto.inference.places import StrPath

STREAM = "-"
"""Stands for standard input as a source and for standard output as an output."""

LIST = "@"
"""Begins a source that is a list of files."""


@dataclass(frozen=True)
class Job:
    """One picture to paint: where it comes from, where it goes, and its format there (None: that of the source)."""

    source: str
    output: str
    format: str | None


@dataclass(frozen=True)
class Plan:
    """All pictures to paint, and the folder they go to (None: they go to a file, a stream, or beside one another)."""

    jobs: tuple[Job, ...]
    folder: str | None = None


def plan(sources: Sequence[StrPath], output: StrPath | None, label: str, format: str | None) -> Plan:
    """Pair every picture that ``sources`` stand for with the file it goes to.

    Args:
        sources: files, folders (searched through for `IMAGE_SUFFIXES`), glob patterns; ``@FILE``, a list with a file a
            line (``@-``: on standard input), taken as it stands; each a path or an address. Or ``-`` alone.
        output: a file's name for a single file; a folder, in which paths relative to the sources' common parent are
            kept; ``-``; or None for ``NAME_LABEL.SUFFIX`` in the current folder.
        label: the style's part in the names when there is no output.
        format: one of `impasto.formats.WRITE_FORMATS`; None to keep each picture's own.

    Raises:
        WrongCall: sources and output that do not fit each other; two sources for one output; an output that is a
            source.
        PictureError: a source that does not exist, or that has no picture in it.
        MissingExtra, ImpastoError: an address, and what reads it is not installed.
        OSError: a place that cannot be looked at.
    """
    if not sources:
        raise WrongCall("no sources; expected at least one picture, folder or pattern")
    names = [places.place(source) for source in sources]
    output = None if output is None else places.place(output)
    if STREAM in names and len(names) > 1:
        raise WrongCall("standard input (-) is one picture; give it as the only source")
    if names == [STREAM]:
        if output in (None, STREAM):
            return Plan((Job(STREAM, STREAM, format),))
        return Plan((Job(STREAM, str(output), _file_format(str(output), format)),))
    files, folders, common = _expand(names)
    if output == STREAM:
        if len(files) > 1:
            raise WrongCall(f"standard output (-) takes one picture; got {len(files)}")
        return Plan((Job(files[0], STREAM, format),))
    if output is None:
        if folders:
            raise WrongCall("a folder as a source needs a folder to go to: -o OUT")
        return _checked(Plan(tuple(_beside(files, label, format))))
    files = _without_outputs(files, folders, output)
    single = len(names) == 1 and len(files) == 1 and not folders
    if not _is_folder(output, single, len(files)):
        return _checked(Plan((Job(files[0], output, _file_format(output, format)),)))
    return _checked(Plan(tuple(_into_folder(files, common, output, format)), output))


def _expand(names: Sequence[str]) -> tuple[list[str], list[str], str]:
    """The files that the sources stand for, each once, in order; the folders among the sources; their common parent."""
    files: dict[str, str] = {}
    folders: list[str] = []
    parents: set[str] = set()
    for name in names:
        kind = None if name == f"{LIST}{STREAM}" else places.kind(name)
        if kind == "folder":
            found = [file for file in places.files_below(name) if _is_picture(file)]
            folders.append(name)
            parents.add(places.absolute(name))
        elif kind == "file":
            found = [name]
        elif name.startswith(LIST):
            found = _listed(name.removeprefix(LIST))
        elif has_magic(name):
            found = [file for file in places.matches(name) if _is_picture(file)]
        else:
            raise PictureError(f"{name}: no such file or folder")
        if not found:
            raise PictureError(f"{name}: no picture there; expected files ending in {', '.join(IMAGE_SUFFIXES)}")
        if kind != "folder":
            parents.update(places.parent(file) for file in found)
        for file in found:
            files.setdefault(places.identity(file), file)
    return list(files.values()), folders, places.common_parent(parents)


def _listed(name: str) -> list[str]:
    """The files in a list: one a line; empty lines and lines that begin with # are passed over."""
    try:
        data = sys.stdin.buffer.read() if name == STREAM else places.read(places.place(name))
    except OSError as error:
        raise PictureError(f"{name}: the list cannot be read: {error.strerror or error}") from error
    if b"\0" in data:
        raise WrongCall(f"{name}: not a list; expected a text with the name of a file in each line")
    lines = [line.rstrip("\r") for line in os.fsdecode(data.removeprefix(b"\xef\xbb\xbf")).split("\n")]
    return [places.place(line) for line in lines if line.strip() and not line.startswith("#")]


def _is_picture(file: str) -> bool:
    base = posixpath.basename(file) if places.is_remote(file) else os.path.basename(file)
    return format_of(base) is not None and not base.startswith(".")


def _without_outputs(files: list[str], folders: Sequence[str], output: str) -> list[str]:
    """Without the pictures of an earlier run, where the output folder lies inside a source folder."""
    if not any(places.inside(output, folder) for folder in folders):
        return files
    kept = [file for file in files if not places.inside(file, output)]
    if not kept:
        raise PictureError(f"{', '.join(folders)}: no picture there but those in the output folder {output}")
    return kept


def _is_folder(output: str, single: bool, count: int) -> bool:
    """Whether the output is a folder; raises if it looks like a file and the sources need a folder."""
    kind = places.kind(output)
    if kind == "folder" or output.endswith(("/", os.sep)):
        return True
    is_file = kind == "file" or format_of(output) is not None
    if is_file and not single:
        raise WrongCall(f"{count} pictures need a folder to go to; got the file name {output!r}")
    return not single or not (is_file or Path(output).suffix)


def _beside(files: Sequence[str], label: str, format: str | None) -> Iterator[Job]:
    for file in files:
        name = Path(file)
        suffix, written = _suffix(name, format)
        yield Job(file, f"{name.stem}_{label}{suffix}", written)


def _into_folder(files: Sequence[str], common: str, output: str, format: str | None) -> Iterator[Job]:
    for file in files:
        way = Path(places.relative(places.absolute(file), common))
        if not way.name:
            raise WrongCall(f"{file}: expected the name of a file")
        suffix, written = _suffix(way, format)
        yield Job(file, places.join(output, str(way.with_suffix(suffix))), written)


def _suffix(path: Path, format: str | None) -> tuple[str, str]:
    """What a file ends in in the folder, and its format: its own suffix, unless it stands for another format."""
    own = format_of(path)
    written = format or written_format(own or "png")
    return path.suffix if own == written else SUFFIXES[written][0], written


def _file_format(output: str, format: str | None) -> str:
    """The format of an output file that is named; raises if the name and ``format`` differ."""
    own = format_of(output)
    if format is not None:
        if own not in (None, format):
            raise WrongCall(f"{output} is a name for {own}, but the format asked for is {format}; change one of them")
        return format
    return check_write_format(own or Path(output).suffix)


def _checked(plan: Plan) -> Plan:
    """The plan, if no output is a source and none is meant for two of them; raises if it is not so."""
    sources = {_same_file(job.source) for job in plan.jobs}
    outputs: dict[str, str] = {}
    for job in plan.jobs:
        if _same_file(job.output) in sources - {None}:
            raise WrongCall(f"{job.output} is itself a source and is not written over; choose another output")
        key = os.path.normcase(places.absolute(job.output))
        if key in outputs:
            raise WrongCall(f"{outputs[key]} and {job.source} would both go to {job.output}; give them apart")
        outputs[key] = job.source
    return plan


def _same_file(name: str) -> str | tuple[int, int] | None:
    """What all names of one file have in common, hard links too; None if there is no such file."""
    if places.is_remote(name):
        return name
    try:
        status = os.stat(name)
    except OSError:
        return None
    return status.st_dev, status.st_ino
