"""What a network is worth: curves of per-image optimisation, and where networks lie on them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

import torch
from click.testing import CliRunner
from PIL import Image
from tiny import MODEL, SIZES, write_world

from impasto.benchmarks import artefacts
from impasto.benchmarks import polish as polish_module
from impasto.benchmarks import quality as quality_module
from impasto.benchmarks.commands import bench
from impasto.benchmarks.curves import Curve, Yardstick, mean_curve, objective_settings, optimisation_curve
from impasto.benchmarks.judge import painter
from impasto.benchmarks.levels import Level, Result, check_card, table, write_card
from impasto.benchmarks.polish import Polish, polish
from impasto.benchmarks.quality import Quality, exactness, square
from impasto.card import Style, load_card, save_card
from impasto.errors import Interrupted, PackError, WrongCall
from impasto.losses import PerceptualLoss, VGGFeatures, optimize_image
from impasto.losses.optimize import clip
from impasto.packs import sha256_of
from impasto.training import TransformerNet, export_pack, module
from impasto.training.photos import to_tensor

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

SETTINGS = {key: MODEL[key] for key in ("content", "style", "style_size")} | {"tv": 0.5, "convention": "relative"}


def curve(*points: tuple[int, float], evaluations: int = 0, stalled: bool = False) -> Curve:
    return Curve(points, max(evaluations, points[-1][0]), stalled, "a processor", "2.9")


def change_card(folder: Path, **changes: object) -> None:
    save_card(dataclasses.replace(load_card(folder), **changes), folder)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, paintings, and two packs: ``pack`` with the styles red and sea, ``other`` with sea and lake."""
    world = write_world(tmp_path_factory.mktemp("quality") / "world")
    (world / "paintings").mkdir()
    for name in ("red.png", "sea.png"):
        shutil.copy(world / name, world / "paintings")
    paintings = [{"file": name, "sha256": sha256_of(world / name)} for name in ("red.png", "sea.png")]
    training = {"config": SETTINGS, "pictures": 1200, "paintings": paintings}
    torch.manual_seed(0)
    net = TransformerNet("fast", 2, **SIZES)
    net.load_state_dict({key: value + 0.2 * torch.randn(value.shape) for key, value in net.state_dict().items()})
    styles = [Style("red"), Style("sea")]
    export_pack(net, world / "pack", styles=styles, training=training, quality={"total": 1.5})
    shutil.copytree(world / "pack", world / "other")
    change_card(world / "other", name="other", styles=(Style("sea"), Style("lake")))  # what was the row of red
    return world


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Small inputs of the scores, one loss network for all, and one thread, which makes runs equal to the bit."""
    features, threads = VGGFeatures(), torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artefacts, "SIDE", 160)
        patch.setattr(module, "VGGFeatures", lambda: features)
        yield
    torch.set_num_threads(threads)


def measure(world: Path, output: Path, **changes: object) -> Quality:
    settings = {
        "pack": str(world / "pack"),
        "style_images": str(world / "paintings"),
        "photos": str(world / "photos"),
        "output": output,
        "sizes": (32,),
        "count": 2,
        "max_evaluations": 12,
        "threads": 1,
    }
    return Quality(**settings | changes)


@pytest.fixture(scope="module")
def measured(world: Path) -> list[Result]:
    return measure(world, world / "out", beside=[str(world / "other")]).run()


@pytest.fixture
def pack(world: Path, tmp_path: Path) -> Path:
    """A copy that may be written to."""
    return Path(shutil.copytree(world / "pack", tmp_path / "copy" / "pack"))


# Curves


def test_the_crossing_is_the_first_point_at_or_below_the_level():
    found = curve((0, 9.0), (4, 5.0), (5, 4.0), (9, 2.0), evaluations=10)
    levels = {9.5: 0, 9.0: 0, 8.9: 4, 5.0: 4, 4.5: 5, 2.0: 9, 1.9: None}
    assert {level: found.crossing(level, 300) for level in levels} == levels
    assert found.crossing(2.0, 9) == 9 and found.crossing(2.0, 8) is None
    assert [found.at(count) for count in (0, 3, 4, 8, 9, 50)] == [9, 9, 5, 4, 2, 2]


def test_a_curve_suffices_when_it_crosses_ends_or_stalls():
    found = curve((0, 9.0), (4, 5.0), evaluations=6)
    assert found.suffices(5.0, 300) and found.suffices(1.0, 6) and not found.suffices(4.9, 300)
    assert curve((0, 9.0), (4, 5.0), stalled=True).suffices(1.0, 300)


@pytest.mark.parametrize(
    "points", [(), ((1, 9.0),), ((0, 9.0), (3, 9.0)), ((0, 9.0), (0, 8.0)), ((0, float("nan")),), ((0, 9.0), (7, 1.0))]
)
def test_what_is_no_curve_is_refused(points):
    with pytest.raises(ValueError, match="not a curve"):
        Curve(points, 6, False, "", "")


def test_a_file_gives_the_same_curve_or_none(tmp_path):
    found, path = curve((0, 9.1), (4, 1 / 3)), tmp_path / "below/curve.json"
    assert Curve.read(path) is None
    found.write(path)
    assert Curve.read(path) == found
    whole = path.read_text()
    for damaged in ("", whole[:-9], "[]", "{}", whole.replace("9.1", "0.1"), whole.replace('"torch"', '"tor"')):
        path.write_text(damaged)
        assert Curve.read(path) is None


def test_the_mean_of_curves_goes_as_far_as_the_shortest():
    first, second = curve((0, 8.0), (3, 4.0), (7, 2.0)), curve((0, 6.0), (4, 2.0), evaluations=5)
    assert mean_curve([first, second]) == [(0, 7.0), (3, 5.0), (4, 3.0)]


def valley(picture: torch.Tensor) -> torch.Tensor:
    """Badly scaled, and lowest outside of [0, 1]."""
    weights = torch.linspace(1, 30, picture.numel()).view(picture.shape)
    return (weights * (picture - 1.05) ** 2).sum() + (picture[..., :2] ** 4).sum()


def test_a_curve_is_what_the_loop_gives_after_each_step():
    """Against the loop run by hand, the loss of its clipped picture and the objective's own count of its calls."""
    start, calls, expected = torch.full((1, 3, 4, 4), 0.3), [], [(0, float(valley(torch.full((1, 3, 4, 4), 0.3))))]

    def counted(picture):
        calls.append(1)
        return valley(picture)

    def note(step):
        loss = float(valley(step.image.clamp(0, 1)))
        if loss < expected[-1][1]:
            expected.append((len(calls), loss))

    optimize_image(start, counted, steps=10, project=clip, on_step=note)
    found = optimisation_curve(start, valley, level=-1.0, cap=40)
    assert len(expected) > 3 and found.points[: len(expected)] == tuple(expected)
    assert found.evaluations >= 40 or found.stalled
    level = expected[2][1]
    short = optimisation_curve(start, valley, level, cap=40)
    assert short.points == tuple(expected[:3]) and short.crossing(level, 40) == short.evaluations == expected[2][0]


