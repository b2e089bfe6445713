"""Detectors counted side by side, along their own axes and others, and followed while a network is trained."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from looking import tiny_model
from PIL import Image
from planted import CONCEPTS, FIRST_SIX, planted_model, write_planted
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from impasto.errors import WrongCall
from impasto.visualization import Model, compare_dissections, load_model, unit_transitions
from impasto.visualization.charts import PALE, bars, flow
from impasto.visualization.concepts import Concepts
from impasto.visualization.dissection import Layer, dissection
from impasto.visualization.inputs import Masked
from impasto.visualization.unit_changes import NONE
from impasto.visualization.unit_labels import UnitLabels

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted(tmp_path_factory.mktemp("planted") / "planted", photos=12)


class TestCompare:
    def test_two_networks(self, planted):
        """Six detectors and three, two of which the first has too."""
        other = planted_model(("coral", "lime", "rust"), noise=2)
        result = compare_dissections(planted_model(noise=4), planted, other=other, concepts="masks")
        networks = {network["name"]: network for network in result.data["networks"]}
        assert list(networks) == [
            f"{name}: units{kind}"
            for name in ("this", "the other")
            for kind in ("", ", random weights", ", random axes")
        ]
        this, that = networks["this: units"], networks["the other: units"]
        assert (this["detectors"], this["concepts"], this["units"]) == (6, 6, 10)
        assert (that["detectors"], that["concepts"], that["units"]) == (3, 3, 5)
        only = {name: sorted(concepts) for name, concepts in result.data["only"].items()}
        assert only == {"this": sorted(FIRST_SIX[2:]), "the other": ["rust"]}
        for column, network in enumerate(result.data["networks"]):
            units = [concept["units"][column] for concept in result.data["concepts"]]
            assert sum(units) == network["detectors"] and sum(map(bool, units)) == network["concepts"]
        assert "this: units: 6 of 10 units are detectors of 6 concepts; " in result.caption
        assert set(result.images) == {"counts", "concepts"}

    def test_along_random_axes_there_are_fewer_concepts(self, planted):
        """Ten planted detectors, turned five times: measured 10 concepts before, 2 to 4 after."""
        concepts = Concepts.of(Masked.of(planted), "masks")
        layer = Layer.of(planted_model(tuple(CONCEPTS), noise=0), "units")
        before = {label for label in dissection(layer, concepts).labels(0.04) if label is not None}
        assert len(before) == 10
        for seed in range(5):
            turned = layer.rotated(seed)
            assert turned.rotation is not None
            assert torch.allclose(turned.rotation @ turned.rotation.T, torch.eye(10, dtype=torch.float64), atol=1e-12)
            after = {label for label in dissection(turned, concepts).labels(0.04) if label is not None}
            assert len(after) < len(before)

    def test_one_network_and_no_detector(self, planted):
        result = compare_dissections(planted_model(noise=4), planted, concepts="masks", detector=1)
        assert len(result.data["networks"]) == 3 and result.data["only"] == {} and set(result.images) == {"counts"}


SWAPPED = (*FIRST_SIX[:3], "sky", *FIRST_SIX[4:])


class TestTransitions:
    def test_a_planted_swap(self, planted):
        """Unit 3 stood for teal and now stands for sky; everything else stays."""
        result = unit_transitions(planted_model(SWAPPED), planted, before=planted_model(), concepts="masks")
        (changed,) = (unit for unit in result.data["units"] if unit["changed"])
        assert (changed["unit"], changed["before"], changed["after"]) == (3, "teal", "sky")
        moves = {(move["before"], move["after"]): move["units"] for move in result.data["transitions"]}
        kept = {(name, name): 1 for name in FIRST_SIX if name != "teal"}
        assert moves == {("teal", "sky"): 1, (NONE, NONE): 20, **kept} and result.data["changed"] == 1
        assert set(result.images) == {"flow", "units"}
        assert "1 of the 26 units of units stand for something else than before: 6 detectors" in result.caption

    def test_a_frozen_layer_changes_nothing(self, planted):
        """Only the head is trained: every number is the same, to the last bit."""
        before, after = tiny_model(), tiny_model()
        head = after.network.get_submodule("linear")
        assert isinstance(head, nn.Linear)
        head.weight.data += 1
        result = unit_transitions(after, planted, layer="second", before=before, top=0.02)
        assert result.data["changed"] == 0 and set(result.images) == {"flow"}
        assert all(unit["before_iou"] == unit["after_iou"] for unit in result.data["units"])
        assert result.data["counts"]["before"] == result.data["counts"]["after"]

    def test_without_a_network_before_it_is_random(self, planted):
        result = unit_transitions(planted_model(noise=2), planted, concepts="masks", shown=2, count=2, side=16)
        untrained = dissection(
            Layer.of(planted_model(noise=2), "units").untrained(), Concepts.of(Masked.of(planted), "masks")
        )
        names = [NONE if label is None else untrained.concepts.names[label] for label in untrained.labels(0.04)]
        assert [unit["before"] for unit in result.data["units"]] == names
        assert "stand for something else than with random weights" in result.caption

    def test_refusals(self, planted):
        with pytest.raises(WrongCall, match="units had 10 units and has 26; expected two states of one network"):
            unit_transitions(planted_model(), planted, before=planted_model(noise=4), concepts="masks")
        with pytest.raises(WrongCall, match="got shown 0, count 4, side 96"):
            unit_transitions(planted_model(), planted, shown=0)


class Learner(pl.LightningModule):
    """Six units that look for colours, of which the fourth is moved to another; the rest is as it was."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.network = planted_model(noise=0).network.requires_grad_(True).train()
        self.rate = rate

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        colours = self.network.get_parameter("units.colours")
        return (colours[3] - torch.tensor(CONCEPTS["sky"]) / 255).square().sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.rate)


