"""Painting through Ray: what the local engine paints, by workers that may die."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import bad_files
from test_batches import COUNT, pictures_in, rows_in, stray_files, write_photos

from impasto import cli
from impasto.errors import ImpastoError, MissingExtra, PackError, WrongCall
from impasto.inference import Row, files, ray_engine, stylize_files
from impasto.inference.manifest import KILLS
from impasto.inference.painter import Painter
from impasto.inference.ray_engine import _shares
from impasto.inference.sources import Job


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Ray on this machine, started once: each of the tests finds it connected."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'impasto[scale]'")
    before = dict(os.environ)
    os.environ.pop("RAY_ADDRESS", None)
    ray = ray_engine._imported()
    ray_engine._connect(ray, 2)
    yield ray
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return write_photos(tmp_path / "photos")


def truth(folder: str) -> dict[str, dict[str, Any]]:
    """The rows by output, without times."""
    return {
        row["output"]: {key: value for key, value in row.items() if not key.endswith("_ms")} for row in rows_in(folder)
    }


def stylize(photos: Path, output: str, tiny: Path, **options: Any) -> Any:
    return stylize_files(photos, output, pack=tiny, style="red:1,invert:3", **{"engine": "ray", **options})


def test_all_is_as_the_local_engine_leaves_it(cluster: Any, photos: Path, tiny: Path) -> None:
    bad = bad_files()
    for name, (data, _) in bad.items():
        (photos / name).write_bytes(data)
    seen: list[tuple[int, int]] = []
    report = stylize(photos, "ray", tiny, progress=lambda *numbers: seen.append(numbers))
    local = stylize(photos, "local", tiny, engine="local")
    assert pictures_in("ray") == pictures_in("local") and len(pictures_in("ray")) == COUNT
    assert truth("ray") == truth("local") and stray_files("ray") == set()
    assert [row.source for row in report.rows] == [row.source for row in local.rows]
    assert [row.output for row in report.rows] == [row.output.replace("local", "ray", 1) for row in local.rows]
    assert (report.provider, report.style, report.manifest) == ("cpu", local.style, "ray/manifest.jsonl")
    assert seen == [(number, COUNT + len(bad)) for number in range(COUNT + len(bad) + 1)]
    for engine in ("ray", "local"):
        again = stylize(photos, "ray", tiny, engine=engine, resume=True)
        assert (len(again.skipped), len(again.failed)) == (COUNT, len(bad))


def test_the_command_reports_as_it_does_locally(cluster: Any, photos: Path, tiny: Path) -> None:
    arguments = ["stylize", str(photos), "--pack", str(tiny), "-s", "red", "-o", "out", "--json"]
    result = CliRunner().invoke(cli.main, [*arguments, "--engine", "ray"])
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["done"], report["failed"], report["provider"]) == (COUNT, 0, "cpu")
    assert result.stderr.startswith(f"{COUNT} pictures in ") and result.stderr.count("\n") == 1


def test_a_worker_that_is_killed_loses_nothing(
    cluster: Any, photos: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The death comes in the middle of a write, once."""
    killed = tmp_path / "killed"

    class Mortal(Painter):
        def run(self, job: Job, earlier: Row | None = None, *, alone: bool = False) -> Row:
            if job.source.endswith("02.png") and not killed.exists():
                killed.touch()
                Path(job.output).parent.mkdir(exist_ok=True)
                Path(job.output).with_name(".0123456789abcdef.part").write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
            return super().run(job, earlier, alone=alone)

    monkeypatch.setattr(files, "Painter", Mortal)
    report = stylize(photos, "out", tiny)
    assert killed.exists() and (len(report.done), len(report.failed)) == (COUNT, 0)
    assert stray_files("out") == set()
    stylize(photos, "local", tiny, engine="local")
    assert pictures_in("out") == pictures_in("local") and truth("out") == truth("local")