def test_the_photo_itself_costs_nothing():
    start, progress = torch.full((1, 3, 4, 4), 0.3), []
    found = optimisation_curve(start, valley, float(valley(start)), 40, progress.append)
    assert found.evaluations == 0 == found.crossing(float(valley(start)), 40) and progress == []


def test_a_curve_that_can_fall_no_further_is_stalled():
    start = torch.full((1, 3, 4, 4), 0.3)
    found = optimisation_curve(start, lambda picture: ((picture - 0.5) ** 2).sum(), -1.0, 1000)
    assert found.stalled and found.evaluations < 100 and found.suffices(-1.0, 1000)
    assert found.crossing(-1.0, 1000) is None and found.points[-1][1] < 1e-10


def test_the_yardstick_is_the_loss_of_the_training(world):
    """Against the loss called by hand, on pictures continued by numpy."""
    random = np.random.default_rng(0)
    photo, painting = random.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    yardstick = Yardstick(SETTINGS, world / "paintings/sea.png", torch.device("cpu"))
    found = yardstick.terms(yardstick.tensor(painting), yardstick.content(photo))
    loss = PerceptualLoss(VGGFeatures(), SETTINGS["content"], SETTINGS["style"], tv=0.5)
    goals = loss.style_targets(to_tensor(np.asarray(Image.open(world / "sea.png")))[None])
    seen = [to_tensor(np.pad(part, ((8, 8), (8, 8), (0, 0)), mode="reflect"))[None] for part in (photo, painting)]
    expected = loss(seen[1], loss.content_targets(seen[0]), goals)
    assert list(found.weighted) == ["content/relu2_2", "style/relu1_2", "style/relu2_2", "tv"]
    assert float(found.total) == pytest.approx(float(expected.total), rel=1e-5)


