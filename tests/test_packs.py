from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MakePack

from impasto.errors import PackError, WrongCall
from impasto.packs import PAINT, Card, Pack, Style, find_pack, installed_packs, mixture, save_card, sha256_of


def edit(pack: Path, **entries: object) -> None:
    card = json.loads((pack / "card.json").read_text())
    (pack / "card.json").write_text(json.dumps({**card, **entries}))


def test_a_card_is_read_as_it_was_written(tmp_path: Path) -> None:
    card = Card(
        name="dutch",
        styles=(Style("wheat_field", "Wheat Field", "Vincent van Gogh", "1889", "somewhere", "public domain"),),
        network={"name": "fast", "channels": [16, 32]},
        normalisations=({"name": "down1", "channels": 16},),
        training={"steps": 100},
        quality={"content": 0.5},
        parity={"levels": 1},
        files={"paint.onnx": "00"},
    )
    save_card(card, tmp_path)
    entries = json.loads((tmp_path / "card.json").read_text())
    assert list(entries)[:2] == ["schema", "name"]
    assert set(entries) == {
        "schema", "name", "styles", "network", "normalisations", "training", "quality", "parity", "files",
    }  # fmt: skip
    assert entries["styles"][0]["painter"] == "Vincent van Gogh"
    assert Pack.load(tmp_path, verify=False).card == card


def test_sha256_is_that_of_the_standard(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_good_pack_loads(make_pack: MakePack) -> None:
    path = make_pack()
    pack = Pack.load(path)
    assert pack.card.style_names == ("invert", "red")
    assert pack.read(PAINT) == (path / PAINT).read_bytes()


def test_a_pack_must_be_a_folder_with_a_card(tmp_path: Path, make_pack: MakePack) -> None:
    with pytest.raises(PackError, match=r"nowhere: no such folder; expected a style pack"):
        Pack.load(tmp_path / "nowhere")
    with pytest.raises(PackError, match=r"no card\.json in it"):
        Pack.load(tmp_path)
    with pytest.raises(PackError, match=r"paint\.onnx: is a file; expected a style pack: the folder"):
        Pack.load(make_pack() / PAINT)


def test_a_missing_and_an_altered_file_are_named(make_pack: MakePack) -> None:
    path = make_pack()
    data = (path / PAINT).read_bytes()
    (path / PAINT).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(PackError, match=r"paint\.onnx: altered"):
        Pack.load(path)
    (path / PAINT).unlink()
    with pytest.raises(PackError, match=r"paint\.onnx: No such file"):
        Pack.load(path)
    with pytest.raises(PackError, match=r"lists no other\.onnx"):
        Pack.load(path, verify=False).read("other.onnx")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"schema": 2}, r"schema 2; this version reads schema 1"),
        ({"schema": None}, r"states no schema"),
        ({"styles": []}, r"at least one"),
        ({"styles": [{"name": "a"}, {"name": "a"}]}, r"unique"),
        ({"styles": [{"name": "Starry Night"}]}, r"'Starry Night' is not a snake_case word"),
        ({"styles": "red"}, r"not the card of a style pack"),
        ({"styles": [{}]}, r"not the card of a style pack"),
        ({"name": None}, r"name None is not"),
        ({"network": 3}, r"expected an object under 'network'"),
        ({"files": {"../../etc/passwd": "00"}}, r"plain names of files"),
    ],
)
def test_a_card_that_cannot_be_used_is_named(entries: dict[str, object], message: str, make_pack: MakePack) -> None:
    path = make_pack()
    edit(path, **entries)
    with pytest.raises(PackError, match=r"card\.json: .*" + message):
        Pack.load(path)


def test_a_card_that_is_not_json_is_named(make_pack: MakePack) -> None:
    path = make_pack()
    (path / "card.json").write_text("{")
    with pytest.raises(PackError, match=r"card\.json: cannot be read"):
        Pack.load(path)


def test_keys_of_a_later_version_are_passed_over(make_pack: MakePack) -> None:
    path = make_pack()
    edit(path, colours=["new"])
    assert Pack.load(path).card.name == "tiny"


def test_packs_are_found_by_name_style_and_path(tiny: Path, make_pack: MakePack) -> None:
    make_pack("other", styles=("wave", "red"))

    def found(name: object) -> tuple[str, str | None]:
        pack, style = find_pack(name)  # type: ignore[arg-type]
        return pack.card.name, style

    assert found("tiny") == ("tiny", None)
    assert found("wave") == ("other", "wave")
    assert found("other/red") == ("other", "red")
    assert found("other/wave:1,red:3") == ("other", "wave:1,red:3")
    assert found("invert:1,red:3") == ("tiny", "invert:1,red:3")
    assert found(tiny) == ("tiny", None)
    assert found(f"{tiny}/red") == ("tiny", "red")
    with pytest.raises(WrongCall, match=r"several packs have the style 'red'; choose one of: other/red, tiny/red"):
        find_pack("red")


