"""Variants of a recipe, trained for two steps, judged and compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

import torch
from click.testing import CliRunner
from PIL import Image
from tiny import MODEL, write_world

from impasto.benchmarks import artefacts, ingredients, judge, shapes, variants
from impasto.benchmarks.commands import bench
from impasto.benchmarks.judge import ORDINARY, Judge, at_size, choose_photos, middle, unsteadiness
from impasto.benchmarks.speed import interleaved
from impasto.benchmarks.variants import Comparison, Result, table
from impasto.errors import Interrupted, WrongCall
from impasto.images import read_rgb
from impasto.losses import PerceptualLoss, VGGFeatures
from impasto.packs import Pack
from impasto.sheets import GAP, LINE
from impasto.training.photos import to_tensor
from impasto.training.recipe import read_recipe

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

VARIANTS = {"plain": {}, "wide": {"model": {"sizes": {"width": 12, "blocks": 1, "head": 4}}, "data": {"flat": 0.5}}}


def comparison(world: Path, **changes: object) -> Comparison:
    settings = {
        "variants": VARIANTS,
        "style_image": str(world / "sea.png"),
        "photos": [str(world / "photos")],
        "validation": str(world / "photos"),
        "steps": 2,
        "output": world / "out",
        "config": str(world / "tiny.yaml"),
        "threads": 1,
    }
    return Comparison(**settings | changes)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where both variants are finished."""
    world = write_world(tmp_path_factory.mktemp("variants") / "world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artefacts, "SIDE", 160)  # of the inputs of the scores, to be quick
        comparison(world).run(log=lambda line: None)
    return world


@pytest.fixture
def lines() -> list[str]:
    return []


def test_every_variant_has_a_pack_and_scores(world):
    results = comparison(world).results()
    assert [result.name for result in results] == ["plain", "wide"]
    assert [result.network["width"] for result in results] == [8, 12]
    assert results[1].overrides == VARIANTS["wide"]
    for result, flat in zip(results, (0.0, 0.5), strict=True):
        card = Pack.load(comparison(world).pack(result.name)).card
        assert (result.steps, result.pictures) == (card.training["steps"], card.training["pictures"]) == (2, 4)
        assert card.training["data"]["flat"] == flat
        assert result.judged_on == [f"{i:02d}.png" for i in range(7)]
        assert list(result.scores["sizes"]) == ["256", "720", "2000"]
        values = [*result.scores["sizes"]["720"].values(), *result.scores["checkerboard"].values()]
        assert np.isfinite([*values, result.scores["blotch"]]).all()


def test_its_recipe_alone_trains_the_same(world):
    recipe = read_recipe(world / "out/wide/recipe.yaml")
    assert recipe["model"] == MODEL | VARIANTS["wide"]["model"] | {"style_images": [str(world / "sea.png")]}
    assert recipe["data"] == {"size": 32, "batch": 2, "flat": 0.5, "photos": [str(world / "photos")]}
    assert recipe["trainer"]["max_steps"] == 2


def test_finished_variants_are_passed_over(world, lines, monkeypatch):
    monkeypatch.setattr(variants, "train", None)
    monkeypatch.setattr(variants, "Judge", None)
    comparison(world).run(log=lines.append)
    assert lines == ["2 of 2 variants are finished"]


def test_other_settings_are_refused(world):
    with pytest.raises(WrongCall, match=r"plain in .* was begun with other settings.*choose another --output"):
        comparison(world, steps=3).run()


def test_an_unknown_variant_or_key_is_refused(world, tmp_path):
    with pytest.raises(WrongCall, match="unknown variant 'wid'. Did you mean 'wide'"):
        comparison(world).run(["wid"])
    wrong = comparison(world, variants={"odd": {"data": {"flt": 0.0}}}, output=tmp_path)
    for _ in range(2):  # also the second time
        with pytest.raises(WrongCall, match="flt"):
            wrong.run()


def test_an_unfinished_variant_goes_on_from_its_checkpoint(world, tmp_path, lines, monkeypatch):
    calls = []

    def stopped(style_images, photos, output, **options):
        calls.append((output, options["resume"]))
        last = options["run"] / "checkpoints" / "last.ckpt"
        last.parent.mkdir(parents=True, exist_ok=True)
        last.touch()
        raise Interrupted("stopped")

    monkeypatch.setattr(variants, "train", stopped)
    monkeypatch.setattr(variants, "Judge", lambda model, photos: None)
    for _ in range(2):
        with pytest.raises(Interrupted, match="in the variant wide; run the same command again"):
            comparison(world, output=tmp_path).run(["wide"], log=lines.append)
    pack, last = tmp_path / "wide/wide", tmp_path / "wide/run/checkpoints/last.ckpt"
    assert calls == [(pack, None), (pack, last)]
    assert lines == ["0 of 1 variants are finished", "variant 1 of 1: wide"] * 2


def test_the_judge_measures_the_objective_of_the_middle(world, tmp_path, monkeypatch):
    """Against the loss called by hand on a picture of 70 x 56 pixels, of which the middle 48 x 48 count."""
    monkeypatch.setattr(judge, "WINDOW", 48)
    rgb = np.random.default_rng(0).integers(0, 256, (14, 16, 3), dtype=np.uint8)
    Image.fromarray(rgb).resize((70, 56)).save(tmp_path / "photo.png")
    model = read_recipe(world / "tiny.yaml")["model"] | {"style_images": [str(world / "sea.png")]}
    found = Judge(model, [tmp_path / "photo.png"]).objective(lambda picture: 255 - picture)["720"]

    loss = PerceptualLoss(VGGFeatures(), MODEL["content"], MODEL["style"], tv=1.0)
    painting = to_tensor(read_rgb(world / "sea.png", short_side=48))[None]
    seen = to_tensor(read_rgb(tmp_path / "photo.png"))[:, 4:52, 11:59].numpy()
    photo, painted = (
        torch.from_numpy(np.pad(part, ((0, 0), (8, 8), (8, 8)), mode="reflect"))[None] for part in (seen, 1 - seen)
    )
    terms = loss(painted, loss.content_targets(photo), loss.style_targets(painting))
    weighted = {name: float(value) for name, value in terms.weighted.items()}
    assert found["content"] == pytest.approx(weighted["content/relu2_2"], rel=1e-4)
    assert found["style"] == pytest.approx(weighted["style/relu1_2"] + weighted["style/relu2_2"], rel=1e-4)
    assert found["objective"] == pytest.approx(float(terms.total), rel=1e-4)


def test_photos_are_shrunk_never_enlarged():
    photo = np.zeros((300, 400, 3), np.uint8)
    assert at_size(photo, 200).shape == (150, 200, 3)
    assert at_size(photo, 720) is not None and at_size(photo, 720).shape == (300, 400, 3)
    ramp = np.arange(10 * 7 * 3, dtype=np.uint8).reshape(10, 7, 3)
    assert np.array_equal(middle(ramp, 4), ramp[3:7, 1:5]) and np.array_equal(middle(ramp, 8), ramp[1:9])


def test_ordinary_photos_come_first(world, tmp_path):
    for name in ("00_other.jpg", ORDINARY[1], ORDINARY[4]):
        Image.new("RGB", (32, 32)).save(tmp_path / name)
    assert [path.name for path in choose_photos(tmp_path)] == [ORDINARY[1], ORDINARY[4]]
    assert [path.name for path in choose_photos(world / "photos")] == [f"{i:02d}.png" for i in range(7)]


def test_the_table():
    scores = {
        "sizes": {"256": {"objective": 1.5, "content": 0.5, "style": 0.75}},
        "unsteady": 0.345,
        "checkerboard": {"level": 2.0, "found": 2.236, "floor": 1.0},
        "blotch": 12.34,
    }
    result = Result("a", {}, 10, 40, 90.0, {"parameters": 12345}, [], scores)
    assert table([result], {"a": 100.4, "peer": 657.09}).splitlines() == [
        "| variant | parameters | at 256 | unsteady | grid (floor) | blotch | ms |",
        "| --- | --: | --: | --: | --: | --: | --: |",
        "| a | 12,345 | 1.500 (0.500 + 0.750) | 0.34 | 2.00 (1.00) | 12.3 | 100 |",
        "| peer |  |  |  |  |  | 657 |",
    ]
    assert table([result], {}).splitlines()[2].endswith("| 12.3 |")


def test_a_painter_that_paints_pixels_is_steady_and_one_of_frames_is_not():
    y, x = np.mgrid[0:64, 0:96]
    photo = np.stack([2 * x, 3 * y, x + y], axis=-1).astype(np.uint8)

    def frame(rgb):  # stripes that stay where they are
        return np.where(np.arange(rgb.shape[1])[None, :, None] // 4 % 2, rgb, 255 - rgb).astype(np.uint8)

    assert unsteadiness(lambda rgb: 255 - rgb, [photo, photo]) < 1e-3
    assert unsteadiness(frame, [photo]) > 0.2


def test_jobs_take_turns():
    order, rounds = [], []
    times = interleaved([lambda: order.append("a"), lambda: order.append("b")], 2, lambda *done: rounds.append(done))
    assert order == ["a", "b"] * 3 and [len(taken) for taken in times] == [2, 2]
    assert rounds == [(0, 2), (1, 2), (2, 2)]


def test_networks_and_references_are_timed(world, monkeypatch):
    monkeypatch.setattr(shapes, "SIDE", 32)
    monkeypatch.setattr(shapes, "REPEATS", 1)
    monkeypatch.setattr(shapes, "lite_model", lambda: None)
    monkeypatch.setattr(
        shapes, "random_johnson", lambda folder: shutil.copytree(comparison(world).pack("plain"), folder / "johnson")
    )
    found = shapes.milliseconds([comparison(world).pack(name) for name in VARIANTS])
    assert list(found) == ["plain", "wide", "johnson"] and min(found.values()) > 0


def command(world: Path, name: str, *more: str) -> list[str]:
    options = {"style-image": "sea.png", "photos": "photos", "validation": "photos", "output": "out"}
    paths = [part for option, value in options.items() for part in (f"--{option}", str(world / value))]
    return [name, *paths, "--config", str(world / "tiny.yaml"), "--steps", "2", "--threads", "1", *more]


def test_the_command_shapes(world, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(shapes, "VARIANTS", VARIANTS)
    monkeypatch.setattr(shapes, "milliseconds", lambda packs, progress: {pack.name: 5.0 for pack in packs})
    done = CliRunner().invoke(bench, command(world, "shapes"), catch_exceptions=False)
    assert done.exit_code == 0 and "| wide | " in done.stdout
    assert (world / "out/table.md").read_text() == done.stdout
    with Image.open(world / "out/shapes.png") as picture:
        assert picture.size == (960, 600)
    again = CliRunner().invoke(bench, command(world, "shapes", "--no-times", "--json"), catch_exceptions=False)
    found = json.loads(again.stdout)
    assert found["milliseconds"] == {"plain": 5.0, "wide": 5.0}
    assert [row["name"] for row in found["results"]] == ["plain", "wide"]


def test_the_command_ingredients(world, monkeypatch):
    monkeypatch.setattr(ingredients, "VARIANTS", VARIANTS)
    done = CliRunner().invoke(bench, command(world, "ingredients", "--variants", "wide"), catch_exceptions=False)
    assert done.exit_code == 0 and "| plain | " in done.stdout and "| wide | " in done.stdout
    sheet = read_rgb(world / "out/side_by_side.jpg")
    row = LINE + 48 + GAP
    assert sheet.shape == (GAP + LINE + 12 * row, GAP + 3 * (64 + GAP), 3)  # 4 photos at 3 sizes; photo, plain, wide
    top = GAP + LINE + LINE
    difference = sheet[top : top + 48, GAP : GAP + 64].astype(float) - read_rgb(world / "photos/00.png")
    assert np.abs(difference).mean() < 6  # but for JPEG


@pytest.mark.parametrize("room", [ingredients, shapes])
def test_the_variants_are_recipes(room, world, tmp_path):
    every = comparison(world, variants=room.VARIANTS, config="fast", output=tmp_path)
    for name in room.VARIANTS:
        every._keep_recipe(name)
    found = [(tmp_path / name / "recipe.yaml").read_text() for name in room.VARIANTS]
    assert len(set(found)) >= len(found) - 1  # a variant may spell the default out
