"""The judge, with networks whose logits are known: the mean of each colour."""

from __future__ import annotations

import math

import pytest
import torch
from looking import noise, tiny_model
from torch import Tensor, nn

from impasto.errors import WrongCall
from impasto.visualization import Model, load_model
from impasto.visualization.judging import rounded, verdicts
from impasto.visualization.registry import Refused

NAMES = ("Red", "green", "blue", "none", "half green", "minus red", "minus green")


class Colours(nn.Module):
    """Logits: mean red, green, blue, 0, half of green, minus red, minus green; remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        red, green, blue = x.mean((2, 3)).unbind(1)
        return torch.stack([red, green, blue, 0 * red, green / 2, -red, -green], 1)


def judge(size: int = 4, classes: tuple[str, ...] = NAMES) -> Model:
    return load_model(Colours(), size=size, mean=(0, 0, 0), std=(1, 1, 1), classes=classes)


def flat(*colours: tuple[float, float, float], size: int = 4) -> Tensor:
    return torch.tensor(colours)[:, :, None, None].expand(-1, -1, size, size)


class TestVerdicts:
    def test_by_hand(self):
        first, second = verdicts(judge(), flat((1, 0, 0), (0.2, 1, 0)), "green")
        assert [each.name for each in second.top] == ["green", "half green", "Red", "blue", "none"]
        assert second.rank == 1 and second.in_top
        logits = [0.2, 1, 0, 0, 0.5, -0.2, -1]
        expected = math.exp(1) / sum(map(math.exp, logits))
        assert second.asked.probability == pytest.approx(expected, rel=1e-6) and second.asked.name == "green"
        assert first.top[0].name == "Red" and first.rank == 2, "equal logits stand in the order of the classes"
        assert second.data() == {
            "top": ["green", "half green", "Red", "blue", "none"], "rank": 1, "probability": second.asked.probability,
        }  # fmt: skip
        assert str(second) == f"green is 1., p {expected:.2g}; best green"

    def test_not_among_the_five(self):
        (found,) = verdicts(judge(), flat((0.2, 0.9, 0.1)), "minus green")
        assert found.rank == 7 and not found.in_top
        (sixth,) = verdicts(judge(), flat((0.2, 0.9, 0.1)), "minus red")
        assert sixth.rank == 6 and not sixth.in_top
        (fifth,) = verdicts(judge(), flat((0.2, 0.9, 0.1)), "none")
        assert fifth.rank == 5 and fifth.in_top

    def test_by_name_not_by_number(self):
        """The judge's classes stand in another order than those of the network that the picture is made for."""
        (found,) = verdicts(judge(classes=NAMES[::-1]), flat((1, 0, 0)), "minus green")
        assert found.asked.index == 0 and found.rank == 1
        (red,) = verdicts(judge(), flat((1, 0, 0)), "RED")
        assert red.asked.index == 0, "in any case of letters"
        (third,) = verdicts(judge(), flat((0, 0, 1)), 2)
        assert third.asked.name == "blue" and third.rank == 1

    def test_of_two_classes_of_one_name_the_better_counts(self):
        classes = ("crane", "crane", *NAMES[2:])
        (found,) = verdicts(judge(classes=classes), flat((0, 1, 0)), "crane")
        assert found.asked.index == 1 and found.rank == 1

    def test_pictures_are_seen_as_in_a_file_and_at_the_judges_size(self):
        model = judge(size=6)
        pictures = 2 * noise(2, 3, 12, 12) - 0.5
        verdicts(model, pictures, "red")
        first, second = model.network.seen
        assert first.shape == second.shape == (1, 3, 6, 6)
        expected = nn.functional.interpolate(rounded(pictures), (6, 6), mode="bilinear", antialias=True)
        torch.testing.assert_close(torch.cat([first, second]), expected)
        same = judge(size=12)
        verdicts(same, pictures[:1], "red")
        values = same.network.seen[0] * 255
        torch.testing.assert_close(values, values.round(), rtol=0, atol=1e-4)
        assert same.network.seen[0].min() == 0 and same.network.seen[0].max() == 1

    def test_what_rounding_destroys_is_not_seen(self):
        """A colour 0.001 above another's, 0.4 of an 8-bit step: gone."""
        (found,) = verdicts(judge(), flat((0.5, 0.501, 0)), "green")
        assert found.rank == 2

    def test_refuses_what_the_judge_does_not_know(self):
        with pytest.raises(Refused, match=r"the judge has 7 names of classes, none of them 'gree': choose a judge"):
            verdicts(judge(), flat((0, 0, 0)), "gree")
        with pytest.raises(Refused, match="no names of classes"):
            verdicts(judge(classes=()), flat((0, 0, 0)), "green")
        with pytest.raises(WrongCall, match="class 7: expected 0 to 6"):
            verdicts(judge(), flat((0, 0, 0)), 7)
        with pytest.raises(Refused, match="this network has no classes"):
            verdicts(load_model(nn.Sequential(nn.Conv2d(3, 4, 1)), size=4), flat((0, 0, 0)), 0)

    def test_leaves_the_pictures(self):
        pictures = noise(1, 3, 32, 32).requires_grad_()
        verdicts(tiny_model(), pictures, "ant")
        assert pictures.grad is None and pictures.requires_grad


def test_rounded():
    found = rounded(torch.tensor([-0.5, 0.0, 0.5, 1 / 255 + 0.001, 1.5]))
    assert (found * 255).round().tolist() == [0, 0, 128, 1, 255]
    torch.testing.assert_close(found * 255, (found * 255).round())
