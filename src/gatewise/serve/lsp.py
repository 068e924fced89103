"""The language server over standard input and output or a port of this machine; it needs the extra gatewise[lsp].

Who answers, what a connection keeps and what an editor can ask stand in the modules beside this one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, Protocol

from pygls.io_ import StdinAsyncReader, StdoutWriter, run_async

from gatewise.errors import FailedError
from gatewise.serve.lsp_features import register
from gatewise.serve.lsp_models import Models
from gatewise.serve.lsp_server import EditorServer

_CONNECTIONS = 16
"""Editors that may be connected to one port at a time."""
_LARGEST = 256 << 20
"""Bytes of one message."""


class _Reader(Protocol):
    def readline(self) -> Awaitable[bytes]: ...

    def readexactly(self, n: int) -> Awaitable[bytes]: ...


def serve_stdio(models: Models, *, log_text: bool = False) -> int:
    """Serve the editor that started this process, until it says so or hangs up.

    Whatever else writes to standard output goes to standard error: nothing stray comes between the messages.

    Returns:
        0, or 1 where the editor left without a word.
    """
    sys.stdout.flush()
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a thread waits for input, for ever
    server = _server(models, log_text)
    try:
        return asyncio.run(_stdio(server, sys.stdin.buffer, output))
    finally:
        models.close()


async def _stdio(server: EditorServer, stdin: BinaryIO, output: BinaryIO) -> int:
    server.protocol.set_writer(StdoutWriter(output))
    with ThreadPoolExecutor(1) as reading:
        await _converse(server, _Guarded(StdinAsyncReader(stdin, reading), server))
    return 1 if server.ended is None else server.ended


def serve_tcp(
    models: Models, host: str, port: int, ready: Callable[[int], None], *, log_text: bool = False
) -> int:
    """Serve the editors that connect to a port, until the process is ended.

    Args:
        models: who answers; shared by all of them.
        host: an address of this machine.
        port: 0 takes a free one.
        ready: is told which.
        log_text: whether texts may stand in the log.

    Raises:
        FailedError: the port cannot be had.
    """
    try:
        asyncio.run(listen(models, host, port, ready, log_text))
    finally:
        models.close()
    return 0


async def listen(
    models: Models, host: str, port: int, ready: Callable[[int], None], log_text: bool
) -> None:
    """What `serve_tcp` does, within a loop of events."""
    connected = 0

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connected
        if connected >= _CONNECTIONS:
            writer.close()
            return
        connected += 1
        server = _server(models, log_text)
        server.protocol.set_writer(writer)
        try:
            await _converse(server, _Guarded(reader, server))
        finally:
            connected -= 1
            writer.close()

    try:
        listening = await asyncio.start_server(connect, host, port)
    except OSError as error:
        raise FailedError(f"--tcp {port}: cannot listen at {host}: {error.strerror}") from None
    ready(listening.sockets[0].getsockname()[1])
    async with listening:
        await listening.serve_forever()


def _server(models: Models, log_text: bool) -> EditorServer:
    server = EditorServer(models, log_text=log_text)
    register(server)
    return server


async def _converse(server: EditorServer, reader: _Reader) -> None:
    """Take messages until the end."""
    ahead = asyncio.ensure_future(server.ahead.run())
    try:
        await run_async(
            stop_event=threading.Event(),
            reader=reader,
            protocol=server.protocol,
            logger=logging.getLogger("pygls"),
            error_handler=server.report_server_error,
        )
    except (OSError, EOFError, ValueError) as error:  # EOFError: within a message
        server.report_server_error(error, type(error))
    finally:
        ahead.cancel()
        server.drop()


class _Guarded:
    """A reader that takes nothing but this protocol, and ends where the editor said so.

    A web page can make a browser write to a port of this machine; but it begins with a line of HTTP.
    """

    def __init__(self, reader: _Reader, server: EditorServer) -> None:
        self._reader, self._server, self._headers = reader, server, 0

    async def readline(self) -> bytes:
        """The next line of a header; empty at the end."""
        await asyncio.sleep(0)  # what the last message began comes first
        if self._server.ended is not None:
            return b""
        line = await self._reader.readline()
        name, colon, value = line.partition(b":")
        if line.strip() and not name.lower().startswith(b"content-"):
            raise ValueError("expected a header of the language server protocol")
        # as pygls wants to see it; names of headers may be written in any case
        is_length = colon and name.lower() == b"content-length"
        return b"Content-Length: " + value.strip() + b"\r\n" if is_length else line

    async def readexactly(self, n: int) -> bytes:
        """A message."""
        if n > _LARGEST:
            raise ValueError(f"expected a message of at most {_LARGEST:,} bytes, found {n:,}")
        return await self._reader.readexactly(n)


class PlainFormatter(logging.Formatter):
    """Log lines in which no text of a user can stand: other packages' without what they filled in.

    Args:
        log_text: leave everything as it is.
    """

    def __init__(self, *, log_text: bool = False) -> None:
        super().__init__("gatewise lsp: %(message)s")
        self._log_text = log_text

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        if self._log_text or record.name.startswith("gatewise"):
            return super().format(record)
        failed = record.exc_info[0] if isinstance(record.exc_info, tuple) else None
        why = "" if failed is None else f" ({failed.__name__})"
        return f"gatewise lsp: {record.name}: {str(record.msg).split('%')[0].strip()}{why}"


def log_to_stderr(*, verbose: bool = False, log_text: bool = False) -> None:
    """Warnings on standard error; of each answer a line where `verbose`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter(log_text=log_text))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    # its warnings are of a client's everyday ways, as to cancel what is answered already
    logging.getLogger("pygls").setLevel(logging.ERROR)
    logging.getLogger("gatewise.lsp").setLevel(logging.INFO if verbose else logging.WARNING)
