"""A patch beside objects, and what small detectors still find."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from detecting import SIDE, OneObject, Squares, scene
from looking import noise, photo, tiny_model
from torch import Tensor, nn

from impasto.errors import WrongCall
from impasto.visualization import Model, detector_patch, load_model
from impasto.visualization.detections import Objects, detected, detection_loss, overlaps, scores_of
from impasto.visualization.detector_patches import Ways, distances, free_place, recall
from impasto.visualization.fields import receptive_fields
from impasto.visualization.pasting import Place
from impasto.visualization.registry import Refused

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

SCENES = range(4)


def squares(context: bool = True) -> Model:
    return load_model(Squares(context), size=SIDE)


def objects(*boxes: tuple[float, ...], scores: tuple[float, ...] = (), labels: tuple[int, ...] = ()) -> Objects:
    count = len(boxes)
    return Objects(
        torch.tensor(boxes).float().view(-1, 4),
        torch.tensor(labels or (1,) * count).long(),
        torch.tensor(scores or (1.0,) * count),
        {},
    )


@functools.cache
def attacked() -> list[dict[str, Any]]:
    return [detector_patch(squares(), scene(seed)[0], steps=40).data for seed in SCENES]


class TestRecall:
    """Of objects that are known from how the scenes are made."""

    @pytest.fixture
    def results(self) -> list[dict[str, Any]]:
        return attacked()

    def test_without_a_patch(self):
        """1.0 of 30 scenes."""
        for seed in range(30):
            picture, boxes = scene(seed)
            found = detected(squares(), picture).surer_than(0.5)
            assert sorted(found.boxes.tolist()) == sorted(boxes.tolist())

    def test_drops_with_the_patch_and_not_with_noise(self, results):
        """Required: noise 0.85 or more, patch 0.4 or less. Found: 1.0 and 0.0; moved 0.25."""
        rates = {name: np.mean([each["recall"][name] for each in results]) for name in ("noise", "patch", "moved")}
        assert rates["noise"] >= 0.85 and rates["patch"] <= 0.4 and rates["moved"] <= 0.5, rates

    def test_the_patch_touches_no_object(self, results):
        for seed, data in zip(SCENES, results, strict=True):
            left, top, right, bottom = data["place"]
            for x0, y0, x1, y1 in scene(seed)[1].tolist():
                assert right <= x0 or x1 <= left or bottom <= y0 or y1 <= top
            assert min(each["distance"] for each in data["objects"]) > 0

    def test_says_what_became_of_each_object(self, results):
        for seed, data in zip(SCENES, results, strict=True):
            assert len(data["objects"]) == len(scene(seed)[1])
            for name in ("noise", "patch"):
                kept = [each["scores"][name] >= 0.5 for each in data["objects"]]
                assert data["recall"][name] == pytest.approx(np.mean(kept))

    def test_a_detector_without_context_is_not_fooled(self):
        """The control of the gate itself: where nothing but a place's own pixels counts, no patch reaches an object."""
        model, picture = squares(context=False), scene(1)[0]
        with pytest.raises(Refused, match="nothing in it moves what is found .hide.; no receptive field reaches it"):
            detector_patch(model, picture, steps=4)
        data = detector_patch(model, picture, steps=20, goal="confuse").data
        assert data["recall"] == {"noise": 1, "patch": 1, "moved": 1}
        assert all(len(set(each["scores"].values()) | {each["score"]}) == 1 for each in data["objects"])

    def test_confusing_needs_no_hiding(self):
        """The losses climb as well by an object that is none, which is what happens here."""
        data = detector_patch(squares(), scene(1)[0], steps=40, goal="confuse").data
        assert data["others"] == {"noise": 0, "patch": 1}


