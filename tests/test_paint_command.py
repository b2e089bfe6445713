"""The command `impasto paint`, on small pictures in files."""

from __future__ import annotations

import functools
import inspect
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image, ImageCms

from impasto import cli
from impasto.losses import VGGFeatures
from impasto.visualization import commands, paint, painting, sheets
from impasto.visualization.result import Result as Painted

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

QUICK = [
    *("--size", 32, "--smallest", 32, "--steps", 2, "--precision", "float32"),
    *("--content-layers", "relu1_2", "--style-layers", "relu1_1:1,relu2_1:0.5"),
]
SETTINGS: dict[str, Any] = {
    "size": 32,
    "smallest": 32,
    "steps": 2,
    "precision": "float32",
    "content_layers": {"relu1_2": 1.0},
    "style_layers": {"relu1_1": 1.0, "relu2_1": 0.5},
}


@pytest.fixture(scope="module", autouse=True)
def one_network():
    """The loss network is read once for all paintings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(painting, "VGGFeatures", functools.cache(VGGFeatures))
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for seed, name in enumerate(("photo", "sea", "sky")):
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((32, 24), Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    left = Image.new("L", (32, 24))
    left.paste(255, (0, 0, 16, 24))
    left.save(folder / "left.png")
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture(autouse=True)
def work(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with copies of the pictures, to work in."""
    folder = tmp_path / "work"
    shutil.copytree(pictures, folder)
    monkeypatch.chdir(folder)
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, ["paint", *map(str, arguments)], catch_exceptions=False)


