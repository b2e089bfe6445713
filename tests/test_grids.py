"""Grids of photos: brute force on small ones, what is drawn read back, and neighbours nearer than by chance."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from looking import SIDE, noise, tiny_model, write_photos
from PIL import Image
from torch import Tensor, nn

from impasto.errors import WrongCall
from impasto.visualization import Result, grids, load_model, tsne_grid
from impasto.visualization.grids import assign, cell_middles, fill, in_unit_square, seams

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

pytest.importorskip("scipy")


def cost(parts: Tensor, grid: Tensor) -> float:
    """Of squared ways to the middles, one cell at a time."""
    rows, columns = grid.shape
    total = 0.0
    for row, column in itertools.product(range(rows), range(columns)):
        if (index := int(grid[row, column])) >= 0:
            x, y = parts[index].tolist()
            total += (x - (column + 0.5) / columns) ** 2 + (y - (row + 0.5) / rows) ** 2
    return total


def greedy(parts: Tensor, rows: int, columns: int) -> Tensor:
    """Each picture in turn takes the nearest cell that is left."""
    left, grid = list(range(rows * columns)), torch.full((rows * columns,), -1)
    for index, part in enumerate(parts):
        cell = min(left, key=lambda cell: float((cell_middles(rows, columns)[cell] - part).square().sum()))
        left.remove(cell)
        grid[cell] = index
    return grid.view(rows, columns)


class TestPlaces:
    def test_the_second_axis_goes_up(self):
        places = torch.tensor([[0.0, 0.0], [4.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
        assert in_unit_square(places).tolist() == [[0, 1], [1, 0.5], [0.25, 0]]

    def test_a_flat_axis(self):
        assert in_unit_square(torch.tensor([[1.0, 7.0], [2.0, 7.0]])).tolist() == [[0, 0.5], [1, 0.5]]

    def test_middles(self):
        assert cell_middles(1, 2).tolist() == [[0.25, 0.5], [0.75, 0.5]]
        assert cell_middles(2, 1).tolist() == [[0.5, 0.25], [0.5, 0.75]]


class TestFill:
    def test_is_brute_force(self):
        parts = noise(17, 2).double()
        found = fill(parts, 5, 7)
        for row, column in itertools.product(range(5), range(7)):
            x, y = (column + 0.5) / 7, (row + 0.5) / 5
            lengths = [math.hypot(a - x, b - y) for a, b in parts.tolist()]
            assert int(found[row, column]) == lengths.index(min(lengths))

    def test_of_equally_near_ones_the_first(self):
        parts = torch.tensor([[0.9, 0.9], [0.25, 0.5], [0.25, 0.5]], dtype=torch.float64)
        assert fill(parts, 1, 2).tolist() == [[1, 0]]

    def test_corners_come_often(self):
        """A round cloud: the outermost are nearest to all that is outside."""
        angles = torch.arange(12) * math.tau / 12
        parts = 0.5 + torch.stack([angles.cos(), angles.sin()], 1).double() / 5
        counts = fill(torch.cat([parts, torch.full((1, 2), 0.5)]), 12, 12).flatten().bincount()
        assert counts[:12].min() >= 2 * counts[12]


class TestAssign:
    @pytest.mark.parametrize("count", [4, 5, 6])
    def test_is_the_best_of_all_ways(self, count):
        for seed in range(3):
            parts = noise(count, 2, seed=seed).double()
            found = assign(parts, 2, 3)
            assert sorted(found[found >= 0].tolist()) == list(range(count)) and (found < 0).sum() == 6 - count
            ways = itertools.permutations(range(6), count)
            squares = torch.cdist(parts, cell_middles(2, 3)).square().tolist()
            best = min(sum(squares[index][cell] for index, cell in enumerate(way)) for way in ways)
            assert cost(parts, found) == pytest.approx(best, abs=1e-12)

    def test_beats_greed_and_chance(self):
        """Saboteurs: measured 0.63, greedy 0.91, in the order of the files 20.6."""
        parts = noise(60, 2).double()
        best, taken = cost(parts, assign(parts, 8, 8)), cost(parts, greedy(parts, 8, 8))
        assert best < 0.9 * taken < 0.5 * cost(parts, torch.cat([torch.arange(60), torch.full((4,), -1)]).view(8, 8))

    def test_who_is_in_place_stays(self):
        order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
        assert assign(cell_middles(3, 4)[order], 3, 4).flatten().tolist() == order.argsort().tolist()


class TestSeams:
    def test_one_at_a_time(self):
        vectors, grid = noise(6, 4).double(), torch.tensor([[0, 1, 2], [3, 3, -1]])
        across, down = seams(vectors, grid)
        assert across.shape == (2, 2) and down.shape == (1, 3)
        pairs = {
            across[0, 0]: (0, 1),
            across[0, 1]: (1, 2),
            across[1, 0]: (3, 3),
            down[0, 0]: (0, 3),
            down[0, 1]: (1, 3),
        }
        for found, (a, b) in pairs.items():
            expected = math.sqrt(sum((x - y) ** 2 for x, y in zip(*vectors[[a, b]].tolist(), strict=True)))
            assert float(found) == pytest.approx(expected, abs=1e-12)
        assert across[1, 1].isnan() and down[0, 2].isnan()


CELL = 40


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Four families of colours, 19 photos in all, by their mean colour; a grid of 5 x 4 cells."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for index in range(19):
        base = np.array([(200, 60, 60), (60, 200, 60), (60, 60, 200), (190, 190, 60)][index % 4])
        Image.new("RGB", (SIDE, SIDE), tuple((base + generator.integers(-25, 26, 3)).tolist())).save(
            folder / f"{index:02d}.png"
        )
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    model = load_model(network, size=SIDE, mean=(0, 0, 0), std=(1, 1, 1))
    return tsne_grid(model, folder, side=5 * CELL, distance="l2")


def colours(result: Result) -> Tensor:
    """The features: a photo's only colour, from its file."""
    rgb = [Image.open(path).getpixel((0, 0)) for path in result.data["paths"]]
    return torch.tensor(rgb).double() / 255


