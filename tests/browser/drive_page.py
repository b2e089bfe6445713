"""Everything a visitor can do with the page, in a real browser: ``pytest tests/browser/drive_page.py``.

Needs Chromium, Python's playwright and the browser's runtime (``impasto serve --install-runtime``). Screenshots go to
build/page. Most of it paints with the tiny pack of conftest, whose painting is known by hand; what is golden, with the
pack that ships.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser.driving import CHROMIUM, FLAGS, Visit, encoded, noise, png, serving
from conftest import write_pack
from PIL import Image

import impasto
from impasto.palette import Colour

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "build/page"
CLASSICS = ROOT / "checkpoints/classics"
RED = np.array([255, 0, 0])

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
runtime = pytest.importorskip("impasto.inference.server.runtime", reason="needs the extra serve")
if CHROMIUM is None:
    pytest.skip("needs chromium: apt-get install chromium, or its path in CHROMIUM", allow_module_level=True)
if runtime.runtime_folder() is None:
    pytest.skip("needs the browser's runtime: impasto serve --install-runtime", allow_module_level=True)

Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    SHOTS.mkdir(parents=True, exist_ok=True)
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def packs(tmp_path_factory) -> Path:
    """A folder with the tiny pack, and the pack that ships behind it."""
    folder = tmp_path_factory.mktemp("packs")
    write_pack(folder, "a_tiny")
    (folder / "classics").symlink_to(CLASSICS)
    return folder


@pytest.fixture(scope="module")
def address(packs) -> Iterator[str]:
    home = os.environ.get("IMPASTO_HOME") or str(runtime.data_folder())
    with serving(packs, Path(home)) as address:
        yield address


@pytest.fixture(scope="module")
def bare(packs, tmp_path_factory) -> Iterator[str]:
    """A server without the browser's runtime."""
    with serving(packs, tmp_path_factory.mktemp("home")) as address:
        yield address


@pytest.fixture
def visit(browser, address) -> Iterator[Open]:
    """Opens the page; at the end it has complained of nothing and has asked no other host for anything."""
    contexts, visits = [], []

    def open_page(url: str = address, prepare: Callable[[Any], object] | None = None, **options: Any) -> Visit:
        options = {"viewport": {"width": 1280, "height": 800}, "service_workers": "block"} | options
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        if prepare:
            prepare(page)
        visits.append(Visit(page, url))
        return visits[-1].open()

    yield open_page
    for opened in visits:
        assert opened.errors == [] and opened.strangers == []
    for context in contexts:
        context.close()


def shot(visit: Visit, name: str) -> None:
    visit.page.wait_for_timeout(400)
    visit.page.screenshot(path=SHOTS / f"{name}.png")


def painted(rgb: np.ndarray, red: float = 0, strength: float = 1) -> np.ndarray:
    """What conftest's tiny pack paints."""
    target = (1 - red) * (255 - rgb.astype(float)) + red * RED
    return rgb + strength * (target - rgb)


def assert_shown(visit: Visit, expected: np.ndarray) -> None:
    assert np.abs(visit.canvas("painted")[..., :3] - expected).max() <= 1
    assert visit.words("problem") == "" or not visit.page.is_visible("#problem")


def test_it_paints_a_sample_in_the_browser_and_says_so(visit):
    page = visit()
    assert page.page.evaluate("crossOriginIsolated")
    assert page.words("engine-name").startswith("In this browser: WebAssembly, ")
    assert "stays on this machine" in page.words("engine-note")
    page.until("document.querySelectorAll('.style.filled').length === 2")
    assert page.words("status").startswith("Painted at ")
    mean = page.canvas("photo")[..., :3].mean((0, 1))
    assert page.canvas("painted")[..., :3].mean((0, 1)) == pytest.approx(255 - mean, abs=2)
    assert page.sent == []


def test_a_photo_is_chosen_dropped_and_pasted_and_never_sent(visit):
    page = visit()
    for seed, event in enumerate(["choose", "drop", "paste"]):
        photo, name = noise(seed=seed), f"{event}.png"
        if event == "choose":
            page.choose(png(photo), name)
        else:
            page.hand(event, png(photo), name)
        page.arrived(name)
        assert_shown(page, painted(photo))
    assert "40 x 30" in page.words("caption")
    assert page.sent == []


