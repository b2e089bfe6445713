"""`impasto bench training`: the reference step against a naive one in float64, and the command at tiny sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

import torch
from click.testing import CliRunner
from reference.johnson import ReferenceJohnson
from reference.losses import content_johnson, mean_over_batch
from reference.vgg import convolve, pool

import impasto.benchmarks.training as training_bench
from impasto.benchmarks.commands import bench
from impasto.benchmarks.training import ReferenceStep, reference_network, training_speed
from impasto.errors import PictureError, WrongCall

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")


class Here:
    """What stands in for a process of its own where a contestant is made up."""

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *error: object) -> None: ...

    def submit(self, function: Callable[..., object], *arguments: object) -> SimpleNamespace:
        found = function(*arguments)
        return SimpleNamespace(result=lambda: found)


def pictures(count: int, size: int, seed: int) -> torch.Tensor:
    """Random pictures in 0-255."""
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(0, 256, (count, 3, size, size)).astype(np.float32))


def vgg16(images: np.ndarray, step: ReferenceStep) -> list[np.ndarray]:
    """relu1_2, relu2_2, relu3_3, relu4_3 of pictures in 0-255, with the step's kernels, layer by layer in float64."""
    kernels = iter([layer for layer in step.features.modules() if isinstance(layer, torch.nn.Conv2d)])
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    maps = (images / 255 - mean[:, None, None]) / deviation[:, None, None]
    found = []
    for block, convolutions in enumerate((2, 2, 3, 3)):
        maps = pool(maps, "max") if block else maps
        for _ in range(convolutions):
            kernel = next(kernels)
            maps = np.maximum(convolve(maps, kernel.weight.double().numpy(), kernel.bias.double().numpy()), 0)
        found.append(maps)
    assert next(kernels, None) is None
    return found


def gram(maps: np.ndarray) -> np.ndarray:
    return np.einsum("nihw,njhw->nij", maps, maps) / maps[0].size


def johnson_with_weights_of(net: torch.nn.Module) -> ReferenceJohnson:
    reference = ReferenceJohnson()
    for to, source in zip(reference.parameters(), net.parameters(), strict=True):
        to.data.copy_(source.data)
    return reference.double()


def test_the_reference_network_is_johnsons():
    net = reference_network()
    photos = pictures(1, 36, seed=0)
    assert sum(parameter.numel() for parameter in net.parameters()) == 1_679_235
    with torch.no_grad():
        for norm in net.modules():
            if isinstance(norm, torch.nn.InstanceNorm2d):
                torch.nn.init.uniform_(norm.weight, 0.5, 2)
                torch.nn.init.uniform_(norm.bias, -1, 1)
        expected = johnson_with_weights_of(net)(photos.double())
        torch.testing.assert_close(net(photos).double(), expected, rtol=1e-4, atol=1e-4)


def test_the_reference_step_against_its_formula_in_float64():
    painting, photos = pictures(1, 32, seed=1), pictures(2, 32, seed=2)
    step = ReferenceStep(painting[0], batch=2)
    before = [parameter.detach().clone() for parameter in step.net.parameters()]
    with torch.no_grad():
        painted = johnson_with_weights_of(step.net)(photos.double()).numpy()
    found, goals = vgg16(painted, step), vgg16(painting.double().numpy(), step)
    wanted = vgg16(photos.double().numpy(), step)[1]
    expected = 1e5 * mean_over_batch(content_johnson, found[1], wanted)
    expected += 1e10 * sum(np.mean((gram(maps) - gram(goal)) ** 2) for maps, goal in zip(found, goals, strict=True))
    assert step(photos) == pytest.approx(expected, rel=1e-4)
    moved = [(now.detach() - then).abs().max().item() for now, then in zip(step.net.parameters(), before, strict=True)]
    assert max(moved) == pytest.approx(1e-3, rel=1e-2)  # Adam's first step is the rate, whatever the gradient
    assert not any(parameter.requires_grad for parameter in step.features.parameters())


