"""The command ``impasto see``, by what it writes and prints."""

from __future__ import annotations

import importlib
import inspect
import json
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from looking import write_photos
from PIL import Image

from impasto.cli import main
from impasto.visualization import registry
from impasto.visualization.page_commands import PAGES
from impasto.visualization.registry import FAMILIES
from impasto.visualization.see import Techniques, see, technique_command

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")
SMALL = ("--model", "squeezenet1_1", "--weights", "none", "--size", "64")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with photos."""
    pytest.importorskip("torchvision")
    write_photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["see", *words], catch_exceptions=False)


class TestList:
    def test_a_line_for_each(self):
        finished = run("list")
        assert finished.exit_code == 0
        lines = finished.stdout.splitlines()
        for card in [*registry.cards.values(), *PAGES]:
            (line,) = (line for line in lines if card.name.replace("_", "-") in line.split()[:3])
            assert line.startswith(f"{card.number} ") and line.endswith(card.meaning)
        assert len(lines) == len(registry) + len(PAGES) + 1

    def test_every_number_of_the_suite(self):
        numbers = [word for line in run("list").stdout.splitlines() for word in line.split()[:2] if word[0] == "V"]
        assert numbers == sorted(numbers) and set(numbers) == {f"V{number:02}" for number in range(1, 49)}

    def test_paint_is_the_command_of_its_own(self):
        assert run("paint", "--help").stdout == CliRunner().invoke(main, ["paint", "--help"]).stdout.replace(
            "main paint", "main see paint"
        )

    def test_for_programs(self):
        cards = json.loads(run("list", "--json").stdout)
        names = [card["name"] for card in cards]
        assert [name for name in names if name != "paint"] == [*registry, "live", "report"] and "paint" in names
        assert [card["number"] for card in cards[-2:]] == ["V47", "V48"]
        assert {card["name"]: card["reads"] for card in cards}["activation_maps"] == "one picture"

    def test_help_has_them_all(self):
        text = run("--help").stdout
        assert all(name.replace("_", "-") in text for name in [*registry, "live", "report"])

    def test_the_pages_are_commands_and_no_techniques(self):
        assert not {card.name for card in PAGES} & set(registry)
        assert {card.family for card in PAGES} == {"interaction"} <= set(FAMILIES)
        for card in PAGES:
            assert getattr(importlib.import_module(card.module), card.name).__doc__


@pytest.mark.parametrize("name", list(registry))
class TestEachCommand:
    def test_its_flags_are_the_functions_options(self, name):
        found = registry[name]
        command = technique_command(found)
        given = {each.name: each for each in command.params if isinstance(each, click.Option)}
        shared = {"model", "weights", "size", "download", "device", "output", "as_json", "log_dir"}
        options = {
            each.name: each.default
            for each in inspect.signature(found.function).parameters.values()
            if each.kind is each.KEYWORD_ONLY
        }
        assert set(given) - shared == set(options) and not shared & set(options)
        for option, default in options.items():
            flag = option.replace("_", "-")
            assert f"--{flag}" in given[option].opts
            text = given[option].default
            assert (found.options[option].parse(text) if isinstance(text, str) else text) == default

    def test_its_help(self, name):
        finished = run(name.replace("_", "-"), "--help")
        assert finished.exit_code == 0 and "Args:" not in finished.stdout
        first = registry.cards[name].meaning
        assert first.split()[0] in finished.stdout


class TestRun:
    def test_writes_into_a_folder_of_its_name(self, here):
        finished = run("activation-maps", "photos/00.png", *SMALL, "--layer", "features.1", "--top", "9")
        assert finished.exit_code == 0, finished.stderr
        assert sorted(path.name for path in (here / "see/activation_maps").iterdir()) == [
            "data.json", "maps.png", "strip.png",
        ]  # fmt: skip
        assert "9 of 64 maps of features.1" in finished.stderr and finished.stdout == ""

    def test_the_command_in_the_result_makes_the_same_picture(self, here):
        run("activation-maps", "photos/01.png", *SMALL, "--layer", "features.1", "--scale", "sqrt", "-o", "one")
        words = shlex.split(json.loads((here / "one/data.json").read_text())["command"])
        assert words[:2] == ["impasto", "see"]
        assert run(*words[2:], "-o", "two").exit_code == 0
        for name in ("maps.png", "data.json"):
            assert (here / "one" / name).read_bytes() == (here / "two" / name).read_bytes()
        run("activation-maps", "photos/01.png", *SMALL, "--layer", "features.1", "-o", "three")
        assert (here / "one/maps.png").read_bytes() != (here / "three/maps.png").read_bytes(), "--scale counts"

    def test_for_programs(self, here):
        finished = run("filters", *SMALL, "--json", "--scale", "shared", "-o", "out")
        found = json.loads(finished.stdout)
        assert set(found) == {"caption", "command", "data", "files"}
        assert found["data"]["scale"] == "shared" and found["files"] == ["out/filters.png", "out/data.json"]
        assert found["command"] == "impasto see filters --scale shared " + " ".join(SMALL)
        with Image.open("out/filters.png") as image:
            assert image.mode == "RGB"

    def test_on_tensorboard(self, here):
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        assert run("filters", *SMALL, "--log-dir", "logs").exit_code == 0
        assert EventAccumulator("logs").Reload().Tags()["images"] == ["filters"]

    def test_pictures_may_be_left_out_where_the_function_says_so(self, here):
        common = (*SMALL, "--layer", "features.1", "--count", "2", "--json")
        assert json.loads(run("effective-receptive-field", *common).stdout)["data"]["noise"] is True
        with_photos = json.loads(run("effective-receptive-field", "photos", *common).stdout)
        assert with_photos["data"]["noise"] is False and with_photos["data"]["pictures"] == 2

    def test_a_second_network_is_loaded_by_its_name(self, here):
        """The judge says of two steps from noise, deterministically, what the same call in Python says."""
        pytest.importorskip("efficientnet_lite_pytorch")
        words = ("--target", "flamingo", "--seeds", "1", "--steps", "1", "--preset", "none")
        finished = run("class-image", *words, "--judge", "efficientnet_lite1", *SMALL, "--json")
        found = json.loads(finished.stdout)
        assert found["command"].startswith("impasto see class-image")
        assert "--judge efficientnet_lite1" in found["command"]
        (picture,) = found["data"]["pictures"]
        assert len(picture["judge"]["top"]) == 5 and picture["judge"]["rank"] > 1
        assert "--judge NETWORK" in run("class-image", "--help").stdout


class TestErrors:
    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            (("fliters",), 2, "unknown technique 'fliters'. Did you mean 'filters'?"),
            (("activation-maps",), 2, "Missing argument 'PICTURE'"),
            (("activation-maps", "absent.png", *SMALL), 1, "absent.png: cannot be read"),
            (("filters", "--scale", "x"), 2, "'x' is not one of 'filter', 'shared'"),
            (("filters", "--side", "wide", *SMALL), 2, "--side: got 'wide', expected a value of type int"),
            (("filters", "--model", "squeezenet"), 2, "unknown network 'squeezenet'. Did you mean"),
            (("filters", "--model", "squeezenet1_1", "--weights", "no.pth"), 1, "no file of weights at no.pth"),
            (("filters", *SMALL, "--device", "abacus"), 2, "--device: got 'abacus'"),
            (("filters", *SMALL, "-o", "photos/00.png"), 2, "photos/00.png: is a file, expected a folder"),
            (("class-image", *SMALL), 2, "expected a class (its index or its name)"),
            (("class-image", "--target", "1", "--judge", "squeezenet", *SMALL), 2, "unknown network 'squeezenet'. Did"),
            (("filters", *SMALL, "--layer", "features.3"), 2, "features.3 is no convolution of three channels"),
        ],
    )
    def test_one_line_that_says_what_to_do(self, here, words, code, message):
        finished = run(*words)
        assert finished.exit_code == code, finished.output
        assert message in finished.stderr and "Traceback" not in finished.stderr
        assert not (here / "see").exists()


def test_the_group_is_what_the_front_door_opens():
    assert isinstance(see, Techniques)
