"""Halves for the tiny pack, known by hand: ``apply`` draws every pixel towards the mean of all that was measured.

A row of scales and shifts is (red, green, blue, strength); painted = image + strength * (mean - image). With regions,
mean and strength are those of the regions, weighted by their masks.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from impasto.card import load_card, save_card
from impasto.packs import APPLY, FOLDED, MEASURE, REGIONS, SHARED, sha256_of

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
MIX = [
    helper.make_node("Split", ["affine", "lengths"], ["colour", "s"], axis=1),
    helper.make_node("Reshape", ["colour", "to_colour"], ["mean"]),
    helper.make_node("Reshape", ["s", "to_one"], ["strength"]),
    helper.make_node("Sub", ["mean", "image"], ["change"]),
    helper.make_node("Mul", ["strength", "change"], ["scaled"]),
    helper.make_node("Add", ["image", "scaled"], ["painted"]),
]


def value(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def constants(**values: object) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in values.items()]


def model(nodes: list, inputs: list, outputs: list, initializers: list) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "half", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def measure_graph() -> onnx.ModelProto:
    nodes = [
        helper.make_node("ReduceMean", ["image", "places"], ["means"], keepdims=0),
        helper.make_node("Unsqueeze", ["means", "first"], ["moments"]),
        helper.make_node("Unsqueeze", ["strength", "first"], ["last"]),
        helper.make_node("Concat", ["moments", "last"], ["affine"], axis=1),
    ]
    inputs = [
        value("image", FLOAT, "M", "H", "W", 3), value("style", FLOAT, 1, 2), value("strength", FLOAT, 1),
        value("given", FLOAT, 1, 4), value("known", INT, 1), value("margins", INT, "M", 4),
    ]  # fmt: skip
    outputs = [value("affine", FLOAT, 1, 4), value("moments", FLOAT, 1, 3)]
    return model(nodes, inputs, outputs, constants(places=[0, 1, 2], first=[0]))


def apply_graph(*, folded: bool) -> onnx.ModelProto:
    shapes = constants(lengths=[3, 1], to_colour=[-1, 1, 1, 3], to_one=[-1, 1, 1, 1])
    image, painted = value("image", FLOAT, "N", "H", "W", 3), value("painted", FLOAT, "N", "H", "W", 3)
    if not folded:
        return model(MIX, [image, value("affine", FLOAT, "N", 4)], [painted], shapes)
    affine = numpy_helper.from_array(np.zeros((1, 4), np.float32), "affine")
    external_data_helper.set_external_data(affine, SHARED, 0, 16)
    affine.ClearField("raw_data")
    return model(MIX, [image], [painted], [*shapes, affine])


def regions_graph() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Einsum", ["affine", "mask"], ["everywhere"], equation="nrk,nrhw->nhwk"),
        helper.make_node("Split", ["everywhere", "lengths"], ["mean", "strength"], axis=3),
        helper.make_node("Sub", ["mean", "image"], ["change"]),
        helper.make_node("Mul", ["strength", "change"], ["scaled"]),
        helper.make_node("Add", ["image", "scaled"], ["painted"]),
    ]
    image, painted = value("image", FLOAT, "N", "H", "W", 3), value("painted", FLOAT, "N", "H", "W", 3)
    inputs = [image, value("affine", FLOAT, "N", "R", 4), value("mask", FLOAT, "N", "R", "H", "W")]
    return model(nodes, inputs, [painted], constants(lengths=[3, 1]))


def add_halves(pack: Path) -> Path:
    graphs = {MEASURE: measure_graph(), APPLY: apply_graph(folded=False), FOLDED: apply_graph(folded=True)}
    graphs |= {REGIONS: regions_graph()}
    for name, graph in graphs.items():
        (pack / name).write_bytes(graph.SerializeToString())
    (pack / SHARED).write_bytes(bytes(16))
    card = load_card(pack)
    files = card.files | {name: sha256_of(pack / name) for name in (*graphs, SHARED)}
    save_card(replace(card, files=files), pack)
    return pack
