"""Pictures from and to addresses: fsspec's memory, and a server of S3 on loopback."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from impasto import cli
from impasto.errors import ImpastoError, WrongCall
from impasto.inference import files, locks, manifest, places, stylize_files
from impasto.inference.manifest import MANIFEST

fsspec_registry: dict[str, Any] = pytest.importorskip("fsspec.registry")._registry
fsspec = pytest.importorskip("fsspec", reason="addresses need the extra scale")
NAMES = ("a.png", "deep/b.png", "deep/er/c.png")


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 24), (grey, grey, grey)).save(buffer, "PNG")
    return buffer.getvalue()


def red(data: bytes) -> bool:
    return bool((np.asarray(Image.open(io.BytesIO(data))) == (255, 0, 0)).all())


def one_line(result: Result, exit_code: int) -> str:
    assert result.exit_code == exit_code, result.output
    (line,) = result.stderr.splitlines()
    return line


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def rows_at(address: str) -> dict[str, dict[str, Any]]:
    lines = places.read(f"{address}/{MANIFEST}").splitlines()
    return {row["output"]: row for row in map(json.loads, lines)}


@pytest.fixture
def memory() -> Iterator[Any]:
    """The file system in memory, with three pictures below /in and a note."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    for index, name in enumerate(NAMES):
        files.pipe_file(f"/in/{name}", png(index))
    files.pipe_file("/in/notes.txt", b"not a picture")
    yield files
    files.store.clear()


def painted(files: Any, folder: str) -> list[str]:
    return sorted(name.removeprefix(f"{folder}/") for name in files.find(folder) if name.endswith(".png"))


# ---- places


def test_paths_and_addresses(tmp_path: Path, memory: Any) -> None:
    assert places.place("a b.png") == "a b.png"
    assert places.place((tmp_path / "a b#.png").as_uri()) == str(tmp_path / "a b#.png")
    assert places.place("file://localhost/a.png") == "/a.png"
    assert places.place("memory://in") == "memory:///in"
    assert places.place("memory://in/") == "memory:///in/"
    assert [places.kind(f"memory:///in{end}") for end in ("", "/a.png", "/x.png")] == ["folder", "file", None]
    with pytest.raises(WrongCall, match="names the machine 'other'"):
        places.place("file://other/a.png")
    with pytest.raises(WrongCall, match=r"nosuch://a: Protocol not known: nosuch; expected a path"):
        places.place("nosuch://a")


def test_ways_between_addresses() -> None:
    assert places.common_parent({"s3://one/a/b", "s3://one/a/c/d"}) == "s3://one/a"
    assert places.common_parent({"s3://one/a", "s3://two/a"}) == "s3://"
    assert places.relative("s3://one/a/x.png", "s3://") == "one/a/x.png"
    assert places.relative("s3://one/a/x.png", "s3://one/a") == "x.png"
    assert places.join("s3://one/", "a", "b.png") == "s3://one/a/b.png"
    assert places.inside("s3://one/a/x.png", "s3://one/a") and not places.inside("s3://one/ab.png", "s3://one/a")
    with pytest.raises(WrongCall, match="sources of one run are of one kind; got gs:// and local files"):
        places.common_parent({"/a", "gs://a"})


