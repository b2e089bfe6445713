"""``/v1/batch``: a handful of pictures in one request, each sent back as soon as it is painted."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import StreamingResponse

from impasto.inference.server.bodies import FORM, Upload, is_form, read_form
from impasto.inference.server.house import House, ThisHouse
from impasto.inference.server.openapi import EVENT, batch_body, work_responses
from impasto.inference.server.painting import Order, Wish, paint_file
from impasto.inference.server.problems import Problem
from impasto.inference.server.visits import Visit

router = APIRouter(prefix="/v1", tags=["paint"])


@router.post(
    "/batch",
    response_class=Response,
    responses=work_responses({"text/event-stream": {"schema": EVENT}}, "An event for each thing that happens."),
    openapi_extra={"requestBody": batch_body()},
)
async def batch(wish: Annotated[Wish, Query()], request: Request, house: ThisHouse) -> Response:
    """Paint several pictures, all in the same way: the body is a form with several files in the field ``picture``.

    The answer is a stream of server-sent events whose data are JSON objects. ``progress`` comes before each picture
    (``index``, ``name``, ``total``); then ``picture`` (``index``, ``name``, ``type``, ``width``, ``height``,
    ``base64``: the file) or ``failed`` (``index``, ``name``, ``problem``: as in the answer to a single picture); and
    ``end`` (``done``, ``failed``, ``total``) last. A batch takes one place in the queue, and one thread at a time.
    """
    if not is_form(request):
        raise Problem("wrong-type", f"a single picture; expected {FORM}, or POST /v1/stylize")
    fields, uploads = await read_form(request, house.settings.batch_pictures)
    order = Order.of(wish.with_fields(fields), house)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(
        _events(house, order, uploads, Visit.of(request.scope)), headers=headers, media_type="text/event-stream"
    )


async def _events(house: House, order: Order, uploads: list[Upload], visit: Visit) -> AsyncIterator[bytes]:
    failed = 0
    visit.reason = "client-left"  # until it is known better
    for index, upload in enumerate(uploads):
        about = {"index": index, "name": upload.name}
        yield event("progress", about | {"total": len(uploads)})
        try:
            if len(upload.data) > house.settings.max_bytes:
                limit = house.settings.max_bytes
                raise Problem("too-large", f"a file of {len(upload.data)} bytes; expected at most {limit}")
            painted = await paint_file(house, order, upload.data, visit)
        except Problem as problem:
            failed += 1
            house.metrics.refusals.labels(problem.reason).inc()
            yield event("failed", about | {"problem": problem.body()})
            continue
        size = {"type": f"image/{painted.format}", "width": painted.width, "height": painted.height}
        yield event("picture", about | size | {"base64": base64.b64encode(painted.data).decode()})
    visit.reason = None
    yield event("end", {"done": len(uploads) - failed, "failed": failed, "total": len(uploads)})


def event(name: str, data: dict[str, object]) -> bytes:
    """A server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
