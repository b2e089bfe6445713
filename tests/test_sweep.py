"""A sweep: short runs that differ in one setting, and their sheet."""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image

import impasto.training
from impasto.cli import main
from impasto.errors import Interrupted, PictureError, WrongCall
from impasto.packs import Pack
from impasto.sheets import GAP, LINE
from impasto.training import StyleTransfer, sweep
from impasto.training.checkpoints import load_checkpoint
from impasto.training.commands import train as train_command
from impasto.training.export import load_network
from impasto.training.sweeps import NUMBERS, _recipes, parse_sweep

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

SIDE = 32
MODEL = {
    "sizes": {"width": 8, "blocks": 1, "head": 4},
    "style_size": 48,
    "rate": 0.01,
    "warm_up": 1,
    "content": {"relu3_3": 1.0},
    "style": {"relu1_2": 4.0, "relu2_2": 2.0},
}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with photos, two paintings and a recipe."""
    (tmp_path / "photos").mkdir()
    for i, name in enumerate([*(f"photos/{i:02d}" for i in range(11)), "sea", "hill"]):
        coarse = np.random.default_rng(i).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC).save(tmp_path / f"{name}.png")
    trainer = {"accelerator": "cpu", "precision": "32-true", "log_every_n_steps": 1}
    recipe = {"seed_everything": 3, "model": MODEL, "data": {"size": SIDE, "batch": 2, "flat": 0.0}, "trainer": trainer}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs without an ONNX graph, which takes seconds: the weights and the card are real."""
    monkeypatch.setattr("impasto.training.export.export_graph", lambda net, path, facts: path.write_bytes(b""))
    monkeypatch.setattr("impasto.training.export.check_parity", lambda net, path: {"largest_difference": 0})


def go(**options: Any) -> dict[str, Pack]:
    given = {"term": "style", "values": [4, 8], "steps": 2, "config": "tiny.yaml"} | options
    return sweep(given.pop("paintings", ["sea.png"]), ["photos"], given.pop("output", "packs/try"), **given)


def count_steps(monkeypatch: pytest.MonkeyPatch, stop_at: int = 0) -> list[tuple[str, int]]:
    """Notes the first style weight and the number of every step that is trained; sends Ctrl-C in one of them."""
    steps: list[tuple[str, int]] = []
    begin = StyleTransfer.on_train_batch_start

    def note(self: StyleTransfer, batch: Any, batch_idx: int) -> None:
        steps.append((f"{self.style['relu1_2']:g}", self.global_step))
        if len(steps) == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        begin(self, batch, batch_idx)

    monkeypatch.setattr(StyleTransfer, "on_train_batch_start", note)
    return steps


