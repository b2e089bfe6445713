"""The threads that paint, the line before them, and how work is stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import anyio
import onnxruntime
from starlette.requests import ClientDisconnect, Request

from impasto.inference.server.problems import Problem
from impasto.inference.server.visits import Visit

T = TypeVar("T")


class Stopped(Exception):
    """Work that was told to stop."""


class Run:
    """One piece of work, which can be told to stop from another thread.

    Attributes:
        options: given to ONNX Runtime, which gives up within an operator or two once it is told so.
    """

    def __init__(self) -> None:
        self.options = onnxruntime.RunOptions()
        self.options.log_severity_level = 4

    def stop(self) -> None:
        """Tell it to stop."""
        self.options.terminate = True

    def check(self) -> None:
        """Raise `Stopped` if it was told to stop."""
        if self.options.terminate:
            raise Stopped


class Workers:
    """A fixed number of threads, and a line in the order of arrival.

    Args:
        count: threads.
        seconds: longest time of one piece of work, without its wait.

    Attributes:
        waiting: pieces of work in line.
        working: pieces of work on a thread.
    """

    def __init__(self, count: int, seconds: float) -> None:
        self.count = count
        self.seconds = seconds
        self.waiting = 0
        self.working = 0
        self._mean = 1.0
        self._free = asyncio.Semaphore(count)
        self._threads = ThreadPoolExecutor(count, "painter")

    def wait(self) -> float:
        """Seconds until about half of those who are in the house now are out, from the mean of the last ones."""
        return self._mean * (self.waiting + self.working) / self.count / 2

    async def run(self, function: Callable[[Run], T], visit: Visit) -> T:
        """What ``function`` returns, called on one of the threads when its turn comes.

        If this is cancelled or the time is over, the function is told to stop, and its end awaited: whoever returns
        from here has no thread at work any more.

        Raises:
            Problem: the time is over.
        """
        with visit.stage("queue"):
            self.waiting += 1
            try:
                await self._free.acquire()
            finally:
                self.waiting -= 1
        self.working += 1
        try:
            return await self._run(function)
        finally:
            self.working -= 1
            self._free.release()

    async def _run(self, function: Callable[[Run], T]) -> T:
        run, started = Run(), time.perf_counter()
        future = asyncio.get_running_loop().run_in_executor(self._threads, function, run)
        try:
            done, _ = await asyncio.wait([future], timeout=self.seconds)
            if not done:
                raise Problem("took-too-long", f"not done in {self.seconds:g} s")
            self._mean += 0.1 * (time.perf_counter() - started - self._mean)
            return future.result()
        finally:
            if not future.done():
                run.stop()
                with anyio.CancelScope(shield=True):
                    await asyncio.wait([future])
                future.exception()  # asked for, so that it is not reported as lost

    def close(self) -> None:
        """End the threads; work on them is awaited."""
        self._threads.shutdown()


async def while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` returns; it is cancelled when the client leaves.

    Raises:
        ClientDisconnect: the client has left.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait({working, leaving})
        if not working.cancelled():
            working.exception()  # asked for, as above


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
