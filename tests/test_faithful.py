"""What maps are worth: areas and ranks known by hand, torchcam's numbers, networks that forget, and the controls."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch
from looking import CLASSES, SIDE, Tiny, data_folder, noise, photo, tiny_model, write_photos
from PIL import Image
from torch import Tensor, nn

from impasto.errors import WrongCall
from impasto.visualization import faithful, faithfulness, load_model, registry
from impasto.visualization.backprop import spearman
from impasto.visualization.cams import cam_map
from impasto.visualization.cascade import forgetting, parts
from impasto.visualization.evidence import (
    blurred,
    centre_map,
    curves,
    deleted,
    drop_and_increase,
    edge_map,
    probability_of,
    random_map,
    ranking,
)
from impasto.visualization.gradients import saliency_map
from impasto.visualization.registry import Refused

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

BLACK, WHITE = torch.zeros(1, 3, 8, 10), torch.ones(1, 3, 8, 10)


def region(rows: slice = slice(0, 4), columns: slice = slice(0, 5)) -> Tensor:
    """(8, 10), 1 in a quarter of it."""
    mask = torch.zeros(8, 10)
    mask[rows, columns] = 1
    return mask


def kept(mask: Tensor):
    """A network whose probability is the part of a region that is still white."""
    return lambda pictures: ((pictures[:, 0] * mask).sum((1, 2)) / mask.sum()).double()


class TestAreas:
    """Of a network whose probability is the part of a quarter of the picture that is there: exact, to 1e-6."""

    @pytest.mark.parametrize("steps", [4, 8, 16, 40])
    def test_of_the_perfect_map(self, steps):
        """Deletion falls to 0 over the first quarter and stays: 1/8. Insertion is its mirror: 7/8."""
        found = curves(kept(region()), WHITE, BLACK, region(), steps=steps)
        assert found.areas() == pytest.approx((1 / 8, 7 / 8), abs=1e-6)
        assert found.fractions.tolist() == pytest.approx(np.linspace(0, 1, steps + 1).tolist())

    def test_of_the_worst_map(self):
        found = curves(kept(region()), WHITE, BLACK, -region(), steps=8)
        assert found.areas() == pytest.approx((7 / 8, 1 / 8), abs=1e-6)

    def test_of_half_of_the_region(self):
        """Its left half first, then all else alike with its right half: p = 1 - 4 t to t = 1/8, then on to 0 at 1."""
        half = region(slice(0, 4), slice(0, 2)) * 2
        probability = kept(region(slice(0, 4), slice(0, 4)))
        order = half - torch.arange(80.0).view(8, 10) * 1e-3
        found = curves(probability, WHITE, BLACK, order, steps=80)
        rest, value, expected = order.clone().flatten(), [], region(slice(0, 4), slice(0, 4)).flatten()
        for _ in range(81):
            value.append(float(expected.sum() / 16))
            best = int(rest.argmax())
            expected[best], rest[best] = 0, -torch.inf
        assert found.deletion.tolist() == pytest.approx(value)
        assert found.areas()[0] == pytest.approx(np.trapezoid(value, dx=1 / 80), abs=1e-6)

    def test_steps_that_do_not_divide_the_pixels(self):
        """7 of 80 pixels' steps are 11 or 12: the area is under the fractions that were really changed."""
        counts = np.array([0, 11, 23, 34, 46, 57, 69, 80])
        whole = kept(torch.ones(8, 10))
        found = curves(lambda pictures: whole(pictures) ** 2, WHITE, BLACK, noise(8, 10), steps=7)
        assert (found.fractions * 80).tolist() == counts.tolist()
        assert found.areas()[0] == pytest.approx(np.trapezoid((1 - counts / 80) ** 2, counts / 80), abs=1e-6)
        assert found.areas()[1] == pytest.approx(np.trapezoid((counts / 80) ** 2, counts / 80), abs=1e-6)
        even = np.trapezoid((1 - counts / 80) ** 2, np.linspace(0, 1, 8))
        assert abs(even - found.areas()[0]) > 1e-6, "with even steps it would not be"

    def test_ends_are_the_picture_and_the_baseline(self):
        picture, baseline = noise(1, 3, 6, 6), noise(1, 3, 6, 6, seed=1)
        way = deleted(picture, baseline, noise(6, 6, seed=2), steps=5)
        assert torch.equal(way[:1], picture) and torch.equal(way[-1:], baseline) and len(way) == 6
        changed = [(each != picture[0]).any(0).sum().item() for each in way]
        assert changed == [0, 7, 14, 22, 29, 36]


