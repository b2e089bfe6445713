"""Deeper weights, read back from the picture; and patches' principal components, against sklearn and known spectra."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from looking import SIDE, data_folder, noise, tiny_model, write_photos
from PIL import Image
from torch import nn

from impasto.errors import WrongCall
from impasto.visualization import Result, deep_filters, kernels, load_model, patch_pca
from impasto.visualization.inputs import Pictures
from impasto.visualization.kernels import concentration, principal_components, symmetry
from impasto.visualization.registry import Refused

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")


def deeper(weights: torch.Tensor, groups: int = 1):
    """A network whose second convolution has these weights (N, C, h, w)."""
    channels = weights.shape[1] * groups
    layer = nn.Conv2d(channels, len(weights), weights.shape[2:], groups=groups, bias=False)
    layer.weight = nn.Parameter(weights)
    return load_model(nn.Sequential(nn.Conv2d(3, channels, 1), nn.ReLU(), layer), size=SIDE)


def pixels(image: Image.Image) -> np.ndarray:
    """Of the picture as its PNG file has it."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    with Image.open(buffer) as again:
        return np.asarray(again)


def weights_in(result: Result) -> dict[tuple[int, int], np.ndarray]:
    """(filter, input) -> its weights, from the file and the data alone."""
    grid, drawn, found = result.data["grid"], pixels(result.images["weights"]), {}
    pairs = [(row, column) for row in result.data["rows"] for column in result.data["inputs"]]
    for place, (row, column) in enumerate(pairs):
        top = 1 + place // grid["columns"] * (grid["height"] + 1)
        left = 1 + place % grid["columns"] * (grid["width"] + 1)
        cut = drawn[top : top + grid["height"], left : left + grid["width"]]
        assert (cut == cut[..., :1]).all(), "grey"
        middle = grid["zoom"] // 2
        values = cut[middle :: grid["zoom"], middle :: grid["zoom"], 0] / 255
        found[row["filter"], column] = (2 * values - 1) * row["limit"]
    return found


class TestDeepFilters:
    def test_the_lectures_layer_has_the_size_of_the_formula(self):
        """20 x 16 x 7 x 7 at 5 pixels a weight: 20 rows and 16 columns of 35 + 1, and a last line."""
        result = deep_filters(deeper(noise(20, 16, 7, 7) - 0.5))
        assert result.data["layer"] == "2" and result.data["shape"] == [20, 16, 7, 7]
        assert result.images["weights"].size == (16 * 36 + 1, 20 * 36 + 1)
        smaller = deep_filters(deeper(noise(20, 16, 7, 7) - 0.5), side=7)
        assert smaller.images["weights"].size == (16 * 8 + 1, 20 * 8 + 1)

    @pytest.mark.parametrize("shape", [(20, 16, 7, 7), (3, 5, 3, 2), (4, 6, 1, 1)])
    def test_every_weight_is_read_back_from_the_file(self, shape):
        """Each within half a step of 8 bits; measured 0.5 / 255 of a row's range."""
        weights = noise(*shape) * torch.arange(1, shape[0] + 1).view(-1, 1, 1, 1) - 0.3
        result = deep_filters(deeper(weights))
        limits = {row["filter"]: row["limit"] for row in result.data["rows"]}
        found = weights_in(result)
        assert len(found) == shape[0] * shape[1]
        for (out, into), values in found.items():
            assert limits[out] == pytest.approx(weights[out].abs().max().item())
            assert np.abs(values - weights[out, into].numpy()).max() <= limits[out] / 255 * 1.001, (out, into)
        assert 0 < result.data["read_back_error"] <= 0.502 / 255

    def test_rows_and_columns_by_their_sums_of_magnitudes(self):
        weights = torch.full((3, 4, 2, 2), -0.1)
        weights[2] *= 5
        weights[0] *= 2
        weights[:, 3] *= 3
        weights[:, 1] *= 2
        result = deep_filters(deeper(weights))
        assert [row["filter"] for row in result.data["rows"]] == [2, 0, 1]
        assert result.data["inputs"] == [3, 1, 0, 2]
        sums = weights.abs().sum((1, 2, 3))
        assert [row["norm"] for row in result.data["rows"]] == pytest.approx(sums[[2, 0, 1]].tolist())

    def test_zero_is_mid_grey_and_a_weak_row_is_not_a_weak_picture(self):
        """One scale for a row: its tiles compare with each other; each row reaches black or white."""
        weights = torch.zeros(2, 3, 2, 2)
        weights[0, 0], weights[0, 1] = 1, -0.5
        weights[1, 0] = -1e-3
        found = pixels(deep_filters(deeper(weights), side=2).images["weights"])[1::3, 1::3, 0]
        assert found.tolist() == [[255, 64, 128], [0, 128, 128]]

    def test_a_dead_filter_is_grey(self):
        weights = noise(2, 2, 3, 3)
        weights[1] = 0
        result = deep_filters(deeper(weights))
        assert result.data["rows"][1] == {"filter": 1, "norm": 0.0, "limit": 0.0}
        assert (pixels(result.images["weights"])[35:68, 1:34] == 128).all()

    def test_pages_show_every_weight_once(self):
        """5 x 7 filters' maps on pages of 2 x 3: three by three pages."""
        model = deeper(noise(5, 7, 3, 3))
        seen: list[tuple[int, int]] = []
        for page in range(1, 10):
            result = deep_filters(model, max_out=2, max_in=3, page=page)
            assert result.data["pages"] == 9 and f"page {page} of 9" in result.caption
            seen += list(weights_in(result))
        assert sorted(seen) == [(out, into) for out in range(5) for into in range(7)]
        whole = deep_filters(model)
        assert seen[:3] == [(whole.data["rows"][0]["filter"], into) for into in whole.data["inputs"][:3]]
        for page in (0, 10):
            with pytest.raises(WrongCall, match=f"got page {page}, expected 1 to 9"):
                deep_filters(model, max_out=2, max_in=3, page=page)
        with pytest.raises(WrongCall, match="got 0 rows and 3 columns"):
            deep_filters(model, max_out=0, max_in=3)

    def test_a_depthwise_convolution_is_a_square_of_filters(self):
        weights = noise(10, 1, 3, 3) - 0.5
        result = deep_filters(deeper(weights, groups=10))
        assert result.data["grid"]["columns"] == 4 and result.images["weights"].size == (4 * 34 + 1, 3 * 34 + 1)
        for (out, _), values in weights_in(result).items():
            assert np.abs(values - weights[out, 0].numpy()).max() <= weights[out].abs().max().item() / 255 * 1.001
        grouped = deep_filters(deeper(noise(6, 2, 3, 3), groups=3))
        assert grouped.data["inputs"] in ([0, 1], [1, 0]) and grouped.data["grid"]["columns"] == 2

    def test_the_first_that_says_something_is_shown(self):
        """Not the first layer's, and neither 1 x 1 nor depthwise if another is there."""
        assert deep_filters(tiny_model()).data["layer"] == "second"
        mixed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 3))
        assert deep_filters(load_model(mixed, size=SIDE)).data["layer"] == "3"
        assert deep_filters(load_model(mixed[:3], size=SIDE)).data["layer"] == "1"

    def test_refusals(self):
        with pytest.raises(Refused, match="linear is a Linear; expected a convolution"):
            deep_filters(tiny_model(), layer="linear")
        with pytest.raises(Refused, match="no second convolution; for the first see filters"):
            deep_filters(load_model(nn.Sequential(nn.Conv2d(3, 2, 1)), size=SIDE))
        with pytest.raises(WrongCall, match="unknown layer 'third'"):
            deep_filters(tiny_model(), layer="third")


