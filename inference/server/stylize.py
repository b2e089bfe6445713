"""``/v1``: the styles, the network itself, and one picture painted."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from impasto.errors import WrongCall
from impasto.inference.server.bodies import is_form, read_bytes, read_form
from impasto.inference.server.house import House, ThisHouse
from impasto.inference.server.openapi import PICTURES, Responses, picture_body, problem_responses, work_responses
from impasto.inference.server.painting import Order, Painted, Wish, paint_file
from impasto.inference.server.problems import Problem
from impasto.inference.server.shelf import Served
from impasto.inference.server.visits import Visit
from impasto.inference.server.workers import while_there

router = APIRouter(prefix="/v1", tags=["paint"])


class StyleEntry(BaseModel):
    """A style."""

    name: str
    title: str
    painter: str
    year: str
    source: str
    licence: str


class PackEntry(BaseModel):
    """A pack; ``size_bytes``, ``sha256`` and ``model`` (an address) are those of its ``paint.onnx``."""

    name: str
    styles: list[StyleEntry]
    network: str
    size_bytes: int
    sha256: str
    model: str


class Styles(BaseModel):
    """What is served."""

    packs: list[PackEntry]


def _entry(served: Served) -> PackEntry:
    return PackEntry(
        name=served.name,
        styles=[StyleEntry(**vars(style)) for style in served.pack.card.styles],
        network=str(served.pack.card.network.get("name", "")),
        size_bytes=len(served.model),
        sha256=served.sha256,
        model=f"/v1/packs/{served.name}/paint.onnx",
    )


@router.get("/styles")
async def styles(house: ThisHouse) -> Styles:
    """The packs that are served, and their styles."""
    return Styles(packs=[_entry(served) for served in house.shelf.packs.values()])


_MODEL: Responses = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
    304: {"description": "What the client has already."},
}


@router.head("/packs/{pack}/paint.onnx", include_in_schema=False)
@router.get(
    "/packs/{pack}/paint.onnx",
    response_class=Response,
    responses=_MODEL | problem_responses(404, 422),
)
async def model(pack: str, request: Request, house: ThisHouse) -> Response:
    """The network of a pack: an ONNX file. Its ETag is its SHA-256."""
    try:
        served = house.shelf.get(pack)
    except WrongCall as error:
        raise Problem("not-found", str(error)) from error
    tag = f'"{served.sha256}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    known = [entry.strip().removeprefix("W/") for entry in request.headers.get("if-none-match", "").split(",")]
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(served.model, headers=headers, media_type="application/octet-stream")


@router.post(
    "/stylize",
    response_class=Response,
    responses=work_responses(PICTURES, "The painting, as large as the picture."),
    openapi_extra={"requestBody": picture_body()},
)
async def stylize(wish: Annotated[Wish, Query()], request: Request, house: ThisHouse) -> Response:
    """Paint one picture: the body is a JPEG, PNG or WebP file, or a form with the file in the field ``picture``.

    In a form, the parameters may be fields too; a field counts before a parameter of the same name.
    """
    order, data = await _read(wish, request, house)
    painted = await while_there(request, paint_file(house, order, data, Visit.of(request.scope)))
    return picture_response(painted)


async def _read(wish: Wish, request: Request, house: House) -> tuple[Order, bytes]:
    """What is wished and the picture; what is wrong with either is said before the body is read, where it can be."""
    if not is_form(request):
        order = Order.of(wish, house)
        return order, await read_bytes(request)
    fields, uploads = await read_form(request, 1)
    return Order.of(wish.with_fields(fields), house), uploads[0].data


def picture_response(painted: Painted) -> Response:
    """The answer that is a painting."""
    headers = {"Cache-Control": "no-store"}
    return Response(painted.data, headers=headers, media_type=f"image/{painted.format}")
