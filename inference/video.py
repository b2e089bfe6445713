"""Painting a video: its size, times, sound and subtitles stay, and what is painted does not flicker."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import av

import impasto
from impasto.errors import WrongCall
from impasto.inference.files import pack_and_style
from impasto.inference.places import StrPath
from impasto.inference.video_ahead import ahead
from impasto.inference.video_folder import SURVEY, alone_in, empty, keep_if_same
from impasto.inference.video_looks import to_rgb
from impasto.inference.video_output import ENCODERS, Target, Times, check_streams, choose_target, encode_piece, join
from impasto.inference.video_painter import FramePainter, Rgb
from impasto.inference.video_source import Frame, VideoSource
from impasto.inference.video_stability import Stability, measure_stability
from impasto.inference.video_survey import Survey, survey
from impasto.packs import sha256_of

PIECE_FRAMES = 120
"""Most frames of a piece: what a kill can lose, and how far apart key frames are at least."""

PIECE_PIXELS = 1 << 28
"""Most pixels of a piece; a large video's pieces are shorter."""

Progress = Callable[[str, int, int], None]
"""Called with what is done ("Measuring" or "Painting"), and the numbers of frames behind and in all."""


@dataclass(frozen=True)
class VideoReport:
    """What became of a video.

    Attributes:
        output: the file.
        width: pixels.
        height: pixels.
        frames: how many.
        resumed: how many of them an earlier run had painted.
        shots: how often the statistics began anew, the first time included.
        encoder: FFmpeg's name.
        licence: of the encoder's library.
        pixel_format: FFmpeg's name.
        style: weight of every style in the mixture.
        provider: what ran the network.
        seconds: from the call to the return.
        rate: frames painted and encoded a second, of this run.
        damage: what could not be read of the source; what could be is painted.
        notes: what was left out or done otherwise than expected.
        stability: numbers, if they were asked for.
    """

    output: str
    width: int
    height: int
    frames: int
    resumed: int
    shots: int
    encoder: str
    licence: str
    pixel_format: str
    style: dict[str, float]
    provider: str
    seconds: float
    rate: float
    damage: str | None
    notes: tuple[str, ...]
    stability: Stability | None = None


def stylize_video(
    source: StrPath,
    output: StrPath,
    *,
    style: str | None = None,
    pack: StrPath | None = None,
    strength: float = 1.0,
    encoder: str | None = None,
    crf: int | None = None,
    provider: str = "auto",
    threads: int | None = None,
    stability: bool = False,
    progress: Progress | None = None,
) -> VideoReport:
    """Paint a video; size, frame times, colours, sound, subtitles, chapters and metadata stay.

    The file is read twice. First cuts and motion are found and the network's statistics measured twice a second; then
    every frame is painted by statistics smoothed within its shot (`video_track.Track`), on a grid that moves with the
    picture (`video_track.grid_offsets`). Pieces of a few seconds stand in a hidden folder beside the output until all
    are there; after a stop of any kind the same call goes on from them.

    Args:
        source: a file.
        output: a file; its suffix says the container: one of `video_output.CONTAINERS`.
        style: as `impasto.inference.stylize_files`.
        pack: the same.
        strength: 0 (the photo) to 1 (the painting).
        encoder: one of `video_output.ENCODERS`; None for the container's first.
        crf: the encoder's constant rate factor: smaller is better and larger. None for the encoder's own here.
        provider: one of `impasto.inference.sessions.PROVIDERS`.
        threads: CPU threads of the network, and of the encoder; None for as many as the process may run on.
        stability: measure flicker and warping error on pairs of frames, which takes a while.
        progress: called before the first frame and after each, twice: measuring and painting.

    Returns:
        What was done. Of a damaged or truncated source what can be read is painted, and ``damage`` says so.

    Raises:
        WrongCall: an unknown style, provider, encoder or container; an output that is the source; a stream that the
            container cannot hold. Nothing has been painted then.
        PackError: a pack that cannot be used.
        PictureError: not a video, without pictures, or one that changed while it was painted.
        ImpastoError: another run paints the same output.
        OSError: a file that cannot be read, a disk that takes no files.
        Interrupted: Ctrl-C.
    """
    started = time.perf_counter()
    source, output = Path(source), Path(output)
    _check_paths(source, output)
    name, style = pack_and_style(style, pack)
    video = VideoSource(source)
    target = choose_target(output, video.looks, encoder, crf)
    check_streams(video, output, target)
    painter = FramePainter(name, style=style, strength=strength, provider=provider, threads=threads)
    place = Path(os.path.realpath(output))
    folder = place.with_name(f".{place.name}.parts")
    report = progress or (lambda phase, behind, total: None)
    with alone_in(folder):
        keep_if_same(folder, _settings(source, painter, target))
        work = _Work(video, painter, target, folder, threads, report)
        found = work.survey()
        began = time.perf_counter()
        resumed = work.paint(found)
        rate = (len(found.pts) - resumed) / (time.perf_counter() - began)
        numbers = measure_stability(video, painter, found) if stability else None
        work.finish(found, place)
        empty(folder)
    return VideoReport(
        output=str(output),
        width=video.looks.width,
        height=video.looks.height,
        frames=len(found.pts),
        resumed=resumed,
        shots=int(found.cuts.sum()),
        encoder=target.encoder,
        licence=ENCODERS[target.encoder].licence,
        pixel_format=target.format,
        style=painter.weights,
        provider=painter.provider,
        seconds=time.perf_counter() - started,
        rate=rate,
        damage=found.damage,
        notes=_notes(video, painter, target),
        stability=numbers,
    )


