"""For the reference: a name in single backticks in a docstring is a cross reference; a broken one is a warning.

So is a name in ``__all__`` that has no docstring, which the reference would leave out. ``literal`` in double backticks
is left alone, as is what is no dotted name. A name is looked for where a reader would: among the parameters and members
of what the docstring is of, in its module, and then in the whole package, where it is a link if there is one of that
name.
"""

from __future__ import annotations

import builtins
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import griffe

NAME = re.compile(r"(?<![`\w])`([A-Za-z_][\w.]*[\w])(\(\))?`(?!`)")
logger = griffe.get_logger(__name__)


class References(griffe.Extension):
    """Makes links of the names in docstrings that are read."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite every docstring of a package that has been loaded."""
        objects = list(_inside(pkg))
        named: dict[str, set[str]] = defaultdict(set)
        for one in objects:
            named[one.name].add(one.path)
            if one.parent is not None:
                named[f"{one.parent.name}.{one.name}"].add(one.path)
        for one in objects:
            if one.docstring is not None:
                one.docstring.value = NAME.sub(lambda match, one=one: _linked(match, one, named), one.docstring.value)
            if isinstance(one, griffe.Module):
                _check_exports(one)


def _inside(parent: griffe.Object) -> Iterator[griffe.Object]:
    """The object and all that it has of its own."""
    yield parent
    for member in parent.members.values():
        if not member.is_alias:
            yield from _inside(member)


def _check_exports(module: griffe.Module) -> None:
    for name in map(str, module.exports or ()):
        found = module.members.get(name)
        with suppress(
            griffe.AliasResolutionError
        ):  # one of several names in one assignment, which griffe does not read
            if found is not None and found.docstring is None:
                logger.warning("%s: %s is public and has no docstring", module.filepath, name)


def _linked(match: re.Match[str], one: griffe.Object, named: dict[str, set[str]]) -> str:
    name = match[1]
    if isinstance(one, griffe.Function | griffe.Class) and name in [parameter.name for parameter in one.parameters]:
        return match[0]
    path = _path(name, one, named)
    if path is None:
        logger.warning("%s:%s: `%s` leads nowhere", one.filepath, one.lineno, name)
        return match[0]
    return f'<autoref identifier="{path}" optional>{match[0]}</autoref>'


def _path(name: str, one: griffe.Object, named: dict[str, set[str]]) -> str | None:
    """Where the name leads: the path of what it stands for; None for nowhere."""
    package = one.package
    if name.startswith(f"{package.path}."):
        return _own(name.removeprefix(f"{package.path}."), package)
    first, *rest = name.split(".")
    try:
        path = ".".join([one.resolve(first), *rest])
    except griffe.NameResolutionError:
        found = named[name]
        return next(iter(found)) if len(found) == 1 else name if found or hasattr(builtins, first) else None
    return _own(path.removeprefix(f"{package.path}."), package) if path.startswith(f"{package.path}.") else path


def _own(path: str, package: griffe.Module) -> str | None:
    """Where a name of our package is made, if it is one."""
    try:
        target = package[path]
        return str(target.final_target.path if target.is_alias else target.path)
    except (KeyError, griffe.AliasResolutionError):
        return None
