"""Tickets on an event loop: their pieces and answers awaited, and cancelled when the client goes.

A batcher calls from its own thread; here its calls become events of the loop. That a client has gone is known from
the connection alone, so it is watched while an answer is awaited, streaming or not.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple, TypeAlias

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gatewise.complete import Answer, Request, Ticket
from gatewise.serve.refusals import Gone, of_error
from gatewise.serve.runs import Loaded


class Piece(NamedTuple):
    """A piece of the text of sample `sample` of request `number`."""

    number: int
    sample: int
    text: str


class End(NamedTuple):
    """The answer to request `number`."""

    number: int
    answer: Answer


Event: TypeAlias = "Piece | End"
_PARTS = 256
"""Pieces that wait one by one; more are put together."""


class _Waiting:
    """What has happened and was not yet looked at.

    The pieces of a sample are one: who is late catches up, and who does not read costs its texts and no more.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: dict[tuple[int, int], list[str]] = {}
        self._ends: list[End] = []

    def add(self, event: Event) -> bool:
        """Called by the model's thread; whether nothing waited before."""
        with self._lock:
            first = not (self._texts or self._ends)
            if isinstance(event, End):
                self._ends.append(event)
                return first
            parts = self._texts.setdefault((event.number, event.sample), [])
            parts.append(event.text)
            if len(parts) >= _PARTS:
                parts[:] = ["".join(parts)]
        return first

    def take(self) -> list[Event]:
        """All of it, the ends last."""
        with self._lock:
            texts, self._texts = self._texts, {}
            ends, self._ends = self._ends, []
        return [*(Piece(*key, "".join(parts)) for key, parts in texts.items()), *ends]


class Work:
    """The tickets of one HTTP request.

    Args:
        pieces: whether pieces of texts are wanted as they come.
        on_answer: is told the number of each request that is answered, and the answer.
    """

    def __init__(
        self,
        *,
        pieces: bool = False,
        on_answer: Callable[[int, Answer], None] = lambda number, answer: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting = _Waiting()
        self._wake = asyncio.Event()
        self._pieces, self._on_answer = pieces, on_answer
        self._tickets: list[Ticket] = []
        self.answers: list[Answer | None] = []

    def add(self, loaded: Loaded, request: Request, write_seconds: float | None = None) -> None:
        """Begin one more request.

        Args:
            loaded: who is to answer.
            request: what is asked.
            write_seconds: end so long after the first piece of text.

        Raises:
            BusyError: too much is on its way; what was begun is cancelled.
        """
        number = len(self._tickets)
        self.answers.append(None)
        timer = None if write_seconds is None else self._timer(number, write_seconds)

        def on_piece(sample: int, text: str) -> None:
            if self._pieces:
                self._put(Piece(number, sample, text))
            if timer is not None:
                self._call(timer)

        def on_end(answer: Answer) -> None:
            self._put(End(number, answer))

        wanted = on_piece if self._pieces or timer is not None else None
        try:
            self._tickets.append(loaded.submit(request, wanted, on_end))
        except Exception:
            self.cancel()
            raise

    def _timer(self, number: int, seconds: float) -> Callable[[], None]:
        started: list[asyncio.TimerHandle] = []

        def start() -> None:
            if not started:
                started.append(self._loop.call_later(seconds, self._tickets[number].cancel))

        return start

    def _put(self, event: Event) -> None:
        if self._waiting.add(event):
            self._call(self._wake.set)

    def _call(self, act: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(act)
        except RuntimeError:  # the loop is closed: nobody waits
            self.cancel()

    def cancel(self) -> None:
        """Nobody waits any more."""
        for ticket in self._tickets:
            ticket.cancel()

    async def events(self) -> AsyncIterator[list[Event]]:
        """What happens, until every request is answered."""
        left = len(self._tickets)
        while left:
            await self._wake.wait()
            self._wake.clear()
            found = self._waiting.take()
            for event in found:
                if isinstance(event, End):
                    self.answers[event.number] = event.answer
                    self._on_answer(event.number, event.answer)
                    left -= 1
            if found:
                yield found

    async def done(self, request: HttpRequest) -> list[Answer]:
        """The answers to all of them.

        Raises:
            Gone: the client has gone; the work is cancelled.
            Refused: what kept one from being answered.
        """
        ended = asyncio.ensure_future(self._ended())
        gone = asyncio.ensure_future(until_gone(request.receive))
        try:
            await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                raise Gone
            found = ended.result()
        finally:
            self.cancel()
            ended.cancel()
            gone.cancel()
        for answer in found:
            if answer.error is not None:
                raise of_error(answer.error)
        return found

    async def _ended(self) -> list[Answer]:
        async for _ in self.events():
            pass
        return [answer for answer in self.answers if answer is not None]


async def until_gone(receive: Receive) -> None:
    """Returns when the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events that end, and end the work, when the client goes.

    Args:
        work: whose events.
        lines: the events as they are sent.
    """

    def __init__(self, work: Work, lines: AsyncIterator[bytes]) -> None:
        super().__init__(media_type="text/event-stream")
        del self.headers["content-length"]
        self.headers["x-accel-buffering"] = "no"
        self._work, self._lines = work, lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See Response."""
        gone = asyncio.ensure_future(until_gone(receive))
        gone.add_done_callback(lambda _: self._work.cancel())
        head: dict[str, Any] = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        try:
            await send(head)
            async for line in self._lines:
                if gone.done():
                    break
                await send({"type": "http.response.body", "body": line, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._work.cancel()
            gone.cancel()
