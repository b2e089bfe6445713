"""Bodies read: a picture as it is, or a form with pictures and fields. All in memory: no photo touches the disk."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from impasto.inference.server.problems import Problem

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = "picture"
MAX_FIELDS = 16
MAX_FIELD = 10_000
FORM = "multipart/form-data"


@dataclass(frozen=True)
class Upload:
    """A picture as it was sent; ``name`` is the file's name, or empty."""

    name: str
    data: bytes


def is_form(request: Request) -> bool:
    """Whether the body is a form; raises `Problem` if it is neither a form nor a picture."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM and not kind.startswith("image/"):
        raise Problem("wrong-type", f"a body of the type {kind[:100]!r}; expected image/* or {FORM}")
    return kind == FORM


async def read_bytes(request: Request) -> bytes:
    """The body as it is."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
    if not data:
        raise Problem("malformed", "the body is empty; expected a picture")
    return bytes(data)


async def read_form(request: Request, most: int) -> tuple[dict[str, str], list[Upload]]:
    """The fields and the pictures of a form.

    Args:
        request: what was asked.
        most: number of pictures that may come.

    Raises:
        Problem: not a form, one that breaks off, too many parts, a field that stands twice, a file of another name, or
            no picture.
    """
    boundary = parse_options_header(request.headers.get("content-type", ""))[1].get(b"boundary")
    if not boundary:
        raise Problem("malformed", "the form's header names no boundary")
    parts = await asyncio.to_thread(_parse, await read_bytes(request), boundary, most)
    fields: dict[str, str] = {}
    uploads = []
    for part in parts:
        if part.name in fields or (part.file is None) == (part.name == FIELD):
            expected = f"expected files under the name {FIELD!r}, with a file name, and every other field once"
            raise Problem("wrong-parameter", f"the form's part {part.name[:100]!r}: {expected}")
        if part.file is None:
            fields[part.name] = _text(bytes(part.data[: MAX_FIELD + 1]))
        else:
            uploads.append(Upload(part.file, bytes(part.data)))
    if not uploads or len(uploads) > most:
        reason = "too-large" if uploads else "malformed"
        raise Problem(reason, f"{len(uploads)} files under the name {FIELD!r}; expected from 1 to {most}")
    return fields, uploads


@dataclass
class _Part:
    """A part of a form; ``file`` is the name of its file, or None for a field."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: str = ""
    file: str | None = None
    data: bytearray = field(default_factory=bytearray)


class _Form:
    """Gathers the parts of a form from the parser's calls."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.parts: list[_Part] = []
        self.whole = False
        self._field = self._value = b""

    def begin(self) -> None:
        if len(self.parts) == self.most:
            raise Problem("too-large", f"a form of more than {self.most} parts; expected at most that")
        self.parts.append(_Part())

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self.parts[-1].headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def headers_end(self) -> None:
        part = self.parts[-1]
        kind, options = parse_options_header(part.headers.get(b"content-disposition", b""))
        if kind != b"form-data" or b"name" not in options:
            raise Problem("malformed", "a part of the form has no name")
        part.name = _text(options[b"name"])
        part.file = _text(options[b"filename"]) if b"filename" in options else None

    def more(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += data[start:end]

    def end(self) -> None:
        self.whole = True


def _parse(body: bytes, boundary: bytes, most: int) -> list[_Part]:
    form = _Form(most + MAX_FIELDS)
    callbacks: MultipartCallbacks = {
        "on_part_begin": form.begin,
        "on_header_field": form.header_name,
        "on_header_value": form.header_value,
        "on_header_end": form.header_end,
        "on_headers_finished": form.headers_end,
        "on_part_data": form.more,
        "on_end": form.end,
    }
    try:
        MultipartParser(boundary, callbacks).write(body)
    except FormParserError as error:
        raise Problem("malformed", f"the form cannot be read: {error}") from error
    if not form.whole:
        raise Problem("malformed", "the form breaks off: its last boundary is missing")
    return form.parts


def _text(data: bytes) -> str:
    if len(data) > MAX_FIELD:
        raise Problem("malformed", f"a field of more than {MAX_FIELD} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Problem("malformed", f"a field that is not UTF-8: {error}") from error
