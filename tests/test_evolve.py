"""Evolved pictures: the encodings against references, the archive against a loop, selection against random search.

The gate (V34), a thousand pictures for EfficientNet-Lite0 with Lite1 as the judge, takes minutes: `python
tests/test_evolve.py [evaluations]` prints its numbers. Measured after 960 pictures: 5 champions above 1/2 (at least 3),
the best 0.87, the median 0.0053; of 800 random pictures 6, 0.82 and 0.0029. So at this size selection is to be seen in
the median only; the planted search below shows it for certain. The 12 best champions are coarse by 0.98 (at least 0.9).
"""

from __future__ import annotations

import colorsys
import itertools
import math
import sys

import numpy as np
import pytest
import torch
from looking import CLASSES, SIDE, noise, tiny_model
from PIL import Image
from torch import Tensor, nn

from impasto.errors import WrongCall
from impasto.visualization import Result, evolve, load_model
from impasto.visualization import genomes as genomes_module
from impasto.visualization.champions import Archive, illuminated, probabilities_of
from impasto.visualization.evolution import coarse_part
from impasto.visualization.genomes import Cppn, Direct, mutated, random_genomes, rgb_of_hsv
from impasto.visualization.registry import Refused

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

QUICK = {"evaluations": 96, "start": 32, "shown": 4}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestEncodings:
    def test_hsv_is_colorsys(self):
        planes = noise(1, 3, 5, 7)
        found = rgb_of_hsv(planes)[0].flatten(1).T.tolist()
        expected = [colorsys.hsv_to_rgb(*hsv) for hsv in planes[0].flatten(1).T.tolist()]
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_hue_goes_round(self):
        planes = noise(1, 3, 4, 4)
        turned = planes + torch.tensor([2.0, 0, 0]).view(3, 1, 1)
        torch.testing.assert_close(rgb_of_hsv(planes), rgb_of_hsv(turned), rtol=0, atol=1e-5)

    def test_a_cppn_by_hand(self):
        """Every pixel in float64, unit by unit, from the docstring; then to 8 bits, where it may round either way."""
        encoding = Cppn(5, units=4, reach=3.0)
        assert encoding.length == 4 * 4 + 4 * 4 + 3 * 4
        genomes = random_genomes(2, encoding.length, seeded())
        found = encoding.pictures(genomes)
        waves = (
            lambda s: math.sin(math.pi * s),
            lambda s: (1 - math.exp(-2 * s)) / (1 + math.exp(-2 * s)),
            lambda s: math.exp(-s * s),
            lambda s: s,
        )
        for genome, picture in zip(genomes.tolist(), found, strict=True):
            weights = [3.0 / math.sqrt(4) * (2 * gene / 255 - 1) for gene in genome]
            for row in range(5):
                for column in range(5):
                    x, y = column / 2 - 1, row / 2 - 1
                    values = [x, y, math.hypot(x, y), 1.0]
                    for layer in range(2):
                        part = weights[16 * layer : 16 * layer + 16]
                        sums = [np.dot(part[4 * u : 4 * u + 4], values) for u in range(4)]
                        values = [wave(each) for wave, each in zip(waves, sums, strict=True)]
                    h, s, v = (float(np.dot(weights[32 + 4 * u : 36 + 4 * u], values)) for u in range(3))
                    colour = colorsys.hsv_to_rgb(h / 2 % 1, 1 / (1 + math.exp(-s)), 1 / (1 + math.exp(-2 * v)))
                    np.testing.assert_allclose(picture[:, row, column] * 255, np.array(colour) * 255, atol=0.51)

    @pytest.mark.parametrize("encoding", [Cppn(8), Direct(8)])
    def test_pictures_are_of_8_bits(self, encoding):
        pictures = encoding.pictures(random_genomes(3, encoding.length, seeded()))
        assert pictures.shape == (3, 3, 8, 8) and pictures.min() >= 0 and pictures.max() <= 1
        torch.testing.assert_close(pictures * 255, (pictures * 255).round(), rtol=0, atol=1e-4)

    def test_direct_genes_are_hue_saturation_and_value_of_pixels(self):
        genome = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
        genome[0, :, 0, 1] = torch.tensor([85, 255, 255])
        picture = Direct(2).pictures(genome.view(1, -1))
        assert picture[0, :, 0, 1].tolist() == [0, 1, 0] and picture.sum() == 1

    def test_cppns_are_coarse_and_pixels_are_not(self):
        """Of 32 the median measured 0.96 (the gate: 0.9), the least 0.86; of pixels by themselves the most 0.05."""
        coarse, fine = (
            [coarse_part(each[None]) for each in encoding.pictures(random_genomes(32, encoding.length, seeded(1)))]
            for encoding in (Cppn(96), Direct(96))
        )
        assert np.median(coarse) > 0.9 and min(coarse) > 0.7 and max(fine) < 0.1


