"""The run behind `paint`, on a valley whose bottom is known instead of a loss network."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from impasto.errors import CheckpointError
from impasto.losses import LossTerms, adam, lbfgs
from impasto.visualization import brush as module
from impasto.visualization.brush import Brush, Stage, Watch
from impasto.visualization.scene import Scene

HIGH, WIDE = 24, 32
SMALL, FULL = (12, 16), (HIGH, WIDE)
STAGES = [Stage(SMALL, 3), Stage(FULL, 5)]


class Valley(Scene):
    """The mean squared distance to one colour, from above; the content weighs 2."""

    def at(self, size: tuple[int, int], objective: Any) -> Any:
        bottom = torch.tensor([0.2, 0.5, 0.8]).view(1, 3, 1, 1)
        weights = torch.linspace(1, 3, size[0] * size[1]).view(1, 1, *size)  # not round: L-BFGS needs some steps

        def terms(image: Tensor) -> LossTerms:
            assert tuple(image.shape) == (1, 3, *size)
            return LossTerms({"content/a": (weights * (image - bottom) ** 2).mean()}, {"content/a": 2.0})

        return terms


def make(rule: Any = None, average: float = 0.0, **watch: Any) -> Brush:
    photo = torch.rand(1, 3, HIGH, WIDE, generator=torch.Generator().manual_seed(0))
    scene = Valley(photo, (photo,), ("sea",), (1.0,), (None,))
    objective: Any = None
    return Brush(scene, objective, rule or lbfgs(), average, Watch(**watch))


def start(size: tuple[int, int] = SMALL) -> Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))


def interrupt(brush: Brush, after: int) -> Any:
    """A progress that stops the brush as Ctrl-C does."""

    def progress(done: float, total: float, text: str) -> None:
        if len(brush.trace) == after:
            signal.raise_signal(signal.SIGINT)

    return progress


def stopped(after: int, **options: Any) -> tuple[Brush, Tensor]:
    brush = make(**options)
    brush.watch = Watch(**vars(brush.watch) | {"progress": interrupt(brush, after)})
    return brush, brush.paint(start(), STAGES)


def test_work_is_pixels_times_steps():
    assert Stage((10, 20), 3).work == 600


def test_size_after_size():
    brush = make()
    painted = brush.paint(start(), STAGES)
    assert painted.shape == (1, 3, HIGH, WIDE)
    torch.testing.assert_close(painted[0, :, 5, 5], torch.tensor([0.2, 0.5, 0.8]), atol=0.02, rtol=0)
    assert [row[2] for row in brush.trace] == [0] * 3 + [1] * 5
    for column in (0, 1):
        values = [row[column] for row in brush.trace]
        assert values == sorted(values)
    assert not brush.interrupted
    assert brush.terms == {"content/a": pytest.approx(2 * brush.raw["content/a"])}
    assert brush.trace[-1][3] == pytest.approx(brush.terms["content/a"])


def test_what_was_given_stays():
    given = start()
    make().paint(given, STAGES)
    assert torch.equal(given, start())


def test_a_picture_stays_in_its_range():
    seen: list[Tensor] = []
    brush = make(rule=adam(0.5))
    brush.watch = Watch(progress=lambda *said: seen.append(brush._image.clone()))
    painted = brush.paint(start(FULL) * 3 - 1, [Stage(FULL, 4)])
    assert all(image.min() >= 0 and image.max() <= 1 for image in [*seen, painted])


@pytest.mark.parametrize("average", [0.5, 0.9])
def test_average_by_hand(average):
    """m1 = x1, then m = a m + (1 - a) x."""
    seen: list[Tensor] = []
    brush = make(rule=adam(0.1), average=average)
    brush.watch = Watch(progress=lambda *said: seen.append(brush._image.clone()))
    mean = brush.paint(start(FULL), [Stage(FULL, 3)])
    expected = average * (average * seen[0] + (1 - average) * seen[1]) + (1 - average) * seen[2]
    torch.testing.assert_close(mean, expected)


class TestStopped:
    @pytest.mark.parametrize("after", range(1, 8))
    @pytest.mark.parametrize("rule", [lbfgs(), adam()], ids=["lbfgs", "adam"])
    def test_and_resumed_at_any_step(self, after, rule, tmp_path):
        whole = make(rule, average=0.5).paint(start(), STAGES)
        options = {"rule": rule, "average": 0.5, "state": tmp_path / "state"}
        first, halfway = stopped(after, **options)
        assert first.interrupted and len(first.trace) == after
        assert tuple(halfway.shape[2:]) == (SMALL if after <= 3 else FULL)
        second = make(**options)
        assert torch.equal(second.paint(torch.zeros(1, 3, *SMALL), STAGES), whole)
        assert len(second.trace) == 8 and not (tmp_path / "state").exists()

    def test_a_state_is_of_one_painting(self, tmp_path):
        path = tmp_path / "state"
        stopped(2, state=path, digest="one")
        with pytest.raises(CheckpointError, match="from other pictures or with other settings"):
            make(state=path, digest="other").paint(start(), STAGES)
        anew = make(state=path, digest="other", resume=False)
        assert torch.equal(anew.paint(start(), STAGES), make().paint(start(), STAGES))

    def test_ctrl_c_is_the_callers_again(self):
        heard: list[int] = []
        before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
        try:
            brush, _ = stopped(2)
            assert brush.interrupted and not heard
            signal.raise_signal(signal.SIGINT)
            assert heard == [signal.SIGINT]
        finally:
            signal.signal(signal.SIGINT, before)

    def test_a_failure_gives_ctrl_c_back_too(self):
        before = signal.getsignal(signal.SIGINT)

        def fail(*said: object) -> None:
            raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            make(progress=fail).paint(start(), STAGES)
        assert signal.getsignal(signal.SIGINT) is before

    def test_in_another_thread_signals_are_left_alone(self):
        found: list[Tensor] = []
        thread = threading.Thread(target=lambda: found.append(make().paint(start(), STAGES)))
        thread.start()
        thread.join()
        assert torch.equal(found[0], make().paint(start(), STAGES))

    def test_saved_now_and_then(self, tmp_path, monkeypatch):
        """Each time that the clock has gone on by a minute, 25 seconds a step."""
        clock = {"now": 0.0}
        monkeypatch.setattr(module.time, "perf_counter", lambda: clock["now"])
        saved: list[int] = []

        def tick(*said: object) -> None:
            clock["now"] += 25
            saved.append(torch.load(path, weights_only=True)["step"] if path.exists() else 0)

        path = tmp_path / "state"
        make(state=path, progress=tick).paint(start(FULL), [Stage(FULL, 8)])
        assert saved == [0, 0, 0, 3, 3, 3, 6, 6]  # seen before the saving of the same step


class TestWatched:
    def test_progress_is_work(self):
        seen: list[tuple[float, float]] = []
        make(progress=lambda done, total, text: seen.append((done, total))).paint(start(), STAGES)
        small, full = 12 * 16, 24 * 32
        assert [done for done, _ in seen] == pytest.approx(
            [small, 2 * small, 3 * small, *(3 * small + k * full for k in range(1, 6))]
        )
        assert {total for _, total in seen} == {3 * small + 5 * full}

    @pytest.mark.parametrize("frames", [1, 3, 100])
    def test_frames(self, frames):
        brush = make(frames=frames)
        painted = brush.paint(start(), STAGES)
        assert len(brush.frames) == min(frames, 8) == len(brush.frame_steps)
        assert brush.frame_steps == sorted(set(brush.frame_steps)) and brush.frame_steps[-1] == 8
        expected = painted[0].permute(1, 2, 0).mul(255).round().byte()
        assert np.array_equal(brush.frames[-1], expected) and {frame.size for frame in brush.frames} == {(WIDE, HIGH)}

    def test_frames_keep_their_pace_when_resumed(self, tmp_path):
        """Two of eight steps: after the half and at the end, whatever was stopped before."""
        whole = make(frames=2)
        whole.paint(start(), STAGES)
        stopped(6, state=tmp_path / "state", frames=2)
        resumed = make(state=tmp_path / "state", frames=2)
        resumed.paint(start(), STAGES)
        assert whole.frame_steps == [6, 8] and resumed.frame_steps == [8]

    def test_frames_of_large_pictures_are_smaller(self, monkeypatch):
        monkeypatch.setattr(module, "FRAME_SIDE", 20)
        brush = make(frames=2)
        brush.paint(start(), STAGES)
        assert {frame.size for frame in brush.frames} == {(20, 16)}  # no side below 16

    def test_tensorboard(self, tmp_path):
        brush = make(log_dir=tmp_path)
        brush.paint(start(), STAGES)
        log = EventAccumulator(str(tmp_path))
        log.Reload()
        for name, expected in (
            ("objective", [row[3] for row in brush.trace]),
            ("evaluations", [row[1] for row in brush.trace]),
            ("long_side", [16] * 3 + [32] * 5),
            ("weighted/content/a", [row[3] for row in brush.trace]),
        ):
            events = log.Scalars(name)
            assert [event.step for event in events] == list(range(1, 9))
            assert [event.value for event in events] == pytest.approx(expected, rel=1e-6), name
        assert [(image.step, image.width) for image in log.Images("painted")] == [(3, 16), (8, 32)]

    def test_a_resumed_log_goes_on(self, tmp_path):
        options = {"log_dir": tmp_path / "log", "state": tmp_path / "state"}
        stopped(4, **options)
        make(**options).paint(start(), STAGES)
        log = EventAccumulator(str(tmp_path / "log"))
        log.Reload()
        assert [event.step for event in log.Scalars("objective")] == list(range(1, 9))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 damaged"])
def test_damaged_state(content: bytes, tmp_path: Path):
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"state: not the state of a painting \(.+\); delete it to begin anew"):
        make(state=tmp_path / "state").paint(start(), STAGES)
    assert (tmp_path / "state").read_bytes() == content
