"""The web page's files: whole, of one piece, and of nothing but themselves."""

from __future__ import annotations

import json
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "inference/page"
FILES = sorted(path for path in PAGE.iterdir() if path.is_file())
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in FILES if path.suffix != ".jpg"}
SCRIPTS = {name: text for name, text in TEXTS.items() if name.endswith(".js")}
THEMES = ("light", "dark")
AA = 4.5
"""The least contrast of text that WCAG 2.2 asks for at level AA; 3 for large text and for what is not text."""


class Markup(HTMLParser):
    """Tags with their attributes, and the text within scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""
        self.feed(TEXTS["index.html"])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in ("script", "style"):
            self.inline += data.strip()

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.tags if "id" in attributes]


MARKUP = Markup()


def test_nothing_comes_from_elsewhere():
    namespace = "http://www.w3.org/2000/svg"
    for name, text in TEXTS.items():
        assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text.replace(namespace, "")) == [], name
        assert "@import" not in text and not re.search(r"url\((?!['\"]?data:)", text), name


def test_the_markup_obeys_the_policy():
    """The content-security policy has no 'unsafe-inline': scripts and styles stand in files."""
    assert MARKUP.inline == ""
    for tag, attributes in MARKUP.tags:
        assert tag != "style" and "style" not in attributes, (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert tag != "script" or attributes.get("src")
    for name, text in SCRIPTS.items():
        assert not re.search(r"\beval\(|new Function|innerHTML|insertAdjacentHTML|setAttribute\(\"style\"", text), name


def test_every_id_is_there_once_and_every_reference_finds_one():
    ids = set(MARKUP.ids)
    assert len(ids) == len(MARKUP.ids)
    referred = {
        word
        for _, attributes in MARKUP.tags
        for name in ("for", "aria-labelledby", "aria-describedby", "aria-controls")
        for word in (attributes.get(name) or "").split()
    }
    for name in ("page.js", "stage.js", "styles.js"):
        for groups in re.findall(r"(?:\$|find)\(\"([\w-]+)\"\)|querySelector\(\"#([\w-]+)\"\)", TEXTS[name]):
            referred |= set(filter(None, groups))
    assert len(referred) > 30
    assert referred <= ids


def test_every_file_that_is_named_exists():
    named = {value for _, attributes in MARKUP.tags for key in ("src", "href") if (value := attributes.get(key))}
    for text in SCRIPTS.values():
        named |= set(re.findall(r"from \"\./([^\"]+)\"", text))
        named |= set(re.findall(r"new URL\(\"([\w.-]+\.js)\"", text))
    manifest = json.loads(TEXTS["manifest.webmanifest"])
    named |= {icon["src"] for icon in manifest["icons"]}
    assert named <= {path.name for path in FILES}


def test_every_file_is_kept_for_a_visit_offline():
    listed = re.search(r"const PAGE = \[(.*?)\]", TEXTS["service-worker.js"], re.DOTALL)
    assert listed
    kept = set(re.findall(r"\"([^\"]+)\"", listed[1]))
    files = {path.name for path in FILES} - {"index.html", "service-worker.js"}
    assert kept == files | {"./", "v1/styles"}


def test_the_files_are_packaged():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "page/*" in pyproject["tool"]["setuptools"]["package-data"]["impasto.inference"]


def test_every_control_has_a_name():
    labelled = {attributes.get("for") for tag, attributes in MARKUP.tags if tag == "label"}
    for tag, attributes in MARKUP.tags:
        if tag in ("input", "select"):
            assert attributes.get("aria-label") or attributes["id"] in labelled, attributes
        if tag == "button" and "round" in (attributes.get("class") or ""):
            assert attributes.get("aria-label"), attributes
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true", attributes


@pytest.mark.parametrize("theme", THEMES)
def test_text_stands_out(theme):
    colours = theme_colours(theme)
    for ink in ("ink", "soft"):
        for ground in ("paper", "card", "wall"):
            assert contrast(colours[ink], colours[ground]) >= AA, (ink, ground)
    for mark in ("blue", "green", "red"):
        assert contrast(colours[mark], colours["paper"]) >= 3, mark


def test_both_ways_to_the_dark_have_one_palette():
    blocks = re.findall(r"color-scheme: dark;([^}]*)}", TEXTS["page.css"])
    assert len(blocks) == 2 and len({" ".join(block.split()) for block in blocks}) == 1


def theme_colours(theme: str) -> dict[str, str]:
    block = re.search(rf"color-scheme: {theme};([^}}]*)}}", TEXTS["page.css"])
    assert block
    return dict(re.findall(r"--(\w+): (#\w{6})", block[1]))


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    values = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_contrast_is_that_of_the_standard():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