def good(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def failed(result: Result, exit_code: int) -> str:
    """The one line of a failure, after checking that it is one."""
    assert result.exit_code == exit_code, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    return lines[0]


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def press(monkeypatch: pytest.MonkeyPatch, module: Any, after: int) -> None:
    """Press Ctrl-C in the painting that is begun next, after some steps."""
    left = after

    def progress(done: float, total: float, text: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(module, "paint", lambda *given, **options: paint(*given, **options | {"progress": progress}))


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command hands to `paint`, which does nothing."""
    found: dict[str, Any] = {}

    def record(content: object, styles: object, **options: object) -> Painted:
        found.update(options, content=content, styles=styles)
        return Painted({"painted": Image.new("RGB", (32, 24), "red")}, {"objective": 1.5}, caption="done")

    monkeypatch.setattr(commands, "paint", record)
    return found


class TestCall:
    def test_flags_and_defaults_are_the_functions(self, passed):
        good("photo.png", "sea.png", "-o", "out.png")
        parameters = inspect.signature(paint).parameters
        assert set(passed) == set(parameters)
        given = {"content": "photo.png", "styles": ("sea.png",), "state": Path("out.png.state"), "resume": False}
        for name, value in given.items():
            assert passed.pop(name) == value
        passed.pop("progress")
        assert passed == {name: parameters[name].default for name in passed}
        flags = {option.name for option in commands.paint_command.params}
        ours = {"output", "animation", "sweep", "by_layer", "as_json"}
        assert flags == set(parameters) - {"state", "frames", "progress"} | ours

    def test_choices_are_the_functions(self):
        text = " ".join(good("--help").stdout.split())
        for choices in ("relative|gatys|johnson", "gram|wasserstein", "lbfgs|adam", "style|luminance|match"):
            assert choices in text, choices
        assert "content, noise, style, or a style pack to polish" in text

    def test_what_is_written_as_text(self, passed):
        good(
            *("photo.png", "sea.png", "sky.png", "-o", "out.png", "--weights", "1,2.5", "--size", 0, "--mask", ""),
            *("--mask", "left.png", "--content-layers", "relu3_2", "--style-layers", "relu1_1:0.25, relu2_1"),
            *("--animation", "way.webp"),
        )
        assert passed["weights"] == [1.0, 2.5] and passed["masks"] == [None, "left.png"] and passed["size"] is None
        assert passed["content_layers"] == {"relu3_2": 1.0}
        assert passed["style_layers"] == {"relu1_1": 0.25, "relu2_1": 1.0}
        assert passed["frames"] == commands.FRAMES


class TestOutput:
    def test_is_what_the_function_paints(self):
        result = good("photo.png", "sea.png", "-o", "deep/out.png", *QUICK)
        expected = np.asarray(paint("photo.png", "sea.png", **SETTINGS).images["painted"])
        assert np.array_equal(pixels("deep/out.png"), expected)
        assert result.stdout == ""
        assert "deep/out.png: 32 x 24 pixels in the style of sea: objective " in result.stderr
        assert os.listdir("deep") == ["out.png"]

    def test_json_is_for_programs(self):
        result = good("photo.png", "sea.png", "sky.png", "-o", "out.png", "--json", *QUICK)
        found = json.loads(result.stdout)
        assert found["settings"]["style_layers"] == SETTINGS["style_layers"] and found["size"] == [24, 32]
        assert {"style/sea/relu1_1", "style/sky/relu2_1"} < set(found["terms"])
        assert "out.png:" not in result.stdout

    def test_the_photos_file_lives_on(self):
        """Transparency, profile and resolution, at the size of the painting."""
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        with Image.open("photo.png") as image:
            rgba = image.convert("RGBA").resize((64, 48))
            alpha = Image.new("L", (64, 48), 255)
            alpha.paste(0, (0, 0, 32, 48))
            rgba.putalpha(alpha)
            rgba.save("cut.png", dpi=(300, 300), icc_profile=profile)
        good("cut.png", "sea.png", "-o", "out.png", *QUICK)
        with Image.open("out.png") as image:
            assert image.mode == "RGBA" and image.size == (32, 24) and image.info["icc_profile"] == profile
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
            alpha = np.asarray(image.getchannel("A"))
        assert (alpha[:, :12] == 0).all() and (alpha[:, 20:] == 255).all()
        assert "JPEG cannot hold" in failed(run("cut.png", "sea.png", "-o", "out.jpg", *QUICK), 1)
        assert not Path("out.jpg").exists()

    @pytest.mark.parametrize("name", ["out.jpg", "out.webp", "out.tif"])
    def test_formats(self, name, passed):
        good("photo.png", "sea.png", "-o", name)
        assert pixels(name)[5, 5] == pytest.approx([255, 0, 0], abs=2)

    def test_animation(self):
        good("photo.png", "sea.png", "-o", "out.png", "--animation", "way/out.webp", *QUICK)
        with Image.open("way/out.webp") as image:
            assert image.n_frames == 2 and image.size == (32, 24)
            image.seek(1)
            last = np.asarray(image.convert("RGB")).astype(int)
        assert np.abs(last - pixels("out.png")).mean() < 12  # WebP is lossy

    def test_tensorboard(self):
        good("photo.png", "sea.png", "-o", "out.png", "--log-dir", "runs/one", *QUICK)
        assert [name for name in os.listdir("runs/one") if name.startswith("events.out.tfevents")]


class TestStopped:
    def test_and_resumed(self, monkeypatch):
        call = ["photo.png", "sea.png", "-o", "out.png", *QUICK, "--steps", 4]
        good(*call)
        whole = pixels("out.png")
        os.remove("out.png")
        with monkeypatch.context() as patch:
            press(patch, commands, after=2)
            said = failed(run(*call), 130)
        assert said == (
            "Error: stopped after 2 steps, at 32 x 24 pixels; out.png is what there is so far. "
            "Go on with the same call and --resume"
        )
        assert not np.array_equal(pixels("out.png"), whole) and Path("out.png.state").exists()
        good(*call, "--resume")
        assert np.array_equal(pixels("out.png"), whole) and not Path("out.png.state").exists()

    def test_resumed_after_its_last_step_with_an_animation(self, monkeypatch):
        """Nothing is left to paint, and no frame of the way: the animation is the picture."""
        call = ["photo.png", "sea.png", "-o", "out.png", *QUICK, "--animation", "out.webp"]
        with monkeypatch.context() as patch:
            press(patch, commands, after=2)
            failed(run(*call), 130)
        good(*call, "--resume")
        with Image.open("out.webp") as image:
            assert image.size == (32, 24)

    def test_without_resume_it_begins_anew(self, monkeypatch):
        call = ["photo.png", "sea.png", "-o", "out.png", *QUICK]
        with monkeypatch.context() as patch:
            press(patch, commands, after=1)
            failed(run(*call), 130)
        assert len(json.loads(good(*call, "--json").stdout)["trace"]) == 2
        assert not Path("out.png.state").exists()

    def test_resumed_with_other_settings(self, monkeypatch):
        call = ["photo.png", "sea.png", "-o", "out.png", *QUICK]
        with monkeypatch.context() as patch:
            press(patch, commands, after=1)
            failed(run(*call), 130)
        before = pixels("out.png")
        said = failed(run(*call, "--tv", 1, "--resume"), 1)
        assert "out.png.state: the state of a painting from other pictures or with other settings" in said
        assert Path("out.png.state").exists() and np.array_equal(pixels("out.png"), before)

    def test_nothing_to_resume(self):
        said = failed(run("photo.png", "sea.png", "-o", "out.png", "--resume", *QUICK), 2)
        assert said == "Error: --resume: there is no out.png.state; without it the painting begins anew"

    def test_a_sheet_shows_what_there_is(self, monkeypatch):
        press(monkeypatch, sheets, after=3)
        said = failed(run("photo.png", "sea.png", "-o", "out.png", "--sweep", "1,2,3", *QUICK), 130)
        assert (
            said
            == "Error: picture 2 of 3: stopped after 1 steps, at 32 x 24 pixels; out.png shows what there is so far"
        )
        assert pixels("out.png").shape[1] > 64


class TestSheets:
    def test_sweep(self):
        found = json.loads(good("photo.png", "sea.png", "-o", "out.png", "--sweep", "0.5,2", "--json", *QUICK).stdout)
        assert [one["settings"]["style_weight"] for one in found["pictures"][0]] == [0.5, 2.0]
        assert pixels("out.png").shape[1] > 64

    def test_by_layer(self, monkeypatch):
        passed: list[dict[str, Any]] = []

        def record(content: object, styles: object, **options: Any) -> Painted:
            passed.append(options)
            return Painted({"painted": Image.new("RGB", (32, 24), "red")}, {"raw": {}, "terms": {}, "settings": {}})

        monkeypatch.setattr(sheets, "paint", record)
        good("photo.png", "sea.png", "-o", "out.png", "--by-layer")
        assert [list(one["content_layers"]) for one in passed] == [["relu2_2"]] * 5 + [["relu4_2"]] * 5
        assert [len(one["style_layers"]) for one in passed] == [1, 2, 3, 4, 5] * 2
        passed.clear()
        good("photo.png", "sea.png", "-o", "out.png", "--by-layer", "--content-layers", "relu3_2", *QUICK[-2:])
        assert [list(one["content_layers"]) for one in passed] == [["relu3_2"]] * 2
        assert [one["style_layers"] for one in passed] == [{"relu1_1": 1.0}, {"relu1_1": 1.0, "relu2_1": 0.5}]


class TestWrongCalls:
    @pytest.mark.parametrize(
        ("arguments", "exit_code", "message"),
        [
            (["no.png", "sea.png", "-o", "out.png"], 1, "no.png: cannot be read: No such file"),
            (["photo.png", "no.png", "-o", "out.png"], 1, "no.png: cannot be read: No such file"),
            (["notes.txt", "sea.png", "-o", "out.png"], 1, "notes.txt: not a picture that can be read"),
            (["photo.png", "sea.png", "-o", "out"], 2, "out: the suffix names no picture format; expected jpeg, png"),
            (["photo.png", "sea.png", "-o", "photo.png"], 2, "photo.png is a folder, or read or written already"),
            (["photo.png", "sea.png", "-o", "./sea.png"], 2, "sea.png is a folder, or read or written already"),
            (["photo.png", "sea.png", "-o", "a.webp", "--animation", "a.webp"], 2, "choose another output"),
            (["photo.png", "sea.png", "-o", "a.png", "--animation", "a.gif"], 2, "expected .webp or .mp4"),
            (["photo.png", "sea.png", "-o", "a.png", "--mask", "no.png"], 1, "no.png: cannot be read"),
            (["photo.png", "sea.png", "-o", "a.png", "--mask", "a.png"], 2, "a.png is a folder, or read or written"),
            (["photo.png", "sea.png", "-o", "a.png", "--weights", "1,2"], 2, "got weights [1.0, 2.0] for 1 paintings"),
            (["photo.png", "sea.png", "-o", "a.png", "--mask", "", "--mask", ""], 2, "1 paintings and 2 masks"),
            (["photo.png", "sea.png", "-o", "a.png", "--size", "8"], 2, "got size 8, style_scale 1.0; expected size"),
            (["photo.png", "sea.png", "-o", "a.png", "--style-layers", "relu2_7"], 2, "unknown vgg19 layer 'relu2_7'"),
            (["photo.png", "sea.png", "-o", "a.png", "--style-layers", ""], 2, "unknown vgg19 layer ''"),
            (["photo.png", "sea.png", "-o", "a.png", "--init", "nothing"], 2, "or one of: content, noise, style"),
            (["photo.png", "sea.png", "-o", "a.png", "--device", "tpu"], 2, "device: got 'tpu', expected auto or cpu"),
            (["photo.png", "sea.png", "-o", "a.png", "--network-weights", "no.pth"], 1, "no.pth"),
            (["photo.png", "sea.png", "-o", "a.png", "--sweep", "1,-1"], 2, "style weight -1.0"),
            (["photo.png", "sea.png", "-o", "a.png", "--max-memory", "0.1"], 2, "max_memory: got 0.1 GiB, expected at"),
        ],
    )
    def test_are_one_line(self, arguments, exit_code, message, no_packs):
        quick = [*QUICK[:8]] if "--size" not in arguments else QUICK[2:8]
        before = {name: Path(name).read_bytes() for name in os.listdir()}
        assert message in failed(run(*arguments[:4], *quick, *arguments[4:]), exit_code)
        assert {name: Path(name).read_bytes() for name in os.listdir()} == before, "nothing is lost or left"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["photo.png", "sea.png"], "Missing option '-o'"),
            (["photo.png", "-o", "a.png"], "Missing argument 'STYLE...'"),
            (
                ["photo.png", "sea.png", "-o", "a.png", "--color", "photo"],
                "is not one of 'style', 'luminance', 'match'",
            ),
            (["photo.png", "sea.png", "-o", "a.png", "--weights", "a"], "got 'a', expected numbers such as 1,0.5"),
            (
                ["photo.png", "sea.png", "-o", "a.png", "--style-layers", "relu1_1:x"],
                "got 'relu1_1:x', expected such as",
            ),
            (["photo.png", "sea.png", "-o", "a.png", "--sweep", "1", "--by-layer"], "make a sheet, one of them"),
            (["photo.png", "sea.png", "-o", "a.png", "--sweep", "1", "--resume"], "make a sheet, one of them"),
            (["photo.png", "sea.png", "-o", "a.png", "--by-layer", "--animation", "a.webp"], "make a sheet"),
            (["photo.png", "sea.png", "-o", "a.png", "--sweep", "1", "--style-weight", "2"], "without --style-weight"),
        ],
    )
    def test_usage(self, arguments, message):
        before = os.listdir()
        result = run(*arguments)
        assert result.exit_code == 2 and message in " ".join(result.stderr.split()) and result.stdout == ""
        assert os.listdir() == before


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What the command takes for the time."""
    found = {"now": 0.0}
    monkeypatch.setattr(commands.time, "monotonic", lambda: found["now"])
    return found


def test_time_left_goes_by_the_work_of_this_run(clock):
    """Resumed at 60 of 100: 10 in 20 seconds, so 30 more in a minute."""
    left = commands._time_left()
    assert left(60, 100) == ""
    clock["now"] = 20
    assert left(70, 100) == ", 0:01:00 left"
    clock["now"] = 7220
    assert left(80, 100) == ", 2:00:20 left"


def test_a_terminal_sees_a_bar(monkeypatch, clock, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with commands._progress() as progress:
        assert progress is not None
        progress(1.0, 4.0, "16 x 12, objective 3")
        clock["now"] = 90.0
        progress(2.0, 4.0, "32 x 24, objective 2")
        progress(4.0, 4.0, "32 x 24, objective 1")
    shown = capsys.readouterr().err
    assert "Painting" in shown and "25%" in shown and "100%" in shown
    assert "32 x 24, objective 2, 0:03:00 left" in shown


def test_elsewhere_a_line_every_half_minute(clock, capsys):
    with commands._progress() as progress:
        assert progress is not None
        for done in (1.0, 2.0, 3.0, 4.0):
            clock["now"] += 20
            progress(done, 4.0, "text")
    assert capsys.readouterr().err == "50 %, text, 0:00:40 left\n100 %, text, 0:00:00 left\n"