@pytest.mark.usefixtures("no_graph")
def test_a_sweep_is_runs_packs_and_a_sheet(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packs = go(values=[0, 8], steps=4)
    assert list(packs) == ["style=0", "style=8"]
    for label, weight in (("style=0", 0.0), ("style=8", 8.0)):
        config = packs[label].card.training["config"]
        assert config["style"] == {"relu1_2": weight, "relu2_2": weight} and config["content"] == {"relu3_3": 1.0}
        assert packs[label].card.training["seed"] == 3 and packs[label].card.training["steps"] == 4
        assert packs[label].path == Path("packs/try") / label.replace("=", "_")
        assert list((world / "runs/try" / label).glob("events.*"))
        recipe = yaml.safe_load((world / "runs/try" / label / "recipe.yaml").read_text())
        assert recipe["model"] == MODEL | {"style": {"relu1_2": weight, "relu2_2": weight}}
    assert sorted(path.name for path in Path("packs/try").iterdir()) == ["sheet.png", "style_0", "style_8"]
    errors = capsys.readouterr().err
    assert "2 runs; watch them side by side: tensorboard --logdir runs/try" in errors
    assert errors.index("run 1 of 2, style=0") < errors.index("run 2 of 2, style=8")

    # one photo of eleven is held out: one row; below it "1 photos held out" and the four terms
    with Image.open("packs/try/sheet.png") as sheet:
        assert sheet.height == GAP + LINE + SIDE + GAP + 5 * LINE + GAP
        row = np.asarray(sheet)[GAP + LINE : GAP + LINE + SIDE].astype(int)
    photo = torch.from_numpy(row[:, GAP : GAP + SIDE]).permute(2, 0, 1)[None] / 255
    found = []
    for pack in packs.values():  # each in its own column
        painted = 255 * load_network(pack)(photo)[0].detach().permute(1, 2, 0).numpy()
        found.append(
            [x for x in range(GAP, row.shape[1] - SIDE) if np.abs(row[:, x : x + SIDE] - painted).max() < 0.51]
        )
    assert [len(places) for places in found] == [1, 1] and found[0] < found[1]


@pytest.mark.usefixtures("no_graph")
def test_equal_values_by_another_road_give_equal_weights(world: Path) -> None:
    """style/relu2_2=4 on a recipe that has 4 for the other layer is the run style=4: the rest is the same, seed too."""
    whole = go(values=[4])["style=4"]
    one = go(term="style/relu2_2", values=[4], output="packs/one")["style_relu2_2=4"]
    assert one.path == Path("packs/one/style_relu2_2_4")
    assert (whole.path / "weights.safetensors").read_bytes() == (one.path / "weights.safetensors").read_bytes()
    other = go(term="style/relu2_2", values=[5], output="packs/other")["style_relu2_2=5"]
    assert (whole.path / "weights.safetensors").read_bytes() != (other.path / "weights.safetensors").read_bytes()


@pytest.mark.usefixtures("no_graph")
def test_the_same_call_again_goes_on(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        steps = count_steps(patch, stop_at=5)
        with pytest.raises(Interrupted, match=r"stopped in run 2 of 3, style=8; give the same command again to go on"):
            go(values=[4, 8, 16], steps=3)
    assert steps == [("4", 0), ("4", 1), ("4", 2), ("8", 0), ("8", 1)]
    assert Path("packs/try/sheet.png").is_file(), "what is finished can be looked at"
    assert not Path("packs/try/style_8").exists()
    first = Path("packs/try/style_4/card.json").read_bytes()
    with monkeypatch.context() as patch:
        steps = count_steps(patch)
        packs = go(values=[4, 8, 16], steps=3)
    assert steps == [("8", 2), ("16", 0), ("16", 1), ("16", 2)]
    assert Path("packs/try/style_4/card.json").read_bytes() == first
    assert "run 1 of 3, style=4: finished" in capsys.readouterr().err
    # stopped or not, the weights are the same
    whole = go(values=[8], steps=3, output="packs/whole")["style=8"]
    assert (whole.path / "weights.safetensors").read_bytes() == (
        packs["style=8"].path / "weights.safetensors"
    ).read_bytes()
    # one more value is one more run; a run that was trained and not yet exported is not trained again
    Path("packs/try/style_16/card.json").unlink()
    Path("packs/try/style_16").rename("gone")
    with monkeypatch.context() as patch:
        steps = count_steps(patch)
        assert list(go(values=[2, 4, 8, 16], steps=3)) == ["style=2", "style=4", "style=8", "style=16"]
    assert steps == [("2", 0), ("2", 1), ("2", 2)]


@pytest.mark.usefixtures("no_graph")
def test_two_sweeps_are_not_mixed(world: Path) -> None:
    packs = go(values=[4])
    Path("more_tv.yaml").write_text(Path("tiny.yaml").read_text().replace("model:", "model:\n  tv: 2.0"))
    for options, names in (
        ({"steps": 3}, "steps"),
        ({"steps": None, "minutes": 1.0}, "steps, minutes"),
        ({"seed": 4}, "seed_everything"),
        ({"term": "tv"}, "sweep"),
        ({"paintings": ["hill.png"]}, "paintings"),
        ({"config": "more_tv.yaml"}, "model"),
    ):
        with pytest.raises(WrongCall, match=rf"runs/try holds a sweep with other settings \({names}\): choose another"):
            go(**options)
    with pytest.raises(WrongCall, match=r"packs/try already exists"):
        go(run="elsewhere")
    assert packs["style=4"].card == Pack.load("packs/try/style_4").card


@pytest.mark.usefixtures("no_graph")
def test_several_styles_are_blocks_of_rows(world: Path) -> None:
    packs = go(term="rate", values=[0.002], steps=1, paintings=["sea.png", "hill.png"])
    assert packs["rate=0.002"].card.style_names == ("sea", "hill")
    assert packs["rate=0.002"].card.training["config"]["rate"] == 0.002
    with Image.open("packs/try/sheet.png") as sheet:
        assert sheet.height == GAP + LINE + 2 * (LINE + SIDE + GAP) + 5 * LINE + GAP


# what may be swept


def test_what_each_setting_sets() -> None:
    recipe = {"model": {"style": {"relu1_2": 1.0, "relu4_3": 2.0}}, "data": {}, "trainer": {}, "seed_everything": 0}
    untouched = {"style": {"relu1_2": 1.0, "relu4_3": 2.0}}

    def model(term: str, value: float) -> dict[str, Any]:
        (found,) = _recipes(recipe, term, [value]).values()
        changed: dict[str, Any] = found["model"]
        return changed

    assert model("style", 8) == {"style": {"relu1_2": 8.0, "relu4_3": 8.0}}
    assert model("style/relu4_3", 8) == {"style": {"relu1_2": 1.0, "relu4_3": 8.0}}
    assert model("content", 0.5) == untouched | {"content": {"relu3_3": 0.5}}, "the default's layer"
    assert model("style_size", 256) == untouched | {"style_size": 256}
    assert isinstance(model("style_size", 256.0)["style_size"], int)
    assert model("tv", 0) == untouched | {"tv": 0.0}
    assert recipe["model"] == untouched
    assert list(_recipes(recipe, "rate", [1e-5, 0.25, 4])) == ["rate=1e-05", "rate=0.25", "rate=4"]
    assert set(NUMBERS) <= set(inspect.signature(StyleTransfer).parameters)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"term": "stile"},
            r"unknown setting to sweep 'stile'\. Did you mean 'style'\? Expected one of: content, .*tv",
        ),
        (
            {"term": "style/relu9_9"},
            r"unknown setting to sweep .*content/relu3_3, rate, .*style/relu1_2, style/relu2_2",
        ),
        ({"values": []}, r"sweep of style: got \[\], expected one or more different values"),
        ({"values": [4, 4.0]}, r"sweep of style: got \[4, 4\.0\], expected one or more different values"),
        ({"values": [-1]}, r"sweep of style: got -1, expected a number from 0"),
        ({"values": [float("nan")]}, r"sweep of style: got nan, expected a number from 0"),
        ({"term": "rate", "values": [0.01, 0]}, r"sweep of rate: got 0, expected a number above 0"),
        (
            {"term": "style_size", "values": [99.5]},
            r"sweep of style_size: got 99\.5, expected a whole number of pixels",
        ),
        ({"steps": None}, r"expected either steps or minutes, the length of each of its runs"),
        ({"minutes": 1.0}, r"expected either steps or minutes"),
        ({"steps": 0}, r"length of the run: got 0"),
        ({"seed": -1}, r"seed: got -1"),
        ({"network": "fsat"}, r"unknown network 'fsat'"),
        ({"config": "tinny"}, r"recipe tinny: No such file"),
        ({"output": "photos"}, r"photos already exists: choose another name"),
        ({"paintings": ["gone.png"]}, r"gone\.png: cannot be read"),
    ],
)
def test_a_wrong_call_is_refused_before_the_first_run(
    options: dict[str, Any], message: str, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*args: object, **options: object) -> None:
        raise AssertionError("it began to train")

    monkeypatch.setattr("impasto.training.train.fit", fit)
    with pytest.raises((WrongCall, PictureError), match=message):
        go(**options)
    assert not Path("packs").exists()


