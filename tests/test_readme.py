"""The README's commands and imports exist."""

import ast
import importlib
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every command of the bash blocks, as words; a trailing backslash goes on, what follows # is a remark."""
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [[word for word in line if "=" not in word or line.index(word)] for line in words if line]


def imports() -> list[ast.Import | ast.ImportFrom]:
    trees = [ast.parse(block) for block in blocks("python")]
    return [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


@cache
def help_of(*words: str) -> str:
    finished = subprocess.run([sys.executable, "-m", "impasto", *words, "--help"], capture_output=True, text=True)
    assert finished.returncode == 0, f"impasto {' '.join(words)} --help: {finished.stderr}"
    return finished.stdout


def test_there_is_something_to_try():
    assert any(command[0] == "impasto" for command in commands()), "README.md: no ```bash block with an impasto command"
    assert imports(), "README.md: no ```python block with an import"


@pytest.mark.parametrize("command", [c for c in commands() if c[0] == "impasto"], ids=" ".join)
def test_command_and_its_flags_exist(command):
    text = help_of(command[1])
    if "COMMAND [ARGS]..." in text:
        text = help_of(*command[1:3])
    for flag in (word.partition("=")[0] for word in command[2:] if re.match(r"--?[a-z]", word)):
        assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", text), f"{flag} is no flag of impasto {command[1]}"


@pytest.mark.parametrize("command", [c for c in commands() if c[0] == "make"], ids=" ".join)
def test_make_target_exists(command):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {word for word in command[1:] if "=" not in word} <= set(targets)


@pytest.mark.parametrize("statement", imports(), ids=ast.unparse)
def test_import_works(statement):
    exec(ast.unparse(statement), {})


def test_names_taken_from_the_package_exist():
    package = importlib.import_module("impasto")
    for block in blocks("python"):
        for name in re.findall(r"\bimpasto\.([A-Z]\w*)", block):
            assert hasattr(package, name), f"impasto.{name}"
