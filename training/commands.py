"""The commands ``impasto train``, ``impasto add-style`` and ``impasto export``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from impasto.card import Style
from impasto.errors import WrongCall
from impasto.packs import Pack, find_pack
from impasto.training.checkpoints import export_checkpoint
from impasto.training.export import export_again
from impasto.training.module import style_name
from impasto.training.sweeps import SHEET, parse_sweep, validation_terms
from impasto.training.sweeps import sweep as sweep_setting
from impasto.training.train import add_style as add_style_to_pack
from impasto.training.train import train as train_pack
from impasto.triton import export_triton


def _run_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that ``train`` and ``add-style`` have in common."""
    options = [
        click.argument("style_images", metavar="STYLE_IMAGE...", nargs=-1, required=True, type=click.Path()),
        click.option("--photos", metavar="DIR", multiple=True, required=True, help="Folder of photos; repeatable."),
        click.option("-o", "--output", metavar="PACK", required=True, help="Folder of the new pack."),
        click.option("--steps", type=int, help="Length of the run in steps."),
        click.option("--minutes", type=float, help="Length of the run in minutes of training."),
        click.option("--seed", type=int, help="Of everything random; by default the recipe's."),
        click.option("--run", metavar="DIR", help="Folder of events, previews, checkpoints.  [default: runs/PACK]"),
        click.option("--resume", metavar="CHECKPOINT", help="Checkpoint to go on from."),
        click.option("--photos-licence", default="", help="Terms of the photos, for the card."),
        click.option("--title", default="", help="Title of the painting, for the card."),
        click.option("--painter", default="", help="Who painted it."),
        click.option("--year", default="", help="When it was painted."),
        click.option("--source", default="", help="Where its picture comes from."),
        click.option("--licence", default="", help="Terms of that picture."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _styles(style_images: tuple[str, ...], facts: dict[str, str]) -> list[Style] | None:
    if not any(facts.values()):
        return None
    if len(style_images) > 1:
        raise WrongCall(
            "--title, --painter and so on: got several paintings; give them in a recipe under model: styles"
        )
    return [Style(style_name(style_images[0]), **facts)]


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    """The options as the public functions take them."""
    facts = {key: options.pop(key) for key in ("title", "painter", "year", "source", "licence")}
    return options | {"styles": _styles(options["style_images"], facts)}


def _report(pack: Pack) -> None:
    parity = pack.card.parity["largest_difference"]
    click.echo(
        f"{pack.path}: {', '.join(pack.card.style_names)}; ONNX Runtime and torch at most {parity} of 255 apart\n"
        f"use it: impasto stylize PHOTO --pack {pack.path} -o painted.jpg",
        err=True,
    )


@click.command()
@_run_options
@click.option("--network", help="fast or johnson; by default the recipe's.")
@click.option("--config", metavar="RECIPE", default="fast", show_default=True, help="Recipe: a file, or fast, johnson.")
@click.option("--start", metavar="PACK", help="Pack to begin from.  [default: random weights]")
@click.option(
    "--sweep", metavar="TERM=A,B,...", help="Short runs with several values of one setting, such as style=4,8,16."
)
def train(sweep: str | None, **options: Any) -> None:
    """Train a style pack from paintings: one network, one style a painting.

    With --sweep: a folder of packs, one a value, and sheet.png to compare them. TERM is style or content (every layer's
    weight), style/relu4_3 and so on (one layer's), tv, steady, rate or style_size.
    """
    arguments = _arguments(options)
    if sweep is None:
        _report(train_pack(**arguments))
        return
    if arguments.pop("resume") is not None:
        raise WrongCall("--resume: not with --sweep, which goes on by itself; give the same command again")
    term, values = parse_sweep(sweep)
    packs = sweep_setting(**arguments, term=term, values=values)
    for label, pack in packs.items():
        terms = ", ".join(f"{name} {value:.4g}" for name, value in validation_terms(pack).items())
        click.echo(f"{label}: {terms}; {pack.path}", err=True)
    click.echo(f"side by side: {Path(arguments['output']) / SHEET}", err=True)


@click.command("add-style")
@click.argument("pack")
@_run_options
@click.option("--config", metavar="RECIPE", default="add_style", show_default=True, help="Recipe: a file or a name.")
def add_style(pack: str, **options: Any) -> None:
    """Learn new styles into a copy of PACK: the old ones stay exactly as they are."""
    _report(add_style_to_pack(find_pack(pack)[0], **_arguments(options)))


@click.command()
@click.argument("checkpoint", type=click.Path())
@click.option("-o", "--output", metavar="PACK", help="Folder of the new pack.")
@click.option("--name", help="The pack's name; by default the folder's.")
@click.option("--triton", metavar="DIR", help="Model repository of an NVIDIA Triton to add the pack to.")
def export(checkpoint: str, output: str | None, name: str | None, triton: str | None) -> None:
    """Make a style pack of a training run's CHECKPOINT, and check it.

    CHECKPOINT may also be a pack's folder, which is written anew as this version does; with --triton alone its name.
    """
    if output is None and (triton is None or name is not None):
        raise click.UsageError("give -o PACK for a checkpoint, or --triton DIR for a pack, or both")
    if output is None:
        pack = find_pack(checkpoint)[0]
    else:
        if Path(checkpoint).is_dir():
            pack = export_again(Pack.load(checkpoint), output, name=name)
        else:
            pack = export_checkpoint(checkpoint, output, name=name)
        _report(pack)
    if triton is not None:
        click.echo(f"{export_triton(pack, triton)}: for tritonserver --model-repository {triton}", err=True)
