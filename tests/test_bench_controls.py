"""Whether a pack's controls do what they say: measured on networks that do, and on ones that do not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

import torch
from click.testing import CliRunner
from tiny import MODEL, SIZES, write_world

from impasto.benchmarks import controls as controls_module
from impasto.benchmarks.commands import bench
from impasto.benchmarks.controls import POINTS, Controls, decibels, falls, rises, table
from impasto.benchmarks.curves import Yardstick
from impasto.benchmarks.ruler import Ruler
from impasto.card import Style
from impasto.errors import WrongCall
from impasto.images import read_rgb
from impasto.losses import VGGFeatures
from impasto.training import TransformerNet, export_pack, module

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

SETTINGS = {key: MODEL[key] for key in ("content", "style", "style_size")} | {"tv": 0.5, "convention": "relative"}


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    features = VGGFeatures()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "VGGFeatures", lambda: features)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, two paintings and a pack of two styles, of a network that was never trained."""
    world = write_world(tmp_path_factory.mktemp("controls") / "world")
    (world / "paintings").mkdir()
    for name in ("red.png", "sea.png"):
        shutil.copy(world / name, world / "paintings")
    torch.manual_seed(0)
    net = TransformerNet("fast", 2, **SIZES)
    styles = [Style("red"), Style("sea")]
    export_pack(net, world / "pack", styles=styles, training={"config": SETTINGS}, quality={"total": 1.5})
    return world


def controls(world: Path, **changes: object) -> Controls:
    settings = {
        "pack": str(world / "pack"),
        "style_images": str(world / "paintings"),
        "photos": str(world / "photos"),
        "size": 32,
        "count": 2,
        "threads": 1,
    }
    return Controls(**settings | changes)


class FakeStylizer:
    """Paints what a test says: a function of the photo, the weights of the styles and the strength."""

    styles = ("red", "sea")
    paint_one = None

    def __init__(self, *args: object, **options: object) -> None:
        pass

    def paint(self, images, styles, strengths):
        return np.stack([type(self).paint_one(*each) for each in zip(images, styles, strengths, strict=True)])


def faked(monkeypatch, world: Path, paint):
    monkeypatch.setattr(controls_module, "Stylizer", type("Fake", (FakeStylizer,), {"paint_one": staticmethod(paint)}))
    return controls(world).run()


def blend(first, second, share):
    return (first + share * (second.astype(float) - first)).round().astype(np.uint8)


def test_monotone_within_a_tolerance():
    assert rises([1, 2, 1.97, 3]) and not rises([1, 2, 1.95, 3])
    assert falls([3, 2, 2.03, 1]) and not falls([3, 2, 2.05, 1])
    assert not rises([1, 1, 1]) and not falls([1, 1, 1])  # a control that does nothing


def test_decibels_by_hand():
    black = np.zeros((4, 4, 3), np.uint8)
    assert decibels(black, black) == 99
    assert decibels(black, black + 51) == pytest.approx(20 * np.log10(255 / 51))


def test_the_ruler_is_the_yardstick_of_each_painting(world):
    paintings = {name: world / f"{name}.png" for name in ("red", "sea")}
    photo, other = (read_rgb(world / "photos" / f"0{index}.png") for index in range(2))
    ruler = Ruler(SETTINGS, paintings)
    content, styles = ruler.measure(other, ruler.content(photo))
    for index, path in enumerate(paintings.values()):
        yardstick = Yardstick(SETTINGS, path, torch.device("cpu"))
        weighted = yardstick.terms(yardstick.tensor(other), yardstick.content(photo)).weighted
        expected = {
            kind: sum(float(v) for k, v in weighted.items() if k.startswith(kind)) for kind in ("content", "style")
        }
        assert content == pytest.approx(expected["content"], rel=1e-5)
        assert styles[index] == pytest.approx(expected["style"], rel=1e-5)


