"""Many pictures: side by side, killed, out of disk, resumed, and never two runs in one folder."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import bad_files
from PIL import Image

from impasto import cli
from impasto.errors import ImpastoError, PictureError, WrongCall
from impasto.inference import Stylizer, files, locks, painter, places, stylize_files
from impasto.inference.locks import LOCK, locked
from impasto.inference.manifest import MANIFEST

COUNT = 8


def write_photos(folder: Path, count: int = COUNT, side: int = 20) -> Path:
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (side, side + index, 3), dtype=np.uint8)
        path = folder / ("deep" if index % 2 else "") / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight pictures of noise, each of another size; the work folder is a new one beside them."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return write_photos(tmp_path / "photos")


def rows_in(folder: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(folder) / MANIFEST).read_text().splitlines()]


def pictures_in(folder: str | Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*.png")}


def stray_files(folder: str | Path) -> set[str]:
    return {path.name for path in Path(folder).rglob("*") if path.is_file() and path.suffix != ".png"} - {MANIFEST}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def one_line(result: Result, exit_code: int) -> str:
    assert result.exit_code == exit_code, result.output
    (line,) = result.stderr.splitlines()
    return line


def spied(monkeypatch: pytest.MonkeyPatch, before: Callable[[Stylizer, Any], None]) -> None:
    """Call something before each painting."""
    paint = Stylizer.paint

    def spy(self: Stylizer, images: Any, *arguments: Any, **options: Any) -> Any:
        before(self, images)
        return paint(self, images, *arguments, **options)

    monkeypatch.setattr(Stylizer, "paint", spy)


# ---- side by side


def test_as_many_as_there_are_threads_are_painted_side_by_side(
    photos: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(2, timeout=20)
    spied(monkeypatch, lambda *_: together.wait() and None)  # breaks unless two are in it at once
    assert len(stylize_files(photos, "out", style="red", threads=2).done) == COUNT


def test_no_more_pictures_than_promised_are_on_their_way(
    photos: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard, now, most = threading.Lock(), {"jobs": 0, "painted": 0}, {"jobs": 0, "painted": 0}

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            with guard:
                now[name] += 1
                most[name] = max(most[name], now[name])
            time.sleep(0.01)
            try:
                return function(*arguments, **options)
            finally:
                with guard:
                    now[name] -= 1

        return call

    monkeypatch.setattr(painter.Painter, "run", counted("jobs", painter.Painter.run))
    monkeypatch.setattr(Stylizer, "stylize_picture", counted("painted", Stylizer.stylize_picture))
    stylize_files(photos, "out", style="red", threads=3)
    assert most["painted"] <= 3 and 3 <= most["jobs"] <= 3 + files.WAITING


def test_large_pictures_are_painted_in_turn_by_all_threads(
    photos: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(painter, "LARGE", 20 * 23)
    at_work = threading.Lock()
    used: dict[int, set[int]] = {}

    def note(self: Stylizer, images: Any) -> None:
        width = images.shape[2]
        threads = self._session.get_session_options().intra_op_num_threads
        used.setdefault(threads, set()).add(width)
        if width > 23:
            assert at_work.acquire(blocking=False), "two large pictures at once"
            time.sleep(0.01)
            at_work.release()

    spied(monkeypatch, note)
    assert len(stylize_files(photos, "out", style="red", threads=2).done) == COUNT
    assert used == {1: {20, 21, 22, 23}, 2: {24, 25, 26, 27}}


def test_a_picture_alone_has_all_threads(photos: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    spied(monkeypatch, lambda self, _: used.append(self._session.get_session_options().intra_op_num_threads))
    stylize_files(photos / "00.png", "out.png", style="red", threads=2)
    assert used == [2]


def test_outputs_do_not_depend_on_threads_or_order(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the pack that ships: its sums would show another order of adding."""
    for threads in (1, 2, 5):
        stylize_files(photos, f"out{threads}", style="starry_night", threads=threads)
    stylize_files(sorted(photos.rglob("*.png"), reverse=True), "reversed", style="starry_night", threads=2)
    first = pictures_in("out1")
    assert len(first) == COUNT
    for other in ("out2", "out5", "reversed"):
        assert pictures_in(other) == first
    monkeypatch.setattr(painter, "LARGE", 0)
    stylize_files(photos, "large", style="starry_night", threads=2)
    assert pictures_in("large") == first


