"""The command ``impasto``: opens the room that a sub-command lives in, and turns its errors into one line.

``impasto --help`` imports none of the rooms; the texts it shows stand in `COMMANDS`.
"""

from __future__ import annotations

import errno
import importlib
import warnings
from typing import Any, NamedTuple, NoReturn

import click

from impasto.errors import ImpastoError, require


class Room(NamedTuple):
    """Where a sub-command lives: ``module:name`` of its click command, what it does, the extra it needs."""

    target: str
    help: str
    extra: str | None = None


COMMANDS = {
    "stylize": Room("impasto.inference.commands:stylize", "Paint photos in a style."),
    "video": Room("impasto.inference.video_command:video", "Paint a video; it does not flicker."),
    "styles": Room("impasto.inference.commands:styles", "List the styles that are installed."),
    "serve": Room("impasto.inference.server.commands:serve", "Serve an HTTP API and a web page.", "serve"),
    "train": Room("impasto.training.commands:train", "Train a style pack from paintings.", "train"),
    "add-style": Room("impasto.training.commands:add_style", "Add styles to a pack.", "train"),
    "export": Room("impasto.training.commands:export", "Make a style pack of a checkpoint.", "train"),
    "paint": Room("impasto.visualization.commands:paint_command", "Paint one photo by optimising its pixels.", "train"),
    "see": Room("impasto.visualization.see:see", "Look inside a network: what it sees, and why it says so.", "see"),
    "bench": Room("impasto.benchmarks.commands:bench", "Measure speed, training and quality."),
}


class Rooms(click.Group):
    """A group that imports a sub-command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the sub-commands, in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a sub-command."""
        if cmd_name not in COMMANDS:
            return None
        room = COMMANDS[cmd_name]
        module, _, name = room.target.partition(":")
        if room.extra is None:
            loaded = importlib.import_module(module)
        else:
            loaded = require(module, purpose=f"impasto {cmd_name}", extra=room.extra)
        command: click.Command = getattr(loaded, name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of sub-commands from `COMMANDS`, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, room.help) for name, room in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the sub-command; the one place where errors become a line and an exit code."""
        warnings.filterwarnings("ignore", module="PIL")  # what matters of a damaged file is raised
        try:
            return super().invoke(ctx)
        except ImpastoError as error:
            _fail(ctx, str(error), error.exit_code)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            place = f"{error.filename}: " if error.filename else ""
            _fail(ctx, f"{place}{error.strerror or error}", 1)
        except KeyboardInterrupt:
            click.echo("Interrupted", err=True)
            ctx.exit(130)


def _fail(ctx: click.Context, message: str, exit_code: int) -> NoReturn:
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    ctx.exit(exit_code)


@click.group(cls=Rooms, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="impasto")
def main() -> None:
    """Paint photos in the style of a painting, train your own style, and look inside the networks that do it."""
