"""What the routes of one server share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from impasto.inference.server.metrics import Metrics
from impasto.inference.server.problems import Problem
from impasto.inference.server.settings import Settings
from impasto.inference.server.shelf import Served, Shelf
from impasto.inference.server.visits import Visit
from impasto.inference.server.workers import Workers


@dataclass(frozen=True)
class House:
    """One server: its settings, its packs, its threads, its counters."""

    settings: Settings
    shelf: Shelf
    workers: Workers
    metrics: Metrics

    def check_ready(self) -> None:
        """Raise `Problem` unless there is a pack to paint with."""
        if not len(self.shelf):
            raise Problem("not-ready", "no style pack is loaded", retry_after=self.settings.reload_seconds or 60)

    def note_painted(self, served: Served, pixels: int, visit: Visit) -> None:
        """Count a painting."""
        visit.pixels += pixels
        self.metrics.pictures.labels(served.name).inc()
        self.metrics.pixels.inc(pixels)


def house_of(request: Request) -> House:
    """The server that a request has come to."""
    house: House = request.app.state.house
    return house


ThisHouse = Annotated[House, Depends(house_of)]
