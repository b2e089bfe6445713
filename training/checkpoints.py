"""Lightning's checkpoints of a run, read and made into a pack."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from impasto.card import Style
from impasto.errors import CheckpointError
from impasto.packs import Pack
from impasto.training.data import PhotoData
from impasto.training.export import export_pack
from impasto.training.module import StyleTransfer
from impasto.training.networks import TransformerNet

PREVIOUS = "previous.ckpt"
"""The checkpoint before the last one, in the same folder."""


class WholeFiles(TorchCheckpointIO):
    """Checkpoints written whole or not at all, whenever the process or the machine stops.

    The bytes are on the disk under another name before the file takes its own, and the file that had it is kept as
    `PREVIOUS`. (Lightning's own way writes to the system's folder for temporary files and moves the file from there:
    that is a copy in place where the two are on different disks, and nothing waits for the disk.)
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; a call that is stopped leaves at most files whose names begin with a dot."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        with part.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        if path.is_file():
            kept = path.with_name(f".{PREVIOUS}.part")
            shutil.copyfile(path, kept)
            os.replace(kept, path.with_name(PREVIOUS))
        os.replace(part, path)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """A Lightning checkpoint of `StyleTransfer`, read without running any code that might stand in it.

    Raises:
        CheckpointError: if the file is missing, damaged or not such a checkpoint; names a good one in the same folder.
    """
    try:
        return _read(Path(path))
    except CheckpointError as error:
        for other in sorted(Path(path).parent.glob("*.ckpt"), key=os.path.getmtime, reverse=True):
            try:
                step = _read(other)["global_step"]
            except CheckpointError:
                continue
            raise CheckpointError(f"{error}; a good one is {other}, of step {step}") from error
        raise


def _read(path: Path) -> dict[str, Any]:
    """The checkpoint, or an error that speaks of this file alone."""
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: expected a file such as runs/NAME/checkpoints/last.ckpt")
    if _is_damaged(path):
        raise CheckpointError(f"{path} is damaged: part of it is missing or has changed since it was written")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        for part in ("state_dict", "record", "quality"):
            checkpoint[part]
        for key in ("network", "rows_only", "sizes", "style_images", "styles"):
            checkpoint["hyper_parameters"][key]
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is not a checkpoint of impasto: it is no file of torch, or holds more than weights and settings, "
            "which is never loaded"
        ) from error
    except Exception as error:  # torch raises a dozen types for a file that is not its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is not a checkpoint of impasto: {reason}") from error
    found: dict[str, Any] = checkpoint
    return found


def _is_damaged(path: Path) -> bool:
    """Whether a file of torch, which is a zip archive, is cut short or fails its own checksums: torch reads on then."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is not None
    except Exception:  # a dozen types for headers that make no sense
        return True


def check_resume(path: str | Path, module: StyleTransfer, data: PhotoData, processes: int = 1) -> None:
    """Refuse a checkpoint from which the run cannot go on exactly: another network, seed, size, or other photos.

    The length of the run may be another, and so may the weights of the loss, the rate and the precision.

    Args:
        path: the checkpoint.
        module: what is to be trained on.
        data: on what.
        processes: how many train together; each takes ``data.batch`` pictures a step.

    Raises:
        CheckpointError: saying what differs.
        PictureError: if there is no photo.
    """
    checkpoint = load_checkpoint(path)
    found = {key: tuple(value.shape) for key, value in checkpoint["state_dict"].items()}
    if found != {key: tuple(value.shape) for key, value in module.state_dict().items()}:
        settings = checkpoint["hyper_parameters"]
        raise CheckpointError(
            f"{path} is of a network {settings['network']!r} with {len(settings['style_images'])} styles, expected "
            f"one of the run's shape: {module.hparams['network']!r} with {len(module.names)} styles"
        )
    data.setup("fit")
    record = checkpoint["record"]
    then = _sequence(record["seed"], record["data"], record.get("processes", 1), record.get("teacher"))
    now = _sequence(module.seed, data.describe(), processes, module.teacher.record if module.teacher else None)
    differ = [f"{what} {then[what]}, now {now[what]}" for what in now if then[what] != now[what]]
    if differ:
        raise CheckpointError(
            f"{path} cannot be gone on from exactly: it is of a run with {'; '.join(differ)}; "
            "give it the same, or train anew without --resume"
        )


def _sequence(seed: int, data: dict[str, Any], processes: int, teacher: Mapping[str, str] | None) -> dict[str, Any]:
    """What decides which pictures come at which step, and what they are compared with."""
    return {
        "seed": seed,
        "the photos' seed": data["seed"],
        "photos": f"{data['photos']} (hash {data['hash'][:8]})",
        "size": data["size"],
        "pictures a step": data["batch"] * processes,
        "teacher": f"{teacher['pack']} (hash {teacher['weights'][:8]})" if teacher else "none",
    }


def export_checkpoint(path: str | Path, output: str | Path, *, name: str | None = None) -> Pack:
    """Make a style pack of a checkpoint: the average of the weights, with what the checkpoint says of the run.

    Args:
        path: a checkpoint of `StyleTransfer`.
        output: folder of the pack; must not exist or be empty.
        name: the pack's name; by default the folder's.

    Raises:
        CheckpointError: if the file cannot be used.
        WrongCall: if the folder is taken.
        ExportError: if the exported network does not do what the trained one does.
    """
    checkpoint = load_checkpoint(path)
    settings = checkpoint["hyper_parameters"]
    if settings["rows_only"]:
        raise CheckpointError(f"{path} holds new rows for another pack; run impasto add-style again to finish it")
    net = TransformerNet(settings["network"], len(settings["style_images"]), **settings["sizes"])
    prefix = "averaged."
    weights = checkpoint["state_dict"].items()
    try:
        net.load_state_dict({key.removeprefix(prefix): value for key, value in weights if key.startswith(prefix)})
    except RuntimeError as error:
        raise CheckpointError(f"{path} is of another version of the networks: {str(error).splitlines()[0]}") from error
    styles = [Style(**style) for style in settings["styles"]]
    return export_pack(
        net, output, styles=styles, name=name, training=checkpoint["record"], quality=checkpoint["quality"]
    )
