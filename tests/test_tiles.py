"""Pictures in parts, by hand; that their features are those of the whole stands with the objective."""

from __future__ import annotations

import pytest
import torch

from impasto.losses import VGGFeatures
from impasto.visualization.tiles import (
    ALLOCATOR,
    Part,
    Span,
    bytes_per_pixel,
    deepest,
    fitting_tile,
    smallest_memory,
    split,
    sum_over_parts,
)

SHALLOW = ["relu1_1"]
"""Stride 1, a halo of one pixel."""

EACH = 1.2 * 4 * (4 + 64 + 5 * 64)
"""Bytes a pixel for `SHALLOW`: the picture, conv1_1, five maps under way, and what the allocator keeps."""


@pytest.fixture(scope="module")
def vgg() -> VGGFeatures:
    return VGGFeatures()


class TestParts:
    def test_positions_by_hand(self):
        """Pixels 16 to 32 of 40, seen from 8 on: at stride 4 positions 4 to 8 of all, 2 to 6 of what is seen."""
        span = Span(16, 32, 8, 40)
        assert span.own(4) == slice(4, 8) and span.inside(4) == slice(2, 6)
        assert span.own(1) == slice(16, 32) and span.inside(1) == slice(8, 24)

    def test_views_by_hand(self):
        picture = torch.arange(60.0).view(1, 1, 6, 10)
        part = Part(Span(2, 4, 0, 6), Span(4, 6, 2, 8))
        assert part.seen(picture)[0, 0, 0].tolist() == [2, 3, 4, 5, 6, 7]
        assert part.own(picture, 1)[0, 0].tolist() == [[24, 25], [34, 35]]
        assert torch.equal(part.inside(part.seen(picture), 1), part.own(picture, 1))
        assert part.own(picture[..., ::2, ::2], 2).tolist() == [[[[24]]]]

    def test_spans_by_hand(self, vgg):
        """45 pixels in parts of 16 or less, stride 2, halo 4: three of 16, the last one shorter."""
        parts = split(45, 10, vgg, ["relu2_1"], 16)
        assert [part.rows for part in parts] == [Span(0, 16, 0, 20), Span(16, 32, 12, 36), Span(32, 45, 28, 45)]
        assert {part.columns for part in parts} == {Span(0, 10, 0, 10)}
        assert split(45, 10, vgg, ["relu2_1"], None) == [Part(Span(0, 45, 0, 45), Span(0, 10, 0, 10))]

    def test_parts_are_of_about_one_size(self, vgg):
        """33 pixels in parts of 32 or less are not 32 and 1."""
        assert [part.columns.start for part in split(16, 33, vgg, SHALLOW, 32) if part.rows.start == 0] == [0, 17]

    def test_the_deepest_layer_is_the_networks(self, vgg):
        assert deepest(vgg, ["relu4_2", "relu1_1", "relu3_1"]) == "relu4_2"
        assert deepest(vgg, ["pool1", "relu1_2"]) == "pool1"

    def test_tile_that_joins_other_positions(self, vgg):
        with pytest.raises(ValueError, match="tile: got 24 pixels, expected a multiple of 16, the stride of relu5_1"):
            split(64, 64, vgg, ["relu5_1"], 24)


class TestSums:
    @staticmethod
    def parts(size: int, side: int, margin: int) -> list[Part]:
        """Of one row of pixels."""
        return [
            Part(Span(0, 1, 0, 1), Span(k, min(k + side, size), max(k - margin, 0), min(k + side + margin, size)))
            for k in range(0, size, side)
        ]

    @staticmethod
    def measure(seen: torch.Tensor, part: Part) -> tuple[torch.Tensor, ...]:
        """The sum of x_i x_{i+1}, which sees a pixel further, the sum of cubes, and how many."""
        right = torch.nn.functional.pad(seen, (0, 1))[..., 1:]
        own = part.inside(seen, 1)
        return (part.inside(seen * right, 1).sum(), own.pow(3).sum(), torch.tensor(float(own.numel())))

    @pytest.mark.parametrize("side", [7, 3, 1])
    def test_values_and_gradients_by_hand(self, side):
        """x = 1 ... 7: neighbours' products 2 + 6 + ... + 42 = 112, cubes 784; gradients x_{i-1} + x_{i+1}, 3 x^2."""
        picture = torch.arange(1.0, 8.0).view(1, 1, 1, 7).requires_grad_()
        products, cubes, count = sum_over_parts(picture, self.parts(7, side, 1), self.measure)
        assert (products.item(), cubes.item(), count.item()) == (112, 784, 7)
        (gradient,) = torch.autograd.grad(2 * products + cubes, picture)
        neighbours = torch.tensor([2.0, 4, 6, 8, 10, 12, 6])
        assert gradient.flatten().tolist() == (2 * neighbours + 3 * torch.arange(1.0, 8.0) ** 2).tolist()

    def test_a_sum_that_is_not_used_costs_no_gradient(self):
        picture = torch.arange(1.0, 8.0).view(1, 1, 1, 7).requires_grad_()
        _, cubes, _ = sum_over_parts(picture, self.parts(7, 3, 1), self.measure)
        (gradient,) = torch.autograd.grad(cubes, picture)
        assert gradient.flatten().tolist() == [3, 12, 27, 48, 75, 108, 147]


class TestMemory:
    def test_of_a_pixel(self, vgg):
        assert ALLOCATOR * bytes_per_pixel(vgg, SHALLOW) == pytest.approx(EACH)

    def test_whole_where_it_fits(self, vgg):
        assert fitting_tile(100, 80, vgg, SHALLOW, None, EACH * 100 * 80 * 1.001) is None

    def test_the_largest_that_fits(self, vgg):
        """Parts of 50 pixels a side, a pixel of halo on each side of 48."""
        for memory, expected in ((50.01**2, 48), (49.99**2, 47), (3.01**2, 1)):
            assert fitting_tile(100, 80, vgg, SHALLOW, None, EACH * memory) == expected

    def test_a_multiple_of_the_stride(self, vgg):
        """relu2_1: stride 2, halo 4."""
        each = ALLOCATOR * bytes_per_pixel(vgg, ["relu2_1"])
        assert fitting_tile(100, 80, vgg, ["relu2_1"], None, each * 51.01**2) == 42

    def test_too_little(self, vgg):
        with pytest.raises(ValueError, match=r"memory: got 0.00 GiB, expected 0.00"):
            fitting_tile(100, 80, vgg, SHALLOW, None, EACH * 2.99**2)
        with pytest.raises(ValueError, match=r"memory: got -1.00 GiB"):
            fitting_tile(100, 80, vgg, SHALLOW, None, -(2**30))

    @pytest.mark.parametrize(("height", "width"), [(1000, 700), (100, 90)])
    def test_the_least_is_what_just_suffices(self, vgg, height, width):
        """Of a large picture three halos a side; a small one fits whole before that."""
        layers = ["relu1_1", "relu4_2"]  # halo 40
        least = smallest_memory(height, width, vgg, layers)
        pixels = min(120 * 120, height * width)
        assert least == pytest.approx(pixels * ALLOCATOR * bytes_per_pixel(vgg, layers))
        assert fitting_tile(height, width, vgg, layers, None, least * 1.0001) in (40, None)
        with pytest.raises(ValueError, match="memory: got"):
            fitting_tile(height, width, vgg, layers, None, least * 0.999)