def test_every_style_is_shown_on_the_photo(visit):
    page = visit()
    photo = noise(40, 40)
    page.choose(png(photo))
    page.until("document.querySelectorAll('.style.filled:not(.waiting)').length === 2")
    for at, expected in enumerate([painted(photo), painted(photo, red=1)]):
        page.page.evaluate(f"document.querySelectorAll('.style canvas')[{at}].id = 'tile{at}'")
        assert np.abs(page.canvas(f"tile{at}")[5::10, 5::10, :3] - expected[5::10, 5::10]).max() <= 1


def test_strength_and_mix_answer(visit):
    page = visit()
    photo = noise()
    page.choose(png(photo))
    assert_shown(page.slide("strength", 0), photo)
    assert_shown(page.slide("strength", 40), painted(photo, strength=0.4))
    page.slide("strength", 100)
    page.page.click("label[for=slot-second]")
    page.page.click(".style:nth-child(2)")
    assert_shown(page.rest(), painted(photo, red=0.5))
    assert_shown(page.slide("share", 80), painted(photo, red=0.8))
    assert page.page.get_attribute("#share", "aria-valuetext") == "80 percent The red"
    shot(page, "mixed")
    page.page.click("#unmix")
    assert_shown(page.rest(), painted(photo))
    page.page.click(".style:nth-child(2)")
    assert_shown(page.rest(), painted(photo, red=1))


def in_the_photos_colours(photo: np.ndarray, share: float) -> np.ndarray:
    inverted = painted(photo).astype(np.uint8)
    return Colour("luminance", share).recolour(inverted, photo)


def test_the_photos_colours_come_back(visit):
    page = visit()
    photo = noise()
    page.choose(png(photo))
    for percent in (100, 60):
        assert_shown(page.slide("colours", percent), in_the_photos_colours(photo, percent / 100))
    shown = page.canvas("painted")[..., :3]
    assert np.abs(shown - painted(photo)).max() > 20, "60 % is not the painting's colours"
    label = page.page.get_attribute("#painted", "aria-label")
    assert label.endswith("strength 100 %, 60 % of the photo's colours")
    _, image = page.save()
    assert np.abs(np.asarray(image)[..., :3] - shown).max() <= 1
    shot(page, "colours")
    assert_shown(page.slide("colours", 0), painted(photo))


def test_a_preview_comes_while_the_slider_moves(visit):
    page = visit()
    page.choose(png(noise(900, 1200)))
    script = """async () => {
        const slider = document.querySelector("#strength");
        const seen = new Set();
        for (let value = 90; value >= 30; value -= 3) {
            slider.value = value;
            slider.dispatchEvent(new Event("input", { bubbles: true }));
            await new Promise((resolve) => setTimeout(resolve, 60));
            const context = document.querySelector("#painted").getContext("2d");
            seen.add(String(context.getImageData(5, 5, 1, 1).data));
        }
        return seen.size;
    }"""
    assert page.page.evaluate(script) >= 4
    page.rest()


def test_the_divider_follows_the_mouse_and_the_keyboard(visit):
    page = visit()
    page.choose(png(noise(300, 400)))
    x, y, width, height = page.box("plane")
    handle = page.box("handle")
    middle = y + height / 2

    def cut() -> float:
        left, _, wide, _ = page.box("handle")
        return left + wide / 2 - x

    page.drag((handle[0] + handle[2] / 2, middle), (x + 0.75 * width, middle))
    assert cut() == pytest.approx(0.75 * width, abs=3)
    page.page.focus("#divider")
    page.page.keyboard.press("Home")
    assert cut() == pytest.approx(0, abs=1)
    page.page.keyboard.press("End")
    assert cut() == pytest.approx(width, abs=1)
    page.drag((x + 0.5 * width, middle), (x + 0.25 * width, middle))
    assert cut() == pytest.approx(0.25 * width, abs=3)


