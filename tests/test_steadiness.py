"""The term that asks the same of a photo and of its shifted, zoomed copy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from impasto.training.steadiness import LARGEST_ZOOM, look_through, random_window, steadiness

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_whole_window_is_the_picture() -> None:
    images = draw(2, 3, 20, 20)
    torch.testing.assert_close(look_through(images, (1.0, 0.0, 0.0)), images, rtol=0, atol=1e-5)


def test_a_ramp_through_a_window_by_hand() -> None:
    """Pixel i of the copy lies at left + (i + 1/2) side, in shares of the width; a ramp says where that is."""
    size, (side, left, top) = 40, (0.9, 0.08, 0.02)
    place = torch.arange(size) + 0.5
    across = (place / size).expand(1, 1, size, size)
    down = across.mT
    expected_x = left + place / size * side
    expected_y = top + place / size * side
    seen = look_through(torch.cat([across, down], dim=1), (side, left, top))
    torch.testing.assert_close(seen[0, 0, 20, 3:-3], expected_x[3:-3], rtol=0, atol=0.003)  # this cubic
    torch.testing.assert_close(seen[0, 1, 3:-3, 20], expected_y[3:-3], rtol=0, atol=0.003)  # bends a line


def test_another_package_sees_the_same() -> None:
    noise = np.random.default_rng(0).uniform(0, 255, (12, 12)).astype(np.float32)
    smooth = np.asarray(Image.fromarray(noise).resize((64, 64), Image.Resampling.BICUBIC))
    side, left, top = 0.92, 0.05, 0.03
    box = (64 * left, 64 * top, 64 * (left + side), 64 * (top + side))
    expected = np.asarray(Image.fromarray(smooth).resize((64, 64), Image.Resampling.BICUBIC, box=box))
    found = look_through(torch.from_numpy(smooth.copy())[None, None], (side, left, top))[0, 0].numpy()
    difference = np.abs(found - expected)[3:-3, 3:-3]
    assert difference.mean() < 1 and difference.max() < 5  # of 255: their cubics differ (a = -0.75 and -0.5)
    assert np.abs(found - smooth)[3:-3, 3:-3].mean() > 5


def test_windows_lie_inside_and_vary() -> None:
    random = np.random.default_rng(0)
    windows = np.array([random_window(random) for _ in range(300)])
    assert windows[:, 0].min() >= 1 / LARGEST_ZOOM and windows[:, 0].max() <= 1
    assert windows[:, 1:].min() >= 0 and (windows[:, 1:] + windows[:, :1]).max() <= 1
    assert windows[:, 0].std() > 0.02 and windows[:, 1].std() > 0.01


def test_what_moves_with_the_photo_is_steady() -> None:
    photos, window = draw(2, 3, 32, 32), (0.93, 0.02, 0.05)

    def paint(images: torch.Tensor) -> torch.Tensor:  # pixel by pixel
        return 0.2 + 0.5 * images.flip(1)

    again = paint(look_through(photos, window))
    assert steadiness(paint(photos), again, window) < 1e-8


def test_by_hand() -> None:
    """Through the whole window nothing moves: squared differences over squared deviations from each channel's mean."""
    painted, again = draw(2, 3, 8, 8), draw(2, 3, 8, 8, seed=1)
    ratios = []
    for one, other in zip(painted.numpy(), again.numpy(), strict=True):
        deviation = one - one.mean((1, 2), keepdims=True)
        ratios.append(((other - one) ** 2).sum() / (deviation**2).sum())
    expected = torch.tensor(np.mean(ratios))
    torch.testing.assert_close(steadiness(painted, again, (1.0, 0.0, 0.0)), expected, rtol=1e-4, atol=0)


def test_what_stays_with_the_frame_is_not() -> None:
    grid = (torch.arange(32) // 2 % 2).float()
    painted = (0.5 + 0.1 * (grid[:, None] + grid - 1)).expand(1, 3, 32, 32)
    assert steadiness(painted, painted, (0.95, 0.013, 0.021)) > 0.3


def test_a_flat_painting_has_a_finite_gradient() -> None:
    painted = torch.full((1, 3, 16, 16), 0.5, requires_grad=True)
    again = painted * 1.0 + 0.1
    loss = steadiness(painted, again, (0.95, 0.01, 0.02))
    loss.backward()
    torch.testing.assert_close(loss.detach(), torch.tensor((0.1 * 255) ** 2), rtol=1e-3, atol=0)  # in levels
    assert painted.grad is not None and torch.isfinite(painted.grad).all()