@dataclass(frozen=True)
class _Work:
    """One run in its folder of pieces."""

    video: VideoSource
    painter: FramePainter
    target: Target
    folder: Path
    threads: int | None
    progress: Progress

    def survey(self) -> Survey:
        """What an earlier run found, or the file gone through."""
        path = self.folder / SURVEY
        if path.exists():
            return Survey.load(path)
        found = survey(self.video, self.painter, partial(self.progress, "Measuring"))
        found.save(path)
        return found

    def paint(self, found: Survey) -> int:
        """Paint and encode the pieces that are not there; how many frames were."""
        count = len(found.pts)
        length = max(1, min(PIECE_FRAMES, PIECE_PIXELS // (self.video.looks.height * self.video.looks.width)))
        starts = range(0, count, length)
        missing = [start for start in starts if not self._piece(start).exists()]
        resumed = count - sum(min(length, count - start) for start in missing)
        behind = resumed
        self.progress("Painting", behind, count)
        if not missing:
            return resumed
        indices = [index for start in missing for index in range(start, min(start + length, count))]
        chosen_frames = zip(indices, self.video.chosen(found.pts[indices].tolist()), strict=True)
        with ahead(chosen_frames) as frames, ahead(self._painted(frames, found)) as pictures:
            for start in missing:
                part = slice(start, min(start + length, count))

                def counted(size: int = part.stop - start) -> Iterator[Rgb]:
                    nonlocal behind
                    for picture in islice(pictures, size):
                        yield picture
                        behind += 1
                        self.progress("Painting", behind, count)

                times = Times(found.pts[part].tolist(), found.durations[part].tolist())
                encode_piece(counted(), times, self._piece(start), self.target, self.video.looks, self.threads)
        return resumed

    def finish(self, found: Survey, output: Path) -> None:
        """Join the pieces and put the file in its place."""
        joined = self.folder / f"joined{output.suffix}"
        pieces = sorted(self.folder.glob("piece-*"))
        times = Times(found.pts.tolist(), found.durations.tolist())
        self.video.damage = found.damage
        try:
            join(self.video, pieces, times, joined, self.target, self.threads)
            os.replace(joined, output)
        finally:
            joined.unlink(missing_ok=True)

    def _piece(self, start: int) -> Path:
        return self.folder / f"piece-{start:08}"

    def _painted(self, frames: Iterator[tuple[int, Frame]], found: Survey) -> Iterator[Rgb]:
        for index, frame in frames:
            affine = found.track.at(float(frame.pts * self.video.looks.time_base), int(found.shots[index]))
            yield self.painter.paint(to_rgb(frame.decoded, self.video.looks), affine, found.offsets[index])


def _check_paths(source: Path, output: Path) -> None:
    if output.exists() and source.exists() and os.path.samefile(source, output):
        raise WrongCall(f"{output} is the source; choose another output")
    if output.is_dir():
        raise WrongCall(f"{output} is a folder; give the video a name")


def _settings(source: Path, painter: FramePainter, target: Target) -> dict[str, Any]:
    """All that a piece depends on."""
    versions = {"impasto": impasto.__version__, "av": av.__version__}
    wanted = {"encoder": target.encoder, "format": target.format, "crf": target.crf}
    return {"source": sha256_of(source), **painter.settings, **wanted, **versions}


def _notes(video: VideoSource, painter: FramePainter, target: Target) -> tuple[str, ...]:
    looks = video.looks
    notes = [f"left out: {', '.join(video.left_out)}"] if video.left_out else []
    if painter.alone is not None:
        notes.append(f"each frame painted by itself, it may flicker: {painter.alone}")
    if looks.interlaced:
        notes.append("the source is interlaced; deinterlace it first for clean strokes")
    if looks.bits > 8 and target.format == ENCODERS[target.encoder].format:
        notes.append(f"{target.encoder} holds 8 bits a channel; the source has more")
    if target.container in ("matroska", "webm") and (1 / looks.time_base) != 1000:
        notes.append("frame times are rounded to the millisecond that the container counts in")
    if "444" in target.format:
        notes.append(f"odd sides: {target.format}, which some players do not show; --encoder libsvtav1 is for all")
    return tuple(notes)
