"""The options of a command that say which network is looked into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from impasto.errors import WrongCall, require

if TYPE_CHECKING:
    from impasto.visualization.model import Model


def network_options() -> list[click.Parameter]:
    """``--model`` and what goes with it, for `network_of`."""
    return [
        click.Option(
            ["--model"], default="efficientnet_lite0", show_default=True, help="Also any of torchvision's, vgg19."
        ),
        click.Option(
            ["--weights"], default="default", show_default=True, help="A name, a file, or none for random ones."
        ),
        click.Option(["--size"], type=int, help="Of the pictures the network sees.  [default: the network's]"),
        click.Option(["--download"], is_flag=True, help="Let torchvision's weights be fetched if they are not there."),
        click.Option(["--device"], default="auto", show_default=True, help="auto, cpu or cuda."),
    ]


def network_of(model: str, weights: str, size: int | None, download: bool, device: str) -> Model:
    """The network that the options name, on its device. Raises as `load_model`; WrongCall for an unknown device."""
    torch = require("torch", purpose="impasto see", extra="see")
    from impasto.visualization.model import load_model

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
    except RuntimeError:
        raise WrongCall(f"--device: got {device!r}, expected auto, cpu or cuda") from None
    chosen = None if weights == "none" else weights
    return load_model(model, weights=chosen, size=size, download=download).to(place)
