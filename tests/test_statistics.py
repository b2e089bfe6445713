"""Statistics that add up, against hand-worked numbers, naive loops, scipy, and `style_loss`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import statistics as reference
from reference.losses import mean_over_batch

from impasto.losses import CONVENTIONS, STATISTICS, gram_matrix, moments, statistic_loss, style_loss

CLOSE = {"rtol": 1e-11, "atol": 1e-13}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def draw_region(*shape: int, seed: int = 7) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Two maps over two positions, and a line of positions along each axis.
F = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]], dtype=torch.float64)
P = torch.tensor([[[[3.0, -3.0, 0.0, 0.0]], [[0.0, 0.0, 1.0, -1.0]]]], dtype=torch.float64)
Q = torch.tensor([[[[2.0, 0.0, 1.0, 1.0]], [[2.0, 2.0, 6.0, -2.0]]]], dtype=torch.float64)


class TestMoments:
    def test_by_hand(self):
        found = moments(F, statistic="wasserstein")
        assert found.weight.tolist() == [2]
        assert found.first.tolist() == [[3, 7]]
        assert found.second.tolist() == [[[5, 11], [11, 25]]]
        assert found.gram.tolist() == [[[1.25, 2.75], [2.75, 6.25]]]
        assert found.mean.tolist() == [[1.5, 3.5]]
        assert found.covariance.tolist() == [[[0.25, 0.25], [0.25, 0.25]]]

    def test_by_hand_in_a_region(self):
        # weights 0.5 and 0.25: the sums are 0.5 (1, 3) + 0.25 (2, 4) and so on
        found = moments(F, torch.tensor([[[[0.5, 0.25]]]]), "wasserstein")
        assert found.weight.tolist() == [0.75]
        assert found.first.tolist() == [[1, 2.5]]
        assert found.second.tolist() == [[[1.5, 3.5], [3.5, 8.5]]]
        torch.testing.assert_close(found.mean, torch.tensor([[4 / 3, 10 / 3]], dtype=torch.float64), **CLOSE)

    @pytest.mark.parametrize("regions", [0, 1, 2])
    def test_reference(self, regions):
        features = draw(2, 3, 4, 5)
        region = draw_region(regions, 1, 4, 5) if regions else None
        found = moments(features, region, "wasserstein")
        for index, item in enumerate(features):
            here = None if region is None else region[index % regions, 0]
            weight, first, second = reference.sums(item, here)
            mean, covariance = reference.mean_and_covariance(item, here)
            assert found.weight[index].item() == pytest.approx(weight, rel=1e-12)
            for got, expected in (
                (found.first, first),
                (found.second, second),
                (found.mean, mean),
                (found.covariance, covariance),
            ):
                torch.testing.assert_close(got[index], torch.from_numpy(expected), **CLOSE)

    @pytest.mark.parametrize("statistic", STATISTICS)
    def test_parts_add_up(self, statistic):
        features, region = draw(2, 3, 4, 5), draw_region(1, 1, 4, 5)
        left, right = (moments(features[..., at], region[..., at], statistic) for at in (slice(2), slice(2, 5)))
        both, whole = left + right, moments(features, region, statistic)
        for got, expected in ((both.weight, whole.weight), (both.first, whole.first), (both.second, whole.second)):
            torch.testing.assert_close(got, expected, **CLOSE)

    def test_gram_is_the_gram_matrix(self):
        features = draw(2, 3, 4, 5)
        torch.testing.assert_close(moments(features).gram, gram_matrix(features), **CLOSE)

    def test_region_of_ones_is_no_region(self):
        features = draw(2, 3, 4, 5)
        everywhere, plain = (moments(features, region, "wasserstein") for region in (torch.ones(1, 1, 4, 5), None))
        torch.testing.assert_close(everywhere.weight, plain.weight, **CLOSE)
        torch.testing.assert_close(everywhere.covariance, plain.covariance, **CLOSE)

    @pytest.mark.parametrize("regions", [0, 1, 2])
    @pytest.mark.parametrize("of", ["weight", "first", "second", "both"])
    def test_gradient(self, regions, of):
        region = draw_region(regions, 1, 2, 3) if regions else None
        if of == "weight":
            assert not moments(draw(2, 3, 2, 3).requires_grad_(), region).weight.requires_grad
            return

        def of_moments(features: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
            found = moments(features, region, "wasserstein")
            return (found.first, found.second) if of == "both" else getattr(found, of)

        assert torch.autograd.gradcheck(of_moments, draw(2, 3, 2, 3).requires_grad_())
        assert torch.autograd.gradgradcheck(of_moments, draw(2, 3, 2, 3).requires_grad_())

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_low_precision_is_summed_in_float32(self, dtype):
        features, region = draw(1, 3, 16, 16, dtype=dtype), draw_region(1, 1, 16, 16).float()
        with torch.autocast("cpu", torch.bfloat16):
            found = moments(features, region, "wasserstein")
        weight, first, second = reference.sums(features[0], region[0, 0])
        for got, expected in ((found.weight, weight), (found.first, first), (found.second, second)):
            assert got.dtype == torch.float32
            np.testing.assert_allclose(got[0].numpy(), expected, rtol=2e-5, atol=1e-4)

    @pytest.mark.parametrize("statistic", STATISTICS)
    def test_gradient_of_maps_in_bfloat16(self, statistic):
        """Of the rounded maps, to a rounding of the answer."""
        maps, region = draw(1, 8, 9, 9).to(torch.bfloat16).requires_grad_(), draw_region(1, 1, 9, 9)
        target = moments(draw(1, 8, 5, 6, seed=1).float(), None, statistic)
        (found,) = torch.autograd.grad(statistic_loss(moments(maps, region, statistic), target, statistic), maps)
        exact = maps.detach().double().requires_grad_()
        (expected,) = torch.autograd.grad(statistic_loss(moments(exact, region, statistic), target, statistic), exact)
        assert found.dtype == torch.bfloat16
        assert (found.double() - expected).abs().max() < 0.01 * expected.abs().max()

    def test_gram_sums_have_no_mean(self):
        with pytest.raises(ValueError, match="Gram sums only.*'wasserstein'"):
            _ = moments(F).mean

    def test_wrong_calls(self):
        with pytest.raises(ValueError, match=r"\(3, 4, 5\), expected \(N, C, H, W\)"):
            moments(torch.zeros(3, 4, 5))
        with pytest.raises(ValueError, match=r"region \(1, 1, 5, 4\) for features \(2, 3, 4, 5\)"):
            moments(torch.zeros(2, 3, 4, 5), torch.ones(1, 1, 5, 4))
        with pytest.raises(ValueError, match=r"unknown statistic 'grams'\. Did you mean 'gram'"):
            moments(F, statistic="grams")


class TestGramLoss:
    @pytest.mark.parametrize("convention", CONVENTIONS)
    @pytest.mark.parametrize("targets", [1, 3])
    def test_is_the_style_loss(self, convention, targets):
        features, target = draw(3, 3, 4, 5).requires_grad_(), draw(targets, 3, 7, 2, seed=1)
        found = statistic_loss(moments(features), moments(target), convention=convention)
        expected = style_loss(features, target, convention)
        torch.testing.assert_close(found, expected, **CLOSE)
        torch.testing.assert_close(
            torch.autograd.grad(found, features), torch.autograd.grad(expected, features), **CLOSE
        )

    @pytest.mark.parametrize("statistic", STATISTICS)
    def test_sees_its_region_only(self, statistic):
        features, region = draw(1, 3, 4, 6).requires_grad_(), torch.zeros(1, 1, 4, 6)
        region[..., :2] = 1
        target = moments(draw(1, 3, 5, 5, seed=1), None, statistic)
        found = statistic_loss(moments(features, region, statistic), target, statistic)
        part = statistic_loss(moments(features[..., :2], None, statistic), target, statistic)
        torch.testing.assert_close(found, part, rtol=1e-9, atol=0)
        (gradient,) = torch.autograd.grad(found, features)
        assert not gradient[..., 2:].any()
        assert gradient[..., :2].abs().min() > 0

    @pytest.mark.parametrize("statistic", STATISTICS)
    @pytest.mark.parametrize("empty", ["picture", "target"])
    def test_empty_region_asks_for_nothing(self, statistic, empty):
        features, nothing = draw(2, 3, 4, 5).requires_grad_(), torch.zeros(1, 1, 4, 5)
        found = moments(features, nothing if empty == "picture" else None, statistic)
        target = moments(draw(1, 3, 4, 5, seed=1), nothing if empty == "target" else None, statistic)
        loss = statistic_loss(found, target, statistic)
        assert loss.item() == 0
        (gradient,) = torch.autograd.grad(loss, features)
        assert gradient.abs().max() == 0

    def test_one_empty_region_of_a_batch(self):
        features, region = draw(2, 3, 4, 5), torch.ones(2, 1, 4, 5)
        region[1] = 0
        target = moments(draw(1, 3, 4, 5, seed=1))
        half = statistic_loss(moments(features[:1]), target) / 2
        torch.testing.assert_close(statistic_loss(moments(features, region), target), half, **CLOSE)

    def test_wrong_calls(self):
        with pytest.raises(ValueError, match=r"moments \(1, 2, 2\) and a target \(1, 3, 3\)"):
            statistic_loss(moments(F), moments(draw(1, 3, 4, 5)))
        with pytest.raises(ValueError, match=r"moments \(1, 2, 2\) and a target \(2, 2, 2\)"):
            statistic_loss(moments(F), moments(F.expand(2, 2, 1, 2)))
        with pytest.raises(ValueError, match="unknown convention"):
            statistic_loss(moments(F), moments(F), convention="gatis")


class TestWasserstein:
    def test_by_hand(self):
        # P: mean (0, 0), covariance diag(4.5, 0.5); Q: mean (1, 2), covariance diag(0.5, 8)
        # 1 + 4 + (sqrt 4.5 - sqrt 0.5)^2 + (sqrt 0.5 - sqrt 8)^2 = 5 + 2 + 4.5; of Q: 1 + 4 + 0.5 + 8 = 13.5
        p, q = (moments(maps, None, "wasserstein") for maps in (P, Q))
        assert q.mean.tolist() == [[1, 2]]
        assert q.covariance.tolist() == [[[0.5, 0], [0, 8]]]
        assert statistic_loss(p, q, "wasserstein").item() == pytest.approx(11.5 / 13.5, rel=1e-12)
        assert statistic_loss(q, p, "wasserstein").item() == pytest.approx(11.5 / 5, rel=1e-12)

    @pytest.mark.parametrize("targets", [1, 3])
    def test_reference(self, targets):
        features, target = draw(3, 4, 4, 5), 1.5 * draw(targets, 4, 6, 3, seed=1) + 0.3
        expected = mean_over_batch(reference.wasserstein_relative, features, target)
        for dtype, rel in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
            found, goal = (moments(maps.to(dtype), None, "wasserstein") for maps in (features, target))
            loss = statistic_loss(found, goal, "wasserstein")
            assert loss.dtype == dtype
            assert loss.item() == pytest.approx(expected, rel=rel)

    def test_reference_in_a_region(self):
        features, target, region = draw(1, 4, 4, 5), draw(1, 4, 6, 3, seed=1), draw_region(1, 1, 4, 5)
        expected = reference.wasserstein_relative(features[0], target[0], region[0, 0])
        found, goal = moments(features, region, "wasserstein"), moments(target, None, "wasserstein")
        assert statistic_loss(found, goal, "wasserstein").item() == pytest.approx(expected, rel=1e-10)

    def test_nothing_where_nothing_differs(self):
        same = moments(draw(2, 3, 4, 5), None, "wasserstein")
        assert abs(statistic_loss(same, same, "wasserstein").item()) < 1e-12

    def test_shifted_maps_are_as_far_as_the_shift(self):
        features = draw(1, 3, 4, 5)
        goal, moved = (moments(maps, None, "wasserstein") for maps in (features, features + 2))
        scale = features.square().sum().item() / 20
        assert statistic_loss(moved, goal, "wasserstein").item() == pytest.approx(3 * 4 / scale, rel=1e-9)

    def test_scale_of_the_features_does_not_matter(self):
        features, target = draw(1, 3, 4, 5), draw(1, 3, 4, 5, seed=1)
        plain, scaled = (
            statistic_loss(*(moments(k * maps, None, "wasserstein") for maps in (features, target)), "wasserstein")
            for k in (1, 100)
        )
        torch.testing.assert_close(scaled, plain, rtol=1e-10, atol=0)

    @pytest.mark.parametrize(
        ("positions", "target_positions"), [((4, 5), (4, 5)), ((2, 2), (4, 5)), ((4, 5), (1, 3)), ((1, 3), (2, 2))]
    )
    def test_gradient_also_with_fewer_positions_than_channels(self, positions, target_positions):
        target = moments(draw(1, 6, *target_positions, seed=1), None, "wasserstein")

        def loss(features: torch.Tensor) -> torch.Tensor:
            return statistic_loss(moments(features, None, "wasserstein"), target, "wasserstein")

        assert torch.autograd.gradcheck(loss, draw(2, 6, *positions).requires_grad_())

    @pytest.mark.parametrize("maps", ["constant", "zero", "one position"])
    def test_gradient_is_finite_without_any_variance(self, maps):
        features = {
            "constant": torch.ones(1, 5, 4, 4),
            "zero": torch.zeros(1, 5, 4, 4),
            "one position": draw(1, 5, 1, 1),
        }
        given = features[maps].float().requires_grad_()
        target = moments(draw(1, 5, 6, 6, dtype=torch.float32), None, "wasserstein")
        loss = statistic_loss(moments(given, None, "wasserstein"), target, "wasserstein")
        (gradient,) = torch.autograd.grad(loss, given)
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 10

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 0.01)])
    def test_gradient_with_a_steep_spectrum(self, dtype, tolerance):
        """Standard deviations from 1 to 0.01, as VGG's: the gradient along the smallest is there too."""
        scale = torch.logspace(0, -2, 16, dtype=torch.float64)[:, None]
        axes = torch.linalg.qr(draw(16, 16, seed=5))[0]
        features, target = ((axes @ (scale * draw(16, 64, seed=k))).reshape(1, 16, 8, 8) for k in (0, 1))
        given = features.to(dtype).requires_grad_()
        goal = moments(target.to(dtype), None, "wasserstein")
        (found,) = torch.autograd.grad(statistic_loss(moments(given, None, "wasserstein"), goal, "wasserstein"), given)
        expected = torch.from_numpy(reference.wasserstein_relative_gradient(features[0], target[0]))
        for axis in axes.T:
            along = axis @ expected.flatten(1)
            assert (axis @ found[0].double().flatten(1) - along).norm() < tolerance * along.norm()

    @pytest.mark.parametrize("convention", ["gatys", "johnson"])
    def test_has_no_other_convention(self, convention):
        same = moments(F, None, "wasserstein")
        with pytest.raises(ValueError, match=f"'wasserstein': got convention '{convention}'.*use 'relative'"):
            statistic_loss(same, same, "wasserstein", convention)

    def test_needs_first_sums(self):
        with pytest.raises(ValueError, match="Gram sums only"):
            statistic_loss(moments(F), moments(F), "wasserstein")
