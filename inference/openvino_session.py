"""A graph run by OpenVINO itself, in the place of an ONNX Runtime session."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from impasto.errors import PackError, require

if TYPE_CHECKING:
    from onnxruntime import RunOptions

_POLL = 20
"""Milliseconds between two looks at whether the work is to be stopped."""

_Shapes = tuple[tuple[str, tuple[int, ...]], ...]

_SHAPES = 2
"""For how many shapes of inputs a graph of their own is kept: each holds memory for a picture of its shape."""

_TYPES = {"u8": "tensor(uint8)", "f32": "tensor(float)"}


class Value(NamedTuple):
    """An input or output of a graph in ONNX Runtime's words."""

    name: str
    type: str
    shape: list[int | str]


class _Graph(NamedTuple):
    """A compiled graph, and its requests that nobody waits for, each with memory for a picture."""

    compiled: Any
    idle: list[Any]


class OpenVinoSession:
    """What `impasto.inference.Stylizer` needs of an ``onnxruntime.InferenceSession``, computed by OpenVINO on the CPU.

    In bfloat16 where the processor computes in it, which is two to three times as fast as ONNX Runtime and differs by
    a few levels of 255 at a few pixels; else in float32.

    Inputs of the same shape twice in a row, as of a video or of one camera's photos, get a graph compiled for that
    shape: the same bits in less time, for a tenth of a second once.

    Args:
        model: the bytes of an ONNX file.
        threads: CPU threads.

    Raises:
        MissingExtra: if the package openvino is not installed.
        PackError: if OpenVINO cannot read the graph.
    """

    def __init__(self, model: bytes, threads: int) -> None:
        openvino = require("openvino", purpose="--provider openvino", extra="openvino")
        core = openvino.Core()
        precision = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
        self._settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": precision,
        }
        self._core, self._model = core, model
        self._latest: _Shapes = ()
        self._fixed: OrderedDict[_Shapes, _Graph] = OrderedDict()
        self._lock = threading.Lock()
        try:
            self._compiled = core.compile_model(core.read_model(model, b""), "CPU", self._settings)
        except Exception as error:  # OpenVINO's errors share no base class
            raise PackError(f"OpenVINO cannot open the graph: {error}") from error

        self._outputs = [value.name for value in self.get_outputs()]

    def get_inputs(self) -> list[Value]:
        """The graph's inputs, in its order."""
        return [_value(port) for port in self._compiled.inputs]

    def get_outputs(self) -> list[Value]:
        """The graph's outputs, in its order."""
        return [_value(port) for port in self._compiled.outputs]

    def run(
        self, names: Sequence[str] | None, feeds: Mapping[str, Any], run_options: RunOptions | None = None
    ) -> list[npt.NDArray[Any]]:
        """The outputs of these names (None: all) for inputs by name; may be called from several threads at once.

        Raises:
            InterruptedError: when ``run_options.terminate`` is set meanwhile.
        """
        graph, idle = self._graph_for(feeds)
        with self._lock:
            request = idle.pop() if idle else graph.create_infer_request()
        request.start_async(dict(feeds))
        while not request.wait_for(_POLL):
            if run_options is not None and run_options.terminate:
                request.cancel()
                raise InterruptedError("the work was stopped")
        outputs = [np.array(request.get_tensor(name).data) for name in names or self._outputs]
        if graph is not self._compiled:  # whose memory would be that of the largest picture
            idle.append(request)
        return outputs

    def _graph_for(self, feeds: Mapping[str, Any]) -> _Graph:
        """The graph for inputs of these shapes: one of their own from the second in a row on, else the one for all."""
        shapes = tuple((name, tuple(np.shape(value))) for name, value in feeds.items())
        with self._lock:
            again, self._latest = shapes == self._latest, shapes
            if shapes in self._fixed:
                self._fixed.move_to_end(shapes)
                return self._fixed[shapes]
        if not again:
            return _Graph(self._compiled, [])
        model = self._core.read_model(self._model, b"")
        model.reshape(dict(shapes))
        graph = _Graph(self._core.compile_model(model, "CPU", self._settings), [])
        with self._lock:
            self._fixed[shapes] = graph
            if len(self._fixed) > _SHAPES:
                self._fixed.popitem(last=False)
        return graph


def _value(port: Any) -> Value:
    kind = port.get_element_type().get_type_name()
    shape: list[int | str] = [str(side) if side.is_dynamic else side.get_length() for side in port.get_partial_shape()]
    return Value(port.get_any_name(), _TYPES.get(kind, kind), shape)
