"""Runs that are killed, damaged, sent off the rails, resumed with other settings, or started in another way."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import TRAINER, make, write_recipe, write_world
from torch import Tensor

from impasto.errors import CheckpointError, Diverged
from impasto.training import StyleTransfer
from impasto.training.__main__ import main as lightning_command
from impasto.training.callbacks import Checkpoints, Previews
from impasto.training.checkpoints import WholeFiles, load_checkpoint
from impasto.training.guard import Guard
from impasto.training.run import fit
from impasto.training.train import train

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("tiny") / "world")


def assert_equal(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Checkpoints of the same weights, average and optimiser, to the bit."""
    assert first["global_step"] == second["global_step"] and first["rate_factor"] == second["rate_factor"]
    assert first["state_dict"].keys() == second["state_dict"].keys()
    for key, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][key]), key
    states = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (first, second)]
    assert states[0].keys() == states[1].keys() and states[0]
    for index, state in states[0].items():
        assert all(torch.equal(value, states[1][index][name]) for name, value in state.items())


# killed


KILLED_COMMAND = """
import os, signal, sys
from pathlib import Path
import torch
import impasto.training.callbacks, impasto.training.checkpoints
from impasto.cli import main

impasto.training.callbacks.CHECKPOINT_MINUTES = 0  # one a step
save, calls = torch.save, []

def save_or_die(checkpoint, file):
    calls.append(checkpoint)
    if len(calls) == 4:
        file.write(b"PK half of a checkpoint")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    save(checkpoint, file)

torch.save = save_or_die
main(sys.argv[1:])
"""


def test_a_run_killed_while_it_writes_a_checkpoint_goes_on_from_the_one_before(world: Path, tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text(KILLED_COMMAND)
    words = ["train", "sea.png", "--photos", "photos", "--config", "tiny.yaml", "--steps", "6", "--seed", "0"]
    words += ["-o", str(tmp_path / "pack"), "--run", str(tmp_path / "run")]
    killed = subprocess.run(
        [sys.executable, str(tmp_path / "killed.py"), *words],
        cwd=world, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    folder = tmp_path / "run/checkpoints"
    assert sorted(os.listdir(folder)) == [".last.ckpt.part", "last.ckpt", "previous.ckpt"]
    assert load_checkpoint(folder / "last.ckpt")["global_step"] == 3
    assert load_checkpoint(folder / "previous.ckpt")["global_step"] == 2
    resumed = fit(*make(world), tmp_path / "run", steps=6, resume=folder / "last.ckpt", trainer=TRAINER)
    whole = fit(*make(world), tmp_path / "whole", steps=6, trainer=TRAINER)
    assert_equal(load_checkpoint(whole.checkpoint), load_checkpoint(resumed.checkpoint))
    assert sorted(os.listdir(folder)) == ["last.ckpt", "previous.ckpt"], "what was left of the killed one is gone"


KILLED_WRITES = """
import os, signal, sys
from pathlib import Path
import torch
from impasto.training.checkpoints import WholeFiles

folder = Path(sys.argv[1])
moments = ("torch.save", "os.fsync", "shutil.copyfile", "os.replace", "os.replace")

def dying(function, before):  # the process is killed right before, or right after
    def call(*arguments):
        if not before:
            function(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)
    return call

def after(count, function, then):
    calls = []
    def call(*arguments):
        calls.append(arguments)
        return (then if len(calls) > count else function)(*arguments)
    return call

def save(step, place):
    WholeFiles().save_checkpoint({"step": step, "weights": torch.full((1000,), float(step))}, place / "last.ckpt")

for number, moment in enumerate(moments):
    for before in (True, False):
        place = folder / f"{number}{'before' if before else 'after'}"
        save(1, place)
        save(2, place)
        child = os.fork()
        if not child:
            room, name = moment.split(".")
            room = sys.modules[room]
            function = getattr(room, name)
            setattr(room, name, after(moments[:number].count(moment), function, dying(function, before)))
            save(3, place)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, (moment, before)
"""


def test_a_kill_at_any_moment_of_writing_leaves_two_good_files(tmp_path: Path) -> None:
    (tmp_path / "writes.py").write_text(KILLED_WRITES)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "writes.py"), str(tmp_path / "places")],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {}
    for place in sorted((tmp_path / "places").iterdir()):
        steps = []
        for name in ("last.ckpt", "previous.ckpt"):
            checkpoint = torch.load(place / name, weights_only=True)
            assert torch.equal(checkpoint["weights"], torch.full((1000,), float(checkpoint["step"])))
            steps.append(checkpoint["step"])
        found[place.name] = tuple(steps)
    early, late = ["0before", "0after", "1before", "1after", "2before", "2after", "3before"], ["3after", "4before"]
    assert found == dict.fromkeys(early, (2, 1)) | dict.fromkeys(late, (2, 2)) | {"4after": (3, 2)}


