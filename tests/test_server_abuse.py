"""Clients that are too many, too slow, gone too early, or that send nonsense; and the end of the server."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import write_pack
from serving import INVERTED, Process, client, decoded, encoded, post, slow_graph, status, wait_until

from impasto.inference.server import admission
from impasto.inference.server.listening import serve

PATH = "/v1/stylize?style=invert"
NOW = encoded(size=(16, 16))
A_WHILE = encoded(size=(300, 300))  # the slow pack takes a few tenths of a second for it
LONG = encoded(size=(3000, 3000))  # and half a minute for this


@pytest.fixture(scope="module")
def slow_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pack(tmp_path_factory.mktemp("slow"), "slow", model=slow_graph())


@pytest.fixture(scope="module")
def process(slow_pack: Path) -> Iterator[Process]:
    options = {"workers": 1, "queue": 1, "read-seconds": 0.5, "paint-seconds": 1.5, "reload-seconds": 0}
    arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
    with Process("--pack", slow_pack, *arguments) as one:
        yield one
        code, text = one.stop()
        assert code == 0 and "Traceback" not in text and "ERROR" not in text, text


def get(process: Process, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=10)
    connection.request("GET", path)
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def metric(process: Process, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", get(process, "/metrics"), re.MULTILINE)
    return float(found[1]) if found else 0.0


def answer(connection: socket.socket) -> bytes:
    """All that comes until the connection is closed, or the whole of an answer with a length."""
    data = b""
    while part := connection.recv(65536):
        data += part
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if length and len(body) >= int(length[1]):
            break
    return data


def send(process: Process, data: bytes) -> socket.socket:
    connection = process.connect()
    connection.sendall(data)
    return connection


def paints(process: Process) -> bool:
    """Whether the next good request is answered."""
    with send(process, post(process, PATH, NOW)) as connection:
        data = answer(connection)
    return status(data) == 200 and bool((decoded(data.partition(b"\r\n\r\n")[2]) == INVERTED).all())


def idle(process: Process) -> bool:
    return metric(process, "impasto_places_taken") == metric(process, "impasto_working") == 0


class TestTooMany:
    def test_refused_before_the_upload(self, process: Process) -> None:
        working = [send(process, post(process, PATH, A_WHILE)) for _ in range(2)]
        wait_until(lambda: metric(process, "impasto_places_taken") == 2)
        assert metric(process, "impasto_working") == 1 and metric(process, "impasto_queue_depth") == 1
        with send(process, post(process, PATH, b"", length=10_000_000)) as third:
            data = answer(third)  # nothing of the ten million bytes was sent
        assert status(data) == 503 and b"retry-after: 1\r\n" in data and b"connection: close" not in data
        body = json.loads(data.partition(b"\r\n\r\n")[2])
        assert body["reason"] == "queue-full" and "1 wait" in body["detail"]
        for connection in working:
            assert status(answer(connection)) == 200
            connection.close()
        assert metric(process, 'impasto_refusals_total{reason="queue-full"}') == 1
        assert metric(process, 'impasto_refusal_seconds_bucket{le="0.1"}') == 1

    def test_who_expects_100_continue_is_not_told_to_go_on(self, process: Process) -> None:
        head = post(process, PATH, b"", length=100).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
        too_long = head.replace(b"Content-Length: 100", b"Content-Length: 999999999")
        with send(process, too_long) as connection:
            assert status(answer(connection)) == 413
        with send(process, head) as connection:
            assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")

    def test_two_hundred_at_once(self, process: Process) -> None:
        def ask(_: int) -> int:
            with send(process, post(process, PATH, encoded(size=(100, 100)))) as connection:
                return status(answer(connection))

        wait_until(lambda: idle(process))
        with ThreadPoolExecutor(50) as pool:
            statuses = list(pool.map(ask, range(200)))
        assert set(statuses) == {200, 503}
        wait_until(lambda: idle(process))
        assert paints(process)


class TestGone:
    def test_while_it_is_painted(self, process: Process) -> None:
        connection = send(process, post(process, PATH, LONG))
        wait_until(lambda: metric(process, "impasto_working") == 1)
        before = metric(process, 'impasto_refusals_total{reason="client-left"}')
        connection.close()
        wait_until(lambda: idle(process), seconds=2)
        assert metric(process, 'impasto_refusals_total{reason="client-left"}') == before + 1
        assert paints(process)

    def test_while_it_waits(self, process: Process) -> None:
        first = send(process, post(process, PATH, LONG))
        wait_until(lambda: metric(process, "impasto_working") == 1)
        second = send(process, post(process, PATH, NOW))
        wait_until(lambda: metric(process, "impasto_queue_depth") == 1)
        second.close()
        wait_until(lambda: metric(process, "impasto_queue_depth") == 0)
        assert metric(process, "impasto_working") == 1
        first.close()
        wait_until(lambda: idle(process))

    def test_while_it_sends(self, process: Process) -> None:
        for part in (0, 1, 100, len(A_WHILE) - 1):
            send(process, post(process, PATH, A_WHILE[:part], length=len(A_WHILE))).close()
        wait_until(lambda: idle(process))
        assert paints(process)

    def test_in_a_batch(self, process: Process) -> None:
        part = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n%b\r\n'
        body = part % NOW + part % LONG + part % LONG + b"--x--\r\n"
        kind = "multipart/form-data; boundary=x"
        connection = send(process, post(process, "/v1/batch?style=invert", body, kind))
        data = b""
        while data.count(b"event: ") < 3:  # progress, picture, progress
            data += connection.recv(65536)
        assert status(data) == 200 and metric(process, "impasto_working") == 1
        connection.close()
        wait_until(lambda: idle(process), seconds=2)


class TestTooSlow:
    def test_a_body_that_does_not_come(self, process: Process) -> None:
        started = time.monotonic()
        with send(process, post(process, PATH, NOW[:10], length=1000)) as connection:
            data = answer(connection)
        assert status(data) == 408 and 0.4 < time.monotonic() - started < 3
        assert json.loads(data.partition(b"\r\n\r\n")[2])["reason"] == "slow-body"
        wait_until(lambda: idle(process))

    def test_a_body_in_drops(self, process: Process) -> None:
        with send(process, post(process, PATH, b"", length=1000)) as connection:
            connection.settimeout(0.05)
            data, sent = b"", 0
            while not data and sent < 100:
                connection.sendall(b"x")
                sent += 1
                with contextlib.suppress(TimeoutError):
                    data = connection.recv(65536)
        assert status(data) == 408 and sent < 40

    @pytest.mark.parametrize("start", [b"", b"GET /healthz HTT", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"])
    def test_a_header_that_does_not_come(self, process: Process, start: bytes) -> None:
        with send(process, start) as connection:
            connection.settimeout(3)
            assert gone(connection)

    def test_a_second_header_that_does_not_come(self, process: Process) -> None:
        with send(process, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") as connection:
            assert status(answer(connection)) == 200
            connection.sendall(b"GET /healthz")
            connection.settimeout(3)
            assert gone(connection)

    def test_a_painting_that_takes_too_long(self, process: Process) -> None:
        with send(process, post(process, PATH, LONG)) as connection:
            data = answer(connection)
        assert status(data) == 504 and b"not done in 1.5 s" in data
        wait_until(lambda: idle(process), seconds=1)
        assert paints(process)


def test_an_answer_that_is_not_read(slow_pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "SEND_SECONDS", 0.05)
    with client(slow_pack) as one:
        headers = [(b"host", b"localhost"), (b"content-type", b"image/png")]
        scope = {"type": "http", "method": "POST", "path": "/v1/stylize", "headers": headers}
        scope |= {"query_string": b"style=invert", "scheme": "http", "root_path": "", "http_version": "1.1"}
        messages = [{"type": "http.request", "body": NOW, "more_body": False}]

        async def receive() -> dict[str, Any]:
            return messages.pop() if messages else await asyncio.Event().wait()  # type: ignore[return-value]

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        one.portal.call(one.app, scope, receive, send)  # type: ignore[union-attr]
        text = one.get("/metrics").text
    assert 'impasto_refusals_total{reason="client-left"} 1.0' in text and "impasto_places_taken 0.0" in text


def test_methods_that_are_made_up_are_counted_as_one(slow_pack: Path) -> None:
    with client(slow_pack) as one:
        for number in range(3):
            assert one.request(f"M{number}", "/healthz").status_code == 405
        lines = [line for line in one.get("/metrics").text.splitlines() if 'status="405"' in line and "_total" in line]
    assert len(lines) == 1 and 'method="other"' in lines[0] and lines[0].endswith(" 3.0")


def gone(connection: socket.socket) -> bool:
    """Whether the other side closes the connection without a word."""
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


class TestTheEnd:
    def test_what_is_in_the_house_is_finished_and_nothing_new_begun(self, slow_pack: Path) -> None:
        with Process("--pack", slow_pack, "--workers", 1, "--queue", 4) as one:
            working = [send(one, post(one, PATH, A_WHILE)) for _ in range(3)]
            wait_until(lambda: metric(one, "impasto_places_taken") == 3)
            half = send(one, post(one, PATH, NOW)[:-10])
            wait_until(lambda: metric(one, "impasto_places_taken") == 4)
            ended: list[Any] = []
            ending = threading.Thread(target=lambda: ended.append(one.stop()))
            ending.start()
            wait_until(lambda: not connects(one))
            half.sendall(NOW[-10:])
            for connection in [*working, half]:
                assert status(answer(connection)) == 200
                connection.close()
            ending.join()
        ((code, text),) = ended
        assert code == 0 and "Traceback" not in text
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        assert sum(line["path"] == "/v1/stylize" and line["status"] == 200 for line in lines) == 4

    def test_an_address_that_is_taken(self, slow_pack: Path) -> None:
        taken_one = pytest.raises(OSError, match="cannot listen on 127.0.0.1:")
        with socket.create_server(("127.0.0.1", 0)) as taken, client(slow_pack) as one, taken_one:
            serve(one.app, "127.0.0.1", taken.getsockname()[1], print)  # type: ignore[arg-type]


def connects(process: Process) -> bool:
    try:
        process.connect().close()
    except ConnectionRefusedError:
        return False
    return True


def nonsense(seed: int) -> tuple[bytes, str]:
    """A picture or a form with some bytes changed, cut out or doubled, and a type that may be a lie."""
    draw = random.Random(seed)
    kind = draw.choice(["png", "jpeg", "webp"])
    body = bytearray(encoded(kind.upper(), size=(draw.randrange(16, 64), draw.randrange(16, 64))))
    kind = f"image/{kind}"
    if draw.random() < 0.3:
        part = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'
        body, kind = bytearray(part + bytes(body) + b"\r\n--x--\r\n"), "multipart/form-data; boundary=x"
    for _ in range(draw.randrange(1, 6)):
        start = draw.randrange(len(body) + 1)
        change = draw.random()
        if change < 0.5:
            body[start : start + 1] = bytes([draw.randrange(256)])
        elif change < 0.75:
            del body[start : start + draw.randrange(1, 40)]
        else:
            body[start:start] = draw.randbytes(draw.randrange(1, 40))
    if draw.random() < 0.1:
        kind = draw.choice(["text/plain", "image/heic", "multipart/form-data", "", "application/json"])
    return bytes(body), kind


def test_nonsense_is_never_a_defect(slow_pack: Path) -> None:
    with client(slow_pack, max_pixels=10_000) as one:
        tasks = one.portal.call(lambda: len(asyncio.all_tasks()))  # type: ignore[union-attr]
        statuses = set()
        for seed in range(150):
            body, kind = nonsense(seed)
            response = one.post(PATH, content=body, headers={"Content-Type": kind})
            statuses.add(response.status_code)
            assert response.status_code < 500, (seed, response.text)
        assert {200, 400, 413, 415, 422} >= statuses >= {200, 415, 422}
        assert one.portal.call(lambda: len(asyncio.all_tasks())) == tasks  # type: ignore[union-attr]
        assert one.post(PATH, content=NOW, headers={"Content-Type": "image/png"}).status_code == 200
