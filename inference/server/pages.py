"""What a browser asks for: the page, the runtime it computes with, and the description of the API."""

from __future__ import annotations

import html
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from impasto.inference.server import runtime
from impasto.inference.server.problems import Problem

PAGE = Path(__file__).parents[1] / "page"

_TYPES = {
    ".mjs": "text/javascript",
    ".js": "text/javascript",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
}
"""Media types that the system's table may lack, and without which a browser refuses the file."""

router = APIRouter(include_in_schema=False)


@router.api_route("/ort/{name}", methods=["GET", "HEAD"])
async def ort(name: str, request: Request) -> Response:
    """A file of the browser's runtime."""
    folder = runtime.runtime_folder()
    if name not in runtime.FILES:
        raise Problem("not-found", f"/ort has: {', '.join(runtime.FILES)}")
    if folder is None:
        raise Problem("not-found", "the browser's runtime is not installed; run: impasto serve --install-runtime")
    return await Files(directory=folder).get_response(name, request.scope)


class Files(StaticFiles):
    """Files of a folder, with media types that do not depend on the system."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """One file."""
        response = await super().get_response(path, scope)
        media_type = _TYPES.get(Path(path).suffix)
        if media_type is not None and response.status_code == 200:
            response.headers["Content-Type"] = media_type
        response.headers["Cache-Control"] = "no-cache"
        return response


def add_pages(app: FastAPI) -> None:
    """Add the runtime, and the page's files at every path that nothing else has."""
    app.include_router(router)
    if (PAGE / "index.html").is_file():
        app.router.default = Files(directory=PAGE, html=True)
    else:
        app.get("/", include_in_schema=False)(plain_page)


async def plain_page() -> HTMLResponse:
    """What stands at ``/`` where the page is not installed."""
    links = {"/docs": "How to call it", "/v1/styles": "Styles", "/healthz": "Health", "/metrics": "Metrics"}
    items = "".join(f'<li><a href="{link}">{html.escape(text)}</a></li>' for link, text in links.items())
    return HTMLResponse(f"<!doctype html><html lang=en><title>impasto</title><h1>impasto</h1><ul>{items}</ul>")
