"""Class images: optima in closed form, the papers' settings by what they do, and a second network as the judge.

The whole gate (V22), six classes with EfficientNet-Lite0 and Lite1 as the judge, takes minutes: `python
tests/test_class_image.py` prints its numbers. Measured: without regularisers Lite0 puts 6 of 6 first and Lite1 has 1
of 6 among its five best (allowed 1), with a total variation of 0.170 to 0.177; modern 6 of 6 and 6 of 6 (at least 3),
with 0.037 to 0.043 (allowed 0.4 of it). Here one class stands for it, with fewer steps.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from looking import CLASSES, SIDE, noise, tiny_model
from PIL import Image
from torch import Tensor, nn

from impasto.errors import WrongCall
from impasto.losses import total_variation
from impasto.visualization import Model, Result, class_image, load_model
from impasto.visualization.class_images import class_pictures
from impasto.visualization.class_presets import ABLATION, PRESETS, Settings
from impasto.visualization.judging import verdicts
from impasto.visualization.registry import Refused

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

QUICK = {"steps": 12, "seeds": 2}
MEAN = (0.5, 0.4, 0.3)


class Linear(nn.Module):
    """Logits a.z + 100, -b.z: of the first class a probability of 1 all around z = 0."""

    def __init__(self, size: int = 8, shift: float = 100) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(noise(3, size, size, seed=1) - 0.5), nn.Parameter(noise(3, size, size, seed=2))
        self.shift = shift

    def forward(self, z: Tensor) -> Tensor:
        return torch.stack([(self.a * z).sum((1, 2, 3)) + self.shift, -(self.b * z).sum((1, 2, 3))], 1)


def linear_model(**options: float) -> Model:
    return load_model(Linear(**options), size=8, mean=MEAN, std=(1, 1, 1), classes=("up", "down"))


def differences(model: Model, settings: Settings, **options: int) -> Tensor:
    """What the picture of class 0 is away from the mean."""
    return class_pictures(model, 0, settings, **options).pictures - torch.tensor(MEAN).view(3, 1, 1)


class TestClosedForms:
    @pytest.mark.parametrize("penalty", [0.5, 4.0])
    def test_the_optimum_of_a_linear_logit_is_a_over_2_lambda(self, penalty):
        """S = a.z - lambda |z|^2. Largest difference measured 5e-8, allowed 1e-4.

        The logit of the other class, which a softmax lowers, is not in it; and its probability is 1 from the start.
        """
        model = linear_model()
        settings = Settings(steps=80, rate=0.2 / penalty, penalty=penalty, bounded=False)
        expected = model.network.a / (2 * penalty)
        found = differences(model, settings)[0]
        assert (found - expected).abs().max() <= 1e-4 < expected.abs().max() / 100

    def test_the_fixed_point_of_decay(self):
        """Measured 5e-8, allowed 1e-6."""
        model = linear_model()
        found = differences(model, Settings(steps=200, rate=0.1, decay=0.2, bounded=False))[0]
        assert (found - 0.8 * 0.1 * model.network.a / 0.2).abs().max() <= 1e-6

    def test_bounded(self):
        """Without a penalty every pixel goes to the end that its weight points to."""
        model = linear_model()
        found = class_pictures(model, 0, Settings(steps=60, rate=50.0)).pictures[0]
        torch.testing.assert_close(found, (model.network.a > 0).float(), rtol=0, atol=1e-6)
        unbounded = class_pictures(model, 0, Settings(steps=60, rate=1.0, bounded=False)).pictures
        assert unbounded.min() < -1 and unbounded.max() > 2

    def test_the_fourier_canvas_reaches_the_ends_too(self):
        model = linear_model()
        settings = replace(PRESETS["modern"], steps=300, rate=0.5, tv=0.0, jitter=0, degrees=0.0, scale=0.0)
        found = class_pictures(model, 0, settings).pictures
        slope, mean = model.network.a, torch.tensor(MEAN).view(3, 1, 1)
        most = torch.maximum(slope * (1 - mean), -slope * mean).sum()
        assert 0.85 * most < model(found)[0, 0] - 100 < most

    def test_roughness_is_what_tv_takes(self):
        model = linear_model()
        rough, smooth = (class_pictures(model, 0, Settings(steps=60, rate=0.02, tv=tv)).pictures for tv in (0, 30))
        assert total_variation(smooth, beta=1) < 0.4 * total_variation(rough, beta=1)

    def test_a_softmax_would_not_move_it(self):
        """The saboteur: at a probability of 1, where this starts, the probability has no gradient. The logit has."""

        class Softmax(Linear):
            def forward(self, z: Tensor) -> Tensor:
                return super().forward(z).softmax(1)

        with pytest.raises(Refused, match="no pixel moves the class's logit from this start"):
            class_pictures(load_model(Softmax(), size=8, mean=MEAN, std=(1, 1, 1)), 0, PRESETS["simonyan"])
        assert class_pictures(linear_model(), 0, PRESETS["simonyan"]).ends()["logit_last"] > 101


class TestPresets:
    def test_the_choices_are_the_presets(self):
        hints = get_type_hints(class_image, localns={"Tensor": Tensor})
        assert get_args(hints["preset"]) == tuple(PRESETS)

    @pytest.mark.parametrize(
        ("name", "decay", "radius", "every", "norm", "contribution", "steps", "policy"),
        [
            ("yosinski1", 0, 0.5, 4, 50, 0, 500, "progress"),
            ("yosinski2", 0.3, 0, 1, 20, 0, 750, "none"),
            ("yosinski3", 1e-4, 1.0, 4, 0, 0, 1000, "none"),
            ("yosinski4", 0, 0.5, 4, 0, 90, 1000, "progress"),
        ],
    )
    def test_yosinskis_table_1(self, name, decay, radius, every, norm, contribution, steps, policy):
        """A rate of 100 in pixels from 0 to 255; the start is noise of deviation 10 about the mean."""
        found = PRESETS[name]
        assert (found.decay, found.blur, found.small_norm, found.small_contribution) == (
            decay, radius, norm, contribution,
        )  # fmt: skip
        assert (found.blur_every, found.steps, found.rule) == (every, steps, policy)
        assert found.rate * 255**2 == pytest.approx(100) and found.deviation * 255 == pytest.approx(10)
        assert (found.canvas, found.jitter, found.degrees, found.scale, found.penalty) == ("pixels", 0, 0, 0, 0)

    def test_a_rate_of_pixels_from_0_to_255(self):
        """x -> x + 100 dS/dx there, for S = a.x / 255, is 100 a / 255^2 in pixels from 0 to 1."""
        model = linear_model()
        settings = replace(PRESETS["yosinski3"], deviation=0.0, decay=0.0, blur=0.0, steps=1)
        torch.testing.assert_close(
            differences(model, settings)[0], 100 * model.network.a / 255**2, rtol=1e-4, atol=1e-7
        )

    def test_cs231ns_exercise(self):
        """x -> x + 25 (dS/dx - 2 0.001 x) with x = z / 0.226, written out: two steps without jitter and blur."""
        model = linear_model()
        settings = replace(PRESETS["cs231n"], deviation=0.0, jitter=0, blur=0.0, steps=2, bounded=False)
        slope = model.network.a * 0.226
        x = 25 * slope
        x = x + 25 * (slope - 2 * 1e-3 * x)
        torch.testing.assert_close(differences(model, settings)[0], 0.226 * x, rtol=1e-5, atol=1e-6)
        assert (PRESETS["cs231n"].jitter, PRESETS["cs231n"].blur, PRESETS["cs231n"].blur_every) == (16, 0.5, 10)

    def test_simonyans_start_is_the_mean(self):
        result = class_image(tiny_model(), target="ant", preset="simonyan", **QUICK)
        assert PRESETS["simonyan"].deviation == 0 and len(result.data["pictures"]) == 1

    @pytest.mark.parametrize("name", list(PRESETS))
    def test_each_raises_the_logit(self, name):
        """On average: over the last tenth of the steps against the first."""
        made = class_pictures(tiny_model(), 1, replace(PRESETS[name], steps=40), count=2, seed=1)
        assert made.ends()["logit_last"] > made.ends()["logit_first"] and len(made.logits) == 40


class TestClassPictures:
    def test_a_picture_does_not_depend_on_the_ones_beside_it(self):
        alone, beside = (class_pictures(tiny_model(), 1, replace(PRESETS["modern"], steps=4), count=n) for n in (1, 3))
        torch.testing.assert_close(alone.pictures, beside.pictures[:1], rtol=0, atol=1e-3)
        assert (beside.pictures[0] - beside.pictures[1]).abs().max() > 0.01

    def test_the_seed(self):
        first, again, other = (
            class_pictures(tiny_model(), 1, replace(PRESETS["modern"], steps=4), seed=seed).pictures
            for seed in (0, 0, 1)
        )
        assert torch.equal(first, again) and not torch.equal(first, other)

    def test_ends(self):
        made = class_pictures(linear_model(), 0, replace(PRESETS["none"], steps=20))
        expected = sum(made.logits[:2]) / 2, sum(made.logits[-2:]) / 2
        assert tuple(made.ends().values()) == pytest.approx(expected)

    def test_frames(self):
        made = class_pictures(tiny_model(), 1, replace(PRESETS["none"], steps=90), count=4)
        assert len(made.frames) == 40 and {frame.size for frame in made.frames} == {(2 * SIDE + 3, 2 * SIDE + 3)}
        last = np.asarray(made.frames[-1])[1 : SIDE + 1, 1 : SIDE + 1]
        expected = made.pictures[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0)
        assert np.array_equal(last, expected)
        assert len(class_pictures(tiny_model(), 1, replace(PRESETS["none"], steps=7)).frames) == 7

    def test_a_dead_start_is_refused(self):
        class Dead(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return 0 * x.mean((2, 3))

        with pytest.raises(Refused, match="no pixel moves the class's logit"):
            class_pictures(load_model(Dead(), size=8), 0, PRESETS["none"])

    def test_a_logit_behind_a_relu_that_is_off_wakes_up(self):
        class Off(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.relu(x.mean((2, 3)) - 0.2)

        model = load_model(Off(), size=8, mean=MEAN, std=(1, 1, 1))
        made = class_pictures(model, 0, replace(PRESETS["none"], steps=60, rate=0.002))
        assert made.logits[0] == 0 and made.logits[15] == 0 and made.ends()["logit_last"] == 0
        rising = class_pictures(model, 0, replace(PRESETS["none"], steps=60, rate=0.1))
        assert rising.logits[0] == 0 and rising.ends()["logit_last"] == pytest.approx(0.5 - 0.2)


@pytest.fixture(scope="module")
def found() -> Result:
    return class_image(tiny_model(), target="ant", judge=tiny_model(mean=MEAN), **QUICK)


class TestClassImage:
    def test_its_images_and_numbers(self, found):
        data = found.data
        assert list(found.images) == ["class_image", "best"] and found.images["best"].size == (SIDE, SIDE)
        assert (data["class"], data["name"], data["preset"]) == (1, "ant", "modern")
        assert data["settings"]["steps"] == 12 and data["settings"]["rule"] == "adam"
        assert len(data["pictures"]) == 2 and len(found.frames) == 12
        assert 0 <= data["own_first"] <= 2 and 0 <= data["judge_top5"] <= 2
        assert found.caption.startswith("ant (modern): rounded to 8 bits") and "the judge" in found.caption

    def test_the_numbers_are_of_the_picture_as_it_is_in_a_file(self, found, tmp_path):
        """Read back from the PNG: probability, rank and total variation, both networks'."""
        found.save(tmp_path)
        with Image.open(tmp_path / "best.png") as image:
            read = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
        best = max(found.data["pictures"], key=lambda each: each["judge"]["probability"])
        for model, key in ((tiny_model(), "network"), (tiny_model(mean=MEAN), "judge")):
            logits = model(read)[0]
            assert best[key]["probability"] == pytest.approx(logits.softmax(0)[1].item(), abs=1e-5)
            assert best[key]["rank"] == 1 + int((logits > logits[1]).sum())
            assert best[key]["top"] == [CLASSES[index] for index in logits.argsort(descending=True)]
        assert best["total_variation"] == pytest.approx(total_variation(read, beta=1).item(), abs=1e-5)

    def test_the_best_without_a_judge(self):
        model = tiny_model()
        found = class_image(model, target=2, **QUICK)
        assert all(each["judge"] is None for each in found.data["pictures"]) and found.data["judge_top5"] is None
        assert "ask a second network" in found.caption
        probabilities = [each["network"]["probability"] for each in found.data["pictures"]]
        read = torch.from_numpy(np.array(found.images["best"])).permute(2, 0, 1)[None] / 255
        assert verdicts(model, read, 2)[0].asked.probability == pytest.approx(max(probabilities), abs=1e-6)

    def test_ablation(self):
        found = class_image(tiny_model(), target="ant", ablation=True, **QUICK)
        assert list(found.data["ablation"]) == list(ABLATION) and "ablation" in found.images
        values = [each["total_variation"] for each in found.data["ablation"].values()]
        assert len(set(values)) == len(ABLATION)

    def test_command(self):
        model = load_model("squeezenet1_1", weights=None, size=64)
        found = class_image(model, target="flamingo", seeds=1, steps=2, preset="none")
        assert found.command == (
            "impasto see class-image --target flamingo --seeds 1 --steps 2 --preset none --model squeezenet1_1 "
            "--weights none --size 64"
        )

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({}, "got target None.*expected a class"),
            ({"target": 1, "seeds": 0}, "0 seeds"),
            ({"target": 1, "steps": 0}, "0 steps"),
            ({"target": "cow"}, "unknown class 'cow'"),
            ({"target": 5}, "class 5: expected 0 to 4"),
            ({"target": 1, "preset": "best"}, "unknown preset 'best'"),
        ],
    )
    def test_wrong_calls(self, options, message):
        with pytest.raises(WrongCall, match=message):
            class_image(tiny_model(), **options)

    def test_refuses_before_any_work(self):
        model, judge = tiny_model(), tiny_model(classes=("a", "b", "c", "d", "e"))
        calls = []
        forward = model.network.forward
        model.network.forward = lambda x: (calls.append(len(x)), forward(x))[1]  # type: ignore[method-assign]
        with pytest.raises(Refused, match="none of them 'ant': choose a judge that knows it"):
            class_image(model, target="ant", judge=judge)
        assert len(calls) <= 2
        with pytest.raises(Refused, match="no classes"):
            class_image(load_model(nn.Sequential(nn.Conv2d(3, 4, 3)), size=SIDE), target=0)