@pytest.fixture
def photos(tmp_path) -> Pictures:
    write_photos(tmp_path, 5, SIDE, SIDE)
    return Pictures.of(tmp_path)


class TestPrincipalComponents:
    def test_are_sklearns(self):
        """Few rows, so that N for N - 1 (1.7 %), a mean not subtracted and another order are each seen."""
        decomposition = pytest.importorskip("sklearn.decomposition")
        rows = noise(60, 12) @ noise(12, 12, seed=1) + 3
        theirs = decomposition.PCA(svd_solver="full").fit(rows.numpy().astype(np.float64))
        variances, vectors = principal_components(rows)
        expected = torch.from_numpy(theirs.explained_variance_)
        assert (variances / expected - 1).abs().max() <= 1e-4, "measured 1e-12"
        assert np.abs(np.abs((vectors.numpy() * theirs.components_).sum(1)) - 1).max() <= 1e-6
        for sabotaged in (variances * 59 / 60, variances.flip(0), torch.linalg.eigvalsh(rows.T @ rows / 59).flip(0)):
            assert (sabotaged / expected - 1).abs().max() > 1e-2

    def test_are_orthonormal_and_their_sign_is_fixed(self):
        _, vectors = principal_components(noise(300, 27))
        assert (vectors @ vectors.T - torch.eye(27)).abs().max() <= 1e-5, "measured 2e-15"
        assert (vectors.gather(1, vectors.abs().argmax(1, keepdim=True)) > 0).all()

    def test_along_and_across_by_hand(self):
        variances, vectors = principal_components(torch.tensor([[1.0, 1.0], [3.0, 3.0], [2.0, 2.0], [2.0, 2.0]]))
        assert variances.tolist() == pytest.approx([4 / 3, 0]) and vectors[0].tolist() == pytest.approx([0.5**0.5] * 2)


