"""Who comes in, before a byte of the body is read; and how much of a body, how fast."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from impasto.inference.server.house import House
from impasto.inference.server.problems import Problem
from impasto.inference.server.settings import Settings
from impasto.inference.server.visits import Unread, Visit

BYTES_PER_SECOND = 64 * 2**10
"""A body that comes more slowly than this is refused once its first seconds (``read_seconds``) are over."""

SEND_SECONDS = 60.0
"""How long a client may leave an answer unread."""

_FREE_OF_HOST = ("/healthz", "/readyz", "/metrics")
_KEYED = ("/metrics",)
_CLIENTS = 10_000


def is_work(scope: Scope) -> bool:
    """Whether a request asks for something to be painted."""
    path: str = scope["path"]
    is_infer = path.startswith("/v2/models/") and path.endswith("/infer")
    return scope["method"] == "POST" and (path in ("/v1/stylize", "/v1/batch") or is_infer)


class Quota:
    """So many requests a minute for each client: a bucket that refills evenly (the last 10,000 clients are known)."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self.clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, client: str) -> float:
        """Count a request; returns 0, or (it is not counted then) the seconds to wait."""
        now, interval = self.clock(), 60 / self.per_minute
        full_at = max(self._full_at.get(client, now), now) + interval
        if full_at > now + 60 + 1e-6:
            return full_at - now - 60
        self._full_at[client] = full_at
        self._full_at.move_to_end(client)
        if len(self._full_at) > _CLIENTS:
            self._full_at.popitem(last=False)
        return 0.0


class Admission:
    """ASGI middleware: refuses before the upload is read, and holds a place for as long as a request is in the house.

    Attributes:
        taken: places in use.
    """

    def __init__(self, app: ASGIApp, house: House) -> None:
        self.app = app
        self.house = house
        self.settings = settings = house.settings
        self.taken = 0
        self.quota = Quota(settings.quota) if settings.quota else None
        house.metrics.watch("impasto_places_taken", "Requests for paintings in the house.", lambda: self.taken)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        visit = Visit.of(scope)
        work = is_work(scope)
        try:
            self._check(scope, Headers(scope=scope), work)
        except Problem as problem:
            visit.early, visit.reason = True, problem.reason
            await problem.response(scope["path"])(scope, receive, send)
            return
        if not work:
            await self.app(scope, receive, _hurried(send))
            return
        limit = body_limit(scope, self.settings)
        self.taken += 1
        try:
            await self.app(scope, _metered(receive, visit, limit, self.settings.read_seconds), _hurried(send))
        finally:
            self.taken -= 1

    def _check(self, scope: Scope, headers: Headers, work: bool) -> None:
        """Raise the problem for which a request is refused, if there is one."""
        settings = self.settings
        if scope["path"] not in _FREE_OF_HOST:
            check_host(headers.get("host", ""), settings)
        if scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            check_origin(headers, settings)
        if work or scope["path"] in _KEYED:
            check_key(headers, settings)
        if not work:
            return
        check_length(headers, body_limit(scope, settings))
        self.house.check_ready()
        if self.taken >= settings.places:
            inside = f"{settings.workers} requests are in work and {settings.queue} wait, as many as may"
            raise Problem("queue-full", inside, retry_after=self.house.workers.wait())
        client = scope["client"][0] if scope.get("client") else ""
        seconds = self.quota.take(client) if self.quota else 0.0
        if seconds:
            raise Problem("quota", f"more than {settings.quota} requests a minute", retry_after=seconds)


def body_limit(scope: Scope, settings: Settings) -> int:
    """The largest body in bytes; a form may add 64 KiB of fields and headers to its picture."""
    return settings.batch_bytes if scope["path"] == "/v1/batch" else settings.max_bytes + 64 * 2**10


def check_host(host: str, settings: Settings) -> None:
    """Refuse a name that is not this server's: so a page of another site cannot reach it by pointing its name here."""
    name = host.lower()
    if not name.endswith("]"):
        head, _, port = name.rpartition(":")
        name = head if head and port.isdigit() else name
    if "*" not in settings.hosts and name not in settings.hosts:
        raise Problem("wrong-host", f"this server does not answer to the name {host[:100]!r}")


def check_origin(headers: Headers, settings: Settings) -> None:
    """Refuse what a page of another site sends."""
    origin = headers.get("origin")
    if origin is None or origin in settings.origins or "*" in settings.origins:
        return
    if origin == "null" or urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        raise Problem("origin-refused", f"a page of {origin[:100]} may not call this server")


def check_key(headers: Headers, settings: Settings) -> None:
    """Refuse who does not show the key, if there is one."""
    if settings.api_key is None:
        return
    scheme, _, shown = headers.get("authorization", "").partition(" ")
    shown = shown.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    if not hmac.compare_digest(shown.encode(), settings.api_key.encode()):
        raise Problem("key-missing", "the API key is missing or wrong")


def check_length(headers: Headers, limit: int) -> None:
    """Refuse a body that says itself that it is too large, or that would have to be unpacked first."""
    length = headers.get("content-length")
    if length is not None and (not length.isascii() or not length.isdigit()):
        raise Problem("malformed", f"the length {length[:20]!r} is not a number of bytes")
    if length is not None and (len(length) > 18 or int(length) > limit):
        raise Problem("too-large", f"a body of {length[:20]} bytes; expected at most {limit}")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem("wrong-type", "the body is compressed; send it as it is")


def _metered(receive: Receive, visit: Visit, limit: int, seconds: float) -> Receive:
    """``receive`` that raises `Problem` once a body is too large or comes too slowly."""
    reading = True
    begun: float | None = None

    async def metered() -> Message:
        nonlocal reading, begun
        if not reading:
            return await receive()
        now = asyncio.get_running_loop().time()
        begun = now if begun is None else begun
        try:
            async with asyncio.timeout_at(begun + seconds + visit.bytes_in / BYTES_PER_SECOND):
                message = await receive()
        except TimeoutError:
            reading = False
            detail = f"{visit.bytes_in} bytes in {asyncio.get_running_loop().time() - begun:.0f} s"
            raise Problem("slow-body", f"{detail}; expected {BYTES_PER_SECOND} a second") from None
        finally:
            visit.stages["read"] = asyncio.get_running_loop().time() - begun
        visit.bytes_in += len(message.get("body", b""))
        if visit.bytes_in > limit:
            reading = False
            raise Problem("too-large", f"a body of more than {limit} bytes; expected at most that")
        reading = message["type"] == "http.request" and message.get("more_body", False)
        return message

    return metered


def _hurried(send: Send) -> Send:
    """``send`` that gives up on a client that does not read."""

    async def hurried(message: Message) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await send(message)
        except TimeoutError:
            raise Unread(f"the client has not read its answer for {SEND_SECONDS:.0f} s") from None

    return hurried
