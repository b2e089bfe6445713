"""The live view: what it sees is what the network answers, and its server lets nobody else ask."""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from looking import CLASSES, SIDE, photo, tiny_model, write_photos
from PIL import Image
from torch import nn

from impasto.cli import main
from impasto.errors import PictureError, WrongCall
from impasto.losses import capture
from impasto.visualization import live_server, live_view, load_model, registry
from impasto.visualization.inputs import Pictures
from impasto.visualization.live_server import MAX_BODY, WAITING, LiveServer, live
from impasto.visualization.live_view import CLOSELY, Viewer, Wish
from impasto.visualization.registry import Refused
from impasto.visualization.scene import to_image

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")


@pytest.fixture
def photos(tmp_path) -> Path:
    write_photos(tmp_path / "photos", 4)
    return tmp_path / "photos"


def array(text: str, kind: str, *shape: int) -> Any:
    return np.frombuffer(base64.b64decode(text), kind).reshape(shape)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


class TestViewer:
    def test_the_map_is_the_layers_exactly(self):
        model = tiny_model()
        found = Viewer(model).see(photo(), Wish("second", 3))
        maps = capture(model, ["second"])(photo())["second"][0]
        assert found["shape"] == [8, 16, 16] and found["unit"] == 3
        assert (array(found["map"], "<f4", 16, 16) == maps[3].numpy()).all()
        assert found["low"] == float(maps[3].min()) and found["high"] == float(maps[3].max())
        assert found["zeros"] == 0
        relu = Viewer(model).see(photo(), Wish("relu2", 3))
        assert relu["zeros"] == pytest.approx(float((maps[3] <= 0).float().mean()))

    @pytest.mark.parametrize("scale", ["map", "shared"])
    def test_the_tiles_are_those_of_v04(self, scale):
        model = tiny_model()
        found = Viewer(model).see(photo(), Wish("second", 0, scale=scale))
        result = registry["activation_maps"].function(model, photo(), layer="second", scale=scale)
        tiles = array(found["tiles"], "u1", 8, 16, 16)
        drawn = np.asarray(result.images["maps"].convert("L"))
        zoom, columns = result.data["grid"]["zoom"], result.data["grid"]["columns"]
        assert found["pooled"] == 1 and zoom == 2
        for unit, tile in enumerate(tiles):
            top, left = 1 + unit // columns * 33, 1 + unit % columns * 33
            assert (drawn[top : top + 32 : zoom, left : left + 32 : zoom] == tile).all()

    def test_large_layers_are_averaged(self, monkeypatch):
        monkeypatch.setattr(live_view, "MAX_VALUES", 6 * 32 * 32 // 4)
        found = Viewer(tiny_model()).see(photo(), Wish("first", 2, scale="shared"))
        maps = capture(tiny_model(), ["first"])(photo())["first"][0]
        means = maps.reshape(6, 16, 2, 16, 2).mean((2, 4))
        assert found["pooled"] == 2 and found["tile"] == [16, 16] and found["shape"] == [6, 32, 32]
        expected = (means - means.min()) / (means.max() - means.min()) * 255
        assert np.abs(array(found["tiles"], "u1", 6, 16, 16) - expected.numpy()).max() <= 0.51
        assert array(found["map"], "<f4", 32, 32).shape == (32, 32), "the unit's own is whole"

    def test_the_likeliest_classes_and_the_picture(self):
        model = tiny_model()
        found = Viewer(model).see(photo(), Wish("second"))
        probabilities = model(photo())[0].double().softmax(0)
        assert [each["name"] for each in found["top"]] == [CLASSES[i] for i in probabilities.argsort(descending=True)]
        assert sum(each["probability"] for each in found["top"]) == pytest.approx(1)
        assert (array(found["seen"], "u1", SIDE, SIDE, 3) == np.asarray(to_image(photo()))).all()

    def test_what_the_map_sends_back(self):
        """By hand: the gradient of half the sum of squares of the unit's map, which seeds each place with itself."""
        model = tiny_model()
        picture = photo().requires_grad_()
        maps = capture(model, ["second"])(picture)["second"]
        (expected,) = torch.autograd.grad(
            maps, picture, torch.zeros_like(maps).index_copy(1, torch.tensor([3]), maps[:, 3:4].detach())
        )
        found = Viewer(model).see(photo(), Wish("second", 3, "gradient"))
        drawn = array(found["drawn"], "u1", SIDE, SIDE, 3).astype(float)
        limit = 3 * float(expected.std())  # three standard deviations are full colour
        by_hand = (expected[0] / limit * 127 + 128).clamp(0, 255).permute(1, 2, 0).numpy()
        assert np.abs(drawn - by_hand).max() <= 0.51
        others = {name: Viewer(model).see(photo(), Wish("second", 3, name))["drawn"] for name in CLOSELY}
        assert len(set(others.values())) == len(CLOSELY)

    def test_a_rule_that_has_no_meaning_is_a_reason(self):
        found = Viewer(tiny_model(nn.SiLU)).see(photo(), Wish("second", 0, "guided"))
        assert found["drawn"] is None and "silu" in found["refused"].lower()

    def test_the_network_is_left_alone(self):
        model = tiny_model()
        for closely in CLOSELY:
            Viewer(model).see(photo(), Wish("second", 0, closely))
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())

    def test_a_network_of_features_names_no_classes(self):
        model = load_model(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()), size=32)
        assert Viewer(model).see(photo(), Wish("0"))["top"] == []

    def test_patches_are_those_of_v05(self, photos):
        model = tiny_model()
        viewer = Viewer(model, Pictures.of(photos))
        expected = registry["top_patches"].function(model, photos, layer="second", units=(5,)).images["patches"]
        for _ in range(2):
            drawn = viewer.patches("second", 5)
            assert drawn is not None and (np.asarray(Image.open(io.BytesIO(drawn))) == np.asarray(expected)).all()
        assert list(Path(viewer._found.name).iterdir()), "the second was remembered"
        place = Path(viewer._found.name)
        viewer.close()
        assert not place.exists()

    def test_a_search_has_a_network_of_its_own_without_a_frames_hooks(self, photos):
        viewer = Viewer(tiny_model(), Pictures.of(photos))
        search = threading.Thread(target=viewer.patches, args=("second", 0))
        with viewer._one_at_a_time:
            hook = viewer.model.network.second.register_forward_hook(lambda *call: None)
            search.start()
            search.join(0.2)
            assert search.is_alive(), "it waits for the frame"
            hook.remove()
        search.join()
        assert viewer._searched is not viewer.model
        assert not any(module._forward_hooks for module in viewer._searched.modules())
        viewer.close()

    def test_one_search_at_a_time(self, photos):
        viewer = Viewer(tiny_model(), Pictures.of(photos))
        with viewer._one_search:
            assert viewer.patches("second", 0) is None
        assert viewer.patches("second", 0) is not None
        viewer.close()

    @pytest.mark.parametrize(
        ("wish", "message"),
        [
            (Wish("secnod"), "unknown layer 'secnod'. Did you mean 'second'"),
            (Wish("linear"), "unknown layer 'linear'"),
            (Wish("second", 8), "unit 8: expected 0 to 7 in second"),
            (Wish("second", -1), "unit -1: expected 0 to 7"),
            (Wish("second", 0, "guidde"), "unknown view 'guidde'. Did you mean 'guided'"),
            (Wish("second", 0, "guided", "own"), "unknown scale 'own'"),
        ],
    )
    def test_wrong_wishes(self, wish, message):
        with pytest.raises(WrongCall, match=message):
            Viewer(tiny_model()).see(photo(), wish)

    def test_wrong_pictures(self, photos):
        viewer = Viewer(tiny_model(), Pictures.of(photos))
        with pytest.raises(WrongCall, match="picture 4: expected 0 to 3"):
            viewer.read_from_folder(4)
        with pytest.raises(WrongCall, match="there is no folder"):
            Viewer(tiny_model()).read_from_folder(0)
        with pytest.raises(WrongCall, match="no folder of photos to search"):
            Viewer(tiny_model()).patches("second", 0)
        with pytest.raises(PictureError, match="pixels"):
            viewer.read(png(Image.new("L", (2100, 2000))))
        with pytest.raises(Refused, match="no layer with maps"):
            Viewer(load_model(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 4)), size=SIDE))


