"""What TensorBoard shows of runs, read back from their event files by TensorBoard's own code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups, metadata

from impasto.training.checkpoints import load_checkpoint
from impasto.training.data import PhotoData
from impasto.training.module import StyleTransfer
from impasto.training.train import fit

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

TRAINER: dict[str, Any] = {"accelerator": "cpu", "precision": "32-true", "log_every_n_steps": 1}
COMPARED = ["compare/content", "compare/minutes", "compare/pictures", "compare/steps", "compare/style"]


def go(folder: Path, steps: int | None, style: dict[str, float], resume: Path | None = None, **options: Any) -> Path:
    """A tiny run below ``folder/runs``; returns its checkpoint."""
    photos = folder / "photos"
    if not photos.is_dir():
        photos.mkdir()
        for i in range(11):
            picture(i, photos / f"{i:02d}.png")
        picture(100, folder / "Red Sea.png")
    sizes = {"width": 8, "blocks": 1, "head": 4}
    name = options.pop("name")
    trainer = TRAINER | options.pop("trainer", {})
    module = StyleTransfer(
        [str(folder / "Red Sea.png")], style=style, sizes=sizes, style_size=48, **({"rate": 0.01} | options)
    )
    data = PhotoData([str(photos)], size=32, batch=2, flat=0.0)
    return fit(module, data, folder / "runs" / name, steps=steps, resume=resume, trainer=trainer).checkpoint


def picture(seed: int, path: Path) -> None:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC).save(path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: of other weights, of other layers and by minutes."""
    folder = tmp_path_factory.mktemp("watched")
    go(folder, 3, {"relu1_2": 4.0, "relu2_2": 4.0}, name="style=4", trainer={"val_check_interval": 2})
    go(folder, 3, {"relu1_2": 8.0, "relu2_2": 8.0}, name="style=8")
    go(folder, None, {"relu2_2": 1.0, "relu3_3": 2.0}, name="other", minutes=0.005)
    return folder / "runs"


def table(runs: Path) -> tuple[api_pb2.Experiment, dict[str, api_pb2.SessionGroup]]:
    """The columns and the rows of the HPARAMS tab, as TensorBoard's server sends them to its page."""
    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(runs)).Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(runs))
    context = backend_context.Context(TBContext(data_provider=provider, logdir=str(runs)))
    request = RequestContext()
    from_runs = context.hparams_metadata(request, "")
    listed = context.hparams_from_data_provider(request, "", limit=None)
    columns = context.experiment_from_metadata(request, "", True, from_runs, listed)
    asked = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=100,
        include_metrics=True,
        allowed_statuses=list(api_pb2.Status.values()),
    )
    rows = list_session_groups.Handler(request, context, "", asked).run().session_groups
    return columns, {row.name: row for row in rows}


def test_the_table_has_a_row_a_run_and_puts_first_what_differs(runs: Path) -> None:
    columns, rows = table(runs)
    assert set(rows) == {"style=4", "style=8", "other"}
    differing = [info.name for info in columns.hparam_infos if info.differs]
    assert differing == ["style/relu1_2", "style/relu2_2"]
    assert [info.name for info in columns.hparam_infos][:2] == differing
    # the layers and the lengths of every run are columns, whichever run is read first
    names = {info.name for info in columns.hparam_infos}
    assert {"style/relu3_3", "steps", "minutes"} <= names
    assert {name: row.hparams["style/relu2_2"].number_value for name, row in rows.items()} == {
        "style=4": 4.0, "style=8": 8.0, "other": 1.0,
    }  # fmt: skip
    assert "style/relu1_2" not in rows["other"].hparams and "steps" not in rows["other"].hparams


