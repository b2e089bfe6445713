"""What a browser is given, where the runtime comes from, and the command line."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import re
import shlex
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from conftest import write_pack
from serving import Process, client, decoded, encoded
from starlette.testclient import TestClient

from impasto import cli
from impasto.errors import ImpastoError, WrongCall
from impasto.inference.server import Settings, commands, pages, runtime
from impasto.inference.server.docs import EXAMPLES
from impasto.inference.server.problems import REASONS

CONTENTS = {name: f"contents of {name}".encode() for name in runtime.FILES}


def archive(contents: dict[str, bytes] = CONTENTS) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in contents.items() | {"other.js": b"not needed", "../evil.js": b"never"}.items():
            info = tarfile.TarInfo(f"package/dist/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def integrity(data: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No runtime is installed, neither for the user nor in the wheel; the registry is a file's folder, still empty."""
    monkeypatch.setenv("IMPASTO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(runtime, "IN_WHEEL", tmp_path / "wheel")
    monkeypatch.delenv("NPM_CONFIG_REGISTRY", raising=False)
    return tmp_path / "home"


@pytest.fixture
def registry(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A registry on this machine: address -> what it answers."""
    answers: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = answers.get(self.path)
            self.send_response(404 if data is None else 200)
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}/npm")
        yield answers
        server.shutdown()


SERVE_MD = Path(__file__).parents[1] / "docs/serve.md"
TARBALL = "/npm/onnxruntime-web/-/onnxruntime-web-1.30.0.tgz"


class TestRuntime:
    def test_fetched_compared_and_put_in_place(
        self, registry: dict[str, bytes], home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry[TARBALL] = archive()
        monkeypatch.setattr(runtime, "INTEGRITY", integrity(archive()))
        assert runtime.runtime_folder() is None
        for _ in range(2):  # the second replaces the first
            result = run("--install-runtime")
            assert result.exit_code == 0, result.output
        folder = home / "onnxruntime-web-1.30.0"
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == CONTENTS
        assert [path.name for path in home.iterdir()] == [folder.name]
        assert runtime.runtime_folder() == folder
        (folder / runtime.FILES[0]).unlink()
        assert runtime.runtime_folder() is None

    def test_another_archive_is_refused(self, registry: dict[str, bytes], home: Path) -> None:
        registry[TARBALL] = archive()
        with pytest.raises(ImpastoError, match="its SHA-512 is not the one"):
            runtime.install_runtime()
        assert not home.exists()

    def test_an_archive_without_a_file(
        self, registry: dict[str, bytes], home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry[TARBALL] = short = archive({runtime.FILES[0]: b"only this"})
        monkeypatch.setattr(runtime, "INTEGRITY", integrity(short))
        with pytest.raises(ImpastoError, match=r"has no dist/.*; nothing was installed"):
            runtime.install_runtime()
        assert list(home.iterdir()) == []

    def test_a_registry_that_is_not_there(self, registry: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
        result = run("--install-runtime")
        assert result.exit_code == 1 and "cannot be fetched: Not Found; npm_config_registry" in result.stderr
        monkeypatch.setenv("npm_config_registry", "somewhere")
        with pytest.raises(WrongCall, match="'somewhere'; expected an address such as https://registry.npmjs.org/"):
            runtime.registry()

    def test_the_public_registry_is_the_default(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("npm_config_registry", raising=False)
        assert runtime.registry() == "https://registry.npmjs.org/"
        assert len(base64.b64decode(runtime.INTEGRITY.removeprefix("sha512-"), validate=True)) == 64

    def test_served_or_said_how_to_have_it(self, server: TestClient, home: Path) -> None:
        missing = server.get("/ort/ort.wasm.min.mjs")
        assert missing.status_code == 404 and "impasto serve --install-runtime" in missing.json()["detail"]
        folder = runtime.installed_folder()
        folder.mkdir(parents=True)
        for name, data in CONTENTS.items():
            (folder / name).write_bytes(data)
        (folder / "secret.txt").write_text("secret")
        for name, data in CONTENTS.items():
            answer = server.get(f"/ort/{name}")
            assert answer.content == data
            expected = "application/wasm" if name.endswith(".wasm") else "text/javascript"
            assert answer.headers["content-type"].split(";")[0] == expected
            assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
            again = server.get(f"/ort/{name}", headers={"If-None-Match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        for name in ("secret.txt", "..%2fsecret.txt", "%2e%2e/secret.txt"):
            assert server.get(f"/ort/{name}").status_code == 404


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with client(write_pack(tmp_path_factory.mktemp("served"))) as one:
        yield one


class Links(HTMLParser):
    """Every address on a page, and its ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.add(tag)
        self.ids |= {value for name, value in attributes if name == "id"}
        self.addresses += [value for name, value in attributes if name in ("href", "src", "action")]


class TestPages:
    def test_the_page_and_its_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        page = tmp_path / "page"
        (page / "deep").mkdir(parents=True)
        (tmp_path / "secret.txt").write_text("secret")
        for name in ("index.html", "a.js", "b.mjs", "c.wasm", "deep/d.css", "m.webmanifest"):
            (page / name).write_text(name)
        monkeypatch.setattr(pages, "PAGE", page)
        with client(write_pack(tmp_path)) as one:
            assert one.get("/").text == "index.html"
            kinds = {"a.js": "text/javascript", "b.mjs": "text/javascript", "c.wasm": "application/wasm"}
            kinds |= {"deep/d.css": "text/css", "m.webmanifest": "application/manifest+json"}
            for name, kind in kinds.items():
                answer = one.get(f"/{name}")
                assert answer.text == name and answer.headers["content-type"].split(";")[0] == kind
            assert one.head("/a.js").headers["content-length"] == "4"
            for name in ("nothing.js", "..%2fsecret.txt", "%2e%2e/secret.txt", "deep"):
                answer = one.get(f"/{name}")
                assert answer.status_code in (404, 307) and "secret" not in answer.text, name
            assert one.get("/v1/stylize").status_code == 405
            assert one.post("/a.js").json()["reason"] == "wrong-method"

    def test_without_the_page_there_are_links(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pages, "PAGE", tmp_path)
        with client(write_pack(tmp_path)) as one:
            links = Links(one.get("/").text).addresses
            assert "/docs" in links and all(one.get(link).status_code == 200 for link in links)

    def test_docs_need_no_other_host_and_no_script(self, server: TestClient) -> None:
        answer = server.get("/docs")
        found = Links(answer.text)
        assert not {"script", "link", "img", "iframe"} & found.tags
        assert found.addresses and all(address.startswith("/") for address in found.addresses)
        assert server.get("/openapi.json").json()["info"]["title"] == "impasto"
        style = re.search("<style>(.*)</style>", answer.text, re.DOTALL)
        assert style is not None
        digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
        assert f"style-src 'sha256-{digest}'" in answer.headers["content-security-policy"]
        assert found.ids == set(REASONS)

    def test_every_example_is_of_an_operation(self, server: TestClient) -> None:
        operations = server.get("/openapi.json").json()["paths"]
        known = {f"{method} {path}" for path, methods in operations.items() for method in methods}
        assert set(EXAMPLES) <= known
        for path in ("/v1/stylize", "/v1/batch"):
            assert {"413", "415", "422", "503"} <= set(operations[path]["post"]["responses"])


@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples are for curl")
def test_the_examples_work(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(encoded("JPEG"))
    with Process("--pack", write_pack(tmp_path, "classics", ("starry_night", "red"))) as process:
        page = TextOnly(subprocess.run(["curl", "-s", f"{process.url}/docs"], capture_output=True, text=True).stdout)
        text = page.text + SERVE_MD.read_text().replace("localhost:8000", process.url)
        commands = [line for line in text.splitlines() if line.startswith("curl ")]
        assert len(commands) >= len(EXAMPLES) + 5
        for command in commands:
            arguments = [*shlex.split(command), "--silent", "--show-error", "--fail-with-body"]
            finished = subprocess.run(arguments, cwd=tmp_path, capture_output=True, check=False)
            assert finished.returncode == 0, (command, finished.stdout, finished.stderr)
    assert decoded((tmp_path / "painted.jpg").read_bytes()).shape == (20, 24, 3)
    assert decoded((tmp_path / "painted.webp").read_bytes()).shape == (20, 24, 3)


class TextOnly(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["serve", *arguments])


class TestCommand:
    def test_options_and_settings_are_the_same(self) -> None:
        options = {option.name: option for option in commands.serve.params if isinstance(option, click.Option)}
        others = {"host", "port", "install_runtime"}
        assert set(options) - others == {field.name for field in fields(Settings)}
        for field in fields(Settings):
            option = options[field.name]
            if not option.multiple:
                assert option.get_default(click.Context(commands.serve)) == field.default, field.name
        assert options["host"].default == "127.0.0.1"

    def test_errors_are_one_line(self, no_packs: Path) -> None:
        for arguments, code, expected in (
            ((), 1, "no style pack is installed"),
            (("--pack", "nothing"), 2, "unknown style or pack 'nothing'"),
            (("--workers", "0"), 2, "workers must be a number from 1 up"),
        ):
            result = run(*arguments)
            assert result.exit_code == code and expected in result.stderr and result.stderr.count("\n") == 1

    def test_who_it_answers(self) -> None:
        assert commands._hosts("127.0.0.1") == Settings().hosts and commands._hosts("0.0.0.0") == ("*",)
