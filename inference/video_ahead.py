"""Working ahead: what is asked for next is made meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from queue import Empty, Full, Queue
from typing import TypeVar

Item = TypeVar("Item")

_AHEAD = 4
_END = object()


@contextmanager
def ahead(items: Iterable[Item]) -> Iterator[Iterator[Item]]:
    """Go through items in a thread of its own, at most four ahead of whoever takes them.

    Its errors are raised where the items are taken. At the end of the block the thread is stopped.
    """
    made: Queue[object] = Queue(_AHEAD)
    stop = threading.Event()

    def put(item: object) -> None:
        while not stop.is_set():
            try:
                made.put(item, timeout=0.1)
            except Full:
                continue
            return

    def work() -> None:
        try:
            for item in items:
                put((item,))
                if stop.is_set():
                    return
        except BaseException as error:  # raised again by the thread that takes
            put(error)
        else:
            put(_END)

    def take() -> Iterator[Item]:
        while True:
            try:
                item = made.get(timeout=0.1)
            except Empty:
                if stop.is_set():
                    return
                continue
            if item is _END:
                return
            if isinstance(item, BaseException):
                raise item
            yield item[0]  # type: ignore[index]

    worker = threading.Thread(target=work, name="ahead", daemon=True)
    worker.start()
    try:
        yield take()
    finally:
        stop.set()
        worker.join()
