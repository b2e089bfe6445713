"""The errors this project raises on purpose: each says in one line what was got, what was expected and what to do.

The command line prints such an error as one line and exits with the class's ``exit_code``: 2 for a wrong call, 1 for a
failure.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class ImpastoError(Exception):
    """Base of every error raised on purpose."""

    exit_code = 1


class WrongCall(ImpastoError, ValueError):
    """An argument that cannot be right whatever the files say."""

    exit_code = 2


class PictureError(ImpastoError, ValueError):
    """A file or an array that is not a usable picture."""


class TooManyPixels(PictureError):
    """A picture that claims to be larger than the caller's limit."""


class PackError(ImpastoError, ValueError):
    """A style pack with a missing, altered or unreadable file."""


class CheckpointError(ImpastoError, ValueError):
    """A checkpoint or a file of weights that cannot be used."""


class ExportError(ImpastoError, RuntimeError):
    """An exported network that does not do what the trained one does."""


class Diverged(ImpastoError, ArithmeticError):
    """A training run whose loss is not a finite number, again after it went back to its last good state."""


class Interrupted(ImpastoError):
    """Long work that was stopped by Ctrl-C; says where to go on from."""

    exit_code = 130


class MissingExtra(ImpastoError, ImportError):
    """A package that belongs to an extra which is not installed."""

    def __init__(self, purpose: str, extra: str, missing: str) -> None:
        beside = " torchvision" if missing == "torchvision" else ""  # in no extra: its build has to fit torch's
        super().__init__(f"{purpose} needs the package {missing!r}: pip install 'impasto[{extra}]'{beside}")


def unknown_name(kind: str, got: str, known: Iterable[str]) -> WrongCall:
    """The error for a name that is not in a list: names the nearest and the whole list."""
    known = sorted(known)
    nearest = difflib.get_close_matches(got, known, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return WrongCall(f"unknown {kind} {got!r}.{hint} Expected one of: {', '.join(known) or '(none)'}")


def require(module: str, *, purpose: str, extra: str) -> ModuleType:
    """Import ``module``, or raise `MissingExtra` that names the extra to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = (error.name or module).split(".")[0]
        if top == "impasto":
            raise
        raise MissingExtra(purpose, extra, top) from error
