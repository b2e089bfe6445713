"""The commands ``impasto stylize`` and ``impasto styles``. Importing this imports neither numpy nor onnxruntime."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from impasto.formats import WRITE_FORMATS
from impasto.inference.memory import parse_memory
from impasto.inference.sessions import PROVIDERS
from impasto.inference.sources import STREAM

if TYPE_CHECKING:
    from impasto.inference.files import Report
    from impasto.inference.styles import StyleRow


@click.command()
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option("-o", "--output", help="A file, a folder, or - for standard output.  [default: NAME_STYLE.SUFFIX here]")
@click.option("-s", "--style", help="A style's name, PACK/STYLE, or a mixture such as a:0.6,b:0.4.")
@click.option("--pack", help="A pack's name or its folder.")
@click.option("--strength", type=click.FloatRange(0, 1), default=1.0, show_default=True, help="0 gives the photo back.")
@click.option(
    "--color", default="style", show_default=True, help="Whose colours: style, luminance, match; or match:0.5."
)
@click.option(
    "--mask",
    "masks",
    metavar="FILE=STYLE[@STRENGTH]",
    multiple=True,
    help="Another style where this picture is white; again for more. -s takes the rest.",
)
@click.option("--brush", type=click.IntRange(16), metavar="PIXELS", help="Make the strokes at this longer side.")
@click.option(
    "--max-memory",
    metavar="SIZE",
    help="Such as 1GB; larger pictures are painted by tiles.  [default: half of what is free]",
)
@click.option("--exact", is_flag=True, help="Measure those as one pass would, not on crops; takes a few times as long.")
@click.option("--resume", is_flag=True, help="Leave pictures alone that an earlier run into the folder has painted.")
@click.option("--format", type=click.Choice(WRITE_FORMATS), help="Write in this format, not in each picture's own.")
@click.option(
    "--provider",
    type=click.Choice((*PROVIDERS, "list")),
    default="auto",
    show_default=True,
    help="What computes; list tells which run here, and why the others do not.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads in all.  [default: every processor]")
@click.option(
    "--engine",
    type=click.Choice(("local", "ray")),
    default="local",
    show_default=True,
    help="Where: in this process, or in workers of Ray, on the machines of the cluster in RAY_ADDRESS.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a report for programs on standard output.")
@click.pass_context
def stylize(
    context: click.Context,
    sources: tuple[str, ...],
    output: str | None,
    style: str | None,
    pack: str | None,
    strength: float,
    color: str,
    masks: tuple[str, ...],
    brush: int | None,
    max_memory: str | None,
    exact: bool,
    resume: bool,
    format: str | None,
    provider: str,
    threads: int | None,
    engine: str,
    as_json: bool,
) -> None:
    """Paint photos in a style: files, folders, patterns, lists (@FILE, a file a line), or - for standard input.

    What goes into a folder keeps its path, its name and its format, and has a line in the folder's manifest.jsonl.
    Sources and folders may be addresses, such as s3://BUCKET/FOLDER. Nothing is ever written over a source.
    """
    if provider == "list":
        _list_providers(as_json)
        return
    if not sources:
        raise click.UsageError("Missing argument 'SOURCE...'.")
    to_stream = output == STREAM or (output is None and sources == (STREAM,))
    if as_json and to_stream:
        raise click.UsageError("--json and the picture would both go to standard output; choose a file with -o")
    from impasto.inference.files import stylize_files

    with _progress("Painting") as progress:
        report = stylize_files(
            sources,
            output,
            style=style,
            pack=pack,
            strength=strength,
            format=format,
            resume=resume,
            provider=provider,
            threads=threads,
            engine=engine,
            color=color,
            masks=masks,
            max_memory=None if max_memory is None else parse_memory(max_memory),
            exact=exact,
            brush=brush,
            progress=progress,
        )
    if as_json:
        counts = {"done": len(report.done), "skipped": len(report.skipped), "failed": len(report.failed)}
        click.echo(json.dumps(counts | asdict(report), indent=2))
    for row in report.failed:
        click.echo(f"Failed: {row.error}", err=True)
    for row in report.done:
        if row.note is not None and not row.skipped:
            click.echo(f"Note: {row.source}: {row.note}", err=True)
    click.echo(_summary(report, output), err=True)
    if report.failed:
        context.exit(1)


def _list_providers(as_json: bool) -> None:
    from impasto.inference.providers import clash, list_providers

    rows = list_providers()
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        for row in rows:
            click.echo(f"{row.provider:<10}{'runs' if row.runs else row.reason}")
    if (warning := clash()) is not None:
        click.echo(f"Warning: {warning}", err=True)


def _summary(report: Report, output: str | None) -> str:
    failed = f", {len(report.failed)} failed" if report.failed else ""
    before = f" ({len(report.skipped)} by an earlier run)" if report.skipped else ""
    count = f"{len(report.done)} picture{'' if len(report.done) == 1 else 's'}{before}{failed}"
    place = report.rows[0].output if len(report.rows) == 1 else output
    goal = "standard output" if place == STREAM else place or "the current folder"
    return f"{count} in {report.seconds:.1f} s on {report.provider}: {goal}"


@contextmanager
def _progress(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar with the time left on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr, show_pos=True) as bar:

        def show(behind: int, total: int) -> None:
            bar.length = total
            bar.update(behind - bar.pos)

        yield show


@click.command()
@click.argument("pack", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the table for programs.")
@click.option("--sheet", metavar="PHOTO", help="Draw a sheet of this photo in every style; needs -o.")
@click.option("-o", "--output", help="The file of the sheet.")
def styles(pack: str | None, as_json: bool, sheet: str | None, output: str | None) -> None:
    """List the styles that are installed, or those of one PACK (a name or a folder)."""
    if (sheet is None) != (output is None):
        raise click.UsageError("--sheet PHOTO and -o FILE go together")
    from impasto.inference.styles import list_styles, style_sheet

    if sheet is not None and output is not None:
        from impasto.images import picture_from_pil, write_picture

        write_picture(picture_from_pil(style_sheet(sheet, pack)), output)
        click.echo(output, err=True)
        return
    rows = list_styles(pack)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False))
    elif rows:
        click.echo(_table(rows))
    else:
        click.echo("No style packs are installed; train one, or list their folder in IMPASTO_PACKS.", err=True)


def _table(rows: tuple[StyleRow, ...]) -> str:
    head = ("pack", "style", "title", "painter", "year", "network", "size")
    lines = [head] + [
        (row.pack, row.style, row.title, row.painter, row.year, row.network, f"{row.size / 1e6:.1f} MB") for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
