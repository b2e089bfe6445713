"""The halves of `impasto.training.split` and `.regions` as ONNX graphs that share one file of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper

from impasto.errors import ExportError
from impasto.packs import APPLY, FOLDED, MEASURE, REGIONS, SHARED
from impasto.training.graph import OPERATORS, PARITY_SIZES, check_graph, same_shape, smooth_noise, trace
from impasto.training.networks import TransformerNet
from impasto.training.regions import ApplyRegions
from impasto.training.split import Apply, Measure, affine_length

MEASURE_OPERATORS = OPERATORS | {
    "And", "Expand", "Greater", "GreaterOrEqual", "Less", "Pow", "Range", "Reciprocal", "ReduceMean", "ReduceSum",
    "Where",
}  # fmt: skip
"""`measure` has more: it does not run in a browser."""

REGIONS_OPERATORS = OPERATORS | {"AveragePool", "Expand", "Min"}

SHARED_FROM = 256
"""Bytes from which on a constant is kept in the shared file."""

AFFINE = "affine"
"""The constant of the folded graph that a session is given: always outside, where it can be replaced."""

SPLIT_FILES = (MEASURE, APPLY, FOLDED, REGIONS, SHARED)


def export_split(net: TransformerNet, folder: Path) -> None:
    """Write the files of `SPLIT_FILES` into a folder.

    ``measure.onnx``: inputs and outputs of `Measure`. ``apply.onnx``: inputs ``image`` float32 (N, H, W, 3) and
    ``affine`` float32 (N, K), output ``painted`` float32 (N, H, W, 3). ``apply_folded.onnx``: the same with ``affine``
    (1, K) as a constant that is given when a session is created, which folds it into the convolutions.
    ``apply_regions.onnx``: `ApplyRegions`, of ``image``, ``affine`` (N, R, K) and ``mask`` (N, R, H, W); a graph of its
    own, so that those who paint in one style do not pay for the masks.

    Args:
        net: on the CPU, in float32.
        folder: where they go.

    Raises:
        ExportError: if a graph is not of the opset or has an operator that is not on the list.
    """
    length, picture = affine_length(net), torch.zeros(2, 64, 96, 3)
    sizes = {0: "batch", 1: "height", 2: "width"}
    apply = trace(Apply(net), {"image": picture, AFFINE: torch.ones(2, length)}, ["painted"], (sizes, {0: "batch"}))
    same_shape(apply, "image", "painted")
    inputs = {
        "image": picture,
        "style": torch.ones(1, net.styles) / net.styles,
        "strength": torch.ones(1),
        "given": torch.ones(1, length),
        "known": torch.zeros(1, dtype=torch.int64),
        "margins": torch.zeros(2, 4, dtype=torch.int64),
    }
    crops = {0: "crops", 1: "height", 2: "width"}
    measure = trace(Measure(net), inputs, [AFFINE, "moments"], (crops, {}, {}, {}, {}, {0: "crops"}))
    folded = onnx.ModelProto()
    folded.CopyFrom(apply)
    del folded.graph.input[1]
    folded.graph.initializer.append(numpy_helper.from_array(np.zeros((1, length), np.float32), AFFINE))
    check_graph(apply, OPERATORS | {"Expand"})
    check_graph(folded, OPERATORS | {"Expand"})
    check_graph(measure, MEASURE_OPERATORS)
    regions = _regions_graph(net)
    weights = bytearray()
    known: dict[bytes, int] = {}
    for name, model in ((MEASURE, measure), (APPLY, apply), (FOLDED, folded), (REGIONS, regions)):
        _share(model, weights, known)
        (folder / name).write_bytes(model.SerializeToString())
    (folder / SHARED).write_bytes(weights)


def _regions_graph(net: TransformerNet) -> onnx.ModelProto:
    inputs = {
        "image": torch.zeros(2, 64, 96, 3),
        AFFINE: torch.ones(2, 3, affine_length(net)),
        "mask": torch.ones(2, 3, 64, 96) / 3,
    }
    sizes = {0: "batch", 1: "height", 2: "width"}
    masks = {0: "batch", 1: "regions", 2: "height", 3: "width"}
    model = trace(ApplyRegions(net), inputs, ["painted"], (sizes, {0: "batch", 1: "regions"}, masks))
    same_shape(model, "image", "painted")
    check_graph(model, REGIONS_OPERATORS)
    return model


def _share(model: onnx.ModelProto, weights: bytearray, known: dict[bytes, int]) -> None:
    """Move a graph's larger constants to the end of the shared bytes, those that are there already excepted."""
    for constant in model.graph.initializer:
        data = constant.raw_data
        if len(data) < SHARED_FROM and constant.name != AFFINE:
            continue
        if data not in known:
            weights.extend(bytes(-len(weights) % 64))  # aligned, as the format recommends
            known[data] = len(weights)
            weights.extend(data)
        constant.ClearField("raw_data")
        constant.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", SHARED), ("offset", known[data]), ("length", len(data))):
            constant.external_data.add(key=key, value=str(value))


