"""The command ``impasto video``. Importing this imports neither numpy, onnxruntime nor PyAV."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from impasto.errors import require
from impasto.inference.sessions import PROVIDERS

if TYPE_CHECKING:
    from impasto.inference.video import VideoReport


@click.command()
@click.argument("source", metavar="IN")
@click.argument("output", metavar="OUT")
@click.option("-s", "--style", help="A style's name, PACK/STYLE, or a mixture such as a:0.6,b:0.4.")
@click.option("--pack", help="A pack's name or its folder.")
@click.option("--strength", type=click.FloatRange(0, 1), default=1.0, show_default=True, help="0 gives the video back.")
@click.option("--encoder", help="libx264, libsvtav1, libvpx-vp9 or ffv1.  [default: the first that OUT's suffix takes]")
@click.option("--crf", type=click.IntRange(0, 63), help="The encoder's quality; smaller is better.  [default: its own]")
@click.option("--provider", type=click.Choice(PROVIDERS), default="auto", show_default=True, help="What computes.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: every processor]")
@click.option("--stability", is_flag=True, help="Measure flicker and, with OpenCV, warping error; takes a while.")
@click.option("--json", "as_json", is_flag=True, help="Print a report for programs on standard output.")
@click.pass_context
def video(context: click.Context, /, source: str, output: str, as_json: bool, **options: Any) -> None:
    """Paint the video IN to OUT (.mp4, .mov, .mkv or .webm); sound, subtitles and frame times stay.

    Stopped or killed, the same command goes on where it was.
    """
    room = require("impasto.inference.video", purpose="impasto video", extra="video")
    with _progress() as progress:
        report = room.stylize_video(source, output, progress=progress, **options)
    if as_json:
        click.echo(json.dumps(asdict(report), indent=2))
    for note in report.notes:
        click.echo(f"Note: {note}", err=True)
    for line in _summary(report):
        click.echo(line, err=True)
    if report.damage is not None:
        click.echo(f"Error: {source}: {report.damage}; what can be read is painted: {output}", err=True)
        context.exit(1)


def _summary(report: VideoReport) -> Iterator[str]:
    before = f" ({report.resumed} by an earlier run)" if report.resumed else ""
    shots = f"{report.shots} shot{'' if report.shots == 1 else 's'}"
    yield (
        f"{report.frames} frames{before} of {report.width} x {report.height}, {shots}, in {report.seconds:.1f} s on "
        f"{report.provider}, {report.rate:.2f} frames/s: {report.output}"
    )
    yield f"Encoder: {report.encoder} ({report.licence}), {report.pixel_format}"
    if (numbers := report.stability) is None:
        return
    yield f"Stability, levels of 255 over {numbers.pairs} pairs of frames; in brackets with each frame by itself:"
    yield f"  flicker of the statistics {numbers.flicker:.2f} ({numbers.flicker_alone:.2f})"
    if numbers.warping is None:
        yield "  no warping error: it needs opencv-python-headless, which comes with 'impasto[see]'"
    else:
        yield (
            f"  warping error {numbers.warping:.2f} ({numbers.warping_alone:.2f}), the source's own "
            f"{numbers.warping_source:.2f}, over {numbers.counted:.0%} of the pixels"
        )


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """A progress bar with the time left and frames a second on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    import time

    with click.progressbar(length=1, file=sys.stderr, show_pos=True) as bar:
        shown, since, before = "", 0.0, 0

        def show(phase: str, behind: int, total: int) -> None:
            nonlocal shown, since, before
            if phase != shown:
                shown, since, before = phase, time.monotonic(), behind
                bar.start, bar.pos, bar.avg, bar.finished = time.time(), behind, [], False
            rate = (behind - before) / max(time.monotonic() - since, 1e-3)
            bar.label, bar.length = f"{phase} {rate:.1f} frames/s", max(total, 1)
            bar.update(behind - bar.pos)

        yield show
