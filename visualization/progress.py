"""How far a long technique is, said to whoever wants to know, without a parameter in every signature."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

Report = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and what is being done."""

_listener: ContextVar[Report | None] = ContextVar("listener", default=None)


@contextmanager
def reporting(report: Report) -> Iterator[None]:
    """Have ``report`` called by every `track` that runs in this ``with``."""
    token = _listener.set(report)
    try:
        yield
    finally:
        _listener.reset(token)


def track(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The same items, said to be ``what``: after each, one step of ``total`` is done."""
    for done, item in enumerate(items, start=1):
        yield item
        tell(done, total, what)


def tell(done: int, total: int, what: str) -> None:
    """Say that ``done`` of ``total`` steps of ``what`` are done, as the ``on_step`` of a loop does."""
    report = _listener.get()
    if report is not None:
        report(done, total, what)