def check_split(net: TransformerNet, folder: Path, seed: int = 0) -> dict[str, Any]:
    """Compare ``apply(measure(x))``, as it is, folded and in two regions, with the network at `PARITY_SIZES`.

    Returns:
        For the card: the largest difference in levels of 255.

    Raises:
        ExportError: where any value is more than 1 of 255 apart.
    """
    length = affine_length(net)
    measure, apply, regions = (_session(folder / name) for name in (MEASURE, APPLY, REGIONS))
    nothing = {
        "given": np.zeros((1, length), np.float32),
        "known": np.zeros(1, np.int64),
        "margins": np.zeros((1, 4), np.int64),
    }
    random = np.random.default_rng(seed)
    largest = 0.0
    for name, (_, height, width) in PARITY_SIZES.items():
        image = smooth_noise(random, 1, height, width).astype(np.float32) / 255
        style = random.dirichlet(np.ones(net.styles), 1).astype(np.float32)
        strength = random.uniform(0.3, 1, 1).astype(np.float32)
        with torch.no_grad():
            picture = torch.from_numpy(image).permute(0, 3, 1, 2)
            painted = net(picture, torch.from_numpy(style), torch.from_numpy(strength))
        expected = painted.permute(0, 2, 3, 1).numpy()
        (affine,) = measure.run([AFFINE], {"image": image, "style": style, "strength": strength, **nothing})
        (applied,) = apply.run(None, {"image": image, AFFINE: affine})
        (folded,) = _session(folder / FOLDED, affine).run(None, {"image": image})
        mask = random.uniform(0, 1, (1, 1, height, width)).astype(np.float32)
        masks = np.concatenate([mask, 1 - mask], 1)  # of two regions of one style
        (parted,) = regions.run(None, {"image": image, AFFINE: np.stack([affine, affine], 1), "mask": masks})
        for how, got in (("apply", applied), ("folded", folded), ("regions", parted)):
            apart = float(np.abs(got - expected).max() * 255)
            if not apart <= 1:
                raise ExportError(
                    f"{how}(measure(x)) and the network disagree on the picture '{name}' ({height}x{width}): up to "
                    f"{apart:.2f} of 255 apart; expected at most 1"
                )
            largest = max(largest, apart)
    return {"largest_difference": largest, "onnxruntime": onnxruntime.__version__}


def _session(path: Path, affine: np.ndarray[Any, Any] | None = None) -> onnxruntime.InferenceSession:
    """A session of a graph beside its shared file, with scales and shifts to fold if they are given."""
    options = onnxruntime.SessionOptions()
    if affine is not None:
        options.add_external_initializers([AFFINE], [onnxruntime.OrtValue.ortvalue_from_numpy(affine)])
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
