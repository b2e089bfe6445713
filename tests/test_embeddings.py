"""t-SNE: planted groups and digits with their controls, the same twice, and TensorBoard's projector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from looking import tiny_model, write_photos
from PIL import Image
from torch import Tensor

from impasto.errors import WrongCall
from impasto.visualization import Result, embeddings, tsne
from impasto.visualization.codes import Codes
from impasto.visualization.components import principal_components
from impasto.visualization.embeddings import embed
from impasto.visualization.layouts import by_chance, trustworthiness
from impasto.visualization.nearness import nearest, purity
from impasto.visualization.registry import Refused
from impasto.visualization.result import Embedding

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

pytest.importorskip("sklearn")


def pure(places: Tensor, labels: tuple[str, ...]) -> float:
    """The share of the 5 nearest in a plane with the same label."""
    count = len(places)
    found = Codes(places, torch.zeros(count, 3, 1, 1), torch.arange(count))
    return purity(*nearest(found, found, 5, "l2"), labels)


def groups(count: int = 8, each: int = 12, width: int = 30) -> tuple[Tensor, tuple[str, ...]]:
    """Around centres in 30 dimensions, hardly farther apart than their points: the best plane mixes them."""
    generator = torch.Generator().manual_seed(0)
    centres = 1.2 * torch.randn(count, width, generator=generator, dtype=torch.float64)
    points = centres.repeat_interleave(each, 0) + torch.randn(
        count * each, width, generator=generator, dtype=torch.float64
    )
    return points, tuple(str(index // each) for index in range(count * each))


class TestEmbed:
    def test_planted_groups(self):
        """Measured: purity 1.00 (two components 0.72, chance 0.11), trustworthiness 0.997 (0.91, 0.51)."""
        vectors, labels = groups()
        places, divergence = embed(vectors)
        plane, chance = principal_components(vectors).places[:, :2], by_chance(len(vectors))
        assert places.shape == (96, 2) and places.dtype == torch.float64 and 0 < divergence < 2
        assert pure(places, labels) >= 0.95 > 0.85 >= pure(plane, labels) >= 0.5 > 0.2 >= pure(chance, labels)
        trust = [trustworthiness(vectors, each) for each in (places, plane, chance)]
        assert trust[0] >= 0.97 and trust[0] >= trust[1] + 0.05 and trust[2] <= 0.6
        assert torch.equal(embed(vectors)[0], places), "the same twice"

    def test_digits(self):
        """Ten kinds. Measured: 0.98 in t-SNE's plane, 0.64 in that of two components, which must be between."""
        data, kinds = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
        vectors, labels = torch.from_numpy(data[:250]), tuple(map(str, kinds[:250]))
        plane = pure(principal_components(vectors).places[:, :2], labels)
        assert pure(embed(vectors)[0], labels) >= 0.9 and 0.5 <= plane <= 0.75

    def test_perplexity_is_at_most_a_third(self, monkeypatch):
        asked: list[float] = []
        from sklearn import manifold

        class Spy(manifold.TSNE):
            def __init__(self, **options: object) -> None:
                asked.append(options["perplexity"])
                super().__init__(**options)

        monkeypatch.setattr(manifold, "TSNE", Spy)
        assert embed(groups(2, 5)[0])[0].isfinite().all() and embed(groups(2, 5)[0], 2)[0].isfinite().all()
        assert asked == [3, 2]

    def test_three_and_copies(self):
        vectors = torch.tensor([[0.0, 1.0], [0.0, 1.0], [3.0, 0.0]], dtype=torch.float64)
        assert embed(vectors)[0].isfinite().all()
        with pytest.raises(Refused, match="all pictures have the same features"):
            embed(vectors[:2].repeat(2, 1))

    def test_one_number(self):
        assert embed(torch.arange(8).double()[:, None])[0].isfinite().all()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("left", "right"):
        write_photos(tmp_path / "photos" / name, 6)
    return tmp_path / "photos"


