"""The command ``impasto bench``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click


@click.group()
def bench() -> None:
    """Measure: the tables of the README, on this machine."""


@bench.command("speed")
@click.argument("packs", nargs=-1)
@click.option("--sizes", default="256,512,1024", show_default=True, help="Heights and widths, in pixels.")
@click.option("--repeats", type=click.IntRange(min=1), default=10, show_default=True, help="Counted runs.")
@click.option("--provider", default="auto", show_default=True, help="What computes.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print the rows for programs.")
def speed_command(
    packs: tuple[str, ...], sizes: str, repeats: int, provider: str, threads: int | None, as_json: bool
) -> None:
    """Time PACKS (by default all installed) on square pictures, in turns; the network alone."""
    from impasto.benchmarks.speed import speed as measure

    try:
        sides = [int(size) for size in sizes.split(",")]
    except ValueError:
        raise click.BadParameter(f"got {sizes!r}, expected numbers such as 256,512") from None
    with click.progressbar(length=100, label="Timing", file=sys.stderr) as bar:
        rows = measure(
            packs,
            sizes=sides,
            repeats=repeats,
            provider=provider,
            threads=threads,
            progress=lambda done, total: bar.update(100 * done // total - bar.pos),
        )
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    click.echo(f"{'pack':24}{'network':10}{'size':>6}{'fastest ms':>12}{'median ms':>12}{'ms/megapixel':>14}")
    for row in rows:
        click.echo(
            f"{row.pack:24}{row.network:10}{row.size:6}{row.fastest:12.1f}{row.median:12.1f}{row.per_megapixel:14.1f}"
        )
    click.echo(f"computed by: {rows[0].provider}")