def test_a_file_is_not_read_beyond_its_limit(memory: Any, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    memory.pipe_file("/five", b"12345")
    for name in (str(tmp_path / "a"), "memory:///five"):
        assert places.read(name, 5) == b"12345"
        with pytest.raises(OSError, match="the file has 5 bytes; expected at most 4") as caught:
            places.read(name, 4)
        assert caught.value.filename == name


# ---- memory://


def test_from_memory_to_memory(memory: Any, tiny: Path) -> None:
    report = stylize_files("memory://in", "memory://out", style="red")
    assert painted(memory, "/out") == list(NAMES)
    assert all(red(memory.cat_file(f"/out/{name}")) for name in NAMES)
    assert report.manifest == "memory:///out/manifest.jsonl"
    rows = rows_at("memory:///out")
    assert rows["deep/b.png"]["source"] == "memory:///in/deep/b.png"
    assert sorted(memory.find("/out")) == [f"/out/{name}" for name in (*NAMES, MANIFEST)], "no lock is left"
    again = stylize_files("memory://in/", "memory://out/", style="red", resume=True)
    assert len(again.skipped) == 3


def test_from_memory_to_a_folder_and_back(memory: Any, tiny: Path, tmp_path: Path) -> None:
    stylize_files("memory://in", tmp_path / "out", style="red")
    assert red((tmp_path / "out/deep/er/c.png").read_bytes())
    (tmp_path / "one.png").write_bytes(png(3))
    stylize_files(tmp_path / "one.png", "memory://back/", style="red")
    stylize_files(tmp_path / "one.png", "memory://single.png", style="red")
    assert painted(memory, "/back") == ["one.png"]
    assert red(memory.cat_file("/single.png")) and not memory.exists("/manifest.jsonl")


def test_patterns_lists_and_single_files(memory: Any, tiny: Path, tmp_path: Path) -> None:
    stylize_files("memory://in/**/*.png", "memory://glob", style="red")
    assert painted(memory, "/glob") == list(NAMES)
    memory.pipe_file("/list.txt", b"memory://in/a.png\nmemory://in/deep/b.png\nmemory://in/nothing.png\n")
    report = stylize_files("@memory://list.txt", "memory://list", style="red")
    assert painted(memory, "/list") == ["a.png", "deep/b.png"]
    (row,) = report.failed
    assert row.error == "memory:///in/nothing.png: cannot be read: No such file or directory"
    assert "no such file" in one_line(run("stylize", "memory://in/nothing.png", "-s", "red", "-o", "memory://x/"), 1)
    assert "no picture there" in one_line(run("stylize", "memory://in/*.jpg", "-s", "red", "-o", "memory://x/"), 1)
    mixed = run("stylize", "memory://in/a.png", tmp_path, "-s", "red", "-o", "memory://x/")
    assert "no picture there" in one_line(mixed, 1)


def test_a_source_is_not_written_over(memory: Any, tiny: Path) -> None:
    line = one_line(run("stylize", "memory://in", "-s", "red", "-o", "memory://in"), 2)
    assert "memory:///in/a.png is itself a source" in line
    for _ in range(2):
        stylize_files("memory://in", "memory://in/out", style="red")
    assert painted(memory, "/in/out") == list(NAMES), "pictures of an earlier run are no sources"


def test_a_place_that_takes_no_more_stops_the_run(memory: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = type(memory).pipe_file

    def refuse(self: Any, path: str, value: bytes, **options: Any) -> None:
        if path.endswith("c.png"):
            raise PermissionError("Access Denied")
        real(self, path, value, **options)

    monkeypatch.setattr(type(memory), "pipe_file", refuse)
    line = one_line(run("stylize", "memory://in", "-s", "red", "-o", "memory://out"), 1)
    assert line == ("Error: memory:///out/deep/er/c.png: Access Denied (2 of 3 pictures are done; --resume goes on)")
    assert set(rows_at("memory:///out")) == {"a.png", "deep/b.png"}
    assert not memory.exists("/out/manifest.lock")


@pytest.mark.parametrize(
    ("holder", "taken"),
    [
        ({"machine": "elsewhere", "process": 1, "time": 0, "run": "x"}, False),
        ({"machine": "elsewhere", "process": 1, "time": -locks.STALE - 1, "run": "x"}, True),
        ({"process": os.getpid(), "time": 0, "run": locks._PROCESS}, False),
        ({"process": os.getpid(), "time": 0, "run": "an earlier process of this number"}, True),
        ({"process": "DEAD", "time": 0, "run": "x"}, True),
        ({"process": os.getppid(), "time": 0, "run": "x"}, False),
    ],
)
def test_a_lock_at_an_address(memory: Any, tiny: Path, holder: dict[str, Any], taken: bool) -> None:
    fields = {"machine": locks.socket.gethostname()} | holder | {"time": time.time() + holder["time"]}
    if fields["process"] == "DEAD":
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        fields["process"] = process.pid
    memory.pipe_file("/out/manifest.lock", json.dumps(fields).encode())
    if taken:
        assert len(stylize_files("memory://in", "memory://out", style="red").done) == 3
        assert not memory.exists("/out/manifest.lock")
    else:
        with pytest.raises(ImpastoError, match=r"another run paints into memory:///out/ \(process \d+ of "):
            stylize_files("memory://in", "memory://out", style="red")
        assert json.loads(memory.cat_file("/out/manifest.lock")) == fields


def test_a_manifest_at_an_address_is_written_on_the_way(
    memory: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "PUT_EVERY", 0.0)
    monkeypatch.setattr(manifest.time, "monotonic", lambda: 0.0)  # it takes no time
    seen = []
    write = places.write

    def note(name: str, data: bytes, **options: Any) -> None:
        if name.endswith(".png"):
            seen.append(len(rows_at("memory:///out")) if memory.exists("/out/manifest.jsonl") else 0)
        write(name, data, **options)

    monkeypatch.setattr(places, "write", note)
    monkeypatch.setattr(files, "WAITING_REMOTE", 0)
    stylize_files("memory://in", "memory://out", style="red", threads=1)
    assert seen == [0, 1, 2]


def test_a_lock_is_renewed_while_the_run_goes_on(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with locks.locked("memory:///out") as lock:
        before = memory.cat_file("/out/manifest.lock")
        lock.renew()
        assert memory.cat_file("/out/manifest.lock") == before
        monkeypatch.setattr(locks, "STALE", 0.0)
        time.sleep(0.01)
        lock.renew()
        assert json.loads(memory.cat_file("/out/manifest.lock"))["time"] > json.loads(before)["time"]


# ---- what is not installed


def test_an_address_without_fsspec_is_one_line(tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    line = one_line(run("stylize", "s3://bucket/a.png", "-s", "red", "-o", tmp_path), 1)
    assert line == "Error: s3://bucket/a.png needs the package 'fsspec': pip install 'impasto[scale]'"
    (tmp_path / "a.png").write_bytes(png(3))
    assert len(stylize_files(tmp_path / "a.png", tmp_path / "out/", style="red").done) == 1


def test_an_address_without_its_driver_is_one_line(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(fsspec_registry, "s3", raising=False)
    line = one_line(run("stylize", "s3://bucket/a.png", "-s", "red", "-o", "out"), 1)
    assert line == "Error: s3://bucket/a.png needs the package 's3fs': pip install 'impasto[scale]'"


# ---- a server of S3


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A server of S3 on loopback with the bucket ``photos``, and a client that knows it."""
    pytest.importorskip("s3fs", reason="s3:// needs the extra scale")
    server_module = pytest.importorskip("moto.server", reason="needs a server of S3: moto[server]")
    server = server_module.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        patch.setenv(name, value)
    files, _ = fsspec.core.url_to_fs("s3://photos", use_listings_cache=False)
    files.mkdir("photos")
    for index, name in enumerate(NAMES):
        files.pipe_file(f"photos/in/{name}", png(index))
    yield files
    patch.undo()
    server.stop()


@pytest.fixture
def no_rights(s3: Any) -> Iterator[None]:
    """The server asks who it is, and knows nobody."""

    def allow(requests: bytes) -> None:
        address, kind = f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(address, requests, kind)).close()

    allow(b"0")
    yield
    allow(b"inf")


def test_from_bucket_to_bucket_with_a_resume(s3: Any, tiny: Path) -> None:
    s3.pipe_file("photos/in/bad.png", b"")
    report = stylize_files("s3://photos/in", "s3://photos/out", style="red")
    assert sorted(s3.find("photos/out")) == [f"photos/out/{name}" for name in (*NAMES, MANIFEST)]
    assert all(red(s3.cat_file(f"photos/out/{name}")) for name in NAMES)
    (row,) = report.failed
    assert row.error == "s3://photos/in/bad.png: the file is empty; expected a picture"
    s3.pipe_file("photos/in/bad.png", png(9))
    s3.pipe_file("photos/out/a.png", b"damaged")
    again = stylize_files("s3://photos/in", "s3://photos/out", style="red", resume=True)
    assert (len(again.done), len(again.skipped)) == (4, 2)
    assert set(rows_at("s3://photos/out")) == {*NAMES, "bad.png"}


def test_a_second_run_into_a_bucket_is_refused(s3: Any, tiny: Path) -> None:
    with locks.locked("s3://photos/locked"), pytest.raises(ImpastoError, match="another run paints into s3://photos"):
        stylize_files("s3://photos/in", "s3://photos/locked", style="red")
    assert s3.find("photos/locked") == []


def test_a_bucket_that_is_not_there_and_a_key_that_is_refused(
    s3: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    line = one_line(run("stylize", "s3://nothing/in", "-s", "red", "-o", "s3://photos/x"), 1)
    assert line == "Error: s3://nothing/in: no such file or folder"
    line = one_line(run("stylize", tmp_path / "a.png", "-s", "red", "-o", "s3://nothing/out/"), 1)
    assert line.startswith("Error: s3://nothing/out/manifest.lock: The specified bucket does not exist")
    assert not s3.exists("nothing"), "no bucket is made"


def test_a_bucket_without_rights_is_one_line(s3: Any, no_rights: None, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    line = one_line(run("stylize", "s3://photos/in", "-s", "red", "-o", tmp_path / "out"), 1)
    assert re.fullmatch(r"Error: s3://photos/in: .*(Forbidden|does not exist in our records).*", line)
    line = one_line(run("stylize", tmp_path / "a.png", "-s", "red", "-o", "s3://photos/new/"), 1)
    assert re.fullmatch(r"Error: s3://photos/new/?.*: .*(Forbidden|does not exist in our records).*", line)
    (tmp_path / "list.txt").write_text("s3://photos/in/a.png\ns3://photos/in/deep/b.png\n")
    report = stylize_files(f"@{tmp_path}/list.txt", tmp_path / "out", style="red")
    assert [str(row.error).partition(": ")[0] for row in report.failed] == [
        "s3://photos/in/a.png", "s3://photos/in/deep/b.png",
    ]  # fmt: skip