def test_a_defect_of_the_program_ends_one_picture_not_the_run(
    photos: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strange(self: Stylizer, images: Any) -> None:
        if images.shape[2] == 22:
            raise KeyError("something nobody thought of")

    spied(monkeypatch, strange)
    report = stylize_files(photos, "out", style="red")
    (row,) = report.failed
    assert row.source.endswith("02.png") and "cannot be painted: KeyError" in str(row.error)
    assert len(report.done) == COUNT - 1


# ---- sources


def test_a_list_names_a_file_a_line(photos: Path, tiny: Path) -> None:
    lines = ["# some of them", str(photos / "00.png"), "", f"{photos}/deep/01.png\r", str(photos / "not there.png")]
    Path("list.txt").write_bytes("\n".join([f"\ufeff{lines[0]}", *lines[1:], (photos / "02.png").as_uri()]).encode())
    report = stylize_files("@list.txt", "out", style="red")
    assert sorted(pictures_in("out")) == ["00.png", "02.png", "deep/01.png"]
    (row,) = report.failed
    assert row.error == f"{photos}/not there.png: cannot be read: No such file or directory"
    assert [entry["error"] for entry in rows_in("out") if entry["output"] == "not there.png"] == [row.error]


def test_a_list_on_standard_input(photos: Path, tiny: Path) -> None:
    result = CliRunner().invoke(cli.main, ["stylize", "@-", "-s", "red", "-o", "out"], input=f"{photos}/00.png\n")
    assert result.exit_code == 0, result.stderr
    assert list(pictures_in("out")) == ["00.png"]


def test_a_list_that_is_none(photos: Path, tiny: Path) -> None:
    Path("empty.txt").write_text("# nothing\n")
    assert "the list cannot be read" in one_line(run("stylize", "@nothing.txt", "-s", "red", "-o", "out"), 1)
    assert "no picture there" in one_line(run("stylize", "@empty.txt", "-s", "red", "-o", "out"), 1)
    assert "not a list" in one_line(run("stylize", f"@{photos}/00.png", "-s", "red", "-o", "out"), 2)
    Path("root.txt").write_text("/\n")
    assert "expected the name of a file" in one_line(run("stylize", "@root.txt", "-s", "red", "-o", "out"), 2)


def test_a_file_that_begins_with_the_sign_of_a_list_is_a_file(photos: Path, tiny: Path) -> None:
    Path("@a.png").write_bytes((photos / "00.png").read_bytes())
    stylize_files("@a.png", "out/", style="red")
    assert list(pictures_in("out")) == ["@a.png"]


def test_a_file_too_large_to_be_a_picture_is_not_read(
    photos: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (photos / "hole.png").open("wb") as file:
        file.truncate(painter.MAX_BYTES + 1)
    (row,) = stylize_files(photos, "out", style="red").failed
    assert "hole.png: cannot be read: the file has 14" in str(row.error)


# ---- the manifest tells the truth


def test_a_row_says_what_was_read_and_written(photos: Path, tiny: Path) -> None:
    report = stylize_files(photos, "out", style="red:1,invert:3", strength=0.5)
    assert report.manifest == "out/manifest.jsonl"
    rows = {row["output"]: row for row in rows_in("out")}
    assert len(rows) == COUNT
    for output, row in rows.items():
        assert row["source"] == str(photos / output)
        for place, name in ((photos / output, "source_sha256"), (Path("out", output), "output_sha256")):
            assert row[name] == hashlib.sha256(place.read_bytes()).hexdigest()
        with Image.open(f"out/{output}") as image:
            assert (row["width"], row["height"]) == image.size
        assert all(row[f"{stage}_ms"] > 0 for stage in ("read", "decode", "network", "encode", "write"))
        assert (row["format"], row["error"], row["provider"]) == ("png", None, "cpu")
        assert (row["pack"], row["style"], row["strength"]) == ("tiny", "invert:0.75,red:0.25", 0.5)
        assert row["pack_sha256"] == hashlib.sha256((tiny / "paint.onnx").read_bytes()).hexdigest()


def test_bad_files_are_named_and_the_rest_done(photos: Path, tiny: Path) -> None:
    bad = bad_files()
    for name, (data, _) in bad.items():
        (photos / name).write_bytes(data)
    result = run("stylize", photos, "-s", "red", "-o", "out", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert (report["done"], report["failed"]) == (COUNT, len(bad))
    rows = rows_in("out")
    assert {Path(row["source"]).name for row in rows if row["error"]} == set(bad)
    assert all(row["output_sha256"] is None and row["source_sha256"] for row in rows if row["error"])
    assert len(pictures_in("out")) == COUNT
    again = json.loads(run("stylize", photos, "-s", "red", "-o", "out", "--json", "--resume").stdout)
    assert (again["done"], again["skipped"], again["failed"]) == (COUNT, COUNT, len(bad))
    assert len(rows_in("out")) == len(rows)


def test_a_name_that_cannot_be_written_ends_one_picture_not_the_run(photos: Path, tiny: Path) -> None:
    Path("out/deep").mkdir(parents=True)
    Path("out/deep/01.png").mkdir()
    (row,) = stylize_files(photos, "out", style="red").failed
    assert row.error == "out/deep/01.png: cannot be written: Is a directory"


def test_resume_skips_by_content_alone(photos: Path, tiny: Path) -> None:
    first = stylize_files(photos, "out", style="red")
    before = pictures_in("out")
    times = {name: os.stat(f"out/{name}").st_mtime_ns for name in before}
    manifest = Path("out", MANIFEST).read_bytes()
    for path in photos.rglob("*.png"):
        path.touch()
    second = stylize_files(photos, "out", style="red", resume=True)
    assert [row.output for row in second.skipped] == [row.output for row in first.rows]
    assert {name: os.stat(f"out/{name}").st_mtime_ns for name in before} == times
    assert Path("out", MANIFEST).read_bytes() == manifest
    assert [row.output_sha256 for row in second.rows] == [row.output_sha256 for row in first.rows]


def test_resume_does_again_what_is_not_the_same(photos: Path, tiny: Path) -> None:
    stylize_files(photos, "out", style="red")
    Image.new("RGB", (20, 20)).save(photos / "00.png")  # another source
    Path("out/02.png").write_bytes(b"damaged")
    Path("out/04.png").unlink()
    report = stylize_files(photos, "out", style="red", resume=True)
    done = {Path(row.output).name for row in report.rows if not row.skipped}
    assert done == {"00.png", "02.png", "04.png"}
    assert len(rows_in("out")) == COUNT
    undisturbed = stylize_files(photos, "fresh", style="red")
    assert pictures_in("out") == pictures_in("fresh")
    assert len(undisturbed.skipped) == 0


@pytest.mark.parametrize("change", [{"style": "invert"}, {"strength": 0.5}, {"style": "red:0.9,invert:0.1"}])
def test_resume_with_other_settings_does_all_again(photos: Path, tiny: Path, change: dict[str, Any]) -> None:
    stylize_files(photos, "out", style="red")
    assert stylize_files(photos, "out", **{"style": "red", "resume": True} | change).skipped == ()
    assert len(rows_in("out")) == COUNT, "one row a file"


def test_resume_with_another_network_of_that_name_does_all_again(photos: Path, tiny: Path) -> None:
    stylize_files(photos, "out", style="red")
    data = (tiny / "paint.onnx").read_bytes() + b"\x7a\x01x"  # producer_name, a field that changes nothing
    card = json.loads((tiny / "card.json").read_text())
    card["files"]["paint.onnx"] = hashlib.sha256(data).hexdigest()
    (tiny / "paint.onnx").write_bytes(data)
    (tiny / "card.json").write_text(json.dumps(card))
    assert stylize_files(photos, "out", style="red", resume=True).skipped == ()


def test_without_resume_all_is_done_again_and_other_rows_stay(photos: Path, tiny: Path) -> None:
    stylize_files(photos, "out", style="red")
    report = stylize_files(photos / "00.png", "out", style="invert")
    assert report.skipped == ()
    rows = {row["output"]: row["style"] for row in rows_in("out")}
    assert len(rows) == COUNT and rows["00.png"] == "invert:1" and rows["02.png"] == "red:1"


def test_a_folder_that_was_moved_is_resumed(photos: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stylize_files(photos, "out", style="red")
    Path("out").rename("elsewhere")
    photos.rename(photos.with_name("renamed"))
    report = stylize_files(photos.with_name("renamed"), "elsewhere", style="red", resume=True)
    assert len(report.skipped) == COUNT


def test_only_a_folder_can_be_resumed(photos: Path, tiny: Path) -> None:
    for output in (["-o", "out.png"], [], ["-o", "-"]):
        assert "only a folder" in one_line(run("stylize", photos / "00.png", "-s", "red", "--resume", *output), 2)
    assert list(Path().iterdir()) == []


# ---- killed, interrupted, out of disk


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from impasto.cli import main
from impasto.inference import Stylizer
paint = Stylizer.paint
def slow(*arguments, **options):
    time.sleep(0.05)
    return paint(*arguments, **options)
Stylizer.paint = slow
main(sys.argv[1:])
"""


def started(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SLOW, *map(str, arguments)], stderr=subprocess.PIPE, text=True)


def wait_for_rows(process: subprocess.Popen[str], count: int) -> None:
    manifest = Path("out", MANIFEST)
    while process.poll() is None and (not manifest.exists() or manifest.read_bytes().count(b"\n") < count):
        time.sleep(0.005)
    assert process.poll() is None, "it was over before it could be stopped"


def test_killed_twice_and_resumed_is_as_if_it_had_not_been(photos: Path, tiny: Path) -> None:
    write_photos(photos, 24)
    command = ("stylize", photos, "--pack", tiny, "-s", "red:1,invert:1", "-o", "out", "--threads", "2", "--resume")
    for count in (4, 12):
        process = started(*command)
        wait_for_rows(process, count)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        done = {row["output"]: row["output_sha256"] for row in rows_in("out")}
        for output, sha256 in done.items():
            assert hashlib.sha256(Path("out", output).read_bytes()).hexdigest() == sha256
        for data in pictures_in("out").values():
            assert data.endswith(b"IEND\xaeB`\x82"), "whole or not at all"
    Path("out/.0123456789abcdef.part").write_bytes(b"what a kill may leave")
    report = stylize_files(photos, "out", style="red:1,invert:1", resume=True)
    assert len(report.skipped) >= 12
    stylize_files(photos, "undisturbed", style="red:1,invert:1")
    assert pictures_in("out") == pictures_in("undisturbed")
    assert stray_files("out") == set()
    rows, expected = ({row["output"]: row for row in rows_in(folder)} for folder in ("out", "undisturbed"))
    assert len(rows_in("out")) == 24 and rows.keys() == expected.keys()
    for key, row in rows.items():
        assert (row["output_sha256"], row["error"]) == (expected[key]["output_sha256"], None)


def test_an_interruption_says_how_far_it_came(photos: Path, tiny: Path) -> None:
    write_photos(photos, 40)
    process = started("stylize", photos, "--pack", tiny, "-s", "red", "-o", "out", "--threads", "2")
    wait_for_rows(process, 4)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    count = len(rows_in("out"))
    assert errors == f"Error: interrupted: {count} of 40 pictures are done; --resume goes on\n"
    assert 4 <= count < 40 and len(pictures_in("out")) == count and stray_files("out") == set()


def test_a_disk_that_fills_up_stops_the_run_with_what_is_done_recorded(
    photos: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, guard, room = places.write_atomically, threading.Lock(), iter(range(3))

    def full(path: Any, data: bytes) -> None:
        with guard:
            if next(room, None) is None and str(path).endswith(".png"):
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, data)

    monkeypatch.setattr(places, "write_atomically", full)
    line = one_line(run("stylize", photos, "-s", "red", "-o", "out"), 1)
    assert line.endswith("No space left on device (3 of 8 pictures are done; --resume goes on)")
    assert line.startswith("Error: out/")
    assert {row["output"] for row in rows_in("out")} == set(pictures_in("out"))
    assert len(rows_in("out")) == 3 and stray_files("out") == set()
    monkeypatch.setattr(places, "write_atomically", write)
    report = stylize_files(photos, "out", style="red", resume=True)
    assert (len(report.skipped), len(report.done)) == (3, COUNT)


def test_a_manifest_that_finds_no_room_keeps_whole_lines(photos: Path, tiny: Path) -> None:
    pytest.importorskip("resource", reason="limits on file sizes are set in this way only on Unix")
    code = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500))\n{SLOW}"
    command = [sys.executable, "-c", code, "stylize", photos, "--pack", tiny, "-s", "red", "-o", "out"]
    result = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: out/manifest.jsonl: ") and "--resume goes on" in line
    data = Path("out", MANIFEST).read_bytes()
    assert data.endswith(b"\n") and 2 <= len(rows_in("out")) < COUNT
    assert len(stylize_files(photos, "out", style="red", resume=True).skipped) == len(data.splitlines())
    assert len(rows_in("out")) == COUNT


DEADLY = """
import os, signal, sys
if "-c" in sys.orig_argv or "impasto.inference.apart" in sys.orig_argv:  # no other program that starts here
    from impasto.inference import Stylizer
    paint = Stylizer.paint
    def deadly(self, images, *arguments, **options):
        if images.shape[2] == 22:
            os.kill(os.getpid(), signal.SIGKILL)
        return paint(self, images, *arguments, **options)
    Stylizer.paint = deadly
"""


def test_a_picture_that_kills_the_process_is_named_by_the_next_run(
    photos: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(DEADLY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    died = started("stylize", photos, "--pack", tiny, "-s", "red", "-o", "out", "--threads", "2")
    died.communicate()
    assert died.returncode == -signal.SIGKILL
    assert "02.png" in json.loads(Path("out", LOCK).read_text())["begun"]
    error = f"{photos}/02.png: cannot be painted: the process that tries is killed"
    for _ in range(2):  # known from the lock, then from the manifest
        (row,) = stylize_files(photos, "out", style="red", resume=True).failed
        assert row.error == error
        assert {row["output"]: row["error"] for row in rows_in("out") if row["error"]} == {"02.png": error}
        assert len(pictures_in("out")) == COUNT - 1 and stray_files("out") == set()
    monkeypatch.delenv("PYTHONPATH")
    report = stylize_files(photos, "out", style="red", resume=True)
    assert (len(report.skipped), len(report.done)) == (COUNT - 1, COUNT)
    stylize_files(photos, "undisturbed", style="red")
    assert pictures_in("out") == pictures_in("undisturbed")


def test_what_is_painted_apart_keeps_to_the_rules(photos: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos / "04.png").write_bytes(b"")
    Path("out").mkdir()
    holder = {"process": 1, "machine": "x", "time": 0, "begun": ["00.png", "02.png", "04.png", "gone.png"]}
    Path("out", LOCK).write_text(json.dumps(holder))
    used: list[str] = []
    run = painter.Painter.run
    monkeypatch.setattr(
        painter.Painter,
        "run",
        lambda self, job, *rest, **named: used.append(job.output) or run(self, job, *rest, **named),
    )
    report = stylize_files(photos, "out", style="red")
    assert not {"out/00.png", "out/02.png", "out/04.png"} & set(used) and len(used) == COUNT - 3
    (row,) = report.failed
    assert row.error == f"{photos}/04.png: the file is empty; expected a picture"
    assert len(report.done) == COUNT - 1 and len(pictures_in("out")) == COUNT - 1 and stray_files("out") == set()
    stylize_files(photos, "undisturbed", style="red")
    assert pictures_in("out") == pictures_in("undisturbed")


# ---- one run at a time


def test_a_second_run_into_the_folder_is_refused_politely(photos: Path, tiny: Path) -> None:
    process = started("stylize", photos, "--pack", tiny, "-s", "red", "-o", "out", "--threads", "1")
    wait_for_rows(process, 1)
    line = one_line(run("stylize", photos, "-s", "red", "-o", "out"), 1)
    assert line.startswith(f"Error: another run paints into out/ (process {process.pid} of ")
    assert line.endswith("wait for it, or choose another folder")
    process.communicate()
    assert process.returncode == 0
    assert len(rows_in("out")) == COUNT and stray_files("out") == set()


def test_two_threads_of_a_program_do_not_clash_either(photos: Path, tiny: Path) -> None:
    with locked("out") as lock, pytest.raises(ImpastoError, match="another run paints into out"):
        assert not lock.left
        stylize_files(photos, "out", style="red")
    assert os.listdir("out") == []
    assert len(stylize_files(photos, "out", style="red").done) == COUNT


def test_the_lock_of_a_dead_run_is_taken_over(photos: Path, tiny: Path) -> None:
    Path("out").mkdir()
    Path("out", LOCK).write_text(json.dumps({"process": os.getpid(), "machine": "x", "time": time.time()}))
    with locked("out") as lock:
        assert lock.left
        assert json.loads(Path("out", LOCK).read_text())["run"] == locks._PROCESS
    assert os.listdir("out") == []


class Watched:
    """A file whose text is looked at after each call: what a kill at that moment would leave."""

    def __init__(self, file: Any, seen: list[str]) -> None:
        self.file, self.seen = file, seen

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            try:
                return getattr(self.file, name)(*arguments)
            finally:
                self.seen.append(Path("out", LOCK).read_text())

        return call


def test_at_no_moment_is_the_lock_without_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[str] = []
    with locked("out") as lock, monkeypatch.context() as watching:
        watching.setattr(lock, "_file", Watched(lock._file, seen))
        for names in (["a.png"], ["a much longer name.png", "a.png"]):
            with ExitStack() as stack:
                for name in names:
                    stack.enter_context(lock.noted(name))
                assert json.loads(Path("out", LOCK).read_text())["begun"] == names
            assert json.loads(Path("out", LOCK).read_text())["begun"] == []
    assert len(seen) > 6 and all(json.loads(text)["run"] == locks._PROCESS for text in seen)
    assert not Path("out", LOCK).exists()


def test_a_folder_that_takes_no_files_is_one_line(photos: Path, tiny: Path) -> None:
    Path("file").write_text("")
    assert "file" in one_line(run("stylize", photos, "-s", "red", "-o", "file/out"), 1)


def test_errors_of_a_single_picture_are_raised(photos: Path, tiny: Path) -> None:
    (photos / "bad.png").write_bytes(b"")
    with pytest.raises(PictureError, match=r"bad\.png: the file is empty"):
        stylize_files(photos / "bad.png", "out/", style="red")
    assert [row["error"] for row in rows_in("out")] == [f"{photos}/bad.png: the file is empty; expected a picture"]
    with pytest.raises(WrongCall, match="strength from 0 to 1"):
        stylize_files(photos, "out", style="red", strength=2)