def test_it_zooms_and_pans(visit):
    page = visit()
    page.choose(png(noise(300, 400)))
    _, _, whole, _ = page.box("plane")
    stage = page.box("stage")
    centre = (stage[0] + stage[2] / 2, stage[1] + stage[3] / 2)
    page.page.click("#zoom-in")
    assert page.box("plane")[2] == pytest.approx(1.4 * whole, rel=0.01)
    page.page.click("#zoom-out")
    assert page.box("plane")[2] == pytest.approx(whole, rel=0.01)
    page.page.mouse.move(*centre)
    page.page.mouse.wheel(0, -400)
    page.page.wait_for_timeout(100)
    wheeled = page.box("plane")
    assert wheeled[2] > 1.5 * whole
    start = (centre[0] + 200, centre[1] + 60)
    page.drag(start, (start[0] - 50, start[1] - 30))
    panned = page.box("plane")
    assert (panned[0] - wheeled[0], panned[1] - wheeled[1]) == pytest.approx((-50, -30), abs=2)
    shot(page, "zoomed")
    page.page.focus("#stage")
    page.page.keyboard.press("ArrowRight")
    assert page.box("plane")[0] == pytest.approx(panned[0] - 60, abs=2)
    page.page.keyboard.press("0")
    assert page.box("plane")[2] == pytest.approx(whole, rel=0.01)
    page.page.keyboard.press("+")
    assert page.box("plane")[2] > whole
    page.page.click("#zoom-fit")
    assert page.box("plane")[2] == pytest.approx(whole, rel=0.01)
    page.page.mouse.dblclick(centre[0] + 200, centre[1])
    assert page.box("plane")[2] > 1.9 * whole


def test_two_fingers_zoom(visit):
    page = visit(has_touch=True)
    page.choose(png(noise(300, 400)))
    _, _, whole, _ = page.box("plane")
    x, y, width, height = page.box("stage")
    cdp = page.page.context.new_cdp_session(page.page)
    for kind, apart in [("touchStart", 60), ("touchMove", 100), ("touchMove", 180), ("touchEnd", None)]:
        points = (
            []
            if apart is None
            else [{"x": x + width / 2 + sign * apart, "y": y + height / 2, "id": at} for at, sign in enumerate((-1, 1))]
        )
        cdp.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert page.box("plane")[2] > 1.8 * whole


@pytest.mark.parametrize(
    ("kind", "format", "off"), [("image/png", "PNG", 0), ("image/jpeg", "JPEG", 8), ("image/webp", "WEBP", 8)]
)
def test_it_saves_at_full_size(visit, kind, format, off):
    page = visit()
    photo = noise(1500, 2000)
    page.choose(png(photo), "my holiday.png")
    assert page.words("size").startswith("2000 x 1500")
    page.page.select_option("#format", kind)
    name, image = page.save()
    assert name == f"my holiday_invert.{ {'PNG': 'png', 'JPEG': 'jpg', 'WEBP': 'webp'}[format] }"
    assert (image.format, image.size) == (format, (2000, 1500))
    difference = np.abs(np.asarray(image.convert("RGB"))[5::10, 5::10] - painted(photo)[5::10, 5::10])
    assert np.median(difference) <= off
    assert page.words("status") == f"Saved {name}, 2000 x 1500."
    page.page.select_option("#size", "shown")
    page.slide("strength", 50)
    _, image = page.save()
    assert image.width < 2000


def test_a_photo_too_large_for_the_memory_is_saved_smaller_and_the_page_says_so(visit):
    limit = """
        actions.paint = async (job) => {
            if (job.width > 1600) throw new Error("out of memory");
            return paint(job);
        };"""

    def short_of_memory(page):
        def answer(route):
            response = route.fetch()
            route.fulfill(response=response, body=response.text() + limit)

        page.route("**/painter-worker.js", answer)

    page = visit(prepare=short_of_memory)
    page.choose(png(noise(1500, 2000)))
    _, image = page.save()
    assert image.size == (1414, 1061)
    words = "Saved photo_invert.png at 1414 x 1061, the largest that could be painted; the photo has 2000 x 1500."
    assert page.words("status") == words


def test_saving_is_cancelled(visit):
    page = visit()
    page.page.select_option("#pack", "classics")
    page.page.wait_for_timeout(200)
    page.rest()
    page.choose(png(noise(1500, 2000)))
    page.page.click("#save")
    page.page.wait_for_timeout(300)
    assert page.words("save") == "Cancel"
    shot(page, "saving")
    page.page.click("#save")
    page.until("document.querySelector('#status').textContent === 'Nothing was saved.'")
    page.slide("strength", 60)
    assert page.words("status").startswith("Painted at")


def test_the_golden_image_is_the_command_lines(visit, tmp_path):
    page = visit()
    page.page.select_option("#pack", "classics")
    page.page.wait_for_timeout(200)
    page.rest()
    with Image.open(ROOT / "inference/page/sample.jpg") as sample:
        photo = np.asarray(sample.resize((193, 127)))
    page.choose(png(photo))
    page.slide("strength", 85)
    _, image = page.save()
    expected = impasto.Stylizer(CLASSICS).stylize(photo, "starry_night", strength=0.85)
    assert np.abs(np.asarray(image).astype(int) - np.asarray(expected)).max() <= 2
    assert page.sent == []
    shot(page, "golden")