def test_a_picture_that_kills_its_worker_is_named_and_the_rest_done(
    cluster: Any, photos: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mortal(Painter):
        def run(self, job: Job, earlier: Row | None = None, *, alone: bool = False) -> Row:
            if job.source.endswith("05.png"):
                os.kill(os.getpid(), signal.SIGKILL)
            return super().run(job, earlier, alone=alone)

    monkeypatch.setattr(files, "Painter", Mortal)
    report = stylize(photos, "out", tiny)
    (row,) = report.failed
    assert row.error == f"{photos}/deep/05.png: {KILLS}"
    assert len(pictures_in("out")) == COUNT - 1
    assert [output for output, row in truth("out").items() if row["error"]] == ["deep/05.png"]
    monkeypatch.undo()
    monkeypatch.chdir(photos.parent / "work")
    cured = stylize(photos, "out", tiny, resume=True)
    assert (len(cured.skipped), len(cured.done)) == (COUNT - 1, COUNT)


def test_a_full_disk_stops_the_run_with_what_is_done_recorded(
    cluster: Any, photos: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(Painter):
        def run(self, job: Job, earlier: Row | None = None, *, alone: bool = False) -> Row:
            if job.output.endswith("06.png"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), job.output)
            return super().run(job, earlier, alone=alone)

    monkeypatch.setattr(files, "Painter", Full)
    with pytest.raises(OSError, match=r"No space left on device \(\d of 8 pictures are done; --resume goes on\)"):
        stylize(photos, "out", tiny)
    assert truth("out").keys() == pictures_in("out").keys() and "06.png" not in truth("out")


def test_other_packs_or_providers_on_the_machines_are_refused(
    cluster: Any, photos: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = os.getpid()

    class Other(Painter):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            if os.getpid() != here:
                self.settings = replace(self.settings, pack_sha256="0" * 64)

    with pytest.raises(WrongCall, match="'directml' is not in this installation"):
        stylize(photos, "out", tiny, provider="directml")
    monkeypatch.setattr(files, "Painter", Other)
    with pytest.raises(PackError, match="machines of the Ray cluster have other packs named tiny"):
        stylize(photos, "out", tiny)
    assert rows_in("out") == []


def test_what_other_machines_paint_has_to_be_seen_from_here(
    cluster: Any, photos: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Elsewhere(Painter):
        def run(self, job: Job, earlier: Row | None = None, *, alone: bool = False) -> Row:
            return Row(job.source, job.output, "png")

    monkeypatch.setattr(files, "Painter", Elsewhere)
    with pytest.raises(ImpastoError, match="painted, but not to be seen from here; all machines have to share it"):
        stylize(photos, "out", tiny)
    assert rows_in("out") == []


# ---- without a cluster


def test_places_of_one_process_and_unknown_engines_are_refused(photos: Path, tiny: Path) -> None:
    with pytest.raises(WrongCall, match="--engine ray: - is not to be seen by other processes"):
        stylize_files("-", "out.png", pack=tiny, style="red", engine="ray")
    with pytest.raises(WrongCall, match="memory:.* is not to be seen"):
        stylize(photos, "memory://out", tiny)
    with pytest.raises(WrongCall, match="unknown engine 'rai'. Did you mean 'ray'"):
        stylize(photos, "out", tiny, engine="rai")


def test_without_ray_the_extra_is_named(photos: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"--engine ray needs the package 'ray': pip install 'impasto\[scale\]'"):
        stylize(photos, "out", tiny)
    assert not Path("out").exists()


def node(name: str, cpus: float, gpus: float = 0, alive: bool = True) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "Resources": {"CPU": cpus, "memory": 1e9} | ({"GPU": gpus} if gpus else {})}


@pytest.mark.parametrize(
    ("provider", "threads", "expected"),
    [
        ("auto", None, [("b", 4, 1), ("b", 4, 1)]),
        ("cuda", 3, [("b", 3, 1), ("b", 3, 1)]),
        ("cpu", None, [("a", 4, 0), ("b", 8, 0)]),
        ("openvino", 6, [("a", 4, 0), ("b", 6, 0)]),
    ],
)
def test_a_worker_a_gpu_or_else_a_machine(provider: str, threads: int | None, expected: list[tuple[Any, ...]]) -> None:
    nodes = [node("a", 4), node("b", 8, 2), node("gone", 8, 2, alive=False), node("head", 0)]
    shares = _shares(nodes, provider, threads)
    assert [(worker.node, worker.threads, worker.gpus) for worker in shares] == expected


def test_without_gpus_all_machines_work() -> None:
    shares = _shares([node("a", 4), node("b", 16)], "auto", None)
    assert [(worker.node, worker.threads, worker.gpus) for worker in shares] == [("a", 4, 0), ("b", 16, 0)]
