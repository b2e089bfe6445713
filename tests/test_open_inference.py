"""The Open Inference Protocol: the conformance test is Triton's own client; then what no client sends."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_pack
from serving import Process, client
from starlette.testclient import TestClient

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tritonclient.http as triton
    from tritonclient.utils import InferenceServerException

INFER = "/v2/models/tiny/infer"


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pack(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def server(pack: Path) -> Iterator[TestClient]:
    with client(pack, max_pixels=2000) as one:
        yield one


@pytest.fixture(scope="module")
def remote(pack: Path) -> Iterator[Any]:
    with Process("--pack", pack) as process, triton.InferenceServerClient(f"127.0.0.1:{process.port}") as one:
        yield one


def feeds() -> dict[str, np.ndarray]:
    images = np.full((3, 16, 20, 3), 40, np.uint8)
    styles = np.array([[1, 0], [0, 1], [0, 1]], np.float32)
    return {"image": images, "style": styles, "strength": np.array([1, 1, 0], np.float32)}


PAINTED = [(215, 215, 215), (255, 0, 0), (40, 40, 40)]


class TestTritonsClient:
    def test_health_and_metadata(self, remote: Any) -> None:
        assert remote.is_server_live() and remote.is_server_ready() and remote.is_model_ready("tiny")
        assert not remote.is_model_ready("nothing") and not remote.is_model_ready("tiny", "2")
        assert "binary_tensor_data" in remote.get_server_metadata()["extensions"]
        for version in ("", "1"):
            about = remote.get_model_metadata("tiny", version)
            assert (about["name"], about["versions"]) == ("tiny", ["1"])
            assert about["inputs"] == [
                {"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
                {"name": "style", "datatype": "FP32", "shape": [-1, 2]},
                {"name": "strength", "datatype": "FP32", "shape": [-1, 1]},
            ]
            assert about["outputs"] == [{"name": "painted", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]

    @pytest.mark.parametrize("binary_in", [True, False])
    @pytest.mark.parametrize("binary_out", [True, False, None])
    def test_infer(self, remote: Any, binary_in: bool, binary_out: bool | None) -> None:
        inputs = []
        for name, array in feeds().items():
            datatype = "UINT8" if array.dtype == np.uint8 else "FP32"
            inputs.append(triton.InferInput(name, list(array.shape), datatype))
            inputs[-1].set_data_from_numpy(array, binary_data=binary_in)
        outputs = None if binary_out is None else [triton.InferRequestedOutput("painted", binary_data=binary_out)]
        answer = remote.infer("tiny", inputs, request_id="seven", outputs=outputs)
        painted = answer.as_numpy("painted")
        assert painted.dtype == np.uint8 and painted.shape == (3, 16, 20, 3)
        np.testing.assert_array_equal(painted[:, 15, 19], PAINTED)
        about = answer.get_response()
        assert (about["id"], about["model_name"], about["model_version"]) == ("seven", "tiny", "1")

    def test_errors_arrive_as_errors(self, remote: Any) -> None:
        wrong = triton.InferInput("image", [1, 16, 16, 3], "UINT8")
        wrong.set_data_from_numpy(np.zeros((1, 16, 16, 3), np.uint8))
        with pytest.raises(InferenceServerException, match="missing: strength, style|missing: style, strength"):
            remote.infer("tiny", [wrong])
        with pytest.raises(InferenceServerException, match="unknown pack 'tinny'. Did you mean 'tiny'"):
            remote.infer("tinny", [wrong])


def test_the_example_of_the_docs() -> None:
    text = (Path(__file__).parents[1] / "docs/serve.md").read_text(encoding="utf-8")
    (example,) = (block for block in re.findall("```python\n(.*?)```", text, re.DOTALL) if "tritonclient" in block)
    names: dict[str, Any] = {}
    with Process("--pack", shipped_pack()) as process:
        exec(example.replace("localhost:8000", f"127.0.0.1:{process.port}"), names)
        names["client"].close()
    assert names["painted"].shape == (1, 64, 96, 3)


def shipped_pack() -> Path:
    return Path(__file__).parents[1] / "checkpoints/classics"


def question(**changes: Any) -> dict[str, Any]:
    """A good request as JSON, with some tensors changed or (None) left out."""
    tensors = {
        "image": {"name": "image", "datatype": "UINT8", "shape": [1, 16, 16, 3], "data": [40] * 768},
        "style": {"name": "style", "datatype": "FP32", "shape": [1, 2], "data": [[1, 0]]},
        "strength": {"name": "strength", "datatype": "FP32", "shape": [1], "data": [1.0]},
    }
    kept = {
        name: tensor | (changes.get(name) or {})
        for name, tensor in tensors.items()
        if changes.get(name, {}) is not None
    }
    return {"inputs": list(kept.values())}


def test_json_by_hand(server: TestClient) -> None:
    answer = server.post(INFER, json=question()).json()
    assert answer["outputs"] == [{"name": "painted", "datatype": "UINT8", "shape": [1, 16, 16, 3], "data": [215] * 768}]
    backwards = {"inputs": question()["inputs"][::-1]}
    assert server.post(INFER, json=backwards).json() == answer
    as_for_triton = question(strength={"shape": [1, 1], "data": [[1.0]]})
    assert server.post(INFER, json=as_for_triton).json() == answer


@pytest.mark.parametrize(
    ("change", "status", "expected"),
    [
        ({"style": None}, 400, "missing: style"),
        ({"image": {"name": "picture"}}, 422, "the input 'picture'"),
        ({"style": {"name": "image"}}, 422, "the input 'image'; expected each"),
        ({"image": {"datatype": "FP32"}}, 422, "expected UINT8"),
        ({"image": {"shape": [1, 16, 17, 3]}}, 400, "768 values"),
        ({"image": {"shape": [1, 16, 48]}}, 422, "expected [N, H, W, 3]"),
        ({"image": {"shape": [1, 16, 12, 4]}}, 422, "expected [N, H, W, 3]"),
        ({"image": {"shape": [0, 16, 16, 3], "data": []}}, 422, "expected [N, H, W, 3]"),
        ({"image": {"shape": [1, 16, -16, 3]}}, 400, "list of sizes"),
        ({"image": {"shape": "1"}}, 400, "list of sizes"),
        ({"image": {"shape": [True, 768]}}, 400, "list of sizes"),
        ({"image": {"shape": [2**31 - 1] * 4}}, 413, "expected at most 2000 pixels"),
        ({"image": {"shape": [1, 100, 21, 3]}}, 413, "expected at most 2000 pixels"),
        ({"image": {"shape": [1, 4, 64, 3]}}, 422, "at least 16 pixels a side"),
        ({"image": {"data": [256] * 768}}, 422, "from 256 to 256; expected 0 to 255"),
        ({"image": {"data": [-1] * 768}}, 422, "expected 0 to 255"),
        ({"image": {"data": [0.5] * 768}}, 400, "type float64"),
        ({"image": {"data": [1e400] * 768}}, 400, "JSON|float64"),
        ({"image": {"data": ["a"] * 768}}, 400, "expected numbers"),
        ({"image": {"data": [[1], [1, 2]]}}, 400, "not a tensor"),
        ({"image": {"data": [10**30] * 768}}, 400, "expected numbers"),
        ({"image": {"data": None}}, 400, "expected numbers"),
        ({"image": {"parameters": {"binary_data_size": 768}}}, 400, "768 bytes for the shape"),
        ({"image": {"parameters": {"binary_data_size": "768"}}}, 400, ""),
        ({"image": {"parameters": None}}, 400, "not a request"),
        ({"style": {"data": [1, 1]}}, 422, "rows with sum 1"),
        ({"style": {"shape": [2, 1]}}, 422, "style weights (1, 2)"),
        ({"strength": {"data": [2]}}, 422, "strengths from 0 to 1"),
    ],
)
def test_requests_that_are_wrong(server: TestClient, change: dict[str, Any], status: int, expected: str) -> None:
    body = json.dumps(question(**change))
    response = server.post(INFER, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status, response.text
    assert any(part in response.json()["error"] for part in expected.split("|"))


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"{}", None),
        (b"3", None),
        (b"\xff\xfe", None),
        (b'{"inputs": 3}', None),
        (b'{"inputs": [3]}', None),
        (b'{"inputs": [{}]}', None),
        (b'{"inputs": [{"name": []}]}', None),
        (b"[" * 100_000, None),
        (b"{}", "3"),
        (b"{}", "-1"),
        (b"{}", "x"),
        (b"{}", "9" * 40),
        (b'{"inputs": []}rest', "14"),
    ],
)
def test_bodies_that_are_no_request(server: TestClient, body: bytes, length: str | None) -> None:
    headers = {"Inference-Header-Content-Length": length} if length else {}
    response = server.post(INFER, content=body, headers=headers)
    assert response.status_code in (400, 422) and response.json()["error"]


def test_more_or_fewer_bytes_than_said(server: TestClient) -> None:
    tensor = {"shape": [1, 16, 16, 3], "parameters": {"binary_data_size": 768}}
    head = json.dumps(question(image=tensor)).encode()
    statuses = {}
    for count in (767, 768, 769):
        headers = {"Inference-Header-Content-Length": str(len(head))}
        statuses[count] = server.post(INFER, content=head + b"\x28" * count, headers=headers).status_code
    assert statuses == {767: 400, 768: 200, 769: 400}
    asked = question() | {"outputs": [{"name": "other"}]}
    assert server.post(INFER, json=asked).status_code == 422


def test_what_is_not_there(server: TestClient) -> None:
    for path in ("/v2/models/tinny", "/v2/models/tiny/versions/2", "/v2/models/tiny/versions/2/ready"):
        response = server.get(path)
        assert response.status_code == 404 and response.json()["error"]
    assert server.get("/v2/models/tiny/versions/1/ready").json() == {"name": "tiny", "ready": True}