def test_the_key_changes_with_the_photo_the_painting_and_the_settings(world):
    photo = np.zeros((32, 32, 3), np.uint8)
    other = photo.copy()
    other[3, 4, 1] = 1
    cpu, sea, red = torch.device("cpu"), world / "paintings/sea.png", world / "paintings/red.png"
    yardsticks = [
        Yardstick(SETTINGS, sea, cpu),
        Yardstick(SETTINGS, red, cpu),
        Yardstick(SETTINGS | {"tv": 1}, sea, cpu),
    ]
    keys = {yardstick.key(photo) for yardstick in yardsticks} | {yardsticks[0].key(other)}
    assert len(keys) == 4 and Yardstick(SETTINGS, sea, cpu).key(photo) in keys


# Levels


def level(name: str, *evaluations: int | None, objective: float = 1.0) -> Level:
    parts = {"objective": objective, "content": 0.4, "style": 0.5, "tv": 0.1}
    return Level(name, 5000, [parts] * len(evaluations), list(evaluations), 300)


def test_mean_and_median_of_evaluations():
    four = level("a", 10, 20, 40, 90)
    assert (four.mean, four.median, four.shown) == (40, 30, "40")
    one_short = level("a", 10, 20, 40, None)
    assert (one_short.mean, one_short.median, one_short.shown) == (None, 30, "> 92")  # (10 + 20 + 40 + 300) / 4
    short = level("a", 10, 20, None, None)
    assert (short.mean, short.median) == (None, None)
    assert level("a", None, None).shown == "> 300"
    assert (level("a", 0, 0).mean, level("a", 0, 0).shown) == (0, "0")


SCORES = {
    "checkerboard": {"level": 0.51, "found": 0.52, "floor": 0.1},
    "blotch": 12.34,
    "clipping": {"painting": 0.0123, "photo": 0.05},
    "non_finite": 0,
    "parity": {"largest_difference": 1, "share_within_1_of_255": 1.0},
}


def result(of: Level, *beside: Level, style: str = "sea", size: int = 256) -> Result:
    photos = [f"{i}.png" for i in range(len(of.evaluations))]
    return Result(style, size, photos, of, list(beside), SCORES, [curve((0, 2.0), (30, 0.5))] * len(photos))


def test_the_ratio_is_of_the_means():
    found = result(
        level("ours", 30, 60), level("theirs", 20, 40, objective=1.25), level("far", 30, None), level("0", 0, 0)
    )
    assert [found.ratio(other) for other in found.beside] == [1.5, None, None]
    assert result(level("ours", None), level("theirs", 20)).ratio(level("theirs", 20)) is None
    entry = found.entry()
    assert entry["beside"]["theirs"] == {
        "pictures": 5000,
        "objective": 1.25,
        "objective_ratio": 0.8,
        "equivalent_evaluations": 30,
        "median": 30,
        "ratio": 1.5,
    }
    assert (entry["objective"], entry["content_part"], entry["style_part"], entry["tv_part"]) == (1.0, 0.4, 0.5, 0.1)
    assert (entry["equivalent_evaluations"], entry["median"], entry["cap"]) == (45, 45, 300)
    assert entry["blotch"] == 12.34 and entry["device"] == "a processor" and entry["torch"] == "2.9"


def test_what_was_not_reached_is_no_number():
    entry = result(level("ours", 30, None)).entry()
    assert entry["equivalent_evaluations"] is None and entry["evaluations"] == [30, None] and entry["cap"] == 300