class TestTechnique:
    def test_what_is_drawn_and_said(self, folder):
        found = tsne(tiny_model(), folder, side=200, thumbnail=20)
        assert max(found.images["scatter"].crop((0, 24, 200, 224)).size) == 200
        assert [Path(point["path"]).parent.name for point in found.data["points"]] == ["left"] * 6 + ["right"] * 6
        assert found.data["points"][7]["label"] == "right" and found.data["perplexity"] == pytest.approx(11 / 3)
        trust = found.data["trustworthiness"]
        assert set(trust) == {"tsne", "pca", "chance"} and f"Trustworthiness {trust['tsne']:.2f}" in found.caption

    def test_the_thumbnails_are_at_the_points(self, tmp_path):
        """Each photo's colour is found where data says, scaled to the picture."""
        for index in range(6):
            Image.new("RGB", (40, 40), (40 * index, 220 - 40 * index, 90)).save(tmp_path / f"{index}.png")
        found = tsne(tiny_model(), tmp_path, distance="pixels", side=300, thumbnail=10)
        places = np.array([(point["x"], point["y"]) for point in found.data["points"]])
        scale = 290 / (places.max(0) - places.min(0)).max()
        for index, (x, y) in enumerate((places - places.min(0)) * scale):
            pixels = np.asarray(found.images["scatter"])
            rows, columns = (pixels == (40 * index, 220 - 40 * index, 90)).all(2).nonzero()
            assert abs(columns.min() - x) <= 0.51 and abs(pixels.shape[0] - 10 - rows.min() - y) <= 0.51

    def test_by_angle_as_by_l2_of_unit_length(self, folder):
        model = tiny_model()
        kinds = {name: tsne(model, folder, distance=name, side=100) for name in ("cosine", "l2", "pixels")}
        given = {name: found.embedding for name, found in kinds.items()}
        assert np.linalg.norm(given["cosine"].vectors, axis=1) == pytest.approx(1)
        assert given["l2"].vectors.shape == (12, 8) and given["pixels"].vectors.shape == (12, 3072)
        assert len({str(found.data["points"]) for found in kinds.values()}) == 3

    def test_refusals(self, folder):
        with pytest.raises(WrongCall, match="tsne: got 2 pictures, expected 3 or more"):
            tsne(tiny_model(), sorted((folder / "left").iterdir())[:2])
        for wrong in ({"perplexity": 0}, {"perplexity": float("nan")}, {"side": 0}, {"thumbnail": -1}):
            with pytest.raises(WrongCall, match="expected a number above 0, 1 or more and 0 or more"):
                tsne(tiny_model(), folder, **wrong)

    def test_without_scikit_learn(self, folder, monkeypatch):
        from impasto.errors import MissingExtra

        monkeypatch.setitem(__import__("sys").modules, "sklearn.manifold", None)
        with pytest.raises(MissingExtra, match=r"t-SNE needs the package 'sklearn': pip install 'impasto\[see\]'"):
            tsne(tiny_model(), folder)
        assert not hasattr(embeddings, "manifold"), "imported only when it is used"


class TestProjector:
    def test_vectors_names_and_pictures(self, folder, tmp_path, capfd):
        pytest.importorskip("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        found = tsne(tiny_model(), folder, side=100)
        for _ in range(2):
            with SummaryWriter(tmp_path / "log") as writer:
                found.tensorboard(writer, step=3)
        assert capfd.readouterr() == ("", "")
        place = tmp_path / "log" / "00003" / "features"
        rows = [line.split("\t") for line in (place / "tensors.tsv").read_text().splitlines()]
        assert np.array(rows, dtype=float) == pytest.approx(found.embedding.vectors, abs=1e-7)
        names = (place / "metadata.tsv").read_text().splitlines()
        assert names[0] == "left/00.png" and len(names) == 12
        with Image.open(place / "sprite.png") as sprite:
            assert sprite.size == (4 * 32, 4 * 32)
            second = np.asarray(sprite)[:32, 32:64].transpose(2, 0, 1)
        assert np.abs(second / 255 - found.embedding.pictures[1]).max() <= 1 / 255
        config = (tmp_path / "log" / "projector_config.pbtxt").read_text()
        assert "00003/features/tensors.tsv" in config and "00003/features/sprite.png" in config

    def test_a_name_is_one_cell(self, tmp_path):
        pytest.importorskip("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        given = Embedding(np.zeros((2, 3), np.float32), ("a\tb\nc", "d"), np.zeros((2, 3, 4, 4), np.float32))
        with SummaryWriter(tmp_path) as writer:
            Result({}, embedding=given).tensorboard(writer)
        assert (tmp_path / "00000" / "features" / "metadata.tsv").read_text() == "a b c\nd\n"
