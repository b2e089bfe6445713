"""Requests that schemathesis makes up from the OpenAPI description: no defect, and no answer that is not described."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import write_pack
from hypothesis import HealthCheck, given, settings
from serving import client

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.checks import (
        content_type_conformance,
        not_a_server_error,
        response_headers_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


OPERATIONS = [
    *("GET /v1/styles", "GET /v1/packs/{pack}/paint.onnx", "POST /v1/stylize", "POST /v1/batch"),
    *("GET /v2", "GET /v2/health/live", "GET /v2/health/ready", "GET /healthz", "GET /readyz", "GET /metrics"),
    *(f"GET /v2/models/{{name}}{version}{ready}" for version in ("", "/versions/{number}") for ready in ("", "/ready")),
    *(f"POST /v2/models/{{name}}{version}/infer" for version in ("", "/versions/{number}")),
]


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with client(write_pack(tmp_path_factory.mktemp("served")), hosts=("*",)) as one:
        schema = schemathesis.openapi.from_asgi("/openapi.json", one.app)
        found = [result.ok() for result in schema.get_all_operations()]
        yield {f"{operation.method.upper()} {operation.path}": operation for operation in found}


def test_every_operation_is_tried(operations: dict[str, Any]) -> None:
    assert sorted(operations) == sorted(OPERATIONS)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        *((GenerationMode.POSITIVE, name) for name in OPERATIONS),
        *((GenerationMode.NEGATIVE, name) for name in OPERATIONS if name.startswith("POST ")),
    ],
)
def test_made_up_requests(operations: dict[str, Any], mode: GenerationMode, name: str) -> None:
    @settings(max_examples=5, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operations[name].as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    check()
