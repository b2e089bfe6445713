"""A tiny style pack whose painting is known by hand, and files that are wrong in known ways.

The pack's graph: painted = round(image + strength * (target - image)), where the target is the mixture of
``invert`` (255 - image) and ``red`` (255, 0, 0).
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from impasto.packs import PAINT, Card, Style, save_card, sha256_of

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is there: for small networks more threads are slower

MakePack = Callable[..., Path]


@pytest.fixture
def one_thread_one_seed() -> Iterator[None]:
    """For tests of small networks: more threads cost more than they bring, and every run draws the same."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def paint_graph() -> onnx.ModelProto:
    def constant(name: str, value: object, dtype: type = np.float32) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(value, dtype), name)

    constants = [
        constant("max", 255.0),
        constant("zero", 0.0),
        constant("red", [255.0, 0.0, 0.0]),
        constant("column", [-1, 1, 1, 1], np.int64),
        constant("from0", [0], np.int64),
        constant("from1", [1], np.int64),
        constant("to2", [2], np.int64),
        constant("axis", [1], np.int64),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Slice", ["style", "from0", "from1", "axis"], ["w0"]),
        helper.make_node("Slice", ["style", "from1", "to2", "axis"], ["w1"]),
        helper.make_node("Reshape", ["w0", "column"], ["invert_weight"]),
        helper.make_node("Reshape", ["w1", "column"], ["red_weight"]),
        helper.make_node("Reshape", ["strength", "column"], ["s"]),
        helper.make_node("Sub", ["max", "x"], ["inverted"]),
        helper.make_node("Mul", ["invert_weight", "inverted"], ["part0"]),
        helper.make_node("Mul", ["red_weight", "red"], ["part1"]),
        helper.make_node("Add", ["part0", "part1"], ["target"]),
        helper.make_node("Sub", ["target", "x"], ["change"]),
        helper.make_node("Mul", ["s", "change"], ["scaled"]),
        helper.make_node("Add", ["x", "scaled"], ["y"]),
        helper.make_node("Round", ["y"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "zero", "max"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["painted"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "paint",
        [
            helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3]),
            helper.make_tensor_value_info("style", TensorProto.FLOAT, ["N", 2]),
            helper.make_tensor_value_info("strength", TensorProto.FLOAT, ["N"]),
        ],
        [helper.make_tensor_value_info("painted", TensorProto.UINT8, ["N", "H", "W", 3])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def other_graph() -> onnx.ModelProto:
    """A good ONNX file that is not a pack's paint."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in ("input", "output")]
    graph = helper.make_graph([helper.make_node("Relu", ["input"], ["output"])], "other", value[:1], value[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def write_pack(
    folder: Path, name: str = "tiny", styles: tuple[str, ...] = ("invert", "red"), model: bytes | None = None
) -> Path:
    path = folder / name
    path.mkdir(parents=True)
    (path / PAINT).write_bytes(paint_graph().SerializeToString() if model is None else model)
    card = Card(
        name=name,
        styles=tuple(Style(style, title=f"The {style}", painter="Nobody", year="1900") for style in styles),
        network={"name": "fast"},
        files={PAINT: sha256_of(path / PAINT)},
    )
    save_card(card, path)
    return path


@pytest.fixture
def make_pack(tmp_path: Path) -> MakePack:
    """Writes a pack into the test's own folder of packs."""

    def make(name: str = "tiny", **options: object) -> Path:
        return write_pack(tmp_path / "packs", name, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture
def no_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that IMPASTO_PACKS lists, empty; packs that are really installed are out of sight."""
    folder = tmp_path / "packs"
    folder.mkdir()
    monkeypatch.setenv("IMPASTO_PACKS", str(folder))
    monkeypatch.setattr("impasto.checkpoints.__path__", [])
    return folder


@pytest.fixture
def tiny(no_packs: Path, make_pack: MakePack) -> Path:
    """The tiny pack, the only one installed."""
    return make_pack()


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG from its parts: ``rows`` are the filter bytes and pixels, not yet compressed."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def claims_20000() -> bytes:
    """A PNG of under 1 kB whose header claims 20000 x 20000 pixels."""
    data = png(20000, 20000, 8, 2, b"\0" * 100)
    assert len(data) < 1000
    return data


def bad_files() -> dict[str, tuple[bytes, str]]:
    """Files that are not usable pictures: name -> contents, and what the error says."""
    from io import BytesIO

    from PIL import Image

    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    encoded = {}
    for format in ("JPEG", "PNG", "WEBP", "TIFF"):
        buffer = BytesIO()
        photo.save(buffer, format)
        encoded[format] = buffer.getvalue()
    return {
        "empty.jpg": (b"", "empty"),
        "text.png": (b"this is not a picture\n" * 10, "not a picture"),
        "truncated.jpg": (encoded["JPEG"][: len(encoded["JPEG"]) // 2], "cannot be decoded as jpeg"),
        "truncated.png": (encoded["PNG"][: len(encoded["PNG"]) // 2], "cannot be decoded as png"),
        "truncated.webp": (encoded["WEBP"][: len(encoded["WEBP"]) // 2], "cannot be decoded as webp"),
        "truncated.tif": (encoded["TIFF"][: len(encoded["TIFF"]) // 2], "cannot be decoded as tiff|not a picture"),
        "head.jpg": (encoded["JPEG"][:20], "cannot be decoded|not a picture"),
        "one.png": (png(1, 1, 8, 2, b"\0\1\2\3"), "1 x 1 pixels; expected at least 16 x 16"),
        "bomb.png": (claims_20000(), "20000 x 20000 pixels; expected at most"),
    }