def test_the_table():
    text = table(
        [result(level("ours", 30, None), level("theirs", 20, 40)), result(level("ours", 45), level("theirs", 30))]
    )
    head, rule, ours, theirs, _, ratio = text.splitlines()
    assert head.count("|") == rule.count("|") == ours.count("|") == theirs.count("|") == 16
    assert ours == (
        "| ours | sea | 256 | 5,000 | 1.000 | 0.400 | 0.500 | > 165 | > 300 |  | 0.51 (0.10) | 12.3 | 1.23% (5.00%) "
        "| 0 | 1 of 255, 100.000% within 1 |"
    )
    assert theirs == "| theirs | sea | 256 | 5,000 | 1.000 | 0.400 | 0.500 | 30 | 30 |  |  |  |  |  |  |"
    assert ratio.split(" | ")[7:10] == ["30", "30", "1.50"]


def test_the_card_gets_the_results_and_keeps_the_rest(pack):
    before = json.loads((pack / "card.json").read_text())
    write_card(pack, [result(level("ours", 10)), result(level("ours", 20), size=512)])
    write_card(pack, [result(level("ours", 40)), result(level("ours", 70), style="red")])
    after = json.loads((pack / "card.json").read_text())
    entries = after["quality"].pop("bench")
    assert after == before and list(after) == list(before)
    found = [(entry["style"], entry["size"], entry["equivalent_evaluations"]) for entry in entries]
    assert found == [("sea", 512, 20), ("sea", 256, 40), ("red", 256, 70)]


def test_a_card_that_cannot_be_written_is_refused_early(pack, monkeypatch):
    check_card(pack)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(WrongCall, match="takes no files.*leave --write out"):
        check_card(pack)


# Packs


def test_every_style_is_measured_beside_the_packs_that_have_it(world, measured):
    assert [(found.style, found.size, found.photos) for found in measured] == [
        ("red", 32, ["00.png", "01.png"]),
        ("sea", 32, ["00.png", "01.png"]),
    ]
    red, sea = measured
    assert red.beside == [] and [other.network for other in sea.beside] == ["other"]
    for found in measured:
        assert found.level.network == "pack" and found.level.pictures == 1200
        for parts in found.level.parts:
            assert parts["objective"] == pytest.approx(parts["content"] + parts["style"] + parts["tv"], rel=1e-5)
        assert found.scores["non_finite"] == 0 and found.scores["parity"]["largest_difference"] <= 1


def test_levels_are_of_the_styles_own_paintings(world, measured):
    """Against the objective called on what ONNX Runtime paints in the second style."""
    sea = measured[1]
    photo = square(np.asarray(Image.open(world / "photos/01.png")), 32)
    yardstick = Yardstick(SETTINGS, world / "paintings/sea.png", torch.device("cpu"))
    first, second = (painter(world / "pack", 1, style)(photo) for style in ("red", "sea"))
    assert not np.array_equal(first, second) and np.array_equal(painter(world / "pack", 1)(photo), first)
    expected = yardstick.terms(yardstick.tensor(second), yardstick.content(photo)).total
    assert sea.level.parts[1]["objective"] == pytest.approx(float(expected), rel=1e-5)
    crossing = sea.curves[1].crossing(float(expected), 12)
    assert sea.level.evaluations[1] == crossing
    assert all(first[1] > then[1] for first, then in zip(sea.curves[1].points, sea.curves[1].points[1:], strict=False))


def test_finished_curves_are_kept_and_damaged_ones_made_again(world, measured, tmp_path, monkeypatch):
    output = Path(shutil.copytree(world / "out", tmp_path / "out"))
    made, optimise = [], optimisation_curve

    def counted(*arguments):
        made.append(1)
        return optimise(*arguments)

    monkeypatch.setattr(quality_module, "optimisation_curve", counted)
    progress: list[tuple[int, int]] = []
    again = measure(world, output, beside=[str(world / "other")])
    assert again.run(lambda *done: progress.append(done)) == measured
    assert made == [] and progress[-1] == (48, 48) and progress == sorted(progress)
    files = sorted((output / "curves").iterdir())
    assert len(files) == 4
    files[0].write_text("{")
    assert again.run() == measured and len(made) == 1
    assert Curve.read(files[0]) is not None


