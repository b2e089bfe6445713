"""One job after the other: read, decode, paint, encode, write; from as many threads as there are."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from impasto import animation, deep_colour
from impasto.animation import Animation, encode_animation
from impasto.errors import MissingExtra, PackError, PictureError
from impasto.formats import format_of, written_format
from impasto.images import MAX_PIXELS, Array, Picture, encode_picture, read_picture
from impasto.inference import places
from impasto.inference.apart import paint_apart
from impasto.inference.huge import HugePainter, Limits
from impasto.inference.manifest import Row, kills
from impasto.inference.measured import Halves, PaintFrame, painted_frames, sampled
from impasto.inference.places import StrPath
from impasto.inference.sessions import cpus
from impasto.inference.sources import STREAM, Job
from impasto.inference.streams import FORMATS as STREAMED
from impasto.inference.streams import Source
from impasto.inference.stylizer import Stylizer

LARGE = 1 << 21
"""Pixels beyond which pictures are painted one after the other, each by all threads: side by side they take memory."""

MAX_BYTES = 8 * MAX_PIXELS + (1 << 20)
"""Largest file that is read: the most pixels that are decoded, at 4 channels of 16 bits."""


@dataclass(frozen=True)
class Painted:
    """A painting as a file, and what a `Row` says of it; ``note``: what of the source it has not kept, and why."""

    data: bytes
    format: str
    width: int
    height: int
    bits: int = 8
    frames: int = 1
    note: str | None = None


_ONE_FILE = {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG}


class Lost(Exception):
    """The process that painted a picture is dead; which of the pictures it had begun was to blame is not known."""


class Painter:
    """Runs jobs, in one style of one pack; to be called from several threads at once.

    On the CPU a picture is painted by one thread, so that as many are painted side by side as there are ``threads``;
    one of more than `LARGE` pixels, or one that is ``alone``, by all of them. Another provider paints one picture at a
    time, while others are decoded and encoded. Which way it goes depends on the picture, not on the others.

    Pictures are painted one by one and not in batches of one size: on the CPU a batch of 2, 4 or 8 took as long a
    picture or longer, at every size from 256 to 1024 pixels.

    Args:
        name: as `impasto.inference.Stylizer`.
        style: a style or a mixture; None for the one that ``name`` names.
        strength: 0 (the photo) to 1 (the painting).
        provider: one of `impasto.inference.sessions.PROVIDERS`.
        threads: CPU threads in all; None for as many as the process may run on.
        color: as `impasto.inference.Stylizer.stylize`.
        masks: the same, as text.
        max_memory: bytes, as `impasto.inference.huge.Limits`.
        exact: as there.
        brush: as there, also for pictures that are painted in one pass.

    Attributes:
        stylizer: of the pack, with all threads.
        weights: of every style in the mixture.
        settings: for the manifest.
        threads: CPU threads in all.
        limits: of memory, and the brush.
        machines: 1; other engines have several.
        died: a picture has killed the process that painted it apart.

    Raises:
        WrongCall, PackError: as `impasto.inference.Stylizer`; PictureError: a mask that cannot be read.
    """

    def __init__(
        self,
        name: StrPath,
        *,
        style: str | None = None,
        strength: float = 1.0,
        provider: str = "auto",
        threads: int | None = None,
        color: str = "style",
        masks: Sequence[str] = (),
        max_memory: int | None = None,
        exact: bool = False,
        brush: int | None = None,
    ) -> None:
        self.machines, self.died = 1, False
        self.stylizer = Stylizer(name, provider=provider, threads=threads)
        self.threads = threads or cpus()
        self._manner = self.stylizer.manner(style, strength, color=color, masks=masks)
        self.weights = self._manner.weights(self.stylizer.styles)
        self.settings = replace(self._manner.settings(self.stylizer.card), brush=brush)
        self._name, self._style, self._provider, self._masks = name, style, provider, tuple(masks)
        self._halves = Halves(name, self.stylizer.provider, threads)
        if masks:
            self._halves.with_regions()
        if brush is not None and self._halves.open() is None:
            raise PackError(f"a brush needs a pack's halves: {self._halves.missing}")
        self.limits = Limits(max_memory, exact, brush)
        self._huge = HugePainter(self._halves, self.stylizer.card, self._manner, self.limits, asdict(self.settings))
        self._cores = threading.Semaphore(self.threads)
        self._in_turn = threading.Lock()
        self._opening = threading.Lock()
        self._of_one_thread: Stylizer | None = None

    @property
    def provider(self) -> str:
        """What runs the network."""
        return self.stylizer.provider

    def end(self) -> None:
        """Have a picture that is painted by tiles be left where it is, from another thread."""
        self._huge.stop.set()

    def run(
        self,
        job: Job,
        earlier: Row | None = None,
        *,
        alone: bool = False,
        steps: Callable[[int, int], None] | None = None,
    ) -> Row:
        """Do a job; what is wrong with its source or with its name is in the row that comes back.

        Args:
            job: where from, where to.
            earlier: what an earlier run of the same settings did to get this output; not done again if the source is
                what it was then, and the output too.
            alone: it is the only job.
            steps: called with the numbers of steps behind and in all, if the picture is painted by tiles.

        Raises:
            OSError: the place that the output goes to takes no files.
        """
        row = Row(job.source, job.output)
        took = dict.fromkeys(("read", "decode", "network", "encode", "write"), 0.0)
        try:
            huge = self._too_large(job)
            if huge is not None:
                with _timed(took, "read"):
                    row = replace(row, source_sha256=_file_sha256(job.source))
                return self._paint_huge(huge, job, row, earlier, steps, took)
            with _timed(took, "read"):
                data = _read(job.source)
                row = replace(row, source_sha256=_sha256(data))
            if earlier is not None and earlier.source_sha256 == row.source_sha256 and _as_it_was(earlier):
                return replace(earlier, source=job.source, skipped=True)
            done = self._paint(job, data, alone, took)
            with _timed(took, "write"):
                row = replace(row, output_sha256=_sha256(done.data))
                _write(job.output, done.data)
            row = replace(row, format=done.format, width=done.width, height=done.height)
            row = replace(row, bits=done.bits, frames=done.frames, note=done.note)
        except PictureError as error:
            row = replace(row, output_sha256=None, error=str(error))
        return row.timed(took)

    def apart(self, job: Job, earlier: Row | None = None) -> Row:
        """Do a job in a process of its own; one that kills it has the error in its row. Raises as `run`."""
        arguments = {
            "name": os.fspath(self._name),
            "style": self._style,
            "strength": self.settings.strength,
            "provider": self._provider,
            "threads": self.threads,
            "color": self.settings.color,
            "masks": self._masks,
            **self.limits.arguments(),
        }
        row = paint_apart(arguments, job, earlier)
        self.died |= kills(row)
        return row

    def _too_large(self, job: Job) -> Source | None:
        """A picture that is to be painted by tiles; None for others."""
        if job.source == STREAM or places.is_remote(job.source) or format_of(job.source) not in STREAMED:
            return None
        try:
            source = Source.open(job.source)
        except PictureError:
            return None  # which is said when it is read
        return source if self._huge.is_for(source) else None

    def _paint_huge(
        self,
        source: Source,
        job: Job,
        row: Row,
        earlier: Row | None,
        steps: Callable[[int, int], None] | None,
        took: dict[str, float],
    ) -> Row:
        if job.output == STREAM or places.is_remote(job.output):
            raise PictureError(f"{job.source}: too large for one pass; give a file of this machine with -o")
        if earlier is not None and earlier.source_sha256 == row.source_sha256 and _as_it_was(earlier):
            return replace(earlier, source=job.source, skipped=True)
        format = job.format or source.head.format
        try:
            with self._in_turn, _timed(took, "network"):
                bits = self._huge.paint(source, str(row.source_sha256), job.output, format, steps or _unseen)
        except (MissingExtra, PackError) as error:
            raise PictureError(f"{job.source}: {error}") from error
        except OSError as error:
            raise _refused(job.output, error) from error
        notes = [f"the first of {source.head.frames} frames or pages"] if source.head.frames > 1 else []
        if bits < source.head.bits:
            deep = format in deep_colour.FORMATS
            why = "read as 8: its colour profile" if deep else f"written as 8, which is what {format} holds"
            notes.append(f"16 bits a channel {why}")
        with _timed(took, "write"):
            row = replace(row, output_sha256=_file_sha256(job.output))
        row = replace(row, format=format, width=source.width, height=source.height, bits=bits, frames=1)
        return replace(row, note="; ".join(notes) or None).timed(took)

    def _paint(self, job: Job, data: bytes, alone: bool, took: dict[str, float]) -> Painted:
        file = io.BytesIO(data)
        if job.source != STREAM:
            file.name = job.source
        try:
            with self._cores:
                with _timed(took, "decode"):
                    picture = read_picture(file, deep=job.format in (None, *deep_colour.FORMATS))
                format = job.format or written_format(picture.format)
                if picture.frames > 1 and picture.format in animation.READ_FORMATS and format in animation.FORMATS:
                    return self._paint_frames(Animation(file), format, alone, took)
                return self._paint_picture(picture, format, job, alone, took)
        except PictureError:
            raise
        except Exception as error:  # one strange file among thousands ends none of the others
            raise PictureError(f"{job.source}: cannot be painted: {error!r}") from error

    def _paint_picture(self, picture: Picture, format: str, job: Job, alone: bool, took: dict[str, float]) -> Painted:
        height, width = picture.rgb.shape[:2]
        notes = [f"the first of {picture.frames} frames or pages"] if picture.frames > 1 else []
        if picture.bits > 8 and format not in deep_colour.FORMATS:
            notes.append(f"16 bits a channel written as 8, which is what {format} holds")
        elif picture.bits > 8 and (picture.deep is None or self._halves.open() is None):
            notes.append(f"16 bits a channel read as 8: {self._halves.missing or 'its layout, or its colour profile'}")
            picture = replace(picture, deep=None)
        if picture.deep is not None or self._masks or self.limits.brush is not None:
            with self._in_turn, _timed(took, "network"):
                painted = self._halves.paint(picture, self._manner, self.limits.brush)
        else:
            with self._network(height * width, alone) as stylizer, _timed(took, "network"):
                painted = stylizer.stylize_picture(picture, self._manner)
        bits = 8 if painted.deep is None else 16
        with _timed(took, "encode"):
            return Painted(_encoded(painted, format, job), format, width, height, bits, note="; ".join(notes) or None)

    def _paint_frames(self, frames: Animation, format: str, alone: bool, took: dict[str, float]) -> Painted:
        note, paint = None, self._paint_frame(alone)
        if self._halves.open() is None:
            note = f"each frame measured by itself, it may flicker: {self._halves.missing}"
        else:
            with _timed(took, "decode"):
                sample = sampled(frames)
            with self._in_turn, _timed(took, "network"):
                paint = self._halves.of_frames(sample, self._manner)

        def timed(frame: Picture) -> Array:
            with _timed(took, "network"):
                return paint(frame)

        before = took["network"]
        with _timed(took, "encode"):  # and decode and paint: only painted frames are kept
            data = encode_animation(painted_frames(frames, timed), format, plays=frames.plays)
        took["encode"] -= took["network"] - before
        return Painted(data, format, frames.width, frames.height, frames=frames.count, note=note)

    def _paint_frame(self, alone: bool) -> PaintFrame:
        """What paints a frame by itself."""

        def paint(frame: Picture) -> Array:
            with self._network(frame.rgb.shape[0] * frame.rgb.shape[1], alone) as stylizer:
                return stylizer.stylize_picture(frame, self._manner).rgb

        return paint

    @contextmanager
    def _network(self, pixels: int, alone: bool) -> Iterator[Stylizer]:
        """What paints a picture, when it is its turn."""
        if alone or pixels > LARGE or self.threads == 1 or self.stylizer.provider != "cpu":
            with self._in_turn:
                yield self.stylizer
            return
        with self._opening:
            if self._of_one_thread is None:
                self._of_one_thread = Stylizer(self._name, provider="cpu", threads=1)
        yield self._of_one_thread


@contextmanager
def _timed(took: dict[str, float], stage: str) -> Iterator[None]:
    """Add the milliseconds that this takes, also if it fails."""
    started = time.perf_counter()
    try:
        yield
    finally:
        took[stage] += (time.perf_counter() - started) * 1e3


def _encoded(picture: Picture, format: str, job: Job) -> bytes:
    try:
        return encode_picture(picture, format)
    except PictureError as error:
        raise error if job.output == STREAM else PictureError(f"{job.output}: {error}") from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _file_sha256(name: str) -> str:
    try:
        with open(name, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PictureError(f"{name}: cannot be read: {error.strerror or error}") from error


def _unseen(behind: int, total: int) -> None:
    """Progress that nobody looks at."""


def _read(source: str) -> bytes:
    if source == STREAM:
        return sys.stdin.buffer.read()
    try:
        return places.read(source, MAX_BYTES)
    except OSError as error:
        raise PictureError(f"{source}: cannot be read: {error.strerror or error}") from error


def _as_it_was(row: Row) -> bool:
    try:
        return _sha256(places.read(row.output)) == row.output_sha256
    except OSError:
        return False


def _write(output: str, data: bytes) -> None:
    if output == STREAM:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        places.write(output, data)
    except OSError as error:
        raise _refused(output, error) from error


def _refused(output: str, error: OSError) -> Exception:
    """What to raise where a file is not taken: the error itself, if the place takes no others either."""
    if error.errno not in _ONE_FILE:
        return error
    return PictureError(f"{output}: cannot be written: {error.strerror}")
