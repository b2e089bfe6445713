"""The reference: what is wrong with a docstring or a link stops the build, and everything public is asked for."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from impasto.visualization import registry

mkdocs = pytest.importorskip("mkdocs", reason="needs the extra docs")
pytest.importorskip("mkdocstrings_handlers.python", reason="needs the extra docs")

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reference").glob("*.md")}

MODULE = '''"""A room."""

__all__ = ["LIMIT", "draw"]

LIMIT = 3
"""How many."""


def draw(count: int) -> str:
    """Draw something, up to `LIMIT`.

    Args:
        count: how many, see `draw`.
    """
    return "x" * count
'''
PAGE = "# Room\n\n::: room\n"


def config(folder: Path) -> Path:
    """Ours, of another folder: docs and package beside it."""
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    settings |= {"docs_dir": "docs", "site_dir": "site", "nav": [{"Start": "index.md"}]}
    handler = settings["plugins"][1]["mkdocstrings"]["handlers"]["python"]
    handler["paths"] = [str(folder / "source")]
    handler["options"]["extensions"] = [str(ROOT / ".ci" / "references.py")]
    path = folder / "mkdocs.yml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def build(folder: Path, module: str = MODULE, page: str = PAGE) -> str:
    """The page as it is built. Raises mkdocs' Abort if anything is said against it."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    (folder / "docs").mkdir()
    (folder / "source" / "room").mkdir(parents=True)
    (folder / "docs" / "index.md").write_text(page, encoding="utf-8")
    (folder / "source" / "room" / "__init__.py").write_text(module, encoding="utf-8")
    settings = load_config(str(config(folder)))
    settings.plugins.on_startup(command="build", dirty=False)
    build(settings)
    return (folder / "site" / "index.html").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_right_is_built_with_its_links_and_nothing_from_elsewhere(tmp_path):
    html = build(tmp_path)
    assert 'id="room.draw"' in html and re.search(r'href="#room\.LIMIT"[^>]*><code>LIMIT', html)
    loaded = re.findall(r'<(?:script|img|iframe|source)[^>]+src="([^"]+)"|<link[^>]+href="([^"]+)"', html)
    assert loaded and not [address for pair in loaded for address in pair if re.match(r"(https?:)?//", address)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("        count: how", "        number: how", "'number' does not appear in the function signature"),
        ("see `draw`", "see `drawn`", "`drawn` leads nowhere"),
        ("see `draw`", "see `room.drawn`", "`room.drawn` leads nowhere"),
        ('"""How many."""', "", "LIMIT is public and has no docstring"),
        ("::: room", "::: room.nowhere", "room.nowhere could not be found"),
        ("::: room", "[there](nowhere.md)", "'nowhere.md', but the target is not found"),
        ("::: room", "[there](#nowhere)", "'#nowhere', but there is no such anchor"),
    ],
)
def test_what_is_wrong_stops_the_build(right, wrong, said, tmp_path, caplog):
    from mkdocs.exceptions import Abort, BuildError

    assert right in MODULE + PAGE
    with pytest.raises((Abort, BuildError)):
        build(tmp_path, MODULE.replace(right, wrong), PAGE.replace(right, wrong))
    assert said in caplog.text


def test_every_technique_is_asked_for():
    asked = re.findall(r"^::: (\S+)$", PAGES["techniques"], re.MULTILINE)
    functions = [registry[name].function for name in registry]
    assert sorted(asked) == sorted(f"{function.__module__}.{function.__name__}" for function in functions)


def test_every_room_is_asked_for():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rooms = set(settings["tool"]["setuptools"]["packages"]) - {"impasto.checkpoints"}
    assert rooms <= set(re.findall(r"^::: (\S+)$", "\n".join(PAGES.values()), re.MULTILINE))


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert pages == set(re.findall(r"(\S+\.md)$", text, re.MULTILINE))
