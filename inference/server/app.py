"""The application: any ASGI server runs it, `impasto serve` with uvicorn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware import Middleware
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

from impasto.errors import WrongCall
from impasto.inference.server import batch, docs, pages, protocol, stylize
from impasto.inference.server.admission import Admission
from impasto.inference.server.house import House, ThisHouse
from impasto.inference.server.metrics import Metrics
from impasto.inference.server.openapi import problem_responses
from impasto.inference.server.painting import wrong_parameter
from impasto.inference.server.problems import Problem
from impasto.inference.server.settings import Settings
from impasto.inference.server.shelf import Shelf
from impasto.inference.server.visits import Reception, Visit
from impasto.inference.server.workers import Workers

LOG = logging.getLogger("impasto.server")


def create_app(settings: Settings | None = None) -> FastAPI:
    """The server as an ASGI application; its packs are opened before this returns.

    Args:
        settings: what to serve, and the limits; None for the defaults.

    Raises:
        WrongCall, PackError: as `impasto.inference.server.shelf.Shelf`.
    """
    settings = settings or Settings()
    metrics = Metrics()
    shelf = Shelf(settings.packs, settings.provider, settings.threads, metrics)
    workers = Workers(settings.workers, settings.paint_seconds)
    house = House(settings, shelf, workers, metrics)
    metrics.watch("impasto_queue_depth", "Pictures that wait for a thread.", lambda: workers.waiting)
    metrics.watch("impasto_working", "Pictures on a thread.", lambda: workers.working)
    metrics.watch("impasto_packs", "Packs in service.", lambda: len(shelf))
    app = FastAPI(
        title="impasto",
        version=version("impasto"),
        summary="Photos painted in the style of a painting.",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        middleware=_middleware(house),
        exception_handlers={
            Problem: _problem,
            WrongCall: _wrong_call,
            HTTPException: _http_exception,
            RequestValidationError: _invalid,
            ClientDisconnect: _left,
        },
        responses=problem_responses(),
    )
    app.state.house = house
    for router in (stylize.router, batch.router, protocol.router, docs.router):
        app.include_router(router)
    app.get("/healthz", tags=["watch"])(healthz)
    app.get("/readyz", tags=["watch"], responses=problem_responses(503))(readyz)
    app.get("/metrics", tags=["watch"], response_class=Response)(metrics_page)
    pages.add_pages(app)
    return app


def _middleware(house: House) -> list[Middleware]:
    """Outermost first."""
    settings = house.settings
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", "X-API-Key"],
        expose_headers=["Retry-After", "Server-Timing", "X-Request-Id", "ETag"],
    )
    admission = Middleware(Admission, house)
    reception = Middleware(Reception, house.metrics)
    return [reception, cors, admission] if settings.origins else [reception, admission]


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    house: House = app.state.house
    seconds = house.settings.reload_seconds
    watching = asyncio.create_task(house.shelf.watch(seconds)) if seconds else None
    try:
        yield
    finally:
        if watching is not None:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        house.workers.close()


async def healthz() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "alive"}


async def readyz(house: ThisHouse) -> dict[str, str]:
    """Whether it can paint; 503 if not."""
    house.check_ready()
    return {"status": "ready"}


async def metrics_page(house: ThisHouse) -> Response:
    """The metrics, for Prometheus."""
    return Response(house.metrics.text(), media_type=CONTENT_TYPE_LATEST)


async def _problem(request: Request, problem: Problem) -> Response:
    Visit.of(request.scope).reason = problem.reason
    return problem.response(request.url.path)


async def _wrong_call(request: Request, error: WrongCall) -> Response:
    return await _problem(request, Problem("wrong-parameter", str(error)))


async def _http_exception(request: Request, error: HTTPException) -> Response:
    return await _problem(request, Problem.of_status(error.status_code, str(error.detail), error.headers))


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    return await _problem(request, wrong_parameter(error.errors()[0]))


async def _left(request: Request, error: ClientDisconnect) -> Response:
    return await _problem(request, Problem("client-left", "the client has left"))
