"""The report and the live view in a real browser: ``pytest tests/browser/drive_see.py``.

Needs Chromium, Python's playwright and the packages of the extra ``see``; photos from ``IMPASTO_DATA`` where it is set.
Screenshots go to build/see.
"""

from __future__ import annotations

import base64
import io
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import pytest
from browser.driving import CHROMIUM, FLAGS
from looking import write_photos
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "build/see"
DATA = os.environ.get("IMPASTO_DATA")

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra see")
if CHROMIUM is None:
    pytest.skip("needs chromium: apt-get install chromium, or its path in CHROMIUM", allow_module_level=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    SHOTS.mkdir(parents=True, exist_ok=True)
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Photos of ImageNet's classes, or coloured patches where there are none."""
    folder = tmp_path_factory.mktemp("photos")
    found = sorted(Path(DATA, "imagenet_samples/images").glob("*"))[::50] if DATA else []
    if not found:
        write_photos(folder, 6, 320, 240)
    for path in found:
        (folder / path.name).symlink_to(path)
    return folder


@contextmanager
def living(folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "-m", "impasto", "see", "live", str(folder), "--port", str(port)]
    ) as process:
        address = f"http://127.0.0.1:{port}/"
        try:
            for _ in range(300):
                try:
                    urlopen(address, timeout=5).close()
                    break
                except OSError:
                    assert process.poll() is None, "impasto see live ended"
                    time.sleep(0.2)
            yield address
        finally:
            process.terminate()
            process.wait(timeout=30)


@pytest.fixture(scope="module")
def address(photos) -> Iterator[str]:
    with living(photos) as address:
        yield address


