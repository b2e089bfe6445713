"""Keeping the photo's colours: the paper's formulas, hand values, and what must hold for any picture."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from reference import colours as reference
from torch import Tensor

from impasto.errors import WrongCall
from impasto.visualization.colours import (
    keep_colours,
    luminance,
    match_luminance,
    match_statistics,
    style_noise,
)

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")


def picture(seed: int, *, low: float = 0.0, high: float = 1.0, height: int = 9, width: int = 7) -> Tensor:
    """Uniform values with channels that go together."""
    drawn = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mixed = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.0, 0.3, 0.7]], dtype=torch.float64)
    return low + (high - low) * torch.einsum("ij,njhw->nihw", mixed, drawn)


def statistics(pictures: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return reference.mean_and_covariance(pictures[0].numpy())


def colour(*rgb: float) -> Tensor:
    return torch.tensor(rgb, dtype=torch.float64).reshape(1, 3, 1, 1)


def largest(left, right) -> float:
    return float(np.abs(np.asarray(left) - np.asarray(right)).max())


# luma


def test_luma_by_hand():
    for rgb, luma in (((1, 0, 0), 0.299), ((0, 1, 0), 0.587), ((0, 0, 1), 0.114), ((0.4, 0.4, 0.4), 0.4)):
        assert luminance(colour(*rgb)).item() == pytest.approx(luma, abs=1e-12)
    both = torch.cat([picture(0), picture(1)])
    assert luminance(both).shape == (2, 1, 9, 7)
    assert largest(luminance(both)[1, 0], reference.luma(both[1])) < 1e-12


def test_kept_colours_by_hand():
    # red (Y 0.299, colour .701 -.299 -.299) on luma 0.5: red has room for 0.5 / 0.701 of it
    found = keep_colours(colour(0.5, 0.5, 0.5), colour(1, 0, 0)).flatten().tolist()
    share = 0.5 / 0.701
    assert found == pytest.approx([1, 0.5 - 0.299 * share, 0.5 - 0.299 * share], abs=1e-12)
    # a muted photo fits as it is: Y 0.5 and (0.1, -0.0299, ...)
    photo = colour(0.6, 0.5, 0.5)
    assert keep_colours(colour(0.5, 0.5, 0.5), photo).flatten().tolist() == pytest.approx(
        [0.5 + 0.1 - 0.0299, 0.5 - 0.0299, 0.5 - 0.0299], abs=1e-12
    )
    for edge in (0.0, 1.0):  # black and white have no colour
        assert keep_colours(colour(edge, edge, edge), photo).flatten().tolist() == pytest.approx([edge] * 3)


def test_kept_colours_follow_the_paper():
    painted, photo = picture(2), picture(3)
    found = keep_colours(painted, photo)
    expected = reference.keep_colours(painted[0], photo[0])
    assert largest(found[0], expected) < 1e-5  # the standard's I and Q are rounded
    yiq = np.einsum("ij,jhw->ihw", reference.YIQ, found[0])
    assert largest(yiq[0], luminance(painted)[0, 0]) < 1e-12
    clipped = photo - luminance(photo) + luminance(painted)
    outside = ((clipped < 0) | (clipped > 1)).any(1)[0].numpy()
    assert 0 < outside.sum() < outside.size, "both cases are in the picture"
    other = np.einsum("ij,jhw->ihw", reference.YIQ, photo[0])
    assert largest(yiq[1:, ~outside], other[1:, ~outside]) < 1e-12
    (i, q), (other_i, other_q) = yiq[1:, outside], other[1:, outside]
    assert largest(i * other_q, q * other_i) < 1e-12 and (i * other_i + q * other_q >= 0).all(), "the hue stays"


def test_kept_colours_hold_for_any_picture():
    corners = torch.tensor([[r, g, b] for r in (0, 1) for g in (0, 1) for b in (0, 1)], dtype=torch.float32)
    painted = corners.T.reshape(1, 3, 8, 1).expand(-1, -1, -1, 8)
    photo = corners.T.reshape(1, 3, 1, 8).expand(-1, -1, 8, -1)
    found = keep_colours(painted, photo)
    assert found.dtype == torch.float32 and found.min() >= 0 and found.max() <= 1
    assert (luminance(found) - luminance(painted)).abs().max() < 1e-6
    assert torch.allclose(keep_colours(picture(4), picture(4)), picture(4), atol=1e-12)
    grey = luminance(picture(5)).expand(-1, 3, -1, -1)
    assert torch.allclose(keep_colours(picture(4), grey), luminance(picture(4)).expand(-1, 3, -1, -1), atol=1e-12)


# statistics


def test_matched_luminance_by_hand_and_by_the_paper():
    style = torch.tensor([0.2, 0.4]).reshape(1, 1, 1, 2).expand(1, 3, 1, 2)  # mean 0.3, deviation 0.1
    photo = torch.tensor([0.3, 0.7, 0.7, 0.3]).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)  # mean 0.5, deviation 0.2
    found = match_luminance(style, photo)
    assert found.shape == style.shape and found.flatten(2)[0].tolist() == [pytest.approx([0.3, 0.7])] * 3
    style, photo = picture(0), picture(1, low=0.3, high=0.7, height=5)
    expected = reference.match_luminance(style[0], photo[0])
    assert expected.min() > 0 and expected.max() < 1
    found = match_luminance(style, photo)
    assert largest(found[0], np.stack([expected] * 3)) < 1e-12
    assert found.mean().item() == pytest.approx(luminance(photo).mean().item(), abs=1e-12)
    assert luminance(found).std(correction=0).item() == pytest.approx(luminance(photo).std(correction=0).item())


def test_matched_statistics_by_hand():
    """Channels without covariance: each is stretched by the ratio of its deviations."""
    signs = torch.tensor([[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]], dtype=torch.float64).reshape(1, 3, 2, 2)
    spread = torch.tensor([0.1, 0.2, 0.05], dtype=torch.float64).reshape(1, 3, 1, 1)
    goal = torch.tensor([0.2, 0.1, 0.1], dtype=torch.float64).reshape(1, 3, 1, 1)
    style, photo = 0.5 + spread * signs, colour(0.3, 0.4, 0.6) + goal * signs
    assert torch.allclose(match_statistics(style, photo), photo, atol=1e-12)


def test_matched_statistics_follow_the_paper():
    style, photo = picture(0), picture(1, low=0.35, high=0.65, height=5)
    expected = reference.match_statistics(style[0], photo[0])
    assert expected.min() > 0 and expected.max() < 1
    found = match_statistics(style, photo)
    assert found.shape == style.shape and largest(found[0], expected) < 1e-9
    for ours, theirs in zip(statistics(found), statistics(photo), strict=True):
        assert largest(ours, theirs) < 1e-12
    assert largest(statistics(style)[1], statistics(photo)[1]) > 0.01, "and they were not equal before"


def test_matching_to_itself_changes_nothing():
    style = picture(6)
    assert torch.allclose(match_statistics(style, style), style, atol=1e-12)
    grey = luminance(style).expand(-1, 3, -1, -1)
    assert torch.allclose(match_luminance(style, style), grey, atol=1e-12)
    assert torch.allclose(match_statistics(grey, grey), grey, atol=1e-12), "its covariance is singular"


def test_a_grey_photo_gives_a_grey_picture():
    photo = luminance(picture(1, low=0.3, high=0.7)).expand(-1, 3, -1, -1)
    found = match_statistics(picture(0), photo)
    assert (found - found[:, :1]).abs().max() < 1e-7  # the square root of what rounding leaves of the covariance
    for ours, theirs in zip(statistics(found), statistics(photo), strict=True):
        assert largest(ours, theirs) < 1e-12


def test_a_painting_that_lacks_colours_is_not_given_any():
    photo = picture(1, low=0.35, high=0.65)
    mean, covariance = statistics(photo)
    flat = colour(0.9, 0.1, 0.1).expand(-1, -1, 6, 5)
    assert torch.allclose(match_statistics(flat, photo), colour(*mean).expand(-1, -1, 6, 5), atol=1e-12)
    luma = luminance(photo).mean().item()
    assert torch.allclose(match_luminance(flat, photo), torch.full_like(flat, luma), atol=1e-12)
    # a grey painting with the rounding noise of a file: along one direction of colour, not blown up
    grey = luminance(picture(0)).expand(-1, 3, -1, -1)
    rounded = (grey + 1e-4 * (picture(7) - 0.5)).clamp(0, 1)
    found = match_statistics(rounded, photo)
    assert largest(statistics(found)[0], mean) < 1e-12
    variances = np.linalg.eigvalsh(statistics(found)[1])
    assert variances[1] < 1e-6 < 1e-3 < variances[2] <= np.trace(covariance)
    assert largest(found, match_statistics(grey, photo)) < 0.01


def test_clipping_and_batches():
    style, photo = picture(0), picture(1, low=-0.2, high=1.2).clamp(0, 1)
    for match in (match_statistics, match_luminance):
        found = match(style, photo)
        assert found.min() == 0 or found.max() == 1
        assert found.min() >= 0 and found.max() <= 1
        both = match(torch.cat([style, picture(8)]).float(), photo.float())
        assert both.dtype == torch.float32 and both.is_contiguous()
        assert torch.allclose(both[:1].double(), found, atol=1e-6)
        assert torch.allclose(both[1:].double(), match(picture(8), photo), atol=1e-6)
        paired = match(torch.cat([style, style]), torch.cat([photo, picture(8)]))
        assert torch.equal(paired[:1], found) and not torch.equal(paired[1:], found)


def test_noise_has_the_colours_of_the_painting():
    style = picture(0, low=0.3, high=0.7)
    mean, covariance = statistics(style)
    count, generator = 200 * 150, torch.Generator().manual_seed(5)
    noise = style_noise(style, 200, 150, generator)
    assert noise.shape == (1, 3, 200, 150) and noise.dtype == style.dtype
    assert noise.min() > 0 and noise.max() < 1, "nothing was clipped"
    values = noise[0].flatten(1).numpy()
    deviations = np.sqrt(np.diag(covariance))
    assert (np.abs(values.mean(1) - mean) < 4 * deviations / math.sqrt(count)).all()
    # the standard error of a covariance of Gaussians: sqrt((s_ii s_jj + s_ij^2) / n)
    error = np.sqrt((np.outer(deviations, deviations) ** 2 + covariance**2) / count)
    assert (np.abs(np.cov(values) - covariance) < 4 * error).all()
    scores = (values[0] - mean[0]) / deviations[0]
    assert abs((scores**4).mean() - 3) < 4 * math.sqrt(96 / count), "as heavy-tailed as a Gaussian"
    neighbours = np.corrcoef(noise[0, 0, :, 1:].flatten(), noise[0, 0, :, :-1].flatten())[0, 1]
    assert abs(neighbours) < 4 / math.sqrt(count)
    again = style_noise(style, 200, 150, torch.Generator().manual_seed(5))
    assert torch.equal(noise, again) and not torch.equal(noise, style_noise(style, 200, 150, generator))


def test_noise_of_extreme_paintings():
    noise = style_noise(colour(1, 0, 0.25).expand(-1, -1, 4, 4), 3, 5, torch.Generator().manual_seed(0))
    assert torch.allclose(noise, colour(1, 0, 0.25).expand(-1, -1, 3, 5), atol=1e-12), "flat stays flat"
    checks = torch.tensor([0.0, 1.0]).repeat(8).reshape(1, 1, 4, 4).expand(-1, 3, -1, -1)
    noise = style_noise(checks, 20, 20, torch.Generator().manual_seed(0))
    assert noise.dtype == torch.float32 and noise.min() == 0 and noise.max() == 1
    assert (noise - noise[:, :1]).abs().max() < 1e-6, "grey"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: luminance(torch.zeros(1, 1, 4, 4)), r"got torch.float32 \(1, 1, 4, 4\), expected floats"),
        (lambda: luminance(torch.zeros(1, 3, 4, 4, dtype=torch.uint8)), r"got torch.uint8"),
        (lambda: keep_colours(picture(0), picture(0, height=8)), r"got \(1, 3, 9, 7\) and \(1, 3, 8, 7\), .*one shape"),
        (lambda: match_statistics(torch.zeros(3, 4, 4), picture(0)), r"expected floats \(N, 3, H, W\)"),
        (lambda: match_luminance(picture(0), torch.rand(2, 3, 4, 4)), r"got 2 photos for 1 paintings"),
        (lambda: style_noise(torch.rand(2, 3, 4, 4), 4, 4, torch.Generator()), r"got 2 paintings, expected one"),
    ],
)  # fmt: skip
def test_wrong_calls(call, message):
    with pytest.raises(WrongCall, match=message):
        call()