def test_a_curve_that_is_too_short_is_made_longer(world, tmp_path, monkeypatch):
    monkeypatch.setattr(quality_module, "painter", lambda *rest: lambda rgb: np.full_like(rgb, 128))
    few = measure(world, tmp_path, count=1, max_evaluations=5).run()
    monkeypatch.setattr(
        quality_module, "_parts", lambda *rest: dict.fromkeys(("objective", "content", "style", "tv"), 0.0)
    )
    none = measure(world, tmp_path, count=1, max_evaluations=5).run()
    more = measure(world, tmp_path, count=1, max_evaluations=9).run()
    for short, same, longer in zip(few, none, more, strict=True):
        assert same.level.evaluations == longer.level.evaluations == [None] and longer.curves[0].evaluations >= 9
        assert longer.curves[0].points[: len(short.curves[0].points)] == short.curves[0].points
        assert same.level.shown == "> 5" and longer.level.shown == "> 9"


def test_a_network_that_gives_the_photo_back_is_worth_nothing(world, tmp_path, monkeypatch):
    monkeypatch.setattr(quality_module, "painter", lambda *rest: lambda rgb: rgb)
    for found in measure(world, tmp_path).run():
        assert found.level.evaluations == [0, 0] and found.level.mean == 0
        assert found.level.part("content") == 0
        assert found.scores["clipping"]["painting"] == found.scores["clipping"]["photo"]


def test_a_stop_keeps_the_finished_curves(world, tmp_path, monkeypatch):
    optimise = optimisation_curve

    def stopped(*arguments):
        if any((tmp_path / "curves").glob("*")):
            raise KeyboardInterrupt
        return optimise(*arguments)

    monkeypatch.setattr(quality_module, "optimisation_curve", stopped)
    with pytest.raises(Interrupted, match="run the same command again to go on"):
        measure(world, tmp_path).run()
    assert len(list((tmp_path / "curves").iterdir())) == 1


def test_polish_starts_where_the_network_ends(world, measured):
    """With no evaluation it is the network's level; each further one is worth some of those from the photo."""
    level = next(result.level for result in measured if result.style == "red")
    photos = {"size": 32, "count": 2}
    none, some = polish(str(world / "pack"), world / "red.png", world / "photos", evaluations=(0, 12), **photos)
    assert none.objective == pytest.approx(level.part("objective"), rel=1e-5)
    assert none.from_photo == none.saved == level.mean and none.given_up == 0
    assert some.evaluations == 12 and some.objective < none.objective and some.from_photo >= none.from_photo
    with pytest.raises(WrongCall, match="got 99 photos"):
        polish(str(world / "pack"), world / "red.png", world / "photos", count=99)


def test_polish_counts_what_was_given_up_as_the_cap(monkeypatch):
    monkeypatch.setattr(polish_module, "CAP", 50)
    pairs = [(curve((0, 5.0), (4, 2.0)), curve((0, 9.0), (30, 2.0))), (curve((0, 4.0)), curve((0, 9.0), (50, 4.5)))]
    assert polish_module._row(pairs, 6) == Polish(6, 3.0, 40.0, 1)


def test_what_is_left_out_or_differs_is_said(world, pack, tmp_path):
    assert measure(world, tmp_path, beside=[str(world / "other")]).check() == []
    (tmp_path / "few").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "few/Sea.png")
    other = shutil.copytree(world / "other", tmp_path / "another")
    config = SETTINGS | {"tv": 2.0, "content": {"relu1_1": 1.0}}
    change_card(other, training={"config": config})
    found = measure(world, tmp_path, style_images=str(tmp_path / "few"), beside=[str(other)]).check()
    assert found == [
        f"left out, no painting in {tmp_path / 'few'}: red",
        "sea: Sea.png is not the file that the pack was trained on, by its SHA-256",
        "another was trained for another objective (content {'relu1_1': 1.0}; tv 2.0); it is judged by this one",
    ]


def test_wrong_calls(world, pack, tmp_path):
    def refused(text: str, **changes: object) -> None:
        with pytest.raises(WrongCall, match=text):
            measure(world, tmp_path, **changes).run()

    Image.new("RGB", (40, 40)).save(tmp_path / "lake.png")
    refused("no painting in .* for red, sea: expected a file of that name", style_images=str(tmp_path))
    refused("got 12, but .* has 11 photos", count=12)
    refused("expected sizes from 16 up", sizes=(8,))
    refused("0 photos", count=0)
    refused("device: got 'tpu'", device="tpu")
    refused("two packs are in folders named 'pack'", beside=[str(pack)])
    lake = shutil.copytree(world / "other", tmp_path / "lake")
    change_card(lake, styles=(Style("lake"),))
    refused("has the styles lake, expected one of: red, sea", beside=[str(lake)])


