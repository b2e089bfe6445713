"""Principal components against scikit-learn and by identities, and photos drawn at their places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from looking import SIDE, noise, tiny_model, write_photos
from PIL import Image
from torch import Tensor, nn

from impasto.errors import WrongCall
from impasto.visualization import load_model, pca
from impasto.visualization.components import principal_components
from impasto.visualization.inputs import Pictures
from impasto.visualization.layouts import by_chance, scattered, tile, trustworthiness
from impasto.visualization.registry import Refused

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")


def stretched(count: int = 40, width: int = 12) -> Tensor:
    """Around a mean far from 0, wider along some axes than along others."""
    return noise(count, width).double() * torch.linspace(3, 0.3, width) + 5


class TestComponents:
    @pytest.mark.parametrize("shape", [(40, 12), (9, 12)])
    def test_are_scikit_learns(self, shape):
        """Measured 1e-14. Saboteur: without the mean taken off the places are 5 and more off."""
        oracle = pytest.importorskip("sklearn.decomposition").PCA(svd_solver="full")
        vectors = stretched(*shape)
        found, places = principal_components(vectors), oracle.fit_transform(vectors.numpy())
        count = min(shape[0] - 1, shape[1])
        signs = np.sign((found.axes[:count].numpy() * oracle.components_[:count]).sum(1))
        assert np.abs(found.axes[:count].numpy() - signs[:, None] * oracle.components_[:count]).max() <= 1e-10
        assert np.abs(found.places[:, :count].numpy() - signs * places[:, :count]).max() <= 1e-10
        assert found.shares[:count].numpy() == pytest.approx(oracle.explained_variance_ratio_[:count], abs=1e-12)
        left, values, _ = torch.linalg.svd(vectors, full_matrices=False)
        assert np.abs(np.abs((left * values)[:, 0].numpy()) - np.abs(places[:, 0])).max() >= 5

    def test_give_the_vectors_back(self):
        """The error of the first k is what the others hold: an identity of singular values."""
        vectors = stretched()
        found = principal_components(vectors)
        assert torch.allclose(found.mean + found.places @ found.axes, vectors, atol=1e-12)
        total = (vectors - vectors.mean(0)).square().sum()
        for k in (1, 4, 11):
            error = (found.mean + found.places[:, :k] @ found.axes[:k] - vectors).square().sum()
            assert float(error / total) == pytest.approx(float(found.shares[k:].sum()), rel=1e-9)
        assert torch.allclose(found.axes @ found.axes.T, torch.eye(12, dtype=torch.float64), atol=1e-12)
        assert float(found.shares.sum()) == pytest.approx(1) and (found.shares.diff() <= 0).all()

    def test_signs_are_settled(self):
        found = principal_components(stretched())
        assert (found.axes.gather(1, found.axes.abs().argmax(1, keepdim=True)) > 0).all()
        turned = principal_components(-stretched())
        assert torch.allclose(turned.axes, found.axes, atol=1e-10)

    def test_a_line_by_hand(self):
        """Points at -1, 0 and 1 times (3, 4): one component, (0.6, 0.8), places -5, 0 and 5."""
        found = principal_components(torch.tensor([[-2.0, -3.0], [1.0, 1.0], [4.0, 5.0]], dtype=torch.float64))
        assert found.axes[0].tolist() == pytest.approx([0.6, 0.8])
        assert found.places[:, 0].tolist() == pytest.approx([-5, 0, 5], abs=1e-12)
        assert found.shares.tolist() == pytest.approx([1, 0], abs=1e-12)

    def test_refuses_what_is_all_the_same(self):
        with pytest.raises(Refused, match="all pictures have the same features: nothing tells them apart"):
            principal_components(torch.full((5, 3), 0.1, dtype=torch.float64))


class TestTrustworthiness:
    def test_by_its_formula(self):
        """Venna and Kaski's, a picture at a time."""
        vectors, places = stretched(30), noise(30, 2).double()
        count, penalty = 10, 0
        for index in range(30):
            ranks = (vectors - vectors[index]).norm(dim=1).argsort().argsort().tolist()
            near = (places - places[index]).norm(dim=1).argsort()[1 : count + 1].tolist()
            penalty += sum(max(0, ranks[other] - count) for other in near)
        expected = 1 - 2 / (30 * count * (2 * 30 - 3 * count - 1)) * penalty
        assert trustworthiness(vectors, places) == pytest.approx(expected, abs=1e-12)

    def test_is_1_for_the_same_plane_and_about_a_half_by_chance(self):
        places = noise(200, 2, seed=3).double()
        assert trustworthiness(places, places) == 1
        assert 0.45 <= trustworthiness(places, by_chance(200)) <= 0.55, "measured 0.50"

    def test_of_three(self):
        assert 0 <= trustworthiness(noise(3, 5).double(), noise(3, 2).double()) <= 1