SIX = ("flamingo", "dalmatian", "strawberry", "tarantula", "dumbbell", "goldfish")


def gate(
    classes: tuple[str, ...], names: tuple[str, ...], steps: int | None = None
) -> dict[str, list[dict[str, float]]]:
    """For each of the ablation's settings and each class: own and judge's rank, and the total variation."""
    network, judge = load_model("efficientnet_lite0"), load_model("efficientnet_lite1")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for name in names:
        settings = ABLATION[name] if steps is None else replace(ABLATION[name], steps=steps)
        for target in classes:
            index = network.classes.index(target)
            picture = class_pictures(network, index, settings).pictures
            (own,), (other,) = verdicts(network, picture, index), verdicts(judge, picture, target)
            shown = picture.clamp(0, 1).mul(255).round().div(255)
            found[name].append({"own": own.rank, "judge": other.rank, "tv": float(total_variation(shown, beta=1))})
    return found


def test_another_network_sees_it_with_regularisers_and_not_without():
    pytest.importorskip("efficientnet_lite_pytorch")
    """The judge's rank measured 2 (p 0.28) against 105, total variation 0.028 against 0.126."""
    found = gate(("flamingo",), ("none", "modern"), steps=32)
    (plain,), (modern,) = found["none"], found["modern"]
    assert plain["own"] == 1 and modern["own"] == 1
    assert modern["judge"] <= 5 < plain["judge"]
    assert modern["tv"] <= 0.4 * plain["tv"]


if __name__ == "__main__":
    for name, rows in gate(SIX, tuple(sys.argv[1:]) or tuple(ABLATION)).items():
        print(name, rows, flush=True)
