"""Painting files: one, or any number of them, from and to folders and buckets."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from impasto.errors import Interrupted, PackError, PictureError, WrongCall, unknown_name
from impasto.formats import check_write_format
from impasto.inference import places
from impasto.inference.locks import locked
from impasto.inference.manifest import Manifest, Row, Settings
from impasto.inference.painter import Lost, Painter
from impasto.inference.places import StrPath
from impasto.inference.sources import Job, Plan, plan
from impasto.packs import installed_packs

if TYPE_CHECKING:
    from impasto.inference.ray_engine import Crew

ENGINES = ("local", "ray")
"""Where pictures are painted: in this process, or on the machines of a Ray cluster."""

WAITING = 2
"""Pictures on their way from or to a disk, beside those that are painted."""

WAITING_REMOTE = 16
"""The same for addresses, which answer later."""

_PART = re.compile(r"\.[0-9a-f]{16}\.part")


@dataclass(frozen=True)
class Report:
    """What became of all pictures, in the order of the sources.

    Attributes:
        rows: one a picture.
        pack: the pack's name.
        style: weight of every style in the mixture.
        provider: what ran the network.
        seconds: from the call to the return.
        manifest: the file that holds the rows, if the pictures went to a folder.
    """

    rows: tuple[Row, ...]
    pack: str
    style: dict[str, float]
    provider: str
    seconds: float
    manifest: str | None = None

    @property
    def done(self) -> tuple[Row, ...]:
        """The rows of the pictures that are painted, now or by an earlier run."""
        return tuple(row for row in self.rows if row.error is None)

    @property
    def skipped(self) -> tuple[Row, ...]:
        """The rows of those that an earlier run had painted."""
        return tuple(row for row in self.rows if row.skipped)

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows of the pictures that are not painted, with the reason under ``error``."""
        return tuple(row for row in self.rows if row.error is not None)