class TestRanking:
    def test_the_highest_first_signs_kept(self):
        assert ranking(torch.tensor([[0.5, -3.0], [2.0, 0.0]])).tolist() == [2, 0, 3, 1]

    def test_equal_values_are_drawn_and_not_in_reading_order(self):
        """A map that is 0 but in one place would else be "delete from the top on"."""
        values = torch.zeros(20, 20)
        values[13, 4] = 1
        order = ranking(values)
        assert order[0] == 264 and sorted(order.tolist()) == list(range(400))
        assert (order[1:200] // 20).double().mean() == pytest.approx(9.5, abs=1)
        assert ranking(values).tolist() == order.tolist() != ranking(values, seed=1).tolist()


class TestDropAndIncrease:
    def test_by_hand(self):
        """All of the region kept: nothing is lost. Half of it at half strength and the rest gone: 3/4 is lost."""
        mean = torch.zeros(3, 1, 1)
        assert drop_and_increase(kept(region()), WHITE, mean, region()) == (0, 0)
        half = region(slice(0, 4), slice(0, 5)) * 0.5
        half[7, 9] = 1
        half[:, 2:5] = 0
        found = drop_and_increase(kept(region(slice(0, 4), slice(0, 4))), WHITE, mean, half)
        assert found == (pytest.approx(0.75), 0)

    def test_hiding_what_speaks_against_the_class_is_an_increase(self):
        def probability(pictures: Tensor) -> Tensor:
            return 0.6 - 0.5 * pictures[:, 0, 5:].mean((1, 2)).double()

        assert drop_and_increase(probability, WHITE, torch.zeros(3, 1, 1), region()) == (0, 1)

    def test_what_is_hidden_has_the_mean_colour(self):
        seen = []

        def probability(pictures: Tensor) -> Tensor:
            seen.append(pictures)
            return torch.ones(len(pictures), dtype=torch.float64)

        mean = torch.tensor([0.1, 0.4, 0.7]).view(3, 1, 1)
        drop_and_increase(probability, WHITE, mean, region() - 3 * region(slice(4, 8)))
        assert torch.equal(seen[0][0], WHITE[0]) and torch.allclose(seen[0][1, :, 0, 0], torch.ones(3))
        assert torch.allclose(seen[0][1, :, 6, 2], mean.flatten()) and torch.allclose(
            seen[0][1, :, 6, 8], mean.flatten()
        )


class Stub:
    """What torchcam's metrics ask of an extractor: it gives a map that is known."""

    def __init__(self, model: nn.Module, values: Tensor) -> None:
        self.model, self.values = model, values

    def __call__(self, class_idx=None, scores=None, normalized=True, **named):
        return [self.values[None]]

    def fuse_cams(self, cams):
        return cams[0]

    def _hooks_off(self):
        return torch.no_grad()


class TestTorchcam:
    """A second implementation. No two values of the maps are equal, as equal ones are ordered otherwise."""

    @pytest.mark.parametrize(("steps", "seed"), [(8, 0), (16, 1), (32, 2)])
    def test_deletion_and_insertion(self, steps, seed):
        metrics = pytest.importorskip("torchcam.metrics")
        model, picture, values = tiny_model(), photo(seed), noise(SIDE, SIDE, seed=seed)
        baseline = blurred(picture, 3)
        target = int(model(picture).argmax())
        ours = curves(probability_of(model, target), picture, baseline, values, steps=steps)
        theirs = metrics.DeletionInsertionMetric(
            Stub(model, values), lambda logits: logits.softmax(1), steps=steps, baseline=baseline
        )
        theirs.update(picture, target)
        expected = theirs.summary()
        found = dict(zip(("deletion_auc", "insertion_auc"), ours.areas(), strict=True))
        assert found == pytest.approx(expected, abs=1e-6)  # measured 2.3e-8
        swapped = curves(probability_of(model, target), picture, baseline, -values, steps=steps).areas()
        assert abs(swapped[0] - expected["deletion_auc"]) > 1e-5

    def test_drop_and_increase(self):
        """Theirs multiplies behind the normalisation, where the mean colour is 0."""
        metrics = pytest.importorskip("torchcam.metrics")
        model = tiny_model()
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.mean, model.std))
        for seed in range(4):
            picture, values = photo(seed), noise(SIDE, SIDE, seed=seed)
            target = int(model(picture).argmax())
            ours = drop_and_increase(probability_of(model, target), picture, mean, values)
            theirs = metrics.ClassificationMetric(
                Stub(model.network, values / values.max()), lambda logits: logits.softmax(1)
            )
            theirs.update((picture - mean) / std, target)
            expected = theirs.summary()
            assert ours == pytest.approx((expected["avg_drop"], expected["conf_increase"]), abs=1e-5)


