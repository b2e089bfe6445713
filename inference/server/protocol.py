"""``/v2``: the Open Inference Protocol, so that the clients of KServe and Triton can talk to this server.

A model is a pack, its inputs and its output those of ``paint.onnx``; ``strength`` may be ``(N, 1)`` or ``(N,)``,
because Triton knows no batch of scalars. There is one version of each model, "1".
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request, Response

from impasto.errors import WrongCall
from impasto.inference.server.bodies import read_bytes
from impasto.inference.server.house import House, ThisHouse
from impasto.inference.server.openapi import infer_body, problem_responses, work_responses
from impasto.inference.server.painting import paint
from impasto.inference.server.problems import Problem
from impasto.inference.server.shelf import Served
from impasto.inference.server.tensors import HEADER, OUTPUT, TYPES, read_question, write_answer
from impasto.inference.server.visits import Visit
from impasto.inference.server.workers import Run, while_there

VERSION = "1"

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])


@router.get("")
async def server_metadata() -> dict[str, Any]:
    """Name, version and extensions of the server."""
    return {"name": "impasto", "version": version("impasto"), "extensions": ["binary_tensor_data"]}


@router.get("/health/live")
async def live() -> dict[str, bool]:
    """Whether the process answers."""
    return {"live": True}


@router.get("/health/ready", responses=problem_responses(503))
async def ready(house: ThisHouse) -> dict[str, bool]:
    """Whether it can paint; 503 if not."""
    house.check_ready()
    return {"ready": True}


def _served(house: House, name: str, number: str) -> Served:
    if number != VERSION:
        raise Problem("not-found", f"version {number!r} of {name!r}; expected {VERSION!r}")
    try:
        return house.shelf.get(name)
    except WrongCall as error:
        raise Problem("not-found", str(error)) from error


@router.get("/models/{name}", responses=problem_responses(404, 422))
@router.get("/models/{name}/versions/{number}", responses=problem_responses(404, 422))
async def model_metadata(name: str, house: ThisHouse, number: str = VERSION) -> dict[str, Any]:
    """Inputs and output of a pack; -1 is any size."""
    styles = len(_served(house, name, number).stylizer.styles)
    shapes = {"image": [-1, -1, -1, 3], "style": [-1, styles], "strength": [-1, 1]}
    return {
        "name": name,
        "versions": [VERSION],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": key, "datatype": TYPES[key][0], "shape": shape} for key, shape in shapes.items()],
        "outputs": [{"name": OUTPUT, "datatype": "UINT8", "shape": shapes["image"]}],
    }


@router.get("/models/{name}/ready", responses=problem_responses(404, 422))
@router.get("/models/{name}/versions/{number}/ready", responses=problem_responses(404, 422))
async def model_ready(name: str, house: ThisHouse, number: str = VERSION) -> dict[str, Any]:
    """Whether a pack can paint."""
    return {"name": _served(house, name, number).name, "ready": True}


_INFER: dict[str, Any] = {
    "response_class": Response,
    "responses": work_responses({"application/json": {}, "application/octet-stream": {}}, "The painted pictures.", 404),
    "openapi_extra": {"requestBody": infer_body()},
}


@router.post("/models/{name}/infer", **_INFER)
@router.post("/models/{name}/versions/{number}/infer", **_INFER)
async def infer(name: str, request: Request, house: ThisHouse, number: str = VERSION) -> Response:
    """Paint a batch of pictures of one size: tensors in, a tensor out, as JSON or binary."""
    served = _served(house, name, number)
    body = await read_bytes(request)
    length, visit = request.headers.get(HEADER), Visit.of(request.scope)

    def work(run: Run) -> tuple[bytes, int | None, int]:
        with visit.stage("decode"):
            question = read_question(body, length, house.settings.max_pixels)
        run.check()
        with visit.stage("paint"):
            painted = paint(served, question.images, question.styles, question.strengths, run)
        run.check()
        with visit.stage("encode"):
            return *write_answer(name, VERSION, question, painted), painted.size // 3

    answer, head, pixels = await while_there(request, house.workers.run(work, visit))
    house.note_painted(served, pixels, visit)
    if head is None:
        return Response(answer, media_type="application/json")
    return Response(answer, headers={HEADER: str(head)}, media_type="application/octet-stream")