class TestTechnique:
    def test_each_photo_once_and_in_its_cell(self, found):
        grid = found.data["assigned"]
        assert sorted(itertools.chain(*grid)) == [-1, *range(19)] and (len(grid), len(grid[0])) == (4, 5)
        for name in ("assigned", "filled"):
            image = found.images[name]
            assert image.size == (5 * CELL, 4 * CELL)
            for row, column in itertools.product(range(4), range(5)):
                index = found.data[name][row][column]
                cell = np.asarray(image)[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
                colour = (128,) * 3 if index < 0 else Image.open(found.data["paths"][index]).getpixel((0, 0))
                assert (cell == colour).all(), (name, row, column)

    def test_neighbours_are_near(self, found):
        """Measured 0.39 of what a grid in no order has. Saboteur: the files' order, in which families alternate."""
        assert found.data["adjacent"] <= 0.8 * found.data["shuffled"]
        vectors = colours(found)
        lengths = [float((a - b).norm()) for a, b in itertools.combinations(vectors, 2)]
        assert found.data["shuffled"] == pytest.approx(sum(lengths) / len(lengths), abs=1e-6)
        grid = torch.tensor(found.data["assigned"])
        means = [
            torch.cat([each.flatten() for each in seams(vectors, order)]).nanmean()
            for order in (grid, torch.arange(20).where(torch.arange(20) < 19, -1).view(4, 5))
        ]
        assert found.data["adjacent"] == pytest.approx(float(means[0]), abs=1e-6)
        assert float(means[1]) > 0.8 * found.data["shuffled"]

    def test_the_numbers_are_the_grids(self, found):
        vectors, filled = colours(found), torch.tensor(found.data["filled"])
        for name, expected in zip(("across", "down"), seams(vectors, filled), strict=True):
            assert np.array(found.data[name]) == pytest.approx(expected.numpy(), abs=1e-5)
        everything = [length for name in ("across", "down") for line in found.data[name] for length in line]
        assert found.data["high"] == max(everything)
        assert found.data["low"] == min(length for length in everything if length > 0)
        assert f"seams are black at {found.data['low']:.3g} and red at {found.data['high']:.3g}" in found.caption

    def test_seams_are_as_red_as_they_are_long(self, found):
        """Read back from the picture; between two of the same photo there is none."""
        pixels, low, high = np.asarray(found.images["seams"]), found.data["low"], found.data["high"]
        plain, none, drawn = np.asarray(found.images["filled"]), 0, 0
        for name in ("across", "down"):
            for row, line in enumerate(found.data[name]):
                for column, length in enumerate(line):
                    x, y = (
                        ((column + 1) * CELL, row * CELL + 20)
                        if name == "across"
                        else (column * CELL + 20, (row + 1) * CELL)
                    )
                    if length == 0:
                        none += 1
                        assert (pixels[y, x] == plain[y, x]).all()
                    else:
                        drawn += 1
                        for aside in (-1, 0):
                            at = (y, x + aside) if name == "across" else (y + aside, x)
                            assert pixels[at].tolist() == [round(255 * (length - low) / (high - low)), 0, 0]
        assert none and drawn and found.data["filled"] != found.data["assigned"]
        inside = (slice(CELL // 2, None, CELL), slice(CELL // 2, None, CELL))
        assert (pixels[inside] == plain[inside]).all()

    def test_more_than_it_takes(self, tmp_path, monkeypatch):
        write_photos(tmp_path, 9)
        monkeypatch.setattr(grids, "MOST", 5)
        found = tsne_grid(tiny_model(), tmp_path, side=60)
        assert [Path(path).stem for path in found.data["paths"]] == ["00", "02", "04", "06", "08"]
        assert found.data["pictures"] == 9 and "of 5 of 9 photos on a grid of 3 x 2" in found.caption

    def test_refusals(self, tmp_path):
        write_photos(tmp_path, 3)
        with pytest.raises(WrongCall, match="tsne grid: got 2 pictures, expected 3 or more"):
            tsne_grid(tiny_model(), sorted(tmp_path.iterdir())[:2])
        with pytest.raises(WrongCall, match="got side 15 for 2 columns and perplexity 30, expected 16 or more and"):
            tsne_grid(tiny_model(), tmp_path, side=15)
        with pytest.raises(WrongCall, match="perplexity 0, expected 16"):
            tsne_grid(tiny_model(), tmp_path, perplexity=0)