def test_a_network_that_gives_the_paintings_themselves_passes(monkeypatch, world):
    goals = [controls_module.square(read_rgb(world / f"{name}.png"), 32) for name in ("red", "sea")]

    def paint(photo, weights, strength):
        mixed = blend(goals[0], goals[1], weights[1])
        return blend(photo, mixed, strength)

    answer = faked(monkeypatch, world, paint)
    assert answer.told_apart.all() and (answer.losses.argmin(1) == [0, 1]).all()
    assert (answer.photo_back == 99).all()
    assert answer.entry["strength"]["content"] == sorted(answer.entry["strength"]["content"])
    # a cross-fade is no better than a cross-fade
    assert answer.below_fade.mean() < 1
    assert answer.mixed.shape == (1, 2, 2, len(POINTS))
    assert (answer.mixed[:, :, 0, 0] < answer.mixed[:, :, 0, -1]).all()  # away from the first painting
    assert (answer.mixed[:, :, 1, 0] > answer.mixed[:, :, 1, -1]).all()  # to the second


def test_styles_that_are_swapped_are_found(monkeypatch, world):
    goals = [controls_module.square(read_rgb(world / f"{name}.png"), 32) for name in ("sea", "red")]
    answer = faked(monkeypatch, world, lambda photo, weights, strength: goals[int(weights[1] > 0.5)])
    assert not answer.told_apart.any()
    assert answer.entry["told_apart"] == 0
    assert answer.entry["told_apart_by_style"] == {"red": 0, "sea": 0}


def test_a_strength_that_does_nothing_is_found(monkeypatch, world):
    goal = controls_module.square(read_rgb(world / "sea.png"), 32)
    answer = faked(monkeypatch, world, lambda photo, weights, strength: goal)
    assert answer.entry["strength"]["monotone"] == 0 and answer.entry["mixing"]["monotone"] == 0
    assert answer.photo_back.max() < 30


def test_a_cross_fade_is_not_below_itself(monkeypatch, world):
    goal = controls_module.square(read_rgb(world / "sea.png"), 32)
    monkeypatch.setattr(controls_module, "FADES", np.array(POINTS[1:-1]))
    answer = faked(monkeypatch, world, lambda photo, weights, strength: blend(photo, goal, float(strength)))
    assert answer.below_fade.max() == 0


def test_the_command_leaves_tables_strips_and_the_card(world, tmp_path):
    shutil.copytree(world / "pack", tmp_path / "pack")
    words = [
        "controls",
        str(tmp_path / "pack"),
        "--style-images",
        str(world / "paintings"),
        "--photos",
        str(world / "photos"),
        "--output",
        str(tmp_path / "out"),
        "--size",
        "32",
        "--count",
        "2",
        "--write",
    ]
    result = CliRunner().invoke(bench, words)
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "table.md",
        "controls.json",
        "strength.jpg",
        "mixing.jpg",
    }
    card = json.loads((tmp_path / "pack" / "card.json").read_text())
    entry = json.loads((tmp_path / "out" / "controls.json").read_text())
    assert card["quality"]["controls"] == {"size": 32} | entry
    assert card["quality"]["total"] == 1.5
    assert np.shape(entry["confusion"]["style_loss"]) == (2, 2)
    assert "| red |" in (tmp_path / "out" / "table.md").read_text()


def test_one_style_has_nobody_to_be_told_from(monkeypatch, world, tmp_path):
    torch.manual_seed(0)
    export_pack(
        TransformerNet("fast", 1, **SIZES), tmp_path / "one", styles=[Style("red")], training={"config": SETTINGS}
    )
    answer = controls(world, pack=str(tmp_path / "one"), count=1).run()
    assert answer.pairs == () and answer.entry["mixing"] == {"pairs": 0, "monotone": None}
    assert "| red |" in table(answer)


def test_every_style_needs_its_painting(world, tmp_path):
    (tmp_path / "half").mkdir()
    shutil.copy(world / "red.png", tmp_path / "half")
    with pytest.raises(WrongCall, match="no painting in .* for sea"):
        controls(world, style_images=str(tmp_path / "half")).run()
    with pytest.raises(WrongCall, match="got 50, but .* has 11 photos"):
        controls(world, count=50).run()
