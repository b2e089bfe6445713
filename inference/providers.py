"""What can run the networks on this machine, and why the rest cannot. Importing this does not import ONNX Runtime."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass

from impasto.inference.sessions import PROVIDERS, needed_by

BUILDS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-qnn")
"""Distributions that all install the one package ``onnxruntime``, each over the other."""

_HINTS = {
    "cuda": "pip install onnxruntime-gpu in the place of onnxruntime (Linux or Windows, an NVIDIA GPU)",
    "tensorrt": "pip install onnxruntime-gpu tensorrt in the place of onnxruntime (Linux or Windows, an NVIDIA GPU)",
    "coreml": "it is in onnxruntime for macOS only",
    "directml": "pip install onnxruntime-directml in the place of onnxruntime (Windows)",
    "openvino": "pip install 'impasto[openvino]'",
}

# y = -x for one float32, which every provider can run.
_PROBE = (
    b'\x08\x07:2\n\x0b\n\x01x\x12\x01y"\x03Neg\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


@dataclass(frozen=True)
class ProviderRow:
    """One provider: whether it runs here, and (if not) why."""

    provider: str
    runs: bool
    reason: str


def list_providers() -> tuple[ProviderRow, ...]:
    """Every provider but ``auto``, each tried with a network of one operator."""
    rows = []
    for name in PROVIDERS[1:]:
        reason = _missing_openvino() if name == "openvino" else _why_not(name)
        rows.append(ProviderRow(name, not reason, reason))
    return tuple(rows)


def clash() -> str | None:
    """What to do about several builds of ONNX Runtime that are installed over each other; None if there is one."""
    found = []
    for build in BUILDS:
        try:
            found.append(f"{build} {importlib.metadata.version(build)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    if len(found) < 2:
        return None
    names = " ".join(build.split()[0] for build in found)
    return f"{' and '.join(found)} overwrite each other: pip uninstall {names}, then install the one you want"


def _missing_openvino() -> str:
    return "" if importlib.util.find_spec("openvino") else f"not installed: {_HINTS['openvino']}"


def _why_not(provider: str) -> str:
    import onnxruntime

    wanted = needed_by(provider)
    missing = set(wanted) - set(onnxruntime.get_available_providers())
    if missing:
        return (
            f"not in this build of ONNX Runtime {onnxruntime.__version__}: {_HINTS.get(provider, 'install it again')}"
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(_PROBE, options, list(wanted), enable_fallback=0)
    except Exception as error:  # ONNX Runtime's errors share no base class
        return f"installed, but does not start: {' '.join(str(error).split())}"
    if session.get_providers()[0] != wanted[0]:
        return "installed, but does not start: no such device here, or its driver or libraries are not found"
    return ""
