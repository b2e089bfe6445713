"""One run at a time in a folder."""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import IO

from impasto.errors import ImpastoError
from impasto.inference import places

LOCK = "manifest.lock"
"""The file that a run keeps in its folder while it lasts."""

STALE = 600.0
"""Seconds after which the run that keeps a lock at an address is taken for dead, if it has not renewed it."""

_PROCESS = secrets.token_hex(8)
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)


class Lock:
    """That no other run paints into a folder.

    On a local disk the system holds the lock and frees it when the process ends, however it ends. At an address it is
    a file that is renewed (`renew`): that of a dead process of this machine, or one that is `STALE`, is taken over.

    Attributes:
        left: an earlier run ended without freeing it.
        begun: what that run had begun and not ended (`noted`).
    """

    def __init__(self, folder: str) -> None:
        self._name = places.join(folder, LOCK)
        self._renewed = time.monotonic()
        self._file: IO[bytes] | None = None
        self._guard = threading.Lock()
        self._noted: set[str] = set()
        self.begun: frozenset[str] = frozenset()
        self.left = self._take_address() if places.is_remote(folder) else self._take_file()

    def renew(self) -> None:
        """Say that the run goes on; at an address, once in a tenth of `STALE` at most."""
        if self._file is None and time.monotonic() - self._renewed > STALE / 10:
            self._renewed = time.monotonic()
            places.write(self._name, _holder())

    @contextmanager
    def noted(self, text: str) -> Iterator[None]:
        """Have a text in the file while this lasts, for the next run to know if the process is killed meanwhile.

        At an address, where it would take as long as writing a picture, nothing is noted.
        """
        with self._guard:
            self._noted.add(text)
            self._write()
        try:
            yield
        finally:
            with self._guard:
                self._noted.discard(text)
                self._write()

    def free(self) -> None:
        """Let others in."""
        if self._file is None:
            with suppress(OSError):
                places.remove(self._name)
            return
        with suppress(OSError):  # Windows removes no open file
            os.unlink(self._name)
        self._file.close()

    def _take_file(self) -> bool:
        os.makedirs(os.path.dirname(self._name) or ".", exist_ok=True)
        while True:
            file = os.fdopen(os.open(self._name, _FLAGS, 0o666), "r+b", buffering=0)  # closing it frees the lock
            before = file.read().decode(errors="replace")
            if not _seize(file):
                file.close()
                raise _busy(self._name, before)
            with suppress(OSError):  # else it was removed between the opening and the seizing
                if os.path.samestat(os.fstat(file.fileno()), os.stat(self._name)):
                    break
            file.close()
        self._file, self._holder, self.begun = file, json.loads(_holder()), _begun(before)
        self._write()
        return bool(before)

    def _write(self) -> None:
        """Say in the local file who holds it, and what is noted.

        In one write and without emptying it first, so that a kill leaves the old text or the new one: spaces cover what
        the old one has more.
        """
        if self._file is not None:
            text = json.dumps(self._holder | {"begun": sorted(self._noted)}).encode()
            with suppress(OSError):  # a full disk: the pictures say it
                self._file.seek(0)
                self._file.write(text.ljust(os.fstat(self._file.fileno()).st_size))

    def _take_address(self) -> bool:
        try:
            places.write(self._name, _holder(), new=True)
        except FileExistsError:
            before = places.read(self._name).decode(errors="replace")
            if not _dead(before):
                raise _busy(self._name, before) from None
            places.write(self._name, _holder())
            return True
        return False


@contextmanager
def locked(folder: str) -> Iterator[Lock]:
    """Keep other runs out of a folder, which is made if it is not there.

    Raises:
        ImpastoError: another run is at work in it.
        OSError: the folder takes no files.
    """
    lock = Lock(folder)
    try:
        yield lock
    finally:
        lock.free()


def _holder() -> bytes:
    fields = {"process": os.getpid(), "machine": socket.gethostname(), "time": time.time(), "run": _PROCESS}
    return json.dumps(fields).encode()


def _begun(holder: str) -> frozenset[str]:
    """What the run that wrote this had begun."""
    try:
        return frozenset(json.loads(holder)["begun"])
    except (ValueError, KeyError, TypeError):
        return frozenset()


def _dead(holder: str) -> bool:
    """Whether the run that wrote this is over: its process is, or it has not renewed its lock for long."""
    try:
        fields = json.loads(holder)
        if time.time() - fields["time"] > STALE:
            return True
        if fields["machine"] != socket.gethostname():
            return False
        if fields["process"] == os.getpid():
            return bool(fields["run"] != _PROCESS)
        os.kill(fields["process"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    except (ValueError, KeyError, TypeError, OSError):
        return True
    return False


def _busy(name: str, holder: str) -> ImpastoError:
    try:
        fields = json.loads(holder)
        since = datetime.fromtimestamp(fields["time"]).strftime("%H:%M")
        who = f"process {fields['process']} of {fields['machine']}, since {since}"
    except (ValueError, KeyError, TypeError):
        who = "it has not said which"
    folder = name.removesuffix(LOCK)
    return ImpastoError(f"another run paints into {folder} ({who}); wait for it, or choose another folder")


if sys.platform == "win32":
    import msvcrt

    def _seize(file: IO[bytes]) -> bool:
        file.seek(1 << 30)  # beyond the text, which others read
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _seize(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # some network disks know no locks: better no lock than no painting
            return error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
        return True
