"""What is installed is what stands in the tree."""

import importlib
import multiprocessing
import shutil
import subprocess
import sys
import tomllib
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS: dict[str, str] = PYPROJECT["tool"]["setuptools"]["package-dir"]
ROOMS = ("losses", "training", "visualization", "inference", "checkpoints", "benchmarks")


def package_of(folder: Path) -> str:
    parts = folder.relative_to(ROOT).parts
    return ".".join(parts[1:] if parts[0] == "src" else ("impasto", *parts))


def files_of(folder: Path) -> list[Path]:
    """Every file of a room, but for caches."""
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted(path for path in found if not path.name.startswith("."))


def test_every_package_of_the_tree_is_listed():
    places = [ROOT / "src/impasto", *(ROOT / room for room in ROOMS)]
    in_tree = {package_of(path.parent) for place in places for path in place.rglob("__init__.py")}
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == in_tree


def test_every_room_stands_where_its_name_says():
    for package, folder in FOLDERS.items():
        assert package_of(ROOT / folder) == package
        assert (ROOT / folder / "__init__.py").is_file()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> set[str]:
    """Names of the files in a wheel of the tree, built without a network."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, tree)
    for name in [*FOLDERS.values(), "tests"]:
        shutil.copytree(
            ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", ".*"), dirs_exist_ok=True
        )
    command = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-build-isolation", "--no-deps", "--no-index"]
    finished = subprocess.run([*command, "-w", out, tree], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    with zipfile.ZipFile(next(out.glob("impasto-*.whl"))) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def test_the_wheel_holds_every_file_of_the_rooms_and_nothing_else(wheel):
    in_tree = {
        str(PurePosixPath(*package.split("."), *path.relative_to(ROOT / folder).parts))
        for package, folder in FOLDERS.items()
        for path in files_of(ROOT / folder)
    }
    assert {name for name in wheel if ".dist-info/" not in name} == in_tree


def test_the_wheel_carries_type_mark_and_licences(wheel):
    assert "impasto/py.typed" in wheel
    assert {PurePosixPath(name).name for name in wheel if "/licenses/" in name} == {"LICENSE", "NOTICE"}


def test_a_process_started_afresh_imports_the_losses():
    pytest.importorskip("torch")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(_file_of, "impasto.losses").result() == _file_of("impasto.losses")


def _file_of(name: str) -> str | None:
    return importlib.import_module(name).__file__