@pytest.fixture
def visit(browser, address) -> Iterator[Any]:
    """Opens the live page; at the end it has complained of nothing and has asked no other host for anything."""
    contexts, seen = [], []

    def open_page(width: int = 1360, height: int = 860, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        page = context.new_page()
        contexts.append(context)
        page.on("request", lambda request: seen.append(request.url))
        page.on("console", lambda message: message.type == "error" and errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        arrived(page)
        return page

    errors: list[str] = []
    yield open_page
    strangers = [
        url for url in seen if urlsplit(url).scheme == "http" and urlsplit(url).netloc != urlsplit(address).netloc
    ]
    assert not strangers and not errors
    for context in contexts:
        context.close()


def until(page: Any, script: str, patience: float = 60) -> None:
    end = time.monotonic() + patience
    while not page.evaluate(script):
        assert time.monotonic() < end, f"not within {patience:.0f} s: {script}"
        page.wait_for_timeout(50)


def arrived(page: Any, words: str = "") -> None:
    """Wait until the unit of those words is drawn."""
    until(page, f"document.querySelector('#unit-name').textContent.includes({words!r} || 'Unit')")


def pixels(page: Any, name: str) -> np.ndarray:
    data = page.evaluate(f"document.querySelector('#{name}').toDataURL('image/png')").split(",")[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def shot(page: Any, name: str, **options: Any) -> None:
    page.wait_for_timeout(300)
    page.screenshot(path=SHOTS / f"{name}.png", **options)


def test_the_maps_of_a_folder(visit):
    page = visit()
    assert "(1 of " in page.inner_text("#name")
    grid = pixels(page, "grid")
    assert grid.std() > 20
    first = pixels(page, "seen")
    page.keyboard.press("e")
    until(page, "document.querySelector('#name').textContent.includes('(2 of ')")
    assert np.abs(first.astype(int) - pixels(page, "seen")).max() > 10
    page.focus("#seen")
    page.keyboard.press("ArrowLeft")
    until(page, "document.querySelector('#name').textContent.includes('(1 of ')")
    assert (pixels(page, "seen") == first).all()
    shot(page, "live_light")


def test_the_keys_of_the_toolbox(visit):
    page = visit()
    page.focus("#grid")
    page.keyboard.press("ArrowRight")
    arrived(page, "Unit 1 of ")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("i")
    arrived(page, "Unit 1 of ")
    page.keyboard.press("o")
    arrived(page, "Unit 1 of _blocks.10")
    page.keyboard.press("u")
    arrived(page, "Unit 1 of _blocks.4")
    assert "layer=_blocks.4" in page.url
    drawings = {}
    for name in ("overlay", "gradient", "guided", "deconv", "map"):
        page.wait_for_timeout(600)
        assert page.get_attribute("#closely [aria-checked=true]", "value") == name
        drawings[name] = pixels(page, "close").astype(int)
        shot(page, f"live_{name}")
        page.keyboard.press("b")
    assert drawings["map"].shape == (28, 28, 3) and drawings["guided"].shape == (224, 224, 3)
    assert np.abs(drawings["guided"] - drawings["gradient"]).max() > 20
    page.keyboard.press("T")
    page.keyboard.press("t")
    until(page, "document.querySelector('#legend').textContent.includes('gamma')")
    assert "on the layer's scale" in page.inner_text("#legend")
    page.keyboard.press("h")
    assert page.is_visible("#help")
    shot(page, "live_help")
    page.keyboard.press("Escape")
    assert not page.is_visible("#help")
    page.keyboard.press("Escape")
    arrived(page, "Unit 0 of _blocks.4")


def test_patches_and_zoom(visit):
    page = visit()
    page.keyboard.press("s")
    until(
        page,
        "!document.querySelector('#patches-image').hidden && document.querySelector('#patches-image').complete",
        200,
    )
    shot(page, "live_patches")
    page.keyboard.press("z")
    shot(page, "live_zoomed")
    assert not page.is_visible("#maps")


def test_the_camera(visit):
    page = visit(permissions=["camera"])
    page.keyboard.press("c")
    until(page, "/[0-9.]+ frames a second/.test(document.querySelector('#rate').textContent)")
    until(page, "document.querySelector('#name').textContent === 'The camera'")
    first = pixels(page, "seen")
    page.wait_for_timeout(4000)
    rate = page.inner_text("#rate")
    assert np.abs(first.astype(int) - pixels(page, "seen")).max() > 10
    shot(page, "live_camera")
    print(f"\n{rate}")
    page.keyboard.press("f")
    until(page, "document.querySelector('#name').textContent.includes('frozen')")
    page.wait_for_timeout(1500)
    still = pixels(page, "seen")
    page.wait_for_timeout(600)
    assert (pixels(page, "seen") == still).all()
    page.keyboard.press("c")
    until(page, "document.querySelector('#name').textContent.includes(' of ')")
    assert float(re.findall(r"[0-9.]+", rate)[0]) > 0


def test_dark_and_on_a_phone(visit):
    page = visit(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 28)"
    shot(page, "live_dark")
    phone = visit(390, 844, color_scheme="dark", device_scale_factor=2, has_touch=True, is_mobile=True)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    shot(phone, "live_phone", full_page=True)


def test_everything_has_a_name(visit):
    nameless = """[...document.querySelectorAll("button, select, canvas, [tabindex]")].filter((element) =>
        !(element.getAttribute("aria-label") || element.textContent).trim()).map((element) => element.outerHTML)"""
    assert visit().evaluate(nameless) == []


@pytest.fixture(scope="module")
def report(photos, tmp_path_factory) -> Path:
    """The page of a report on the first photo: what is quick, one that is refused, many that are left out."""
    folder = tmp_path_factory.mktemp("report")
    photo, *_ = sorted(photos.iterdir())
    only = "filters,activation-maps,saliency,cam,gradcam,guided-backprop,dream,detector-patch"
    words = [str(photo), "--images", str(photos), "-o", str(folder), "--only", only, "--limit", "0"]
    subprocess.run([sys.executable, "-m", "impasto", "see", "report", *words], check=True)
    return folder / "index.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_report_without_scripts(browser, report, scheme, width):
    context = browser.new_context(
        java_script_enabled=False, color_scheme=scheme, viewport={"width": width, "height": 900}, offline=True
    )
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_timeout(500)
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    page.screenshot(path=SHOTS / f"report_{scheme}_{width}.png", full_page=True)
    assert page.locator("article.done").count() >= 7
    box = page.locator("body").bounding_box()
    assert box and box["width"] <= width
    for article in page.locator("article.done img").all()[:20]:
        assert (article.bounding_box() or {})["width"] <= width
    page.click("nav a[href='#saliency']")
    top = page.locator("#saliency").bounding_box()
    assert top and 0 <= top["y"] < 400
    page.click("#saliency summary")
    assert page.is_visible("#saliency details table")
    context.close()
