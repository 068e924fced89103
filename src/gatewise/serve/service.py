"""What the protocols have in common: a run by its name, a request to the core, an answer awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request as HttpRequest
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gatewise.checkpoint.strict_json import JsonError, loads
from gatewise.complete import Answer, BusyError, Request
from gatewise.errors import GatewiseError
from gatewise.serve.bounds import MOST_SECONDS
from gatewise.serve.refusals import Gone, Refused, busy, of_error
from gatewise.serve.runs import Loaded, Runs, Served
from gatewise.serve.watch import log_text
from gatewise.serve.work import Work
from gatewise.text.base import replace_surrogates

_MANY = 10_000
"""Values of JSON from which on it is read aside."""


class Service:
    """What answers for all protocols.

    Args:
        runs: what is served.
        log_text: whether texts are written to the log.
    """

    def __init__(self, runs: Runs, *, log_text: bool = False) -> None:
        self.runs, self._log_text = runs, log_text

    def find(self, name: str | None) -> tuple[Served, Loaded]:
        """The run of that name; without a name the first.

        Raises:
            Refused: there is none, or it is still being loaded.
        """
        served = self.runs.find(name)
        if served is None:
            known = ", ".join(self.runs.names)
            raise Refused(404, f"no such run: expected one of {known}", code="model_not_found")
        if served.loaded is None:
            raise Refused(503, "Loading model", retry_after=1)
        return served, served.loaded

    def begin(
        self,
        http: HttpRequest,
        loaded: Loaded,
        requests: Sequence[Request],
        *,
        pieces: bool = False,
        write_seconds: float | None = None,
    ) -> Work:
        """Put requests on their way.

        Raises:
            Refused: too much is on its way, or the options do not fit.
        """
        self.runs.on_request()

        def note(number: int, answer: Answer) -> None:
            if self._log_text:
                texts = [one.text for one in answer.samples]
                log_text(http.scope["route"].path, requests[number].prefix, texts)

        work = Work(pieces=pieces, on_answer=note)
        try:
            for request in requests:
                work.add(loaded, request, write_seconds)
        except BusyError:
            raise busy(http.url.path) from None
        except GatewiseError as error:
            raise of_error(error) from None
        return work

    async def answers(
        self,
        http: HttpRequest,
        loaded: Loaded,
        requests: Sequence[Request],
        *,
        write_seconds: float | None = None,
    ) -> list[Answer]:
        """The answers to some requests, together.

        Raises:
            Refused: there are none.
            Gone: nobody waits for them.
        """
        return await self.begin(http, loaded, requests, write_seconds=write_seconds).done(http)


class Turns:
    """What takes a thread: one at a time, and only so many that wait.

    Args:
        most: that wait.
    """

    def __init__(self, most: int = 16) -> None:
        self._lock, self._most, self._waiting = asyncio.Lock(), most, 0

    @asynccontextmanager
    async def one(self, http: HttpRequest) -> AsyncIterator[None]:
        """The next turn.

        Raises:
            Refused: too many wait.
            Gone: the client does not.
        """
        if self._waiting >= self._most:
            raise busy(http.url.path)
        self._waiting += 1
        try:
            async with self._lock:
                if await http.is_disconnected():
                    raise Gone
                yield
        finally:
            self._waiting -= 1


def seconds_of(asked: float | None) -> float:
    """A time limit: as asked, but never none."""
    return MOST_SECONDS if asked is None else min(asked, MOST_SECONDS)


class _Request(HttpRequest):
    """A request whose JSON has limits of depth, numbers and keys."""

    async def json(self) -> Any:
        body = await self.body()
        try:
            # one of many values takes long enough to be felt by others
            return await asyncio.to_thread(_read, body) if _is_long(body) else _read(body)
        except JsonError:  # FastAPI lets nothing else through; `gatewise.serve.app` has the words
            raise HTTPException(400) from None


def _is_long(body: bytes) -> bool:
    """Whether it may have many values; one long text has few."""
    return len(body) > _MANY and sum(map(body.count, (b",", b"[", b"{"))) > _MANY


def _read(body: bytes) -> Any:
    value = loads(body)
    return without_surrogates(value) if b"\\u" in body else value


def without_surrogates(value: Any) -> Any:
    """A JSON value with each half of a character as U+FFFD: editors cut texts where they please."""
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, list):
        return [without_surrogates(part) for part in value]
    if isinstance(value, dict):
        return {replace_surrogates(key): without_surrogates(part) for key, part in value.items()}
    return value


class Route(APIRoute):
    """A route whose body is read strictly, and whose client may go at any time."""

    def get_route_handler(self) -> Callable[[HttpRequest], Coroutine[Any, Any, Response]]:
        """See APIRoute."""
        handle = super().get_route_handler()

        async def handled(request: HttpRequest) -> Response:
            try:
                return await handle(_Request(request.scope, request.receive))
            except Gone:
                return Response(status_code=499)

        return handled


class Message(BaseModel):
    """An error, outside the protocols that have a form of their own."""

    message: str


def errors(form: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The answers of a route that are errors, for its documentation."""
    codes = (400, 401, 403, 404, 408, 413, 415, 429, 500, 503)
    return {code: {"model": form} for code in codes}


_EVENT = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": _EVENT}}}
}
"""What a route that streams may answer as well."""
