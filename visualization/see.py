"""The command ``impasto see``: one sub-command for each technique in the registry."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from impasto.errors import WrongCall, require
from impasto.visualization.network_options import network_of, network_options
from impasto.visualization.options import Option
from impasto.visualization.page_commands import PAGES, live_command, report_command
from impasto.visualization.progress import reporting
from impasto.visualization.registry import Card, Technique, registry

if TYPE_CHECKING:
    from impasto.visualization.result import Result

FOLDER = Path("see")
"""Where results go, each technique's into a folder of its name, when nothing is said."""

PAINT = Card(
    "paint",
    "V32",
    "synthesis",
    "A photo's features and a painting's textures at once: style transfer, or with a weight of 0 invert or texture.",
    "one picture",
    False,
    "impasto.visualization.painting",
)
"""Style transfer, which is a technique as well as a command of its own."""


class Techniques(click.Group):
    """A group that imports a technique when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """``list``, and the techniques and pages in the order of their numbers."""
        return ["list", *(_command_name(card.name) for card in _cards())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Make a technique's command from its function. Raises WrongCall for an unknown name."""
        if cmd_name == PAINT.name:
            commands: Any = require("impasto.visualization.commands", purpose="impasto see paint", extra="train")
            return cast("click.Command", commands.paint_command)
        own = super().get_command(ctx, cmd_name)
        return own or technique_command(registry[cmd_name.replace("-", "_")])

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list from the registry's cards, importing no technique."""
        with formatter.section("Techniques"):
            formatter.write_dl([(_command_name(card.name), card.meaning) for card in _cards()])


@click.group("see", cls=Techniques)
def see() -> None:
    """Look inside a network: TECHNIQUE --help says what each takes; `impasto see list` lists them."""


see.add_command(live_command)
see.add_command(report_command)


@see.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print it for programs.")
def list_command(as_json: bool) -> None:
    """List the techniques and pages: number, name, what it reads, what it shows."""
    cards = _cards()
    if as_json:
        click.echo(json.dumps([vars(card) for card in cards], indent=2))
        return
    width = max((len(card.name) for card in cards), default=0)
    for card in cards:
        reads = f"[{card.reads}]" if card.optional else card.reads
        click.echo(f"{card.number:7}  {_command_name(card.name):{width}}  {reads:15}  {card.meaning}")


def _cards() -> list[Card]:
    return sorted([*registry.cards.values(), PAINT, *PAGES], key=lambda card: card.number)


def _command_name(name: str) -> str:
    return name.replace("_", "-")


def technique_command(technique: Technique) -> click.Command:
    """The click command of a technique: its options, their types, defaults and helps are the function's."""
    card = technique.card
    parameters = [*_inputs(card), *map(_option, technique.options.values()), *_shared(card.name)]

    def run(
        model: str,
        weights: str,
        size: int | None,
        download: bool,
        device: str,
        output: str | None,
        as_json: bool,
        log_dir: str | None,
        pictures: tuple[str, ...] | str = (),
        **options: Any,
    ) -> None:
        parsed = {name: _value(technique.options[name], value) for name, value in options.items()}
        folder = Path(output) if output else FOLDER / card.name
        if folder.exists() and not folder.is_dir():
            raise WrongCall(f"-o {folder}: is a file, expected a folder")
        network = network_of(model, weights, size, download, device)
        given = (list(pictures) if card.reads.startswith("pictures") else pictures,) if pictures else ()
        with _progress():
            result = technique.function(network, *given, **parsed)
        _show(result, folder, as_json, log_dir)

    doc = technique.function.__doc__ or ""
    text = doc.partition("Args:")[0].partition("Returns:")[0].strip()
    return click.Command(_command_name(card.name), callback=run, params=parameters, help=text, short_help=card.meaning)


def _inputs(card: Card) -> list[click.Parameter]:
    if card.reads in ("one picture", "whole picture"):
        metavar = "[PICTURE]" if card.optional else "PICTURE"
        return [click.Argument(["pictures"], metavar=metavar, required=not card.optional)]
    if card.reads.startswith("pictures"):
        metavar = "[PICTURE_OR_FOLDER]..." if card.optional else "PICTURE_OR_FOLDER..."
        return [click.Argument(["pictures"], metavar=metavar, nargs=-1, required=not card.optional)]
    return []


def _option(option: Option) -> click.Option:
    """A click option; texts are parsed by `Option.parse`, so that the two agree."""
    if option.kind is bool:
        return click.Option([option.flag, option.name], default=option.default, show_default=True, help=option.help)
    kind = click.Choice(option.choices) if option.choices else click.STRING
    default = None if option.default is None else option.text(option.default)
    kind_name = {"picture": "FILE", "network": "NETWORK"}.get(option.opens, option.kind.__name__.upper())
    metavar = None if option.choices else kind_name + (",..." if option.many else "")
    shown = bool(default)
    return click.Option(
        [option.flag, option.name], type=kind, default=default, show_default=shown, help=option.help, metavar=metavar
    )


def _value(option: Option, given: Any) -> Any:
    return option.parse(given) if isinstance(given, str) else given


def _shared(name: str) -> list[click.Parameter]:
    return [
        *network_options(),
        click.Option(["-o", "--output"], metavar="FOLDER", help=f"[default: {FOLDER / name}]"),
        click.Option(["--json", "as_json"], is_flag=True, help="Print what was found for programs."),
        click.Option(["--log-dir"], metavar="DIR", help="For TensorBoard."),
    ]


def _show(result: Result, folder: Path, as_json: bool, log_dir: str | None) -> None:
    files = result.save(folder)
    if log_dir is not None:
        tensorboard: Callable[..., Any] = require(
            "torch.utils.tensorboard", purpose="--log-dir", extra="see"
        ).SummaryWriter
        with tensorboard(log_dir) as writer:
            result.tensorboard(writer)
    if as_json:
        found = {
            "caption": result.caption,
            "command": result.command,
            "data": result.data,
            "files": list(map(str, files)),
        }
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        click.echo(f"{folder}: {result.caption}", err=True)


@contextmanager
def _progress() -> Iterator[None]:
    """A bar with the time left on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    with click.progressbar(length=1000, file=sys.stderr, item_show_func=lambda text: text) as bar:

        def show(done: int, total: int, what: str) -> None:
            bar.update(round(1000 * done / max(1, total)) - bar.pos, what)

        with reporting(show):
            yield
