"""``/docs``: the API's description as one page without a script, and with nothing from another host."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from impasto.inference.server.house import House, ThisHouse
from impasto.inference.server.problems import REASONS

router = APIRouter(include_in_schema=False)

EXAMPLES = {
    "get /v1/styles": "curl {url}/v1/styles",
    "get /v1/packs/{pack}/paint.onnx": "curl {url}/v1/packs/{pack}/paint.onnx -o paint.onnx",
    "post /v1/stylize": (
        "curl -H 'Content-Type: image/jpeg' --data-binary @photo.jpg '{url}/v1/stylize?style={style}&strength=0.8' "
        "-o painted.jpg\n"
        "curl -F picture=@photo.jpg -F style={style} -F format=webp {url}/v1/stylize -o painted.webp"
    ),
    "post /v1/batch": "curl -N -F picture=@photo.jpg -F picture=@photo.jpg -F style={style} {url}/v1/batch",
    "get /healthz": "curl {url}/healthz",
    "get /readyz": "curl {url}/readyz",
    "get /metrics": "curl {url}/metrics",
    "get /v2": "curl {url}/v2",
    "get /v2/models/{name}": "curl {url}/v2/models/{pack}",
}
"""What stands on the page below an operation; the names of the server, a pack and a style are filled in."""

STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
pre { background: var(--soft); padding: .75rem; overflow-x: auto; border-radius: .4rem; }
section, form { border-top: 1px solid var(--line); padding-block: .5rem; }
table { border-collapse: collapse; width: 100%; } td { vertical-align: top; padding: .3rem .6rem .3rem 0; }
tr { border-bottom: 1px solid var(--line); } h2 code { font-size: 1.1rem; } label { margin-right: 1rem; }
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"


@router.get("/docs")
async def docs(request: Request, house: ThisHouse) -> HTMLResponse:
    """The page."""
    names = example_names(str(request.base_url).rstrip("/"), house)
    description = request.app.openapi()
    operations = "".join(
        _operation(method, path, operation, names)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    )
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>impasto: the API</title><style>{STYLE}</style>"
        f"<h1>impasto {escape(description['info']['version'])}: the API</h1>"
        f"<p>{escape(description['info']['summary'])} The same for programs: <a href=/openapi.json>OpenAPI</a>. "
        f"<a href=/>The page</a> paints without it.</p>{_form(house)}{operations}{_problems()}</html>"
    )
    return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})


def example_names(url: str, house: House) -> dict[str, str]:
    """What the names in `EXAMPLES` stand for on this server."""
    served = next(iter(house.shelf.packs.values()), None)
    pack, style = (served.name, served.stylizer.styles[0]) if served else ("PACK", "STYLE")
    return {"url": url, "pack": pack, "style": f"{pack}/{style}"}


def example(key: str, names: dict[str, str]) -> str:
    """The example of an operation (``"get /v1/styles"``), one command a line; empty if it has none."""
    text = EXAMPLES.get(key, "")
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _operation(method: str, path: str, operation: dict[str, Any], names: dict[str, str]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(parameter['name'])}</code><td>{escape(parameter['in'])}"
        f"<td>{escape(parameter.get('description', ''))}"
        for parameter in operation.get("parameters", [])
    )
    bodies = ", ".join(operation.get("requestBody", {}).get("content", {}))
    shown = example(f"{method} {path}", names)
    return (
        f"<section><h2><code>{method.upper()} {escape(path)}</code></h2>"
        f"<p>{escape(operation.get('description', ''))}</p>"
        + (f"<p>Body: {escape(bodies)}</p>" if bodies else "")
        + (f"<table>{rows}</table>" if rows else "")
        + (f"<pre>{escape(shown)}</pre>" if shown else "")
        + f"<p>Answers: {', '.join(operation['responses'])}</p></section>"
    )


def _form(house: House) -> str:
    styles = "".join(
        f"<option>{escape(f'{served.name}/{style}')}"
        for served in house.shelf.packs.values()
        for style in served.stylizer.styles
    )
    return (
        "<form action=/v1/stylize method=post enctype=multipart/form-data><h2>Try it</h2>"
        "<label>Photo <input type=file name=picture accept=image/jpeg,image/png,image/webp required></label>"
        f"<label>Style <select name=style>{styles}</select></label>"
        "<label>Strength <input type=number name=strength min=0 max=1 step=any value=1></label>"
        "<label>Format <select name=format><option>jpeg<option>png<option>webp</select></label>"
        "<button>Paint</button></form>"
    )


def _problems() -> str:
    rows = "".join(
        f"<tr id={reason}><td>{status}<td><code>{reason}</code><td>{escape(advice)}"
        for reason, (status, advice) in REASONS.items()
    )
    text = "The body is then JSON: <code>reason</code>, <code>detail</code>, and <code>advice</code>:"
    return f"<section><h2>When a request is not answered</h2><p>{text}</p><table>{rows}</table></section>"