class TestWaves:
    def test_a_cosine_is_one_frequency_and_an_edge_is_not(self):
        wave = torch.cos(torch.pi / 11 * 3 * (torch.arange(11.0) + 0.5)).expand(1, 3, 11, 11)
        assert concentration(wave)[0].item() == pytest.approx(1, abs=1e-6) and concentration(wave)[1].item()
        flat = concentration(torch.ones(1, 3, 11, 11))
        assert flat[0].item() == pytest.approx(1) and not flat[1].item(), "of frequency 0"
        point = torch.zeros(1, 1, 11, 11)
        point[..., 5, 5] = 1
        assert concentration(point)[0].item() < 0.05
        assert concentration(noise(50, 3, 11, 11) - 0.5)[0].mean() < 0.1
        assert symmetry(wave).item() == pytest.approx(1, abs=1e-5) and symmetry(noise(1, 1, 11, 11) - 0.5).item() < 0.5

    def test_a_diagonal_is_not_symmetric(self):
        places = torch.arange(11.0)
        diagonal = torch.cos(0.8 * (places[:, None] + places))[None, None]
        assert symmetry(diagonal).item() < 0.6

    @pytest.mark.data
    def test_of_photos_are_symmetric_waves(self):
        """Measured on 12 photos: concentration 0.88, symmetry 0.98.

        Of the same patches with their pixels shuffled, which have the same variances, 0.04 and 0.05; of noise 0.03 and
        0.04.
        """
        files = sorted(data_folder("photos").glob("*.jpg"))[:12]
        model = load_model(nn.Sequential(nn.Conv2d(3, 4, 3)), size=128)
        result = patch_pca(model, files, count=6000)
        first = result.data["components"][1:9]
        assert result.data["concentration"] >= 0.5
        assert np.mean([component["symmetry"] for component in first]) >= 0.8
        patches = kernels._patches(model, Pictures.of(files), 11, 6000, 0)
        shuffled = patches[:, torch.randperm(363, generator=torch.Generator().manual_seed(0))]
        for rows in (shuffled, noise(6000, 363)):
            components = principal_components(rows)[1][:9].view(-1, 3, 11, 11)
            assert concentration(components)[0][1:].mean() <= 0.15
            assert symmetry(components)[1:].mean() <= 0.4


class TestPatchPCA:
    def test_what_is_drawn_are_the_components(self, photos):
        model = tiny_model()
        result = patch_pca(model, photos, patch=5, count=400, top=20)
        patches = kernels._patches(model, photos, 5, 400, 0)
        variances, vectors = principal_components(patches)
        grid, drawn = result.data["grid"], pixels(result.images["components"])
        for index, facts in enumerate(result.data["components"]):
            top = 1 + index // grid["columns"] * (grid["height"] + 1)
            left = 1 + index % grid["columns"] * (grid["width"] + 1)
            cut = drawn[top : top + grid["height"] : grid["zoom"], left : left + grid["width"] : grid["zoom"]]
            back = (cut.transpose(2, 0, 1) / 127.5 - 1) * facts["limit"]
            assert np.abs(back - vectors[index].view(3, 5, 5).numpy()).max() <= facts["limit"] / 255 * 1.001
            assert facts["variance"] == pytest.approx(variances[index].item())
            assert facts["explained"] == pytest.approx((variances[index] / variances.sum()).item())
        assert len(result.data["components"]) == 20 and result.data["orthonormal_error"] <= 1e-5
        assert result.data["read_back_error"] <= 0.502 / 255
        assert set(result.images) == {"components", "beside", "variance"}

    def test_patches_are_cut_from_the_photos_evenly(self, photos):
        """Each is somewhere in its own photo; 5 photos give 80 or 81 of 401."""
        model = tiny_model()
        patches = kernels._patches(model, photos, 6, 401, 0).view(-1, 3, 6, 6)
        counts = []
        for _, photo in photos.batches(model, 1):
            windows = photo[0].unfold(1, 6, 1).unfold(2, 6, 1).permute(1, 2, 0, 3, 4).flatten(0, 1).flatten(1)
            inside = (torch.cdist(patches.flatten(1), windows, compute_mode="donot_use_mm_for_euclid_dist") == 0).any(1)
            counts.append(int(inside.sum()))
        assert sum(counts) == 401 and sorted(set(counts)) == [80, 81]
        other = kernels._patches(model, photos, 6, 401, 1).view(-1, 3, 6, 6)
        assert not torch.equal(patches, other)

    def test_without_filters_of_colours_there_is_nothing_beside(self, photos):
        class Grey(nn.Sequential):
            def forward(self, x):
                return super().forward(x.mean(1, keepdim=True))

        result = patch_pca(load_model(Grey(nn.Conv2d(1, 2, 3)), size=SIDE), photos, patch=4, count=50)
        assert set(result.images) == {"components", "variance"}

    def test_refusals(self, photos, tmp_path):
        for options in ({"patch": 1}, {"patch": SIDE + 1}, {"count": 1}, {"top": 0}):
            with pytest.raises(WrongCall, match="patch pca: got patch .* expected 2 to 32, 2 or more, 1 or more"):
                patch_pca(tiny_model(), photos, **options)
        grey = tmp_path / "flat" / "grey.png"
        grey.parent.mkdir()
        Image.new("RGB", (SIDE, SIDE), "gray").save(grey)
        with pytest.raises(Refused, match="the pictures are of one colour"):
            patch_pca(tiny_model(), grey, patch=3, count=50)
