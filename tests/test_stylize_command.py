from __future__ import annotations

import errno
import inspect
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import MakePack, bad_files, other_graph
from PIL import Image

from impasto import cli
from impasto.errors import PictureError, WrongCall
from impasto.inference import Stylizer, commands, stylize_files
from impasto.inference.styles import list_styles, style_sheet

BAD = bad_files()


def run(*arguments: object, input: bytes | None = None) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments], input=input)


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


def failed(result: Result, exit_code: int) -> str:
    """The one line of a failure, after checking that it is one."""
    assert result.exit_code == exit_code, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    return lines[0]


def files_below(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a picture of one grey level in each of a few formats; the work folder is a new one beside it."""
    folder = tmp_path / "photos"
    (folder / "deep" / "er").mkdir(parents=True)
    for name in ("a.png", "b.webp", "deep/c.PNG", "deep/er/d.tif", "deep/er/e.gif"):
        Image.new("RGB", (24, 20), (40, 40, 40)).save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    (folder / "._a.png").write_bytes(b"what a Mac leaves behind")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def colour(path: Path) -> tuple[int, ...]:
    with Image.open(path) as image:
        return tuple(np.asarray(image.convert("RGB"))[5, 5].tolist())


# ---- the command line as a whole


def test_flags_and_defaults_are_the_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    passed: dict[str, object] = {}

    def record(sources: object, output: object, **options: object) -> None:
        passed.update(options, output=output)
        raise PictureError("recorded")

    monkeypatch.setattr("impasto.inference.files.stylize_files", record)
    assert failed(run("stylize", "a.png"), 1) == "Error: recorded"
    parameters = dict(inspect.signature(stylize_files).parameters)
    assert parameters.pop("sources").default is inspect.Parameter.empty
    assert passed == {name: parameter.default for name, parameter in parameters.items()}
    flags = {option.name for option in commands.stylize.params}
    assert flags == {"sources", "as_json", *parameters} - {"progress"}
    for function in (list_styles, style_sheet):
        assert inspect.signature(function).parameters["pack"].default is None


@pytest.mark.parametrize("arguments", [["--help"], ["stylize", "--help"], ["styles", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = """
import sys
from impasto.cli import main
try:
    main(sys.argv[1:], prog_name="impasto")
except SystemExit:
    print(*sys.modules, file=sys.stderr)
    raise
"""
    result = python(code, *arguments)
    assert result.returncode == 0
    heavy = {"torch", "onnxruntime", "onnx", "numpy", "PIL", "pytorch_lightning"}
    assert not heavy & set(result.stderr.split())
    assert "impasto" in result.stdout.lower()


def test_importing_impasto_imports_nothing() -> None:
    result = python("import sys; before = set(sys.modules); import impasto; print(*set(sys.modules) - before)")
    assert {name for name in result.stdout.split() if name.startswith("impasto")} == {"impasto"}
    assert not {"numpy", "torch", "onnxruntime", "PIL", "click"} & set(result.stdout.split())


def test_stylizing_a_picture_does_not_import_torch(photos: Path, tiny: Path) -> None:
    code = """
import sys
from impasto.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    print(*sys.modules)
    raise
"""
    result = python(code, "stylize", photos / "a.png", "--pack", tiny, "-s", "red", "-o", "out.png")
    assert result.returncode == 0, result.stderr
    assert not {"torch", "onnx"} & set(result.stdout.split())
    assert colour(Path("out.png")) == (255, 0, 0)


def test_every_command_is_listed_with_its_help() -> None:
    result = run("--help")
    for name, room in cli.COMMANDS.items():
        assert name in result.stdout
        assert room.help.split()[0] in result.stdout
    assert result.exit_code == 0


def test_a_misspelt_command_and_a_misspelt_flag_are_wrong_calls() -> None:
    assert run("stylise").exit_code == 2
    assert run("stylize", "a.png", "--stile", "red").exit_code == 2
    assert run("stylize").exit_code == 2
    assert run("stylize", "a.png", "--strength", "1.5").exit_code == 2


def test_a_missing_extra_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "room_without_torch.py").write_text("import torch_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(cli.COMMANDS, "train", cli.Room("room_without_torch:train", "Train.", "train"))
    line = failed(run("train", "a.jpg"), 1)
    assert line.endswith("impasto train needs the package 'torch_that_is_not_there': pip install 'impasto[train]'")


def test_an_interruption_says_so(photos: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Stylizer, "paint", interrupt)
    result = run("stylize", photos, "-s", "red", "-o", "out")
    assert (result.exit_code, result.stderr) == (
        130,
        "Error: interrupted: 0 of 5 pictures are done; --resume goes on\n",
    )
    assert files_below(Path()) == ["out/manifest.jsonl"]
    result = run("stylize", photos / "a.png", "-s", "red", "-o", "out.png")
    assert (result.exit_code, result.stderr) == (130, "Interrupted\n")


# ---- what goes where


def test_a_file_to_a_file(photos: Path, tiny: Path) -> None:
    result = run("stylize", photos / "a.png", "-s", "invert", "-o", "new/out.webp")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("1 picture in ")
    assert result.stderr.endswith(" on cpu: new/out.webp\n")
    assert files_below(Path()) == ["new/out.webp"]
    np.testing.assert_allclose(colour(Path("new/out.webp")), 215, atol=3)


def test_without_an_output_the_style_is_in_the_name(photos: Path, tiny: Path) -> None:
    assert run("stylize", photos / "a.png", photos / "deep/er/e.gif", "-s", "red").exit_code == 0
    assert run("stylize", photos / "a.png", "-s", "red:3,invert:1", "--format", "tiff").exit_code == 0
    assert files_below(Path()) == ["a_invert_red.tif", "a_red.png", "e_red.png"]


def test_an_output_without_a_suffix_is_a_folder_unless_it_is_a_file(photos: Path, tiny: Path) -> None:
    Path("file").write_bytes(b"")
    assert run("stylize", photos / "a.png", "-s", "red", "-o", "folder").exit_code == 0
    assert run("stylize", photos / "a.png", "-s", "red", "-o", "file", "--format", "png").exit_code == 0
    assert run("stylize", photos / "a.png", "-s", "red", "-o", os.devnull, "--format", "png").exit_code == 0
    assert files_below(Path()) == ["file", "folder/a.png", "folder/manifest.jsonl"]
    assert colour(Path("file")) == (255, 0, 0)
    assert "need a folder" in failed(run("stylize", photos, "-s", "red", "-o", "file"), 2)


def test_a_folder_keeps_paths_names_and_formats(photos: Path, tiny: Path) -> None:
    result = run("stylize", photos, "-s", "red", "-o", "out")
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("5 pictures in ")
    assert files_below(Path("out")) == [
        "a.png",
        "b.webp",
        "deep/c.PNG",
        "deep/er/d.tif",
        "deep/er/e.png",
        "manifest.jsonl",
    ]
    for name, format in (("a.png", "PNG"), ("b.webp", "WEBP"), ("deep/c.PNG", "PNG"), ("deep/er/d.tif", "TIFF")):
        with Image.open(Path("out", name)) as image:
            assert image.format == format
    assert colour(Path("out/deep/c.PNG")) == (255, 0, 0)


def test_format_changes_the_names_that_need_it(photos: Path, tiny: Path) -> None:
    assert run("stylize", photos, "-s", "red", "-o", "out", "--format", "png").exit_code == 0
    painted = ["a.png", "b.png", "deep/c.PNG", "deep/er/d.png", "deep/er/e.png"]
    assert files_below(Path("out")) == [*painted, "manifest.jsonl"]


def test_patterns_and_several_sources_share_their_parent(photos: Path, tiny: Path) -> None:
    assert (
        run("stylize", f"{photos}/deep/**/*", photos / "a.png", photos / "a.png", "-s", "red", "-o", "x/").exit_code
        == 0
    )
    assert files_below(Path("x")) == ["a.png", "deep/c.PNG", "deep/er/d.tif", "deep/er/e.png", "manifest.jsonl"]


def test_pictures_of_an_earlier_run_are_not_sources(photos: Path, tiny: Path) -> None:
    for _ in range(2):
        assert run("stylize", photos, "-s", "red", "-o", photos / "out").exit_code == 0
    assert len(files_below(photos / "out")) == 5 + 1


def test_a_stream_in_and_out(photos: Path, tiny: Path) -> None:
    data = (photos / "a.png").read_bytes()
    result = run("stylize", "-", "-s", "red", input=data)
    assert result.exit_code == 0, result.stderr
    assert "standard output" in result.stderr
    assert np.asarray(Image.open(io.BytesIO(result.stdout_bytes)))[3, 3].tolist() == [255, 0, 0]
    result = run("stylize", photos / "a.png", "-o", "-", "-s", "red", "--format", "webp")
    assert result.stdout_bytes[8:12] == b"WEBP"
    assert run("stylize", "-", "-s", "red", "-o", "out.tif", input=data).exit_code == 0
    assert colour(Path("out.tif")) == (255, 0, 0)


def test_the_report_for_programs(photos: Path, tiny: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"")
    result = run("stylize", photos, "-s", "red:1,invert:3", "-o", "out", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert (report["pack"], report["provider"], report["manifest"]) == ("tiny", "cpu", "out/manifest.jsonl")
    assert (report["done"], report["skipped"], report["failed"]) == (5, 0, 1)
    assert report["style"] == {"invert": 0.75, "red": 0.25}
    rows = {Path(row["source"]).name: row for row in report["rows"]}
    assert len(rows) == 6
    assert (rows["a.png"]["width"], rows["a.png"]["height"], rows["a.png"]["error"]) == (24, 20, None)
    assert rows["bad.jpg"]["output_sha256"] is None
    assert "the file is empty" in rows["bad.jpg"]["error"]


def test_progress_counts_every_picture(photos: Path, tiny: Path) -> None:
    steps: list[tuple[int, int]] = []
    report = stylize_files(photos, "out", style="red", progress=lambda behind, total: steps.append((behind, total)))
    assert steps == [(index, 5) for index in range(6)]
    assert len(report.done) == 5
    assert report.failed == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PHOTOS", "-s", "red"], "needs a folder to go to: -o OUT"),
        (["PHOTOS", "-s", "red", "-o", "out.png"], "5 pictures need a folder"),
        (["PHOTOS", "-s", "red", "-o", "PHOTOS"], "is itself a source and is not written over"),
        (["PHOTOS/a.png", "-s", "red", "-o", "PHOTOS/a.png"], "is itself a source"),
        (["PHOTOS/a.png", "-s", "red", "-o", "PHOTOS/link.png"], "is itself a source"),
        (["PHOTOS/a.png", "PHOTOS/deep/a.webp", "-s", "red", "--format", "png"], "would both go to a_red.png"),
        (["PHOTOS/a.png", "-s", "red", "-o", "out.gif"], "cannot write the format 'gif'"),
        (["PHOTOS/a.png", "-s", "red", "-o", "out.png", "--format", "jpeg"], "out.png is a name for png"),
        (["PHOTOS", "-s", "red", "-o", "-"], "standard output (-) takes one picture; got 5"),
        (["-", "PHOTOS/a.png", "-s", "red"], "give it as the only source"),
        (["PHOTOS/a.png", "-s", "rde"], "unknown style or pack 'rde'. Did you mean 'red'?"),
        (["PHOTOS/a.png", "-s", "rde", "--pack", "tiny"], "unknown style 'rde'. Did you mean 'red'?"),
        (["PHOTOS/a.png", "-s", "red:-1"], "weight '-1'"),
        (["PHOTOS/a.png"], "several styles; choose one of: invert, red"),
        (["PHOTOS/a.png", "-s", "red", "--provider", "coreml"], "'coreml' is not in this installation"),
    ],
)
def test_a_wrong_call_paints_nothing(arguments: list[str], message: str, photos: Path, tiny: Path) -> None:
    if "PHOTOS/deep/a.webp" in arguments:
        (photos / "b.webp").rename(photos / "deep/a.webp")
    if "PHOTOS/link.png" in arguments:
        (photos / "link.png").hardlink_to(photos / "a.png")
    before = files_below(photos)
    line = failed(run("stylize", *[argument.replace("PHOTOS", str(photos)) for argument in arguments]), 2)
    assert message in line
    assert files_below(Path()) == []
    assert files_below(photos) == before


def test_json_and_the_picture_cannot_share_standard_output(photos: Path, tiny: Path) -> None:
    assert run("stylize", photos / "a.png", "-s", "red", "-o", "-", "--json").exit_code == 2


def test_no_pack_and_several_packs(photos: Path, no_packs: Path, make_pack: MakePack) -> None:
    assert "no style pack is installed" in failed(run("stylize", photos / "a.png"), 1)
    make_pack("one", styles=("a", "b"))
    make_pack("two", styles=("c", "d"))
    assert "choose a style: one/a, one/b, two/c, two/d" in failed(run("stylize", photos / "a.png"), 2)
    assert run("stylize", photos / "a.png", "-s", "two/d").exit_code == 0
    assert files_below(Path()) == ["a_d.png"]


# ---- failures


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_is_one_line_and_leaves_nothing(name: str, tmp_path: Path, tiny: Path, photos: Path) -> None:
    (tmp_path / name).write_bytes(BAD[name][0])
    line = failed(run("stylize", tmp_path / name, "-s", "red", "-o", "out.png"), 1)
    assert name in line
    assert files_below(Path()) == []


def test_a_bad_picture_among_good_ones_is_named_and_the_rest_done(photos: Path, tiny: Path) -> None:
    (photos / "bad.jpg").write_bytes(BAD["truncated.jpg"][0])
    transparent = Image.new("RGBA", (16, 16), (1, 2, 3, 4))
    transparent.save(photos / "transparent.jpg", "PNG")
    result = run("stylize", photos, "-s", "red", "-o", "out")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    assert "bad.jpg: cannot be decoded as jpeg" in lines[0]
    assert "transparent.jpg" in lines[1]
    assert "--format png" in lines[1]
    assert lines[2].startswith("5 pictures, 2 failed in ")
    assert len(files_below(Path("out"))) == 5 + 1


def test_a_source_that_is_not_there(photos: Path, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").write_text("")
    for source, message in (
        ("nothing.jpg", "nothing.jpg: no such file or folder"),
        ("*.nothing", "no picture there"),
        (tmp_path / "empty", "no picture there"),
    ):
        assert message in failed(run("stylize", photos / "a.png", source, "-s", "red", "-o", "out"), 1)
    assert files_below(Path()) == []


def test_a_pack_that_cannot_be_used(photos: Path, tiny: Path, make_pack: MakePack, tmp_path: Path) -> None:
    altered, missing = make_pack("altered"), make_pack("missing")
    (altered / "paint.onnx").write_bytes(b"altered")
    (missing / "paint.onnx").unlink()
    other = make_pack("other", model=other_graph().SerializeToString())
    (tmp_path / "model.onnx").write_bytes(other_graph().SerializeToString())
    for pack, message in (
        (altered, "paint.onnx: altered"),
        (missing, "paint.onnx: No such file"),
        (other, "not the paint graph of a style pack"),
        (tmp_path / "model.onnx", "is a file; expected a style pack"),
        (photos, "no card.json in it"),
    ):
        assert message in failed(run("stylize", photos / "a.png", "--pack", pack, "-s", "red"), 1)
    assert files_below(Path()) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(photos: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    line = failed(run("stylize", photos / "a.png", "-s", "red", "-o", "out.png"), 1)
    assert line == "Error: out.png: No space left on device"
    assert files_below(Path()) == []


def test_a_file_that_outgrows_its_limit_leaves_nothing(photos: Path, tiny: Path) -> None:
    pytest.importorskip("resource", reason="limits on file sizes are set in this way only on Unix")
    code = """
import resource, sys
from impasto.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
main(sys.argv[1:])
"""
    result = python(code, "stylize", photos / "deep/er/d.tif", "--pack", tiny, "-s", "red", "-o", "out.tif")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "Error: out.tif: File too large\n"
    assert files_below(Path()) == []


def test_a_folder_that_takes_no_files_is_one_line(photos: Path, tiny: Path) -> None:
    line = failed(run("stylize", photos / "a.png", "-s", "red", "-o", photos / "notes.txt" / "out.png"), 1)
    assert "notes.txt" in line


# ---- styles


def test_styles_lists_what_is_installed(tiny: Path, make_pack: MakePack) -> None:
    make_pack("other", styles=("wave", "sea"))
    lines = run("styles").stdout.splitlines()
    assert lines[0].split() == ["pack", "style", "title", "painter", "year", "network", "size"]
    assert [line.split()[:2] for line in lines[1:]] == [
        ["other", "wave"], ["other", "sea"], ["tiny", "invert"], ["tiny", "red"],
    ]  # fmt: skip
    assert lines[3].split()[2:] == ["The", "invert", "Nobody", "1900", "fast", "0.0", "MB"]
    rows = json.loads(run("styles", "tiny", "--json").stdout)
    assert [(row["style"], row["size"]) for row in rows] == [
        ("invert", (tiny / "paint.onnx").stat().st_size),
        ("red", (tiny / "paint.onnx").stat().st_size),
    ]
    assert "unknown style or pack 'tony'. Did you mean 'tiny'?" in failed(run("styles", "tony"), 2)


def test_styles_with_nothing_installed(no_packs: Path) -> None:
    result = run("styles")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "No style packs are installed" in result.stderr
    assert json.loads(run("styles", "--json").stdout) == []


def test_the_sheet_shows_the_photo_and_every_style(tiny: Path, photos: Path) -> None:
    Image.new("RGB", (600, 600), (40, 40, 40)).save(photos / "large.png")
    assert run("styles", "--sheet", photos / "large.png", "-o", "sheet.png").exit_code == 0
    with Image.open("sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    area = {tuple(colour.tolist()): int(count) for colour, count in zip(colours, counts, strict=True)}
    for expected in ((40, 40, 40), (215, 215, 215), (255, 0, 0)):
        assert area[expected] >= 512 * 512
    assert area[(0, 0, 0)] > 20  # the labels
    assert run("styles", "--sheet", photos / "a.png").exit_code == 2


def test_the_function_raises_what_the_command_prints(photos: Path, tiny: Path) -> None:
    with pytest.raises(WrongCall, match=r"expected a strength from 0 to 1; got 2"):
        stylize_files([photos / "a.png"], "out.png", style="red", strength=2)
    with pytest.raises(WrongCall, match="no sources"):
        stylize_files([], "out", style="red")
    with pytest.raises(WrongCall, match="cannot write the format 'gif'"):
        stylize_files(photos, "out", style="red", format="gif")
    with pytest.raises(PictureError, match="no such file"):
        stylize_files("gone.png", style="red")