def test_the_metrics_of_the_table_are_scalars_of_the_run(runs: Path) -> None:
    columns, rows = table(runs)
    named = [metric.name.tag for metric in columns.metric_infos]
    assert named[:5] == COMPARED, "the page shows the first five"
    assert {"validation/total", "validation/content/relu3_3", "validation/style/relu2_2", "validation/tv"} <= set(named)
    for name, row in rows.items():
        events = EventAccumulator(str(runs / name), size_guidance={"scalars": 0})
        events.Reload()
        shown = {value.name.tag: value.value for value in row.metric_values}
        assert set(COMPARED) <= set(shown) == set(events.Tags()["scalars"])
        last = {tag: events.Scalars(tag)[-1].value for tag in shown}
        assert shown == pytest.approx(last)
        layers = [tag for tag in shown if tag.startswith("validation/style/")]
        assert len(layers) == 2
        assert shown["compare/style"] == pytest.approx(sum(shown[tag] for tag in layers) / 2)
        assert shown["compare/content"] == pytest.approx(shown["validation/content/relu3_3"])
        assert shown["compare/pictures"] == 2 * shown["compare/steps"] > 0
        saved = load_checkpoint(runs / name / "checkpoints/last.ckpt")
        assert shown["compare/minutes"] == pytest.approx(saved["elapsed"] / 60)
        assert shown["compare/steps"] == saved["global_step"]


def test_a_run_validated_twice_has_two_points_to_compare(runs: Path) -> None:
    events = EventAccumulator(str(runs / "style=4"))
    events.Reload()
    assert [point.value for point in events.Scalars("compare/steps")] == [2, 3]
    for tag in COMPARED:  # Lightning counts a validation on the way to the step before it
        assert [point.step for point in events.Scalars(tag)] == [1, 3]
    assert [point.step for point in events.Scalars("validation/total")] == [1, 3]


def test_hyper_parameters_are_written_once_flat_and_readable(runs: Path) -> None:
    events = EventAccumulator(str(runs / "style=8"))
    events.Reload()
    found = events.summary_metadata
    assert {tag for tag in found if tag.startswith("_hparams_")} == {
        metadata.SESSION_START_INFO_TAG, metadata.SESSION_END_INFO_TAG,
    }  # fmt: skip
    assert not [tag for tag in events.Tags()["scalars"] if "hp" in tag], "Lightning's own placeholder metric"
    start = metadata.parse_session_start_info_plugin_data(
        found[metadata.SESSION_START_INFO_TAG].plugin_data.content
    ).hparams
    given = {name: value.number_value for name, value in start.items() if value.HasField("number_value")}
    expected = {
        "content/relu3_3": 1, "style/relu1_2": 8, "style/relu2_2": 8, "tv": 1, "rate": 0.01, "batch": 2, "size": 32,
        "seed": 0, "steps": 3, "style_size": 48, "sizes/width": 8, "photos": 10,
    }  # fmt: skip
    assert expected.items() <= given.items()
    texts = {name: value.string_value for name, value in start.items() if value.HasField("string_value")}
    assert {
        "network": "fast",
        "convention": "relative",
        "styles": "red_sea",
        "rows_only": "False",
    }.items() <= texts.items()
    assert not [text for text in texts.values() if "[" in text or "{" in text or str(runs.parent) in text]


def test_a_finished_run_is_a_success_and_a_stopped_one_is_not_yet(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {row.sessions[0].status for row in table(runs)[1].values()} == {api_pb2.STATUS_SUCCESS}
    style = {"relu1_2": 4.0}
    with monkeypatch.context() as patch:
        patch.setattr(StyleTransfer, "on_before_zero_grad", lambda self, _: setattr(self.trainer, "should_stop", True))
        stopped = go(tmp_path, 3, style, name="one")
    status = {name: row.sessions[0].status for name, row in table(tmp_path / "runs")[1].items()}
    assert load_checkpoint(stopped)["global_step"] == 1 and status == {"one": api_pb2.STATUS_UNKNOWN}
    go(tmp_path, 3, style, name="one", resume=stopped)
    _, rows = table(tmp_path / "runs")
    assert rows["one"].sessions[0].status == api_pb2.STATUS_SUCCESS
    assert {value.name.tag: value.value for value in rows["one"].metric_values}["compare/steps"] == 3
