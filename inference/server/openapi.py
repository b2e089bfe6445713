"""What the OpenAPI description says beyond what FastAPI reads from the signatures."""

from __future__ import annotations

from typing import Any

from impasto.inference.server.bodies import FORM
from impasto.inference.server.painting import FORMATS, Wish
from impasto.inference.server.problems import REASONS

Entry = dict[str, Any]
Responses = dict[int | str, Entry]

_FILE: Entry = {"type": "string", "format": "binary"}
PICTURES: Entry = {f"image/{format}": {"schema": _FILE} for format in FORMATS}

_ALWAYS = (421,)
_WORK = (400, 401, 403, 408, 413, 415, 422, 429, 503, 504)

PROBLEM: Entry = {
    "type": "object",
    "required": ["type", "title", "status", "reason", "detail", "advice"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "reason": {"type": "string", "enum": list(REASONS)},
        "detail": {"type": "string"},
        "advice": {"type": "string"},
    },
}

EVENT: Entry = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string", "enum": ["progress", "picture", "failed", "end"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}


def problem_responses(*statuses: int) -> Responses:
    """The answers of a route to what it does not do."""
    return {status: _response(status) for status in sorted({*_ALWAYS, *statuses})}


def work_responses(content: Entry, description: str, *statuses: int) -> Responses:
    """The answers of a route that paints: what it gives, and all it may refuse."""
    given: Responses = {200: {"content": content, "description": description}}
    return given | problem_responses(*_WORK, *statuses)


def _response(status: int) -> Entry:
    advice = "; ".join(f"{reason}: {text}" for reason, (code, text) in REASONS.items() if code == status)
    headers: Entry = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds to wait."}}
    entry = {"description": advice, "content": {"application/problem+json": {"schema": PROBLEM}}}
    return entry | ({"headers": headers} if status in (429, 503) else {})


def picture_body() -> Entry:
    """The body of a request for one picture."""
    return {"required": True, "content": PICTURES | {FORM: _form(_FILE)}}


def batch_body() -> Entry:
    """The body of a request for several."""
    return {"required": True, "content": {FORM: _form({"type": "array", "items": _FILE, "minItems": 1})}}


def infer_body() -> Entry:
    """The body of a request of the Open Inference Protocol."""
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string", "enum": ["image", "style", "strength"]},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "datatype": {"type": "string", "enum": ["UINT8", "FP32"]},
            "data": {"type": "array", "items": {}},
            "parameters": {"type": "object"},
        },
    }
    schema = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "items": tensor, "minItems": 3, "maxItems": 3},
            "outputs": {"type": "array", "items": {"type": "object"}},
            "parameters": {"type": "object"},
        },
    }
    return {
        "required": True,
        "content": {"application/json": {"schema": schema}, "application/octet-stream": {"schema": _FILE}},
    }


def _form(picture: Entry) -> Entry:
    fields = Wish.model_json_schema()["properties"]
    schema = {
        "type": "object",
        "properties": {"picture": picture} | fields,
        "required": ["picture"],
        "additionalProperties": False,
    }
    return {"schema": schema, "encoding": {"picture": {"contentType": ", ".join(PICTURES)}}}
