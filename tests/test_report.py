"""The report: what is run, kept, refused and left out; and its page, by what it says and by what it makes again."""

from __future__ import annotations

import hashlib
import html
import json
import re
import shlex
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from looking import tiny_model, write_photos
from PIL import Image
from torch import Tensor

from impasto.cli import main
from impasto.errors import Interrupted, MissingExtra, PictureError, WrongCall
from impasto.visualization import Result, load_model, page_commands, registry, report_page, reports
from impasto.visualization.inputs import Pictures
from impasto.visualization.progress import track
from impasto.visualization.registry import Card, Refused, Registry, Technique, technique
from impasto.visualization.reports import report

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

CALLS: list[str] = []


def drawn(shade: int = 0, **data: Any) -> Result:
    return Result(
        {"drawn": Image.new("RGB", (20, 10), (shade, 0, 0))}, data, caption="It <is> & was.", command="see it"
    )


@technique("V01", "weights")
def plain(model: Any) -> Result:
    """Draw <something>."""
    CALLS.append("plain")
    return drawn(1, layer="a<b", error=1.23456789e-7, many=list(range(99)), few=[1.5, 2.0], right=True)


@technique("V13", "attribution")
def of_photo(model: Any, picture: Tensor) -> Result:
    """Look at the photo."""
    CALLS.append("of_photo")
    frames = [Image.new("RGB", (20, 10), (0, shade, 0)) for shade in (0, 200)]
    return Result({"seen": Image.effect_noise((1500, 90), 90).convert("RGB")}, frames=frames, caption="Large.")


@technique("V05", "activations")
def of_many(model: Any, pictures: Pictures) -> Result:
    """Look at many."""
    CALLS.append("of_many")
    return drawn(len(pictures))


@technique("V15", "attribution")
def refusing(model: Any, picture: Tensor) -> Result:
    """Refuse."""
    CALLS.append("refusing")
    raise Refused("refusing: this network has no <head>; use another")


@technique("V16", "attribution")
def wanting(model: Any) -> Result:
    """Want an option."""
    raise WrongCall("wanting: expected a class")


@technique("V17", "attribution")
def lacking(model: Any) -> Result:
    """Lack a package."""
    raise MissingExtra("lacking", "see", "absent")


@technique("V18", "attribution")
def broken(model: Any) -> Result:
    """Break."""
    CALLS.append("broken")
    raise ZeroDivisionError("nobody foresaw it")


@technique("V21", "synthesis")
def slow(model: Any) -> Result:
    """Take its time."""
    CALLS.append("slow")
    for _ in track(range(100), 100, "steps"):
        time.sleep(0.01)
    return drawn(9)


FAKES = {each.__name__: each for each in (plain, of_many, of_photo, refusing, wanting, lacking, broken, slow)}
READS = {"of_many": "pictures", "of_photo": "one picture", "refusing": "one picture"}
FAMILY = {"plain": "weights", "of_many": "activations", "slow": "synthesis"}


