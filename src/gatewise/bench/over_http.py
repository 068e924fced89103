"""The load of many writers over HTTP: each server behind the application of `gatewise serve`, in a process of its own.

Writers keep their connections. Who presses the next key before the answer has come closes the connection, as
editors do, and asks on a new one; the server stops that work. Seconds count from the moment that a key was due to the last byte
of its answer, or to its writer's next key, whichever came first.

    python -m gatewise.bench.over_http RUN --server "whole requests" --dtype int8 --port 0
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gatewise import __version__
from gatewise.bench.server_process import ServerProcess
from gatewise.bench.servers import SERVERS
from gatewise.bench.serving import OPTIONS, Served, served
from gatewise.bench.typists import Load, Typing
from gatewise.checkpoint import Checkpoint, export_checkpoint
from gatewise.complete import Batcher, Request
from gatewise.complete.requests import CANCELLED, DONE
from gatewise.errors import GatewiseError, Interrupted
from gatewise.mappings import LanguageModel
from gatewise.serve.runs import Loaded, Runs, Source
from gatewise.text.base import Tokenizer

if TYPE_CHECKING:
    from asyncio import Future, Task, Transport

PATH = "/api/complete"
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_HEAD = "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"


# --- the server's process ----------------------------------------------------------------------


@dataclass(frozen=True)
class Peer(Source):
    """A run that one of `SERVERS` answers for.

    Args:
        server: which.
    """

    server: str = "gatewise"

    def open(self) -> Loaded:
        """See `Source`."""
        loaded = super().open()
        run, packed = loaded.run, loaded.batcher.model
        loaded.close()
        peer = SERVERS[self.server](run.model, packed, run.tokenizer)
        # what the application asks of it here is `submit` and `close`; the load asks for no metrics
        return Loaded(run, cast(Batcher, peer), loaded.dtype)


def main() -> int:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--server", choices=SERVERS, default="gatewise")
    parser.add_argument("--dtype", default="int8")
    parser.add_argument("--port", type=int, default=0)
    asked = parser.parse_args()
    from gatewise.serve import server
    from gatewise.serve.app import Settings

    runs = Runs([Peer("run", asked.run, dtype=asked.dtype, server=asked.server)])
    place = server.listen("127.0.0.1", asked.port)

    def ready() -> None:
        sys.stderr.write(f"serving {asked.server} at {server.url_of(place)}\n")
        sys.stderr.flush()

    try:
        server.serve(runs, place, Settings(follow_seconds=0), ready)
    except Interrupted as stopped:
        return stopped.exit_code
    except GatewiseError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def save(model: LanguageModel, tokenizer: Tokenizer, folder: Path) -> Path:
    """A model as a run that can be served."""
    config = {"mapping": "lm", "model": model.config.to_dict()}
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    found = Checkpoint(folder, 0, __version__, config, tensors, tokenizer.to_json())
    return export_checkpoint(found, folder)


# --- the load's process ------------------------------------------------------------------------


def message(request: Request) -> bytes:
    """A request to complete, with its head."""
    options = request.options
    body = json.dumps(
        {
            "prefix": request.prefix,
            "n": options.n,
            "max_tokens": options.max_tokens,
            "temperature": options.temperature,
            "seed": options.seed,
        },
        ensure_ascii=False,
    ).encode()
    return _HEAD.format(PATH, len(body)).encode() + body


def answered(received: bytes) -> tuple[int, bytes] | None:
    """Status and body of an answer, once all of it has come."""
    head, mark, body = received.partition(b"\r\n\r\n")
    found = _LENGTH.search(head)
    if not mark or found is None or len(body) < int(found[1]):
        return None
    return int(head[9:12]), body


class Writer:
    """One that writes, and the connection: one request at a time.

    Args:
        port: of the server, on this machine.
    """

    def __init__(self, port: int) -> None:
        self._port, self._loop = port, asyncio.get_running_loop()
        self._transport: Transport | None = None
        self._connecting: Task[None] | None = None
        self._received = b""
        self._answer: Future[tuple[int, bytes]] | None = None

    def begin(self, asked: bytes) -> Future[tuple[int, bytes]]:
        """Ask; what was asked before and is not answered is left, and its connection closed.

        Returns:
            Status and body, to come.
        """
        if self._answer is not None and not self._answer.done():
            self._answer.cancel()
            self.close()
        self._answer = self._loop.create_future()
        if self._transport is None:
            self._connecting = self._loop.create_task(self._connect(asked))
        else:
            self._transport.write(asked)
        return self._answer

    def close(self) -> None:
        """Leave."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._transport, self._connecting, self._received = None, None, b""

    async def _connect(self, asked: bytes) -> None:
        answer = self._answer
        try:
            transport, _ = await self._loop.create_connection(
                lambda: _Passing(self), "127.0.0.1", self._port
            )
        except OSError as error:
            if answer is not None and not answer.done():
                answer.set_exception(error)
            return
        self._transport, self._connecting = transport, None
        transport.write(asked)

    def received(self, transport: object, data: bytes) -> None:
        """Something came on a connection."""
        if transport is not self._transport or self._answer is None:
            return
        self._received += data
        found = answered(self._received)
        if found is not None:
            self._received = b""
            if not self._answer.done():
                self._answer.set_result(found)

    def lost(self, transport: object) -> None:
        """A connection ended."""
        if transport is self._transport:
            self._transport, self._received = None, b""
            if self._answer is not None and not self._answer.done():
                self._answer.set_exception(ConnectionError("the server closed the connection"))