def test_orientation_is_respected(visit):
    page = visit()
    photo = noise(40, 60)
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways = Image.fromarray(np.rot90(photo))
    page.choose(encoded(sideways, "JPEG", quality=100, subsampling=0, exif=exif), "phone.jpg", "image/jpeg")
    shown = page.canvas("painted")
    assert shown.shape[:2] == (40, 60)
    assert np.abs(shown[5::10, 5::10, :3] - painted(photo)[5::10, 5::10]).max() <= 6


def test_transparency_is_kept_where_the_file_can(visit):
    page = visit()
    rgba = np.dstack([noise(), np.full((30, 40), 255, np.uint8)])
    rgba[:10, :, 3] = 0
    page.choose(png(rgba))
    assert page.page.input_value("#format") == "image/png"
    _, image = page.save()
    assert np.array_equal(np.asarray(image)[..., 3], rgba[..., 3])
    assert np.abs(np.asarray(image)[10:, :, :3] - painted(rgba[10:, :, :3])).max() <= 1
    page.page.select_option("#format", "image/jpeg")
    _, image = page.save()
    assert np.asarray(image)[:5].min() >= 240


@pytest.mark.parametrize(
    ("data", "name", "says"),
    [
        (b"this is no picture", "notes.png", "notes.png is not a picture that this browser can read"),
        (b"", "empty.jpg", "empty.jpg is empty"),
        (png(np.zeros((3, 5, 3), np.uint8)), "dot.png", "dot.png has 5 x 3 pixels; at least 16 a side are needed"),
        (png(noise())[:60], "torn.png", "torn.png is not a picture"),
    ],
)
def test_a_bad_file_costs_one_polite_line_and_not_the_photo(visit, data, name, says):
    page = visit()
    photo = noise()
    page.choose(png(photo))
    page.hand("drop", data, name)
    page.until("!document.querySelector('#problem').hidden")
    assert says in page.words("problem") and "\n" not in page.words("problem")
    assert np.abs(page.canvas("painted")[..., :3] - painted(photo)).max() <= 1
    shot(page, "problem")
    page.page.click("#dismiss")
    assert not page.page.is_visible("#problem")
    assert_shown(page.slide("strength", 50), painted(photo, strength=0.5))


def test_the_camera_is_painted_live_and_takes_a_photo(visit):
    page = visit(permissions=["camera"])
    page.page.click("#camera")
    page.until("/^[1-9][0-9.]* frames a second/.test(document.querySelector('#rate').textContent)")
    now = "document.querySelector('#photo').toDataURL()"
    assert page.canvas("painted").std() > 10
    page.until(f"document.querySelector('#photo').toDataURL() !== {page.page.evaluate(now)!r}")
    shot(page, "camera")
    page.page.click("#snap")
    page.arrived("camera.png")
    assert page.page.evaluate("document.activeElement.id") == "camera"
    page.page.click("#camera")
    page.until("document.querySelector('#rate').textContent !== ''")
    page.page.click("#leave")
    page.rest()
    assert "camera.png" in page.words("caption")
    assert page.sent == []


def test_a_camera_that_is_refused_costs_one_line(visit):
    refuse = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', 'NotAllowedError'); };"
    page = visit(prepare=lambda page: page.add_init_script(refuse))
    page.page.click("#camera")
    page.until("!document.querySelector('#problem').hidden")
    assert "was not allowed to use the camera" in page.words("problem")
    assert page.page.is_visible("#open")


def test_everything_is_reached_and_named_with_the_keyboard(visit):
    page = visit()
    page.page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(40):
        page.page.keyboard.press("Tab")
        at = page.page.evaluate("document.activeElement.id || document.activeElement.value")
        if at in reached:
            break
        reached.append(at)
    order = [
        "theme",
        "stage",
        "divider",
        "open",
        "camera",
        "zoom-out",
        "zoom-fit",
        "zoom-in",
        "pack",
        "invert",
        "slot-first",
        "strength",
        "colours",
        "size",
        "format",
        "save",
    ]
    assert [name for name in reached if name in order] == order
    page.page.focus("input[value=invert]")
    page.page.keyboard.press("ArrowRight")
    assert page.page.is_checked("input[value=red]")
    page.rest()
    shot(page, "keyboard")
    nameless = """[...document.querySelectorAll("button, input, select, [tabindex]")].filter((element) => {
        const labels = [...(element.labels ?? [])].map((label) => label.textContent).join("");
        return !(element.getAttribute("aria-label") || labels || element.textContent).trim();
    }).map((element) => element.outerHTML)"""
    assert page.page.evaluate(nameless) == []
    for name in ("status", "engine"):
        assert page.page.get_attribute(f"#{name}", "role") == "status"
    label = page.page.get_attribute("#painted", "aria-label")
    assert label == "lake painted in The red, strength 100 %"


