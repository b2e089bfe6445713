"""What is answered when a request is not: a JSON body (RFC 9457, "problem details") that says what to do.

{"type": "/docs#queue-full", "title": "Service Unavailable", "status": 503, "reason": "queue-full", "detail": "..."}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import JSONResponse

REASONS = {
    "malformed": (400, "The request is not what its headers say; send it again as the examples do."),
    "key-missing": (401, "Send the server's key: `Authorization: Bearer KEY`."),
    "origin-refused": (403, "A page of another site may not call this server; its owner can allow it: `--origin`."),
    "not-found": (404, "There is nothing of that name; `/v1/styles` lists the packs and styles, `/docs` the calls."),
    "wrong-method": (405, "Use the method that the header `Allow` names."),
    "slow-body": (408, "The body came too slowly; send a smaller picture, or over a better line."),
    "too-large": (413, "Shrink the picture or send fewer; the detail states the limit."),
    "too-many-pixels": (413, "Shrink the picture; the detail states the limit."),
    "wrong-type": (415, "Send a picture as `image/jpeg`, `image/png` or `image/webp`, or a form with `picture`."),
    "not-a-picture": (415, "Send a JPEG, PNG or WebP file."),
    "wrong-host": (421, "Call the server by a name it answers to; its owner can add one: `--allow-host`."),
    "damaged-picture": (422, "The file breaks off or contradicts itself, or is too small; save it anew."),
    "wrong-parameter": (422, "Change the parameter that the detail names."),
    "quota": (429, "Wait as many seconds as `Retry-After` says."),
    "client-left": (499, "Nobody is there to read this."),
    "failed": (500, "A defect of the server; its log has the details under the request's id."),
    "queue-full": (503, "Wait as many seconds as `Retry-After` says, and send the request again."),
    "not-ready": (503, "No style pack is loaded, or the server is closing; try again later."),
    "took-too-long": (504, "Painting took too long; send a smaller picture, or try when the server is less busy."),
}
"""Every reason for which a request is not answered with what it asked for: status, and what to do."""

_OF_STATUS = {400: "malformed", 404: "not-found", 405: "wrong-method", 413: "too-large", 415: "wrong-type"}


class Problem(Exception):
    """A request that is not answered with what it asked for.

    Args:
        reason: one of `REASONS`.
        detail: what was got and what was expected, in one line.
        retry_after: seconds to wait, for 429 and 503.
        headers: more headers of the answer.
    """

    def __init__(
        self,
        reason: str,
        detail: str,
        *,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.status, self.advice = REASONS[reason]
        self.detail = " ".join(detail.split())
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
        if self.status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"

    @classmethod
    def of_status(cls, status: int, detail: str, headers: Mapping[str, str] | None = None) -> Problem:
        """The problem that stands for an HTTP status which the framework has raised."""
        return cls(_OF_STATUS.get(status, "malformed" if status < 500 else "failed"), detail, headers=headers)

    def body(self) -> dict[str, object]:
        """The JSON body."""
        return {
            "type": f"/docs#{self.reason}",
            "title": "Client Closed Request" if self.status == 499 else HTTPStatus(self.status).phrase,
            "status": self.status,
            "reason": self.reason,
            "detail": self.detail,
            "advice": self.advice,
        }

    def response(self, path: str = "") -> JSONResponse:
        """The answer; below ``/v2`` with the member ``error`` that the Open Inference Protocol asks for."""
        body = self.body() | ({"error": self.detail} if path.startswith("/v2") else {})
        return JSONResponse(body, self.status, self.headers, "application/problem+json")
