"""The loss functions against hand-worked numbers, naive loops from the papers, and identities."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest
import torch
from reference import losses as reference

from impasto.losses import (
    LossTerms,
    PerceptualLoss,
    content_loss,
    gram_matrix,
    style_loss,
    total_variation,
)

CONVENTIONS = ("relative", "gatys", "johnson")
FLOAT32 = {"rtol": 2e-5, "atol": 0.0}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def draw_picture(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def naming(*shapes: tuple[int, ...]) -> str:
    """A pattern for a message that holds all these shapes in any order, however a shape is written."""
    looks = ["(?=.*" + r"\D{1,3}".join(str(side) for side in shape) + ")" for shape in shapes]
    return "(?s)^" + "".join(looks)


# Two maps over two positions, small enough to do on paper.
F = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]], dtype=torch.float64)
P = torch.tensor([[[[0.0, 2.0]], [[1.0, 1.0]]]], dtype=torch.float64)
A = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]], dtype=torch.float64)


class TestGramMatrix:
    def test_by_hand(self):
        # F F^T = [[1+4, 3+8], [3+8, 9+16]], divided by C H W = 4
        expected = torch.tensor([[[1.25, 2.75], [2.75, 6.25]]], dtype=torch.float64)
        torch.testing.assert_close(gram_matrix(F), expected, rtol=1e-12, atol=0)

    def test_reference(self):
        features = draw(2, 3, 4, 5)
        for item, gram in zip(features, gram_matrix(features), strict=True):
            torch.testing.assert_close(gram, torch.from_numpy(reference.gram_matrix(item)), rtol=1e-12, atol=1e-15)

    def test_permuting_the_pixels_leaves_it_unchanged(self):
        features = draw(1, 3, 4, 5)
        order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
        shuffled = features.reshape(1, 3, 20)[..., order].reshape(1, 3, 4, 5)
        assert not torch.equal(features, shuffled)
        torch.testing.assert_close(gram_matrix(shuffled), gram_matrix(features), rtol=1e-12, atol=1e-15)

    def test_repeating_the_picture_leaves_it_unchanged(self):
        features = draw(1, 3, 4, 5)
        repeated = features.repeat(1, 1, 2, 3)
        torch.testing.assert_close(gram_matrix(repeated), gram_matrix(features), rtol=1e-12, atol=1e-15)

    def test_grows_with_the_square_of_the_features(self):
        features = draw(1, 3, 4, 5)
        torch.testing.assert_close(gram_matrix(3 * features), 9 * gram_matrix(features), rtol=1e-12, atol=1e-15)

    def test_batch_is_its_items(self):
        features = draw(3, 4, 5, 6)
        singles = torch.cat([gram_matrix(item[None]) for item in features])
        torch.testing.assert_close(gram_matrix(features), singles, rtol=1e-12, atol=1e-15)

    @pytest.mark.parametrize("layout", ["channels_last", "transposed", "strided"])
    def test_memory_layout_does_not_matter(self, layout):
        features = draw(2, 4, 6, 8)
        same = {
            "channels_last": features.contiguous(memory_format=torch.channels_last),
            "transposed": features.transpose(2, 3).contiguous().transpose(2, 3),
            "strided": features.repeat_interleave(2, dim=3)[..., ::2],
        }[layout]
        assert not same.is_contiguous()
        torch.testing.assert_close(gram_matrix(same), gram_matrix(features), rtol=1e-12, atol=1e-15)

    @pytest.mark.parametrize(
        ("given", "returned"),
        [
            (torch.float64, torch.float64),
            (torch.float32, torch.float32),
            (torch.bfloat16, torch.float32),
            (torch.float16, torch.float32),
        ],
    )
    def test_reduces_in_float32_or_wider(self, given, returned):
        features = draw(1, 3, 16, 16, dtype=given)
        gram = gram_matrix(features)
        assert gram.dtype == returned
        torch.testing.assert_close(gram[0].double(), torch.from_numpy(reference.gram_matrix(features[0])), **FLOAT32)

    def test_half_does_not_overflow(self):
        # sum of 64 * 64 squares of 100 is 4.1e7, far over half's 65504; the mean is 1e4
        features = torch.full((1, 1, 64, 64), 100.0, dtype=torch.float16)
        assert gram_matrix(features).item() == pytest.approx(1e4, rel=1e-6)

    @pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
    def test_autocast_does_not_lower_it(self, given):
        features = draw(2, 3, 8, 8, dtype=given)
        with torch.autocast("cpu", torch.bfloat16):
            gram = gram_matrix(features)
        assert gram.dtype == torch.float32
        for item, result in zip(features, gram, strict=True):
            torch.testing.assert_close(
                result.double(), torch.from_numpy(reference.gram_matrix(item)), rtol=1e-5, atol=1e-7
            )

    def test_gradient(self):
        features = draw(2, 3, 2, 3).requires_grad_()
        assert torch.autograd.gradcheck(gram_matrix, features)
        assert torch.autograd.gradgradcheck(gram_matrix, features)

    def test_gradient_of_maps_in_bfloat16(self):
        """Of the rounded maps, to a rounding of the answer."""
        maps = draw(2, 8, 5, 6).to(torch.bfloat16).requires_grad_()
        goal = draw(2, 8, 8).float()
        (found,) = torch.autograd.grad((gram_matrix(maps) - goal).square().sum(), maps)
        exact = maps.detach().double().requires_grad_()
        (expected,) = torch.autograd.grad((gram_matrix(exact) - goal).square().sum(), exact)
        assert found.dtype == torch.bfloat16
        assert (found.double() - expected).abs().max() < 0.01 * expected.abs().max()

    @pytest.mark.parametrize("shape", [(3, 4, 5), (4, 5), (1, 1, 3, 4, 5)])
    def test_wrong_number_of_axes(self, shape):
        with pytest.raises(ValueError, match=naming(shape)):
            gram_matrix(torch.zeros(shape))


class TestContentLoss:
    # F - P = 1, 0, 2, 3: squares sum to 14; P's to 6; C H W = 4
    @pytest.mark.parametrize(("convention", "expected"), [("relative", 14 / 6), ("gatys", 7.0), ("johnson", 3.5)])
    def test_by_hand(self, convention, expected):
        loss = content_loss(F, P, convention=convention)
        assert loss.shape == ()
        assert loss.item() == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("convention", CONVENTIONS)
    @pytest.mark.parametrize("targets", [1, 3])
    def test_reference(self, convention, targets):
        features, target = draw(3, 2, 4, 5), 1.5 * draw(targets, 2, 4, 5, seed=1)
        expected = reference.mean_over_batch(reference.CONTENT[convention], features, target)
        assert content_loss(features, target, convention=convention).item() == pytest.approx(expected, rel=1e-12)
        single = content_loss(features.float(), target.float(), convention=convention)
        assert single.dtype == torch.float32
        assert single.item() == pytest.approx(expected, rel=1e-5)

    def test_relative_is_the_default(self):
        assert content_loss(F, P).item() == pytest.approx(14 / 6, rel=1e-12)

    @pytest.mark.parametrize("convention", CONVENTIONS)
    def test_nothing_where_nothing_differs(self, convention):
        assert content_loss(F, F.clone(), convention=convention).item() == 0

    @pytest.mark.parametrize("convention", CONVENTIONS)
    def test_batch_is_the_mean_of_singles(self, convention):
        features, target = draw(3, 2, 4, 5), draw(3, 2, 4, 5, seed=1)
        target[0] *= 10  # items of very different energy: a ratio of sums would not be the mean of ratios
        singles = [content_loss(features[i : i + 1], target[i : i + 1], convention=convention) for i in range(3)]
        whole = content_loss(features, target, convention=convention)
        torch.testing.assert_close(whole, torch.stack(singles).mean(), rtol=1e-12, atol=0)

    @pytest.mark.parametrize(("convention", "power"), [("relative", 0), ("gatys", 2), ("johnson", 2)])
    def test_scale(self, convention, power):
        plain = content_loss(F, P, convention=convention).item()
        assert content_loss(7 * F, 7 * P, convention=convention).item() == pytest.approx(plain * 7**power, rel=1e-12)

    def test_factors_between_conventions(self):
        features, target = draw(1, 2, 4, 5), draw(1, 2, 4, 5, seed=1)
        gatys = content_loss(features, target, convention="gatys").item()
        johnson = content_loss(features, target, convention="johnson").item()
        relative = content_loss(features, target, convention="relative").item()
        assert johnson * 2 * 4 * 5 == pytest.approx(2 * gatys, rel=1e-12)
        assert relative * target.square().sum().item() == pytest.approx(2 * gatys, rel=1e-12)

    @pytest.mark.parametrize("convention", CONVENTIONS)
    def test_gradient(self, convention):
        target = draw(2, 2, 2, 3, seed=1)
        assert torch.autograd.gradcheck(
            lambda features: content_loss(features, target, convention=convention),
            draw(2, 2, 2, 3).requires_grad_(),
        )

    @pytest.mark.parametrize("convention", CONVENTIONS)
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_low_precision_is_summed_in_float32(self, convention, dtype):
        features, target = 30 * draw(2, 8, 16, 16, dtype=dtype), 30 * draw(2, 8, 16, 16, seed=1, dtype=dtype)
        expected = reference.mean_over_batch(reference.CONTENT[convention], features, target)
        loss = content_loss(features, target, convention=convention)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected, rel=2e-5)

    @pytest.mark.parametrize("convention", CONVENTIONS)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_autocast_does_not_lower_it(self, convention, dtype):
        features, target = draw(2, 3, 8, 8, dtype=dtype), draw(2, 3, 8, 8, seed=1, dtype=dtype)
        with torch.autocast("cpu", torch.bfloat16):
            loss = content_loss(features, target, convention=convention)
        assert loss.dtype == torch.float32
        expected = reference.mean_over_batch(reference.CONTENT[convention], features, target)
        assert loss.item() == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("other", [(1, 3, 4, 5), (1, 2, 5, 4), (2, 2, 4, 5), (1, 2, 4, 1)])
    def test_shapes_that_do_not_fit(self, other):
        with pytest.raises(ValueError, match=naming((3, 2, 4, 5), other)):
            content_loss(torch.ones(3, 2, 4, 5), torch.ones(other))

    def test_unknown_convention(self):
        with pytest.raises(ValueError, match=r"(?s)gatis.*'gatys'\?.*gatys, johnson, relative"):
            content_loss(F, P, convention="gatis")


class TestStyleLoss:
    # G - G0 = [[1, 2.75], [2.75, 6]]: squares sum to 52.125; G0 = I / 4: squares sum to 0.125.
    # Gatys, equation 4, undivided: ([[4, 11], [11, 24]] squared = 834) / (4 * 2^2 * 2^2) = 13.03125.
    HAND = (("relative", 417.0), ("gatys", 13.03125), ("johnson", 52.125))

    @pytest.mark.parametrize(("convention", "expected"), HAND)
    def test_by_hand(self, convention, expected):
        loss = style_loss(F, A, convention=convention)
        assert loss.shape == ()
        assert loss.item() == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize(("convention", "expected"), HAND)
    def test_by_hand_from_a_gram_matrix(self, convention, expected):
        target = torch.tensor([[[0.25, 0.0], [0.0, 0.25]]], dtype=torch.float64)
        assert style_loss(F, target, convention=convention).item() == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("convention", CONVENTIONS)
    @pytest.mark.parametrize("targets", [1, 3])
    def test_reference(self, convention, targets):
        features, target = draw(3, 3, 4, 5), 1.5 * draw(targets, 3, 4, 5, seed=1)
        expected = reference.mean_over_batch(reference.STYLE[convention], features, target)
        assert style_loss(features, target, convention=convention).item() == pytest.approx(expected, rel=1e-12)
        single = style_loss(features.float(), target.float(), convention=convention)
        assert single.dtype == torch.float32
        assert single.item() == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize(
        ("convention", "factor"), [("relative", reference.style_relative), ("johnson", reference.style_johnson)]
    )
    def test_pictures_of_two_sizes(self, convention, factor):
        features, target = draw(2, 3, 4, 5), draw(1, 3, 7, 2, seed=1)
        expected = reference.mean_over_batch(factor, features, target)
        assert style_loss(features, target, convention=convention).item() == pytest.approx(expected, rel=1e-12)

    def test_gatys_for_pictures_of_two_sizes_divides_each_gram_by_its_own_size(self):
        features, target = draw(2, 3, 4, 5), draw(1, 3, 7, 2, seed=1)
        expected = reference.mean_over_batch(reference.style_johnson, features, target) / 4
        assert style_loss(features, target, convention="gatys").item() == pytest.approx(expected, rel=1e-12)

    def test_relative_is_the_default(self):
        assert style_loss(F, A).item() == pytest.approx(417.0, rel=1e-12)

    @pytest.mark.parametrize("convention", CONVENTIONS)
    @pytest.mark.parametrize("targets", [1, 3])
    def test_features_and_their_gram_matrix_are_the_same_target(self, convention, targets):
        features, target = draw(3, 3, 4, 5), draw(targets, 3, 7, 2, seed=1)
        grams = torch.stack([torch.from_numpy(reference.gram_matrix(item)) for item in target])
        from_features = style_loss(features, target, convention=convention)
        torch.testing.assert_close(
            style_loss(features, grams, convention=convention), from_features, rtol=1e-12, atol=0
        )

    @pytest.mark.parametrize("convention", CONVENTIONS)
    def test_blind_to_where_things_are(self, convention):
        features = draw(1, 3, 4, 5)
        mirrored = features.flip(2, 3)
        assert not torch.equal(features, mirrored)
        assert style_loss(mirrored, features, convention=convention).item() == pytest.approx(0, abs=1e-28)

    @pytest.mark.parametrize("convention", CONVENTIONS)
    def test_batch_is_the_mean_of_singles(self, convention):
        features, target = draw(3, 2, 4, 5), draw(3, 2, 4, 5, seed=1)
        target[0] *= 10
        singles = [style_loss(features[i : i + 1], target[i : i + 1], convention=convention) for i in range(3)]
        whole = style_loss(features, target, convention=convention)
        torch.testing.assert_close(whole, torch.stack(singles).mean(), rtol=1e-12, atol=0)

    @pytest.mark.parametrize(("convention", "power"), [("relative", 0), ("gatys", 4), ("johnson", 4)])
    def test_scale(self, convention, power):
        plain = style_loss(F, A, convention=convention).item()
        assert style_loss(7 * F, 7 * A, convention=convention).item() == pytest.approx(plain * 7**power, rel=1e-12)

    def test_factors_between_conventions(self):
        features, target = draw(1, 3, 4, 5), draw(1, 3, 6, 5, seed=1)
        johnson = style_loss(features, target, convention="johnson").item()
        energy = float((reference.gram_matrix(target[0]) ** 2).sum())
        assert style_loss(features, target, convention="gatys").item() == pytest.approx(johnson / 4, rel=1e-12)
        assert style_loss(features, target, convention="relative").item() == pytest.approx(johnson / energy, rel=1e-12)

    @pytest.mark.parametrize("convention", CONVENTIONS)
    def test_gradient(self, convention):
        target = draw(1, 2, 2, 2, seed=1)
        assert torch.autograd.gradcheck(
            lambda features: style_loss(features, target, convention=convention),
            draw(2, 2, 2, 3).requires_grad_(),
        )

    def test_gradient_is_gatys_equation_6(self):
        # dE/dF = 1/(N^2 M^2) (G - A) F, G and A plain inner products; with no ReLU mask, as F is what we derive by
        features, target = draw(1, 3, 2, 4).requires_grad_(), draw(1, 3, 2, 4, seed=1)
        (gradient,) = torch.autograd.grad(style_loss(features, target, convention="gatys"), features)
        difference = reference.inner_products(features[0]) - reference.inner_products(target[0])
        expected = torch.from_numpy(difference / (3**2 * 8**2)) @ features[0].detach().reshape(3, 8)
        torch.testing.assert_close(gradient.reshape(3, 8), expected, rtol=1e-10, atol=1e-15)

    @pytest.mark.parametrize("convention", CONVENTIONS)
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_low_precision_is_summed_in_float32(self, convention, dtype):
        features, target = 30 * draw(2, 4, 16, 16, dtype=dtype), 20 * draw(1, 4, 16, 12, seed=1, dtype=dtype)
        expected = reference.mean_over_batch(reference.style_johnson, features, target)
        expected *= {"johnson": 1, "gatys": 1 / 4, "relative": 1 / (reference.gram_matrix(target[0]) ** 2).sum()}[
            convention
        ]
        loss = style_loss(features, target, convention=convention)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected, rel=5e-5)

    @pytest.mark.parametrize("convention", CONVENTIONS)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_autocast_does_not_lower_it(self, convention, dtype):
        features, target = draw(2, 3, 8, 8, dtype=dtype), draw(2, 3, 8, 8, seed=1, dtype=dtype)
        with torch.autocast("cpu", torch.bfloat16):
            loss = style_loss(features, target, convention=convention)
        assert loss.dtype == torch.float32
        expected = reference.mean_over_batch(reference.STYLE[convention], features, target)
        assert loss.item() == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("other", [(1, 3, 4, 5), (2, 2, 4, 5), (1, 3, 3), (2, 2, 2), (1, 2, 3), (2, 2)])
    def test_shapes_that_do_not_fit(self, other):
        with pytest.raises(ValueError, match=naming((3, 2, 4, 5), other)):
            style_loss(torch.ones(3, 2, 4, 5), torch.ones(other))

    def test_unknown_convention(self):
        with pytest.raises(ValueError, match=r"(?s)jonson.*'johnson'\?.*gatys, johnson, relative"):
            style_loss(F, A, convention="jonson")


class TestTotalVariation:
    def test_diagonal_by_hand(self):
        # ones on the diagonal: 9 of them step both ways (1 + 1), 9 zeros left of a one and 9 above one step once
        picture = torch.eye(10, dtype=torch.float64)[None, None]
        for convention, expected in (("gatys", 36.0), ("johnson", 36.0), ("relative", 0.36)):
            assert total_variation(picture, beta=2.0, convention=convention).item() == pytest.approx(
                expected, rel=1e-12
            )
        assert total_variation(picture, beta=1.0, convention="gatys").item() == pytest.approx(
            18 + 9 * math.sqrt(2), rel=1e-6
        )
        assert total_variation(picture, beta=4.0, convention="gatys").item() == pytest.approx(18 + 9 * 4, rel=1e-12)

    def test_edges_by_hand(self):
        # [[0, 1], [3, 7]]: 1 + 9 at the corner, 36 down the last column, 16 along the last row, nothing at the end
        picture = torch.tensor([[[[0.0, 1.0], [3.0, 7.0]]]], dtype=torch.float64)
        assert total_variation(picture, beta=2.0, convention="gatys").item() == pytest.approx(62.0, rel=1e-12)
        assert total_variation(picture, beta=4.0, convention="gatys").item() == pytest.approx(
            10**2 + 36**2 + 16**2, rel=1e-12
        )
        assert total_variation(picture).item() == pytest.approx(62.0 / 4, rel=1e-12)

    @pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 1, 3, 1)])
    def test_gradient_by_hand(self, shape):
        # 0, 1, 3: (1)^2 + (2)^2; derivatives -2 * 1, 2 * 1 - 2 * 2, 2 * 2
        picture = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64).reshape(shape).requires_grad_()
        loss = total_variation(picture, beta=2.0, convention="gatys")
        assert loss.item() == pytest.approx(5.0, rel=1e-12)
        (gradient,) = torch.autograd.grad(loss, picture)
        torch.testing.assert_close(gradient.flatten(), torch.tensor([-2.0, -2.0, 4.0], dtype=torch.float64))

    @pytest.mark.parametrize("convention", CONVENTIONS)
    @pytest.mark.parametrize("beta", [1.0, 1.5, 2.0, 3.0])
    def test_reference(self, convention, beta):
        pictures = draw_picture(2, 3, 5, 7)
        expected = reference.mean_over_batch(reference.TOTAL_VARIATION[convention], pictures, beta=beta)
        loss = total_variation(pictures, beta=beta, convention=convention)
        assert loss.shape == ()
        assert loss.item() == pytest.approx(expected, rel=1e-6)
        assert total_variation(pictures.float(), beta=beta, convention=convention).item() == pytest.approx(
            expected, rel=2e-5
        )

    def test_defaults(self):
        pictures = draw_picture(2, 3, 5, 7)
        expected = reference.mean_over_batch(reference.total_variation_relative, pictures, beta=2.0)
        assert total_variation(pictures).item() == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("convention", CONVENTIONS)
    @pytest.mark.parametrize("beta", [1, 1.0, 1.2, 2.0, 2.5, 3.0])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_a_flat_picture_has_none_and_a_zero_gradient(self, convention, beta, dtype):
        picture = torch.full((2, 3, 4, 5), 0.3, dtype=dtype, requires_grad=True)
        loss = total_variation(picture, beta=beta, convention=convention)
        assert loss.item() == 0.0
        (gradient,) = torch.autograd.grad(loss, picture)
        assert torch.equal(gradient, torch.zeros_like(gradient))

    @pytest.mark.parametrize("beta", [1.0, 1.5])
    def test_flat_parts_do_not_spoil_the_gradient_of_the_rest(self, beta):
        # one upright step of height 0.5 between columns 1 and 2 of 4: three rows of 0.5 ** beta
        picture = torch.tensor([0.2, 0.2, 0.7, 0.7], dtype=torch.float64).repeat(1, 1, 3, 1).requires_grad_()
        loss = total_variation(picture, beta=beta, convention="gatys")
        assert loss.item() == pytest.approx(3 * 0.5**beta, rel=1e-6)
        (gradient,) = torch.autograd.grad(loss, picture)
        slope = beta * 0.5 ** (beta - 1)
        expected = torch.tensor([0.0, -slope, slope, 0.0], dtype=torch.float64).repeat(1, 1, 3, 1)
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-9)

    def test_one_pixel_has_none(self):
        assert total_variation(torch.full((1, 3, 1, 1), 0.7), convention="gatys").item() == 0.0

    @pytest.mark.parametrize("convention", CONVENTIONS)
    def test_batch_is_the_mean_of_singles(self, convention):
        pictures = draw_picture(3, 3, 4, 5)
        pictures[0] *= 5
        singles = torch.stack([total_variation(item[None], convention=convention) for item in pictures])
        whole = total_variation(pictures, convention=convention)
        torch.testing.assert_close(whole, singles.mean(), rtol=1e-12, atol=0)

    @pytest.mark.parametrize("beta", [1.0, 2.0, 3.0])
    def test_scale_and_offset(self, beta):
        picture = draw_picture(1, 3, 4, 5)
        plain = total_variation(picture, beta=beta, convention="gatys").item()
        moved = total_variation(4 * picture + 0.5, beta=beta, convention="gatys").item()
        assert moved == pytest.approx(plain * 4**beta, rel=1e-6)

    @pytest.mark.parametrize("beta", [1.0, 1.5, 2.0, 3.0])
    def test_gradient(self, beta):
        assert torch.autograd.gradcheck(
            lambda pictures: total_variation(pictures, beta=beta), draw_picture(2, 2, 3, 4).requires_grad_()
        )

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_low_precision_is_summed_in_float32(self, dtype):
        pictures = (100 * draw_picture(1, 3, 16, 16)).to(dtype)
        loss = total_variation(pictures, convention="gatys")
        assert loss.dtype == torch.float32
        expected = reference.mean_over_batch(reference.total_variation, pictures)
        assert expected > 65504
        assert loss.item() == pytest.approx(expected, rel=2e-5)

    def test_autocast_does_not_lower_it(self):
        pictures = draw_picture(2, 3, 16, 16, dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            loss = total_variation(pictures)
        assert loss.dtype == torch.float32
        expected = reference.mean_over_batch(reference.total_variation_relative, pictures)
        assert loss.item() == pytest.approx(expected, rel=2e-5)

    @pytest.mark.parametrize("beta", [0.0, 0.99, -1.0, math.nan])
    def test_beta_below_one(self, beta):
        with pytest.raises(ValueError, match=rf"(?s)beta.*{re.escape(str(beta))}"):
            total_variation(torch.zeros(1, 3, 4, 4), beta=beta)

    def test_unknown_convention(self):
        with pytest.raises(ValueError, match=r"(?s)relativ.*'relative'\?.*gatys, johnson, relative"):
            total_variation(torch.zeros(1, 3, 4, 4), convention="relativ")

    def test_wrong_number_of_axes(self):
        with pytest.raises(ValueError, match=naming((3, 4, 5))):
            total_variation(torch.zeros(3, 4, 5))


class TestLossTerms:
    def terms(self) -> LossTerms:
        raw = {"content/relu3_3": torch.tensor(3.0), "style/relu1_2": torch.tensor(0.5), "tv": torch.tensor(8.0)}
        return LossTerms(raw=raw, weights={"content/relu3_3": 2.0, "style/relu1_2": 10.0, "tv": 0.25})

    def test_by_hand(self):
        terms = self.terms()
        assert {name: term.item() for name, term in terms.weighted.items()} == {
            "content/relu3_3": 6.0,
            "style/relu1_2": 5.0,
            "tv": 2.0,
        }
        assert isinstance(terms.total, torch.Tensor)
        assert terms.total.shape == ()
        assert terms.total.item() == 13.0

    def test_frozen(self):
        with pytest.raises(dataclasses.FrozenInstanceError, match="raw"):
            self.terms().raw = {}

    def test_total_carries_the_gradient(self):
        value = torch.tensor(3.0, requires_grad=True)
        terms = LossTerms(raw={"tv": value**2}, weights={"tv": 0.5})
        (gradient,) = torch.autograd.grad(terms.total, value)
        assert gradient.item() == 3.0


class Views:
    """An extractor without any network: three ways to look at the pictures themselves, and a count of its calls."""

    def __init__(self):
        self.asked: list[list[str]] = []

    def __call__(self, images, layers):
        self.asked.append(list(layers))
        looks = {
            "pixels": lambda: images,
            "bright": lambda: images.mean(1, keepdim=True) + 0 * images[:, :2],
            "edges": lambda: images[..., 1:] - images[..., :-1],
        }
        return {name: looks[name]() for name in layers}


class WithParameters(torch.nn.Module):
    """An extractor that is an ordinary module with parameters of its own."""

    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 4, 3, dtype=torch.float64)

    def forward(self, images, layers):
        return dict.fromkeys(layers, self.convolution(images))


class TestPerceptualLoss:
    WEIGHTS = {"content": {"edges": 2.0}, "style": {"pixels": 3.0, "bright": 0.5}}

    def expected(self, views, photos, painting, images, convention, beta=2.0):
        seen = views(images, ["pixels", "bright", "edges"])
        content = views(photos, ["edges"])
        style = views(painting, ["pixels", "bright"])
        compare, texture = reference.CONTENT[convention], reference.STYLE[convention]
        variation = reference.TOTAL_VARIATION[convention]
        return {
            "content/edges": reference.mean_over_batch(compare, seen["edges"], content["edges"]),
            "style/pixels": reference.mean_over_batch(texture, seen["pixels"], style["pixels"]),
            "style/bright": reference.mean_over_batch(texture, seen["bright"], style["bright"]),
            "tv": reference.mean_over_batch(variation, images, beta=beta),
        }

    @pytest.mark.parametrize("convention", CONVENTIONS)
    @pytest.mark.parametrize("strength", [1.0, 0.25])
    def test_reference(self, convention, strength):
        views = Views()
        photos, painting = draw_picture(2, 3, 5, 6), draw_picture(1, 3, 5, 6, seed=1)
        images = draw_picture(2, 3, 5, 6, seed=2)
        loss = PerceptualLoss(views, **self.WEIGHTS, tv=0.1, convention=convention, beta=1.5)
        terms = loss(images, loss.content_targets(photos), loss.style_targets(painting), strength=strength)
        assert isinstance(terms, LossTerms)
        expected = self.expected(views, photos, painting, images, convention, beta=1.5)
        assert {name: term.item() for name, term in terms.raw.items()} == pytest.approx(expected, rel=1e-6)
        weights = {"content/edges": 2.0, "style/pixels": 3.0 * strength, "style/bright": 0.5 * strength, "tv": 0.1}
        assert terms.weights == pytest.approx(weights)
        total = sum(weights[name] * value for name, value in expected.items())
        assert terms.total.item() == pytest.approx(total, rel=1e-6)

    def test_relative_is_the_default_and_tv_is_off(self):
        views = Views()
        photos, painting = draw_picture(2, 3, 5, 6), draw_picture(1, 3, 4, 7, seed=1)
        images = draw_picture(2, 3, 5, 6, seed=2)
        loss = PerceptualLoss(views, content={"edges": 2.0}, style={"pixels": 3.0})
        terms = loss(images, loss.content_targets(photos), loss.style_targets(painting))
        expected = self.expected(views, photos, painting, images, "relative")
        total = 2.0 * expected["content/edges"] + 3.0 * expected["style/pixels"]
        assert terms.total.item() == pytest.approx(total, rel=1e-10)

    def test_content_is_compared_item_by_item(self):
        loss = PerceptualLoss(Views(), content={"pixels": 1.0}, style={})
        photos = draw_picture(2, 3, 5, 6)
        targets = loss.content_targets(photos)
        assert loss(photos, targets, {}).total.item() == 0
        assert loss(photos.flip(0), targets, {}).total.item() > 0.1

    def test_targets(self):
        views = Views()
        loss = PerceptualLoss(views, **self.WEIGHTS)
        images = draw_picture(2, 3, 5, 6).requires_grad_()
        content, style = loss.content_targets(images), loss.style_targets(images)
        assert list(content) == ["edges"]
        assert list(style) == ["pixels", "bright"]
        torch.testing.assert_close(content["edges"], images.detach().diff(dim=3), rtol=1e-12, atol=0)
        for name, item in [(name, index) for name in style for index in range(2)]:
            features = views(images, [name])[name][item]
            expected = torch.from_numpy(reference.gram_matrix(features))
            torch.testing.assert_close(style[name][item], expected, rtol=1e-12, atol=1e-15)
        assert not any(target.requires_grad for target in [*content.values(), *style.values()])

    def test_one_look_at_the_pictures_serves_all_terms(self):
        views = Views()
        loss = PerceptualLoss(views, content={"edges": 1.0, "pixels": 1.0}, style={"pixels": 1.0}, tv=1.0)
        photos = draw_picture(1, 3, 5, 6)
        content, style = loss.content_targets(photos), loss.style_targets(photos)
        views.asked.clear()
        loss(photos, content, style)
        assert [sorted(layers) for layers in views.asked] == [["edges", "pixels"]]

    @pytest.mark.parametrize("strength", [1.0, 0.3])
    def test_gradient(self, strength):
        loss = PerceptualLoss(Views(), **self.WEIGHTS, tv=0.1)
        content = loss.content_targets(draw_picture(2, 3, 4, 5))
        style = loss.style_targets(draw_picture(1, 3, 3, 4, seed=1))
        images = draw_picture(2, 3, 4, 5, seed=2).requires_grad_()
        assert torch.autograd.gradcheck(
            lambda pictures: loss(pictures, content, style, strength=strength).total, images
        )

    @pytest.mark.parametrize("extractor", [Views, WithParameters])
    def test_adds_nothing_to_a_checkpoint(self, extractor):
        loss = PerceptualLoss(extractor(), content={"pixels": 1.0}, style={"pixels": 1.0})
        assert isinstance(loss, torch.nn.Module)
        assert dict(loss.state_dict()) == {}
        parent = torch.nn.Module()
        parent.network, parent.loss = torch.nn.Conv2d(3, 3, 1), loss
        assert sorted(parent.state_dict()) == ["network.bias", "network.weight"]
        parent.load_state_dict(parent.state_dict())

    def test_autocast_reduces_in_float32(self):
        views = Views()
        photos, painting = (draw_picture(2, 3, 16, 16, seed=seed, dtype=torch.float32) for seed in (0, 1))
        images = draw_picture(2, 3, 16, 16, seed=2, dtype=torch.float32)
        loss = PerceptualLoss(views, **self.WEIGHTS, tv=0.1)
        with torch.autocast("cpu", torch.bfloat16):
            terms = loss(images, loss.content_targets(photos), loss.style_targets(painting))
        assert terms.total.dtype == torch.float32
        expected = self.expected(views, photos, painting, images, "relative")
        assert {name: term.item() for name, term in terms.raw.items()} == pytest.approx(expected, rel=1e-4)

    def test_unknown_convention(self):
        with pytest.raises(ValueError, match=r"(?s)gaty.*'gatys'\?.*gatys, johnson, relative"):
            PerceptualLoss(Views(), content={"pixels": 1.0}, style={}, convention="gaty")

    def test_beta_below_one(self):
        with pytest.raises(ValueError, match=r"(?s)beta.*0\.5"):
            PerceptualLoss(Views(), content={"pixels": 1.0}, style={}, tv=1.0, beta=0.5)
