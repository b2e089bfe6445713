"""Canvases against sums written out: every wave of every coefficient, at every pixel."""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
import torch

from impasto.losses import clip, optimize_image, steepest
from impasto.visualization.canvas import COLOURS, FourierCanvas, PixelCanvas

SIZES = [(4, 6), (5, 7), (6, 5), (5, 4), (1, 3)]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def waves(coefficients: np.ndarray, height: int, width: int, decay: float) -> np.ndarray:
    """A picture (3, H, W) from coefficients (3, H, W // 2 + 1), complex, in loops.

    Of a real picture the coefficients at -f are the conjugates of those at f, so each that has a partner counts twice.
    """
    planes = np.zeros((3, height, width))
    for plane in range(3):
        for row in range(height):
            for column in range(width):
                total = 0.0
                for down in range(height):
                    for across in range(width // 2 + 1):
                        signed = down if 2 * down < height else down - height
                        frequency = max(math.hypot(signed / height, across / width), 1 / max(height, width))
                        turn = cmath.exp(2j * cmath.pi * (down * row / height + across * column / width))
                        times = 1 if across == 0 or 2 * across == width else 2
                        total += times * (frequency**-decay * coefficients[plane, down, across] * turn).real
                planes[plane, row, column] = total / math.sqrt(height * width) / 4
    root = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
    root = root / max(math.sqrt(sum(root[row, column] ** 2 for row in range(3))) for column in range(3))
    mixed = np.array([sum(root[colour, plane] * planes[plane] for plane in range(3)) for colour in range(3)])
    return 1 / (1 + np.exp(-mixed))


class TestFourierCanvas:
    @pytest.mark.parametrize("decay", [0.0, 1.0, 1.5])
    @pytest.mark.parametrize(("height", "width"), SIZES)
    def test_is_the_sum_of_its_waves(self, height, width, decay):
        canvas = FourierCanvas(height, width, decay)
        coefficients = drawn(2, 3, height, width // 2 + 1, 2)
        pictures = canvas.picture(coefficients)
        assert pictures.shape == (2, 3, height, width) and pictures.dtype == torch.float64
        for picture, found in zip(coefficients.numpy(), pictures.numpy(), strict=True):
            expected = waves(picture[..., 0] + 1j * picture[..., 1], height, width, decay)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)

    def test_one_wave_by_hand(self):
        """The first colour's coarsest wave across 8 pixels: scale 8, two partners, over sqrt(64) and 4: cos / 2."""
        coefficients = torch.zeros(1, 3, 8, 5, 2, dtype=torch.float64)
        coefficients[0, 0, 0, 1, 0] = 1
        found = FourierCanvas(8, 8).picture(coefficients)[0]
        length = math.sqrt(0.26**2 + 0.27**2 + 0.27**2)
        for colour, part in enumerate((0.26, 0.27, 0.27)):
            wave = [part / length * math.cos(2 * math.pi * x / 8) / 2 for x in range(8)]
            expected = torch.tensor([1 / (1 + math.exp(-value)) for value in wave], dtype=torch.float64)
            torch.testing.assert_close(found[colour], expected.expand(8, 8), rtol=0, atol=1e-12)

    @pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 7), (6, 5)])
    def test_gradient(self, height, width):
        canvas = FourierCanvas(height, width)
        coefficients = drawn(1, 3, height, width // 2 + 1, 2).requires_grad_()
        assert torch.autograd.gradcheck(canvas.picture, (coefficients,))

    @pytest.mark.parametrize(("height", "width"), [(6, 6), (5, 7)])
    def test_any_picture_can_be_made(self, height, width):
        """Where real and imaginary part are free for each frequency, the loop finds any picture within (0, 1)."""
        target = 0.2 + 0.6 * torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1)).double()
        canvas = FourierCanvas(height, width)
        start = canvas.start(torch.Generator().manual_seed(0)).double()
        found = optimize_image(start, lambda p: (p - target).square().sum(), steps=60, transforms=canvas.picture)
        torch.testing.assert_close(canvas.picture(found), target, rtol=0, atol=2e-2)

    def test_zero_is_grey_and_no_number_leaves_the_range(self):
        canvas = FourierCanvas(6, 7)
        assert torch.equal(canvas.picture(torch.zeros(1, 3, 6, 4, 2)), torch.full((1, 3, 6, 7), 0.5))
        wild = canvas.picture(1000 * drawn(1, 3, 6, 4, 2))
        assert wild.isfinite().all() and wild.min() >= 0 and wild.max() <= 1

    def test_colours_are_decorrelated_as_published(self):
        """Their covariance C C' is that of ImageNet's colours: all positive, red with green more than red with blue."""
        root = np.array(COLOURS)
        covariance = root @ root.T
        assert (covariance > 0).all() and covariance[0, 1] > covariance[0, 2]

    def test_takes_numbers_in_any_memory_layout(self):
        canvas, coefficients = FourierCanvas(4, 6), drawn(1, 3, 4, 4, 2)
        strided = torch.stack([coefficients, coefficients], -1)[..., 0]
        assert not strided.is_contiguous() and torch.equal(canvas.picture(strided), canvas.picture(coefficients))


class TestStart:
    @pytest.mark.parametrize("canvas", [FourierCanvas(6, 7), PixelCanvas(6, 7)])
    def test_the_first_pictures_are_the_same_however_many_there_are(self, canvas):
        one, three = (canvas.start(torch.Generator().manual_seed(5), 0.1, count) for count in (1, 3))
        assert torch.equal(one, three[:1]) and not torch.equal(three[0], three[1])
        assert canvas.picture(three).shape == (3, 3, 6, 7)

    def test_deviation(self):
        drawn = PixelCanvas(60, 60).start(torch.Generator().manual_seed(0), 0.2)
        assert drawn.std().item() == pytest.approx(0.2, rel=0.05) and abs(drawn.mean().item()) < 0.01
        assert not PixelCanvas(6, 6).start(torch.Generator()).any(), "without a deviation all is the mean"
        finer = FourierCanvas(60, 60).start(torch.Generator().manual_seed(0))
        assert finer.std().item() == pytest.approx(0.01, rel=0.05)


class TestPixelCanvas:
    def test_zero_is_the_mean(self):
        canvas = PixelCanvas(2, 3, (0.1, 0.5, 0.9))
        picture = canvas.picture(torch.zeros(1, 3, 2, 3))
        assert picture[0, :, 1, 2].tolist() == pytest.approx([0.1, 0.5, 0.9])
        assert canvas.picture(torch.full((1, 3, 2, 3), 0.05))[0, :, 0, 0].tolist() == pytest.approx([0.15, 0.55, 0.95])

    def test_within(self):
        canvas = PixelCanvas(2, 3, (0.1, 0.5, 0.9))
        differences = drawn(2, 3, 2, 3)
        projected = canvas.within(differences)
        torch.testing.assert_close(canvas.picture(projected), clip(canvas.picture(differences)), rtol=0, atol=1e-12)
        assert torch.equal(canvas.within(projected), projected) and not torch.equal(projected, differences)

    def test_within_as_a_projection_of_the_loop(self):
        canvas = PixelCanvas(2, 3, (0.1, 0.5, 0.9))
        start = canvas.start(torch.Generator())
        found = optimize_image(
            start, lambda p: -p.sum(), step=steepest(0.3), steps=5, transforms=canvas.picture, project=canvas.within
        )
        torch.testing.assert_close(canvas.picture(found), torch.ones(1, 3, 2, 3))