def test_light_and_dark(visit):
    paper = "getComputedStyle(document.body).backgroundColor"
    light = visit(color_scheme="light")
    shot(light, "light")
    dark = visit(color_scheme="dark")
    shot(dark, "dark")
    assert light.page.evaluate(paper) == "rgb(247, 243, 234)"
    assert dark.page.evaluate(paper) == "rgb(21, 23, 28)"
    dark.page.click("#theme")
    assert dark.page.evaluate(paper) == "rgb(247, 243, 234)"
    dark.open()
    assert dark.page.evaluate(paper) == "rgb(247, 243, 234)"
    assert dark.page.get_attribute("#theme", "aria-pressed") == "false"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(visit, scheme):
    phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
    page = visit(color_scheme=scheme, permissions=["camera"], **phone)
    wide = """Math.max(document.documentElement.scrollWidth,
        ...[...document.querySelectorAll(".picture button, .save *")].map((e) => e.getBoundingClientRect().right))"""
    assert page.page.evaluate(wide) <= 390
    page.page.tap("label[for=slot-second]")
    page.page.tap(".style:nth-child(2)")
    page.rest()
    shot(page, f"phone_{scheme}")
    assert page.page.evaluate(wide) <= 390
    page.page.tap("#camera")
    page.until("document.querySelector('#rate').textContent !== ''")
    assert page.page.evaluate(wide) <= 390
    shot(page, f"phone_camera_{scheme}")


def test_it_works_offline_after_the_first_visit(visit):
    page = visit(service_workers="allow")
    page.until("document.querySelector('#engine-note').textContent.includes('Works offline')")
    page.page.context.set_offline(True)
    page.open()
    photo = noise()
    page.choose(png(photo))
    assert_shown(page, painted(photo))
    assert page.words("engine-name").startswith("In this browser")
    shot(page, "offline")


def test_without_the_runtime_the_server_paints(visit, bare):
    page = visit(bare)
    page.errors.clear()  # a browser reports the missing file by itself
    assert page.words("engine-name").startswith("On the server localhost:")
    assert "sent there" in page.words("engine-note")
    photo = noise()
    page.choose(png(photo))
    assert_shown(page, painted(photo))
    page.slide("strength", 40)
    assert_shown(page, painted(photo, strength=0.4))
    _, image = page.save()
    assert np.abs(np.asarray(image) - painted(photo, strength=0.4)).max() <= 1
    page.slide("strength", 100)
    assert_shown(page.slide("colours", 60), in_the_photos_colours(photo, 0.6))
    assert page.sent and all("/v1/stylize?" in url for url in page.sent)
    shot(page, "server")


def test_a_runtime_that_does_not_start_leaves_it_to_the_server(visit):
    page = visit(
        prepare=lambda page: page.route(
            "**/*.wasm", lambda route: route.fulfill(status=200, body="broken", content_type="application/wasm")
        )
    )
    page.errors.clear()
    assert page.words("engine-name").startswith("On the server")


def test_a_busy_server_is_asked_again(visit, bare):
    refused = []

    def busy(route):
        refused.append(route.request.url)
        if len(refused) == 1:
            return route.fulfill(
                status=503, headers={"Retry-After": "1"}, json={"title": "Busy", "detail": "try again"}
            )
        return route.continue_()

    page = visit(bare, prepare=lambda page: page.route("**/v1/stylize?*", busy))
    page.errors.clear()
    assert len(refused) > 1 and page.words("status").startswith("Painted at")
    page.page.unroute("**/v1/stylize?*")
    page.page.route(
        "**/v1/stylize?*",
        lambda route: route.fulfill(status=413, json={"title": "Too large", "detail": "at most 32 MiB"}),
    )
    page.page.focus("#strength")
    page.page.keyboard.press("ArrowLeft")
    page.until("!document.querySelector('#problem').hidden")
    assert "at most 32 MiB" in page.words("problem")
    page.errors.clear()
