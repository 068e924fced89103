"""Who answers: a model in this process, or a server that is already running. Both can be stopped at any moment."""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from gatewise.errors import FailedError, OptionError
from gatewise.serve.lsp_settings import Settings

if TYPE_CHECKING:  # an editor is greeted before torch is there
    from gatewise.complete import Answer, Batcher, Request

_REPLY = 8 << 20
"""Bytes of a server's answer that are read at most."""
_WAIT = 5.0
"""Seconds for a server to be reached, and beyond a request's own limit for its answer."""


@dataclass(frozen=True)
class Asked:
    """A text to go on with.

    Args:
        prefix: the text before the place.
        suffix: what is behind it, where that is to rank.
        settings: how to go on; None: the text is only read.
    """

    prefix: str
    suffix: str = ""
    settings: Settings | None = None

    @property
    def seconds(self) -> float | None:
        """After so long what there is is answered."""
        return None if self.settings is None else self.settings.timeout / 1000


@dataclass(frozen=True)
class Candidate:
    """A continuation.

    Args:
        text: what follows.
        is_whole: whether it ended by itself, not for its length.
        probability: of all its tokens; None where nobody says.
    """

    text: str
    is_whole: bool
    probability: float | None = None


@dataclass(frozen=True)
class Found:
    """Continuations, the best first, what should be known about the text, and the tokens that were read for it."""

    candidates: tuple[Candidate, ...] = ()
    notes: tuple[str, ...] = ()
    read: int = 0


class Source(Protocol):
    """Answers; cancelling the task that waits stops the work."""

    name: str

    async def ask(self, asked: Asked) -> Found:
        """Continuations of a text."""

    def close(self) -> None:
        """Let go of everything; may take seconds."""


class Model:
    """A model of this process.

    Args:
        name: to be shown.
        batcher: over its run.
    """

    def __init__(self, name: str, batcher: Batcher) -> None:
        self.name, self._batcher = name, batcher

    async def ask(self, asked: Asked) -> Found:
        """See Source."""
        from gatewise.complete import BusyError

        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[Answer] = loop.create_future()

        def settle(answer: Answer) -> None:
            if not waiting.done():
                waiting.set_result(answer)

        def pass_on(answer: Answer) -> None:
            try:
                loop.call_soon_threadsafe(settle, answer)
            except RuntimeError:  # the loop has ended: nobody waits
                pass

        try:
            ticket = self._batcher.submit(_request(asked), on_end=pass_on)
        except BusyError:
            return Found()
        try:
            answer = await waiting
        except asyncio.CancelledError:
            ticket.cancel()
            raise
        if answer.error is not None:
            raise answer.error
        return Found(
            tuple(
                Candidate(one.text, one.finish_reason == "stop", math.exp(one.logprob))
                for one in answer.completions
            ),
            answer.notes,
            answer.read,
        )

    def close(self) -> None:
        """See Source."""
        self._batcher.close()


def _request(asked: Asked) -> Request:
    from gatewise.complete import Request
    from gatewise.generate import SamplingOptions

    chosen = asked.settings
    if chosen is None:
        return Request(asked.prefix, SamplingOptions(max_tokens=0))
    options = SamplingOptions(
        n=chosen.n,
        max_tokens=chosen.max_tokens,
        temperature=chosen.temperature,
        top_p=chosen.top_p,
        min_p=chosen.min_p,
        lines=chosen.lines,
        words=chosen.words or None,
        sentences=chosen.sentences or None,
        closing=chosen.closing,
        confidence=chosen.confidence,
    )
    return Request(asked.prefix, options, asked.suffix, asked.seconds)