class TestReceptiveField:
    """A place whose receptive field does not touch the patch has the same bits; others have not."""

    @pytest.fixture
    def place(self) -> Place:
        return Place(19, 15, 10)

    def logits(self, context: bool, picture: Tensor) -> Tensor:
        network = Squares(context)
        stripes = network.cells[0](picture).diff(dim=3).square().mean((2, 3))
        return (network.cells(picture)[:, 0] - network.context * stripes[:, :, None])[0].detach()

    def touched(self, place: Place) -> Tensor:
        """Cells whose field touches the patch, by the field that the suite measures."""
        field = receptive_fields(Squares().cells, ["1"], size=SIDE)["1"]
        assert field is not None and field.size == (12, 12)
        boxes = [[field.box(row, column) for column in range(10)] for row in range(10)]
        down, right = place.top + place.side, place.left + place.side
        return torch.tensor(
            [
                [place.left < box[2] and box[0] < right and place.top < box[3] and box[1] < down for box in row]
                for row in boxes
            ]
        )

    def test_is_what_the_patch_reaches(self, place):
        ways, picture = Ways(place, 0, 0, 0), scene(0)[0]
        patched = ways.still(picture, noise(1, 3, place.side, place.side))
        before, after = self.logits(False, picture), self.logits(False, patched)
        touched = self.touched(place)
        assert torch.equal(before == after, ~touched)
        assert 0 < int(touched.sum()) < 100

    @pytest.mark.parametrize("wrong", [Place(20, 15, 10), Place(19, 16, 10), Place(19, 15, 14)])
    def test_sees_a_patch_that_lies_elsewhere(self, place, wrong):
        picture = scene(0)[0]
        patched = Ways(wrong, 0, 0, 0).still(picture, noise(1, 3, wrong.side, wrong.side))
        same = self.logits(False, picture) == self.logits(False, patched)
        assert not torch.equal(same, ~self.touched(place))

    def test_with_context_the_patch_reaches_all(self, place):
        picture = scene(0)[0]
        patched = Ways(place, 0, 0, 0).still(picture, noise(1, 3, place.side, place.side))
        assert not (self.logits(True, picture) == self.logits(True, patched)).any()


class TestFreePlace:
    def test_is_farthest_from_the_boxes(self):
        place = free_place(torch.tensor([[0.0, 0, 10, 10]]), torch.zeros(1, 3, 40, 40), 0.0625, 2)
        assert place == Place(28, 28, 10)

    def test_shrinks_where_there_is_less_room(self):
        boxes = torch.tensor([[0.0, 0, 40, 24]])
        place = free_place(boxes, torch.zeros(1, 3, 40, 40), 0.5, 2)
        assert place.top >= 26 and place.top + place.side <= 38 and place.side >= 8

    def test_refuses_where_there_is_none(self):
        with pytest.raises(Refused, match="leave no room for 8 pixels"):
            free_place(torch.tensor([[2.0, 2, 38, 38]]), torch.zeros(1, 3, 40, 40), 0.1, 0)

    def test_distances_by_hand(self):
        boxes = torch.tensor([[0.0, 0, 10, 10], [24, 21, 30, 30]])
        squares = torch.tensor([[12.0, 4, 18, 21], [8, 8, 12, 12], [10, 10, 12, 12]])
        assert distances(boxes, squares).tolist() == [[2, 0, 0], [6, 15, 15]]


class TestScores:
    def test_overlaps_by_hand(self):
        one = torch.tensor([[0.0, 0, 10, 10], [0, 0, 0, 0]])
        other = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [0, 0, 0, 0]])
        torch.testing.assert_close(overlaps(one, other), torch.tensor([[1, 1 / 3, 0, 0], [0, 0, 0, 0]]))

    def test_the_best_of_a_box_of_its_label_that_overlaps_by_half(self):
        known = objects((0, 0, 10, 10), (20, 20, 30, 30), labels=(1, 2))
        found = objects(
            (0, 0, 10, 9), (0, 0, 10, 10), (0, 0, 10, 4), (20, 20, 30, 30),
            scores=(0.7, 0.6, 0.99, 0.8), labels=(1, 1, 1, 1),
        )  # fmt: skip
        torch.testing.assert_close(scores_of(known, found), torch.tensor([0.7, 0]))
        assert scores_of(known, objects()).tolist() == [0, 0]
        assert scores_of(objects(), found).shape == (0,)

    def test_recall(self):
        assert recall(torch.tensor([0.5, 0.49, 0.9, 0]), 0.5) == 0.5


