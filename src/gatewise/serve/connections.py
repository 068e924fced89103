"""One connection: uvicorn's own, with limits on those who send or read slowly, and tolerance for raw spaces.

An editor's request is a few packets. Whoever takes seconds for its first line holds a place, not an answer; so the head must
come within a time, what is sent must be read within another, and only so many may be connected.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
"""From the first byte of a request to the end of its head."""
READ_SECONDS = 10.0
"""In which a client must make room for what is sent."""
IDLE_SECONDS = 75
"""Between two requests of a connection."""

_UNSAFE = re.compile(rb"[^\x21-\x7e]")
_LINE = re.compile(rb"\A((?:GET|POST|HEAD|OPTIONS) )([^\r\n]*)( HTTP/1\.[01]\r?\n)")


class Connection(H11Protocol):
    """A connection with limits.

    Attributes:
        most: how many there may be.
    """

    most = 1000

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head: asyncio.TimerHandle | None = None
        self._read: asyncio.TimerHandle | None = None
        self._start = b""

    def connection_made(self, transport: Any) -> None:
        """See asyncio.Protocol."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            busy = "too many connections: try again"
            transport.write(_error("503 Service Unavailable", busy, "retry-after: 1\r\n"))
            transport.close()
            return
        self._watch()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._waits_for_head:
            data = self._mended(data)
            if not data:
                self._watch()
                return
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._calm()
        self._watch_rest()

    def send_400_response(self, msg: str) -> None:
        """See H11Protocol: as JSON, like every other error."""
        self.transport.write(_error("400 Bad Request", "expected a request of HTTP/1.1"))
        self.transport.close()

    def on_response_complete(self) -> None:
        """See H11Protocol."""
        super().on_response_complete()
        self._watch_rest()

    def _watch_rest(self) -> None:
        """The head of another request has begun."""
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._watch()

    @property
    def _waits_for_head(self) -> bool:
        return self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]

    def _mended(self, data: bytes) -> bytes:
        """The first line of a request with spaces, and bytes that are no ASCII, as percent escapes."""
        data = self._start + data
        end = data.find(b"\n")
        if end < 0 and len(data) < 65536:
            self._start = data
            return b""
        self._start = b""
        found = _LINE.match(data)
        if found is None or not _UNSAFE.search(found[2]):
            return data
        target = _UNSAFE.sub(lambda one: b"%%%02X" % ord(one[0]), found[2])
        return found[1] + target + found[3] + data[found.end() :]

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._calm()
        if self._read is not None:
            self._read.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        super().pause_writing()
        if self._read is None:
            self._read = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        if self._read is not None:
            self._read.cancel()
            self._read = None

    def _watch(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self._late)

    def _calm(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _late(self) -> None:
        self.transport.abort()


def _error(status: str, message: str, more: str = "") -> bytes:
    """An answer to what is not yet, or no, request."""
    body = json.dumps({"message": message})
    return (
        f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\nx-content-type-options: nosniff\r\n{more}"
        f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    ).encode()


def allow_connections(most: int = 4096) -> int:
    """How many connections there may be here: the limit of open files is raised as far as it goes.

    Args:
        most: wanted.
    """
    try:
        import resource
    except ImportError:  # Windows
        return min(most, 400)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return most if soft == resource.RLIM_INFINITY else max(16, min(most, soft - 256))
