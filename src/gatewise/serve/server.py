"""The process: a socket, uvicorn on it, signals, and an end that answers what is on its way."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from gatewise.errors import FailedError, Interrupted
from gatewise.serve.app import Settings, build
from gatewise.serve.connections import IDLE_SECONDS, Connection, allow_connections
from gatewise.serve.runs import Runs

_EXIT = {signal.SIGINT: 130, signal.SIGTERM: 143}
_GRACE = 5.0
"""Seconds after the last answer of a run in which it must have been sent."""
_SWITCH = 0.0005
"""Seconds after which Python passes from the model's thread to the one that answers, and back."""


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address.

    Raises:
        FailedError: it cannot be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, number, _, address = found[0]
        place = socket.socket(family, kind, number)
        try:
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            place.bind(address)
        except OSError:
            place.close()
            raise
        return place
    except OSError as error:
        reason = error.strerror or str(error)
        raise FailedError(
            f"cannot listen at {host}, port {port}: {reason}: end what listens there, or name another --port "
            "(0: any free one) or --host"
        ) from None


def url_of(place: socket.socket) -> str:
    """Where a socket's server is found."""
    host, port = place.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    runs: Runs,
    place: socket.socket,
    settings: Settings,
    on_ready: Callable[[], None],
) -> None:
    """Serve until a signal comes.

    Args:
        runs: what is served; opened in the background.
        place: where.
        settings: how.
        on_ready: called once when all runs are open.

    Raises:
        Interrupted: a signal came; what was on its way was answered.
        GatewiseError: a run cannot be opened.
    """
    failure: list[BaseException] = []

    def ready(error: BaseException | None) -> None:
        if error is None:
            on_ready()
        else:
            failure.append(error)
            server.should_exit = True

    Connection.most = allow_connections()
    sys.setswitchinterval(_SWITCH)
    server = server_of(build(runs, settings, ready), settings)
    server.on_end = functools.partial(runs.close, settings.closing_seconds)
    server.run(sockets=[place])
    if failure:
        raise failure[0]
    raise Interrupted("stopped", server.exit_code or 130)


def server_of(app: ASGIApp, settings: Settings) -> Server:
    """uvicorn for an application; `run` it."""
    return Server(
        uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            loop="asyncio",
            lifespan="on",
            access_log=False,
            log_config=None,
            log_level="critical",
            server_header=False,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=round(settings.closing_seconds + _GRACE),
            backlog=1024,
        )
    )


class Server(uvicorn.Server):
    """A server that ends by a signal and says which.

    Attributes:
        exit_code: that the signal means.
        on_end: answers what is on its way, at last with what there is; called in a thread when the end begins.
    """

    exit_code = 0
    on_end: Callable[[], None] = staticmethod(lambda: None)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn.Server."""
        ending = asyncio.ensure_future(asyncio.to_thread(self.on_end))
        await super().shutdown(sockets)
        if not self.force_exit:
            await ending

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """See uvicorn.Server: the signals are not raised again at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        old = {number: signal.signal(number, self._stop) for number in _EXIT}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.exit_code:
            self.force_exit = True
        self.exit_code = _EXIT[signal.Signals(number)]
        self.should_exit = True
