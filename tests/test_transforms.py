"""Transforms: against rolls written out, scipy's interpolation, and the closed form on a ramp."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from looking import noise
from scipy.ndimage import map_coordinates

from impasto.visualization.transforms import compose, jitter, random_affine


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn_affine(degrees: float, scale: float, seed: int) -> tuple[float, float]:
    """The angle in radians and the factor that a transform with this seed draws first."""
    angle, growth = (2 * torch.rand(2, generator=generator(seed)) - 1).tolist()
    return math.radians(degrees * angle), 1 + scale * growth


class TestJitter:
    def test_what_leaves_enters_on_the_other_side(self):
        picture = noise(2, 3, 5, 7)
        rolled = jitter(3, generator())(picture)
        rows, columns = torch.randint(-3, 4, (2,), generator=generator()).tolist()
        assert (rows, columns) != (0, 0)
        for row in range(5):
            for column in range(7):
                moved = rolled[:, :, (row + rows) % 5, (column + columns) % 7]
                assert torch.equal(moved, picture[:, :, row, column])

    def test_the_gradient_is_rolled_back(self):
        """Of one pixel of the rolled picture: 1 at the pixel that it was, 0 elsewhere."""
        picture = noise(1, 3, 5, 7).requires_grad_()
        rolled = jitter(3, generator())(picture)
        (gradient,) = torch.autograd.grad(rolled[0, 1, 2, 3], picture)
        ((channel, row, column),) = gradient[0].nonzero().tolist()
        assert gradient.sum() == 1 and channel == 1
        assert picture[0, channel, row, column] == rolled[0, 1, 2, 3]

    def test_every_shift_up_to_the_given_one_and_no_other(self):
        roll = jitter(1, generator())
        picture = torch.zeros(1, 1, 5, 5)
        picture[0, 0, 2, 2] = 1
        places = {tuple(roll(picture)[0, 0].nonzero()[0].tolist()) for _ in range(200)}
        assert places == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}

    def test_none(self):
        picture, drawn = noise(1, 3, 5, 5), generator()
        assert jitter(0, drawn)(picture) is picture
        assert torch.equal(drawn.get_state(), generator().get_state()), "nothing is drawn for it"

    def test_the_same_from_the_same_seed(self):
        picture = noise(1, 3, 9, 9)
        first, second, other = (jitter(4, generator(seed)) for seed in (1, 1, 2))
        seen = [[roll(picture) for _ in range(5)] for roll in (first, second, other)]
        assert all(map(torch.equal, seen[0], seen[1])) and not all(map(torch.equal, seen[0], seen[2]))


class TestRandomAffine:
    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize(("height", "width"), [(16, 16), (12, 20), (15, 9)])
    def test_is_scipys_interpolation(self, height, width, seed):
        """Each pixel is found turned and scaled about the centre, mirrored at the outer edges of the pixels."""
        picture = noise(1, 3, height, width, seed=seed).double()
        angle, factor = drawn_affine(30, 0.3, seed)
        rows, columns = np.mgrid[:height, :width] - np.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]
        down = (math.sin(angle) * columns + math.cos(angle) * rows) / factor + (height - 1) / 2
        across = (math.cos(angle) * columns - math.sin(angle) * rows) / factor + (width - 1) / 2
        found = random_affine(30, 0.3, generator(seed))(picture)
        for channel in range(3):
            expected = map_coordinates(picture[0, channel].numpy(), [down, across], order=1, mode="reflect")
            np.testing.assert_allclose(found[0, channel], expected, rtol=0, atol=1e-6)

    def test_a_ramp_turned_is_a_ramp_in_the_turned_direction(self):
        """a x + b y stays linear, its slope turned by the angle and divided by the growth: exactly, in the middle."""
        side, across, down = 40, 0.01, 0.02
        places = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
        ramp = (across * places + down * places[:, None]).expand(1, 3, side, side)
        angle, factor = drawn_affine(20, 0.2, 4)
        found = random_affine(20, 0.2, generator(4))(ramp)[0, 0, 12:28, 12:28]
        slope_across = (across * math.cos(angle) + down * math.sin(angle)) / factor
        slope_down = (-across * math.sin(angle) + down * math.cos(angle)) / factor
        assert abs(angle) > 0.02 and abs(factor - 1) > 0.02
        expected = (slope_across * places + slope_down * places[:, None])[12:28, 12:28]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)

    def test_nothing_to_turn_or_scale(self):
        picture = noise(2, 3, 11, 14)
        torch.testing.assert_close(random_affine(0, 0, generator())(picture), picture, rtol=0, atol=1e-5)

    def test_all_angles_and_factors_up_to_the_given_ones(self):
        angles, factors = zip(*(drawn_affine(10, 0.1, seed) for seed in range(300)), strict=True)
        assert max(angles) <= math.radians(10) and min(angles) >= -math.radians(10)
        assert max(angles) > math.radians(9) and min(angles) < -math.radians(9)
        assert 1.09 < max(factors) <= 1.1 and 0.9 <= min(factors) < 0.91

    def test_a_batch_is_its_pictures_and_the_gradient_passes(self):
        pictures = noise(3, 3, 10, 10).double().requires_grad_()
        together = random_affine(15, 0.1, generator(2))(pictures)
        alone = random_affine(15, 0.1, generator(2))(pictures[1:2])
        torch.testing.assert_close(together[1:2], alone)
        assert torch.autograd.gradcheck(lambda p: random_affine(15, 0.1, generator(2))(p), (pictures[:1, :, :4, :4],))


def test_compose_runs_the_first_one_first():
    assert compose(lambda x: 2 * x, lambda x: x + 1)(torch.tensor(3.0)) == 7
    assert compose()(torch.tensor(3.0)) == 3
