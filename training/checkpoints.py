"""Lightning's checkpoints of a run, read and made into a pack."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from impasto.card import Style
from impasto.errors import CheckpointError
from impasto.packs import Pack
from impasto.training.export import export_pack
from impasto.training.networks import TransformerNet


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """A Lightning checkpoint of `StyleTransfer`, read without running any code that might stand in it.

    Raises:
        CheckpointError: if the file is missing or is not such a checkpoint.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"no checkpoint at {path}: expected a file such as runs/NAME/checkpoints/last.ckpt")
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
