"""What is done after each step, by hand, by scipy, and by the optimum that it leads to."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from impasto.errors import WrongCall
from impasto.losses import optimize_image, steepest
from impasto.visualization.operators import (
    blur,
    clip_small_contribution,
    clip_small_norm,
    decay,
    progress,
)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestDecay:
    def test_by_hand(self):
        picture = torch.tensor([[[[1.0, -2.0]]]])
        assert decay(0.25)(picture, picture, 7).tolist() == [[[[0.75, -1.5]]]]
        assert torch.equal(decay(0)(picture, picture, 1), picture)

    @pytest.mark.parametrize(("part", "rate"), [(0.3, 0.1), (0.1, 1.0), (0.5, 0.02)])
    def test_its_fixed_point(self, part, rate):
        """Of the objective -a x: x = (1 - part)(x + rate a) at (1 - part) rate a / part, which is a / (2 lambda)."""
        slope = drawn(1, 3, 4, 4)
        start = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
        found = optimize_image(
            start, lambda x: -(slope * x).sum(), step=steepest(rate), steps=300, operators=[decay(part)]
        )
        torch.testing.assert_close(found, (1 - part) * rate * slope / part, rtol=1e-9, atol=0)
        penalty = part / (2 * rate * (1 - part))
        torch.testing.assert_close(found, slope / (2 * penalty), rtol=1e-9, atol=0)

    @pytest.mark.parametrize("part", [-0.1, 1.1])
    def test_refuses(self, part):
        with pytest.raises(WrongCall, match=f"decay: got {part}, expected a part from 0 to 1"):
            decay(part)


class TestBlur:
    @pytest.mark.parametrize("deviation", [0.5, 1.0, 2.5])
    def test_is_scipys(self, deviation):
        picture = drawn(2, 3, 9, 11)
        reach = round(3 * deviation)
        expected = gaussian_filter(picture.numpy(), (0, 0, deviation, deviation), mode="nearest", radius=reach)
        found = blur(deviation)(picture, picture, 1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)

    def test_every_few_steps(self):
        picture, smooth = drawn(1, 3, 6, 6), blur(1.0, every=3)
        changed = [index for index in range(1, 10) if not torch.equal(smooth(picture, picture, index), picture)]
        assert changed == [3, 6, 9]

    @pytest.mark.parametrize(("deviation", "every"), [(0.2, 1), (0.0, 1), (1.0, 0)])
    def test_refuses_what_does_nothing(self, deviation, every):
        with pytest.raises(WrongCall, match=rf"blur: got {deviation} pixels every {every} steps.*less changes nothing"):
            blur(deviation, every)


class TestClips:
    PICTURE = torch.tensor([[[[3.0, 1.0, 0.5, -2.0]], [[4.0, 0.0, 0.5, 0.0]]]])
    """Norms 5, 1, 0.71, 2."""

    def test_small_norms_by_hand(self):
        found = clip_small_norm(50)(self.PICTURE, self.PICTURE, 1)
        assert found.tolist() == [[[[3.0, 0.0, 0.0, -2.0]], [[4.0, 0.0, 0.0, 0.0]]]]

    def test_small_contributions_by_hand(self):
        """x g summed over colours: 3 - 4, 0.6, 2, -2.2: the magnitude counts, and first the sum is taken."""
        gradient = torch.tensor([[[[1.0, 0.6, 3.0, 1.1]], [[-1.0, 9.0, 1.0, 5.0]]]])
        found = clip_small_contribution(50)(self.PICTURE, gradient, 1)
        assert found.tolist() == [[[[0.0, 0.0, 0.5, -2.0]], [[0.0, 0.0, 0.5, 0.0]]]]

    @pytest.mark.parametrize("percent", [0, 20, 50, 90, 100])
    def test_is_numpys_percentile_for_each_picture(self, percent):
        picture, gradient = drawn(2, 3, 5, 6), drawn(2, 3, 5, 6, seed=1)
        for operator, sizes in (
            (clip_small_norm(percent), np.sqrt((picture.numpy() ** 2).sum(1))),
            (clip_small_contribution(percent), np.abs((picture.numpy() * gradient.numpy()).sum(1))),
        ):
            found = operator(picture, gradient, 1).numpy()
            for index in range(2):
                keep = sizes[index] >= np.percentile(sizes[index], percent)
                np.testing.assert_array_equal(found[index], picture.numpy()[index] * keep)

    def test_the_sign_of_the_objective_does_not_matter(self):
        picture, gradient = drawn(2, 3, 5, 6), drawn(2, 3, 5, 6, seed=1)
        clip = clip_small_contribution(70)
        assert torch.equal(clip(picture, gradient, 1), clip(picture, -gradient, 1))

    @pytest.mark.parametrize("make", [clip_small_norm, clip_small_contribution])
    @pytest.mark.parametrize("percent", [-1, 101])
    def test_refuses(self, make, percent):
        with pytest.raises(WrongCall, match=f"clip: got {percent}, expected a percentile from 0 to 100"):
            make(percent)


class TestProgress:
    def test_a_linear_objective_changes_as_desired(self):
        slope = drawn(2, 3, 4, 4)
        totals: list[torch.Tensor] = []

        def objective(x):
            totals.append((slope * x).detach().flatten(1).sum(1))
            return (slope * x).sum()

        optimize_image(torch.zeros_like(slope), objective, step=progress(2.0, 100.0), steps=4)
        for before, after in itertools.pairwise(totals):
            torch.testing.assert_close(before - after, torch.full((2,), 2.0, dtype=torch.float64))

    def test_up_to_the_largest_rate(self):
        slope = 0.01 * drawn(1, 3, 4, 4)
        found = optimize_image(torch.zeros_like(slope), lambda x: (slope * x).sum(), step=progress(2.0, 5.0), steps=1)
        torch.testing.assert_close(found, -5 * slope)

    def test_no_gradient_no_step(self):
        start = drawn(1, 3, 4, 4)
        found = optimize_image(start, lambda x: 0 * x.sum(), step=progress(2.0, 5.0), steps=2)
        assert torch.equal(found, start)