class TestTorchvision:
    """Its own detectors, untrained: the losses have a gradient, and nothing is left changed."""

    @pytest.fixture(params=["fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large"])
    def model(self, request) -> Model:
        models = pytest.importorskip("torchvision.models")
        options = {"min_size": 64, "max_size": 64} if "rcnn" in request.param else {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = models.get_model(
                request.param, weights=None, weights_backbone=None, num_classes=3, **options
            ).eval()
        return load_model(network, size=64)

    def test_gives_losses(self, model):
        picture = photo(size=64).requires_grad_()
        modes, state = [module.training for module in model.modules()], torch.get_rng_state()
        losses = [detection_loss(model, picture, objects((4, 4, 40, 40)), seed) for seed in (0, 0)]
        first, second = (float(loss.detach()) for loss in losses)
        assert first == second > 0 and math.isfinite(first)
        (gradient,) = torch.autograd.grad(losses[0], picture)
        assert gradient.isfinite().all() and gradient.any()
        assert [module.training for module in model.modules()] == modes
        assert torch.equal(torch.get_rng_state(), state)

    def test_finds_objects_whose_scores_have_a_gradient(self, model):
        picture = photo(size=64).requires_grad_()
        found = detected(model, picture)
        assert found.boxes.shape == (len(found.scores), 4) == (len(found.labels), 4)
        assert len(found.scores)
        (gradient,) = torch.autograd.grad(found.scores.sum(), picture)
        assert gradient.isfinite().all() and gradient.any()

    def test_has_masks_as_what_is_to_be_found(self):
        masks = torch.tensor([0.2, 0.7]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
        found = Objects(torch.zeros(2, 4), torch.ones(2), torch.tensor([0.9, 0.1]), {"masks": masks})
        target = found.target()
        assert target["masks"].shape == (2, 4, 4) and target["masks"].amax((1, 2)).tolist() == [0, 1]
        assert len(found.surer_than(0.5).target()["masks"]) == 1


class TestLosses:
    def test_modes_are_restored_when_the_network_breaks(self):
        class Broken(OneObject):
            def forward(self, images, targets=None):
                if targets is not None:
                    raise ArithmeticError("this network breaks")
                return super().forward(images)

        model = load_model(Broken())
        with pytest.raises(ArithmeticError, match="breaks"):
            detection_loss(model, photo(), objects((0, 0, 4, 4)), 0)
        assert not any(module.training for module in model.modules())

    def test_normalisation_and_dropout_stay_as_they_are(self):
        seen: list[list[bool]] = []

        class Looking(OneObject):
            def forward(self, images, targets=None):
                seen.append([self.training, self.second.training, self.dropout.training])
                return super().forward(images, targets)

        model = load_model(Looking())
        detection_loss(model, photo(), objects((0, 0, 4, 4)), 0)
        assert seen == [[True, False, False]]


class TestRefuses:
    def test_a_classifier(self):
        with pytest.raises(Refused, match="finds no objects; give load_model a detector"):
            detector_patch(tiny_model(), photo())

    def test_a_picture_without_objects(self):
        with pytest.raises(Refused, match="finds nothing with a score of 0.5 or more"):
            detector_patch(squares(), torch.full((1, 3, SIDE, SIDE), 0.2))

    def test_a_patch_that_moves_nothing(self):
        class Blind(OneObject):
            def forward(self, images, targets=None):
                return super().forward([0 * image for image in images], targets)

        with pytest.raises(Refused, match="no receptive field reaches it"):
            detector_patch(load_model(Blind()), photo(), steps=2)

    @pytest.mark.parametrize(
        "options",
        [{"area": 0}, {"area": 1.1}, {"threshold": 0}, {"steps": 0}, {"rate": 0}, {"shift": -1}, {"brightness": 1}],
    )
    def test_numbers_that_cannot_be(self, options):
        with pytest.raises(WrongCall, match="expected parts above 0"):
            detector_patch(squares(), scene(0)[0], **options)


def test_pictures_and_caption():
    result = detector_patch(squares(), scene(1)[0], steps=20)
    assert list(result.images) == ["detections", "patch"]
    assert result.images["patch"].width >= 320
    assert "of 3 objects the detector finds 0% with a patch that touches none" in result.caption.lower()
    assert isinstance(squares().network, nn.Module)