def test_a_card_that_does_not_state_its_objective(world, pack, tmp_path):
    change_card(pack, training={"config": {"tv": 1.0}})
    with pytest.raises(PackError, match=r"no content, style, convention, style_size under training\.config"):
        objective_settings(load_card(pack))
    with pytest.raises(PackError, match="does not say what it was trained for"):
        measure(world, tmp_path, pack=str(pack)).run()


def test_the_middle_square():
    photo = np.zeros((20, 60, 3), np.uint8)
    photo[:, 20:40] = (np.arange(20) * 10).astype(np.uint8)[None, :, None]
    assert np.array_equal(square(photo, 20), photo[:, 20:40])
    half = square(photo, 10).astype(int)
    assert half.shape == (10, 10, 3) and np.abs(half[5, 2:-2, 0] - (5 + 20 * np.arange(10))[2:-2]).max() <= 1
    assert square(photo, 40).shape == (40, 40, 3)


def test_exactness_counts_what_is_clipped_wrong_or_no_number():
    net = TransformerNet("johnson", styles=2).eval()
    photo = np.full((20, 24, 3), 100, np.uint8)
    photo[0, :6] = [0, 255, 7]  # 12 of 1440 values are 0 or 255
    with torch.no_grad():
        net.painter.output.weight.zero_()
        net.painter.output.bias.copy_(torch.tensor([0.5, 2.0, -1.0]))
    painting = np.broadcast_to(np.array([128, 255, 0], np.uint8), photo.shape).copy()
    found = exactness(net, 1, [photo, photo], [painting, painting])
    assert found["clipping"] == {"painting": pytest.approx(2 / 3), "photo": pytest.approx(12 / 1440)}
    assert found["non_finite"] == 0
    assert found["parity"] == {"largest_difference": 0, "share_within_1_of_255": 1.0}
    painting[:2, 0, 0] = [131, 127]
    found = exactness(net, 0, [photo], [painting])["parity"]
    assert found == {"largest_difference": 3, "share_within_1_of_255": pytest.approx(1 - 1 / 1440)}
    with torch.no_grad():
        net.painter.output.bias[1:] = torch.tensor([float("inf"), float("nan")])
    assert exactness(net, 0, [photo], [painting])["non_finite"] == 2 * 20 * 24


def test_the_command(world, measured, pack, tmp_path):
    pytest.importorskip("matplotlib")
    output = Path(shutil.copytree(world / "out", tmp_path / "out"))
    options = {"style-images": world / "paintings", "photos": world / "photos", "output": output}
    options |= {"beside": world / "other", "sizes": 32, "count": 2, "max-evaluations": 12, "threads": 1}
    arguments = ["quality", str(pack), *(str(part) for key, value in options.items() for part in (f"--{key}", value))]
    before = load_card(pack)
    done = CliRunner().invoke(bench, arguments, catch_exceptions=False)
    assert done.exit_code == 0 and done.stdout == (output / "table.md").read_text() == table(measured)
    assert load_card(pack) == before
    with Image.open(output / "quality.png") as picture:
        assert picture.size == (1440, 480)
    done = CliRunner().invoke(bench, [*arguments, "--write", "--json"], catch_exceptions=False)
    found = json.loads(done.stdout)
    assert found == json.loads((output / "quality.json").read_text())
    bench_entries = load_card(pack).quality["bench"]
    assert [entry["mean_curve"][0][0] for entry in found] == [0, 0]
    assert [{key: entry[key] for key in entry if key != "mean_curve"} for entry in found] == bench_entries
    assert dataclasses.replace(load_card(pack), quality=before.quality) == before
    wrong = CliRunner().invoke(bench, [*arguments, "--sizes", "big"])
    assert wrong.exit_code == 2 and "expected numbers such as 256,512" in wrong.stderr
