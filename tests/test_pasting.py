"""Where stickers lie: exactly the sticker inside, exactly the picture outside, and a gradient to the sticker only."""

from __future__ import annotations

import math

import pytest
import torch
from looking import noise

from impasto.errors import WrongCall
from impasto.visualization.pasting import Place, disc, disc_side, paste, random_places


class TestPaste:
    def test_a_sticker_as_large_as_the_picture_is_the_picture(self):
        pictures, sticker = noise(2, 3, 16, 16), noise(1, 3, 16, 16, seed=1)
        found = paste(pictures, sticker, torch.ones(1, 1, 16, 16), [Place(0, 0, 16)] * 2)
        assert torch.equal(found, sticker.expand(2, -1, -1, -1))

    @pytest.mark.parametrize("degrees", [0, 17])
    def test_outside_the_mask_nothing_changes(self, degrees):
        pictures, sticker = noise(1, 3, 20, 24), noise(1, 3, 9, 9, seed=1)
        (place,) = [Place(3, 5, 9, degrees)]
        found = paste(pictures, sticker, disc(9), [place])
        outside = torch.ones(20, 24, dtype=torch.bool)
        outside[3:12, 5:14] = disc(9)[0, 0] == 0
        if degrees:
            outside[3:12, 5:14] = False
        assert torch.equal(found[..., outside], pictures[..., outside])
        assert not torch.equal(found, pictures)

    def test_each_picture_has_its_own_place(self):
        pictures = torch.zeros(2, 3, 6, 6)
        found = paste(pictures, torch.ones(1, 3, 2, 2), torch.ones(1, 1, 2, 2), [Place(0, 0, 2), Place(4, 3, 2)])
        assert found[0, 0].nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
        assert found[1, 0].nonzero().tolist() == [[4, 3], [4, 4], [5, 3], [5, 4]]

    def test_the_gradient_reaches_the_sticker_under_the_mask_and_the_picture_elsewhere(self):
        pictures, sticker = noise(1, 3, 12, 12).requires_grad_(), noise(1, 3, 8, 8, seed=1).requires_grad_()
        mask = disc(8)
        found = paste(pictures, sticker, mask, [Place(1, 2, 8)])
        to_picture, to_sticker = torch.autograd.grad(found.sum(), (pictures, sticker))
        torch.testing.assert_close(to_sticker, mask.expand(1, 3, 8, 8))
        assert to_picture[0, 0, 5, 6] == 0 and to_picture[0, 0, 0, 0] == 1

    def test_a_quarter_turn_is_counterclockwise(self):
        sticker = noise(1, 3, 8, 8)
        found = paste(torch.zeros(1, 3, 8, 8), sticker, torch.ones(1, 1, 8, 8), [Place(0, 0, 8, 90)])
        torch.testing.assert_close(found, sticker.rot90(1, (2, 3)), atol=1e-5, rtol=0)

    def test_what_is_finer_than_a_pixel_becomes_its_mean(self):
        """Two columns white, two black, made four times smaller: bilinear interpolation alone would see one kind."""
        stripes = torch.tensor([0.0, 1, 1, 0]).repeat(8).expand(1, 3, 32, 32)
        found = paste(torch.zeros(1, 3, 8, 8), stripes, torch.ones(1, 1, 32, 32), [Place(0, 0, 8)])
        inner = found[..., 2:-2]
        assert float(inner.min()) > 0.4 and float(inner.max()) < 0.7
        plain = torch.nn.functional.interpolate(stripes, (8, 8), mode="bilinear")
        assert float(plain[..., 2:-2].min()) == 1


class TestDisc:
    @pytest.mark.parametrize("side", [7, 16, 101])
    def test_its_area(self, side):
        assert float(disc(side).sum()) == pytest.approx(math.pi / 4 * side**2, rel=0.01)

    def test_is_round(self):
        mask = disc(15)
        assert torch.equal(mask, mask.transpose(2, 3)) and torch.equal(mask, mask.flip(2))
        assert mask[0, 0, 7, 7] == 1 and mask[0, 0, 0, 0] == 0

    @pytest.mark.parametrize("area", [0.05, 0.25, math.pi / 4])
    def test_the_side_that_covers_a_part(self, area):
        side = disc_side(area, (224, 224))
        assert math.pi / 4 * side**2 / 224**2 == pytest.approx(area, rel=0.02)


class TestRandomPlaces:
    def test_are_inside_and_spread(self):
        places = random_places(2000, (60, 80), (10, 40), 30, torch.Generator().manual_seed(0))
        assert all(place.top >= 0 and place.left >= 0 for place in places)
        assert max(place.top + place.side for place in places) == 60
        assert max(place.left + place.side for place in places) == 80
        assert {place.side for place in places} == set(range(10, 41))
        turns = torch.tensor([place.degrees for place in places])
        assert -30 <= float(turns.min()) < -29 and 29 < float(turns.max()) <= 30

    def test_areas_are_uniform(self):
        places = random_places(4000, (100, 100), (20, 60), 0, torch.Generator().manual_seed(0))
        areas = torch.tensor([place.side**2 for place in places]).double()
        assert float(areas.mean()) == pytest.approx((20**2 + 60**2) / 2, rel=0.03)

    def test_come_again_with_the_seed(self):
        first, second = (random_places(5, (30, 30), (4, 9), 9, torch.Generator().manual_seed(3)) for _ in range(2))
        assert first == second

    @pytest.mark.parametrize("sides", [(0, 5), (6, 5), (5, 31)])
    def test_refuses_what_cannot_lie_inside(self, sides):
        with pytest.raises(WrongCall, match="expected 1 to 30"):
            random_places(1, (30, 40), sides, 0, torch.Generator())