class TestCoarse:
    @pytest.mark.parametrize(("period", "expected"), [(16, 1.0), (4, 0.0)])
    def test_a_wave(self, period, expected):
        wave = 0.5 + 0.4 * torch.sin(2 * math.pi * torch.arange(64) / period)
        assert coarse_part(wave.expand(1, 3, 64, 64)) == pytest.approx(expected, abs=1e-9)

    def test_two_waves_and_none(self):
        x = torch.arange(64, dtype=torch.float64) * 2 * math.pi
        both = 0.5 + 0.1 * torch.sin(x / 16) + 0.2 * torch.sin(x / 4)
        assert coarse_part(both.expand(1, 3, 64, 64)) == pytest.approx(1 / 5)
        assert coarse_part(torch.full((1, 3, 8, 8), 0.3)) == 1


class TestMutation:
    def test_polynomial(self):
        """A change is 1/17 of the range in the mean, as often up as down, and one gene in ten has one."""
        before = torch.full((1, 200_000), 128, dtype=torch.uint8)
        change = mutated(before, 1.0, seeded())[0].double() - 128
        assert change.abs().mean().item() == pytest.approx(255 / 17, rel=0.01)
        assert abs(change.mean().item()) < 0.2
        fewer = mutated(before, 0.1, seeded())[0].double() - 128
        assert fewer.abs().mean().item() == pytest.approx(25.5 / 17, rel=0.03)

    def test_stays_a_byte(self):
        ends = torch.tensor([[0, 255]], dtype=torch.uint8).expand(1000, 2)
        found = mutated(ends, 1.0, seeded()).float()
        assert found[:, 0].max() < 200 and found[:, 1].min() > 55 and (found[:, 0] == 0).float().mean() > 0.4


def to_colours(pictures: Tensor) -> Tensor:
    """Planted: of six classes, each a colour, the one that a picture is near has a high 'probability'."""
    colours = torch.tensor([colorsys.hsv_to_rgb(k / 6, 1, 1) for k in range(6)], dtype=torch.float64)
    far = (pictures.double()[:, None] - colours.view(1, 6, 3, 1, 1)).square().mean((2, 3, 4))
    return torch.exp(-12 * far)


def searched(start: int, evaluations: int = 1600, **changes: object) -> list[dict[str, float]]:
    options = {"evaluations": evaluations, "start": start, "mutation": 0.1, "generator": seeded()} | changes
    return [archive.summary() for _, archive in illuminated(to_colours, Direct(4), **options)]


def never_falls(history: list[dict[str, float]]) -> bool:
    return all(after[key] >= before[key] for before, after in itertools.pairwise(history) for key in ("best", "median"))


class TestArchive:
    def test_is_a_loop_over_pictures_and_classes(self):
        archive = Archive.empty(4, 5)
        expected = {k: (0.0, [0] * 5, 0) for k in range(4)}
        for batch in range(3):
            genomes, values = random_genomes(6, 5, seeded(batch)), noise(6, 4, seed=batch).double()
            archive.offer(genomes, values, 6 * batch)
            for n in range(6):
                for k in range(4):
                    if values[n, k] > expected[k][0]:
                        expected[k] = (values[n, k].item(), genomes[n].tolist(), 6 * batch + n + 1)
        found = zip(archive.probabilities.tolist(), archive.genomes.tolist(), archive.born.tolist(), strict=True)
        assert list(found) == list(expected.values())
        assert archive.best(2) == sorted(expected, key=lambda k: -expected[k][0])[:2]

    def test_parents_are_champions_drawn_evenly(self):
        archive = Archive.empty(4, 1)
        archive.genomes[:, 0] = torch.arange(4)
        counts = archive.parents(4000, seeded()).flatten().bincount()
        assert len(counts) == 4 and counts.min() > 900

    def test_never_falls(self):
        assert never_falls(searched(64))

    def test_an_archive_that_forgets_is_seen(self, monkeypatch):
        """The saboteur."""
        keep = Archive.offer

        def forget(archive: Archive, genomes: Tensor, probabilities: Tensor, done: int) -> None:
            archive.probabilities.zero_()
            keep(archive, genomes, probabilities, done)

        monkeypatch.setattr(Archive, "offer", forget)
        assert not never_falls(searched(64))

    def test_selection_beats_as_many_random_pictures(self):
        """Medians of the six champions: measured 0.18 against 0.076, 2.3 times as high (at least 2)."""
        evolved, random = (searched(start)[-1]["median"] for start in (64, 1600))
        assert evolved >= 2 * random

    def test_children_of_no_one_do_not(self, monkeypatch):
        """The saboteur: parents that are not champions. Measured 0.062, below the random search."""
        blind = seeded(9)
        monkeypatch.setattr(Archive, "parents", lambda archive, count, generator: random_genomes(count, 48, blind))
        evolved, random = (searched(start)[-1]["median"] for start in (64, 1600))
        assert evolved < 2 * random

    def test_a_random_search_is_the_best_of_all(self):
        generator, pictures = seeded(), []
        for count in (16, 16, 8):
            pictures.append(to_colours(Direct(4).pictures(random_genomes(count, 48, generator))))
        steps = list(illuminated(to_colours, Direct(4), evaluations=40, start=40, mutation=0.1, generator=seeded()))
        assert [done for done, _ in steps] == [16, 32, 40]
        assert torch.equal(steps[-1][1].probabilities, torch.cat(pictures).amax(0))


