"""The large attacks, each at its full size; all of them slow."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.slow
SMALL = {"prompt": "gate ", "max_tokens": 8, "n": 3}


def latencies(process: Any, count: int) -> list[float]:
    """Seconds of requests of one client, in order of length."""
    connection = process.connect()
    found = []
    for _ in range(count):
        began = time.perf_counter()
        connection.request(
            "POST", "/v1/completions", json.dumps(SMALL), {"content-type": "application/json"}
        )
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        found.append(time.perf_counter() - began)
        time.sleep(0.002)
    connection.close()
    return sorted(found)


def p95(process: Any) -> float:
    return latencies(process, 200)[190]


@pytest.fixture
def server(start: Callable[..., Any], trained: Any) -> Any:
    return start(trained)


def places(process: Any, count: int, text: bytes) -> list[socket.socket]:
    found = []
    for _ in range(count):
        place = socket.create_connection(("127.0.0.1", process.port), timeout=10)
        place.sendall(text)
        found.append(place)
    return found


def head(path: str, length: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def test_five_hundred_slow_senders_and_readers(server: Any) -> None:
    latencies(server, 100)
    before, memory = p95(server), server.memory
    body = json.dumps(SMALL | {"stream": True, "n": 16, "max_tokens": 4096}).encode()
    found = places(server, 200, b"POST /infill HT")
    found += places(server, 200, head("/infill", 900_000) + b'{"input_prefix": "')
    found += places(server, 100, head("/v1/completions", len(body) + 1) + body)
    ending = threading.Event()

    def drip() -> None:
        while not ending.wait(0.5):
            for place in found[:400]:
                try:
                    place.send(b" ")
                except OSError:
                    continue

    thread = threading.Thread(target=drip)
    thread.start()
    during = max(p95(server) for _ in range(3))
    grown = server.memory - memory
    ending.set()
    thread.join()
    for place in found:
        place.close()
    print(
        f"p95 {1e3 * before:.1f} ms alone, {1e3 * during:.1f} ms beside 500 slow ones, {grown >> 20} MiB"
    )
    assert during <= max(2 * before, before + 0.02)
    assert grown < 100 << 20


def test_a_thousand_disconnects_leave_nothing(server: Any) -> None:
    bodies = [
        json.dumps(SMALL | {"stream": stream, "n": 4, "max_tokens": 4096}).encode()
        for stream in (False, True)
    ]

    def leave(number: int) -> None:
        body = bodies[number % 2]
        (place,) = places(server, 1, head("/v1/completions", len(body)) + body)
        if number % 4 == 3:
            place.recv(100)
        place.close()

    for number in range(100):
        leave(number)
    wait(server)
    before = server.memory
    for number in range(1000):
        leave(number)
    began = time.monotonic()
    wait(server)
    spent = time.monotonic() - began
    grown = server.memory - before
    print(f"all work ended {1e3 * spent:.0f} ms after the last; {grown >> 10} KiB more")
    assert spent < 2
    assert grown < 20 << 20


def wait(process: Any) -> None:
    began = time.monotonic()
    while process.metric("gatewise_queue"):
        assert time.monotonic() - began < 10


def test_a_body_of_a_gigabyte_is_cut_off(server: Any) -> None:
    server.get("/health")
    before = server.memory
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    start = (
        b"POST /infill HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    (place,) = places(server, 1, start)
    sent = 0
    try:
        while sent < 1 << 30:
            place.sendall(chunk)
            sent += 65536
    except (BrokenPipeError, ConnectionResetError):
        place.close()
    print(f"cut off after {sent >> 20} MiB; {(server.memory - before) >> 10} KiB more")
    assert sent < 64 << 20
    assert server.memory - before < 8 << 20


def test_overload_is_said_and_passes_within_two_seconds(server: Any) -> None:
    body = json.dumps(SMALL | {"n": 8, "max_tokens": 2000, "prompt": "a" * 2000}).encode()
    found = places(server, 600, head("/v1/completions", len(body)) + body)
    time.sleep(1)
    refused = server.metric('gatewise_answers_total{kind="/v1/completions",status="429"}')
    for place in found:
        place.close()
    began = time.monotonic()
    while server.post("/v1/completions", SMALL)[0] != 200:
        assert time.monotonic() - began < 2
    print(f"{refused:.0f} refused; answered again after {time.monotonic() - began:.2f} s")
    assert refused > 100
