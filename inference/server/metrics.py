"""What the server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

STAGES = ("read", "queue", "decode", "paint", "encode")
"""What happens to a picture, in this order."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "impasto_requests", "Requests answered.", ("route", "method", "status"), registry=registry
        )
        self.seconds = Histogram(
            "impasto_request_seconds",
            "From the first byte to the last.",
            ("route",),
            registry=registry,
            buckets=_SECONDS,
        )
        self.stages = Histogram(
            "impasto_stage_seconds", "Time of a picture by stage.", ("stage",), registry=registry, buckets=_SECONDS
        )
        self.refusals = Counter(
            "impasto_refusals", "Requests not answered with what they asked for.", ("reason",), registry=registry
        )
        self.refusal_seconds = Histogram(
            "impasto_refusal_seconds",
            "From a request to its refusal, of requests refused before their body was read.",
            registry=registry,
            buckets=_SECONDS,
        )
        self.pictures = Counter("impasto_pictures", "Pictures painted.", ("pack",), registry=registry)
        self.pixels = Counter("impasto_pixels", "Pixels painted.", registry=registry)
        self.reloads = Counter("impasto_reloads", "Packs loaded or dropped anew.", ("result",), registry=registry)
        for stage in STAGES:
            self.stages.labels(stage)
        ProcessCollector(registry=registry)

    def watch(self, name: str, help: str, value: Callable[[], float]) -> None:
        """A gauge that is looked up when the metrics are read."""
        Gauge(name, help, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """The metrics in Prometheus's text format."""
        return generate_latest(self.registry)
