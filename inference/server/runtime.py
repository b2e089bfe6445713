"""The browser's runtime: files of the npm package onnxruntime-web, of one version, compared with its hash.

They are not part of this project's repository. They are in the wheel where its builder has put them (``page/ort``), or
come once, on request: ``impasto serve --install-runtime``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import os
import secrets
import shutil
import sys
import tarfile
import urllib.request
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit

from impasto.errors import ImpastoError, WrongCall

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""SHA-512 of the package's archive, as the npm registry states it."""

FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
"""The first three run on any browser's processor, the others on a graphics card."""

REGISTRY = "https://registry.npmjs.org/"
_MOST = 256 * 2**20
IN_WHEEL = Path(__file__).parents[1] / "page" / "ort"


def data_folder() -> Path:
    """Where this user's programs keep data: ``IMPASTO_HOME``, else the system's place for it."""
    home = os.environ.get("IMPASTO_HOME")
    if home:
        return Path(home)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "impasto"
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/impasto"
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local/share")) / "impasto"


def installed_folder() -> Path:
    """Where `install_runtime` puts the files."""
    return data_folder() / f"{PACKAGE}-{VERSION}"


def runtime_folder() -> Path | None:
    """The folder with all of `FILES`, or None."""
    for folder in (installed_folder(), IN_WHEEL):
        if all((folder / name).is_file() for name in FILES):
            return folder
    return None


def registry() -> str:
    """Address of the npm registry: that of ``npm_config_registry``, as npm reads it, else the public one.

    What comes from there is compared with `INTEGRITY`, so a mirror need not be trusted.

    Raises:
        WrongCall: not an address.
    """
    settings = {name.lower(): value for name, value in os.environ.items()}
    address = settings.get("npm_config_registry") or REGISTRY
    if urlsplit(address).scheme not in ("http", "https"):
        raise WrongCall(f"npm_config_registry is {address!r}; expected an address such as {REGISTRY}")
    return address.rstrip("/") + "/"


def install_runtime(folder: Path | None = None) -> Path:
    """Fetch the package, compare it with `INTEGRITY`, and put `FILES` into a folder: all of them or none.

    Args:
        folder: where to; None for `installed_folder`. One that exists is replaced.

    Returns:
        The folder.

    Raises:
        WrongCall: as `registry`.
        ImpastoError: the registry cannot be reached, or what it sends is not that package.
        OSError: the folder or the disk does not take the files.
    """
    target = folder or installed_folder()
    address = f"{registry()}{PACKAGE}/-/{PACKAGE}-{VERSION}.tgz"
    archive = _fetch(address)
    digest = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if not hmac.compare_digest(digest, INTEGRITY):
        raise ImpastoError(f"{address}: its SHA-512 is not the one this version expects; nothing was installed")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        _unpack(archive, part)
        if target.exists():
            target.rename(part / "old")
        (part / "new").rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def _fetch(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            data: bytes = answer.read(_MOST + 1)
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ImpastoError(
            f"{address}: cannot be fetched: {reason}; npm_config_registry names another registry"
        ) from error
    if len(data) > _MOST:
        raise ImpastoError(f"{address}: more than {_MOST >> 20} MiB; nothing was installed")
    return data


def _unpack(archive: bytes, part: Path) -> None:
    """`FILES`, from the archive into ``part/new``."""
    folder = part / "new"
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for name in FILES:
            try:
                entry = tar.extractfile(f"package/dist/{name}")
            except KeyError:
                entry = None
            if entry is None:
                raise ImpastoError(f"{PACKAGE} {VERSION} has no dist/{name}; nothing was installed")
            (folder / name).write_bytes(entry.read())
