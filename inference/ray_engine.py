"""Painting on the machines of a Ray cluster, or in processes of this one that may die.

Plain actors and not Ray Data: each reads and writes its files itself, so that Ray carries names and rows only; a worker
that dies takes along pictures that are known; and what a picture becomes, and how many are on their way, is settled by
the `Painter` and the loop of the local engine. Ray never restarts an actor or calls it again of its own accord.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from impasto.errors import ImpastoError, MissingExtra, PackError, WrongCall, require
from impasto.inference import places
from impasto.inference.manifest import KILLS, Row, Settings
from impasto.inference.painter import Lost, Painter
from impasto.inference.places import StrPath
from impasto.inference.sessions import cpus
from impasto.inference.sources import STREAM, Job

START = 120.0
"""Seconds that a machine has to start its worker; one that has no room for it by then is left out."""

_CALLS = 64
"""Calls that an actor takes beyond its threads; the loop that calls it sends fewer."""

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "^"}
"""Nothing is reported to Ray's makers, and nothing is printed about workers that die: the rows say it."""

_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
"""For a Ray of this machine alone: it listens on the loopback address, and answers those who know the user's token."""

_WITHOUT_GPU = ("cpu", "openvino")


@dataclass
class _Worker:
    """An actor, the node it is bound to, its share of that node, and how many calls it has not answered."""

    node: str
    threads: int
    gpus: int
    actor: Any = None
    busy: int = 0


class _Actor:
    """What runs in an actor: a painter, or the reason why there is none."""

    def __init__(self, make: Callable[..., Painter], arguments: dict[str, Any]) -> None:
        self._painter: Painter | None = None
        try:
            self._painter = make(**arguments)
        except MissingExtra as error:
            self._error: Exception = ImpastoError(str(error))  # it does not travel as it is
        except Exception as error:
            self._error = error

    def about(self) -> tuple[Settings, str]:
        """The settings, and what runs the network."""
        if self._painter is None:
            raise self._error
        return self._painter.settings, self._painter.provider

    def run(self, job: Job, earlier: Row | None, alone: bool) -> Row:
        """As `Painter.run`."""
        if self._painter is None:
            raise self._error
        return self._painter.run(job, earlier, alone=alone)


class Crew:
    """Runs jobs as a `Painter` does, each in one of the actors of a Ray cluster; to be called from several threads.

    A machine has one actor a GPU, with its share of the CPUs; without GPUs (or with a provider that needs none) one
    actor with all of them. As soon as there is a GPU, machines without one are left out, so that all pictures come from
    one kind of provider. `crew` makes one.

    Attributes:
        threads: CPU threads in all.
        machines: actors.
        provider: what runs the network.
        died: an actor has died.
    """

    def __init__(self, ray: Any, painter: Painter, arguments: dict[str, Any]) -> None:
        self._ray, self._make, self._arguments = ray, type(painter), arguments
        self._guard = threading.Lock()
        self._workers = _shares(ray.nodes(), arguments["provider"], arguments["threads"])
        self.died = False
        try:
            self._hire()
            self.provider = self._agreed(painter.settings)
        except BaseException:
            self.dismiss()
            raise
        self.threads = sum(worker.threads for worker in self._workers)
        self.machines = len(self._workers)

    def end(self) -> None:
        """As `Painter.end`; the actors end when they are dismissed."""

    def dismiss(self) -> None:
        """End all actors."""
        for worker in self._workers:
            if worker.actor is not None:
                self._ray.kill(worker.actor)

    def run(self, job: Job, earlier: Row | None = None, *, alone: bool = False) -> Row:
        """Do a job, as `Painter.run`.

        Raises:
            Lost: the actor died; this was one of the pictures it had begun.
            OSError: the place that the output goes to takes no files.
            ImpastoError: no machine is left, or the output is not to be seen from here.
        """
        with self._guard:
            if not self._workers:
                raise ImpastoError("the last worker of the Ray cluster is gone; --resume goes on with others")
            worker = min(self._workers, key=lambda worker: worker.busy / worker.threads)
            worker.busy += 1
            actor = worker.actor
        full = replace(job, source=places.absolute(job.source), output=places.absolute(job.output))
        earlier = earlier and replace(earlier, output=full.output)
        try:
            row: Row = self._ray.get(actor.run.remote(full, earlier, alone))
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            self._mourn(worker, actor)
            raise Lost(_line(error)) from error
        finally:
            with self._guard:
                worker.busy -= 1
        if row.error is None and places.kind(full.output) is None:
            raise ImpastoError(f"{full.output}: painted, but not to be seen from here; all machines have to share it")
        return replace(row, source=job.source, output=job.output)

    def apart(self, job: Job, earlier: Row | None = None) -> Row:
        """Do a job while no other is done; one that kills its worker has the error in its row."""
        self._muster()
        try:
            return self.run(job, earlier)
        except Lost:
            return Row(job.source, job.output, error=f"{job.source}: {KILLS}")

    def _hire(self) -> None:
        """Start all workers; those that do not answer are left out."""
        for worker in self._workers:
            self._start(worker)
        calls = {worker.actor.about.remote(): worker for worker in self._workers}
        ready, late = self._ray.wait(list(calls), num_returns=len(calls), timeout=START) if calls else ([], [])
        for call in late:
            self._ray.kill(calls[call].actor)
        self._workers = [calls[call] for call in ready]
        if not ready:
            raise ImpastoError(
                f"no machine of the Ray cluster had room for a worker in {START:.0f} s (see: ray status)"
            )

    def _start(self, worker: _Worker) -> None:
        affinity = require("ray.util.scheduling_strategies", purpose="--engine ray", extra="scale")
        make = self._ray.remote(_Actor).options(
            num_cpus=worker.threads,
            num_gpus=worker.gpus,
            max_concurrency=worker.threads + _CALLS,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=affinity.NodeAffinitySchedulingStrategy(worker.node, soft=False),
        )
        worker.actor = make.remote(self._make, {**self._arguments, "threads": worker.threads})

    def _agreed(self, settings: Settings) -> str:
        """What runs the network; raises unless all actors have the same, a painter, and these settings."""
        try:
            told = set(self._ray.get([worker.actor.about.remote() for worker in self._workers]))
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            raise ImpastoError(f"a worker of the Ray cluster does not start: {_line(error)}") from error
        if {theirs for theirs, _ in told} != {settings}:
            raise PackError(
                f"the machines of the Ray cluster have other packs named {settings.pack}; give all the same"
            )
        providers: list[str] = sorted({provider for _, provider in told})
        if len(providers) > 1:
            raise WrongCall(
                f"the machines of the Ray cluster compute on {' and '.join(providers)}; choose a --provider"
            )
        return providers[0]

    def _mourn(self, worker: _Worker, actor: Any) -> None:
        """Give a worker that died another actor, if nobody has yet; without its machine it is gone."""
        with self._guard:
            self.died = True
            if worker.actor is not actor:
                return
            self._ray.kill(actor)
            if any(node["Alive"] and node["NodeID"] == worker.node for node in self._ray.nodes()):
                self._start(worker)
            elif worker in self._workers:
                self._workers.remove(worker)

    def _muster(self) -> None:
        """Make sure that every worker answers, so that a death that follows is the picture's doing."""
        for worker in list(self._workers):
            try:
                self._ray.get(worker.actor.about.remote(), timeout=START)
            except self._ray.exceptions.RayError:
                self._ray.kill(worker.actor)
                self._workers.remove(worker)


