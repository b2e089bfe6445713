"""The options of a function as its signature has them, to and from the command line."""

from __future__ import annotations

import inspect
import os
import re
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from impasto.errors import WrongCall, unknown_name


@dataclass(frozen=True)
class Option:
    """A keyword-only parameter with a default.

    Attributes:
        name: the parameter's.
        kind: bool, int, float or str; of a tuple that of its items; str where an int may stand too.
        default: the parameter's.
        help: what the docstring's Args says of it.
        choices: the values of a ``Literal``; none for any value.
        many: a tuple, written ``1,2,3``.
        opens: what a text stands for: "picture", a file of one; "network", one that is loaded by its name; or nothing.
    """

    name: str
    kind: type
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    many: bool = False
    opens: str = ""

    @property
    def flag(self) -> str:
        """On the command line: hyphens for underscores, ``--x/--no-x`` for a boolean."""
        flag = self.name.replace("_", "-")
        return f"--{flag}/--no-{flag}" if self.kind is bool else f"--{flag}"

    def parse(self, text: str) -> Any:
        """The value that a text on the command line stands for. Raises WrongCall."""
        try:
            if self.many:
                return tuple(self.kind(part) for part in text.split(",") if part)
            return self.kind(text)
        except ValueError:
            expected = f"{self.kind.__name__}s such as 1,2" if self.many else f"a value of type {self.kind.__name__}"
            raise WrongCall(f"{self.flag}: got {text!r}, expected {expected}") from None

    def words(self, value: Any) -> list[str] | None:
        """The words on the command line that give this value: an empty list for the default, None if there are none."""
        if value is None or (not self.opens and value == self.default):
            return []
        if self.opens:
            return [self.flag, os.fspath(value)] if isinstance(value, str | os.PathLike) else None
        if self.kind is bool:
            return [self.flag.split("/")[0 if value else 1]]
        return [self.flag, self.text(value)]

    def text(self, value: Any) -> str:
        """A value as it is written on the command line."""
        return ",".join(map(str, value)) if self.many else str(value)

    def check(self, value: Any) -> None:
        """Refuse a value that is not among the choices. Raises WrongCall."""
        if self.choices and value not in self.choices:
            raise unknown_name(self.name, str(value), self.choices)


def options_of(function: Callable[..., Any]) -> dict[str, Option]:
    """The options of a function by name, in the order of its signature.

    Raises:
        TypeError: a keyword-only parameter without a default, or of a type that the command line cannot give: one has
            bool, int, float, str, ``Literal`` of strings, a tuple of one of them, or one of them or None; a Tensor
            or None (a picture), a Model or None (a network), which are opened.
    """
    signature = inspect.signature(function, eval_str=True)
    helps = argument_helps(function.__doc__ or "")
    options = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.default is parameter.empty:
                raise TypeError(f"{function.__name__}: the option {name} needs a default")
            options[name] = _option(name, parameter.annotation, parameter.default, helps.get(name, ""))
    return options


def _option(name: str, annotation: Any, default: Any, help: str) -> Option:
    arms = [arm for arm in get_args(annotation) if arm is not type(None)] if _is_union(annotation) else [annotation]
    one = str if set(arms) == {int, str} else arms[0]
    opens = {"Tensor": "picture", "Model": "network"}.get(getattr(one, "__name__", ""), "")
    if opens and default is None:
        return Option(name, str, default, help, opens=opens)
    if get_origin(one) is Literal:
        return Option(name, str, default, help, choices=get_args(one))
    many = get_origin(one) is tuple and get_args(one)[1:] == (...,)
    kind = get_args(one)[0] if many else one
    if kind not in (bool, int, float, str) or (len(arms) > 1 and one is not str):
        raise TypeError(f"the option {name}: {annotation} cannot be given on the command line")
    return Option(name, kind, default, help, many=many)


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def argument_helps(docstring: str) -> dict[str, str]:
    """What the section Args of a docstring says of each argument, in one line."""
    section = re.search(
        r"^ *Args:\n(.*?)(?=^ *\w+:\n|\Z)", inspect.cleandoc(docstring) + "\n", re.DOTALL | re.MULTILINE
    )
    found: dict[str, str] = {}
    name = ""
    for line in section[1].splitlines() if section else []:
        start = re.match(r" {4}(\w+): (.*)", line)
        if start:
            name = start[1]
            found[name] = start[2].strip()
        elif name and line.strip():
            found[name] += " " + line.strip()
    return found
