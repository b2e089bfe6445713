"""The scores of grids and blotches on pictures whose grid and blotch are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from impasto.benchmarks import artefacts
from impasto.benchmarks.artefacts import SIGMA, blotch, checkerboard, flat_inputs, grid_energy, largest_spot
from impasto.errors import WrongCall

SIDE = 512
Y, X = np.mgrid[:SIDE, :SIDE]


def grey(picture):
    return np.repeat(np.asarray(picture, float)[..., None], 3, axis=2)


def test_inputs_are_flat_or_slow_with_one_level_of_noise():
    inputs = flat_inputs()
    assert len(inputs) == 10
    assert all(picture.shape == (512, 512, 3) and picture.dtype == np.uint8 for picture in inputs.values())
    noise = inputs["sky flat"].astype(int) - [135, 190, 235]
    assert set(np.unique(noise)) == {-1, 0, 1} and abs(noise.mean()) < 0.01
    slow = inputs["sky slow"].astype(int)
    assert np.abs(slow[0, 0] - [135, 190, 235]).max() <= 1 and np.abs(slow[-1, -1] - [190, 215, 240]).max() <= 1
    assert np.array_equal(flat_inputs()["skin slow"], inputs["skin slow"])


@pytest.mark.parametrize("stride", [2, 4, 6, 8])
def test_a_checkerboard_of_five_levels_scores_five(stride):
    board = (128 + np.where((X + Y) % 2, 5, -5)).astype(np.uint8)
    found = checkerboard(lambda rgb: np.repeat(board[..., None], 3, axis=2), stride)
    assert found.level == pytest.approx(5) and found.found == pytest.approx(5) and found.floor < 1e-9


@pytest.mark.parametrize("stride", [3, 4, 8])
def test_a_repeated_cell_scores_the_deviation_within_the_cell(stride):
    cell = np.random.default_rng(0).normal(100, 20, (stride, stride, 3))
    picture = np.tile(cell, (SIDE // stride + 1, SIDE // stride + 1, 1))[:SIDE, :SIDE]
    found, floor = grid_energy(picture, stride)
    assert found == pytest.approx(cell.var(axis=(0, 1)).mean())
    assert floor < 1e-9


def test_a_grid_on_a_ramp_scores_as_on_a_flat_picture():
    grid = np.where((X % 4 == 0) & (Y % 4 == 0), 8.0, 0.0)  # one pixel of 16: variance 64 * 15 / 256
    found, floor = grid_energy(grey(grid + 0.2 * X - 0.1 * Y), 4)
    assert found == pytest.approx(64 * 15 / 256) and floor < 1e-9


def test_ramps_and_other_periods_score_nothing():
    assert grid_energy(grey(0.3 * Y + 0.1 * X), 4)[0] < 1e-20
    for period in (3, 16):
        assert grid_energy(grey(20 * np.cos(2 * math.pi * X / period)), 4)[0] < 1e-9


def test_noise_is_the_floor():
    """White noise of variance v holds 15 v sum(w^2) / sum(w)^2 at the 15 frequencies of stride 4, w the window."""
    random = np.random.default_rng(1)
    energies = [grid_energy(random.normal(128, 30, (SIDE, SIDE, 3)), 4) for _ in range(6)]
    found, floor = np.mean(energies, axis=0)
    side = SIDE - 128
    expected = 15 * 30**2 * 1.5**2 / side**2
    assert floor == pytest.approx(expected, rel=0.06)
    assert found == pytest.approx(expected, rel=0.3)


def test_a_grid_is_seen_above_noise():
    random = np.random.default_rng(2)
    board = np.where((X + Y) % 2, 2, -2)[..., None]
    found = checkerboard(lambda rgb: np.clip(128 + board + random.normal(0, 20, rgb.shape), 0, 255), 4)
    assert found.level == pytest.approx(2, rel=0.06)
    assert found.found**2 == pytest.approx(found.level**2 + found.floor**2)


def test_a_painter_that_changes_nothing_scores_nothing():
    assert checkerboard(lambda rgb: rgb, 4).level < 0.02
    assert blotch(lambda rgb: rgb) < 0.2


@pytest.mark.parametrize("stride", [1, 33])
def test_a_stride_out_of_range_is_refused(stride):
    with pytest.raises(WrongCall, match="2 to 32"):
        checkerboard(lambda rgb: rgb, stride)


@pytest.mark.parametrize("radius", [8, 16, 32])
def test_a_disc_scores_what_the_gaussian_leaves_of_it(radius):
    """In its middle a Gaussian leaves 1 - exp(-r^2 / 2 sigma^2); the plane takes a little of it, at most the mean."""
    disc = np.hypot(Y - 256, X - 256) < radius
    expected = 40 * (1 - math.exp(-(radius**2) / (2 * SIGMA**2)))
    mean = 40 * math.pi * radius**2 / (SIDE - 6 * SIGMA) ** 2
    assert expected - mean - 0.4 <= largest_spot(grey(128 + 40 * disc)) <= expected + 0.1


def test_a_spot_counts_in_the_channel_it_is_in_bright_or_dark():
    picture = grey(np.full((SIDE, SIDE), 128))
    disc = np.hypot(Y - 200, X - 300) < 32
    picture[..., 1] -= 40 * disc
    assert largest_spot(picture) == pytest.approx(largest_spot(grey(128 + 40 * disc)))


def test_a_ramp_has_no_blotch_and_strokes_hardly_any():
    assert largest_spot(grey(0.3 * Y + 0.1 * X)) < 1e-9
    strokes = np.where((X // 5 + Y // 15) % 2, 30, -30)  # of 5 x 15 pixels, side by side
    assert largest_spot(grey(128 + strokes)) < 0.5


def test_blotch_is_the_median_over_the_inputs():
    disc = np.hypot(Y - 256, X - 256) < 32
    one = largest_spot(grey(128 + 40 * disc))

    def painter(spotted: int):
        left = iter(range(10))
        return lambda rgb: grey(128 + 40 * disc * (next(left) < spotted))

    assert blotch(painter(4)) == pytest.approx(0, abs=1e-9)
    assert blotch(painter(5)) == pytest.approx(one / 2)
    assert blotch(painter(6)) == pytest.approx(one)


def test_the_inputs_are_what_is_painted(monkeypatch):
    seen = []
    monkeypatch.setattr(artefacts, "SIDE", 160)
    checkerboard(lambda rgb: seen.append(rgb) or rgb, 4)
    assert [picture.shape for picture in seen] == [(160, 160, 3)] * 10