class TestControls:
    def test_know_where_they_are(self):
        assert centre_map(photo()).flatten().argmax().item() in (15 * 32 + 15, 15 * 32 + 16, 16 * 32 + 15, 16 * 32 + 16)
        assert centre_map(photo())[0, 0] == pytest.approx(0, abs=1e-6)
        halves = torch.zeros(1, 3, 16, 16)
        halves[..., 8:] = 1
        edges = edge_map(halves)
        assert edges.shape == (16, 16) and (edges[:, 7:9] == 4).all() and not edges[:, :7].any()
        assert torch.allclose(edge_map(halves.transpose(2, 3)), edges.T)
        assert not torch.equal(random_map(halves, 0), random_map(halves, 1))

    def test_a_blur_keeps_the_mean_and_spreads_a_point(self):
        point = torch.zeros(1, 3, 33, 33)
        point[..., 16, 16] = 1
        spread = blurred(point, 3)
        assert spread.sum((2, 3)).tolist()[0] == pytest.approx([1, 1, 1], abs=1e-5)
        places = torch.arange(33.0) - 16
        assert (spread[0, 0].sum(0) * places.square()).sum().item() == pytest.approx(9, rel=0.04)
        assert torch.allclose(blurred(torch.full((1, 3, 9, 9), 0.3), 4), torch.full((1, 3, 9, 9), 0.3))
        assert torch.equal(blurred(point, 0), point)


class TestForgetting:
    def test_from_the_last_layer_back(self):
        assert parts(tiny_model()) == [["linear"], ["second"], ["first"]]
        names = [name for name, module in load_model().named_modules() if list(module.parameters(recurse=False))]
        found = parts(load_model(weights=None))
        assert found[0] == ["_fc"] and found[-1] == ["_conv_stem", "_bn0"]
        assert sorted(chain(*found)) == sorted(names), "each layer once"

    def test_each_step_changes_its_layers_and_no_other(self):
        model = tiny_model()
        before = {name: value.clone() for name, value in model.network.state_dict().items()}
        changed = set()
        for layer, forgetful in forgetting(model):
            changed.add(layer)
            for name, value in forgetful.network.state_dict().items():
                assert torch.equal(value, before[name]) != (name.partition(".")[0] in changed), (layer, name)
        assert changed == {"linear", "second", "first"}
        assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())

    def test_new_weights_are_torchs_and_norms_do_nothing(self):
        network = nn.Sequential(nn.Conv2d(3, 50, 5), nn.BatchNorm2d(50), nn.ReLU(), nn.Conv2d(50, 4, 1, bias=False))
        with torch.no_grad():
            for parameter in (*network.parameters(), *network[1].buffers()):
                parameter.fill_(7)
        *_, (_, last) = forgetting(load_model(network, size=SIDE))
        first, norm, deep = last.network[0], last.network[1], last.network[3]
        for weight, fan in ((first.weight, 75), (deep.weight, 50), (first.bias, 75)):
            assert weight.abs().max() <= fan**-0.5 and weight.abs().max() > 0.85 * fan**-0.5
            assert weight.mean().abs() < 0.3 * fan**-0.5
        assert norm.weight.eq(1).all() and norm.running_var.eq(1).all()
        assert not norm.bias.any() and not norm.running_mean.any()

    def test_is_the_same_each_time_and_leaves_torchs_generator(self):
        state = torch.get_rng_state()
        one, two, other = (
            [forgetful(photo()).detach().clone() for _, forgetful in forgetting(tiny_model(), seed)]
            for seed in (0, 0, 1)
        )
        assert all(map(torch.equal, one, two)) and not torch.equal(one[0], other[0])
        assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture
def folder(tmp_path):
    write_photos(tmp_path / "photos", 3, SIDE, SIDE)
    return tmp_path / "photos"


