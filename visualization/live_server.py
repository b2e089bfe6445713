"""The live view's server: a page and what it asks for, on this machine, with the standard library alone."""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from impasto.errors import ImpastoError, WrongCall
from impasto.visualization.inputs import Pictures
from impasto.visualization.live_view import Viewer, Wish
from impasto.visualization.model import Model

MAX_BODY = 4 * 2**20
"""Bytes of a frame; a camera's are about 20 kB."""

WAITING = 8
"""Requests that may be in work; more are told to come again."""

PATIENCE = 30
"""Seconds without a byte after which a connection is closed."""

FILES = {
    "/": ("live.html", "text/html; charset=utf-8"),
    "/live.css": ("live.css", "text/css; charset=utf-8"),
    "/live.js": ("live.js", "text/javascript; charset=utf-8"),
}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Problem(Exception):
    """A request that is refused, with its status and a sentence."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class LiveServer(ThreadingHTTPServer):
    """Answers a page's requests about one network, each connection in a thread that ends with it.

    Attributes:
        viewer: what looks.
        busy: how many more requests may be in work.
    """

    daemon_threads = True

    def __init__(self, viewer: Viewer, host: str, port: int) -> None:
        self.viewer = viewer
        self.busy = BoundedSemaphore(WAITING)
        self.host = host
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), Handler)

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a connection that broke off."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: LiveServer
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE
    server_version, sys_version = "impasto", ""

    def do_GET(self) -> None:
        """Answer a GET: the page's files, what there is to choose from, a unit's patches."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Answer a POST: look at a frame."""
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a line for each frame helps nobody."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send the errors of the standard library in the same form as the others."""
        self._send(HTTPStatus(code), "application/json", _json({"error": message or HTTPStatus(code).phrase}))
        self.close_connection = True

    def _answer(self, make: Callable[[], tuple[str, bytes]]) -> None:
        try:
            self._check_sender()
            with self._turn():
                kind, content = make()
        except Problem as problem:
            self.close_connection = True  # a body that was not read is still under way
            self._send(problem.status, "application/json", _json({"error": str(problem)}))
        except ImpastoError as error:
            self._send(HTTPStatus.BAD_REQUEST, "application/json", _json({"error": " ".join(str(error).split())}))
        except OSError:
            raise  # the connection's
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "application/json", _json({"error": text}))
        else:
            self._send(HTTPStatus.OK, kind, content)

    def _check_sender(self) -> None:
        """Refuse what a page of another site sends, also one that calls itself by a name which leads here."""
        host = self.headers.get("Host", "")
        if not _is_own(host, self.server.host):
            raise Problem(HTTPStatus.MISDIRECTED_REQUEST, "this host name is not served here; use localhost")
        if self.headers.get("Origin", f"http://{host}") != f"http://{host}":
            raise Problem(HTTPStatus.FORBIDDEN, "requests from other sites are refused")
        if self.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none") and self.path != "/":
            raise Problem(HTTPStatus.FORBIDDEN, "requests from other sites are refused")

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self.server.busy.acquire(blocking=False):
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"{WAITING} requests are in work; come again")
        try:
            yield
        finally:
            self.server.busy.release()

    def _get(self) -> tuple[str, bytes]:
        path, query = self._asked()
        if path in FILES:
            name, kind = FILES[path]
            return kind, files("impasto.visualization").joinpath(f"pages/{name}").read_bytes()
        if path == "/facts":
            return "application/json", _json(self.server.viewer.facts())
        if path == "/patches":
            drawn = self.server.viewer.patches(query.get("layer", ""), _number(query, "unit"))
            if drawn is None:
                raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "another unit's patches are searched for; come again")
            return "image/png", drawn
        raise Problem(HTTPStatus.NOT_FOUND, f"there is {', '.join([*FILES, '/facts', '/patches'])}; and POST to /see")

    def _post(self) -> tuple[str, bytes]:
        path, query = self._asked()
        if path != "/see":
            raise Problem(HTTPStatus.NOT_FOUND, "POST goes to /see")
        body = self._body()
        viewer = self.server.viewer
        picture = viewer.read_from_folder(_number(query, "picture")) if "picture" in query else viewer.read(body)
        wish = Wish(
            query.get("layer", ""), _number(query, "unit"), query.get("closely", "overlay"), query.get("scale", "map")
        )
        return "application/json", _json(viewer.see(picture, wish))

    def _asked(self) -> tuple[str, dict[str, str]]:
        address = urlsplit(self.path)
        return address.path, dict(parse_qsl(address.query, max_num_fields=8))

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            raise Problem(HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length")
        if int(length) > MAX_BODY:
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"got {length} bytes, expected {MAX_BODY} at most")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise ConnectionAbortedError
        return body

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _is_own(host: str, given: str) -> bool:
    """Whether a Host header names this server: as localhost, as it was told to be called, or by an address.

    A page that leads a name of its own to this machine sends that name.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name in ("localhost", given):
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _number(query: dict[str, str], name: str) -> int:
    text = query.get(name, "0")
    if not text.isdecimal() or len(text) > 9:
        raise WrongCall(f"{name}: got {text[:20]!r}, expected a number from 0 on")
    return int(text)


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode()


def live(
    folder: str | Path | None = None,
    *,
    model: Model,
    host: str = "127.0.0.1",
    port: int = 8047,
    ready: Callable[[str], object] | None = None,
) -> None:
    """Serve the live view until Ctrl-C: a network's answer to each picture of a camera or a folder, as it goes.

    After the DeepVis toolbox of Yosinski et al. 2015, with its keys.

    Args:
        folder: photos to choose from, and to look for patches in.
        model: a network with maps.
        host: address to listen at; others than this machine's own let other people in. A browser gives the camera
            only to localhost.
        port: 0 for any that is free.
        ready: called with the page's address.

    Raises:
        WrongCall: an address that cannot be listened at.
        PictureError: a folder without photos.
        Refused: a network without maps.
    """
    viewer = Viewer(model, None if folder is None else Pictures.of(folder))
    try:
        server = LiveServer(viewer, host, port)
    except (OSError, OverflowError) as error:
        raise WrongCall(f"cannot listen at {host}, port {port} ({error}); choose others, --port 0 for any") from None
    with server:
        if ready:
            ready(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            viewer.close()
