"""What the C library does with memory that is given back."""

from __future__ import annotations

import contextlib
import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # glibc's malloc.h
_KEPT = 2**31 - 1


def keep_memory() -> None:
    """Have the C library keep the memory of large tensors for the next ones, for this process, where it is glibc.

    By default every tensor of more than 32 MB is mapped anew and given back when it is freed; a training step on the
    CPU makes dozens, and clearing their pages takes a tenth of its time. Elsewhere this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.gnu_get_libc_version  # noqa: B018  # another C library has no such name, and other options
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT)
        libc.mallopt(_TOP_PAD, 64 * 2**20)
