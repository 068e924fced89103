"""Real connections: those who send or read slowly, many at once, and the end of it all."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from gatewise.serve import connections, security
from gatewise.serve.app import Settings, build
from gatewise.serve.connections import Connection, allow_connections
from gatewise.serve.runs import Runs, Source
from gatewise.serve.server import Server, listen, server_of, url_of

HEAD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience of a part of a second."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(connections, "READ_SECONDS", 0.3)
    monkeypatch.setattr(Connection, "most", 20)
    monkeypatch.setattr(security.Guard.__init__, "__defaults__", (0.3,))
    monkeypatch.setattr(security, "LINGERED_SECONDS", 0.5)


@pytest.fixture
def port(quick: None, runs) -> Iterator[int]:
    """A server in a thread of this process."""
    place = listen("127.0.0.1", 0)
    settings = Settings(closing_seconds=1, follow_seconds=0)
    application = build(runs, settings)
    server: Server = server_of(_without_end(application), settings)
    thread = threading.Thread(target=server.run, args=([place],))
    thread.start()
    while not server.started:
        time.sleep(0.005)
    yield int(place.getsockname()[1])
    server.should_exit = True
    thread.join()


def _without_end(app):
    """The runs are shared: the server's end must not close them."""

    async def call(scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
        else:
            await app(scope, receive, send)

    return call


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def receive(place: socket.socket, mark: bytes, times: int = 1) -> bytes:
    """What comes, up to a mark."""
    found = b""
    while found.count(mark) < times:
        part = place.recv(65536)
        assert part, found
        found += part
    return found


def closes(place: socket.socket, within: float = 3.0) -> bool:
    """Whether the other side closes it in time; what it says meanwhile is read."""
    place.settimeout(within)
    try:
        while place.recv(65536):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def test_heads_that_do_not_come_are_given_up(port: int) -> None:
    for start in (b"", b"GET", HEAD[:-2], HEAD + HEAD[:20]):
        with connect(port) as place:
            place.sendall(start)
            assert closes(place), start


def test_a_head_that_comes_byte_by_byte_is_given_up(port: int) -> None:
    with connect(port) as place:
        try:
            for k in range(100):
                place.sendall(HEAD[k % 3 : k % 3 + 1])
                time.sleep(0.02)
        except (ConnectionResetError, BrokenPipeError):
            return
    raise AssertionError("it was not given up")


def test_a_head_in_pieces_is_read(port: int) -> None:
    with connect(port) as place:
        for at in range(0, len(HEAD), 7):
            place.sendall(HEAD[at : at + 7])
            time.sleep(0.005)
        assert place.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_connection_that_rests_is_kept(port: int) -> None:
    with connect(port) as place:
        for _ in range(2):
            place.sendall(HEAD)
            assert receive(place, b'"ok"').startswith(b"HTTP/1.1 200")
            time.sleep(0.5)


def test_bodies_that_do_not_come_are_given_up(port: int) -> None:
    with connect(port) as place:
        place.sendall(POST % (b"/infill", 999) + b"{")
        assert receive(place, b"408").startswith(b"HTTP/1.1 408")
        assert closes(place)


def test_bodies_beyond_the_cap_are_not_read(port: int) -> None:
    with connect(port) as place:
        place.sendall(POST % (b"/infill", 2 << 20))
        assert place.recv(65536).startswith(b"HTTP/1.1 413")
        assert closes(place)


def test_who_sends_all_of_a_body_before_reading_reads_why_it_is_refused(port: int) -> None:
    size = 6 << 20
    for kind, status in ((b"application/json", b"413"), (b"text/plain", b"413")):
        with connect(port) as place:
            head = (POST % (b"/infill", size)).replace(b"application/json", kind)
            place.sendall(head + b" " * size)
            assert receive(place, b'"code":413').startswith(b"HTTP/1.1 " + status)
            assert closes(place)


def test_a_body_that_is_announced_is_refused_before_it_is_sent(port: int) -> None:
    with connect(port) as place:
        head = POST % (b"/infill", 2 << 20)
        place.sendall(head.replace(b"Host", b"Expect: 100-continue\r\nHost"))
        assert place.recv(65536).startswith(b"HTTP/1.1 413")
        assert closes(place)
    with connect(port) as place:
        head = POST % (b"/infill", 15)
        place.sendall(head.replace(b"Host", b"Expect: 100-continue\r\nHost"))
        assert receive(place, b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        place.sendall(b'{"n_predict":0}')
        assert receive(place, b'"content"').startswith(b"HTTP/1.1 200")


def test_what_is_no_request_is_refused_as_json(port: int) -> None:
    for text in (b"nonsense\r\n\r\n", HEAD.replace(b"Host:", b"Host"), b"\x16\x03\x01\n\r\n"):
        with connect(port) as place:
            place.sendall(text)
            answer = receive(place, b"}")
            assert answer.startswith(b"HTTP/1.1 400")
            assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {
                "message": "expected a request of HTTP/1.1"
            }
            assert closes(place)


def test_who_does_not_read_is_cut_off(port: int, runs) -> None:
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    place.settimeout(5)
    place.connect(("127.0.0.1", port))
    body = json.dumps({"stream": True, "n": 16, "max_tokens": 4096, "temperature": 2}).encode()
    place.sendall(POST % (b"/v1/completions", len(body)) + body)
    batcher = runs.find("mine").loaded.batcher
    began = time.monotonic()
    while not batcher.load:
        assert time.monotonic() - began < 5
    while batcher.load:
        time.sleep(0.01)
        assert time.monotonic() - began < 10
    place.close()


def test_there_are_only_so_many_connections(port: int) -> None:
    places = [connect(port) for _ in range(20)]
    for place in places:
        place.sendall(HEAD)
        receive(place, b'"ok"')
    with connect(port) as more:
        answer = receive(more, b"again")
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"retry-after" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["message"]
    for place in places:
        place.close()
    assert 16 <= allow_connections() <= 4096


def test_several_requests_in_one_piece(port: int) -> None:
    with connect(port) as place:
        place.sendall(HEAD * 3)
        receive(place, b'"ok"', 3)


def test_the_end_answers_long_requests_with_what_there_is(quick: None, trained) -> None:
    place, runs = listen("127.0.0.1", 0), Runs([Source("mine", trained)])
    runs.open()
    settings = Settings(closing_seconds=0.2, follow_seconds=0)
    server = server_of(build(runs, settings), settings)
    server.on_end = lambda: runs.close(settings.closing_seconds)
    thread = threading.Thread(target=server.run, args=([place],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    batcher = runs.find("mine").loaded.batcher
    found: list[bytes] = []

    def ask(stream: bool) -> None:
        asked = {"max_tokens": 4096, "n": 32, "stream": stream, "temperature": 2}
        body = json.dumps(asked).encode()
        with connect(place.getsockname()[1]) as sending:
            sending.sendall(POST % (b"/v1/completions", len(body)) + body)
            parts = []
            while part := sending.recv(65536):
                parts.append(part)
        found.append(b"".join(parts))

    asking = [
        threading.Thread(target=ask, args=(stream,), daemon=True) for stream in (True, False) * 3
    ]
    for one in asking:
        one.start()
    began = time.monotonic()
    while batcher.load < 6:
        assert time.monotonic() - began < 5
        time.sleep(0.005)
    server.should_exit = True
    for one in (*asking, thread):
        one.join(10)
        assert not one.is_alive()
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in found)
    assert sum(b"data: [DONE]" in answer for answer in found) == 3
    for answer in found:
        assert b'"finish_reason":"length"' in answer


def test_addresses() -> None:
    with listen("127.0.0.1", 0) as place:
        assert url_of(place) == f"http://127.0.0.1:{place.getsockname()[1]}"
