"""The API: what it answers to good requests and to bad ones, in process."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MakePack, bad_files, other_graph, write_pack
from PIL import Image
from serving import GREY, INVERTED, client, decoded, encoded, wait_until
from starlette.testclient import TestClient

from impasto.errors import PackError, WrongCall
from impasto.inference.server import Settings, create_app
from impasto.inference.server.admission import Quota
from impasto.inference.server.problems import REASONS
from impasto.packs import PAINT

PNG = {"Content-Type": "image/png"}
pytestmark = pytest.mark.usefixtures("no_packs")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pack(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def server(pack: Path) -> Any:
    with client(pack, max_pixels=100_000, max_bytes=200_000) as one:
        yield one


def refused(response: Any, status: int, reason: str) -> str:
    """The detail of a problem, after checking that it is a whole one."""
    body = response.json()
    assert (response.status_code, body["reason"]) == (status, reason), body
    assert response.headers["content-type"] == "application/problem+json"
    assert body["status"] == status and REASONS[reason] == (status, body["advice"])
    assert body["type"] == f"/docs#{reason}" and body["title"]
    assert "\n" not in body["detail"]
    return body["detail"]


class TestStylize:
    @pytest.mark.parametrize("format", ["jpeg", "png", "webp"])
    def test_a_picture_comes_back_in_its_own_format(self, server: TestClient, format: str) -> None:
        body = encoded(format.upper(), quality=100)
        response = server.post("/v1/stylize?style=invert", content=body, headers={"Content-Type": f"image/{format}"})
        assert response.status_code == 200 and response.headers["content-type"] == f"image/{format}"
        assert Image.open(io.BytesIO(response.content)).format == format.upper()
        painted = decoded(response.content)
        assert painted.shape == (20, 24, 3)
        assert np.abs(painted.astype(int) - INVERTED).max() <= 2

    @pytest.mark.parametrize("format", ["jpeg", "png", "webp"])
    def test_or_in_the_one_asked_for(self, server: TestClient, format: str) -> None:
        response = server.post(f"/v1/stylize?style=invert&format={format}", content=encoded(), headers=PNG)
        assert Image.open(io.BytesIO(response.content)).format == format.upper()

    def test_styles_mix_and_strength_goes_in_between(self, server: TestClient) -> None:
        # as in test_stylizer: three parts invert, one part red, half the way from 100
        query = "style=invert:3,red:1&strength=0.5&pack=tiny"
        response = server.post(f"/v1/stylize?{query}", content=encoded(), headers=PNG)
        assert tuple(decoded(response.content)[0, 0]) == (140, 108, 108)

    def test_a_form_says_the_same(self, server: TestClient) -> None:
        fields = {"style": "invert:3,red:1", "strength": "0.5", "format": "png"}
        form = server.post("/v1/stylize", data=fields, files={"picture": ("a.webp", encoded("WEBP", lossless=True))})
        assert form.headers["content-type"] == "image/png"
        assert tuple(decoded(form.content)[0, 0]) == (140, 108, 108)

    def test_a_field_counts_before_a_parameter(self, server: TestClient) -> None:
        files = {"picture": ("a.png", encoded())}
        response = server.post("/v1/stylize?style=red&strength=0", data={"strength": "1"}, files=files)
        assert tuple(decoded(response.content)[0, 0]) == (255, 0, 0)

    def test_pack_and_style_in_one_word(self, server: TestClient) -> None:
        response = server.post("/v1/stylize?style=tiny/red", content=encoded(), headers=PNG)
        assert tuple(decoded(response.content)[0, 0]) == (255, 0, 0)

    def test_transparency_is_kept(self, server: TestClient) -> None:
        image = Image.new("RGBA", (20, 20), (GREY, GREY, GREY, 77))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        response = server.post("/v1/stylize?style=invert", content=buffer.getvalue(), headers=PNG)
        assert tuple(decoded(response.content)[0, 0]) == (INVERTED, INVERTED, INVERTED, 77)
        query = "/v1/stylize?style=invert&format=jpeg"
        detail = refused(server.post(query, content=buffer.getvalue(), headers=PNG), 422, "wrong-parameter")
        assert "transparent" in detail

    def test_the_photos_colours_are_kept(self, server: TestClient) -> None:
        """Red (255, 0, 0) has luma 76.245; a grey photo has no colour."""
        buffer = io.BytesIO()
        Image.new("RGB", (20, 16), (90, 90, 90)).save(buffer, "PNG")
        for color, pixel in (("style", (255, 0, 0)), ("luminance", (76, 76, 76)), ("luminance:0.5", (166, 38, 38))):
            response = server.post(f"/v1/stylize?style=red&color={color}", content=buffer.getvalue(), headers=PNG)
            assert Image.open(io.BytesIO(response.content)).getpixel((3, 4)) == pixel

    def test_what_it_took_is_said(self, server: TestClient) -> None:
        response = server.post("/v1/stylize?style=red", content=encoded(), headers=PNG)
        timing = response.headers["server-timing"]
        assert [entry.split(";")[0] for entry in timing.split(", ")] == ["read", "queue", "decode", "paint", "encode"]
        assert len(response.headers["x-request-id"]) == 16 and response.headers["cache-control"] == "no-store"


class TestRefusals:
    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("", "several styles; choose one of: invert, red"),
            ("style=inverse", "Did you mean 'invert'"),
            ("style=invert:x", "is not a number"),
            ("style=invert:0", "sum to 0"),
            ("style=invert,invert", "stands twice"),
            ("style=other/invert", "unknown style 'other/invert'"),
            ("style=red&pack=tinny", "Did you mean 'tiny'"),
            ("style=red&strength=1.5", "strength: "),
            ("style=red&strength=nan", "strength: "),
            ("style=red&strength=high", "strength: "),
            ("style=red&format=gif", "format: "),
            ("style=red&strenght=0.5", "unknown parameter 'strenght'; expected style, strength, color, pack, format"),
            ("style=red&color=photo", "unknown color 'photo'"),
            ("style=red&color=match:2", "the share of match is 2; expected 0 to 1"),
        ],
    )
    def test_wrong_parameters(self, server: TestClient, query: str, expected: str) -> None:
        raw = server.post(f"/v1/stylize?{query}", content=encoded(), headers=PNG)
        assert expected in refused(raw, 422, "wrong-parameter")
        fields = dict(part.split("=") for part in query.split("&") if part)
        form = server.post("/v1/stylize", data=fields, files={"picture": ("a.png", encoded())})
        assert expected in refused(form, 422, "wrong-parameter")

    @pytest.mark.parametrize("name", sorted(bad_files()))
    def test_bad_files(self, server: TestClient, name: str) -> None:
        data, _ = bad_files()[name]
        response = server.post("/v1/stylize?style=red", content=data, headers=PNG)
        expected = {
            "empty.jpg": (400, "malformed"),
            "text.png": (415, "not-a-picture"),
            "truncated.tif": (415, "not-a-picture"),
            "bomb.png": (413, "too-many-pixels"),
        }
        refused(response, *expected.get(name, (422, "damaged-picture")))

    def test_kinds_of_pictures_that_are_not_taken(self, server: TestClient) -> None:
        for format in ("GIF", "BMP", "TIFF"):
            response = server.post("/v1/stylize?style=red", content=encoded(format), headers=PNG)
            assert "expected jpeg, png, webp" in refused(response, 415, "not-a-picture")

    def test_wrong_types_of_bodies(self, server: TestClient) -> None:
        for kind in ("text/plain", "application/json", "application/x-www-form-urlencoded"):
            response = server.post("/v1/stylize?style=red", content=encoded(), headers={"Content-Type": kind})
            assert kind in refused(response, 415, "wrong-type")
        headers = PNG | {"Content-Encoding": "gzip"}
        refused(server.post("/v1/stylize?style=red", content=encoded(), headers=headers), 415, "wrong-type")

    def test_pixels_are_limited_by_the_header(self, server: TestClient) -> None:
        kept = encoded(size=(400, 250))
        assert server.post("/v1/stylize?style=red", content=kept, headers=PNG).status_code == 200
        over = server.post("/v1/stylize?style=red", content=encoded(size=(400, 251)), headers=PNG)
        assert "expected at most 100000" in refused(over, 413, "too-many-pixels")

    def test_bytes_are_limited_said_or_not(self, server: TestClient) -> None:
        limit = 200_000 + 64 * 1024
        over = b"\0" * (limit + 1)
        refused(server.post("/v1/stylize?style=red", content=over, headers=PNG), 413, "too-large")
        parts = iter([over[:100_000], over[100_000:]])
        refused(server.post("/v1/stylize?style=red", content=parts, headers=PNG), 413, "too-large")
        kept = server.post("/v1/stylize?style=red", content=over[:limit], headers=PNG)
        refused(kept, 415, "not-a-picture")

    def test_a_jpeg_of_a_thousand_scans(self, server: TestClient) -> None:
        image = encoded("JPEG", progressive=True)
        scan = image.index(b"\xff\xda")
        response = server.post("/v1/stylize?style=red", content=image[:-2] + image[scan:-2] * 100, headers=PNG)
        assert "scans" in refused(response, 422, "damaged-picture")

    @pytest.mark.parametrize(
        ("body", "kind", "expected"),
        [
            (b"", "multipart/form-data", "no boundary"),
            (b"nothing", "multipart/form-data; boundary=x", "cannot be read"),
            (b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\nabc', None, "breaks off"),
            (b'--x\r\nContent-Disposition: form-data; name="style"\r\n\r\nred\r\n--x--', None, "0 files"),
            (b"--x\r\nContent-Disposition: form-data\r\n\r\nred\r\n--x--", None, "name"),
            (b'--x\r\nContent-Disposition: attachment; name="style"\r\n\r\nred\r\n--x--', None, ""),
        ],
    )
    def test_forms_that_are_none(self, server: TestClient, body: bytes, kind: str | None, expected: str) -> None:
        headers = {"Content-Type": kind or "multipart/form-data; boundary=x"}
        response = server.post("/v1/stylize?style=red", content=body, headers=headers)
        detail = refused(response, 400, "malformed")
        assert not expected or any(part in detail for part in expected.split("|"))

    def test_forms_with_too_much(self, server: TestClient) -> None:
        two = [("picture", ("a.png", encoded())), ("picture", ("b.png", encoded()))]
        refused(server.post("/v1/stylize?style=red", files=two), 413, "too-large")
        stray = server.post("/v1/stylize?style=red", files={"photo": ("a.png", encoded())})
        assert "'photo'" in refused(stray, 422, "wrong-parameter")
        text = server.post("/v1/stylize?style=red", files={"picture": (None, "text")})
        assert "with a file name" in refused(text, 422, "wrong-parameter")
        fields = {f"f{index}": "x" for index in range(20)}
        refused(server.post("/v1/stylize", data=fields, files={"picture": ("a", b"x")}), 413, "too-large")

    def test_what_is_not_there(self, server: TestClient) -> None:
        refused(server.get("/v1/nothing"), 404, "not-found")
        refused(server.get("/v1/packs/tinny/paint.onnx"), 404, "not-found")
        assert server.get("/v1/stylize").headers["allow"] == "POST"
        refused(server.get("/v1/stylize"), 405, "wrong-method")

    def test_a_defect_is_one_line_and_a_number(self, pack: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
        def broken(*_: object, **__: object) -> None:
            raise RuntimeError("a secret")

        monkeypatch.setattr("impasto.inference.server.painting.decode", broken)
        with client(pack) as one:
            response = one.post("/v1/stylize?style=red", content=encoded(), headers=PNG)
        assert "a secret" not in response.text and "content-security-policy" in response.headers
        assert response.headers["x-request-id"] in refused(response, 500, "failed")
        assert "a secret" in caplog.text and response.headers["x-request-id"] in caplog.text


class TestStyles:
    def test_what_is_served(self, server: TestClient, pack: Path) -> None:
        (entry,) = server.get("/v1/styles").json()["packs"]
        data = (pack / PAINT).read_bytes()
        assert (entry["name"], entry["network"], entry["size_bytes"]) == ("tiny", "fast", len(data))
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert [style["name"] for style in entry["styles"]] == ["invert", "red"]
        assert entry["styles"][0] | {"title": "The invert", "painter": "Nobody", "year": "1900"} == entry["styles"][0]
        model = server.get(entry["model"])
        assert model.content == data and model.headers["etag"] == f'"{entry["sha256"]}"'
        again = server.get(entry["model"], headers={"If-None-Match": f'"x", W/"{entry["sha256"]}"'})
        assert (again.status_code, again.content) == (304, b"")
        assert server.head(entry["model"]).headers["content-length"] == str(len(data))

    def test_several_packs(self, make_pack: MakePack) -> None:
        with client(make_pack("one"), make_pack("two", styles=("invert", "blue"))) as one:
            ask = lambda query: one.post(f"/v1/stylize?{query}", content=encoded(), headers=PNG)  # noqa: E731
            assert "choose one: one, two" in refused(ask(""), 422, "wrong-parameter")
            assert "one/invert, two/invert" in refused(ask("style=invert"), 422, "wrong-parameter")
            assert "come from one pack" in refused(ask("style=red,blue"), 422, "wrong-parameter")
            for query in ("style=red", "style=one/red", "style=red&pack=one"):
                assert tuple(decoded(ask(query).content)[0, 0]) == (255, 0, 0)
            assert ask("style=two/invert").status_code == ask("style=blue").status_code == 200

    def test_a_folder_of_packs(self, make_pack: MakePack, no_packs: Path) -> None:
        make_pack("one"), make_pack("two", styles=("a", "b"))
        for settings in (Settings(packs=(str(no_packs),)), Settings()):
            app = create_app(settings)
            assert list(app.state.house.shelf.packs) == ["one", "two"]
            app.state.house.workers.close()

    def test_packs_that_cannot_be_served(self, make_pack: MakePack, tmp_path: Path) -> None:
        with pytest.raises(PackError, match="no style pack is installed"):
            create_app()
        with pytest.raises(WrongCall, match="unknown style or pack 'nothing'"):
            create_app(Settings(packs=("nothing",)))
        with pytest.raises(PackError, match="not the paint graph"):
            create_app(Settings(packs=(str(make_pack("other", model=other_graph().SerializeToString())),)))
        with pytest.raises(WrongCall, match="are both called 'tiny'"):
            create_app(Settings(packs=(str(make_pack("tiny")), str(write_pack(tmp_path / "second")))))

    @pytest.mark.parametrize("wrong", [{"workers": 0}, {"queue": -1}, {"quota": 0}, {"paint_seconds": float("nan")}])
    def test_settings_that_cannot_be(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(WrongCall, match=f"{next(iter(wrong))} must be"):
            Settings(**wrong)
        with pytest.raises(WrongCall, match="API key is empty"):
            Settings(api_key="")


class TestReload:
    def rewrite(self, pack: Path, tmp_path: Path, **options: Any) -> None:
        """Another pack in the same folder, its graph first and its card last."""
        new = write_pack(tmp_path / os.urandom(4).hex(), pack.name, **options)
        for file in (PAINT, "card.json"):
            os.replace(new / file, pack / file)

    def test_a_pack_that_changes(self, make_pack: MakePack, tmp_path: Path) -> None:
        pack = make_pack()
        with client(pack, reload_seconds=0.01) as one:
            styles = lambda: [style["name"] for style in one.get("/v1/styles").json()["packs"][0]["styles"]]  # noqa: E731
            assert styles() == ["invert", "red"]
            self.rewrite(pack, tmp_path, styles=("negative", "scarlet"))
            wait_until(lambda: styles() == ["negative", "scarlet"])
            assert one.post("/v1/stylize?style=scarlet", content=encoded(), headers=PNG).status_code == 200
            assert 'impasto_reloads_total{result="loaded"} 1.0' in one.get("/metrics").text

    def test_one_that_breaks_leaves_the_old_in_service(self, make_pack: MakePack, tmp_path: Path) -> None:
        pack = make_pack()
        with client(pack) as one:
            shelf = one.app.state.house.shelf  # type: ignore[attr-defined]
            (pack / PAINT).write_bytes(b"half")
            shelf.refresh(), shelf.refresh()
            assert 'impasto_reloads_total{result="failed"} 1.0' in one.get("/metrics").text
            assert one.post("/v1/stylize?style=red", content=encoded(), headers=PNG).status_code == 200
            (pack / "card.json").write_text("{")
            shelf.refresh()
            assert one.post("/v1/stylize?style=red", content=encoded(), headers=PNG).status_code == 200
            self.rewrite(pack, tmp_path, styles=("negative", "scarlet"))
            shelf.refresh()
            assert one.post("/v1/stylize?style=scarlet", content=encoded(), headers=PNG).status_code == 200

    def test_packs_that_come_and_go(self, make_pack: MakePack, no_packs: Path) -> None:
        first = make_pack("one")
        with client(no_packs) as one:
            shelf = one.app.state.house.shelf  # type: ignore[attr-defined]
            make_pack("two")
            shelf.refresh()
            assert list(shelf.packs) == ["one", "two"]
            first.rename(no_packs.parent / "away")
            shelf.refresh()
            assert list(shelf.packs) == ["two"]


class TestWatching:
    def test_health(self, server: TestClient) -> None:
        assert server.get("/healthz").json() == {"status": "alive"}
        assert server.get("/readyz").json() == {"status": "ready"}

    def test_without_packs_it_is_not_ready(self, pack: Path) -> None:
        with client(pack) as one:
            one.app.state.house.shelf.packs = {}  # type: ignore[attr-defined]
            assert one.get("/healthz").status_code == 200
            assert refused(one.get("/readyz"), 503, "not-ready")
            response = one.post("/v1/stylize", content=encoded(), headers=PNG)
            assert refused(response, 503, "not-ready") and response.headers["retry-after"]

    def test_metrics(self, pack: Path) -> None:
        with client(pack) as one:
            for content in (encoded(), encoded(), b"text"):
                one.post("/v1/stylize?style=red", content=content, headers=PNG)
            text = one.get("/metrics").text
        for line in (
            'impasto_pictures_total{pack="tiny"} 2.0',
            "impasto_pixels_total 960.0",
            'impasto_refusals_total{reason="not-a-picture"} 1.0',
            'impasto_requests_total{method="POST",route="/v1/stylize",status="200"} 2.0',
            'impasto_requests_total{method="POST",route="/v1/stylize",status="415"} 1.0',
            'impasto_stage_seconds_count{stage="paint"} 2.0',
            'impasto_stage_seconds_count{stage="decode"} 3.0',
            "impasto_queue_depth 0.0",
            "impasto_places_taken 0.0",
            "impasto_packs 1.0",
        ):
            assert line in text.splitlines()

    def test_the_access_log_is_json_and_knows_no_secrets(self, pack: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", "impasto.access")
        with client(pack, api_key="sesame", headers={"Authorization": "Bearer sesame"}) as one:
            response = one.post("/v1/stylize?style=red", content=encoded(), headers=PNG)
        (line,) = [json.loads(record.message) for record in caplog.records if record.name == "impasto.access"]
        assert line["id"] == response.headers["x-request-id"] and line["status"] == 200
        assert (line["method"], line["path"], line["client"]) == ("POST", "/v1/stylize", "testclient")
        assert (line["bytes_in"], line["bytes_out"], line["pixels"]) == (len(encoded()), len(response.content), 480)
        assert set(line["stages"]) == {"read", "queue", "decode", "paint", "encode"}
        assert "sesame" not in caplog.text and "red" not in line.values()


class TestDoors:
    def test_headers_of_every_answer(self, server: TestClient) -> None:
        for path in ("/", "/v1/styles", "/nothing", "/v1/stylize", "/docs"):
            headers = server.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cross-origin-opener-policy"] == "same-origin"
            assert headers["cross-origin-embedder-policy"] == "require-corp"
            assert headers["content-security-policy"].startswith("default-src 'none'; ")
            assert ("'wasm-unsafe-eval'" in headers["content-security-policy"]) == (path != "/docs")
            assert "access-control-allow-origin" not in headers

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1"])
    def test_names_of_this_machine(self, server: TestClient, host: str) -> None:
        assert server.get("/v1/styles", headers={"Host": host}).status_code == 200

    @pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "127.0.0.1.evil.example:80"])
    def test_other_names(self, server: TestClient, host: str) -> None:
        refused(server.get("/v1/styles", headers={"Host": host}), 421, "wrong-host")
        assert server.get("/healthz", headers={"Host": host}).status_code == 200

    def test_pages_of_other_sites(self, pack: Path) -> None:
        foreign, own, friend = (
            {"Origin": f"http://{name}"} for name in ("evil.example", "localhost", "friend.example")
        )
        ask = lambda one, headers: one.post("/v1/stylize?style=red", content=encoded(), headers=PNG | headers)  # noqa: E731
        with client(pack) as one:
            assert ask(one, own).status_code == 200
            for headers in (foreign, friend, {"Origin": "null"}):
                refused(ask(one, headers), 403, "origin-refused")
        with client(pack, origins=("http://friend.example",)) as one:
            assert ask(one, friend).headers["access-control-allow-origin"] == "http://friend.example"
            refused(ask(one, foreign), 403, "origin-refused")
            preflight = friend | {
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "Content-Type",
            }
            assert one.options("/v1/stylize", headers=preflight).status_code == 200
            assert one.options("/v1/stylize", headers=preflight | foreign).status_code == 400

    def test_the_key(self, pack: Path) -> None:
        with client(pack, api_key="sesame") as one:
            for headers in (
                {},
                {"Authorization": "Bearer sesam"},
                {"X-API-Key": "sesame2"},
                {"Authorization": "sesame"},
            ):
                response = one.post("/v1/stylize?style=red", content=encoded(), headers=PNG | headers)
                refused(response, 401, "key-missing")
                assert response.headers["www-authenticate"] == "Bearer"
                refused(one.get("/metrics", headers=headers), 401, "key-missing")
            for headers in ({"Authorization": "bearer sesame"}, {"X-API-Key": "sesame"}):
                response = one.post("/v1/stylize?style=red", content=encoded(), headers=PNG | headers)
                assert response.status_code == 200
                assert one.get("/metrics", headers=headers).status_code == 200
            for path in ("/", "/healthz", "/readyz", "/v1/styles", "/v1/packs/tiny/paint.onnx", "/docs", "/v2"):
                assert one.get(path).status_code == 200

    def test_a_quota(self, pack: Path) -> None:
        with client(pack, quota=2) as one:
            answers = [one.post("/v1/stylize?style=red", content=encoded(), headers=PNG) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert "more than 2 requests a minute" in refused(answers[2], 429, "quota")
        assert 1 <= int(answers[2].headers["retry-after"]) <= 30

    def test_a_bucket_that_refills(self) -> None:
        now = [0.0]
        quota = Quota(6, lambda: now[0])
        assert [quota.take("a") for _ in range(6)] == [0] * 6
        assert quota.take("a") == pytest.approx(10) and quota.take("b") == 0
        now[0] = 9.0
        assert quota.take("a") == pytest.approx(1)
        now[0] = 10.0
        assert quota.take("a") == 0 and quota.take("a") == pytest.approx(10)
        for number in range(10_001):
            quota.take(str(number))
        assert len(quota._full_at) == 10_000


def events(response: Any) -> list[tuple[str, dict[str, Any]]]:
    blocks = response.text.strip().split("\n\n")
    pairs = [block.split("\n") for block in blocks]
    assert all(name.startswith("event: ") and data.startswith("data: ") for name, data in pairs)
    return [(name[7:], json.loads(data[6:])) for name, data in pairs]


class TestBatch:
    def test_each_picture_in_turn(self, server: TestClient) -> None:
        files = [("picture", (f"{index}.png", encoded(grey=index * 10))) for index in range(3)]
        files.insert(1, ("picture", ("bad.png", b"text")))
        response = server.post("/v1/batch?strength=0.5", data={"style": "invert"}, files=files)
        assert response.headers["content-type"].startswith("text/event-stream")
        found = events(response)
        assert [name for name, _ in found] == [
            *("progress", "picture", "progress", "failed", "progress", "picture", "progress", "picture", "end")
        ]
        assert found[0][1] == {"index": 0, "name": "0.png", "total": 4}
        assert found[3][1]["problem"]["reason"] == "not-a-picture" and found[3][1]["name"] == "bad.png"
        assert found[-1][1] == {"done": 3, "failed": 1, "total": 4}
        pictures = [data for name, data in found if name == "picture"]
        assert [data["index"] for data in pictures] == [0, 2, 3]
        for data, grey in zip(pictures, (0, 10, 20), strict=True):
            assert (data["type"], data["width"], data["height"]) == ("image/png", 24, 20)
            # half the way from g to 255 - g is 127.5, which rounds to even
            assert decoded(base64.b64decode(data["base64"]))[0, 0].tolist() == [128] * 3, grey

    def test_what_is_no_batch(self, pack: Path, server: TestClient) -> None:
        refused(server.post("/v1/batch?style=red", content=encoded(), headers=PNG), 415, "wrong-type")
        files = [("picture", ("a.png", encoded()))]
        refused(server.post("/v1/batch?style=rad", files=files), 422, "wrong-parameter")
        refused(server.post("/v1/batch?style=red", files=files * 17), 413, "too-large")
        with client(pack, batch_bytes=1000, max_bytes=100) as one:
            refused(one.post("/v1/batch?style=red", files=files * 16), 413, "too-large")
            found = events(one.post("/v1/batch?style=red", files=[*files, ("picture", ("b.png", b"x" * 101))]))
            assert [name for name, _ in found] == ["progress", "picture", "progress", "failed", "end"]
            assert found[3][1]["problem"]["reason"] == "too-large"