def crew(
    name: StrPath, jobs: tuple[Job, ...], painter: Painter, *, style: str | None, provider: str, threads: int | None
) -> AbstractContextManager[Crew]:
    """The workers of a Ray cluster, for the time of a run.

    The cluster is the one that ``RAY_ADDRESS`` names, or that this program is connected to already; else a Ray of this
    machine alone is started, and ended.

    Args:
        name: as `impasto.inference.Stylizer`.
        jobs: what it is to do.
        painter: of this process; the workers have to have the same settings.
        style: a style or a mixture; None for the one that ``name`` names.
        provider: one of `impasto.inference.sessions.PROVIDERS`.
        threads: CPU threads of each worker; None for its share of the machine.

    Raises:
        MissingExtra: Ray is not installed.
        WrongCall: standard input or output, or an address that lives in one process.
        ImpastoError: when it is entered: no cluster, or no room in it.
        PackError: when it is entered: another pack of this name on a machine of the cluster.
    """
    for place in (place for job in jobs for place in (job.source, job.output)):
        if place == STREAM or place.startswith("memory://"):
            raise WrongCall(f"--engine ray: {place} is not to be seen by other processes; use --engine local")
    ray = _imported()
    shared = os.path.abspath(name) if os.path.exists(name) else os.fspath(name)
    settings = painter.settings
    arguments = {"name": shared, "style": style, "strength": settings.strength, "color": settings.color}
    arguments |= painter.limits.arguments()
    return _hired(ray, painter, {**arguments, "provider": provider, "threads": threads})


@contextmanager
def _hired(ray: Any, painter: Painter, arguments: dict[str, Any]) -> Iterator[Crew]:
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, arguments["threads"])
    try:
        hands = Crew(ray, painter, arguments)
        try:
            yield hands
        finally:
            hands.dismiss()
    finally:
        if ours:
            ray.shutdown()


def _imported() -> Any:
    if "ray" not in sys.modules:  # it reads them but once
        for key, value in (_QUIET | ({} if "RAY_ADDRESS" in os.environ else _LOOPBACK)).items():
            os.environ.setdefault(key, value)
    return require("ray", purpose="--engine ray", extra="scale")


def _connect(ray: Any, threads: int | None) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    address = os.environ.get("RAY_ADDRESS", "local")
    if address == "local":
        options |= {"num_cpus": threads or cpus(), "include_dashboard": False, "object_store_memory": 128 << 20}
    try:
        ray.init(address, **options)
    except Exception as error:  # Ray's errors here share no base class
        raise ImpastoError(f"no Ray at {address}: {_line(error)}") from error


def _shares(nodes: list[dict[str, Any]], provider: str, threads: int | None) -> list[_Worker]:
    """The workers that a cluster has room for."""
    alive = [node for node in nodes if node["Alive"]]
    gpus = {node["NodeID"]: int(node["Resources"].get("GPU", 0)) for node in alive}
    on_gpus = provider not in _WITHOUT_GPU and any(gpus.values())
    shares = []
    for node in alive:
        count = gpus[node["NodeID"]] if on_gpus else 1
        processors = int(node["Resources"].get("CPU", 0)) // max(count, 1)
        if processors or on_gpus:
            share = max(1, min(processors, threads or processors))
            shares += [_Worker(node["NodeID"], share, int(on_gpus)) for _ in range(count)]
    return shares


def _line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