def test_a_pack_by_name_answers_to_nothing_else(
    tiny: Path, make_pack: MakePack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = make_pack("quick", styles=("red", "blue"))
    (tmp_path / "shipped/by_name").mkdir(parents=True)
    quick.rename(tmp_path / "shipped/by_name/quick")
    monkeypatch.setattr("impasto.checkpoints.__path__", [str(tmp_path / "shipped")])
    assert [pack.card.name for pack in installed_packs()] == ["tiny"]
    assert find_pack("quick")[0].card.name == "quick"
    assert (find_pack("quick/red")[0].card.name, find_pack("quick/red:1,blue:1")[1]) == ("quick", "red:1,blue:1")
    assert find_pack("red")[0].card.name == "tiny", "no clash"
    with pytest.raises(WrongCall, match=r"unknown style or pack 'quik'\. Did you mean 'quick'\?.*quick, red, tiny"):
        find_pack("quik")
    with pytest.raises(WrongCall, match="unknown style or pack 'blue'"):
        find_pack("blue")
    make_pack("mine", styles=("quick", "slow"))
    assert find_pack("quick")[0].card.name == "mine", "a style of one's own comes first"
    assert find_pack("quick/red")[0].card.name == "quick"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("invret", WrongCall, r"unknown style or pack 'invret'\. Did you mean 'invert'\?.*invert, red, tiny"),
        ("tiny/invret", WrongCall, r"unknown style 'invret'\. Did you mean 'invert'\?"),
        ("invert:1,wave:2", WrongCall, r"unknown style or pack 'wave'"),
        ("invert:1,blue:2", WrongCall, r"no pack has all the styles"),
        ("no/such/pack", PackError, r"no such folder"),
    ],
)
def test_a_name_that_is_not_there(name: str, error: type, message: str, tiny: Path, make_pack: MakePack) -> None:
    if "blue" in name:
        make_pack("other", styles=("blue", "green"))
    with pytest.raises(error, match=message):
        find_pack(name)


def test_a_folder_without_a_card_says_so(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PackError, match=r"empty: no card\.json in it"):
        find_pack("empty")


def test_the_first_of_two_packs_with_one_name_counts(
    tmp_path: Path, make_pack: MakePack, no_packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pack("tiny")
    second = make_pack("later")
    edit(second, name="tiny")
    installed = make_pack("shipped", styles=("sea", "sky"))
    installed.rename(tmp_path / "shipped")
    monkeypatch.setenv("IMPASTO_PACKS", os.pathsep.join([str(second), str(no_packs)]))
    monkeypatch.setattr("impasto.checkpoints.__path__", [str(tmp_path)])
    assert [pack.path.name for pack in installed_packs()] == ["later", "shipped"]
    monkeypatch.setenv("IMPASTO_PACKS", str(tmp_path / "gone"))
    with pytest.raises(PackError, match=r"IMPASTO_PACKS lists .*gone.*not a folder"):
        installed_packs()


def test_a_mixture_has_sum_1_in_the_packs_order() -> None:
    names = ("a", "b", "c")
    assert mixture("b", names) == (0, 1, 0)
    assert mixture("c:3, a:1", names) == (0.25, 0, 0.75)
    assert mixture("a,b", names) == (0.5, 0.5, 0)
    assert mixture("a:0,b:2", names) == (0, 1, 0)


@pytest.mark.parametrize(
    ("style", "message"),
    [
        ("d", "unknown style 'd'"),
        ("a:-1,b:2", "weight '-1'"),
        ("a:x", "weight 'x'"),
        ("a:nan", "weight 'nan'"),
        ("a:inf", "weight 'inf'"),
        ("a:", "weight ''"),
        ("a:0,b:0", "sum to 0"),
        ("a:1,a:2", "stands twice"),
        ("", "unknown style ''"),
    ],
)
def test_a_wrong_mixture_is_a_wrong_call(style: str, message: str) -> None:
    with pytest.raises(WrongCall, match=message):
        mixture(style, ("a", "b"))


def test_looking_for_packs_imports_neither_numpy_nor_onnxruntime() -> None:
    code = "import sys, impasto.packs as p; p.installed_packs(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "onnxruntime", "torch", "PIL"} & set(modules)


def test_hashes_on_the_card_are_sha256(make_pack: MakePack) -> None:
    path = make_pack()
    assert json.loads((path / "card.json").read_text())["files"] == {
        PAINT: hashlib.sha256((path / PAINT).read_bytes()).hexdigest()
    }
