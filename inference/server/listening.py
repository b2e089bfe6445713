"""How `impasto serve` listens: uvicorn, patient with nobody, that closes in good order."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from impasto.inference.server.admission import BYTES_PER_SECOND, SEND_SECONDS
from impasto.inference.server.settings import Settings


def connection(settings: Settings) -> type[H11Protocol]:
    """The class of a connection that does not wait for ever: neither for a request nor for its answer to be read.

    uvicorn knows no time limit for the header of a request. One that has not come whole after ``read_seconds`` ends its
    connection; so does a body that goes on longer than any that is let in may, and an answer left unread.
    """
    body_seconds = settings.read_seconds + max(settings.batch_bytes, settings.max_bytes) / BYTES_PER_SECOND

    class Connection(H11Protocol):
        _limit: asyncio.TimerHandle | None = None
        _phase: object = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch("header", settings.read_seconds)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            state = self.conn.their_state
            if state is h11.IDLE:
                self._watch("header", settings.read_seconds)
            elif state is h11.SEND_BODY:
                self._watch("body", body_seconds)
            else:
                self._watch(None, 0)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.transport.get_write_buffer_size():
                self.loop.call_later(SEND_SECONDS, self._unread, self.cycle)

        def connection_lost(self, exc: Exception | None) -> None:
            self._watch(None, 0)
            super().connection_lost(exc)

        def _watch(self, phase: str | None, seconds: float) -> None:
            """Start the clock of a phase of a request, unless it runs; with None stop it."""
            if phase == self._phase:
                return
            if self._limit is not None:
                self._limit.cancel()
            self._phase = phase
            close = self.transport.close if phase == "header" else self.transport.abort
            self._limit = None if phase is None else self.loop.call_later(seconds, close)

        def _unread(self, cycle: object) -> None:
            if self.cycle is cycle and self.transport.get_write_buffer_size():
                self.transport.abort()

    return Connection


def serve(app: FastAPI, host: str, port: int, announce: Callable[[str, int], None]) -> None:
    """Listen until SIGTERM or SIGINT; then finish the requests that are in the house, and return.

    Args:
        app: what `create_app` returns.
        host: an address of this machine.
        port: 0 for any free one.
        announce: called with the host and the port once connections are taken.

    Raises:
        OSError: the address is taken or is not this machine's.
    """
    settings: Settings = app.state.house.settings
    config = uvicorn.Config(
        app,
        http=connection(settings),
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(max(1, settings.read_seconds)),
    )
    server = uvicorn.Server(config)
    listener = _bind(host, port)
    # Of use before uvicorn looks after it, and when it raises it again at the end, which by itself would kill.
    before = signal.signal(signal.SIGTERM, lambda *_: setattr(server, "should_exit", True))
    try:
        announce(host, listener.getsockname()[1])
        server.run([listener])
    finally:
        signal.signal(signal.SIGTERM, before)


def _bind(host: str, port: int) -> socket.socket:
    """A socket that takes connections from now on; they are answered when the server runs."""
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048
        )
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror or error}") from error


def log_to_stderr() -> None:
    """Send the access log (a JSON object a line) and the server's own messages to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    access = logging.getLogger("impasto.access")
    access.handlers, access.propagate = [handler], False
    access.setLevel(logging.INFO)
    plain = logging.StreamHandler(sys.stderr)
    plain.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    for name, level in (
        ("impasto.server", logging.INFO),
        ("uvicorn", logging.ERROR),
        ("python_multipart", logging.ERROR),
    ):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [plain], False
        logger.setLevel(level)