class Fakes(Registry):
    """Techniques of which it is known what becomes of them."""

    def __init__(self) -> None:
        self.cards = {
            name: Card(
                name, f"V{at:02}", FAMILY.get(name, "attribution"), (function.__doc__ or "").strip(),
                READS.get(name, "nothing"), False, "impasto.visualization.weights",
            )
            for at, (name, function) in enumerate(FAKES.items())
        }  # fmt: skip

    def __getitem__(self, name: str) -> Technique:
        return Technique(self.cards[name], FAKES[name], {})


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with a photo, other photos, and techniques that are fakes."""
    fakes = Fakes()
    monkeypatch.setattr(reports, "registry", fakes)
    monkeypatch.setattr(report_page, "registry", fakes)
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos")
    (tmp_path / "photos/02.png").rename(tmp_path / "a photo.png")
    CALLS.clear()
    return tmp_path


def run(images: str | None = "photos", **options: Any) -> dict[str, Any]:
    model = tiny_model()
    return {entry.name: entry for entry in report("a photo.png", images, model=model, output="out", **options)}


class TestWhatBecomesOfEach:
    def test_states_and_reasons(self, place):
        found = run(limit=0)
        assert {name: entry.state for name, entry in found.items()} == {
            "plain": "done", "of_photo": "done", "of_many": "done", "refusing": "refused", "wanting": "skipped",
            "lacking": "skipped", "broken": "failed", "slow": "done",
        }  # fmt: skip
        assert found["refusing"].reason == "refusing: this network has no <head>; use another"
        assert found["wanting"].reason == "wanting: expected a class"
        assert "pip install 'impasto[see]'" in found["lacking"].reason
        assert found["broken"].reason == "ZeroDivisionError: nobody foresaw it"
        assert set(found["of_photo"].files) == {"seen.png", "frames.webp", "data.json"}
        content = Path("out/plain/drawn.png").read_bytes()
        assert found["plain"].files["drawn.png"] == hashlib.sha256(content).hexdigest()

    def test_without_other_photos(self, place):
        found = run(images=None, only=["of-many", "plain"])
        assert found["of_many"].state == "skipped" and "--images" in found["of_many"].reason
        assert found["plain"].state == "done" and found["slow"].reason == "it was not asked for (--only)"
        assert CALLS == ["plain"]

    def test_families_may_be_named(self, place):
        assert {name for name, entry in run(only=["attribution"], limit=0).items() if "--only" not in entry.reason} == {
            "of_photo", "refusing", "wanting", "lacking", "broken",
        }  # fmt: skip

    def test_a_long_one_is_run_when_it_is_asked_for(self, place, monkeypatch):
        monkeypatch.setattr(reports, "LONG", ("slow",))
        entry = run(limit=0)["slow"]
        assert entry.state == "skipped" and entry.reason == "it takes minutes: add it with --only slow --limit 0"
        assert run(only=["slow"], limit=0)["slow"].state == "done"
        assert run(limit=0)["slow"].state == "done", "and stays"

    def test_one_that_takes_too_long_is_stopped(self, place):
        began = time.monotonic()
        entry = run(only=["slow"], limit=0.1)["slow"]
        assert time.monotonic() - began < 0.9, "all of it takes a second"
        assert entry.state == "skipped"
        assert re.fullmatch(r"it was stopped after 0.1 s, at steps \d+ of 100; see --limit", entry.reason)

    def test_it_tells_how_far_it_is(self, place):
        told: list[tuple[float, str, Any]] = []
        run(only=["plain", "slow"], limit=0, tell=lambda *each: told.append(each))
        shares = [share for share, _, _ in told]
        assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1
        assert shares[1] == 1 / 2 and shares[50] == pytest.approx(1 / 2 + 48 / 200), "one of two, and 48 % of the other"
        assert [(text, entry.state) for _, text, entry in told if entry] == [("plain", "done"), ("slow", "done")]
        assert told[60][1] == "slow: steps" and told[60][2] is None


class TestGoingOn:
    def test_nothing_is_done_twice(self, place):
        run(limit=0)
        before = {path: path.stat().st_mtime_ns for path in Path("out").glob("*/*")}
        CALLS.clear()
        found = run(limit=0)
        assert CALLS == ["broken"], "what failed is tried again"
        assert found["plain"].state == "done" and found["refusing"].reason.startswith("refusing: this network")
        assert before == {path: path.stat().st_mtime_ns for path in Path("out").glob("*/*")}

    def test_but_for_what_its_input_has_changed(self, place):
        run(only=["plain", "of_photo", "of_many"])
        CALLS.clear()
        write_photos(place / "photos", 4)
        run(only=["plain", "of_photo", "of_many"])
        assert CALLS == ["of_many"]
        CALLS.clear()
        (place / "photos/03.png").replace(place / "a photo.png")
        run(only=["plain", "of_photo"])
        assert CALLS == ["of_photo"]

    def test_and_what_was_altered(self, place):
        run(only=["plain", "of_photo", "of_many"])
        CALLS.clear()
        Path("out/plain/drawn.png").write_bytes(b"other")
        Path("out/of_many/data.json").unlink()
        found = run(only=["plain", "of_photo", "of_many"])
        assert CALLS == ["plain", "of_many"] and {found[name].state for name in CALLS} == {"done"}

    def test_another_network_makes_all_anew(self, place):
        run(only=["plain"])
        model = tiny_model()
        model.network.linear.bias.data[0] += 1
        report("a photo.png", model=model, output="out", only=["plain"])
        assert CALLS == ["plain", "plain"]

    def test_more_time_is_another_try(self, place):
        run(only=["slow"], limit=0.1)
        run(only=["slow"], limit=0.1)
        assert CALLS == ["slow"]
        assert run(only=["slow"], limit=60)["slow"].state == "done"

    def test_ctrl_c_keeps_what_there_is(self, place, monkeypatch):
        def interrupted(model: Any) -> Result:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setitem(FAKES, "wanting", interrupted)
            with pytest.raises(Interrupted, match=r"stopped after 4 of 8 techniques; out/index.html .* same call"):
                run(limit=0)
        text = Path("out/index.html").read_text()
        assert "4 not yet run" in text and 'id="slow" class="waiting"' in text
        CALLS.clear()
        assert run(limit=0)["slow"].state == "done" and CALLS == ["broken", "slow"]

    @pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"plain": 3}', b'{"plain": {"x": 1}}', b"\xff"])
    def test_a_record_that_cannot_be_read_is_none(self, place, content):
        Path("out").mkdir()
        Path("out/report.json").write_bytes(content)
        assert run(only=["plain"])["plain"].state == "done"


class TestWrongCalls:
    def test_each_before_anything_is_written(self, place):
        model = tiny_model()
        with pytest.raises(PictureError, match=r"absent.png: cannot be read"):
            report("absent.png", model=model, output="out")
        with pytest.raises(PictureError, match="empty: expected a picture, or a folder with pictures"):
            report("a photo.png", "empty", model=model, output="out")
        with pytest.raises(WrongCall, match="unknown technique or family 'plane'. Did you mean 'plain'"):
            report("a photo.png", model=model, output="out", only=["plane"])
        assert not Path("out").exists()


class Tags(HTMLParser):
    """The tags of a page, and the attributes that load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "poster", "data", "action") or (name == "href" and tag != "a"):
                self.loaded.append(value or "")
            if name == "href" and tag == "a":
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            assert not name.startswith("on"), "no script in an attribute"


