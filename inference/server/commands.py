"""The command ``impasto serve``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from impasto.inference.server import runtime
from impasto.inference.server.app import create_app
from impasto.inference.server.listening import log_to_stderr
from impasto.inference.server.listening import serve as listen
from impasto.inference.server.settings import LOOPBACK, Settings
from impasto.inference.sessions import PROVIDERS

_DEFAULT = Settings()


def _number(name: str, help: str, type: type = int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The option of a number in `Settings`."""
    default = getattr(_DEFAULT, name)
    flag = f"--{name.replace('_', '-')}"
    return click.option(flag, name, type=type, help=help, default=default, show_default=default is not None)


@click.command()
@click.option("--pack", "packs", multiple=True, metavar="PACK", help="A pack's name or folder, or a folder of packs.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for every one.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for any free one.")
@click.option("--provider", type=click.Choice(PROVIDERS), default="auto", show_default=True, help="What computes.")
@_number("threads", "CPU threads one picture may use.  [default: all]")
@_number("workers", "Pictures in work at once.")
@_number("queue", "Requests that may wait.")
@_number("max_bytes", "Largest picture file, in bytes.")
@_number("max_pixels", "Largest picture, width times height.")
@_number("batch_pictures", "Most pictures of one batch.")
@_number("batch_bytes", "Largest body of a batch, in bytes.")
@_number("read_seconds", "Time to send a body; a second more for each 64 KiB sent.", float)
@_number("paint_seconds", "Time to paint one picture.", float)
@_number("reload_seconds", "Time between two looks at the packs' folders; 0 for never.", float)
@_number("quota", "Requests a minute that one client may have painted.  [default: no quota]")
@click.option("--api-key", envvar="IMPASTO_API_KEY", default=None, help="What clients show; safer in IMPASTO_API_KEY.")
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="A name the server answers to; * for all.")
@click.option("--origin", "origins", multiple=True, metavar="URL", help="Another site whose pages may call it.")
@click.option("--install-runtime", is_flag=True, help="Fetch what the page needs to paint in the browser, and exit.")
def serve(host: str, port: int, hosts: tuple[str, ...], install_runtime: bool, **settings: Any) -> None:
    """Serve an HTTP API and a web page that paint photos.

    Only this machine can call it, unless --host says otherwise. SIGTERM lets what is in work finish.
    """
    if install_runtime:
        click.echo(f"The browser's runtime is in {runtime.install_runtime()}", err=True)
        return
    app = create_app(Settings(hosts=hosts or _hosts(host), **settings))
    log_to_stderr()
    listen(app, host, port, _announce)


def _hosts(host: str) -> tuple[str, ...]:
    """Who listens for this machine alone answers to its names; who listens for others, to any."""
    return LOOPBACK if host in ("127.0.0.1", "::1", "localhost") else ("*",)


def _announce(host: str, port: int) -> None:
    name = f"[{host}]" if ":" in host else host
    click.echo(f"impasto is at http://{name}:{port}/ and explains itself at /docs; Ctrl-C ends it", err=True)
    if runtime.runtime_folder() is None:
        click.echo(
            "The page paints through the server; in the browser after: impasto serve --install-runtime", err=True
        )