def test_speeds_are_pictures_over_seconds_and_ratios_are_taken_round_by_round(monkeypatch):
    order: list[str] = []

    def turns(name: str, seconds: list[float]):
        left = iter(seconds)
        return lambda: (order.append(name), next(left))[1]

    monkeypatch.setattr(training_bench, "_home", Here)
    monkeypatch.setattr(training_bench, "reference_turn", lambda *_: turns("reference", [4.0, 8.0, 6.0]))
    of = {"johnson": [2.0, 2.0, 4.0], "fast": [0.5, 1.0, 1.0]}
    monkeypatch.setattr(training_bench, "recipe_turn", lambda recipe, *_: turns(recipe, of[recipe]))
    ticks: list[tuple[int, int]] = []
    rows = training_speed(rounds=3, batch=4, size=32, device="cpu", progress=lambda *tick: ticks.append(tick))
    assert order == ["reference", "johnson", "fast"] * 3
    assert [(row.name, row.best, row.median, row.ratio) for row in rows] == [
        ("reference", 1.0, 4 / 6, 1.0),
        ("johnson", 2.0, 2.0, 2.0),  # ratios 2, 4, 1.5
        ("fast", 8.0, 4.0, 8.0),  # 8, 8, 6
    ]
    assert ticks == [(done, 9) for done in range(1, 10)]


def test_a_turn_is_the_modules_own_training(monkeypatch, tmp_path):
    taken: list[tuple[str, tuple[int, ...], torch.dtype]] = []
    step = training_bench.StyleTransfer.training_step

    def watched(module, batch, batch_idx):
        loss = step(module, batch, batch_idx)
        taken.append((module.net.network, tuple(batch.shape), torch.get_autocast_dtype("cpu")))
        assert torch.is_autocast_enabled("cpu") and module.trainer.gradient_clip_val == 1.0
        return loss

    monkeypatch.setattr(training_bench.StyleTransfer, "training_step", watched)
    folder = training_bench._blotches(tmp_path / "pictures", (40, 48), 3)
    data = training_bench.PhotoData([str(folder)], size=32, batch=2)
    turn = training_bench.recipe_turn("fast", folder / "0.png", data, 2, torch.device("cpu"))
    monkeypatch.setattr(training_bench, "_now", lambda device: len(taken))
    assert [turn(), turn()] == [1, 1]  # from after the first step to after the third, over two
    assert taken == [("fast", (2, 3, 32, 32), torch.bfloat16)] * 6


def test_a_turn_of_the_reference_is_its_step(monkeypatch, tmp_path):
    taken: list[tuple[int, ...]] = []
    monkeypatch.setattr(ReferenceStep, "__call__", lambda step, photos: taken.append(tuple(photos.shape)))
    monkeypatch.setattr(training_bench, "_now", lambda device: len(taken))
    folder = training_bench._blotches(tmp_path / "pictures", (40, 48), 3)
    data = training_bench.PhotoData([str(folder)], size=32, batch=2)
    turn = training_bench.reference_turn(folder / "0.png", data, 2, torch.device("cpu"))
    assert [turn(), turn()] == [1, 1]
    assert taken == [(2, 3, 32, 32)] * 6


def test_the_command_prints_json(tmp_path):
    folder = training_bench._blotches(tmp_path / "pictures", (40, 48), 1)
    pictures = ["--style-image", str(folder / "0.png"), "--photos", str(folder)]
    options = ["--rounds", "1", "--steps", "1", "--size", "32", "--batch", "1", "--device", "cpu", "--threads", "1"]
    done = CliRunner().invoke(bench, ["training", *options, *pictures, "--json"], catch_exceptions=False)
    rows = json.loads(done.stdout)
    assert [row["name"] for row in rows] == ["reference", "johnson", "fast"]
    assert all(row["best"] == row["median"] > 0 and "1 threads" in row["device"] for row in rows)
    assert rows[0]["ratio"] == 1


def test_the_command_prints_a_table(monkeypatch):
    monkeypatch.setattr(training_bench, "_home", Here)
    monkeypatch.setattr(training_bench, "reference_turn", lambda *_: lambda: 4.0)
    monkeypatch.setattr(training_bench, "recipe_turn", lambda *_: lambda: 0.5)
    done = CliRunner().invoke(bench, ["training", "--rounds", "1", "--device", "cpu"], catch_exceptions=False)
    assert [line.split()[:4] for line in done.stdout.splitlines()[:4]] == [
        ["training", "best/s", "median/s", "times"],
        ["reference", "1.00", "1.00", "1.00"],
        ["johnson", "8.00", "8.00", "8.00"],
        ["fast", "8.00", "8.00", "8.00"],
    ]
    assert "threads" in done.stdout.splitlines()[4]


def test_wrong_calls(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(training_bench, "_home", Here)
    for wrong in ({"rounds": 0}, {"steps": 0}, {"device": "gpu"}, {"size": 40}, {"batch": 0}):
        with pytest.raises(WrongCall):
            training_speed(**wrong)
    with pytest.raises(PictureError):
        training_speed(photos=[str(tmp_path)], size=32, batch=1)
    if not torch.cuda.is_available():
        with pytest.raises(WrongCall, match="got 'cuda'"):
            training_speed(device="cuda")
