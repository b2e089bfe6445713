"""Nearest neighbours: brute force, planted folders, and the traps of norms, of precision and of the picture itself."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from looking import SIDE, noise, tiny_model
from PIL import Image
from torch import Tensor, nn

from impasto.errors import WrongCall
from impasto.visualization import Model, load_model, neighbours
from impasto.visualization.codes import Codes
from impasto.visualization.nearness import nearest, purity

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")


def codes(features: Tensor, pixels: Tensor | None = None, digests: list[int] | None = None) -> Codes:
    count = len(features)
    return Codes(
        features.float(),
        noise(count, 3, 4, 4) if pixels is None else pixels,
        torch.tensor(digests or list(range(count))),
    )


def brute(queries: Codes, found: Codes, index: int, count: int, distance: str) -> list[tuple[float, int]]:
    """By numpy's float64, a pair at a time."""
    fields = ("pixels" if distance == "pixels" else "features",) * 2
    asked, others = (getattr(each, name).double().numpy() for each, name in zip((queries, found), fields, strict=True))
    pairs = []
    for place, other in enumerate(others):
        if queries.digests[index] == found.digests[place]:
            continue
        if distance == "cosine":
            a, b = asked[index], other
            pairs.append((1 - float(a @ b) / math.sqrt(float(a @ a) * float(b @ b)), place))
        else:
            pairs.append((math.sqrt(float(((asked[index] - other) ** 2).sum())), place))
    return sorted(pairs)[:count]


class TestNearest:
    @pytest.mark.parametrize("distance", ["cosine", "l2", "pixels"])
    def test_is_brute_force(self, distance, monkeypatch):
        monkeypatch.setattr("impasto.visualization.nearness.BLOCK", 7)
        found = codes(noise(60, 12), noise(60, 3, 4, 4, seed=1))
        indices, distances = nearest(found, found, 5, distance)
        for query in range(20):
            expected = brute(found, found, query, 5, distance)
            assert indices[query].tolist() == [place for _, place in expected]
            assert distances[query].tolist() == pytest.approx([length for length, _ in expected], abs=1e-9)

    def test_small_differences_of_large_numbers(self):
        """Features of 1000 that differ by hundredths. Saboteur: in single precision most are wrong."""
        features = 1000 + noise(20, 50) / 100
        found = codes(features)
        expected = [brute(found, found, query, 1, "l2")[0][1] for query in range(20)]
        assert nearest(found, found, 1, "l2")[0][:, 0].tolist() == expected
        single = torch.cdist(features, features, compute_mode="use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
        assert sum(a != b for a, b in zip(single.argmin(1).tolist(), expected, strict=True)) >= 5

    def test_by_angle_a_short_vector_is_near_to_nothing_else(self):
        """By L2 the short one is the nearest of both others."""
        found = codes(torch.tensor([[4.0, 0.0], [4.0, 3.0], [0.0, 0.1], [0.0, 9.0]]))
        assert nearest(found, found, 1, "l2")[0][:, 0].tolist() == [1, 0, 0, 1]
        assert nearest(found, found, 1, "cosine")[0][:, 0].tolist() == [1, 0, 3, 2]
        assert nearest(found, found, 1, "cosine")[1][:, 0].tolist() == pytest.approx([0.2, 0.2, 0, 0], abs=1e-7)

    def test_neither_itself_nor_a_copy(self):
        features = torch.tensor([[0.0], [0.0], [1.0], [3.0]])
        found = codes(features, digests=[7, 7, 8, 9])
        indices, distances = nearest(found, found, 3, "l2")
        assert indices[0, :2].tolist() == [2, 3] and indices[1, :2].tolist() == [2, 3]
        assert distances[0].tolist() == [1, 3, math.inf], "no third one is left"
        assert nearest(found, found, 2, "l2", copies=True)[1].tolist()[0] == [0, 0]

    def test_of_equally_near_ones_the_first(self):
        found = codes(torch.tensor([[0.0], [1.0], [-1.0], [1.0], [-1.0]]))
        assert nearest(found, found, 4, "l2")[0][0].tolist() == [1, 2, 3, 4]

    def test_purity_by_hand(self):
        indices, distances = torch.tensor([[1, 2], [0, 2], [0, 1]]), torch.tensor([[1, 1], [1, 1], [1, math.inf]])
        assert purity(indices, distances, ("a", "a", "b")) == 2 / 5


def mean_colour() -> Model:
    """What goes into the linear layer is a picture's mean red, green and blue: no more."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    return load_model(network, size=SIDE, mean=(0, 0, 0), std=(1, 1, 1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Red and blue photos, in folders, that are bright in one of four quarters. In pixels the quarter is nearer."""
    for name, colour in (("reds", (1.0, 0.25, 0.25)), ("blues", (0.25, 0.25, 1.0))):
        (tmp_path / name).mkdir()
        for quarter in range(4):
            pixels = np.full((SIDE, SIDE, 3), 20.0)
            top, left = quarter // 2 * 16, quarter % 2 * 16
            pixels[top : top + 16, left : left + 16] = (200 + 8 * quarter) * np.array(colour)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name / f"{quarter}.png")
    return tmp_path