@pytest.mark.usefixtures("no_graph")
def test_a_wrong_call_leaves_nothing_that_refuses_the_right_one(world: Path) -> None:
    with pytest.raises(WrongCall, match="length of the run"):
        go(steps=-2)
    assert list(go(values=[4], steps=1)) == ["style=4"]


@pytest.mark.parametrize(
    ("text", "term", "values"),
    [
        ("style=4,8,16", "style", [4, 8, 16]),
        ("style/relu4_3=1e-1", "style/relu4_3", [0.1]),
        ("tv = 0, 2", "tv", [0, 2]),
    ],
)
def test_the_option_is_a_setting_and_numbers(text: str, term: str, values: list[float]) -> None:
    assert parse_sweep(text) == (term, values)


@pytest.mark.parametrize("text", ["style", "style=", "style=a", "style=1,,2", "style=1 2", ""])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(WrongCall, match=r"expected a setting and numbers, such as style=4,8,16"):
        parse_sweep(text)


# the command line


@pytest.mark.usefixtures("no_graph")
def test_the_command_sweeps(world: Path) -> None:
    words = ["train", "sea.png", "--photos", "photos", "-o", "packs/c", "--config", "tiny.yaml", "--steps", "1"]
    result = CliRunner().invoke(main, [*words, "--sweep", "tv=0,2"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[-3].startswith("tv=0: content/relu3_3 ") and lines[-3].endswith("; packs/c/tv_0")
    assert lines[-1] == "side by side: packs/c/sheet.png" and Path("packs/c/sheet.png").is_file()
    assert load_checkpoint("runs/c/tv=2/checkpoints/last.ckpt")["hyper_parameters"]["tv"] == 2.0
    result = CliRunner().invoke(main, [*words, "--sweep", "tv=0", "--resume", "a.ckpt"])
    assert result.exit_code == 2 and "give the same command again" in result.output
    result = CliRunner().invoke(main, [*words, "--sweep", "tv:0"])
    assert result.exit_code == 2 and "got 'tv:0', expected a setting and numbers" in result.output


def test_the_flags_are_the_functions_arguments() -> None:
    function: Callable[..., Any] = sweep
    arguments = set(inspect.signature(function).parameters) - {"term", "values", "styles"}
    facts = {"title", "painter", "year", "source", "licence"}
    assert {flag.name for flag in train_command.params} - facts == arguments | {"sweep", "resume"}


def test_the_function_stays_what_the_package_exports(world: Path) -> None:
    """A module of the same name would take its place once it is imported."""
    assert callable(impasto.training.sweep) and impasto.training.sweep is sweep
    assert torch.is_grad_enabled()
