"""Fast feed-forward neural style transfer, and a window into what convolutional networks see.

    import impasto
    impasto.Stylizer("starry_night").stylize("photo.jpg").save("out.png")

Importing this package imports nothing else: each name below is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from impasto.inference.stylizer import Stylizer

    __version__: str
    """Of the installed package, such as 0.1.0."""

__all__ = ["Stylizer", "__version__"]


def __getattr__(name: str) -> object:
    if name == "Stylizer":
        from impasto.inference.stylizer import Stylizer

        return Stylizer
    if name == "__version__":
        from importlib.metadata import version

        return version("impasto")
    raise AttributeError(f"module 'impasto' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