class TestPlanted:
    def test_features_see_the_colour_and_pixels_the_place(self, folder):
        found = neighbours(mean_colour(), folder, count=3)
        assert found.data["layer"] == "2:in" and len(found.data["rows"]) == 8
        for row in found.data["rows"]:
            here = Path(row["path"])
            assert {hit["label"] for hit in row["features"]} == {here.parent.name} == {row["label"]}
            first = Path(row["pixels"][0]["path"])
            assert first.name == here.name and first.parent.name != here.parent.name
        assert found.data["purity"]["features"] == 1 and found.data["purity"]["pixels"] <= 2 / 3
        assert found.data["purity"]["chance"] == pytest.approx(3 / 7)
        assert "100% of all photos' neighbours" in found.caption and "chance gives 43%" in found.caption

    def test_the_check_by_mirrors(self, folder):
        """A mean colour does not know left from right; the pixels find the mirror of another quarter."""
        found = neighbours(mean_colour(), folder).data["mirrored"]
        assert found == {"features": 1.0, "pixels": 0.0}

    def test_itself_as_a_neighbour_would_be_seen(self, folder, monkeypatch):
        """Saboteur: purity rises by itself if a photo is its own neighbour."""
        honest = neighbours(mean_colour(), folder, count=1).data["purity"]["pixels"]
        monkeypatch.setattr(
            "impasto.visualization.nearness.nearest",
            lambda *given, **named: nearest(*given, copies=True),
        )
        assert honest == 0 and neighbours(mean_colour(), folder, count=1).data["purity"]["pixels"] == 1

    def test_frames_and_tiles(self, folder):
        """Photos of 32 pixels in tiles of 32: what is inside the frame is the photo."""
        image = neighbours(mean_colour(), folder, rows=1, count=2, side=SIDE).images["neighbours"]
        pixels = np.asarray(image)
        green, red = (30, 158, 60), (208, 42, 30)
        assert (pixels == green).all(2).sum() == 2 * (2 * 32 * 2 + 2 * 28 * 2)
        assert (pixels == red).all(2).sum() >= 32 * 4 - 16, "the same quarter, of another folder"
        tops, lefts = (pixels == green).all(2).nonzero()
        tile = pixels[tops.min() : tops.min() + 32, lefts.min() : lefts.min() + 32][2:-2, 2:-2].astype(int)
        shown = neighbours(mean_colour(), folder, rows=1, count=1).data["rows"][0]["features"][0]["path"]
        photo = np.asarray(Image.open(shown))[2:-2, 2:-2].astype(int)
        assert np.abs(tile - photo).max() <= 1

    def test_a_photo_from_elsewhere(self, folder, tmp_path):
        Image.new("RGB", (40, 40), (200, 30, 30)).save(tmp_path / "query.png")
        pictures = [folder / "reds", folder / "blues"]
        found = neighbours(mean_colour(), pictures, query=tmp_path / "query.png", count=4)
        (row,) = found.data["rows"]
        assert {hit["label"] for hit in row["features"]} == {"reds"} and found.data["mirrored"] is None
        model = mean_colour()
        model.command = ()
        command = neighbours(model, pictures, query=tmp_path / "query.png").command
        assert command.endswith(f"blues --query {tmp_path / 'query.png'}")
        copy = neighbours(mean_colour(), folder, query=folder / "reds" / "1.png", count=8).data["rows"][0]
        assert all(Path(hit["path"]) != folder / "reds" / "1.png" for hit in copy["features"]), "not itself"


class TestFrame:
    def test_one_folder_has_no_labels(self, folder):
        found = neighbours(mean_colour(), folder / "reds", rows=2)
        assert found.data["purity"] is None and [row["label"] for row in found.data["rows"]] == [None, None]
        names = [Path(row["path"]).name for row in found.data["rows"]]
        assert names == ["0.png", "3.png"], "evenly spaced"
        assert len(found.data["rows"][0]["features"]) == 3, "fewer than asked for: there are no more"

    def test_shared(self, folder):
        found = neighbours(mean_colour(), folder, count=7).data["shared"]
        assert found == 1, "all photos are neighbours of all"
        assert neighbours(mean_colour(), folder, count=1).data["shared"] == 0

    def test_copies_only(self, tmp_path):
        for index in range(2):
            Image.new("RGB", (40, 40), "red").save(tmp_path / f"{index}.png")
        found = neighbours(mean_colour(), tmp_path)
        assert found.data["rows"][0]["features"] == [] and found.data["shared"] == 0

    def test_refusals(self, folder):
        with pytest.raises(WrongCall, match="neighbours: got 1 pictures, expected 2 or more"):
            neighbours(tiny_model(), folder / "reds" / "0.png")
        with pytest.raises(WrongCall, match="got rows 0, count 5 and side 112, expected 1 or more of each"):
            neighbours(tiny_model(), folder, rows=0)
        with pytest.raises(WrongCall, match="unknown distance 'pixels'. Expected one of: cosine, l2"):
            neighbours(tiny_model(), folder, distance="pixels")
