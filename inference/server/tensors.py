"""Requests and answers of the Open Inference Protocol: JSON, and the binary tensor extension.

Source: the KServe "Open Inference Protocol" (v2), HTTP/REST, with Triton's extension ``binary_tensor_data``: the JSON
comes first, its length in the header ``Inference-Header-Content-Length``; then the tensors that state a
``binary_data_size``, little-endian, in the order of the JSON.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from impasto.images import MIN_SIDE
from impasto.inference.server.problems import Problem

HEADER = "Inference-Header-Content-Length"
TYPES: dict[str, tuple[str, type[np.generic]]] = {
    "image": ("UINT8", np.uint8),
    "style": ("FP32", np.float32),
    "strength": ("FP32", np.float32),
}
"""The inputs of every pack's ``paint.onnx``."""

OUTPUT = "painted"


@dataclass(frozen=True)
class Question:
    """What a client asks for: the inputs of `impasto.Stylizer.paint`, binary or not, and its own id."""

    images: npt.NDArray[np.uint8]
    styles: npt.NDArray[np.float32]
    strengths: npt.NDArray[np.float32]
    binary: bool
    id: str | None


def read_question(body: bytes, header_length: str | None, max_pixels: int) -> Question:
    """The request in a body.

    Args:
        body: JSON, and perhaps tensors behind it.
        header_length: length of the JSON in bytes, as the header says it; None if there is only JSON.
        max_pixels: of all pictures together.

    Raises:
        Problem: anything that is not such a request.
    """
    length = _length(body, header_length)
    try:
        asked = json.loads(body[:length])
    except (ValueError, RecursionError) as error:
        raise Problem("malformed", f"the request is not JSON: {error}") from error
    try:
        return _question(asked, memoryview(body)[length:], max_pixels)
    except (KeyError, TypeError, AttributeError) as error:
        raise Problem("malformed", f"not a request of the Open Inference Protocol: {error!r}") from error


def _length(body: bytes, header_length: str | None) -> int:
    if header_length is None:
        return len(body)
    if not (header_length.isascii() and header_length.isdigit() and int(header_length[:18]) <= len(body)):
        raise Problem("malformed", f"{HEADER} is {header_length[:20]!r}; expected at most the body's {len(body)} bytes")
    return int(header_length)


def _question(asked: dict[str, Any], rest: memoryview, max_pixels: int) -> Question:
    inputs: dict[str, npt.NDArray[Any]] = {}
    for tensor in asked["inputs"]:
        name = tensor["name"]
        if name not in TYPES or name in inputs:
            raise Problem("wrong-parameter", f"the input {str(name)[:100]!r}; expected each of {', '.join(TYPES)} once")
        shape = _shape(tensor["shape"])
        if math.prod(shape) > max_pixels * 3:
            raise Problem("too-many-pixels", f"{name}: the shape {shape}; expected at most {max_pixels} pixels in all")
        if name == "image" and not _is_pictures(shape):
            expected = f"expected [N, H, W, 3], at least {MIN_SIDE} pixels a side"
            raise Problem("wrong-parameter", f"image: the shape {list(shape)[:8]}; {expected}")
        datatype, dtype = TYPES[name]
        if tensor["datatype"] != datatype:
            raise Problem("wrong-parameter", f"{name}: the type {str(tensor['datatype'])[:20]!r}; expected {datatype}")
        if name == "strength" and shape[1:] == (1,):
            shape = shape[:1]
        size = tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            inputs[name] = _from_json(name, tensor, shape, dtype)
            continue
        if size != math.prod(shape) * np.dtype(dtype).itemsize or size > len(rest):
            raise Problem("malformed", f"{name}: {size} bytes for the shape {shape}, {len(rest)} bytes left")
        inputs[name] = np.frombuffer(rest[:size], np.dtype(dtype).newbyteorder("<")).reshape(shape)
        rest = rest[size:]
    if len(inputs) < len(TYPES) or len(rest):
        missing = ", ".join(TYPES.keys() - inputs.keys()) or "nothing"
        raise Problem("malformed", f"missing: {missing}; {len(rest)} bytes too many")
    return Question(inputs["image"], inputs["style"], inputs["strength"], _binary(asked), asked.get("id"))


def _shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, list) or not all(type(side) is int and 0 <= side < 2**31 for side in shape):
        raise Problem("malformed", f"the shape {str(shape)[:100]}; expected a list of sizes")
    return tuple(shape)


def _is_pictures(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[0] > 0 and min(shape[1:3]) >= MIN_SIDE and shape[3] == 3


def _from_json(name: str, tensor: dict[str, Any], shape: tuple[int, ...], dtype: type[np.generic]) -> npt.NDArray[Any]:
    """The tensor in ``data``: a list of numbers, nested or flat."""
    if "data" not in tensor:
        raise Problem("malformed", f"{name}: neither data nor binary_data_size; shared memory is not served")
    try:
        values = np.array(tensor["data"])
    except (ValueError, OverflowError, RecursionError) as error:
        raise Problem("malformed", f"{name}: data that is not a tensor: {error}") from error
    whole = dtype is np.uint8
    if values.dtype.kind not in ("iu" if whole else "iuf") or values.size != math.prod(shape):
        raise Problem("malformed", f"{name}: {values.size} values of type {values.dtype}; expected numbers for {shape}")
    if whole and values.size and not 0 <= values.min() <= values.max() <= 255:
        raise Problem("wrong-parameter", f"{name}: values from {values.min()} to {values.max()}; expected 0 to 255")
    return values.astype(dtype).reshape(shape)


def _binary(asked: dict[str, Any]) -> bool:
    binary = asked.get("parameters", {}).get("binary_data_output", False)
    for output in asked.get("outputs", []):
        if output["name"] != OUTPUT:
            raise Problem("wrong-parameter", f"the output {str(output['name'])[:100]!r}; expected {OUTPUT}")
        binary = output.get("parameters", {}).get("binary_data", binary)
    return bool(binary)


def write_answer(
    name: str, version: str, question: Question, painted: npt.NDArray[np.uint8]
) -> tuple[bytes, int | None]:
    """The body of the answer, and the length of its JSON if tensors follow."""
    output: dict[str, Any] = {"name": OUTPUT, "datatype": "UINT8", "shape": list(painted.shape)}
    answer: dict[str, Any] = {"model_name": name, "model_version": version, "outputs": [output]}
    if question.id is not None:
        answer["id"] = question.id
    if not question.binary:
        output["data"] = painted.ravel().tolist()
        return json.dumps(answer).encode(), None
    output["parameters"] = {"binary_data_size": painted.size}
    head = json.dumps(answer).encode()
    return head + painted.tobytes(), len(head)
