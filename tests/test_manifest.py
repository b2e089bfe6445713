"""The manifest's file itself: torn, foreign, added to by many threads."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from impasto.errors import WrongCall
from impasto.inference.locks import Lock, locked
from impasto.inference.manifest import MANIFEST, Manifest, Row, Settings

SETTINGS = Settings("pack", "0" * 64, "red:1", 1.0)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "out")


@pytest.fixture
def lock(folder: str) -> Iterator[Lock]:
    with locked(folder) as lock:
        yield lock


def row(folder: str, name: str, sha256: str = "a") -> Row:
    return Row(f"/in/{name}", f"{folder}/{name}", "png", None, 20, 30, sha256, sha256 * 2, 1.0, 2.0, 3.0, 4.0, 5.0,
               16, 1, "a note")  # fmt: skip


def written(folder: str, lock: Lock, *names: str) -> Path:
    manifest = Manifest(folder, SETTINGS, lock)
    for name in names:
        manifest.append(row(folder, name), "cpu")
    manifest.close()
    return Path(manifest.name)


def test_a_line_by_hand(folder: str, lock: Lock) -> None:
    (line,) = written(folder, lock, "deep/a.png").read_text().splitlines()
    assert json.loads(line) == {
        "source": "/in/deep/a.png", "output": "deep/a.png", "format": "png", "error": None, "width": 20, "height": 30,
        "source_sha256": "a", "output_sha256": "aa",
        "read_ms": 1, "decode_ms": 2, "network_ms": 3, "encode_ms": 4, "write_ms": 5,
        "bits": 16, "frames": 1, "note": "a note",
        "pack": "pack", "pack_sha256": "0" * 64, "style": "red:1", "strength": 1,
        "color": "style", "masks": "", "brush": None, "provider": "cpu",
    }  # fmt: skip


def test_what_it_says_comes_back(folder: str, lock: Lock) -> None:
    written(folder, lock, "a.png")
    manifest = Manifest(folder, SETTINGS, lock)
    assert manifest.finished(f"{folder}/a.png", "png") == row(folder, "a.png")
    assert manifest.finished(f"{folder}/a.png", "jpeg") is None
    assert manifest.finished(f"{folder}/b.png", "png") is None
    manifest.close()
    changes = ({"pack_sha256": "1" * 64}, {"strength": 0.9}, {"color": "match"}, {"masks": "a"})
    for change in changes:
        other = replace(SETTINGS, **change)
        manifest = Manifest(folder, other, lock)
        assert manifest.finished(f"{folder}/a.png", "png") is None
        manifest.close()


@pytest.mark.parametrize("cut", [1, 5, 60, -1])
def test_a_torn_last_line_is_dropped_and_the_rest_kept(folder: str, lock: Lock, cut: int) -> None:
    path = written(folder, lock, "a.png", "b.png")
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:cut])
    manifest = Manifest(folder, SETTINGS, lock)
    assert path.read_bytes() == first, "repaired"
    assert manifest.finished(f"{folder}/a.png", "png") and not manifest.finished(f"{folder}/b.png", "png")
    manifest.append(row(folder, "b.png"), "cpu")
    manifest.close()
    assert path.read_bytes() == first + second


def test_the_last_of_several_lines_counts_and_stays(folder: str, lock: Lock) -> None:
    manifest = Manifest(folder, SETTINGS, lock)
    for name, sha256 in (("a.png", "1"), ("b.png", "2"), ("a.png", "3")):
        manifest.append(row(folder, name, sha256), "cpu")
    path = Path(manifest.name)
    assert len(path.read_bytes().splitlines()) == 3, "only added to while it is open"
    manifest.close()
    assert [json.loads(line)["source_sha256"] for line in path.read_text().splitlines()] == ["3", "2"]


def test_many_threads_add_whole_lines(folder: str, lock: Lock) -> None:
    manifest = Manifest(folder, SETTINGS, lock)

    def add(worker: int) -> None:
        for index in range(50):
            manifest.append(row(folder, f"{worker}/{index}.png"), "cpu")

    threads = [threading.Thread(target=add, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    manifest.close()
    outputs = [json.loads(line)["output"] for line in Path(manifest.name).read_text().splitlines()]
    assert sorted(outputs) == sorted(f"{worker}/{index}.png" for worker in range(4) for index in range(50))


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"image": "a.png", "label": 3}\n', "line 1"),
        ("not JSON\n", "line 1"),
        ("[1]\n", "line 1"),
        ('{"image": "a.png"}', "the last line"),
        ("notes of mine", "the last line"),
    ],
)
def test_a_file_of_another_kind_is_left_alone(folder: str, lock: Lock, text: str, where: str) -> None:
    path = Path(folder, MANIFEST)
    path.write_text(text)
    with pytest.raises(WrongCall, match=rf"manifest\.jsonl: {where} is not of a manifest of impasto stylize; move it"):
        Manifest(folder, SETTINGS, lock)
    assert path.read_text() == text


def test_names_that_are_no_text_are_kept(folder: str, lock: Lock) -> None:
    name = b"gr\xfcn.png".decode("utf-8", "surrogateescape")
    written(folder, lock, name, "Grün \n.png")
    manifest = Manifest(folder, SETTINGS, lock)
    assert manifest.finished(f"{folder}/{name}", "png") == row(folder, name)
    assert manifest.finished(f"{folder}/Grün \n.png", "png") is not None
    manifest.close()