class Asker:
    """Asks a server over a connection of its own."""

    def __init__(self, server: LiveServer) -> None:
        self.server = server
        self.host = f"127.0.0.1:{server.server_port}"

    def __call__(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=20)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, names)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content, answer.headers

    def raw(self, text: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.server.server_port), timeout=20) as connection:
            connection.sendall(text)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.fixture
def ask(photos) -> Iterator[Asker]:
    viewer = Viewer(tiny_model(), Pictures.of(photos))
    server = LiveServer(viewer, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Asker(server)
    server.shutdown()
    thread.join()
    server.server_close()
    viewer.close()


class TestServer:
    @pytest.mark.parametrize(
        ("path", "kind"), [("/", "text/html"), ("/live.css", "text/css"), ("/live.js", "text/javascript")]
    )
    def test_the_page(self, ask, path, kind):
        status, content, headers = ask("GET", path)
        assert status == 200 and headers["Content-Type"].startswith(kind) and len(content) > 1000
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff" and "python" not in headers["Server"].lower()
        text = content.decode()
        assert not re.search(r"(?:https?:)?//[a-z]", re.sub(r"//.*", "", text) if path == "/live.js" else text)
        assert path != "/" or ("onclick" not in text and "style=" not in text), "its policy forbids both"

    def test_what_there_is_to_choose_from(self, ask):
        status, content, _ = ask("GET", "/facts")
        facts = json.loads(content)
        assert status == 200 and facts["network"] == "Tiny" and facts["side"] == facts["size"] == SIDE
        assert facts["pictures"] == ["00.png", "01.png", "02.png", "03.png"]
        assert {"name": "second", "shape": [8, 16, 16]} in facts["layers"] and "linear" not in str(facts["layers"])
        assert set(facts["stages"]) <= {each["name"] for each in facts["layers"]}

    def test_a_frame(self, ask):
        image = to_image(photo(7))
        status, content, _ = ask("POST", "/see?layer=second&unit=2&closely=guided", png(image))
        found = json.loads(content)
        model = tiny_model()
        expected = capture(model, ["second"])(model.read(image))["second"][0, 2]
        assert status == 200 and (array(found["map"], "<f4", 16, 16) == expected.numpy()).all()

    def test_a_photo_of_the_folder(self, ask, photos):
        found = json.loads(ask("POST", "/see?layer=second&picture=1")[1])
        model = tiny_model()
        expected = capture(model, ["second"])(model.read(photos / "01.png"))["second"][0, 0]
        assert (array(found["map"], "<f4", 16, 16) == expected.numpy()).all()

    def test_patches(self, ask):
        status, content, headers = ask("GET", "/patches?layer=second&unit=1")
        assert status == 200 and headers["Content-Type"] == "image/png" and content[:4] == b"\x89PNG"
        with ask.server.viewer._one_search:
            status, content, _ = ask("GET", "/patches?layer=second&unit=1")
        assert status == 503 and b"come again" in content

    @pytest.mark.parametrize(
        ("method", "path", "body", "status", "message"),
        [
            ("GET", "/absent", None, 404, "/facts"),
            ("GET", "/../reports.py", None, 404, "there is"),
            ("GET", "/pages/live.js", None, 404, "there is"),
            ("POST", "/", b"", 404, "POST goes to /see"),
            ("POST", "/see?layer=second", b"", 400, "is empty"),
            ("POST", "/see?layer=second", b"no picture", 400, "not a picture"),
            ("POST", "/see?layer=secnod", png(Image.new("RGB", (32, 32))), 400, "Did you mean 'second'"),
            ("POST", "/see", png(Image.new("RGB", (32, 32))), 400, "unknown layer"),
            ("POST", "/see?layer=second&unit=-1", png(Image.new("RGB", (32, 32))), 400, "unit: got '-1'"),
            ("POST", "/see?layer=second&unit=1e9", png(Image.new("RGB", (32, 32))), 400, "unit: got '1e9'"),
            ("POST", "/see?layer=second&unit=9999999999", png(Image.new("RGB", (32, 32))), 400, "unit: got"),
            ("POST", "/see?layer=second&picture=9", b"", 400, "picture 9: expected 0 to 3"),
            ("GET", "/patches?layer=second&unit=99", None, 400, "unit 99"),
            ("PUT", "/see", b"", 501, "PUT"),
            ("DELETE", "/see", None, 501, "DELETE"),
            ("OPTIONS", "/see", None, 501, "OPTIONS"),
        ],
    )
    def test_bad_requests(self, ask, method, path, body, status, message):
        got, content, headers = ask(method, path, body)
        assert got == status and message in json.loads(content)["error"]
        assert headers["Content-Type"] == "application/json" and "Access-Control-Allow-Origin" not in headers
        assert ask("GET", "/facts")[0] == 200, "it goes on"

    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:80", "localhost.evil.example", "", "127.0.0.1.evil.example", "[::"]
    )
    def test_other_names_are_not_served(self, ask, host):
        """A page may lead a name of its own here (DNS rebinding), and its browser then sends that name."""
        status, content, _ = ask("GET", "/facts", Host=host)
        assert status == 421 and b"use localhost" in content

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]:8047", "192.168.1.7:8047"])
    def test_its_own_are(self, ask, host):
        assert ask("GET", "/facts", Host=host)[0] == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://127.0.0.1:1"},
            {"Sec_Fetch_Site": "cross-site"},
            {"Sec_Fetch_Site": "same-site"},
        ],
    )
    def test_other_sites_are_refused(self, ask, headers):
        body = png(to_image(photo()))
        assert ask("POST", "/see?layer=second", body, **headers)[0] == 403
        assert ask("GET", "/patches?layer=second", **headers)[0] == 403
        assert (
            ask("POST", "/see?layer=second", body, Origin=f"http://{ask.host}", Sec_Fetch_Site="same-origin")[0] == 200
        )
        assert ask("GET", "/", Sec_Fetch_Site="cross-site")[0] == 200, "a link leads to the page"

    def test_bodies_are_limited(self, ask):
        long = f"POST /see?layer=second HTTP/1.1\r\nHost: {ask.host}\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n"
        assert ask.raw(long.encode()).startswith(b"HTTP/1.1 413 ")
        for header in ("Transfer-Encoding: chunked", "Content-Length: -1", "Content-Length: x", "X-None: 1"):
            text = f"POST /see?layer=second HTTP/1.1\r\nHost: {ask.host}\r\n{header}\r\n\r\n"
            assert ask.raw(text.encode()).startswith(b"HTTP/1.1 411 "), header
        short = f"POST /see?layer=second HTTP/1.1\r\nHost: {ask.host}\r\nContent-Length: 99\r\n\r\nabc"
        assert ask.raw(short.encode()) == b"", "half a frame is none"
        assert ask.raw(b"nonsense\r\n\r\n").count(b"HTTP/1") <= 1
        assert ask("GET", "/facts")[0] == 200

    def test_no_more_than_so_many_at_once(self, ask):
        for _ in range(WAITING):
            ask.server.busy.acquire()
        status, content, _ = ask("GET", "/facts")
        assert status == 503 and b"come again" in content
        for _ in range(WAITING):
            ask.server.busy.release()
        assert ask("GET", "/facts")[0] == 200
        ask("GET", "/absent")
        for _ in range(WAITING):
            assert ask.server.busy.acquire(blocking=False), "each turn is given back"

    def test_frames_at_once_do_not_mix(self, ask):
        pictures = [to_image(photo(seed)) for seed in range(4)]
        model = tiny_model()
        expected = [capture(model, ["second"])(model.read(image))["second"][0, 1].numpy() for image in pictures]
        answers: dict[int, Any] = {}

        def look(index: int) -> None:
            view = CLOSELY[index]
            found = json.loads(ask("POST", f"/see?layer=second&unit=1&closely={view}", png(pictures[index]))[1])
            answers[index] = array(found["map"], "<f4", 16, 16)

        threads = [threading.Thread(target=look, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all((answers[index] == expected[index]).all() for index in range(4))

    def test_a_bug_is_said_and_the_server_goes_on(self, ask, monkeypatch):
        def broken(*arguments: Any) -> Any:
            raise ZeroDivisionError("nobody foresaw it")

        monkeypatch.setattr(ask.server.viewer, "facts", broken)
        status, content, _ = ask("GET", "/facts")
        assert status == 500 and "nobody foresaw it" in json.loads(content)["error"]
        assert ask("GET", "/")[0] == 200

    def test_connections_that_end_leave_no_thread(self, ask):
        before = threading.active_count()
        for _ in range(5):
            ask("GET", "/facts")
        for _ in range(200):
            if threading.active_count() <= before:
                break
            threading.Event().wait(0.01)
        assert threading.active_count() <= before


class TestCommand:
    def test_it_says_where_and_ends_with_ctrl_c(self, photos, monkeypatch):
        said: list[str] = []
        monkeypatch.setattr(LiveServer, "serve_forever", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        live(photos, model=tiny_model(), port=0, ready=said.append)
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", said[0])

    def test_a_port_that_is_taken(self, photos):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(WrongCall, match=rf"cannot listen at 127.0.0.1, port {port} .*; choose others"):
                live(photos, model=tiny_model(), port=port)

    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            (("absent",), 1, "absent: expected a picture, or a folder with pictures"),
            (("--port", "70000"), 2, "--port"),
            (("--host", "no.such.host.invalid"), 2, "cannot listen at no.such.host.invalid"),
            (("--model", "squeezenet"), 2, "unknown network 'squeezenet'"),
        ],
    )
    def test_one_line_that_says_what_to_do(self, words, code, message, monkeypatch):
        pytest.importorskip("torchvision")
        if "--model" not in words:
            words = (*words, "--model", "squeezenet1_1", "--weights", "none", "--size", "64")
        finished = CliRunner().invoke(main, ["see", "live", *words], catch_exceptions=False)
        assert finished.exit_code == code and message in finished.stderr

    def test_it_listens_here_alone_when_nothing_is_said(self):
        text = CliRunner().invoke(main, ["see", "live", "--help"]).stdout
        assert "127.0.0.1" in text and live_server.live.__kwdefaults__["host"] == "127.0.0.1"
