"""What networks see: pictures made by optimising pixels, and looking inside.

Beside the names below, every technique is a function of this package by its name: ``impasto.visualization.saliency``.
Each is loaded when it is first used, so that the list of techniques costs no import of torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from impasto.visualization.registry import registry

if TYPE_CHECKING:
    from impasto.visualization.model import Model, load_model
    from impasto.visualization.painting import paint
    from impasto.visualization.result import Result

__all__ = ["Model", "Result", "load_model", "paint", "registry"]


def __getattr__(name: str) -> object:
    if name in ("Model", "load_model"):
        from impasto.visualization import model

        return getattr(model, name)
    if name == "paint":
        from impasto.visualization.painting import paint

        return paint
    if name == "Result":
        from impasto.visualization.result import Result

        return Result
    if not name.startswith("_") and name in registry:
        return registry[name].function
    raise AttributeError(f"module 'impasto.visualization' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *registry})