# damaged


def cut(file: bytes) -> bytes:
    return file[: len(file) // 2]


def change_a_weight(file: bytes) -> bytes:
    place = len(file) // 2  # among the numbers, which are most of the file; torch does not notice
    return file[:place] + bytes([file[place] ^ 1]) + file[place + 1 :]


@pytest.mark.parametrize("damage", [cut, change_a_weight, lambda file: b""])
def test_a_damaged_checkpoint_is_refused_and_the_good_one_named(
    damage: Callable[[bytes], bytes], world: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run/checkpoints"
    fit(*make(world), tmp_path / "run", steps=2, trainer=TRAINER)
    last = folder / "last.ckpt"
    last.write_bytes(damage(last.read_bytes()))
    with pytest.raises(CheckpointError) as caught:
        fit(*make(world), tmp_path / "again", steps=3, resume=last, trainer=TRAINER)
    reason = "is not a checkpoint of impasto: .*" if damage(b"1") == b"" and damage is not cut else (
        "is damaged: part of it is missing or has changed since it was written"
    )  # fmt: skip
    previous = re.escape(str(folder / "previous.ckpt"))
    assert re.fullmatch(rf"{re.escape(str(last))} {reason}; a good one is {previous}, of step 2", str(caught.value))
    (folder / "previous.ckpt").unlink()
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(last)
    assert "a good one" not in str(caught.value)
    assert not (tmp_path / "again").exists()


# off the rails


def bad_at(steps: set[int], monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Spoil the loss of the steps that begin when so many have been taken."""
    step = StyleTransfer.training_step

    def training_step(self: StyleTransfer, batch: Tensor, batch_idx: int) -> Tensor:
        loss = step(self, batch, batch_idx)
        return spoil(loss, next(self.net.parameters())) if self.global_step in steps else loss

    monkeypatch.setattr(StyleTransfer, "training_step", training_step)


def not_a_number(loss: Tensor, weight: Tensor) -> Tensor:
    return loss * float("nan")


def infinite_but_flat(loss: Tensor, weight: Tensor) -> Tensor:
    """The weights stay good: only the loss tells."""
    return loss + float("inf")


def bad_gradient(loss: Tensor, weight: Tensor) -> Tensor:
    """The loss stays good: 0 * inf is the gradient."""
    return loss + (weight.sum() * 0).sqrt()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, dict[str, Any]]]:
    """Weights, moments of the optimiser and rate as they are after each step."""
    seen: dict[int, dict[str, Any]] = {}
    end = StyleTransfer.on_train_batch_end

    def on_train_batch_end(self: StyleTransfer, *arguments: Any) -> None:
        optimiser = self.trainer.optimizers[0].state_dict()
        moments = [value.clone() for state in optimiser["state"].values() for value in state.values()]
        weights = [value.clone() for value in self.state_dict().values()]
        seen[self.global_step] = {"state": weights + moments, "rate": optimiser["param_groups"][0]["lr"]}
        end(self, *arguments)

    monkeypatch.setattr(StyleTransfer, "on_train_batch_end", on_train_batch_end)
    yield seen


@pytest.mark.parametrize("spoil", [not_a_number, infinite_but_flat, bad_gradient])
def test_a_bad_step_goes_back_to_the_last_good_state_at_half_the_rate(
    spoil: Callable[[Tensor, Tensor], Tensor],
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    watched: dict[int, dict[str, Any]],
) -> None:
    monkeypatch.setattr("impasto.training.guard.KEEP_EVERY", 2)
    monkeypatch.setattr("impasto.training.callbacks.CHECKPOINT_MINUTES", 0.0)  # one a step, bad ones too
    bad_at({4}, monkeypatch, spoil)
    run = fit(*make(world, warm_up=1), tmp_path / "run", steps=7, trainer=TRAINER)
    assert run.finished and run.steps == 7
    assert all(torch.equal(a, b) for a, b in zip(watched[4]["state"], watched[5]["state"], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(watched[3]["state"][:1], watched[4]["state"][:1], strict=True))
    assert not torch.equal(watched[6]["state"][0], watched[5]["state"][0])
    # the cosine of 7 steps: 0.01 * (0.01 + 0.99 * (1 + cos(pi t / 7)) / 2)
    by_hand = {1: 0.01, 3: 0.01 * (0.01 + 0.99 * 0.8117449)}
    by_hand |= {6: 0.005 * (0.01 + 0.99 * 0.1882551), 7: 0.005 * (0.01 + 0.99 * 0.0495156)}
    for step, rate in by_hand.items():
        assert watched[step]["rate"] == pytest.approx(rate, rel=1e-5), step
    (line,) = [record.message for record in caplog.records if record.name == "impasto.training.guard"]
    assert line == "step 5: the loss is not finite; back to the weights of step 4, at half the rate"
    checkpoint = load_checkpoint(run.checkpoint)
    assert checkpoint["rate_factor"] == 0.5
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())


def test_the_second_bad_step_ends_the_run_in_any_sitting(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad_at({2, 5}, monkeypatch, not_a_number)
    first = fit(*make(world), tmp_path / "run", steps=4, trainer=TRAINER)
    message = (
        r"step 6: the loss is not finite, for the second time and at half the rate already: set a rate below 0\.01"
    )
    with pytest.raises(Diverged, match=message) as caught:
        fit(*make(world), tmp_path / "run", steps=8, resume=first.checkpoint, trainer=TRAINER)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 1
    assert load_checkpoint(first.checkpoint)["global_step"] == 4, "the last good one is kept"


def test_a_run_that_went_back_is_resumed_at_half_the_rate_to_the_bit(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad_at({1}, monkeypatch, not_a_number)
    whole = fit(*make(world), tmp_path / "whole", steps=5, trainer=TRAINER)
    stopping(3, monkeypatch)
    first = fit(*make(world), tmp_path / "run", steps=5, trainer=TRAINER)
    assert first.steps == 3
    second = fit(*make(world), tmp_path / "run", steps=5, resume=first.checkpoint, trainer=TRAINER)
    assert_equal(load_checkpoint(whole.checkpoint), load_checkpoint(second.checkpoint))


def stopping(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send Ctrl-C in the step of this number."""
    begin = StyleTransfer.on_train_batch_start

    def on_train_batch_start(self: StyleTransfer, batch: Tensor, batch_idx: int) -> None:
        if self.global_step + 1 == step:
            os.kill(os.getpid(), signal.SIGINT)
        begin(self, batch, batch_idx)

    monkeypatch.setattr(StyleTransfer, "on_train_batch_start", on_train_batch_start)


# time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A clock that only moves when something is done: a step takes 1 s, everything beside it 100 s."""
    now = {"": 1000.0}
    for room in ("module", "callbacks"):
        monkeypatch.setattr(f"impasto.training.{room}.time", SimpleNamespace(monotonic=lambda: now[""]))

    def takes(owner: type, name: str, seconds: float) -> None:
        function = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            now[""] += seconds
            now[name] = now.get(name, 0) + 1
            return function(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    takes(StyleTransfer, "training_step", 1.0)
    takes(StyleTransfer, "validation_step", 100.0)
    takes(Previews, "_write", 100.0)
    takes(WholeFiles, "save_checkpoint", 100.0)
    return now


def test_only_training_counts_as_training_time(
    clock: dict[str, float], world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("impasto.training.callbacks.CHECKPOINT_MINUTES", 3 / 60)
    run = fit(*make(world, minutes=12 / 60), tmp_path / "run", trainer=TRAINER | {"val_check_interval": 5})
    assert run.seconds == 12 and run.steps == 12
    assert clock["save_checkpoint"] >= 4 and clock["validation_step"] >= 3 and clock["_write"] >= 3, "they were done"
    assert load_checkpoint(run.checkpoint)["elapsed"] == 12


def test_a_checkpoint_on_the_way_counts_the_step_it_follows(
    clock: dict[str, float], world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("impasto.training.callbacks.CHECKPOINT_MINUTES", 0.0)
    kept = {}
    save = StyleTransfer.on_save_checkpoint

    def on_save_checkpoint(self: StyleTransfer, checkpoint: dict[str, Any]) -> None:
        save(self, checkpoint)
        kept.setdefault(self.global_step, checkpoint["elapsed"])

    monkeypatch.setattr(StyleTransfer, "on_save_checkpoint", on_save_checkpoint)
    fit(*make(world, minutes=4 / 60), tmp_path / "run", trainer=TRAINER)
    assert kept == {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}


def test_a_run_by_minutes_goes_on_where_its_schedule_was_to_the_bit(
    clock: dict[str, float],
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    watched: dict[int, dict[str, Any]],
) -> None:
    options = {"minutes": 10 / 60, "warm_up": 2}
    whole = fit(*make(world, **options), tmp_path / "whole", trainer=TRAINER)
    rates = [watched[step]["rate"] for step in range(1, 11)]
    assert rates[1:] == sorted(rates[1:], reverse=True) and rates[9] < rates[1] / 20
    watched.clear()
    stopping(4, monkeypatch)
    first = fit(*make(world, **options), tmp_path / "run", trainer=TRAINER)
    assert first.steps == 4 and first.seconds == 4 and not first.finished
    second = fit(*make(world, **options), tmp_path / "run", resume=first.checkpoint, trainer=TRAINER)
    assert second.steps == 10 and second.seconds == 10 and second.finished
    assert [watched[step]["rate"] for step in range(1, 11)] == rates
    assert_equal(load_checkpoint(whole.checkpoint), load_checkpoint(second.checkpoint))


# resumed with other settings


@pytest.fixture(scope="module")
def left(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run of two steps."""
    return fit(*make(world), tmp_path_factory.mktemp("left"), steps=2, trainer=TRAINER).checkpoint


@pytest.mark.parametrize(
    ("options", "differs"),
    [
        ({"seed": 5}, r"seed 0, now 5; the photos' seed 0, now 5"),
        ({"size": 48}, r"size 32, now 48"),
        ({"batch": 3}, r"pictures a step 2, now 3"),
        ({"photos": "others"}, r"photos 10 \(hash \w{8}\), now 3 \(hash \w{8}\)"),
    ],
)
def test_what_cannot_be_gone_on_from_exactly_is_refused(
    options: dict[str, Any], differs: str, left: Path, world: Path, tmp_path: Path
) -> None:
    if not (world / "others").exists():
        (world / "others").mkdir()
        for i in range(3):
            (world / f"others/{i}.png").write_bytes((world / f"photos/0{i}.png").read_bytes())
    with pytest.raises(CheckpointError) as caught:
        fit(*make(world, **options), tmp_path / "run", steps=9, resume=left, trainer=TRAINER)
    assert re.fullmatch(
        rf"{re.escape(str(left))} cannot be gone on from exactly: it is of a run with {differs}; "
        "give it the same, or train anew without --resume",
        str(caught.value),
    ), caught.value
    assert not (tmp_path / "run").exists()


def test_length_rate_and_weights_may_be_others(left: Path, world: Path, tmp_path: Path) -> None:
    module, data = make(world, rate=0.02, style={"relu1_2": 1.0, "relu2_2": 8.0})
    assert fit(module, data, tmp_path / "run", steps=3, resume=left, trainer=TRAINER).steps == 3


# the other way in


@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
def test_lightnings_command_line_trains_the_same_weights(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("impasto.training.train.export_checkpoint", lambda checkpoint, output: None)
    recipe = write_recipe(tmp_path / "recipe.yaml", max_steps=4)
    train([str(world / "sea.png")], [str(world / "photos")], tmp_path / "pack", config=recipe, run=tmp_path / "run")
    words = [
        "fit",
        "--config",
        str(recipe),
        f"--model.style_images=[{world}/sea.png]",
        f"--data.photos=[{world}/photos]",
    ]
    cli = lightning_command(words)
    own, other = (load_checkpoint(folder / "checkpoints/last.ckpt") for folder in (Path("run"), Path("runs/lightning")))
    assert own["global_step"] == 4 and own["record"]["seed"] == other["record"]["seed"] == 3
    assert own["record"]["data"] == other["record"]["data"] and own["quality"] == other["quality"]
    assert_equal(own, other)
    kinds = {type(callback) for callback in cli.trainer.callbacks}
    assert {Guard, Checkpoints} <= kinds
    with pytest.raises(CheckpointError, match="pictures a step 2, now 4"):
        lightning_command([*words, "--data.batch=4", "--ckpt_path=runs/lightning/checkpoints/last.ckpt"])
