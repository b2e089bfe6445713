"""One request from the first byte to the last: its number, what is noted about it, the access log, security headers."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from impasto.inference.server.metrics import Metrics
from impasto.inference.server.problems import Problem

ACCESS = logging.getLogger("impasto.access")
LOG = logging.getLogger("impasto.server")
UNANSWERED = 499
METHODS = ("GET", "HEAD", "POST", "OPTIONS")
"""Those that the metrics tell apart: a client must not be able to make up new ones without end."""

_KEY = "impasto.visit"

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), payment=(), usb=()",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval' blob:; worker-src 'self' blob:; "
        "connect-src 'self' blob: data:; img-src 'self' blob: data:; media-src 'self' blob:; style-src 'self'; "
        "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
}
"""On every answer. The first two ``Cross-Origin`` lines let a page use threads; the last but one word of the policy
is what a browser needs to compile WebAssembly, ``blob:`` what it needs to start workers and to show what it painted."""


class Unread(Exception):
    """A client that does not read its answer."""


@dataclass
class Visit:
    """What is noted about one request."""

    id: str = field(default_factory=lambda: secrets.token_hex(8))
    started: float = field(default_factory=time.perf_counter)
    status: int = UNANSWERED
    reason: str | None = None
    early: bool = False
    bytes_in: int = 0
    bytes_out: int = 0
    pixels: int = 0
    stages: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, scope: Scope) -> Visit:
        """The visit of a request."""
        visit: Visit = scope[_KEY]
        return visit

    def add(self, stage: str, seconds: float) -> None:
        """Note that a stage has taken so long, beside what it took for earlier pictures of this request."""
        self.stages[stage] = self.stages.get(stage, 0.0) + seconds

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def timing(self) -> str:
        """The header ``Server-Timing``: browsers show it among the network requests."""
        return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in self.stages.items())


class Reception:
    """ASGI middleware, the outermost: notes, counts and logs each request, and puts the headers on each answer.

    Pictures, styles and keys are not logged.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        visit = scope[_KEY] = Visit()

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers["X-Request-Id"] = visit.id
                if visit.stages:
                    headers["Server-Timing"] = visit.timing()
            else:
                visit.bytes_out += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except Unread:
            visit.reason = "client-left"
        except Exception as error:
            visit.reason = "failed"
            LOG.error("request %s failed", visit.id, exc_info=error)
            if visit.status != UNANSWERED:
                raise
            await Problem("failed", f"request {visit.id} has met a defect").response(scope["path"])(
                scope, receive, noting
            )
        finally:
            self._close(scope, visit)

    def _close(self, scope: Scope, visit: Visit) -> None:
        seconds = time.perf_counter() - visit.started
        route = getattr(scope.get("route"), "path", None) or ("refused" if visit.early else "files")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.metrics.requests.labels(route, method, visit.status).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        for stage, took in visit.stages.items():
            self.metrics.stages.labels(stage).observe(took)
        if visit.reason is not None:
            self.metrics.refusals.labels(visit.reason).inc()
        if visit.early:
            self.metrics.refusal_seconds.observe(seconds)
        if ACCESS.isEnabledFor(logging.INFO):
            ACCESS.info(json.dumps(_line(scope, visit, seconds)))


def _line(scope: Scope, visit: Visit, seconds: float) -> dict[str, Any]:
    line = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "id": visit.id,
        "client": scope["client"][0] if scope.get("client") else None,
        "method": scope["method"],
        "path": scope["path"][:200],
        "status": visit.status,
        "reason": visit.reason,
        "seconds": round(seconds, 4),
        "bytes_in": visit.bytes_in,
        "bytes_out": visit.bytes_out,
        "pixels": visit.pixels,
        "stages": {name: round(took, 4) for name, took in visit.stages.items()},
    }
    return {key: value for key, value in line.items() if value not in (None, 0, {})}