class Remote:
    """A running `gatewise serve`, or any server that has OpenAI's `/v1/completions`.

    Args:
        url: where it is: http://127.0.0.1:8080.
        model: one of its models; None: its own choice.
        token: that it asks for.

    Raises:
        OptionError: that is no address of a server.
    """

    def __init__(self, url: str, model: str | None = None, token: str | None = None) -> None:
        try:
            parts = urlsplit(url)
            good = parts.scheme in ("http", "https") and parts.hostname and not parts.query
            good = good and parts.port != 0
        except ValueError:  # brackets that do not close, a port beyond 65535
            good = False
        if not good:
            raise OptionError(
                f"--server: expected an address as http://127.0.0.1:8080, found {url!r}"
            )
        self.name = url if model is None else f"{model} at {url}"
        self._url, self._model, self._token = parts, model, token

    async def ask(self, asked: Asked) -> Found:
        """See Source."""
        seconds = _WAIT + (60.0 if asked.seconds is None else asked.seconds)
        call = _Call(self._connection(), self._path, self._headers, self._body(asked), seconds)
        loop = asyncio.get_running_loop()
        try:
            status, reply = await loop.run_in_executor(None, call.run)
        except asyncio.CancelledError:
            call.stop()
            raise
        if status in (429, 503):
            return Found()
        if status != 200:
            raise FailedError(
                f"{self.name}: expected an answer, found status {status}: {_why(reply)}"
            )
        return _found(reply, 1 if asked.settings is None else asked.settings.lines)

    def close(self) -> None:
        """See Source."""

    @property
    def _path(self) -> str:
        return self._url.path.rstrip("/") + "/v1/completions"

    @property
    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        return headers

    def _connection(self) -> http.client.HTTPConnection:
        secure = self._url.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        return kind(str(self._url.hostname), self._url.port, timeout=_WAIT)

    def _body(self, asked: Asked) -> bytes:
        chosen = asked.settings
        body: dict[str, Any] = {"prompt": asked.prefix, "max_tokens": 0}
        if self._model is not None:
            body["model"] = self._model
        if chosen is not None:
            body |= {"n": chosen.n, "max_tokens": chosen.max_tokens}
            body |= {"temperature": min(chosen.temperature, 2.0), "top_p": chosen.top_p}
            body |= {"suffix": asked.suffix} if asked.suffix else {}
            body |= {"stop": ["\n"]} if chosen.lines == 1 else {}
        return json.dumps(body).encode()


class _Call:
    """One request on a connection of its own, which another thread may close."""

    def __init__(
        self,
        connection: http.client.HTTPConnection,
        path: str,
        headers: dict[str, str],
        body: bytes,
        seconds: float,
    ) -> None:
        self._connection, self._path, self._headers, self._body = connection, path, headers, body
        self._seconds = seconds
        self._lock, self._stopped = threading.Lock(), False

    def run(self) -> tuple[int, bytes]:
        """The status and the body of the answer."""
        connection = self._connection
        try:
            connection.connect()
            connection.sock.settimeout(self._seconds)
            with self._lock:
                if self._stopped:
                    return 503, b""
            connection.request("POST", self._path, self._body, self._headers)
            reply = connection.getresponse()
            return reply.status, reply.read(_REPLY)
        except (OSError, http.client.HTTPException) as error:
            if self._stopped:
                return 503, b""
            where = f"{connection.host}:{connection.port}"
            raise FailedError(
                f"no answer from {where}: {getattr(error, 'strerror', None) or error}; is `gatewise serve` running?"
            ) from None
        finally:
            connection.close()

    def stop(self) -> None:
        """Hang up: a server stops its work then."""
        with self._lock:
            self._stopped = True
            sock = self._connection.sock
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:  # it has ended by itself
                pass


def _found(reply: bytes, lines: int) -> Found:
    try:
        choices = json.loads(reply)["choices"]
        texts = [
            _cut(str(one["text"]), lines, one.get("finish_reason") == "stop") for one in choices
        ]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise FailedError("the server's answer is not one of /v1/completions") from None
    different = dict(texts)  # the last of equals; the order of the first
    return Found(tuple(Candidate(text, is_whole) for text, is_whole in different.items()))


def _cut(text: str, lines: int, is_whole: bool) -> tuple[str, bool]:
    """The first lines of a text, and whether they are whole: this protocol has no limit of lines."""
    parts = text.split("\n")
    if len(parts) <= lines:
        return text, is_whole
    return "\n".join(parts[:lines]), True


def _why(reply: bytes) -> str:
    """The line that a server's error gives."""
    try:
        error = json.loads(reply)["error"]
        return str(error["message"] if isinstance(error, dict) else error)[:200]
    except (ValueError, LookupError, TypeError):
        return "no reason given"
