"""The model repository for Triton, read with Triton's own message types."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnxruntime
import pytest
from click.testing import CliRunner
from google.protobuf import text_format

from impasto.cli import main
from impasto.errors import PackError, WrongCall
from impasto.packs import PAINT, Pack
from impasto.triton import export_triton

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tritonclient.grpc import model_config_pb2

KINDS = {"tensor(uint8)": model_config_pb2.TYPE_UINT8, "tensor(float)": model_config_pb2.TYPE_FP32}


def test_the_configuration_fits_the_graph(tiny: Path, tmp_path: Path) -> None:
    model = export_triton(Pack.load(tiny), tmp_path / "repository")
    assert sorted(str(path.relative_to(model)) for path in model.rglob("*")) == ["1", "1/model.onnx", "config.pbtxt"]
    assert (model / "1/model.onnx").read_bytes() == (tiny / PAINT).read_bytes()
    config = text_format.Parse((model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("tiny", "onnxruntime", 8)
    session = onnxruntime.InferenceSession(model / "1/model.onnx", providers=["CPUExecutionProvider"])
    for stated, real in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [value.name for value in stated] == [value.name for value in real]
        for value, node in zip(stated, real, strict=True):
            assert value.data_type == KINDS[node.type]
            without_batch = list(value.reshape.shape) if value.HasField("reshape") else list(value.dims)
            sizes = [side if isinstance(side, int) else -1 for side in node.shape[1:]]
            assert without_batch == sizes, value.name
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 32
    for warm_up in config.model_warmup:
        assert set(warm_up.inputs) == {"image", "style", "strength"}


def test_versions_stand_beside_each_other(tiny: Path, tmp_path: Path) -> None:
    export_triton(Pack.load(tiny), tmp_path)
    with pytest.raises(WrongCall, match="version 1 is there"):
        export_triton(Pack.load(tiny), tmp_path)
    export_triton(Pack.load(tiny), tmp_path, version=2)
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == ["1", "2", "config.pbtxt"]
    with pytest.raises(WrongCall, match="from 1 up"):
        export_triton(Pack.load(tiny), tmp_path, version=0)


def test_a_pack_that_is_altered_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    pack = Pack.load(tiny)
    (tiny / PAINT).write_bytes(b"other")
    with pytest.raises(PackError, match="altered"):
        export_triton(pack, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_the_command(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    result = CliRunner().invoke(main, ["export", "tiny", "--triton", str(tmp_path / "repository")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "repository/tiny/1/model.onnx").is_file()
    for wrong in (["export", "tiny"], ["export", "tiny", "--triton", "x", "--name", "other"]):
        result = CliRunner().invoke(main, wrong)
        assert result.exit_code == 2 and "give -o PACK" in result.stderr
