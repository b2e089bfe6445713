"""From a trained network to a style pack."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

import impasto
from impasto.card import Card, Style, save_card, snake_case
from impasto.errors import PackError, WrongCall
from impasto.packs import Pack, sha256_of
from impasto.training.graph import check_parity, export_graph
from impasto.training.networks import TransformerNet, default_sizes
from impasto.training.split_graph import SPLIT_FILES, check_split, export_split

WEIGHTS = "weights.safetensors"


def check_output(output: str | Path) -> Path:
    """The folder for a new pack, refused early if something is there or nothing can be.

    Raises:
        WrongCall: if the path exists and is not an empty folder, or no folder can be made there.
    """
    folder = Path(output)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise WrongCall(f"{folder} already exists: choose another name for the pack, or move it away")
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise WrongCall(f"{folder} cannot be made: {above} is not a folder that takes files; choose another place")
    return folder


def pack_name(folder: Path) -> str:
    """A pack's name by default: its folder's as a snake_case word."""
    return snake_case(folder.absolute().name) or "pack"


def export_pack(
    net: TransformerNet,
    output: str | Path,
    *,
    styles: Sequence[Style],
    name: str | None = None,
    training: Mapping[str, Any] | None = None,
    quality: Mapping[str, Any] | None = None,
) -> Pack:
    """Write a style pack, whole or not at all, and only if ONNX Runtime does what torch does.

    Args:
        net: the trained network.
        output: folder of the pack; must not exist or be empty.
        styles: one for each row, in order.
        name: the pack's name; by default the folder's, as a snake_case word.
        training: what the card says of the training.
        quality: what the card says of the pictures.

    Returns:
        The pack.

    Raises:
        WrongCall: if the folder is taken or the styles do not fit the network.
        ExportError: if the graph is not portable or disagrees with torch.
    """
    folder = check_output(output)
    if len(styles) != net.styles:
        raise WrongCall(f"styles: got {len(styles)}, expected {net.styles}, one for each row of the network")
    net = _on_cpu(net)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        names = ",".join(style.name for style in styles)
        export_graph(net, work / "paint.onnx", {"impasto": impasto.__version__, "styles": names})
        parity = check_parity(net, work / "paint.onnx")
        export_split(net, work)
        parity["split"] = check_split(net, work)
        save_file(net.state_dict(), work / WEIGHTS)
        (work / WEIGHTS).chmod(0o644)  # safetensors makes it private
        card = Card(
            name=name or pack_name(folder),
            styles=tuple(styles),
            network={"name": net.network, "stride": net.painter.stride, "parameters": _size(net), **net.sizes},
            normalisations=tuple(
                {"name": key, "channels": norm.scale.shape[1]} for key, norm in net.normalisations.items()
            ),
            training=training or {},
            quality=quality or {},
            parity=parity,
            files={file: sha256_of(work / file) for file in ("paint.onnx", *SPLIT_FILES, WEIGHTS)},
        )
        save_card(card, work)
        work.chmod(0o755)
        work.replace(folder)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return Pack.load(folder)


def _size(net: TransformerNet) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def _on_cpu(net: TransformerNet) -> TransformerNet:
    copy = TransformerNet(net.network, net.styles, **net.sizes).eval()
    copy.load_state_dict({key: value.detach().float().cpu() for key, value in net.state_dict().items()})
    return copy


def load_network(pack: Pack) -> TransformerNet:
    """The trained network of a pack.

    Raises:
        PackError: if the weights are missing, altered or do not fit the card.
    """
    pack.read(WEIGHTS)
    card = pack.card.network
    try:
        known = {"name", "parameters", "stride"} - default_sizes(str(card["name"])).keys()
        sizes = {size: value for size, value in card.items() if size not in known}
        net = TransformerNet(str(card["name"]), len(pack.card.styles), **sizes)
        net.load_state_dict(load_file(pack.path / WEIGHTS))
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise PackError(f"{pack.path / WEIGHTS} does not fit the card: {str(error).splitlines()[0]}") from error
    return net


def export_again(pack: Pack, output: str | Path, *, name: str | None = None) -> Pack:
    """Write a pack anew from its weights, as this version does: one made by an earlier version gets what it lacks.

    What the card says of styles, training and quality stays.

    Raises:
        WrongCall, ExportError: as `export_pack`.
        PackError: as `load_network`.
    """
    card = pack.card
    return export_pack(
        load_network(pack),
        output,
        styles=card.styles,
        name=name or card.name,
        training=card.training,
        quality=card.quality,
    )


def join_styles(first: TransformerNet, second: TransformerNet) -> TransformerNet:
    """A network with the styles of both: one trunk, the rows of the first, then those of the second.

    Raises:
        WrongCall: if the trunks differ.
    """
    rows, ours, theirs = first.row_names, first.state_dict(), second.state_dict()
    joined: dict[str, Tensor] = {}
    for key, value in ours.items():
        if key in rows:
            joined[key] = torch.cat([value, theirs[key]])
        elif not torch.equal(value, theirs[key]):
            raise WrongCall(f"join_styles: the networks differ in {key}, expected the same trunk")
        else:
            joined[key] = value
    net = TransformerNet(first.network, first.styles + second.styles, **first.sizes)
    net.load_state_dict(joined)
    return net


def select_styles(net: TransformerNet, weights: Tensor) -> TransformerNet:
    """A network with the same trunk whose rows are mixtures of the rows of ``net``: weights (new styles, styles)."""
    rows = net.row_names
    mixed = {key: weights @ value if key in rows else value for key, value in net.state_dict().items()}
    selected = TransformerNet(net.network, len(weights), **net.sizes)
    selected.load_state_dict(mixed)
    return selected
