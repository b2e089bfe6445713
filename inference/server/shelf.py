"""The style packs that are served: opened at the start, and again when their folder changes."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impasto.errors import ImpastoError, PackError, WrongCall, unknown_name
from impasto.inference.server.metrics import Metrics
from impasto.inference.stylizer import Stylizer
from impasto.packs import CARD, PAINT, Pack, find_pack, installed_packs, pack_with

LOG = logging.getLogger("impasto.server")

Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Served:
    """A pack in service: one session, which all threads share.

    Attributes:
        pack: where it lies, and its card.
        stylizer: its session.
        model: the bytes of ``paint.onnx``.
        stamp: what the folder looked like when it was opened.
    """

    pack: Pack
    stylizer: Stylizer
    model: bytes
    stamp: Stamp

    @property
    def name(self) -> str:
        """The pack's name."""
        return self.pack.card.name

    @property
    def sha256(self) -> str:
        """SHA-256 of ``paint.onnx``, in hexadecimal digits."""
        return self.pack.card.files[PAINT]


class Shelf:
    """The packs in service, by name.

    Args:
        places: names or folders of packs, or folders of packs; none for all that are installed.
        provider: as `impasto.Stylizer`.
        threads: as `impasto.Stylizer`.
        metrics: where reloads are counted.

    Raises:
        WrongCall, PackError: a place that holds no pack, a pack that cannot be used, or two of one name.
    """

    def __init__(self, places: Sequence[str], provider: str, threads: int | None, metrics: Metrics) -> None:
        self.places = tuple(places)
        self.provider = provider
        self.threads = threads
        self.metrics = metrics
        self.packs: dict[str, Served] = {}
        self._failed: dict[Path, Stamp] = {}
        for folder in self._folders():
            served = self._open(folder)
            if served.name in self.packs:
                others = f"{self.packs[served.name].pack.path} and {folder}"
                raise WrongCall(f"{others} are both called {served.name!r}; serve one of them")
            self.packs[served.name] = served
        if not self.packs:
            raise PackError("no style pack is installed; give one with --pack, or list their folder in IMPASTO_PACKS")

    def __len__(self) -> int:
        return len(self.packs)

    def get(self, name: str) -> Served:
        """The pack of that name. Raises `WrongCall`."""
        try:
            return self.packs[name]
        except KeyError:
            raise unknown_name("pack", name, self.packs) from None

    def choose(self, pack: str | None, style: str | None) -> tuple[Served, npt.NDArray[np.float32]]:
        """The pack that a request means, and the weight of each of its styles, ``(1, S)``.

        Args:
            pack: its name; None for the only one, or the one that has the style.
            style: a style's name, a mixture ``a:0.6,b:0.4`` or (without ``pack``) ``pack/style``; None if it has one.

        Raises:
            WrongCall: an unknown name, a wrong weight, or a choice that is not clear.
        """
        head, slash, tail = (style or "").rpartition("/")
        if pack is None and slash and head in self.packs:
            pack, style = head, tail
        if pack is None and len(self.packs) == 1:
            pack = next(iter(self.packs))
        if pack is None and style is None:
            raise WrongCall(f"several packs are served; choose one: {', '.join(self.packs)}")
        if pack is None:
            pack = pack_with(str(style), tuple(served.pack for served in self.packs.values())).card.name
        served = self.get(pack)
        return served, np.array([served.stylizer.mixture(style or None)], np.float32)

    async def watch(self, seconds: float) -> None:
        """Look at the folders again and again, for ever."""
        while True:
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self.refresh)

    def refresh(self) -> None:
        """Open what is new or has changed, drop what is gone; where a new one cannot be opened, the old one stays.

        Requests that have begun end with the pack they began with.
        """
        try:
            folders = self._folders()
        except ImpastoError as error:
            LOG.warning("the packs stay as they are: %s", error)
            return
        old = {served.pack.path: served for served in self.packs.values()}
        found: dict[str, Served] = {}
        for folder in folders:
            served = self._renewed(folder, old.get(folder))
            if served is not None:
                found.setdefault(served.name, served)
        if found != self.packs:
            for name in self.packs.keys() - found.keys():
                self._note("dropped", name)
            self.packs = found

    def _renewed(self, folder: Path, old: Served | None) -> Served | None:
        stamp = _stamp(folder)
        if stamp == self._failed.get(folder) or (old is not None and stamp == old.stamp):
            return old
        try:
            served = self._open(folder)
        except (ImpastoError, OSError) as error:
            self._failed[folder] = stamp
            self._note("failed", str(error))
            return old
        self._failed.pop(folder, None)
        self._note("loaded", served.name)
        return served

    def _note(self, result: str, what: str) -> None:
        self.metrics.reloads.labels(result).inc()
        LOG.log(logging.WARNING if result == "failed" else logging.INFO, "pack %s: %s", result, what)

    def _open(self, folder: Path) -> Served:
        stamp = _stamp(folder)
        pack = Pack.load(folder, verify=False)
        model = pack.read(PAINT)
        stylizer = Stylizer(folder, provider=self.provider, threads=self.threads)
        if stylizer.card != pack.card:
            raise PackError(f"{folder}: changed while it was read; it is read again when it is whole")
        weights = np.full((1, len(stylizer.styles)), 1 / len(stylizer.styles), np.float32)
        stylizer.paint(np.zeros((1, 64, 64, 3), np.uint8), weights, np.ones(1, np.float32))  # it paints, and is warm
        return Served(pack, stylizer, model, stamp)

    def _folders(self) -> list[Path]:
        if not self.places:
            return [pack.path for pack in installed_packs()]
        folders: dict[Path, None] = {}
        for place in self.places:
            path = Path(place)
            if (path / CARD).is_file():
                folders[path] = None
                continue
            inside = sorted(card.parent for card in path.glob(f"*/{CARD}")) if path.is_dir() else []
            folders |= dict.fromkeys(inside or [find_pack(place)[0].path])
        return list(folders)


def _stamp(folder: Path) -> Stamp:
    """What shows that the pack in a folder is another one."""
    stats = []
    for name in (CARD, PAINT):
        try:
            status = os.stat(folder / name)
        except OSError:
            continue
        stats.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(stats)
