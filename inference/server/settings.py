"""What a server serves, and its limits."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from impasto.errors import WrongCall

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
"""What a browser on this machine calls this machine."""


@dataclass(frozen=True)
class Settings:
    """What a server serves, and its limits.

    Attributes:
        packs: names or folders of style packs, or folders of packs; none for all that are installed.
        provider: one of `impasto.inference.sessions.PROVIDERS`.
        threads: CPU threads one picture may use; None for as many as the process may run on.
        workers: pictures in work at once.
        queue: requests that may wait beside those in work; one more is refused with 503.
        max_bytes: largest picture file or tensor, in bytes.
        max_pixels: largest width times height, looked up in the file's header.
        batch_pictures: most pictures of one batch.
        batch_bytes: largest body of a batch, in bytes.
        read_seconds: time to send a body; a second more for each 64 KiB that have come.
        paint_seconds: time to decode, paint and encode one picture, after its wait in the queue.
        quota: requests a minute that one client may have painted; None for no quota.
        api_key: what a client has to show to have pictures painted and to read the metrics; None for nothing.
        hosts: names in the header ``Host`` that are answered, without port; ``*`` for all.
        origins: origins of other sites whose pages may call the API, such as ``https://example.org``.
        reload_seconds: time between two looks at the folders of the packs; 0 for never.

    Raises:
        WrongCall: a number below its smallest value.
    """

    packs: tuple[str, ...] = ()
    provider: str = "auto"
    threads: int | None = None
    workers: int = 2
    queue: int = 16
    max_bytes: int = 32 * 2**20
    max_pixels: int = 16_000_000
    batch_pictures: int = 16
    batch_bytes: int = 64 * 2**20
    read_seconds: float = 10.0
    paint_seconds: float = 60.0
    quota: int | None = None
    api_key: str | None = field(default=None, repr=False)
    hosts: tuple[str, ...] = LOOPBACK
    origins: tuple[str, ...] = ()
    reload_seconds: float = 2.0

    def __post_init__(self) -> None:
        least = {"threads": 1, "workers": 1, "queue": 0, "max_bytes": 1, "max_pixels": 256, "batch_pictures": 1}
        least |= {"batch_bytes": 1, "read_seconds": 0, "paint_seconds": 0, "quota": 1, "reload_seconds": 0}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and not smallest <= value < math.inf:
                raise WrongCall(f"{name} must be a number from {smallest} up; got {value}")
        if self.api_key == "":
            raise WrongCall("the API key is empty; give one of several characters, or none")

    @property
    def places(self) -> int:
        """Requests that may be in the house at once."""
        return self.workers + self.queue
