"""The load over HTTP, against a server of a few lines that says what it is told."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gatewise.bench.over_http import Writer, answered, drive, message
from gatewise.bench.server_process import ServerProcess
from gatewise.bench.typists import Load
from gatewise.complete import Request
from gatewise.errors import FailedError
from gatewise.generate import SamplingOptions

Handle = Callable[[dict[str, Any]], Awaitable[int | None]]


class Listening:
    """Answers each request with a status; None closes the connection, 0 waits until the other side does."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self.bodies: list[dict[str, Any]] = []
        self.left = 0

    async def __aenter__(self) -> Listening:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.bodies.append(json.loads(await reader.readexactly(size)))
                status = await self._handle(self.bodies[-1])
                if status is None:
                    return
                if not status:
                    await reader.readexactly(1)
                head = b"HTTP/1.1 %d OK\r\nContent-Length: 2\r\n\r\n" % status
                writer.write(head)
                await writer.drain()
                await asyncio.sleep(0)  # in two pieces
                writer.write(b"{}")
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left += 1
        finally:
            writer.close()


def under(handle: Handle, load: Load, text: str = "abcdefghij") -> tuple[Any, Listening]:
    async def run() -> tuple[Any, Listening]:
        async with Listening(handle) as server:
            return await drive("a", server.port, text, load), server

    return asyncio.run(run())


async def at_once(body: dict[str, Any]) -> int:
    return 200


def test_every_key_is_a_request_with_the_document_up_to_it() -> None:
    row, server = under(at_once, Load(5, 40.0, 0.5))
    documents, keys = server.bodies[:8], server.bodies[8:]
    assert [len(body["prefix"]) for body in documents] == [5] * 8
    assert {body["max_tokens"] for body in documents} == {1}
    assert [body["seed"] for body in keys] == list(range(len(keys)))
    assert {(body["n"], body["max_tokens"], body["temperature"]) for body in keys} == {(3, 8, 0.7)}
    longest = max(keys, key=lambda body: len(body["prefix"]))["prefix"]
    assert longest in "abcdefghij" * 20
    assert len(row.latencies) > 5
    assert row.cancelled == 0
    assert 0 < row.percentile(0.5) <= row.percentile(0.99) < 1
    assert 0 <= row.late < 1


def test_who_presses_the_next_key_leaves_the_answer_to_the_one_before() -> None:
    async def late(body: dict[str, Any]) -> int:
        return 200 if body["max_tokens"] == 1 else 0

    row, server = under(late, Load(5, 20.0, 1.0))
    assert row.cancelled > 5
    assert server.left >= row.cancelled
    left = [one for one in row.latencies if math.isfinite(one)]
    assert len(left) == row.cancelled
    assert len(row.latencies) - len(left) <= 4  # the last of each writer never was answered


@pytest.mark.parametrize("status", [503, None])
def test_what_is_refused_counts_as_never_answered(status: int | None) -> None:
    async def refuse(body: dict[str, Any]) -> int | None:
        return 200 if body["max_tokens"] == 1 else status

    row, _ = under(refuse, Load(5, 20.0, 0.5))
    assert len(row.latencies)
    assert all(map(math.isinf, row.latencies))
    assert row.cancelled == 0


def test_no_server_is_said() -> None:
    async def ask() -> None:
        async with Listening(at_once) as server:
            port = server.port
        await Writer(port).begin(b"")

    with pytest.raises(ConnectionRefusedError):
        asyncio.run(ask())
    with pytest.raises(FailedError, match=r"did not start: .*No module"):
        ServerProcess("no_such_module")


def test_messages() -> None:
    asked = message(Request("é\n", SamplingOptions(n=2, max_tokens=3, seed=4)))
    head, _, body = asked.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(body) in head
    assert json.loads(body)["prefix"] == "é\n"
    whole = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
    assert [answered(whole[:k]) for k in range(len(whole))] == [None] * len(whole)
    assert answered(whole) == (200, b"{}")