def looked_into(module: Learner) -> Model:
    return load_model(module.network, size=40, mean=(0, 0, 0), std=(1, 1, 1))


def trained(folder: Path, watch: UnitLabels, rate: float, root: Path, logger: Any = False) -> Learner:
    batches = DataLoader(TensorDataset(torch.zeros(2, 1)), batch_size=1)
    learner = Learner(rate)
    trainer = pl.Trainer(
        max_epochs=2, callbacks=[watch], logger=logger, default_root_dir=root, accelerator="cpu", log_every_n_steps=1,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(learner, batches)
    return learner


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec")
class TestUnitLabels:
    def test_follows_a_unit_from_one_concept_to_another(self, planted, tmp_path):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        watch = UnitLabels(planted, looked_into, concepts="masks")
        logger = pl.loggers.TensorBoardLogger(tmp_path, name="run")
        trained(planted, watch, 0.5, tmp_path, logger)
        assert [step for step, _ in watch.history] == [0, 2, 4]
        assert watch.history[0][1] == list(FIRST_SIX) and watch.history[-1][1] == list(SWAPPED)
        events = EventAccumulator(logger.log_dir).Reload()
        assert {"units/detectors", "units/concepts", "units/changed"} <= set(events.Tags()["scalars"])
        assert [(event.step, event.value) for event in events.Scalars("units/concepts")] == [(0, 6), (2, 6), (4, 6)]
        assert [event.value for event in events.Scalars("units/changed")] == [1, 0]
        assert events.Tags()["images"] == ["units/flow"]
        table = events.Tensors("units/labels/text_summary")[-1].tensor_proto.string_val[0].decode()
        assert "| 3 | sky | 1.000 |" in table

    def test_without_learning_nothing_changes_and_training_is_left_as_it_was(self, planted, tmp_path):
        watch = UnitLabels(planted, looked_into, concepts="masks", every=2)
        state = torch.get_rng_state()
        learner = trained(planted, watch, 0.0, tmp_path)
        assert [step for step, _ in watch.history] == [0, 4] and watch.history[0][1] == watch.history[1][1]
        assert learner.network.training and all(each.requires_grad for each in learner.network.parameters())
        watched = torch.get_rng_state()
        torch.set_rng_state(state)
        blind = UnitLabels(planted, looked_into, every=99)
        blind._look = lambda *given: None  # type: ignore[method-assign]
        trained(planted, blind, 0.0, tmp_path)
        assert torch.equal(torch.get_rng_state(), watched)

    def test_refusals(self, planted):
        with pytest.raises(WrongCall, match="every: got 0, expected 1 epoch or more"):
            UnitLabels(planted, looked_into, every=0)


def write_shapes(folder: Path, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Photos of one of five shapes in any colour on any ground, with masks; the pixels and which shape."""
    rng = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    pixels, kinds = [], np.arange(count) % 5
    down, across = np.mgrid[-7:8, -7:8]
    shapes = [
        down**2 + across**2 <= 36,
        np.maximum(abs(down), abs(across)) <= 5,
        (abs(across) * 2 <= down + 6) & (down <= 6),
        (np.minimum(abs(down), abs(across)) <= 1) & (np.maximum(abs(down), abs(across)) <= 6),
        (down**2 + across**2 <= 36) & (down**2 + across**2 > 16),
    ]
    for photo, kind in enumerate(kinds):
        rgb = rng.integers(0, 256, 3) + rng.integers(-20, 21, (32, 32, 3))
        mask = np.zeros((32, 32), np.uint8)
        top, left = rng.integers(0, 18, 2)
        mask[top : top + 15, left : left + 15] = shapes[kind] * (kind + 1)
        rgb[mask > 0] = rng.integers(0, 256, 3)
        pixels.append(np.clip(rgb, 0, 255).astype(np.uint8))
        Image.fromarray(pixels[-1]).save(folder / "images" / f"{photo:03d}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{photo:03d}.png")
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    return images, torch.from_numpy(kinds)


def test_a_network_that_learns_shapes_comes_to_detect_them(tmp_path):
    """Measured with 500 photos, 8 epochs and three seeds: 3, 4 and 4 shapes before, 5 after in each; 5 units that are
    detectors in each before, 27 to 31 after. Here, fewer of both: 10 units and 4 shapes, then 26 and 5."""
    images, kinds = write_shapes(tmp_path / "train", 250, 0)
    write_shapes(tmp_path / "look", 40, 1)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 24, 5, padding=2), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(24, 32, 5, padding=2), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip
    concepts = Concepts.of(Masked.of(tmp_path / "look"), "masks")

    def detectors() -> list[int]:
        layer = Layer.of(load_model(network, size=32, mean=(0.5,) * 3, std=(0.25,) * 3), "6")
        return [label for label in dissection(layer, concepts, top=0.02).labels(0.04) if label is not None]

    before = detectors()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(6):
        for chosen in torch.randperm(len(images)).split(25):
            loss = nn.functional.cross_entropy(network((images[chosen] - 0.5) / 0.25), kinds[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    after = detectors()
    assert len(after) > 1.5 * len(before) and len(set(after)) > len(set(before))


class TestCharts:
    def test_bars_are_as_long_as_their_values(self):
        image = np.asarray(bars({"a": [4, 2], "b": [0, 3]}, ["this", "that"], colours=["#ff0000", "#00ff00"]))
        red, green = ((image == colour).all(2) for colour in ((255, 0, 0), (0, 255, 0)))
        assert {360, 180, 270} & {*red.sum(1), *green.sum(1)} == {360, 180, 270}, "of 360 pixels, beside the axis"
        assert not {360, 270} & {*green.sum(1)} - {270} and 180 in green.sum(1)
        with pytest.raises(WrongCall, match="bars: got no rows"):
            bars({}, ["this"])

    def test_bands_are_as_thick_as_they_are_often(self):
        image = np.asarray(flow(["a"] * 6 + ["b"] * 2, ["a"] * 4 + ["b"] * 4, titles=("x", "y"), height=400))
        colours = Counter(map(tuple, image[:, image.shape[1] // 2].tolist()))
        kept = colours[tuple(int(PALE[place : place + 2], 16) for place in (1, 3, 5))]
        assert kept == pytest.approx(300, abs=12), "four and two of eight kept their name"
        moved = [count for colour, count in colours.items() if max(colour) - min(colour) > 60]
        assert max(moved) == pytest.approx(100, abs=60), "two did not, and cross nothing"
        with pytest.raises(WrongCall, match="got 1 before and 2 after"):
            flow(["a"], ["a", "b"], titles=("x", "y"))

    def test_names_in_other_letters(self):
        assert bars({"Stra\N{LATIN SMALL LETTER SHARP S}e": [1]}, ["\N{GREEK SMALL LETTER ALPHA}"]).width > 300