def stylize_files(
    sources: StrPath | Sequence[StrPath],
    output: StrPath | None = None,
    *,
    style: str | None = None,
    pack: StrPath | None = None,
    strength: float = 1.0,
    format: str | None = None,
    resume: bool = False,
    provider: str = "auto",
    threads: int | None = None,
    engine: str = "local",
    color: str = "style",
    masks: Sequence[str] = (),
    max_memory: int | None = None,
    exact: bool = False,
    brush: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Paint any number of pictures; what a file holds beside its colours is kept (`impasto.images`).

    Several are decoded, painted and encoded at once, and no more than a few are in memory. A folder gets a manifest
    (`impasto.inference.manifest`), and one run at a time.

    Args:
        sources: files, folders (with all below them), glob patterns, ``@FILE`` (a list with a file a line); or ``-``
            alone, for standard input. Each a path or an address that fsspec reads, such as ``s3://bucket/folder``.
        output: a file's name for a single file; a folder, in which paths relative to the sources' common parent are
            kept; ``-`` for standard output; None for ``NAME_STYLE.SUFFIX`` in the current folder. Missing folders are
            made. A path or an address.
        style: a style's name, ``pack/style``, or a mixture ``a:0.6,b:0.4``; None for the only one there is.
        pack: a pack's name or path; None for the one that has the style, or the only one installed.
        strength: 0 (the photo) to 1 (the painting).
        format: one of `impasto.formats.WRITE_FORMATS`; None to keep each picture's own (BMP and GIF become PNG).
        resume: leave pictures alone that the folder's manifest says are painted: from a source of the same SHA-256,
            with the same settings, into an output that still has the SHA-256 it had.
        provider: one of `impasto.inference.sessions.PROVIDERS`.
        threads: CPU threads in all; None for as many as the process may run on. The outputs do not depend on it.
        engine: one of `ENGINES`. With "ray" (`impasto.inference.ray_engine`) ``threads`` are those of each worker.
        color: whose colours: "style", "luminance" or "match", the latter two with a share if wanted, "match:0.5".
        masks: other styles in their own places, "FILE=STYLE@STRENGTH" (`impasto.inference.regions.Mask`); for a single
            picture, painted here.
        max_memory: bytes that this process may take; None for half of what is free. A TIFF, PNG or JPEG of this machine
            for which that is too little in one pass is painted by tiles (`impasto.inference.huge`, extra ``huge``).
        exact: measure such a picture as one pass would, not on crops of it.
        brush: make the strokes on a copy of every picture whose longer side has so many pixels, and carry them to its
            size (`impasto.inference.brush`); animations apart.
        progress: called with the numbers of pictures behind and in all, before the first and after each; for a single
            picture that is painted by tiles, of steps.

    Returns:
        A row a picture. Of several, one that cannot be read or written in its format is reported and the rest done.

    Raises:
        WrongCall: an unknown style or provider; sources and output that do not fit each other; an output that is a
            source or is meant for two of them; ``resume`` without a folder. Nothing has been painted then.
        PackError: a pack that cannot be used, or not with masks.
        PictureError: a source that does not exist, or the only picture cannot be used.
        ImpastoError: another run paints into the folder.
        OSError: a folder or a disk that takes no files. What is painted by then is in the manifest.
        Interrupted: Ctrl-C, while pictures go to a folder; the same holds.
    """
    started = time.perf_counter()
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    if format is not None:
        check_write_format(format)
    if not 0 <= strength <= 1:
        raise WrongCall(f"expected a strength from 0 to 1; got {strength}")
    name, style = pack_and_style(style, pack)
    sources = [sources] if isinstance(sources, str | os.PathLike) else sources
    here = "cpu" if engine == "ray" else provider
    painter = Painter(
        name,
        style=style,
        strength=strength,
        provider=here,
        threads=threads,
        color=color,
        masks=masks,
        max_memory=max_memory,
        exact=exact,
        brush=brush,
    )
    planned = plan(sources, output, "_".join(painter.weights), format)
    if masks and (len(planned.jobs) > 1 or engine != "local"):
        many = "Ray" if engine != "local" else f"{len(planned.jobs)} pictures"
        raise WrongCall(f"a mask belongs to one picture; got {many}: call it for each, with --engine local")
    if resume and planned.folder is None:
        raise WrongCall("only a folder has a manifest to resume from: give one with -o OUT/")
    workers: AbstractContextManager[Painter | Crew] = nullcontext(painter)
    if engine == "ray":
        from impasto.inference.ray_engine import crew

        workers = crew(name, planned.jobs, painter, style=style, provider=provider, threads=threads)
    with _manifest(planned, painter.settings) as manifest, workers as hands:
        try:
            rows = _paint_all(planned.jobs, hands, manifest, resume, progress)
        finally:
            if hands.died:
                _sweep(planned)
    if len(rows) == 1 and rows[0].error is not None:
        raise PictureError(rows[0].error)
    used, seconds = hands.provider, time.perf_counter() - started
    return Report(rows, painter.settings.pack, painter.weights, used, seconds, manifest.name if manifest else None)


def pack_and_style(style: str | None, pack: StrPath | None) -> tuple[StrPath, str | None]:
    """What names the pack, and the style in it, if that is not named by the same."""
    if pack is not None:
        return pack, style
    if style is not None:
        return style, None
    packs = installed_packs()
    if not packs:
        raise PackError("no style pack is installed; give one with --pack, or list their folder in IMPASTO_PACKS")
    if len(packs) > 1:
        styles = ", ".join(f"{pack.card.name}/{style}" for pack in packs for style in pack.card.style_names)
        raise WrongCall(f"several packs are installed; choose a style: {styles}")
    return packs[0].path, None


@contextmanager
def _manifest(planned: Plan, settings: Settings) -> Iterator[Manifest | None]:
    """The manifest of the folder that the pictures go to, kept from other runs; None if they go to none."""
    if planned.folder is None:
        yield None
        return
    with locked(planned.folder) as lock:
        if lock.left:
            _sweep(planned)
        manifest = Manifest(planned.folder, settings, lock)
        try:
            yield manifest
        finally:
            manifest.close()


def _sweep(planned: Plan) -> None:
    """Remove what `impasto.formats.write_atomically` had begun in the local folders when a process was killed."""
    if planned.folder is None or places.is_remote(planned.folder):
        return
    for folder in map(Path, {planned.folder, *(places.parent(job.output) for job in planned.jobs)}):
        for part in folder.glob(".*.part") if folder.is_dir() else ():
            if _PART.fullmatch(part.name):
                part.unlink(missing_ok=True)


def _paint_all(
    jobs: Sequence[Job],
    painter: Painter | Crew,
    manifest: Manifest | None,
    resume: bool,
    progress: Callable[[int, int], None] | None,
) -> tuple[Row, ...]:
    """A row a job, in the order of the jobs, each in the manifest as soon as it is there.

    What may kill the process that paints it comes last and apart, one picture after the other.
    """
    rows: dict[int, Row] = {}
    lost = [index for index, job in enumerate(jobs) if manifest is not None and manifest.suspected(job.output)]
    first = sorted(set(range(len(jobs))) - set(lost))

    def run(index: int, paint: Callable[[Job, Row | None], Row]) -> None:
        job = jobs[index]
        earlier = manifest.finished(job.output, job.format) if manifest is not None and resume else None
        try:
            with manifest.begun(job.output) if manifest is not None else nullcontext():
                row = paint(job, earlier)
        except Lost:
            lost.append(index)
            return
        if manifest is not None and not row.skipped:
            manifest.append(row, painter.provider)
        rows[index] = row

    together = partial(painter.run, alone=len(jobs) == 1)
    if len(jobs) == 1 and isinstance(painter, Painter):
        together = partial(painter.run, alone=True, steps=progress)
    remote = any(places.is_remote(name) for job in jobs[:1] for name in (job.source, job.output))
    count = min(len(jobs), painter.threads + painter.machines * (WAITING_REMOTE if remote else WAITING))
    report, behind = progress or (lambda behind, total: None), 0
    report(0, len(jobs))
    try:
        for indices, paint, threads in ((first, together, count), (lost, painter.apart, 1)):
            with closing(_in_threads(partial(run, paint=paint), indices, threads, painter.end)) as ended:
                for _ in ended:
                    if len(rows) > behind:
                        behind += 1
                        report(behind, len(jobs))
    except (KeyboardInterrupt, OSError) as error:
        done = f"{len(rows)} of {len(jobs)} pictures are done; --resume goes on"
        if manifest is not None and isinstance(error, KeyboardInterrupt):
            raise Interrupted(f"interrupted: {done}") from error
        if manifest is not None and isinstance(error, OSError):
            error.strerror = f"{error.strerror or error} ({done})"
        raise
    return tuple(rows[index] for index in sorted(rows))


def _in_threads(
    run: Callable[[int], None], indices: Sequence[int], threads: int, end: Callable[[], None]
) -> Generator[None]:
    """Call ``run`` with each of the indices; after an error, ``end``, and those that have begun come to their end."""
    numbers, guard, stop = iter(indices), threading.Lock(), threading.Event()
    ended: SimpleQueue[BaseException | None] = SimpleQueue()

    def work() -> None:
        while not stop.is_set():
            with guard:
                number = next(numbers, None)
            if number is None:
                return
            try:
                run(number)
            except BaseException as error:  # raised again by the thread that waits
                stop.set()
                ended.put(error)
            else:
                ended.put(None)

    workers = [threading.Thread(target=work, name=f"painter-{index}") for index in range(threads)]
    try:
        for worker in workers:
            worker.start()
        for _ in indices:
            error = ended.get()
            if error is not None:
                raise error
            yield
    except BaseException:
        end()
        raise
    finally:
        stop.set()
        for worker in workers:
            if worker.ident is not None:
                worker.join()
