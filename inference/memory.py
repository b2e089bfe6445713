"""Bytes of memory: written down, and free. Importing this imports nothing of ours but the errors."""

from __future__ import annotations

import os
import re
from pathlib import Path

from impasto.errors import WrongCall

_UNITS = {"": 1 << 30, "mb": 10**6, "mib": 1 << 20, "gb": 10**9, "gib": 1 << 30}
_UNKNOWN = 4_000_000_000


def parse_memory(text: str) -> int:
    """Bytes from ``1GB``, ``800MB``, ``1.5GiB``, or a number of GiB.

    Raises:
        WrongCall: another form, or none at all.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([a-z]*)", text.strip().lower())
    if match is None or match[2] not in _UNITS or not float(match[1]):
        raise WrongCall(f"memory {text!r}: expected such as 1GB, 800MB or 1.5GiB")
    return int(float(match[1]) * _UNITS[match[2]])


def free_memory() -> int:
    """Bytes of memory that this process could still get, as far as the system says."""
    free = [_available(), _in_group()]
    return min((each for each in free if each is not None), default=_UNKNOWN)


def _available() -> int | None:
    try:
        line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _in_group() -> int | None:
    """What is left of the limit of a container."""
    group = Path("/sys/fs/cgroup")
    try:
        return int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return None
