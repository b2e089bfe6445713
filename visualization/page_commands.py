"""The commands ``impasto see report`` and ``impasto see live``: pages that show the techniques to people."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from impasto.errors import ImpastoError, WrongCall
from impasto.visualization.network_options import network_of, network_options
from impasto.visualization.registry import Card

REPORTS = Path("see/report")
"""Where reports go, each into a folder of its photo's name, when nothing is said."""

PAGES = (
    Card(
        "live",
        "V47",
        "interaction",
        "All maps of a layer, live, of a camera's pictures or a folder's, on a page.",
        "pictures",
        True,
        "impasto.visualization.live_server",
    ),
    Card(
        "report",
        "V48",
        "interaction",
        "Every technique on a photo, as one page.",
        "one picture",
        False,
        "impasto.visualization.reports",
    ),
)
"""What shows techniques to people: commands, and no techniques themselves, as they return no `Result`."""


def _run_report(
    photo: str,
    images: str | None,
    output: str | None,
    only: tuple[str, ...],
    limit: float,
    full: bool,
    as_json: bool,
    **network: Any,
) -> None:
    from impasto.visualization.report_page import PAGE
    from impasto.visualization.reports import report

    folder = Path(output) if output else REPORTS / Path(photo).stem
    if folder.exists() and not folder.is_dir():
        raise WrongCall(f"-o {folder}: is a file, expected a folder")
    chosen = [name.strip() for text in only for name in text.split(",") if name.strip()]
    model = network_of(**network)
    with _report_progress() as tell:
        entries = report(photo, images, model=model, output=folder, only=chosen, limit=limit, full=full, tell=tell)
    counts = Counter(entry.state for entry in entries)
    if as_json:
        click.echo(json.dumps({"page": str(folder / PAGE), "techniques": list(map(asdict, entries))}, indent=2))
    else:
        click.echo(f"{folder / PAGE}: {', '.join(f'{count} {state}' for state, count in counts.items())}", err=True)
    if counts["failed"]:
        raise ImpastoError(f"{counts['failed']} of {len(entries)} techniques failed; {folder / PAGE} says how")


@contextmanager
def _report_progress() -> Iterator[Callable[[float, str, Any], None]]:
    """A bar with the time left on standard error, if that is a terminal; else a line for each technique."""
    began = time.monotonic()

    def left(share: float) -> str:
        if not share:
            return ""
        return f", about {timedelta(seconds=round((time.monotonic() - began) * (1 - share) / share))} left"

    def say(share: float, text: str, entry: Any) -> None:
        if entry:
            click.echo(f"{text}: {entry.state}, {entry.seconds:.1f} s{left(share)}", err=True)
            if entry.reason:
                click.echo(f"    {entry.reason}", err=True)

    if not sys.stderr.isatty():
        yield say
        return
    with click.progressbar(length=1000, file=sys.stderr, show_eta=False, item_show_func=lambda text: text) as bar:
        yield lambda share, text, entry: bar.update(round(1000 * share) - bar.pos, text + left(share))


report_command = click.Command(
    "report",
    callback=_run_report,
    params=[
        click.Argument(["photo"]),
        click.Option(["--images"], metavar="FOLDER", help="Other photos, for techniques that look through many."),
        click.Option(["-o", "--output"], metavar="FOLDER", help=f"[default: {REPORTS}/PHOTO]"),
        click.Option(["--only"], multiple=True, metavar="NAME,...", help="Only these techniques or families."),
        click.Option(
            ["--limit"],
            type=click.FloatRange(0),
            default=60.0,
            show_default=True,
            help="Seconds for a technique; 0 for any.",
        ),
        click.Option(["--full"], is_flag=True, help="The techniques' own options, not quicker ones."),
        click.Option(["--json", "as_json"], is_flag=True, help="Print what became of each for programs."),
        *network_options(),
    ],
    short_help=PAGES[1].meaning,
    help="""Run every technique on PHOTO and show what came of it on one page.

        The page holds its pictures and refers to nothing; each technique is done, with its numbers and the command
        that makes the same files again, or refused or left out, with the reason. What an earlier call has finished
        with the same photo, network and options is not run again, so that a report goes on after Ctrl-C.""",
)


def _run_live(folder: str | None, host: str, port: int, **network: Any) -> None:
    from impasto.visualization.live_server import live

    live(folder, model=network_of(**network), host=host, port=port, ready=_say_where)


def _say_where(address: str) -> None:
    click.echo(f"Open {address} in a browser; Ctrl-C ends it.", err=True)


live_command = click.Command(
    "live",
    callback=_run_live,
    params=[
        click.Argument(["folder"], required=False),
        click.Option(["--host"], default="127.0.0.1", show_default=True, help="Address to listen at."),
        click.Option(["--port"], type=click.IntRange(0, 65535), default=8047, show_default=True, help="0 for any."),
        *network_options(),
    ],
    short_help=PAGES[0].meaning,
    help="""Serve a page that shows what a network makes of a camera's pictures, or of the photos in FOLDER, as it goes.

        All maps of a layer, one unit closely, and the likeliest classes; the keys are those of the DeepVis toolbox, and
        h lists them. Pictures stay on this machine: the page asks no other.""",
)
