"""Which files are read and where each goes: settled, and checked, before the first picture is painted."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from impasto.errors import PictureError, WrongCall
from impasto.formats import IMAGE_SUFFIXES, SUFFIXES, check_write_format, format_of, written_format

STREAM = "-"
"""Stands for standard input as a source and for standard output as an output."""

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Job:
    """One picture to paint: where it comes from, where it goes, and its format there (None: that of the source)."""

    source: str
    output: str
    format: str | None


def plan(sources: Sequence[StrPath], output: StrPath | None, label: str, format: str | None) -> tuple[Job, ...]:
    """Pair every picture that ``sources`` stand for with the file it goes to.

    Args:
        sources: files, folders (searched through for `IMAGE_SUFFIXES`), glob patterns; or ``-`` alone.
        output: a file's name for a single file; a folder, in which paths relative to the sources' common parent are
            kept; ``-``; or None for ``NAME_LABEL.SUFFIX`` in the current folder.
        label: the style's part in the names when there is no output.
        format: one of `impasto.formats.WRITE_FORMATS`; None to keep each picture's own.

    Raises:
        WrongCall: sources and output that do not fit each other; two sources for one output; an output that is a
            source.
        PictureError: a source that does not exist, or that has no picture in it.
    """
    if not sources:
        raise WrongCall("no sources; expected at least one picture, folder or pattern")
    names = [os.fspath(source) for source in sources]
    streams = output is not None and os.fspath(output) == STREAM
    if STREAM in names and len(names) > 1:
        raise WrongCall("standard input (-) is one picture; give it as the only source")
    if names == [STREAM]:
        if output is None or streams:
            return (Job(STREAM, STREAM, format),)
        return (Job(STREAM, str(output), _file_format(Path(output), format)),)
    files, common = _expand(names)
    files = _without_outputs(files, names, output)
    if streams:
        if len(files) > 1:
            raise WrongCall(f"standard output (-) takes one picture; got {len(files)}")
        return (Job(str(files[0]), STREAM, format),)
    if output is None and any(Path(name).is_dir() for name in names):
        raise WrongCall("a folder as a source needs a folder to go to: -o OUT")
    if output is not None and not _is_folder(output, names, files):
        jobs: tuple[Job, ...] = (Job(str(files[0]), str(output), _file_format(Path(output), format)),)
    else:
        jobs = tuple(_into_folder(files, common, output, label, format))
    _check_outputs(jobs)
    return jobs


def _expand(names: Sequence[str]) -> tuple[list[Path], str]:
    """The files that the sources stand for, each once, in the order of the sources; and the sources' common parent."""
    files: dict[str, Path] = {}
    parents: set[str] = set()
    for name in names:
        path = Path(name)
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if _is_picture(file))
            parents.add(os.path.abspath(path))
        elif path.exists():
            found = [path]
        elif glob.has_magic(name):
            found = sorted(file for file in map(Path, glob.glob(name, recursive=True)) if _is_picture(file))
        else:
            raise PictureError(f"{name}: no such file or folder")
        if not found:
            raise PictureError(f"{name}: no picture there; expected files ending in {', '.join(IMAGE_SUFFIXES)}")
        if not path.is_dir():
            parents.update(os.path.abspath(file.parent) for file in found)
        for file in found:
            files.setdefault(os.path.realpath(file), file)
    return list(files.values()), os.path.commonpath(parents)


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file()


def _without_outputs(files: list[Path], names: Sequence[str], output: StrPath | None) -> list[Path]:
    """Without the pictures of an earlier run, where the output folder lies inside a source folder."""
    if output is None:
        return files
    place = Path(os.path.realpath(output))
    if not any(Path(os.path.realpath(name)) in place.parents for name in names if Path(name).is_dir()):
        return files
    kept = [file for file in files if place not in Path(os.path.realpath(file)).parents]
    if not kept:
        raise PictureError(f"{', '.join(names)}: no picture there but those in the output folder {os.fspath(output)}")
    return kept


def _is_folder(output: StrPath, names: Sequence[str], files: Sequence[Path]) -> bool:
    """Whether the output is a folder; raises if it looks like a file and the sources need a folder."""
    place = Path(output)
    if place.is_dir() or os.fspath(output).endswith(("/", os.sep)):
        return True
    is_file = place.exists() or format_of(place) is not None
    single = len(names) == 1 and len(files) == 1 and not Path(names[0]).is_dir()
    if is_file and not single:
        raise WrongCall(f"{len(files)} pictures need a folder to go to; got the file name {os.fspath(output)!r}")
    return not single or not (is_file or place.suffix)


def _into_folder(
    files: Sequence[Path], common: str, output: StrPath | None, label: str, format: str | None
) -> Iterator[Job]:
    for file in files:
        if output is None:
            place = Path(f"{file.stem}_{label}{file.suffix}")
        else:
            place = Path(output, os.path.relpath(file, common))
        suffix = _suffix(place, format)
        yield Job(str(file), str(place.with_suffix(suffix)), format_of(suffix))


def _suffix(path: Path, format: str | None) -> str:
    """The suffix a file has in the folder: its own, unless it stands for another format than the one written."""
    own = format_of(path)
    written = format or written_format(own or "png")
    return path.suffix if own == written else SUFFIXES[written][0]


def _file_format(output: Path, format: str | None) -> str:
    """The format of an output file that is named; raises if the name and ``format`` differ."""
    own = format_of(output)
    if format is not None:
        if own not in (None, format):
            raise WrongCall(f"{output} is a name for {own}, but the format asked for is {format}; change one of them")
        return format
    return check_write_format(own or output.suffix)


def _check_outputs(jobs: Sequence[Job]) -> None:
    sources = {_identity(job.source): job.source for job in jobs}
    outputs: dict[str, str] = {}
    for job in jobs:
        if os.path.exists(job.output) and _identity(job.output) in sources:
            raise WrongCall(f"{job.output} is itself a source and is not written over; choose another output")
        key = os.path.normcase(os.path.abspath(job.output))
        if key in outputs:
            raise WrongCall(f"{outputs[key]} and {job.source} would both go to {job.output}; give them apart")
        outputs[key] = job.source


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
