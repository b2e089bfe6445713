"""ONNX Runtime sessions: which provider runs a graph, and with what settings. Importing this does not import ORT."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from impasto.errors import PackError, WrongCall, unknown_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from onnxruntime import InferenceSession, RunOptions, SessionOptions

    from impasto.inference.openvino_session import OpenVinoSession

_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider",),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
    "coreml": ("CoreMLExecutionProvider",),
    "directml": ("DmlExecutionProvider",),
}
PROVIDERS = ("auto", *_PROVIDERS, "openvino")
"""What a caller may ask for. ``auto`` is CUDA where it is installed and starts, else the CPU by ONNX Runtime.
``openvino`` is OpenVINO's own package on the CPU, without ONNX Runtime."""


def open_session(
    model: bytes,
    *,
    provider: str = "auto",
    threads: int | None = None,
    files: Mapping[str, bytes] | None = None,
    constants: Mapping[str, npt.NDArray[np.float32]] | None = None,
) -> tuple[InferenceSession | OpenVinoSession, str]:
    """A session for a graph, and the name of the provider that runs it.

    Args:
        model: the bytes of an ONNX file.
        provider: one of `PROVIDERS`. One that is asked for by name runs or fails: nothing else takes its place.
        threads: CPU threads an operator may use; None for as many as the process may run on.
        files: by name, the bytes of files that the graph keeps its constants in.
        constants: by name, constants of the graph that are to have other values. They have to be kept outside of it:
            ONNX Runtime passes over others without a word.

    Raises:
        WrongCall: an unknown provider, one that this installation lacks or cannot start, or ``threads`` below 1.
        MissingExtra: for openvino without its package.
        PackError: ONNX Runtime cannot read the graph.
    """
    if provider not in PROVIDERS:
        raise unknown_name("provider", provider, PROVIDERS)
    if threads is not None and threads < 1:
        raise WrongCall(f"threads must be at least 1; got {threads}")
    if provider == "openvino":
        from impasto.inference.openvino_session import OpenVinoSession

        if files or constants:
            raise WrongCall("openvino runs a pack's paint.onnx only; use --provider cpu or auto for its halves")
        return OpenVinoSession(model, threads or cpus()), provider
    installed = _installed()

    def options() -> SessionOptions:
        return _options(threads, files or {}, constants or {})

    if provider == "auto":
        session = _create(model, "cuda", options()) if "cuda" in installed else None
        return (session, "cuda") if session is not None else (_create_cpu(model, options()), "cpu")
    if provider not in installed:
        raise WrongCall(
            f"the provider {provider!r} is not in this installation of onnxruntime; it has: {', '.join(installed)} "
            "(why: impasto stylize --provider list)"
        )
    if provider == "cpu":
        return _create_cpu(model, options()), "cpu"
    session = _create(model, provider, options())
    if session is None:
        raise WrongCall(f"the provider {provider!r} is installed but does not start here; use --provider cpu or auto")
    return session, provider


def needed_by(provider: str) -> tuple[str, ...]:
    """ONNX Runtime's names for what a provider of this name needs, the one that does the work first."""
    return _PROVIDERS[provider]


def _installed() -> tuple[str, ...]:
    import onnxruntime

    available = set(onnxruntime.get_available_providers())
    return tuple(name for name, needed in _PROVIDERS.items() if available >= set(needed))


def _create_cpu(model: bytes, options: SessionOptions) -> InferenceSession:
    try:
        return _open(model, options, _PROVIDERS["cpu"])
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise PackError(f"ONNX Runtime cannot open the graph: {error}") from error


def _create(model: bytes, provider: str, options: SessionOptions) -> InferenceSession | None:
    """A session that really runs on ``provider``, or None."""
    options.enable_mem_pattern = provider != "directml"  # which asks for it
    wanted = _PROVIDERS[provider]
    try:
        session = _open(model, options, wanted)
    except Exception:
        return None
    return session if session.get_providers()[0] == wanted[0] else None


def _open(model: bytes, options: SessionOptions, providers: Sequence[str]) -> InferenceSession:
    """A session, opened in a thread of its own: the one that opens it treats subnormal numbers as 0 ever after."""
    import onnxruntime

    with ThreadPoolExecutor(1) as aside:
        opened = aside.submit(
            onnxruntime.InferenceSession, model, options, providers=list(providers), enable_fallback=0
        )
        return opened.result()


def _options(
    threads: int | None, files: Mapping[str, bytes], constants: Mapping[str, npt.NDArray[np.float32]]
) -> SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cpus()
    options.enable_cpu_mem_arena = not files  # what takes pictures by parts has counted on its memory coming back
    options.enable_mem_pattern = False  # not planned ahead, the arena takes less, also for sizes that change
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    if files:
        options.add_external_initializers_from_files_in_memory(
            list(files), list(files.values()), list(map(len, files.values()))
        )
    if constants:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in constants.values()]
        options.add_external_initializers(list(constants), values)
    options.log_severity_level = 4  # fatal: every other error is raised as an exception
    return options


def giving_back(run_options: RunOptions | None = None) -> RunOptions:
    """Options of a run after which ONNX Runtime gives its memory back instead of keeping it for the next."""
    import onnxruntime

    options = run_options or onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def cpus() -> int:
    """How many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
