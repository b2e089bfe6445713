"""One job after the other: read, decode, paint, encode, write; from as many threads as there are."""

from __future__ import annotations

import errno
import hashlib
import io
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from impasto.errors import PictureError
from impasto.formats import written_format
from impasto.images import MAX_PIXELS, Picture, encode_picture, read_picture
from impasto.inference import places
from impasto.inference.manifest import Row, Settings
from impasto.inference.places import StrPath
from impasto.inference.sessions import cpus
from impasto.inference.sources import STREAM, Job
from impasto.inference.stylizer import Stylizer
from impasto.packs import PAINT

LARGE = 1 << 21
"""Pixels beyond which pictures are painted one after the other, each by all threads: side by side they take memory."""

MAX_BYTES = 8 * MAX_PIXELS + (1 << 20)
"""Largest file that is read: the most pixels that are decoded, at 4 channels of 16 bits."""

_ONE_FILE = {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG}


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

    Attributes:
        stylizer: of the pack, with all threads.
        weights: of every style in the mixture.
        settings: for the manifest.
        threads: CPU threads in all.

    Raises:
        WrongCall, PackError: as `impasto.inference.Stylizer`.
    """

    def __init__(
        self,
        name: StrPath,
        *,
        style: str | None = None,
        strength: float = 1.0,
        provider: str = "auto",
        threads: int | None = None,
    ) -> None:
        self.stylizer = Stylizer(name, provider=provider, threads=threads)
        self.threads = threads or cpus()
        mixture = zip(self.stylizer.styles, self.stylizer.mixture(style), strict=True)
        self.weights = {style: weight for style, weight in mixture if weight}
        card = self.stylizer.card
        text = ",".join(f"{style}:{weight:.6g}" for style, weight in self.weights.items())
        self.settings = Settings(card.name, card.files[PAINT], text, strength)
        self._name, self._style = name, style
        self._cores = threading.Semaphore(self.threads)
        self._in_turn = threading.Lock()
        self._opening = threading.Lock()
        self._of_one_thread: Stylizer | None = None

    def run(self, job: Job, earlier: Row | None = None, *, alone: bool = False) -> Row:
        """Do a job; what is wrong with its source or with its name is in the row that comes back.

        Args:
            job: where from, where to.
            earlier: what an earlier run of the same settings did to get this output; not done again if the source is
                what it was then, and the output too.
            alone: it is the only job.

        Raises:
            OSError: the place that the output goes to takes no files.
        """
        row = Row(job.source, job.output)
        took = dict.fromkeys(("read", "decode", "network", "encode", "write"), 0.0)
        try:
            with _timed(took, "read"):
                data = _read(job.source)
                row = replace(row, source_sha256=_sha256(data))
            if earlier is not None and earlier.source_sha256 == row.source_sha256 and _as_it_was(earlier):
                return replace(earlier, source=job.source, skipped=True)
            format, (height, width), encoded = self._paint(job, data, alone, took)
            with _timed(took, "write"):
                row = replace(row, output_sha256=_sha256(encoded))
                _write(job.output, encoded)
            row = replace(row, format=format, width=width, height=height)
        except PictureError as error:
            row = replace(row, output_sha256=None, error=str(error))
        return row.timed(took)

    def _paint(self, job: Job, data: bytes, alone: bool, took: dict[str, float]) -> tuple[str, tuple[int, int], bytes]:
        """The format, height and width, and the bytes of the painted picture."""
        file = io.BytesIO(data)
        if job.source != STREAM:
            file.name = job.source
        try:
            with self._cores:
                with _timed(took, "decode"):
                    picture = read_picture(file)
                height, width = picture.rgb.shape[:2]
                with self._network(height * width, alone) as stylizer, _timed(took, "network"):
                    painted = stylizer.stylize_picture(picture, self._style, self.settings.strength)
                format = job.format or written_format(picture.format)
                with _timed(took, "encode"):
                    return format, (height, width), _encoded(painted, format, job)
        except PictureError:
            raise
        except Exception as error:  # one strange file among thousands ends none of the others
            raise PictureError(f"{job.source}: cannot be painted: {error!r}") from error

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
        if error.errno not in _ONE_FILE:
            raise
        raise PictureError(f"{output}: cannot be written: {error.strerror}") from error