class TestPage:
    def test_it_holds_all_and_loads_nothing(self, place):
        run(limit=0)
        text = Path("out/index.html").read_text(encoding="utf-8")
        page = Tags(text)
        assert "script" not in page.tags and "iframe" not in page.tags and "form" not in page.tags
        assert page.loaded and all(
            re.match(r"data:image/(png|webp);base64,[A-Za-z0-9+/=]+$", url) for url in page.loaded
        )
        assert "@import" not in text and "url(" not in text and "http://" not in text and "https://" not in text
        assert sorted(page.ids) == sorted(FAKES) and sorted(page.links) == sorted(f"#{name}" for name in FAKES)
        assert page.tags.count("img") == 6, "the photo, three drawings, a large one and its film"
        assert "prefers-color-scheme: dark" in text

    def test_what_it_says(self, place):
        run(limit=0)
        text = Path("out/index.html").read_text(encoding="utf-8")
        assert "Of 8 techniques: 4 done, 1 refused (no meaning here), 2 left out, 1 failed." in text
        assert "this network has no &lt;head&gt;; use another" in text and "It &lt;is&gt; &amp; was." in text
        assert "<head>; use" not in text and "a photo.png" in text
        assert "<th>layer</th><td>a&lt;b</td>" in text and "<th>error</th><td>1.235e-07</td>" in text
        assert "<th>few</th><td>1.5, 2</td>" in text and "<th>right</th><td>yes</td>" in text
        assert "<th>many</th>" not in text, "long lists stay in the file"
        assert "1500 &times; 90 pixels in the file" in text
        assert len(text) < 3_000_000, "large pictures are reduced"
        assert "acorn" in text or "broom" in text, "the likeliest classes"

    def test_a_network_without_classes(self, place):
        model = load_model(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3)), size=32)
        report("a photo.png", model=model, output="out", only=["plain"])
        assert "it names no classes" in Path("out/index.html").read_text()


