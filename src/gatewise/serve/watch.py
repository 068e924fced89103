"""The outermost layer: measures every request, writes its line in the log, and catches what nothing else did.

A line holds the route, never the path that was asked for, and the user's text only where that was asked for.
"""

from __future__ import annotations

import json
import logging
import time
import traceback

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gatewise.serve.metrics import Metrics
from gatewise.serve.refusals import Refused, refusal

_LOG = logging.getLogger("gatewise.serve")
_SHOWN = 200


class Watch:
    """The middleware.

    Args:
        app: what is watched.
        metrics: where it is counted.
        log: whether each request gets a line.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, *, log: bool) -> None:
        self._app, self._metrics, self._log = app, metrics, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, ended = time.perf_counter(), 0, False

        async def noted(message: Message) -> None:
            nonlocal status, ended
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                ended = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            _LOG.error("an error in gatewise itself: %s", place_of(error))
            if not status:
                failed = Refused(500, "an error in the server itself; its log says where")
                await refusal(scope["path"], failed)(scope, receive, noted)
            elif not ended:
                raise _BrokenError from None
        finally:
            self._note(scope, status, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.note(route, status or 499, seconds)
        if self._log:
            _LOG.info("%s %s %.1f ms", route, status or 499, 1000 * seconds)


class _BrokenError(Exception):
    """An answer that was begun and cannot be ended: the connection is closed."""


def place_of(error: BaseException) -> str:
    """Kind and place of an error, without its message, which may hold the user's text."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "nowhere"
    return f"{type(error).__name__} at {place}"


def log_text(kind: str, prefix: str, completions: list[str]) -> None:
    """A line with the user's text, each control character as an escape."""
    _LOG.info("%s %s -> %s", kind, json.dumps(prefix[-_SHOWN:]), json.dumps(completions)[:_SHOWN])