def colours(folder: Path, count: int = 5) -> list[tuple[int, int, int]]:
    """Photos of one colour each, all different and none white."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [(40 * index + 10, 200 - 40 * index, 100) for index in range(count)]
    for index, colour in enumerate(found):
        Image.new("RGB", (50, 40), colour).save(folder / f"{index}.png")
    return found


def box_of(image: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    rows, columns = (np.asarray(image) == colour).all(2).nonzero()
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


class TestScattered:
    PLACES = torch.tensor([[0.0, 0.0], [10.0, 0.0], [10.0, 5.0], [4.0, 5.0], [5.0, 2.0]], dtype=torch.float64)

    def test_each_at_its_place(self, tmp_path):
        """10 wide and 5 high in 220 pixels with thumbnails of 20: 20 pixels to one, the second axis up."""
        known = colours(tmp_path)
        image = scattered(tiny_model(), Pictures.of(tmp_path), self.PLACES, side=220, thumbnail=20)
        assert image.size == (220, 120)
        for colour, (x, y) in zip(known, self.PLACES.tolist(), strict=True):
            left, top = round(20 * x), round(100 - 20 * y)
            assert box_of(image, colour) == (left, top, left + 20, top + 20)

    def test_later_ones_are_on_top(self, tmp_path):
        known = colours(tmp_path, 2)
        image = scattered(
            tiny_model(), Pictures.of(tmp_path), torch.tensor([[0.0, 0.0], [1.0, 0.0]]), side=30, thumbnail=20
        )
        assert box_of(image, known[0]) == (0, 0, 10, 20) and box_of(image, known[1]) == (10, 0, 30, 20)

    def test_frames_and_a_key_for_up_to_eight_folders(self, tmp_path):
        colours(tmp_path)
        given = {"side": 220, "thumbnail": 40}
        pictures = Pictures.of(tmp_path)
        plain = scattered(tiny_model(), pictures, self.PLACES, **given)
        framed = scattered(tiny_model(), pictures, self.PLACES, labels=("a", "b", "a", "b", "a"), **given)
        assert framed.height == plain.height + 24
        pixels = np.asarray(framed)
        first, second = ((pixels == colour).all(2) for colour in ((31, 95, 191), (200, 64, 30)))
        assert first[24:].sum() > 2 * 4 * 38 * 2 and second[24:].sum() > 4 * 38 * 2 and first[:24].any()
        write_photos(tmp_path / "more", 4)
        places, nine = noise(9, 2), Pictures.of(tmp_path)
        many = tuple(f"folder {index}" for index in range(9))
        plain, nine = (scattered(tiny_model(), nine, places, labels=labels, **given) for labels in ((), many))
        assert np.array_equal(np.asarray(plain), np.asarray(nine))

    def test_all_at_one_place(self, tmp_path):
        colours(tmp_path, 3)
        assert scattered(tiny_model(), Pictures.of(tmp_path), torch.zeros(3, 2), side=60, thumbnail=30).size == (30, 30)

    def test_a_thumbnail_is_what_the_network_reads(self, tmp_path):
        """At the network's own size; and at twice that it is sharper than an enlargement."""
        (path,) = write_photos(tmp_path, 1, 80, 64)
        read = tiny_model().read(path)[0].permute(1, 2, 0).numpy() * 255
        small = np.asarray(tile(tiny_model(), path, SIDE)).astype(float)
        assert small.shape == (SIDE, SIDE, 3) and np.abs(small - read).mean() <= 3, "measured 1.2"

    def test_refuses_thumbnails_that_do_not_fit(self, tmp_path):
        colours(tmp_path)
        with pytest.raises(WrongCall, match="thumbnails of 300 pixels in a picture of 220: expected 1 to 220"):
            scattered(tiny_model(), Pictures.of(tmp_path), self.PLACES, side=220, thumbnail=300)


class TestTechnique:
    def test_planted_directions(self, tmp_path):
        """Features are mean colours: red varies most, then green. Red goes right, green goes up."""
        for index, (red, green) in enumerate([(20, 100), (120, 60), (220, 100), (120, 140), (120, 100)]):
            Image.new("RGB", (40, 40), (red, green, 50)).save(tmp_path / f"{index}.png")
        network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
        model = load_model(network, size=SIDE, mean=(0, 0, 0), std=(1, 1, 1))
        found = pca(model, tmp_path, distance="l2", side=200, thumbnail=20, top=2)
        where = [(point["x"] * 255, point["y"] * 255) for point in found.data["points"]]
        assert np.array(where) == pytest.approx(np.array([(-100, 0), (0, -40), (100, 0), (0, 40), (0, 0)]), abs=1e-4)
        assert found.data["shares"] == pytest.approx([20000 / 23200, 3200 / 23200, 0], abs=1e-6)
        assert box_of(found.images["scatter"], (220, 100, 50))[2] == 200
        assert set(found.images) == {"scatter", "scree", "ends"} and "100% of the variance" in found.caption
        pixels = np.asarray(found.images["ends"])
        rows, columns = (pixels == (20, 100, 50)).all(2).nonzero()
        others = (pixels == (220, 100, 50)).all(2).nonzero()
        assert columns[rows < 150].max() < others[1][others[0] < 150].min(), (
            "the lowest of the first left of the highest"
        )

    def test_fewer_features_than_a_plane_has_axes(self, tmp_path):
        write_photos(tmp_path, 4)
        model = load_model(nn.Sequential(nn.Conv2d(3, 1, 1)), size=SIDE)
        found = pca(model, tmp_path, layer="0", distance="l2", side=100)
        assert all(point["y"] == 0 for point in found.data["points"])

    def test_refusals(self, tmp_path):
        write_photos(tmp_path, 3)
        with pytest.raises(WrongCall, match="pca: got 2 pictures, expected 3 or more"):
            pca(tiny_model(), sorted(tmp_path.iterdir())[:2])
        with pytest.raises(WrongCall, match="pca: got top 0, side 2000 and thumbnail 0"):
            pca(tiny_model(), tmp_path, top=0)
        for path in tmp_path.iterdir():
            Image.new("RGB", (40, 40), "red").save(path)
        with pytest.raises(Refused, match="all pictures have the same features"):
            pca(tiny_model(), tmp_path)