SMALL = ("--model", "squeezenet1_1", "--weights", "none", "--size", "64")


class TestCommand:
    @pytest.fixture
    def here(self, tmp_path, monkeypatch) -> Path:
        pytest.importorskip("torchvision")
        write_photos(tmp_path / "photos", 3)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    def see(self, *words: str) -> Any:
        return CliRunner().invoke(main, ["see", *words], catch_exceptions=False)

    def test_each_command_on_the_page_makes_the_same_files(self, here):
        asked = "filters,saliency,activation-maps,top-patches,cam"
        finished = self.see("report", "photos/00.png", "--images", "photos", *SMALL, "--only", asked)
        assert finished.exit_code == 0, finished.output
        text = Path("see/report/00/index.html").read_text(encoding="utf-8")
        assert sorted(Tags(text).ids) == sorted(registry), "every technique is on it"
        articles = re.findall(r'<article id="(\w+)" class="done">(.*?)</article>', text, re.DOTALL)
        assert {"filters", "saliency", "activation_maps", "top_patches"} <= {name for name, _ in articles}
        for name, article in articles:
            (command,) = re.findall(r'<code class="command">(.*?)</code>', article)
            shown = dict(re.findall(r'title="SHA-256 of (\S+): (\w{64})"', article))
            words = shlex.split(html.unescape(command))
            assert words[:2] == ["impasto", "see"] and shown
            assert self.see(*words[2:], "-o", f"again/{name}").exit_code == 0
            for file, digest in shown.items():
                assert hashlib.sha256(Path("again", name, file).read_bytes()).hexdigest() == digest, (name, file)

    def test_for_programs_and_its_progress(self, here):
        words = ("report", "photos/00.png", *SMALL, "--only", "filters,receptive-field", "-o", "out")
        finished = self.see(*words, "--json")
        found = json.loads(finished.stdout)
        assert found["page"] == "out/index.html"
        states = {entry["name"]: entry["state"] for entry in found["techniques"]}
        assert states["filters"] == "done" and len(states) == len(registry)
        assert re.search(r"filters: done, \d+\.\d s, about 0:\d\d:\d\d left", finished.stderr)
        assert "filters: done" not in self.see(*words).stderr, "it is there already"

    def test_a_failure_is_said_and_exits_1(self, place, monkeypatch):
        monkeypatch.setattr(page_commands, "network_of", lambda **options: tiny_model())
        finished = self.see("report", "a photo.png", "--only", "broken,plain", "-o", "out")
        assert finished.exit_code == 1 and "Error: 1 of 8 techniques failed; out/index.html says how" in finished.stderr

    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            ((), 2, "Missing argument 'PHOTO'"),
            (("absent.png", *SMALL), 1, "absent.png: cannot be read"),
            (("photos/00.png", *SMALL, "--only", "salience"), 2, "Did you mean 'saliency'?"),
            (("photos/00.png", *SMALL, "--limit", "-1"), 2, "--limit"),
            (("photos/00.png", *SMALL, "-o", "photos/00.png"), 2, "is a file, expected a folder"),
            (("photos/00.png", "--model", "squeezenet"), 2, "unknown network 'squeezenet'"),
        ],
    )
    def test_one_line_that_says_what_to_do(self, here, words, code, message):
        finished = self.see("report", *words)
        assert finished.exit_code == code and message in finished.stderr and "Traceback" not in finished.output
        assert not Path("see").exists()


def test_the_options_it_gives_are_the_techniques_own():
    """Whoever renames an option or a technique renames it here too."""
    names = {*reports.QUICK, *reports.NEEDED, *reports.OF_THE_PHOTO, *reports.LONG}
    assert names <= set(registry)
    for name, options in reports.QUICK.items():
        assert set(options) <= set(registry[name].options), name
    for name, option in reports.NEEDED.items():
        assert option in registry[name].options
