from __future__ import annotations

import importlib.metadata
import json

import onnxruntime
import pytest
from click.testing import CliRunner, Result

from impasto import cli
from impasto.inference import providers
from impasto.inference.sessions import PROVIDERS


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["stylize", *arguments])


def with_builds(monkeypatch: pytest.MonkeyPatch, *installed: str) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_every_provider_is_listed_with_the_reason() -> None:
    result = run("--provider", "list")
    assert result.exit_code == 0, result.output
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert tuple(lines) == PROVIDERS[1:]
    assert lines["cpu"] == "runs"
    rows = json.loads(run("--provider", "list", "--json").stdout)
    assert {row["provider"]: row["reason"] or "runs" for row in rows} == lines
    assert all(row["runs"] == (row["reason"] == "") for row in rows)


def test_what_is_not_in_the_build_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    reasons = {row.provider: row.reason for row in providers.list_providers()}
    assert reasons["cpu"] == ""
    assert "not in this build" in reasons["cuda"] and "pip install onnxruntime-gpu" in reasons["cuda"]
    assert "macOS" in reasons["coreml"] and "onnxruntime-directml" in reasons["directml"]


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA may start here")
def test_what_is_listed_but_does_not_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    (cuda,) = [row for row in providers.list_providers() if row.provider == "cuda"]
    assert not cuda.runs and cuda.reason.startswith("installed, but does not start: ")


def test_openvino_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (row,) = [row for row in providers.list_providers() if row.provider == "openvino"]
    assert row.reason == "not installed: pip install 'impasto[openvino]'"


def test_builds_that_overwrite_each_other_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with_builds(monkeypatch, "onnxruntime")
    assert providers.clash() is None
    with_builds(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    said = (
        "onnxruntime 1.2.3 and onnxruntime-gpu 1.2.3 overwrite each other: pip uninstall onnxruntime onnxruntime-gpu, "
        "then install the one you want"
    )
    assert providers.clash() == said
    assert run("--provider", "list").stderr == f"Warning: {said}\n"


def test_an_error_leads_to_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    result = run("a.png", "-s", "starry_night", "--provider", "cuda")
    assert result.exit_code == 2
    assert result.stderr.endswith("it has: cpu (why: impasto stylize --provider list)\n")


def test_without_a_source_it_is_a_wrong_call() -> None:
    result = run()
    assert result.exit_code == 2 and "Missing argument 'SOURCE...'" in result.stderr
