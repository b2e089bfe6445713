"""The HTTP server: ``create_app`` for any ASGI server, and what ``impasto serve`` runs.

Importing this package imports none of the packages of the extra ``serve``; each name is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from impasto.inference.server.app import create_app
    from impasto.inference.server.settings import Settings

__all__ = ["Settings", "create_app"]

_MODULES = {"Settings": "settings", "create_app": "app"}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'impasto.inference.server' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"impasto.inference.server.{_MODULES[name]}"), name)
