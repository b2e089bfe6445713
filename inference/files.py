"""Painting files: one, a folder, a pattern, or a stream."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from impasto.errors import PackError, PictureError, WrongCall
from impasto.formats import check_write_format
from impasto.images import encode_picture, read_picture, write_picture
from impasto.inference.sources import STREAM, Job, StrPath, plan
from impasto.inference.stylizer import Stylizer
from impasto.packs import installed_packs


@dataclass(frozen=True)
class Row:
    """What became of one picture: where it went, or (``output`` None) why it did not."""

    source: str
    output: str | None
    error: str | None
    width: int | None
    height: int | None
    seconds: float


@dataclass(frozen=True)
class Report:
    """What became of all pictures, in the order they were painted.

    Attributes:
        rows: one a picture.
        pack: the pack's name.
        style: weight of every style in the mixture.
        provider: what ran the network.
        seconds: from the call to the return.
    """

    rows: tuple[Row, ...]
    pack: str
    style: dict[str, float]
    provider: str
    seconds: float

    @property
    def done(self) -> tuple[Row, ...]:
        """The rows of the pictures that were painted."""
        return tuple(row for row in self.rows if row.error is None)

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows of the pictures that were not, with the reason under ``error``."""
        return tuple(row for row in self.rows if row.error is not None)


def stylize_files(
    sources: StrPath | Sequence[StrPath],
    output: StrPath | None = None,
    *,
    style: str | None = None,
    pack: StrPath | None = None,
    strength: float = 1.0,
    format: str | None = None,
    provider: str = "auto",
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Paint files and folders of pictures; what a file holds beside its colours is kept (`impasto.images`).

    Args:
        sources: files, folders (with all below them), glob patterns; or ``-`` alone, for standard input.
        output: a file's name for a single file; a folder, in which paths relative to the sources' common parent are
            kept; ``-`` for standard output; None for ``NAME_STYLE.SUFFIX`` in the current folder. Missing folders are
            made.
        style: a style's name, ``pack/style``, or a mixture ``a:0.6,b:0.4``; None for the only one there is.
        pack: a pack's name or path; None for the one that has the style, or the only one installed.
        strength: 0 (the photo) to 1 (the painting).
        format: one of `impasto.formats.WRITE_FORMATS`; None to keep each picture's own (BMP and GIF become PNG).
        provider: one of `impasto.inference.sessions.PROVIDERS`.
        threads: CPU threads an operator may use; None for as many as the process may run on.
        progress: called with the numbers of pictures behind and in all, before the first and after each.

    Returns:
        A row a picture. Of several, one that cannot be read or written in its format is reported and the rest done.

    Raises:
        WrongCall: an unknown style or provider; sources and output that do not fit each other; an output that is a
            source or is meant for two of them. Nothing has been painted then.
        PackError: a pack that cannot be used.
        PictureError: a source that does not exist, or the only picture cannot be used.
        OSError: a folder or a disk that takes no files.
    """
    started = time.perf_counter()
    if format is not None:
        check_write_format(format)
    if not 0 <= strength <= 1:
        raise WrongCall(f"expected a strength from 0 to 1; got {strength}")
    stylizer = _stylizer(style, pack, provider, threads)
    style = style if pack is not None else None
    weights = {name: weight for name, weight in zip(stylizer.styles, stylizer.mixture(style), strict=True) if weight}
    sources = [sources] if isinstance(sources, str | os.PathLike) else sources
    jobs = plan(sources, output, "_".join(weights), format)
    rows = []
    for index, job in enumerate(jobs):
        if progress is not None:
            progress(index, len(jobs))
        try:
            rows.append(_stylize_one(job, stylizer, style, strength))
        except PictureError as error:
            if len(jobs) == 1:
                raise
            rows.append(Row(job.source, None, str(error), None, None, 0.0))
    if progress is not None:
        progress(len(jobs), len(jobs))
    return Report(tuple(rows), stylizer.card.name, weights, stylizer.provider, time.perf_counter() - started)


def _stylizer(style: str | None, pack: StrPath | None, provider: str, threads: int | None) -> Stylizer:
    name = pack if pack is not None else style
    if name is None:
        packs = installed_packs()
        if not packs:
            raise PackError("no style pack is installed; give one with --pack, or list their folder in IMPASTO_PACKS")
        if len(packs) > 1:
            styles = ", ".join(f"{pack.card.name}/{style}" for pack in packs for style in pack.card.style_names)
            raise WrongCall(f"several packs are installed; choose a style: {styles}")
        name = packs[0].path
    return Stylizer(name, provider=provider, threads=threads)


def _stylize_one(job: Job, stylizer: Stylizer, style: str | None, strength: float) -> Row:
    started = time.perf_counter()
    picture = read_picture(io.BytesIO(sys.stdin.buffer.read()) if job.source == STREAM else job.source)
    painted = stylizer.stylize_picture(picture, style, strength)
    if job.output == STREAM:
        sys.stdout.buffer.write(encode_picture(painted, job.format))
        sys.stdout.buffer.flush()
    else:
        Path(job.output).parent.mkdir(parents=True, exist_ok=True)
        write_picture(painted, job.output, job.format)
    height, width = painted.rgb.shape[:2]
    return Row(job.source, job.output, None, width, height, time.perf_counter() - started)
