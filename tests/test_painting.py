"""The function `paint`, on pictures so small that a painting takes a fraction of a second."""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import os
import signal
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_pack
from PIL import Image
from reference.colours import YIQ
from reference.vgg import embedded_weights, forward
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from impasto.errors import CheckpointError, Interrupted, PictureError
from impasto.losses import VGGFeatures
from impasto.visualization import Result, brush, paint, painting
from impasto.visualization.painting import PaintInterrupted
from impasto.visualization.scene import to_tensor
from impasto.visualization.sheets import layer_sheet, style_weight_sheet

pytestmark = pytest.mark.usefixtures("one_thread_one_seed", "one_network")

HIGH, WIDE = 36, 48
QUICK = {
    "size": WIDE,
    "smallest": WIDE,
    "steps": 3,
    "precision": "float32",
    "content_layers": {"relu2_2": 1.0},
    "style_layers": {"relu1_1": 1.0, "relu2_1": 1.0},
}


def draw(height: int, width: int, seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


PHOTO, SEA, SKY = draw(HIGH, WIDE, 0), draw(HIGH, WIDE, 1), draw(60, 40, 2)
LEFT, WHITE = np.zeros((HIGH, WIDE, 3), np.uint8), np.full((HIGH, WIDE, 3), 255, np.uint8)
LEFT[:, : WIDE // 2] = 255


@pytest.fixture(scope="module", autouse=True)
def one_network():
    """The loss network is read once for all paintings."""
    known = functools.cache(VGGFeatures)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(painting, "VGGFeatures", known)
        yield


@pytest.fixture(scope="module")
def plain() -> Result:
    return make()


def make(photo: Any = PHOTO, styles: Any = SEA, **options: Any) -> Result:
    return paint(photo, styles, **QUICK | options)


def pixels(result: Result) -> np.ndarray:
    return np.asarray(result.images["painted"]).astype(int)


def same(left: Result, right: Result) -> bool:
    return bool(np.array_equal(pixels(left), pixels(right)))


def apart(left: Result, right: Result) -> float:
    """Mean difference of two pictures, in steps of 1/255."""
    return float(np.abs(pixels(left) - pixels(right)).mean())


class StopAfter:
    """Presses Ctrl-C after some steps."""

    def __init__(self, steps: int, times: int = 1) -> None:
        self.left, self.times = steps, times

    def __call__(self, done: float, total: float, text: str) -> None:
        self.left -= 1
        if self.left == 0:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


def stopped(after: int, **options: Any) -> Result:
    with pytest.raises(PaintInterrupted) as caught:
        make(progress=StopAfter(after), **options)
    return caught.value.result


class TestResult:
    def test_what_is_in_it(self, plain):
        assert list(plain.images) == ["painted"] and plain.images["painted"].size == (WIDE, HIGH)
        data = plain.data
        assert data["size"] == [HIGH, WIDE] and data["seconds"] > 0
        assert data["evaluations"] >= 3 == len(data["trace"])
        assert set(data["terms"]) == {"content/relu2_2", "style/relu1_1", "style/relu2_1"} == set(data["raw"])
        assert sum(data["terms"].values()) == pytest.approx(data["objective"], rel=1e-5)
        assert f"{WIDE} x {HIGH} pixels in the style of style_1" in plain.caption
        assert not plain.frames

    def test_settings_are_the_arguments_that_make_the_picture(self, plain):
        names = set(inspect.signature(paint).parameters)
        assert set(plain.data["settings"]) <= names
        assert plain.data["settings"]["style_layers"] == QUICK["style_layers"]
        assert {"size", "seed", "steps", "convention", "init"} <= set(plain.data["settings"])
        assert not {"content", "styles", "progress", "state", "resume", "device"} & set(plain.data["settings"])

    def test_every_step_of_lbfgs_lowers_the_objective(self, plain):
        losses = [row[3] for row in plain.data["trace"]]
        assert all(later < earlier for earlier, later in itertools.pairwise(losses))
        assert not same(plain, make(steps=1))

    def test_the_same_again(self, plain):
        assert same(plain, make())

    def test_the_arguments_stay_as_they_are(self):
        photo, painting_, layers = PHOTO.copy(), SEA.copy(), {"relu1_1": 1.0}
        make(photo, painting_, style_layers=layers, steps=1)
        assert np.array_equal(photo, PHOTO) and np.array_equal(painting_, SEA) and layers == {"relu1_1": 1.0}

    def test_files_and_their_names(self, plain, tmp_path):
        for name, rgb in (("photo", PHOTO), ("sea", SEA)):
            Image.fromarray(rgb).save(tmp_path / f"{name}.png")
        found = make(tmp_path / "photo.png", str(tmp_path / "sea.png"))
        assert same(found, plain) and "in the style of sea:" in found.caption


class TestSize:
    def test_none_is_the_photos(self):
        assert make(draw(40, 33, 0), size=None, smallest=64, steps=1).images["painted"].size == (33, 40)

    def test_coarse_sizes_come_first(self):
        """From at least 24 pixels, in the photo's proportion; the full size last, with all its steps."""
        seen: list[str] = []
        result = make(smallest=24, steps=4, progress=lambda done, total, text: seen.append(text.split(",")[0]))
        sizes = [tuple(map(int, text.split(" x "))) for text in seen]
        assert sizes == sorted(sizes) and sizes[-4:] == [(WIDE, HIGH)] * 4
        assert 24 <= sizes[0][0] <= sizes[-5][0] < WIDE
        assert all(abs(high - wide * HIGH / WIDE) <= 0.5 for wide, high in sizes)
        stages = [row[2] for row in result.data["trace"]]
        assert stages == sorted(stages) and stages.count(stages[-1]) == 4
        assert result.images["painted"].size == (WIDE, HIGH)

    def test_style_scale_is_the_paintings_size(self, plain):
        """At half the size it is the painting of half the size, but for rounding to 8 bits; that is another style."""
        half = make(styles=Image.fromarray(SEA).resize((24, 18), Image.Resampling.BICUBIC))
        scaled = make(style_scale=0.5)
        assert apart(half, scaled) < 1 < apart(plain, scaled)


class TestStyles:
    def test_only_the_proportion_of_weights_counts(self):
        assert same(make(styles=[SEA, SKY], weights=[1, 3]), make(styles=[SEA, SKY], weights=[0.5, 1.5]))

    def test_weights_none_are_equal(self):
        assert same(make(styles=[SEA, SKY]), make(styles=(SEA, SKY), weights=[2, 2]))

    def test_weight_zero_is_no_style(self, plain):
        assert apart(make(styles=[SEA, SKY], weights=[1, 0]), plain) < 0.1 < apart(make(styles=[SEA, SKY]), plain)

    def test_terms_of_each_by_name(self):
        terms = make(styles=[SEA, SKY], weights=[1, 3], steps=1).data
        for layer in QUICK["style_layers"]:
            for name, weight in (("style_1", 0.25), ("style_2", 0.75)):
                key = f"style/{name}/{layer}"
                assert terms["terms"][key] == pytest.approx(weight * terms["raw"][key])

    def test_style_weight_is_a_factor_on_the_layers(self):
        doubled = {name: 2 * weight for name, weight in QUICK["style_layers"].items()}
        assert same(make(style_weight=2.0), make(style_layers=doubled))

    def test_without_style_the_photo_stays(self):
        assert np.array_equal(pixels(make(style_layers={})), PHOTO)

    def test_total_variation_smooths(self, plain):
        def roughness(result: Result) -> float:
            return float(sum((np.diff(pixels(result), axis=axis) ** 2).sum() for axis in (0, 1)))

        smooth = make(tv=30.0)
        assert smooth.data["terms"]["tv"] == pytest.approx(30 * smooth.data["raw"]["tv"])
        assert roughness(smooth) < 0.8 * roughness(plain)


class TestMasks:
    def test_white_is_none(self, plain):
        white = make(masks=[WHITE])
        assert apart(white, plain) < 0.1
        assert white.data["objective"] == pytest.approx(plain.data["objective"], rel=1e-4)
        assert same(make(masks=[None]), plain)

    @pytest.mark.parametrize("options", [{}, {"color": "luminance"}, {"smallest": 24}, {"average": 0.5}])
    def test_where_none_is_white_the_photo_stays_to_the_bit(self, options):
        found = pixels(make(masks=[LEFT], **options))
        assert np.array_equal(found[:, WIDE // 2 + 4 :], PHOTO[:, WIDE // 2 + 4 :])
        assert np.abs(found - PHOTO)[:, : WIDE // 2 - 4].mean() > 2

    def test_halves_are_each_of_their_style(self):
        """With the sea everywhere the left half is as with the sea on the left, and so the right."""
        both = make(styles=[SEA, SKY], masks=[LEFT, WHITE - LEFT], steps=6)
        assert both.data["terms"]["style/style_1/relu1_1"] == pytest.approx(
            both.data["raw"]["style/style_1/relu1_1"] / 2
        )
        sea, sky = (pixels(make(styles=style, steps=6)) for style in (SEA, SKY))
        found, left, right = pixels(both), np.s_[:, : WIDE // 2 - 4], np.s_[:, WIDE // 2 + 4 :]
        for half, own, other in ((left, sea, sky), (right, sky, sea)):
            assert np.abs(found[half] - own[half]).mean() < np.abs(found[half] - other[half]).mean()


class TestColours:
    def test_luminance_keeps_the_chroma(self):
        """Of a photo whose colours have room for another luma: I and Q are the photo's, but for rounding; Y is not."""
        photo = (100 + 0.15 * PHOTO).astype(np.uint8)
        painted = pixels(make(photo, color="luminance", style_weight=30.0, steps=6))
        found, before = painted @ YIQ.T, photo @ YIQ.T
        np.testing.assert_allclose(found[..., 1:], before[..., 1:], atol=1.0)
        assert np.abs(found[..., 0] - before[..., 0]).mean() > 1

    def test_match_recolours_the_style(self):
        """A red painting no longer reddens a blue photo."""
        photo, red = PHOTO // 4 + np.array([0, 40, 150], np.uint8), SEA // 4 + np.array([150, 40, 0], np.uint8)
        plain, matched = (pixels(make(photo, red, color=color)).mean((0, 1)) for color in ("style", "match"))
        assert plain[0] - photo[..., 0].mean() > 3 * abs(matched[0] - photo[..., 0].mean())


class TestInit:
    def test_content(self, plain):
        assert same(plain, make(init="content"))
        assert same(plain, make(init="content", seed=1)), "nothing is drawn"

    @pytest.mark.parametrize("init", ["noise", "style"])
    def test_noise_is_of_the_seed(self, init, plain):
        first = make(init=init)
        assert same(first, make(init=init)) and not same(first, make(init=init, seed=1))
        assert apart(first, plain) > 10

    def test_style_noise_has_the_paintings_colours(self):
        """With next to no step taken: a dark red painting is begun in dark red, uniform noise in grey."""
        red = SEA // 8 + np.array([100, 10, 10], np.uint8)
        options = {"optimizer": "adam", "steps": 1, "styles": red}
        styled, noise = (pixels(make(init=init, **options)).mean((0, 1)) for init in ("style", "noise"))
        np.testing.assert_allclose(styled, red.mean((0, 1)), atol=6)
        np.testing.assert_allclose(noise, 127.5, atol=6)

    def test_a_packs_picture_is_polished(self, tmp_path):
        """The tiny pack inverts: one small step of Adam from the inverted photo; at the full size only."""
        seen: list[str] = []
        pack = write_pack(tmp_path, "tiny")
        polish = {"init": f"{pack}/invert", "optimizer": "adam", "steps": 1, "smallest": 24}
        found = make(**polish, progress=lambda *said: seen.append(said[2]))
        assert len(seen) == 1
        assert np.abs(pixels(found) - (255 - PHOTO.astype(int))).max() <= math.ceil(0.02 * 255)

    def test_unknown(self, no_packs):
        with pytest.raises(ValueError, match="init: .*noize.*; or one of: content, noise, style"):
            make(init="noize")


class TestOptimizers:
    def test_adam_evaluates_once_a_step(self, plain):
        found = make(optimizer="adam", steps=8)
        losses = [row[3] for row in found.data["trace"]]
        assert losses[-1] < losses[0] and [row[1] for row in found.data["trace"]][:8] == list(range(1, 9))
        assert not same(found, plain)

    def test_adams_first_step_is_its_rate(self):
        """Each value moves by 0.02 against its gradient, or stays where that would leave the range."""
        found = pixels(make(optimizer="adam", steps=1)) - PHOTO
        assert set(np.unique(np.abs(found))) <= {0, 1, 2, 3, 4, 5, 6} and np.median(np.abs(found)) == 5

    def test_average_is_of_the_pictures_of_all_steps(self):
        """x1, then 0.75 x1 + 0.25 x2; without the average x2. Adam is the same either way."""
        first, second, mean = (
            pixels(make(optimizer="adam", steps=steps, average=average))
            for steps, average in ((1, 0.0), (2, 0.0), (2, 0.75))
        )
        np.testing.assert_allclose(mean, 0.75 * first + 0.25 * second, atol=1.01)
        assert np.abs(first - second).max() > 4


class TestConventions:
    @pytest.mark.parametrize("pooling", ["max", "avg"])
    def test_gatys_to_the_letter(self, pooling, tmp_path):
        """Equations 1 to 7 in float64 on features in float64, of the picture as it was before rounding."""
        options = {
            "convention": "gatys",
            "content_layers": {"relu2_1": 0.5},
            "style_layers": {"relu1_1": 2.0, "relu2_1": 1.0},
            "style_weight": 3.0,
            "pooling": pooling,
        }
        stopped(2, state=tmp_path / "state", **options)
        state = torch.load(tmp_path / "state", weights_only=True)
        weights = embedded_weights()
        painted, photo, sea = (
            forward(picture.numpy(), weights, pooling, last="relu2_1")
            for picture in (state["image"], to_tensor(PHOTO), to_tensor(SEA))
        )
        expected = 0.5 * ((painted["relu2_1"] - photo["relu2_1"]) ** 2).sum() / 2
        for layer, weight in options["style_layers"].items():
            (ours, theirs) = (maps[layer][0].reshape(maps[layer].shape[1], -1) for maps in (painted, sea))
            count, positions = ours.shape
            distance = ((ours @ ours.T - theirs @ theirs.T) ** 2).sum()
            expected += 3.0 * weight * distance / (4 * count**2 * positions**2)
        assert sum(state["terms"].values()) == pytest.approx(expected, rel=1e-4)

    def test_wasserstein(self, plain):
        found = make(statistic="wasserstein")
        losses = [row[3] for row in found.data["trace"]]
        assert losses[-1] < losses[0] and not same(found, plain)

    def test_bf16_is_near_float32(self, plain):
        half = make(precision="bf16")
        assert 0 < apart(half, plain) < 3
        assert half.data["objective"] == pytest.approx(plain.data["objective"], rel=0.1)


class TestMemory:
    @pytest.fixture
    def tiles(self, monkeypatch) -> list[int | None]:
        """The tiles that were painted with."""
        seen: list[int | None] = []
        objective = painting.PaintObjective

        def record(*given: Any, **options: Any) -> Any:
            seen.append(options["tile"])
            return objective(*given, **options)

        monkeypatch.setattr(painting, "PaintObjective", record)
        return seen

    def test_parts_are_the_whole(self, plain, tiles):
        """As little as is accepted: many parts, and the same picture but for the order of sums in float32."""
        low, high = 0.25, 16.0
        while high - low > 2e-4:
            middle = (low + high) / 2
            try:
                make(max_memory=middle, steps=1)
                high = middle
            except ValueError:
                low = middle
        tiles.clear()
        found = make(max_memory=high)
        assert tiles[0] is not None and tiles[0] < HIGH
        assert apart(found, plain) < 0.1
        assert found.data["objective"] == pytest.approx(plain.data["objective"], rel=1e-4)

    def test_enough_is_the_whole(self, plain, tiles):
        assert same(make(max_memory=16.0), plain) and tiles == [None]

    def test_total_variation_alone_needs_no_parts(self, tiles):
        make(max_memory=2.0, content_layers={}, style_layers={}, tv=1.0)
        assert tiles == [None]

    def test_too_little_says_how_much(self):
        message = rf"max_memory: got 0.25 GiB, expected at least \d\.\d+ for {WIDE} x {HIGH} pixels; or paint smaller"
        with pytest.raises(ValueError, match=message) as caught:
            make(max_memory=0.25)
        make(max_memory=float(str(caught.value).split("at least ")[1].split()[0]), steps=1)


class TestStops:
    def test_result_is_what_there_is(self, plain):
        """A real Ctrl-C, after the first of three steps."""
        before = signal.getsignal(signal.SIGINT)
        found = stopped(1)
        assert signal.getsignal(signal.SIGINT) is before
        assert same(found, make(steps=1)) and not same(found, plain)
        assert len(found.data["trace"]) == 1

    def test_it_is_an_interruption(self):
        with pytest.raises(Interrupted, match="stopped after 2 steps"):
            make(progress=StopAfter(2))

    def test_a_second_one_ends_it_at_once(self, tmp_path):
        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            make(progress=StopAfter(1, times=2))
        assert signal.getsignal(signal.SIGINT) is before

    @pytest.mark.parametrize("after", ["the first step", "the coarse size", "the last step but one"])
    @pytest.mark.parametrize(
        "options", [{}, {"optimizer": "adam", "average": 0.5}, {"init": "noise", "masks": [LEFT], "color": "luminance"}]
    )
    def test_resumed_is_as_if_never_stopped(self, after, options, tmp_path):
        state = tmp_path / "deep" / "state"
        options = {"smallest": 33, "steps": 3, "state": state} | options
        whole = make(**options)
        assert not state.exists()
        count = len(whole.data["trace"])
        stopped(
            {"the first step": 1, "the coarse size": count - 3, "the last step but one": count - 1}[after], **options
        )
        assert state.exists()
        resumed = make(**options)
        assert not state.exists(), "gone when the painting is done"
        assert same(resumed, whole)
        assert [row[2:] for row in resumed.data["trace"]] == [row[2:] for row in whole.data["trace"]]
        seconds = [row[0] for row in resumed.data["trace"]]
        assert seconds == sorted(seconds)

    def test_stopped_twice(self, tmp_path):
        options = {"steps": 5, "state": tmp_path / "state"}
        stopped(1, **options)
        stopped(2, **options)
        assert same(make(**options), make(steps=5))

    def test_stopped_in_its_last_step(self, plain, tmp_path):
        found = stopped(3, state=tmp_path / "state")
        assert same(found, plain)
        assert same(make(state=tmp_path / "state"), plain)

    def test_not_resumed_begins_anew(self, plain, tmp_path):
        state, seen = tmp_path / "state", []
        stopped(2, state=state)
        found = make(state=state, resume=False, progress=lambda *said: seen.append(said))
        assert same(found, plain) and len(seen) == 3 and not state.exists()

    def test_kept_every_minute(self, tmp_path, monkeypatch):
        """A painting that dies without a word has its last state."""
        monkeypatch.setattr(brush, "SAVE_SECONDS", 0.0)

        def die(done: float, total: float, text: str) -> None:
            if done > total / 2:
                raise RuntimeError("the power is gone")

        with pytest.raises(RuntimeError, match="power"):
            make(state=tmp_path / "state", progress=die)
        assert torch.load(tmp_path / "state", weights_only=True)["step"] == 1
        assert same(make(state=tmp_path / "state"), make())

    @pytest.mark.parametrize(
        "other",
        [{"style_weight": 2.0}, {"photo": SEA}, {"styles": SKY}, {"masks": [LEFT]}, {"seed": 1}, {"color": "match"}],
    )
    def test_state_of_another_painting(self, other, tmp_path):
        stopped(1, state=tmp_path / "state")
        kept = (tmp_path / "state").read_bytes()
        with pytest.raises(CheckpointError, match="state: the state of a painting from other pictures .* delete it"):
            make(state=tmp_path / "state", **other)
        assert (tmp_path / "state").read_bytes() == kept

    def test_where_it_is_painted_makes_no_other_painting(self, plain, tmp_path):
        stopped(1, state=tmp_path / "state")
        options = {"device": "cpu", "frames": 2, "max_memory": 16.0, "log_dir": tmp_path / "log"}
        assert same(make(state=tmp_path / "state", **options), plain)

    @pytest.mark.parametrize("content", [b"", b"not a state", None])
    def test_state_that_is_none(self, content, tmp_path):
        if content is None:
            torch.save({"weights": torch.zeros(3)}, tmp_path / "state")
        else:
            (tmp_path / "state").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"state: not the state of a painting \(.*\); delete it to begin"):
            make(state=tmp_path / "state")


class TestWatching:
    def test_progress_grows_to_its_total(self):
        seen: list[tuple[float, float, str]] = []
        make(smallest=24, progress=lambda *said: seen.append(said))
        done = [said[0] for said in seen]
        assert all(earlier < later for earlier, later in itertools.pairwise(done))
        assert {said[1] for said in seen} == {done[-1]} and done[0] > 0
        assert seen[-1][2].startswith(f"{WIDE} x {HIGH}, objective ")

    def test_frames_end_with_the_picture(self):
        found = make(steps=6, frames=3)
        assert len(found.frames) == 3 and same(Result({"painted": found.frames[-1]}), found)
        assert {frame.size for frame in found.frames} == {(WIDE, HIGH)}

    def test_frames_one_a_step_at_most(self):
        found = make(smallest=24, frames=50)
        assert len(found.frames) == len(found.data["trace"])
        assert {frame.size for frame in found.frames} == {(WIDE, HIGH)}, "coarse ones enlarged"

    def test_tensorboard_shows_terms_and_picture(self, tmp_path):
        found = make(log_dir=tmp_path / "log")
        log = EventAccumulator(str(tmp_path / "log"), size_guidance={"images": 0, "scalars": 0})
        log.Reload()
        logged = [event.value for event in log.Scalars("objective")]
        assert logged == pytest.approx([row[3] for row in found.data["trace"]], rel=1e-6)
        assert [event.step for event in log.Scalars("objective")] == [1, 2, 3]
        last = {name: log.Scalars(f"weighted/{name}")[-1].value for name in found.data["terms"]}
        assert sum(last.values()) == pytest.approx(logged[-1], rel=1e-5)
        image = log.Images("painted")[-1]
        assert (image.width, image.height) == (WIDE, HIGH)


class TestSheets:
    def test_of_style_weights(self):
        found = style_weight_sheet(PHOTO, SEA, [0.5, 2.0], **QUICK | {"steps": 1})
        assert list(found.images) == ["sheet"] and found.images["sheet"].width > 2 * WIDE
        ((light, heavy),) = found.data["pictures"]
        assert (light["settings"]["style_weight"], heavy["settings"]["style_weight"]) == (0.5, 2.0)
        whole = np.asarray(found.images["sheet"]).astype(int)
        painted = pixels(make(style_weight=2.0, steps=1))
        windows = np.lib.stride_tricks.sliding_window_view(whole, painted.shape)[:, :, 0]
        assert (windows[:, :, 0, 0] == painted[0, 0]).all(-1).any()
        assert any(
            np.array_equal(window, painted) for window in windows[(windows[:, :, 0, 0] == painted[0, 0]).all(-1)]
        )

    def test_by_layer(self, tmp_path):
        options = {name: value for name, value in QUICK.items() if not name.endswith("layers")} | {"steps": 1}
        seen: list[tuple[float, float, str]] = []
        found = layer_sheet(
            PHOTO,
            SEA,
            ["relu1_2", "relu2_2"],
            {"relu1_1": 1.0, "relu2_1": 0.5},
            log_dir=tmp_path,
            progress=lambda *said: seen.append(said),
            **options,
        )
        settings = [[picture["settings"] for picture in row] for row in found.data["pictures"]]
        assert [[one["content_layers"] for one in row] for row in settings] == [
            [{"relu1_2": 1.0}] * 2,
            [{"relu2_2": 1.0}] * 2,
        ]
        assert [one["style_layers"] for one in settings[1]] == [{"relu1_1": 1.0}, {"relu1_1": 1.0, "relu2_1": 0.5}]
        assert [said[0] for said in seen] == pytest.approx([1, 2, 3, 4]) and {said[1] for said in seen} == {4}
        assert seen[2][2].startswith("picture 3 of 4: ")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "3", "4"], "a run in TensorBoard for each"

    def test_stopped_shows_what_there_is(self):
        """In the first step of the second of three."""
        with pytest.raises(PaintInterrupted, match="picture 2 of 3: stopped after 1 steps") as caught:
            style_weight_sheet(PHOTO, SEA, [0.5, 1.0, 2.0], **QUICK, progress=StopAfter(4))
        assert len(caught.value.result.data["pictures"][0]) == 2
        assert caught.value.result.images["sheet"].width > 2 * WIDE

    def test_wrong_calls(self):
        with pytest.raises(ValueError, match="style_weight_sheet: got no weights"):
            style_weight_sheet(PHOTO, SEA, [])
        with pytest.raises(ValueError, match="layer_sheet: got no content or no style layers"):
            layer_sheet(PHOTO, SEA, [])
        with pytest.raises(ValueError, match="a sheet: got frames, state, which is for one picture; use `paint`"):
            style_weight_sheet(PHOTO, SEA, [1.0], state="state", frames=3)


class TestWrongCalls:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"optimizer": "sgd"}, "unknown optimizer 'sgd'.* Expected one of: adam, lbfgs"),
            ({"precision": "fp16"}, "unknown precision 'fp16'.* Expected one of: auto, bf16, float32"),
            ({"color": "photo"}, "unknown color 'photo'.* Expected one of: luminance, match, style"),
            ({"convention": "gatis"}, "unknown convention 'gatis'. Did you mean 'gatys'.* gatys, johnson, relative"),
            ({"statistic": "mean"}, "unknown statistic 'mean'.* Expected one of: gram, wasserstein"),
            ({"network": "vgg13"}, "unknown architecture 'vgg13'.* Expected one of: vgg16, vgg19"),
            ({"pooling": "min"}, "unknown pooling 'min'.* Expected one of: avg, max"),
            ({"content_layers": {"relu9_1": 1.0}}, "unknown vgg19 layer 'relu9_1'"),
            ({"style_layers": {"relu2_9": 1.0}}, "unknown vgg19 layer 'relu2_9'.* relu2_2"),
            ({"statistic": "wasserstein", "convention": "gatys"}, "which is of Gram losses; use 'relative'"),
            ({"content_layers": {}, "style_layers": {}}, "got no term"),
            ({"steps": 0}, "got steps 0, .* expected steps >= 1"),
            ({"smallest": 15}, "smallest 15, .* smallest >= 16"),
            ({"average": 1.0}, "average 1.0, .* 0 <= average < 1"),
            ({"frames": -1}, "frames -1; .* frames >= 0"),
            ({"tv": -1.0}, "tv -1.0; expected finite weights from 0 up"),
            ({"style_weight": math.nan}, "style weight nan"),
            ({"style_layers": {"relu1_1": math.inf}}, "expected finite weights"),
            ({"device": "tpu"}, "device: got 'tpu', expected auto or cpu"),
            ({"size": 8}, "got size 8"),
            ({"styles": []}, "got 0 paintings"),
            ({"max_memory": 2.0, "style_layers": {"relu2_9": 1.0}}, "unknown vgg19 layer 'relu2_9'"),
            ({"max_memory": math.nan}, "max_memory: got nan GiB, expected at least"),
            ({"weights": [1, 2]}, r"got weights \[1, 2\] for 1 paintings"),
        ],
    )
    def test_say_what_was_expected(self, options, message):
        with pytest.raises(ValueError, match=message):
            make(**options)

    def test_pictures(self, tmp_path):
        with pytest.raises(PictureError, match="no.jpg: cannot be read: No such file"):
            make(tmp_path / "no.jpg")
        with pytest.raises(PictureError, match="no.jpg: cannot be read: No such file"):
            make(styles=[SEA, tmp_path / "no.jpg"])
        with pytest.raises(PictureError, match="expected a uint8 array"):
            make(PHOTO / 255)
