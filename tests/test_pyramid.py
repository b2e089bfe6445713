"""Sizes from coarse to fine, and optimisers that go on at the next one."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from impasto.losses import adam, clip, lbfgs, optimize_image
from impasto.visualization import pyramid
from impasto.visualization.pyramid import Carried, resize, sizes

RULES = {"lbfgs": lambda: lbfgs(5), "adam": adam}


def draw(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def constant(value: float, height: int, width: int) -> torch.Tensor:
    return torch.full((1, 3, height, width), value, dtype=torch.float64)


def valley(picture: torch.Tensor) -> torch.Tensor:
    """A Rosenbrock valley between neighbouring columns, as a mean over the pixels."""
    left, right = 2 * picture[..., :-1], 2 * picture[..., 1:]
    return (10 * (right - left**2).square() + (1 - left).square()).mean()


def begin_with(rule: Carried, before: dict[str, object], old: torch.Tensor, new: torch.Tensor) -> dict[str, object]:
    """The state of the optimiser for ``new`` when the one for ``old`` ended with ``before``."""
    rule([old]).state[old] = before
    return rule([new]).state[new]


class TestSizes:
    def test_by_hand(self):
        # 512 / sqrt(2)^k: 512, 362.04, 256, 181.02, 128; 384 / sqrt(2)^k: 384, 271.53, 192, 135.76, 96
        expected = [(96, 128), (136, 181), (192, 256), (272, 362), (384, 512)]
        assert sizes(384, 512, 128) == expected
        assert sizes(512, 384, 128) == [size[::-1] for size in expected]

    @pytest.mark.parametrize("smallest", [512, 513, 10_000, 363])
    def test_one_where_no_coarser_is_wanted(self, smallest):
        assert sizes(384, 512, smallest) == [(384, 512)]

    def test_the_coarsest_is_not_below_the_smallest(self):
        assert sizes(300, 300, 150) == [(150, 150), (212, 212), (300, 300)]
        assert sizes(300, 300, 151) == [(212, 212), (300, 300)]
        assert sizes(300, 300, 149) == [(150, 150), (212, 212), (300, 300)]

    def test_no_side_is_below_what_the_networks_take(self):
        assert sizes(32, 512, 128) == [(16, 256), (23, 362), (32, 512)]
        assert sizes(16, 512, 128) == [(16, 512)]

    @pytest.mark.parametrize("size", [(480, 640), (1000, 333), (77, 200), (1023, 1024)])
    def test_proportions_stay(self, size):
        found = sizes(*size, 64)
        assert found[-1] == size
        for height, width in found:
            assert abs(height - width * size[0] / size[1]) <= 0.5 + 0.5 * size[0] / size[1]
        for (_, narrow), (_, wide) in itertools.pairwise(found):
            assert abs(wide - math.sqrt(2) * narrow) <= 0.5 + 0.5 * math.sqrt(2)  # both are rounded


class TestResize:
    def test_the_same_size_is_the_same_picture(self):
        picture = draw(7, 9)
        assert resize(picture, (7, 9)) is picture

    def test_constant_stays_constant(self):
        torch.testing.assert_close(resize(constant(0.3, 8, 10), (17, 5)), constant(0.3, 17, 5), rtol=0, atol=1e-12)

    def test_shrinking_is_without_aliasing(self):
        stripes = torch.arange(32).remainder(2).double().expand(1, 3, 32, 32)
        shrunk = resize(stripes, (8, 8))
        assert (shrunk[..., 2:-2] - 0.5).abs().max() < 0.05


class TestCarried:
    """From 4 x 6 to 8 x 12 pixels: a factor of 4 in number."""

    def test_adam_by_hand_where_all_is_constant(self):
        old, new = draw(4, 6).requires_grad_(), draw(8, 12).requires_grad_()
        before = {"step": torch.tensor(7.0), "exp_avg": constant(0.8, 4, 6), "exp_avg_sq": constant(0.32, 4, 6)}
        state = begin_with(Carried(adam()), before, old, new)
        assert state["step"] == 7
        torch.testing.assert_close(state["exp_avg"], constant(0.2, 8, 12), rtol=1e-12, atol=0)
        torch.testing.assert_close(state["exp_avg_sq"], constant(0.02, 8, 12), rtol=1e-12, atol=0)

    @pytest.fixture
    def nearest(self, monkeypatch):
        """Each pixel of the small picture becomes four: all sums can be done by hand."""
        monkeypatch.setattr(pyramid, "resize", lambda pictures, size: torch.nn.functional.interpolate(pictures, size))

    @staticmethod
    def curvature(*pairs: tuple[torch.Tensor, torch.Tensor]) -> dict[str, object]:
        steps, changes = [step.flatten() for step, _ in pairs], [change.flatten() for _, change in pairs]
        return {
            "func_evals": 9,
            "n_iter": 5,
            "d": steps[-1].clone(),
            "t": 1.0,
            "old_stps": steps,
            "old_dirs": changes,
            "ro": [1 / step.dot(change) for step, change in zip(steps, changes, strict=True)],
            "H_diag": torch.tensor(0.7, dtype=torch.float64),
            "prev_flat_grad": changes[-1].clone(),
            "prev_loss": 3.0,
        }

    def test_lbfgs_by_hand(self, nearest):
        pairs = [(draw(4, 6, seed), draw(4, 6, 10 + seed)) for seed in range(3)]  # positive, so their products are
        old, new = draw(4, 6).requires_grad_(), draw(8, 12).requires_grad_()
        before = self.curvature(*pairs)
        state = begin_with(Carried(lbfgs()), before, old, new)

        def four(picture: torch.Tensor) -> torch.Tensor:
            return picture.repeat_interleave(2, 2).repeat_interleave(2, 3).flatten()

        assert len(state["old_stps"]) == len(state["old_dirs"]) == len(state["ro"]) == 3
        for index, (step, change) in enumerate(pairs):
            torch.testing.assert_close(state["old_stps"][index], four(step), rtol=1e-12, atol=0)
            torch.testing.assert_close(state["old_dirs"][index], four(change) / 4, rtol=1e-12, atol=0)
            product = state["old_stps"][index].dot(state["old_dirs"][index])
            torch.testing.assert_close(product, (step * change).sum(), rtol=1e-12, atol=0)  # y.s is kept
            torch.testing.assert_close(state["ro"][index], before["ro"][index], rtol=1e-12, atol=0)
        assert state["H_diag"].item() == pytest.approx(4 * 0.7)  # s.y / y.y, of the newest pair or not
        assert not state["d"].any()

    def test_scale_of_the_inverse_hessian_is_the_enlarged_pairs(self, nearest):
        step, change = draw(4, 6), draw(4, 6, 1)
        before = self.curvature((step, change))
        before["H_diag"] = (step * change).sum() / change.square().sum()
        state = begin_with(Carried(lbfgs()), before, draw(4, 6).requires_grad_(), draw(8, 12).requires_grad_())
        (step,), (change,) = state["old_stps"], state["old_dirs"]
        torch.testing.assert_close(state["H_diag"], step.dot(change) / change.dot(change), rtol=1e-12, atol=0)

    def test_pairs_without_positive_curvature_are_dropped(self):
        # bicubic enlarging does not keep the products: stripes against slightly longer ones
        good = (constant(0.1, 4, 6), constant(0.2, 4, 6))
        bad = (constant(0.1, 4, 6), constant(-0.2, 4, 6))
        flat = (constant(0.1, 4, 6), constant(0.0, 4, 6))
        before = self.curvature(good, bad, flat, good)
        state = begin_with(Carried(lbfgs()), before, draw(4, 6).requires_grad_(), draw(8, 12).requires_grad_())
        assert len(state["old_stps"]) == len(state["old_dirs"]) == len(state["ro"]) == 2
        for step, change in zip(state["old_stps"], state["old_dirs"], strict=True):
            torch.testing.assert_close(step, constant(0.1, 8, 12).flatten(), rtol=1e-12, atol=0)
            torch.testing.assert_close(change, constant(0.05, 8, 12).flatten(), rtol=1e-12, atol=0)

    @pytest.mark.parametrize("before", [{}, {"func_evals": 1, "n_iter": 0}])
    def test_an_optimiser_that_learned_nothing_is_a_new_one(self, before):
        assert (
            begin_with(Carried(lbfgs()), before, draw(4, 6).requires_grad_(), draw(8, 12).requires_grad_()) == before
            or not before
            or not begin_with(Carried(lbfgs()), before, draw(4, 6).requires_grad_(), draw(8, 12).requires_grad_())
        )

    @pytest.mark.parametrize("rule", RULES)
    def test_the_first_step_at_the_next_size_goes_downhill(self, rule):
        carried, losses = Carried(RULES[rule]()), []
        small = optimize_image(draw(12, 10), valley, step=carried, steps=8, project=clip)
        start = resize(small, (17, 14)).clamp(0, 1)
        slope = start.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(valley(slope), slope)
        seen = []

        def note(step):
            seen.append(step.image.clone())
            losses.append(valley(step.image).item())

        optimize_image(start, valley, step=carried, steps=1, project=clip, on_step=note)
        assert ((seen[0] - start) * gradient).sum() < 0
        if rule == "lbfgs":
            assert losses[0] < valley(start)

    def test_lbfgs_makes_no_steps_of_a_beginner(self):
        """A new optimiser has the valley to learn; one that was carried is ahead after as many evaluations."""
        small = optimize_image(draw(12, 10), valley, step=(carried := Carried(lbfgs(20))), steps=15)
        large, steps = resize(small, (17, 14)), {}
        for name, rule in {"carried": carried, "new": lbfgs(20)}.items():
            notes = steps[name] = []
            optimize_image(
                large, valley, step=rule, steps=6, on_step=lambda now, to=notes: to.append((now.evaluations, now.loss))
            )
        assert [count for count, _ in steps["carried"]] == [count for count, _ in steps["new"]] == [2, 3, 4, 5, 6, 7]
        ahead = [carried / new for (_, carried), (_, new) in zip(steps["carried"], steps["new"], strict=True)]
        assert all(share < 0.97 for share in ahead)  # 0.89 to 0.94

    @pytest.mark.parametrize("rule", RULES)
    def test_stopped_and_restored_is_never_stopped(self, rule):
        whole, half = [], []

        def note(into):
            return lambda step: into.append(step.image.clone())

        expected = optimize_image(
            draw(6, 8), valley, step=Carried(RULES[rule]()), steps=10, project=clip, on_step=note(whole)
        )
        first = Carried(RULES[rule]())
        image = optimize_image(draw(6, 8), valley, step=first, steps=5, project=clip, on_step=note(half))
        second = Carried(RULES[rule]())
        second.restore(image, first.optimizer.state_dict())
        got = optimize_image(image, valley, step=second, steps=5, project=clip, on_step=note(half))
        assert torch.equal(got, expected)
        assert len(whole) == len(half) == 10
        assert all(torch.equal(*pair) for pair in zip(whole, half, strict=True))

    @pytest.mark.parametrize("rule", RULES)
    def test_without_the_state_it_is_another_way(self, rule):
        expected = optimize_image(draw(6, 8), valley, step=RULES[rule](), steps=10, project=clip)
        carried = Carried(RULES[rule]())
        image = optimize_image(draw(6, 8), valley, step=carried, steps=5, project=clip)
        carried = Carried(RULES[rule]())
        carried.restore(image, None)
        assert not torch.equal(optimize_image(image, valley, step=carried, steps=5, project=clip), expected)

    def test_a_rule_that_was_restored_carries_on_at_the_next_size(self):
        first, second = Carried(lbfgs(5)), Carried(lbfgs(5))
        image = optimize_image(draw(6, 8), valley, step=first, steps=5)
        second.restore(image, first.optimizer.state_dict())
        larger = resize(image, (9, 12))
        got, expected = (optimize_image(larger, valley, step=rule, steps=5) for rule in (second, first))
        assert torch.equal(got, expected)