class Region(nn.Module):
    """Class 1 is the brightness of one quarter of the picture; class 0 is sure of nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Conv2d(3, 1, 1)
        with torch.no_grad():
            self.scale.weight.fill_(8 / 3)
            self.scale.bias.fill_(-4)

    def forward(self, x: Tensor) -> Tensor:
        score = self.scale(x)[..., :16, 16:].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(score), score], 1)


class TestFaithfulness:
    def test_every_method_that_has_a_map_is_compared(self):
        """A technique that explains a class of one picture is in the table, or is named here with a reason."""
        others = {"grabcut": "cuts out by the map of saliency", "neuron_gradient": "explains a neuron"}
        family = {name for name, card in registry.cards.items() if card.family == "attribution"}
        assert family - {"faithfulness"} == (set(faithful.METHODS) - {"guided_gradcam"}) | set(others)
        for name, method in faithful.METHODS.items():
            values = method(tiny_model(), photo(), 2)
            assert values.shape == (SIDE, SIDE) and values.isfinite().all() and values.std() > 0, name
            assert not torch.equal(values, method(tiny_model(), photo(), 0)), f"{name} depends on the class"

    def test_a_method_that_knows_beats_the_controls_and_one_that_does_not_is_not_trusted(self, folder, monkeypatch):
        def truth(model, picture, target):
            values = torch.zeros(SIDE, SIDE)
            values[:16, 16:] = 1
            return values

        monkeypatch.setattr(
            faithful,
            "METHODS",
            {"truth": truth, "lie": lambda *given: -truth(*given), "noise": lambda *given: random_map(photo(), 99)},
        )
        rows = np.zeros((SIDE, SIDE, 3), np.uint8)
        rows[:16, 16:] = 255
        Image.fromarray(rows).save(folder / "00.png")
        model = load_model(Region(), size=SIDE, mean=(0, 0, 0), std=(1, 1, 1))
        result = faithfulness(model, folder / "00.png", target=1, blur=0.5, smoothing=0, cascade=False)
        assert result.data["trusted"] == ["truth"]
        measures = result.data["methods"]
        insertion = {name: each["insertion"] for name, each in measures.items()}
        assert insertion["truth"] > insertion["noise"] + 0.1 > insertion["lie"] + 0.3  # measured 0.937, 0.809, 0.532
        assert measures["truth"]["drop"] == 0 and measures["lie"]["drop"] > 0.9
        assert "Insertion is highest with truth" in result.caption and "better than noise, edges" in result.caption

    def test_means_over_pictures_are_those_of_each(self, folder):
        model, options = tiny_model(), {"methods": ("saliency",), "cascade": False, "steps": 6, "smoothing": 0.0}
        whole = faithfulness(model, folder, **options)
        paths = [row["path"] for row in whole.data["pictures"]]
        single = [faithfulness(model, path, **options).data["methods"] for path in paths]
        for measure in (*faithful.COLUMNS, "insertion_curve"):
            expected = np.mean([each["saliency"][measure] for each in single], axis=0)
            assert whole.data["methods"]["saliency"][measure] == pytest.approx(expected, rel=1e-6)
        assert [row["path"] for row in whole.data["pictures"]] == sorted(map(str, folder.glob("*.png")))

    def test_curves_begin_and_end_at_the_picture_and_its_blur(self, folder):
        result = faithfulness(tiny_model(), folder / "01.png", steps=5, methods=("saliency", "gradcam"))
        row = result.data["pictures"][0]
        for facts in result.data["methods"].values():
            assert facts["deletion_curve"][0] == facts["insertion_curve"][-1] == pytest.approx(row["probability"])
            assert facts["deletion_curve"][-1] == facts["insertion_curve"][0] == pytest.approx(row["blurred"])
        assert set(result.images) == {"table", "curves", "maps"} and len(result.frames) == 6
        assert len({frame.size for frame in result.frames}) == 1

    def test_the_class_that_is_asked_for(self, folder):
        result = faithfulness(tiny_model(), folder, target="boat", methods=("saliency",), cascade=False, steps=2)
        assert [row["class"] for row in result.data["pictures"]] == [CLASSES.index("boat")] * 3

    def test_cascade_is_a_correlation_with_what_it_was(self, folder):
        model = tiny_model()
        result = faithfulness(model, folder, methods=("saliency", "cam"), steps=2)
        picture = model.read(sorted(folder.glob("*.png"))[0])
        target = int(model(picture).argmax())
        before = faithful.METHODS["cam"](model, picture, target).abs()
        expected = {
            layer: spearman(before, faithful.METHODS["cam"](forgetful, picture, target).abs())
            for layer, forgetful in forgetting(model)
        }
        assert result.data["methods"]["cam"]["cascade"] == pytest.approx(expected)
        assert "cascade" not in result.data["methods"]["random"]
        assert list(expected) == ["linear", "second", "first"]

    def test_a_map_that_ignores_the_weights_is_named(self, folder, monkeypatch):
        """Edges as a method: rho 1 all the way down."""
        monkeypatch.setattr(faithful, "METHODS", {"sobel": lambda model, picture, target: edge_map(picture)})
        result = faithfulness(tiny_model(), folder / "00.png", steps=2)
        assert list(result.data["methods"]["sobel"]["cascade"].values()) == pytest.approx([1, 1, 1])
        assert "no evidence for a class: sobel" in result.caption
        assert result.data["trusted"] == []

    def test_methods_that_the_network_refuses_are_named(self, folder):
        """No ReLU, so no guided backpropagation; the others are compared."""
        result = faithfulness(tiny_model(nn.SiLU), folder / "00.png", steps=2, cascade=False)
        assert set(result.data["refused"]) == {"guided_backprop", "guided_gradcam", "deconvnet"}
        assert set(result.data["methods"]) == {"cam", "gradcam", "occlusion", "saliency", "random", "edges", "centre"}
        assert "refused by this network: guided_backprop, guided_gradcam, deconvnet" in result.caption
        with pytest.raises(Refused, match="no method works here: guided"):
            faithfulness(tiny_model(nn.SiLU), folder, methods=("guided_backprop",))

    def test_the_table_has_every_cell_in_its_column(self):
        """Nothing is cut; a cell's ink is under its column's name, and numbers end where the name ends."""
        head = ["", "insertion", "after\n_blocks"]

        def ink(*rows: list[str]) -> np.ndarray:
            return np.asarray(faithful.written([head, *rows]).convert("L")) < 128

        whole, bare = (
            ink(["saliency", "0.444", "-0.50"], ["cam", "", "+0.44"]),
            ink(["saliency", "", ""], ["cam", "", ""]),
        )
        assert not whole[:, :5].any() and not whole[:, -5:].any() and not whole[0].any() and not whole[-1].any()
        rows, columns = (whole != bare).nonzero()
        assert rows.min() > 42, "beneath the head's two lines"
        names = np.flatnonzero(bare[:40].any(0))
        first, second = np.split(names, [np.diff(names).argmax() + 1])
        for name in (first, second):
            inside = columns[(columns >= name[0]) & (columns <= name[-1] + 2)]
            assert abs(inside.max() - name[-1]) <= 2
        assert set(columns) <= set(range(first[0], first[-1] + 3)) | set(range(second[0], second[-1] + 3))

    @pytest.mark.data
    def test_maps_of_lite0_beat_noise(self):
        """On 3 photos, measured: insertion of CAM 0.518, saliency 0.450, noise 0.258; deletion 0.094, 0.154, 0.219.

        On 8, in 12 steps: 0.507, 0.451, 0.246 (edges 0.459, centre 0.407); 0.116, 0.213, 0.287 (0.142, 0.186).
        """
        model, areas = load_model(), []
        for path in sorted(data_folder("imagenet_samples", "images").glob("*"))[300::240][:3]:
            picture = model.read(path)
            target = int(model(picture).argmax())
            maps = (cam_map(model, picture, target), saliency_map(model, picture, target), random_map(picture))
            deviation = 0.05 * model.size
            baseline, probability = blurred(picture, deviation), probability_of(model, target)
            smooth = [blurred(values[None, None], deviation)[0, 0] for values in maps]
            areas.append([curves(probability, picture, baseline, values, steps=8).areas() for values in smooth])
        (cam, saliency, noise_) = np.mean(areas, axis=0)
        for deletion, insertion in (cam, saliency):
            assert insertion >= noise_[1] + 0.08 and deletion <= noise_[0] - 0.03

    def test_refusals(self, folder):
        with pytest.raises(WrongCall, match="unknown method 'salience'. Did you mean 'saliency'"):
            faithfulness(tiny_model(), folder, methods=("salience",))
        for options in ({"steps": 0}, {"smoothing": -1.0}, {"blur": 0.0}):
            with pytest.raises(WrongCall, match="faithfulness: got steps"):
                faithfulness(tiny_model(), folder, **options)
        with pytest.raises(Refused, match="this network has no classes"):
            faithfulness(load_model(nn.Sequential(nn.Conv2d(3, 2, 1)), size=SIDE), folder)
        assert Tiny().linear.out_features == len(CLASSES)
