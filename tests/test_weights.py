"""First-layer filters: read back from the picture, planted, and told from random ones."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from looking import SIDE, data_folder, noise
from PIL import Image
from torch import nn

from impasto.errors import WrongCall
from impasto.visualization import Result, filters, load_model
from impasto.visualization.registry import Refused
from impasto.visualization.weights import oriented

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")


def convolution(weights: torch.Tensor, **options: object):
    layer = nn.Conv2d(3, len(weights), weights.shape[2:], bias=False)
    layer.weight = nn.Parameter(weights)
    return load_model(nn.Sequential(layer), size=SIDE, **options)


def edge() -> torch.Tensor:
    """(1, 3, 5, 5) in RGB: horizontal, red above and dark below; green and blue as low as it gets."""
    weights = torch.full((1, 3, 5, 5), -1.0)
    weights[0, 0, :2] = 1
    return weights


def pixels(result: Result) -> np.ndarray:
    """Of the picture as its PNG file has it."""
    buffer = io.BytesIO()
    result.images["filters"].save(buffer, "PNG")
    with Image.open(buffer) as image:
        return np.asarray(image)


def tile(result: Result, index: int) -> np.ndarray:
    """One value for each weight, cut out by the numbers in data alone."""
    grid = result.data["grid"]
    top = 1 + index // grid["columns"] * (grid["height"] + 1)
    left = 1 + index % grid["columns"] * (grid["width"] + 1)
    return pixels(result)[top : top + grid["height"], left : left + grid["width"]]


class TestFilters:
    @pytest.mark.parametrize("scale", ["filter", "shared"])
    def test_every_weight_is_read_back_from_the_file(self, scale):
        """Largest error measured 0.5 / 255 of the range; allowed 1 / 255."""
        weights = noise(10, 3, 5, 5) * 4 - 1
        result = filters(convolution(weights), scale=scale)
        zoom = result.data["grid"]["zoom"]
        for index in range(10):
            low, high = result.data["low"][index], result.data["high"][index]
            cut = tile(result, index)[zoom // 2 :: zoom, zoom // 2 :: zoom].transpose(2, 0, 1)
            back = low + cut / 255 * (high - low)
            assert np.abs(back - weights[index].numpy()).max() <= (high - low) / 255
        assert result.data["read_back_error"] <= 1 / 255
        assert result.data["norms"] == pytest.approx(weights.flatten(1).norm(dim=1).tolist())

    def test_nothing_is_interpolated(self):
        """Each weight is a square of one colour; enlarged with interpolation it would not be."""
        result = filters(convolution(noise(4, 3, 3, 3)))
        zoom = result.data["grid"]["zoom"]
        cut = tile(result, 3)
        assert cut.shape == (33, 33, 3) and zoom == 11
        blocks = cut.reshape(3, zoom, 3, zoom, 3)
        assert (blocks == blocks[:, :1, :, :1]).all()

    def test_a_white_line_and_grey_where_there_is_none(self):
        drawn = pixels(filters(convolution(noise(3, 3, 8, 8)), side=16))
        assert drawn.shape == (2 * 17 + 1, 2 * 17 + 1, 3)
        assert (drawn[[0, 17, 34]] == 255).all() and (drawn[:, [0, 17, 34]] == 255).all()
        assert (drawn[18:34, 18:34] == 128).all()

    def test_planted_red_edge_also_in_a_network_that_takes_bgr(self):
        ordinary = filters(convolution(edge()))
        turned = filters(convolution(edge().flip(1), channels="bgr"))
        for result in (ordinary, turned):
            red, green, blue = tile(result, 0).reshape(-1, 3).mean(0)
            assert red > green + 50 and red > blue + 50
            rows = tile(result, 0)[..., 0].astype(float)
            assert rows.std(axis=1).max() == 0 and rows.mean(1)[0] == 255 and rows.mean(1)[-1] == 0
        assert np.array_equal(pixels(ordinary), pixels(turned))
        sabotaged = filters(convolution(edge().flip(1)))
        red, _, blue = tile(sabotaged, 0).reshape(-1, 3).mean(0)
        assert blue > red + 50, "BGR weights shown as RGB are blue: this test tells"

    def test_dead_filters_are_named_and_not_blown_up(self):
        weights = noise(4, 3, 3, 3) - 0.5
        weights[1] = 0
        weights[2] *= 1e-5
        result = filters(convolution(weights))
        assert result.data["dead"] == [1, 2] and "2 dead" in result.caption
        assert (tile(result, 1) == 128).all()

    def test_one_scale_for_all_shows_which_is_strong(self):
        weights = torch.stack([edge()[0], edge()[0] / 10])
        result = filters(convolution(weights), scale="shared")
        assert np.ptp(tile(result, 0)) == 255 and np.ptp(tile(result, 1)) < 30
        zero = filters(convolution(torch.stack([edge()[0], torch.zeros(3, 5, 5)])), scale="shared")
        assert np.abs(tile(zero, 1).astype(int) - 128).max() <= 1, "0 is mid-grey"

    def test_refusals(self):
        grey = load_model(nn.Sequential(nn.Conv2d(1, 4, 3)), size=SIDE)
        with pytest.raises(Refused, match="this network has no convolution of three channels.*deep-filters"):
            filters(grey)
        depthwise = load_model(nn.Sequential(nn.Conv2d(3, 6, 3, groups=3)), size=SIDE)
        with pytest.raises(Refused, match="no convolution of three channels"):
            filters(depthwise)
        two = load_model(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)), size=SIDE)
        with pytest.raises(Refused, match="1 is no convolution of three channels"):
            filters(two, layer="1")
        with pytest.raises(WrongCall, match="unknown layer '2'"):
            filters(two, layer="2")


def gabors(angles: list[float], side: int = 11) -> torch.Tensor:
    places = torch.arange(side, dtype=torch.float64) - side // 2
    y, x = torch.meshgrid(places, places, indexing="ij")
    waves = [torch.cos(1.2 * (x * np.cos(a) + y * np.sin(a))) * torch.exp(-(x**2 + y**2) / 12) for a in angles]
    return torch.stack(waves)[:, None].expand(-1, 3, -1, -1)


class TestOriented:
    def test_gabors_are_blobs_and_noise_are_not(self):
        assert oriented(gabors([0, 0.6, 1.2, 2.0, 2.9])).all()
        places = torch.arange(11.0) - 5
        blob = torch.exp(-(places[:, None] ** 2 + places**2) / 6)[None, None].expand(1, 3, -1, -1)
        assert not oriented(blob).any()
        assert oriented(noise(64, 3, 11, 11) - 0.5).float().mean() < 0.05
        assert not oriented(torch.zeros(1, 3, 5, 5)).any()

    def test_lite0_against_random_weights(self):
        """Measured: 0.125 trained, 0 random."""
        trained = filters(load_model()).data["oriented"]
        random = filters(load_model(weights=None)).data["oriented"]
        assert trained >= 0.10 and trained >= 3 * random and random <= 0.04

    @pytest.mark.data
    def test_squeezenet_against_random_and_shuffled_weights(self):
        """Measured: 0.453 trained, 0 random, 0.094 with each filter's positions shuffled."""
        path = data_folder("weights", "squeezenet1_1_torchvision_fp16.pth")
        model = load_model("squeezenet1_1", weights=path)
        trained = filters(model).data["oriented"]
        weight = model.network.features[0].weight
        with torch.no_grad():
            weight.copy_(weight.flatten(2)[..., torch.tensor([5, 0, 7, 2, 4, 8, 1, 6, 3])].view_as(weight))
        shuffled = filters(model).data["oriented"]
        random = filters(load_model("squeezenet1_1", weights=None)).data["oriented"]
        assert trained >= 0.3 and random <= 0.05 and trained >= 2 * shuffled
