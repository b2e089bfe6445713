"""The network as an ONNX graph: exported, cleaned, checked against torch."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from impasto.errors import ExportError
from impasto.training.networks import TransformerNet

OPSET = 18
"""The widest reach: what the exporter gives natively and every runtime in use reads."""

# fmt: off
OPERATORS = frozenset((
    "Add", "Cast", "Clip", "Concat", "Constant", "Conv", "DepthToSpace", "Div", "Gather",
    "InstanceNormalization", "MatMul", "Mul", "Pad", "Relu", "Reshape", "Resize", "Round", "Shape", "Slice",
    "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze",
))
# fmt: on
"""Standard operators that may stand in a pack; ONNX Runtime Web runs each of them."""

PARITY_SIZES = {
    "odd": (1, 101, 77),
    "tiny": (1, 16, 16),
    "not a multiple of 4": (1, 54, 70),
    "wide": (1, 24, 200),
    "tall": (1, 200, 24),
    "batch of 3": (3, 64, 96),
}
"""Pictures (N, H, W) on which torch and ONNX Runtime must agree."""


class Paint(nn.Module):
    """A network between 8-bit pictures, all pre- and post-processing inside."""

    def __init__(self, net: TransformerNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor, style: Tensor, strength: Tensor) -> Tensor:
        """uint8 (N, H, W, 3), float (N, S) and float (N,) -> uint8 (N, H, W, 3)."""
        painted = self.net(image.permute(0, 3, 1, 2).float() / 255, style, strength)
        pixels: Tensor = (painted * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        return pixels


def export_graph(net: TransformerNet, path: Path, properties: Mapping[str, str]) -> None:
    """Write a network as one self-contained ONNX file.

    Inputs ``image`` uint8 (N, H, W, 3), ``style`` float32 (N, S), ``strength`` float32 (N,); output ``painted`` uint8
    (N, H, W, 3); N, H and W are free.

    Args:
        net: on the CPU, in float32.
        path: the file.
        properties: text kept in the file as metadata.

    Raises:
        ExportError: if the file is not of the opset or has an operator that is not on the list.
    """
    image = torch.zeros(2, 64, 96, 3, dtype=torch.uint8)
    model = trace(
        Paint(net),
        {"image": image, "style": torch.ones(2, net.styles) / net.styles, "strength": torch.ones(2)},
        ["painted"],
        ({0: "batch", 1: "height", 2: "width"}, {0: "batch"}, {0: "batch"}),
    )
    same_shape(model, "image", "painted")
    onnx.helper.set_model_props(model, dict(properties))
    check_graph(model, OPERATORS)
    onnx.save(model, str(path))


def trace(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], free: Sequence[Mapping[int, str]]
) -> onnx.ModelProto:
    """A module as a graph, without what the exporter notes of the machine.

    Args:
        module: on the CPU, in float32.
        inputs: an example of each, by name, in the module's order.
        outputs: their names.
        free: for each input the axes of any length, with the name of the length.
    """
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            str(path),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple(map(dict, free)),
        )
        model = onnx.load(str(path))
    _strip(model)
    return model


def same_shape(model: onnx.ModelProto, source: str, output: str) -> None:
    """Say that an output has an input's shape, which the exporter writes as formulas."""
    shapes = {value.name: value.type.tensor_type.shape for value in (*model.graph.input, *model.graph.output)}
    shapes[output].CopyFrom(shapes[source])


@contextlib.contextmanager
def _quiet() -> Any:
    """The exporter prints its progress and warns of its own deprecations."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes of the machine: paths and lines of source in every node."""
    del model.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    del model.graph.metadata_props[:]
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    for function in model.functions:
        del function.metadata_props[:]
        function.doc_string = ""


def check_graph(model: onnx.ModelProto, operators: Collection[str]) -> None:
    """Raise `ExportError` unless a graph is of the opset and of these operators."""
    onnx.checker.check_model(model, full_check=True)
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets.get("") != OPSET:
        raise ExportError(f"the exporter wrote opset {opsets.get('')}, expected {OPSET}: use another version of torch")
    others = sorted({node.op_type for node in model.graph.node} - set(operators))
    if others:
        raise ExportError(f"the graph has operators outside the portable list: {', '.join(others)}")


def check_parity(net: TransformerNet, path: Path, seed: int = 0) -> dict[str, Any]:
    """Compare an exported graph with the network at the sizes of `PARITY_SIZES`.

    Returns:
        For the card: the largest difference, and the share of values at most 1 of 255 apart.

    Raises:
        ExportError: where more than 0.1 % of the values are more than 1 of 255 apart, or any more than 2.
    """
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(seed)
    largest, within = 0, 1.0
    for name, (count, height, width) in PARITY_SIZES.items():
        image = smooth_noise(random, count, height, width)
        style = random.dirichlet(np.ones(net.styles), count).astype(np.float32)
        style[0] = np.eye(net.styles, dtype=np.float32)[random.integers(net.styles)]
        strength = np.linspace(1, 0.4, count, dtype=np.float32)
        inputs = {"image": image, "style": style, "strength": strength}
        (painted,) = session.run(None, inputs)
        with torch.no_grad():
            expected = Paint(net).eval()(*(torch.from_numpy(value) for value in inputs.values())).numpy()
        apart = np.abs(painted.astype(np.int16) - expected)
        share = float((apart <= 1).mean())
        if share < 0.999 or apart.max() > 2:
            raise ExportError(
                f"ONNX Runtime and torch disagree on the picture '{name}' ({count}x{height}x{width}): up to "
                f"{apart.max()} of 255 apart, {share:.3%} within 1; expected at most 2 and at least 99.9 %"
            )
        largest, within = max(largest, int(apart.max())), min(within, share)
    return {
        "largest_difference": largest,
        "share_within_1_of_255": within,
        "sizes": [list(size) for size in PARITY_SIZES.values()],
        "onnxruntime": onnxruntime.__version__,
    }


def smooth_noise(random: np.random.Generator, count: int, height: int, width: int) -> np.ndarray[Any, Any]:
    """Random pictures with structure at several scales, uint8 (N, H, W, 3)."""
    picture = np.zeros((count, height, width, 3))
    for cells in (2, 5, 11):
        coarse = random.uniform(-1, 1, (count, cells, cells, 3))
        rows, columns = np.arange(height) * cells // height, np.arange(width) * cells // width
        picture += coarse[:, rows][:, :, columns]
    picture += random.normal(0, 0.1, picture.shape)
    return np.clip(127.5 + 60 * picture, 0, 255).astype(np.uint8)
