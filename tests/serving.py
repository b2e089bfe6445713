"""A server to test: in this process, or as ``impasto serve`` in another one."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from starlette.testclient import TestClient

from impasto.inference.server import Settings, create_app

GREY = 100
INVERTED = 255 - GREY


def encoded(format: str = "PNG", size: tuple[int, int] = (24, 20), grey: int = GREY, **options: Any) -> bytes:
    """A file with a picture of one grey level."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (grey, grey, grey)).save(buffer, format, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@contextmanager
def client(*packs: Path, headers: dict[str, str] | None = None, **settings: Any) -> Iterator[TestClient]:
    """A client of a server in this process; by default it does not look at the folders of its packs again."""
    chosen = Settings(packs=tuple(map(str, packs)), **({"threads": 1, "reload_seconds": 0} | settings))
    with TestClient(create_app(chosen), base_url="http://localhost", headers=headers) as one:
        yield one


class Process:
    """``impasto serve`` on a free port of this machine."""

    def __init__(self, *arguments: object, env: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "impasto", "serve", "--port", "0", "--threads", "1", *map(str, arguments)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | (env or {})
        self.log = tempfile.TemporaryFile("a+")  # noqa: SIM115
        self.process = subprocess.Popen(command, stderr=self.log, env=environment)
        wait_until(lambda: " is at http://" in self.text() or self.process.poll() is not None, seconds=30)
        if self.process.poll() is not None:
            text = self.text()
            self.log.close()
            raise RuntimeError(text)
        self.port = int(self.text().split("127.0.0.1:")[1].split("/")[0])
        self.url = f"http://127.0.0.1:{self.port}"

    def text(self) -> str:
        """What it has written to standard error."""
        self.log.seek(0)
        return self.log.read()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def stop(self, seconds: float = 10) -> tuple[int, str]:
        """Send SIGTERM; the exit code, and what it has written to standard error."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds), self.text()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()


def post(process: Process, path: str, body: bytes, kind: str = "image/png", length: int | None = None) -> bytes:
    """The bytes of a request, its header truthful unless a ``length`` is given."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{process.port}\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ")[1])


def wait_until(condition: Any, seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def slow_graph() -> bytes:
    """As the tiny pack's graph with both styles ``invert``, in a time that is in proportion to the picture's pixels."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["before", "before"], ["after"]),
        ],
        "step",
        [
            value("step", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("before", TensorProto.FLOAT, [1]),
        ],
        [value("go_on", TensorProto.BOOL, []), value("after", TensorProto.FLOAT, [1])],
    )
    nodes = [
        helper.make_node("Shape", ["image"], ["sides"], start=1, end=3),
        helper.make_node("ReduceProd", ["sides"], ["pixels"], keepdims=0),
        helper.make_node("Loop", ["pixels", "", "nothing"], ["still_nothing"], body=body),
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["style", "axis"], ["one"], keepdims=0),
        helper.make_node("Mul", ["strength", "one"], ["s"]),
        helper.make_node("Reshape", ["s", "column"], ["amount"]),
        helper.make_node("Sub", ["max", "x"], ["inverted"]),
        helper.make_node("Sub", ["inverted", "x"], ["change"]),
        helper.make_node("Mul", ["amount", "change"], ["scaled"]),
        helper.make_node("Add", ["x", "scaled"], ["changed"]),
        helper.make_node("Add", ["changed", "still_nothing"], ["y"]),
        helper.make_node("Cast", ["y"], ["painted"], to=TensorProto.UINT8),
    ]
    constants = {"nothing": np.zeros(1, np.float32), "max": np.float32(255)}
    constants |= {"axis": np.array([1]), "column": np.array([-1, 1, 1, 1])}
    graph = helper.make_graph(
        nodes,
        "slow",
        [
            value("image", TensorProto.UINT8, ["N", "H", "W", 3]),
            value("style", TensorProto.FLOAT, ["N", 2]),
            value("strength", TensorProto.FLOAT, ["N"]),
        ],
        [value("painted", TensorProto.UINT8, ["N", "H", "W", 3])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data