class _Passing(asyncio.Protocol):
    """A connection of a writer, who may have left it."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._transport: object = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._writer.received(self._transport, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._writer.lost(self._transport)


async def drive(name: str, port: int, text: str, load: Load) -> Served:
    """Let people write; see `gatewise.bench.serving.drive`."""
    typing = Typing(load, text)
    writers = [Writer(port) for _ in range(load.writers)]
    for writer, document in zip(writers, typing.opened, strict=True):
        await writer.begin(message(Request(document, replace(OPTIONS, max_tokens=1, seed=0))))
    found: dict[int, float] = {}
    states: dict[int, str] = {}
    late, begin = 0.0, time.perf_counter() + 0.05
    for key in typing.keystrokes():
        asked = message(Request(key.prefix, replace(OPTIONS, seed=key.number)))
        await asyncio.sleep(max(0.0, begin + key.due - time.perf_counter()))
        late = max(late, time.perf_counter() - begin - key.due)
        answer = writers[key.writer].begin(asked)
        answer.add_done_callback(_Noting(key.number, begin + key.due, found, states))
    end = time.perf_counter() + max(2.0, load.seconds)
    while len(states) < len(typing.due) and time.perf_counter() < end:
        await asyncio.sleep(0.005)
    for writer in writers:
        writer.close()
    return served(name, load, typing.due, found, states, late)


@dataclass(frozen=True)
class _Noting:
    """Takes down how a key ended, and when."""

    number: int
    due: float
    found: dict[int, float]
    states: dict[int, str]

    def __call__(self, answer: Future[tuple[int, bytes]]) -> None:
        if answer.cancelled():
            self.states[self.number] = CANCELLED
        elif answer.exception() is not None or answer.result()[0] != 200:
            self.states[self.number] = "refused"
            return
        else:
            self.states[self.number] = DONE
        self.found[self.number] = time.perf_counter() - self.due


@dataclass(frozen=True)
class There:
    """A server in another process; see `gatewise.bench.serving.Contestant`.

    Args:
        name: its.
        process: it.
        text: what is typed.
    """

    name: str
    process: ServerProcess
    text: str

    def drive(self, load: Load) -> Served:
        """See `Contestant`."""
        return asyncio.run(drive(self.name, self.process.port, self.text, load))

    def ask(self, request: Request) -> str:
        """See `Contestant`."""

        async def one() -> tuple[int, bytes]:
            writer = Writer(self.process.port)
            try:
                return await writer.begin(message(request))
            finally:
                writer.close()

        status, body = asyncio.run(one())
        found: Any = json.loads(body)
        if status != 200:
            raise GatewiseError(f"{self.name} answered {status}: {found.get('message')}")
        return str(found["completions"][0]["text"])


@contextmanager
def there(name: str, run: Path, dtype: str, text: str) -> Iterator[There]:
    """One of `SERVERS` behind HTTP, as long as the context lasts.

    Raises:
        FailedError: it does not start.
    """
    words = (run, "--server", name, "--dtype", dtype)
    with ServerProcess("gatewise.bench.over_http", *words) as process:
        yield There(name, process, text)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
