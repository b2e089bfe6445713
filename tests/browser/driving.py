"""A real browser on the page that a server of its own serves, and what a visitor does with it."""

from __future__ import annotations

import base64
import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
from PIL import Image

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
SERVE = [sys.executable, "-m", "impasto", "serve"]
PATIENCE = 120.0


@contextmanager
def serving(packs: Path, home: Path, *options: str) -> Iterator[str]:
    """`impasto serve` with the packs in a folder and the runtime in another; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*SERVE, "--pack", str(packs), "--port", str(port), *options]
    environment = os.environ | {"IMPASTO_HOME": str(home)}
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(command, env=environment, stderr=log) as process:
        address = f"http://localhost:{port}/"
        try:
            _wait_for(address, process, log)
            yield address
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait_for(address: str, process: subprocess.Popen[bytes], log: IO[str]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if process.poll() is not None:
            log.seek(0)
            raise RuntimeError(f"impasto serve ended: {log.read()}")
        try:
            with urlopen(address + "v1/styles", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"impasto serve does not answer at {address}")


class Visit:
    """A page in the browser, and everything that it asked for and complained of."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.address = page, address
        self.requests: list[tuple[str, str]] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requests.append((request.method, request.url)))
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self) -> Visit:
        self.page.goto(self.address)
        return self.rest()

    @property
    def sent(self) -> list[str]:
        """Addresses to which something was sent."""
        return [url for method, url in self.requests if method not in ("GET", "HEAD")]

    @property
    def strangers(self) -> list[str]:
        """Addresses on other hosts."""
        here = urlsplit(self.address).netloc
        return [url for _, url in self.requests if urlsplit(url).scheme != "blob" and urlsplit(url).netloc != here]

    def until(self, script: str, patience: float = PATIENCE) -> None:
        """Wait for a JavaScript expression to hold. Playwright's own wait evaluates strings, which the page forbids."""
        end = time.monotonic() + patience
        while not self.page.evaluate(script):
            assert time.monotonic() < end, f"not within {patience:.0f} s: {script}; {self.words('problem')}"
            self.page.wait_for_timeout(50)

    def rest(self) -> Visit:
        """Wait until the picture is painted and nothing is in work."""
        self.until(
            "!document.querySelector('#save').disabled"
            " && document.querySelector('#stage').getAttribute('aria-busy') === 'false'"
        )
        return self

    def words(self, name: str) -> str:
        return str(self.page.inner_text(f"#{name}")).strip().replace("\u00d7", "x")

    def canvas(self, name: str) -> np.ndarray:
        """The pixels of a canvas, RGBA."""
        script = f"document.querySelector('#{name}').toDataURL('image/png')"
        data = base64.b64decode(self.page.evaluate(script).split(",")[1])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))

    def choose(self, data: bytes, name: str = "photo.png", kind: str = "image/png") -> Visit:
        """Choose a file, as from the file dialogue."""
        self.page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": data})
        return self.arrived(name)

    def arrived(self, name: str) -> Visit:
        """Wait until the photo of that name is there and painted."""
        self.until(f"document.querySelector('#caption').textContent.startsWith('{name}, ')")
        return self.rest()

    def hand(self, event: str, data: bytes, name: str = "photo.png", kind: str = "image/png") -> None:
        """Drop a file on the page, or paste it."""
        script = """([event, base64, name, type]) => {
            const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type }));
            const options = { bubbles: true, cancelable: true };
            const made = event === "paste"
                ? new ClipboardEvent("paste", { ...options, clipboardData: transfer })
                : new DragEvent("drop", { ...options, dataTransfer: transfer });
            document.querySelector("#stage").dispatchEvent(made);
        }"""
        self.page.evaluate(script, [event, base64.b64encode(data).decode(), name, kind])

    def slide(self, name: str, value: int) -> Visit:
        """Move a slider as a hand does: it tells the page of each step."""
        script = """([name, value]) => {
            const slider = document.querySelector(`#${name}`);
            slider.value = value;
            slider.dispatchEvent(new Event("input", { bubbles: true }));
        }"""
        self.page.evaluate(script, [name, value])
        return self.rest()

    def save(self) -> tuple[str, Image.Image]:
        """Save; gives the name and the picture."""
        with self.page.expect_download(timeout=1000 * PATIENCE) as download:
            self.page.click("#save")
        path = download.value.path()
        image = Image.open(io.BytesIO(Path(path).read_bytes()))
        image.load()
        return download.value.suggested_filename, image

    def box(self, name: str) -> tuple[float, float, float, float]:
        """x, y, width and height of an element on the screen."""
        box = self.page.locator(f"#{name}").bounding_box()
        return box["x"], box["y"], box["width"], box["height"]

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        mouse = self.page.mouse
        mouse.move(*start)
        mouse.down()
        mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        mouse.move(*end)
        mouse.up()


def png(rgb: np.ndarray, **options: Any) -> bytes:
    return encoded(Image.fromarray(rgb), "PNG", **options)


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def noise(height: int = 30, width: int = 40, seed: int = 0) -> np.ndarray:
    """A photo of blocks of 10 pixels, so that scaling leaves their middles as they are."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    return np.kron(small, np.ones((10, 10, 1), np.uint8))
