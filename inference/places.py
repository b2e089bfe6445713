"""Where files are: local paths, and addresses such as ``s3://bucket/folder``, which fsspec reads and writes.

A place is a string. `place` makes one of what a caller gives; the other functions take those. Only an address needs
fsspec, and it is imported when the first one is met.
"""

from __future__ import annotations

import errno
import glob
import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

from impasto.errors import ImpastoError, MissingExtra, WrongCall, require
from impasto.formats import write_atomically

if TYPE_CHECKING:
    from types import ModuleType

StrPath = str | os.PathLike[str]


def place(name: StrPath) -> str:
    """The place that a path or an address stands for; ``file://`` addresses become paths.

    Raises:
        WrongCall: an address of a kind that fsspec does not know, or ``file://`` of another machine.
        MissingExtra, ImpastoError: fsspec, or its driver for this kind of address, is not installed.
    """
    name = os.fspath(name)
    if not is_remote(name):
        return name
    if name.lower().startswith("file://"):
        parts = urlsplit(name)
        if parts.netloc not in ("", "localhost"):
            raise WrongCall(f"{name}: names the machine {parts.netloc!r}; expected file:///PATH")
        return url2pathname(parts.path)
    files, path = _open(name)
    address: str = files.unstrip_protocol(path)
    return address + "/" * (name.endswith("/") and not address.endswith("/"))


def is_remote(name: str) -> bool:
    """Whether this is an address, not a path."""
    scheme, mark, _ = name.partition("://")
    return bool(mark) and scheme.replace("+", "").isalnum()


def kind(name: str) -> Literal["file", "folder"] | None:
    """What is at a place; None if there is nothing.

    Raises:
        OSError: the place cannot be asked.
    """
    if not is_remote(name):
        return "folder" if os.path.isdir(name) else "file" if os.path.exists(name) else None
    with _named(name):
        files, path = _open(name)
        try:
            found = files.info(path)["type"]
        except FileNotFoundError:
            return None
    return "folder" if found == "directory" else "file"


def files_below(folder: str) -> list[str]:
    """All files in a folder and in the folders in it, sorted."""
    if not is_remote(folder):
        return sorted(str(path) for path in Path(folder).rglob("*") if path.is_file())
    with _named(folder):
        files, path = _open(folder)
        return sorted(files.unstrip_protocol(found) for found in files.find(path))


def matches(pattern: str) -> list[str]:
    """The files that a pattern (``*``, ``?``, ``[]``, ``**``) stands for, sorted."""
    if not is_remote(pattern):
        return sorted(name for name in glob.glob(pattern, recursive=True) if os.path.isfile(name))
    with _named(pattern):
        files, path = _open(pattern)
        found = files.glob(path, detail=True)
        return sorted(files.unstrip_protocol(name) for name, info in found.items() if info["type"] == "file")


def read(name: str, limit: int | None = None) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: naming the file, if it is not there, cannot be read, or has more than ``limit`` bytes.
    """
    with _named(name):
        files, path = _open(name) if is_remote(name) else (None, name)
        size = files.info(path)["size"] if files else os.path.getsize(path)
        if limit is not None and (size or 0) > limit:
            raise OSError(errno.EFBIG, f"the file has {size} bytes; expected at most {limit}")
        data: bytes = files.cat_file(path) if files else Path(path).read_bytes()
        return data


def write(name: str, data: bytes, *, new: bool = False) -> None:
    """Put a file in its place: whole, or (on any failure) not at all. Missing local folders are made.

    Args:
        name: the place.
        data: what it is to hold.
        new: only at an address: leave a file that is there alone, and raise `FileExistsError`.

    Raises:
        OSError: naming the file, if the place does not take it.
    """
    with _named(name):
        if is_remote(name):
            files, path = _open(name)
            files.pipe_file(path, data, **({"mode": "create"} if new else {}))
        else:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(name, data)


def remove(name: str) -> None:
    """Remove the file at an address; one that is not there is none to remove."""
    with _named(name):
        files, path = _open(name)
        try:
            files.rm_file(path)
        except FileNotFoundError:
            return


def absolute(name: str) -> str:
    """The place by its full name."""
    return name if is_remote(name) else os.path.abspath(name)


def identity(name: str) -> str:
    """A text that two names of one place share: symbolic links are followed."""
    return name if is_remote(name) else os.path.normcase(os.path.realpath(name))


def inside(name: str, folder: str) -> bool:
    """Whether a place lies below a folder."""
    if is_remote(name) or is_remote(folder):
        return name.startswith(folder.rstrip("/") + "/")
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(name)).parents


def parent(name: str) -> str:
    """The folder that a file is in, by its full name."""
    return posixpath.dirname(name) if is_remote(name) else os.path.dirname(os.path.abspath(name))


def common_parent(folders: set[str]) -> str:
    """The deepest folder that all of these are in.

    Raises:
        WrongCall: some are local and some are not, or they are of different kinds of addresses.
    """
    schemes = sorted({_scheme(folder) for folder in folders})
    if len(schemes) > 1:
        raise WrongCall(f"sources of one run are of one kind; got {' and '.join(schemes)}: run them one by one")
    if schemes == ["local files"]:
        return os.path.commonpath(folders)
    rests = [folder.partition("://")[2].rstrip("/") for folder in folders]
    return f"{schemes[0]}{posixpath.commonpath(rests)}"


def relative(name: str, folder: str) -> str:
    """The way from a folder to a file below it, with the separators of its kind of place."""
    if is_remote(name):
        return name.removeprefix(folder).lstrip("/")
    return os.path.relpath(name, folder)


def join(folder: str, *parts: str) -> str:
    """A place below a folder; ``parts`` are relative, of any kind of place."""
    if is_remote(folder):
        return "/".join([folder.rstrip("/"), *(part.replace(os.sep, "/") for part in parts)])
    return os.path.join(folder, *parts)


def _scheme(name: str) -> str:
    return f"{name.partition('://')[0]}://" if is_remote(name) else "local files"


def _open(name: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    core: ModuleType = require("fsspec.core", purpose=name, extra="scale")
    try:
        files, path = core.url_to_fs(name, use_listings_cache=False)
    except ValueError as error:
        raise WrongCall(f"{name}: {error}; expected a path, or an address such as s3://BUCKET/FOLDER") from error
    except ImportError as error:
        if _scheme(name) in ("s3://", "s3a://"):
            raise MissingExtra(name, "scale", "s3fs") from error
        raise ImpastoError(f"{name}: {error}") from error
    return files, path


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Every failure as an `OSError` of one line that names the place."""
    try:
        yield
    except (ImpastoError, FileExistsError):
        raise
    except OSError as error:
        code = error.errno or next((code for kind, code in _CODES.items() if isinstance(error, kind)), errno.EIO)
        text = _line(error.strerror or error)
        said = os.strerror(code) if text.strip("/") in name else text  # some drivers say the name alone
        raise OSError(code, said, name) from error
    except Exception as error:  # the drivers' own: no credentials, no such host, ...
        raise OSError(errno.EIO, _line(error), name) from error


_CODES = {PermissionError: errno.EACCES, FileNotFoundError: errno.ENOENT}


def _line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