@pytest.fixture(scope="module")
def found() -> Result:
    return evolve(tiny_model(), judge=tiny_model(mean=(0.5, 0.4, 0.3)), **QUICK)


class TestEvolve:
    def test_its_images_and_numbers(self, found):
        data = found.data
        assert list(found.images) == ["evolve", "champions", "curves"] and 1 <= len(found.frames) <= 30
        assert (data["classes"], data["evaluations"], data["random"]["pictures"]) == (5, 96, 32)
        assert data["history"][-1]["best"] == data["best"] and never_falls(data["history"])
        assert data["random"]["best"] <= data["best"] and 0 <= data["judge_top5"] <= 4
        values = [each["probability"] for each in data["champions"]]
        assert values == sorted(values, reverse=True) and all(1 <= each["born"] <= 96 for each in data["champions"])
        assert {each["name"] for each in data["champions"]} <= set(CLASSES)

    def test_its_champions_as_they_are_in_a_file(self, found, tmp_path):
        """Cut out of the PNG by their boxes: the gate allows 0.02, here 1e-5."""
        found.save(tmp_path)
        with Image.open(tmp_path / "champions.png") as page:
            for each in found.data["champions"]:
                cut = torch.from_numpy(np.array(page.crop(each["box"])))
                assert cut.shape == (SIDE, SIDE, 3)
                read = probabilities_of(tiny_model(), cut.permute(2, 0, 1)[None] / 255)[0]
                assert abs(read[each["class"]].item() - each["probability"]) <= 1e-5
        assert found.data["png_error"] <= 1e-5

    def test_pictures_that_a_file_does_not_hold_are_seen(self, monkeypatch):
        """The saboteur: a network that reads what is lost in rounding, with pictures that were not rounded.

        Measured 0 as it is (allowed 0.02), 0.56 with the saboteur.
        """

        class Fine(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.sin(255 * 2 * math.pi * x).mean((2, 3)) * 20

        model = load_model(Fine(), size=16, mean=(0, 0, 0), std=(1, 1, 1))
        assert evolve(model, **QUICK).data["png_error"] <= 0.02
        monkeypatch.setattr(genomes_module, "eight_bits", lambda pictures: pictures.clamp(0, 1))
        assert evolve(model, **QUICK).data["png_error"] > 0.02

    def test_direct(self):
        found = evolve(tiny_model(), encoding="direct", **QUICK)
        assert max(each["coarse"] for each in found.data["champions"]) < 0.3
        assert found.data["judge_top5"] is None and "judge" not in found.caption

    def test_command(self):
        model = load_model("squeezenet1_1", weights=None, size=64)
        found = evolve(model, evaluations=2, start=1, shown=1)
        assert found.command == (
            "impasto see evolve --evaluations 2 --start 1 --shown 1 --model squeezenet1_1 --weights none --size 64"
        )

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"evaluations": 10}, "got 10 evaluations, 64 at the start"),
            ({"start": 0}, "0 at the start"),
            ({"mutation": 0.0}, "mutation 0.0"),
            ({"shown": 0}, "0 shown"),
            ({"encoding": "words"}, "unknown encoding 'words'"),
        ],
    )
    def test_wrong_calls(self, options, message):
        with pytest.raises(WrongCall, match=message):
            evolve(tiny_model(), **options)

    def test_refuses(self):
        with pytest.raises(Refused, match="no classes"):
            evolve(load_model(nn.Sequential(nn.Conv2d(3, 4, 3)), size=SIDE))
        with pytest.raises(Refused, match="choose a judge that knows it"):
            evolve(tiny_model(), judge=tiny_model(classes=("a", "b", "c", "d", "e")), **QUICK)


if __name__ == "__main__":
    network, count = load_model("efficientnet_lite0"), int((sys.argv[1:] or ["1000"])[0])
    result = evolve(network, evaluations=count, judge="efficientnet_lite1")  # type: ignore[arg-type]
    result.save(".runs/see/evolve/evolve")
    print(result.caption)
    for each in result.data["champions"]:
        print(each["name"], each["probability"], each["born"], each["coarse"], each["judge"]["rank"])
