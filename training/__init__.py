"""From a painting to a network: networks, photo data, the Lightning module, and export to a style pack."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from impasto.training.data import PhotoData
    from impasto.training.export import export_pack
    from impasto.training.module import StyleTransfer
    from impasto.training.networks import TransformerNet
    from impasto.training.sweeps import sweep

__all__ = ["PhotoData", "StyleTransfer", "TransformerNet", "export_pack", "sweep"]

_HOMES = {
    "PhotoData": "data",
    "StyleTransfer": "module",
    "TransformerNet": "networks",
    "export_pack": "export",
    "sweep": "sweeps",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
