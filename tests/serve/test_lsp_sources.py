"""Who answers: a batcher in this process, and a server elsewhere, stopped at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gatewise.complete import Answer, BusyError, Completion
from gatewise.errors import DivergedError, FailedError, OptionError
from gatewise.probe import Control
from gatewise.serve.lsp_models import Runs, Server
from gatewise.serve.lsp_settings import Settings
from gatewise.serve.lsp_sources import Asked, Model, Remote


class FakeBatcher:
    """Answers what it is told, or never."""

    def __init__(self, answer: Answer | Exception | None) -> None:
        self.answer, self.request, self.cancelled = answer, None, 0

    def submit(self, request: Any, on_piece: Any = None, on_end: Any = None) -> Any:
        self.request = request
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            threading.Thread(target=on_end, args=(self.answer,)).start()
        return self

    def cancel(self) -> None:
        self.cancelled += 1


def answer(error: Exception | None = None) -> Answer:
    samples = (Completion("ab", -1.0, 2, "length"), Completion("c", -0.5, 1, "stop"))
    return Answer(samples, "done", 3, 4, 3, (0.0, 0.0, 0.0), 1, ("a note",), error)


def test_a_model_is_asked_with_the_settings() -> None:
    batcher = FakeBatcher(answer())
    settings = Settings(
        n=2, max_tokens=9, multi_line=True, max_lines=4, words=3, closing=True, timeout=500
    )
    found = asyncio.run(Model("m", batcher).ask(Asked("pre", "suf", settings)))  # type: ignore[arg-type]
    assert [(one.text, one.is_whole) for one in found.candidates] == [("c", True), ("ab", False)]
    assert (found.notes, found.read) == (("a note",), 3)
    request: Any = batcher.request
    assert (request.prefix, request.suffix, request.seconds) == ("pre", "suf", 0.5)
    options = request.options
    assert (options.n, options.max_tokens, options.lines, options.words) == (2, 9, 4, 3)
    assert options.closing
    assert options.sentences is None


def test_reading_ahead_writes_nothing_and_has_no_limit() -> None:
    batcher = FakeBatcher(answer())
    asyncio.run(Model("m", batcher).ask(Asked("pre")))  # type: ignore[arg-type]
    request: Any = batcher.request
    assert (request.options.max_tokens, request.seconds) == (0, None)


def test_a_busy_model_has_nothing_and_a_broken_one_says_so() -> None:
    asked = Asked("pre", "", Settings())
    assert asyncio.run(Model("m", FakeBatcher(BusyError("full"))).ask(asked)).candidates == ()  # type: ignore[arg-type]
    with pytest.raises(DivergedError, match="broken"):
        asyncio.run(Model("m", FakeBatcher(answer(DivergedError("broken")))).ask(asked))  # type: ignore[arg-type]


def test_to_cancel_the_waiting_cancels_the_ticket() -> None:
    batcher = FakeBatcher(None)

    async def scenario() -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(Model("m", batcher).ask(Asked("pre", "", Settings())), 0.05)  # type: ignore[arg-type]

    asyncio.run(scenario())
    assert batcher.cancelled == 1


# --- a server elsewhere --------------------------------------------------------------------------


class Stub(ThreadingHTTPServer):
    """Answers /v1/completions with what it is told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.reply = 200, b"{}"
        self.seen: list[tuple[str, Any, dict[str, Any]]] = []
        self.slow, self.came, self.hung_up = False, threading.Event(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, self.headers.get("Authorization"), body))
        self.server.came.set()
        if self.server.slow and self.connection.recv(1) == b"":
            self.server.hung_up.set()
            return
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.reply)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def choices(*texts: str, reason: str = "stop") -> bytes:
    return json.dumps({"choices": [{"text": t, "finish_reason": reason} for t in texts]}).encode()


def test_a_server_is_asked_over_its_completions(stub: Stub) -> None:
    stub.reply = choices("a\nb", "c", "c")
    remote = Remote(stub.url + "/", "m", "secret")
    found = asyncio.run(
        remote.ask(Asked("pre\u00e9", "suf", Settings(n=3, max_tokens=5, temperature=0.0)))
    )
    assert [one.text for one in found.candidates] == ["a", "c"]
    path, token, body = stub.seen[0]
    assert (path, token) == ("/v1/completions", "Bearer secret")
    assert body == {
        "model": "m",
        "prompt": "pre\u00e9",
        "suffix": "suf",
        "n": 3,
        "max_tokens": 5,
        "temperature": 0.0,
        "top_p": 1.0,
        "stop": ["\n"],
    }
    assert "secret" not in remote.name


def test_a_token_may_come_from_a_file_with_its_line_end(stub: Stub) -> None:
    stub.reply = choices("a")
    asyncio.run(Server(stub.url, "secret\n")(None, None).ask(Asked("pre")))
    asyncio.run(Server(stub.url, " \n")(None, None).ask(Asked("pre")))
    assert [token for _, token, _ in stub.seen] == ["Bearer secret", None]


def test_lines_are_counted_here_and_reading_ahead_writes_nothing(stub: Stub) -> None:
    stub.reply = choices("a\nb\nc", "d", reason="length")
    settings = Settings(multi_line=True, max_lines=2)
    found = asyncio.run(Remote(stub.url).ask(Asked("pre", "", settings)))
    assert [(one.text, one.is_whole) for one in found.candidates] == [("a\nb", True), ("d", False)]
    assert "stop" not in stub.seen[0][2]
    asyncio.run(Remote(stub.url).ask(Asked("pre")))
    assert stub.seen[1][2] == {"prompt": "pre", "max_tokens": 0}


def test_to_cancel_the_waiting_hangs_up(stub: Stub) -> None:
    stub.slow = True

    async def scenario() -> None:
        asking = asyncio.ensure_future(Remote(stub.url).ask(Asked("pre", "", Settings())))
        await asyncio.to_thread(stub.came.wait, 10)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(scenario())
    assert stub.hung_up.wait(10)


def test_what_a_server_refuses_is_one_line_and_overload_is_nothing(stub: Stub) -> None:
    asked = Asked("pre", "", Settings())
    stub.status = 429
    assert asyncio.run(Remote(stub.url).ask(asked)).candidates == ()
    stub.status, stub.reply = 401, b'{"error": {"message": "a token is needed"}}'
    with pytest.raises(FailedError, match="found status 401: a token is needed"):
        asyncio.run(Remote(stub.url, token="secret").ask(asked))
    stub.status, stub.reply = 200, b"<html>"
    with pytest.raises(FailedError, match="is not one of /v1/completions"):
        asyncio.run(Remote(stub.url).ask(asked))


def test_no_server_is_one_line(stub: Stub) -> None:
    stub.server_close()
    with pytest.raises(
        FailedError, match=r"no answer from 127.0.0.1:\d+: .* is `gatewise serve` running"
    ):
        asyncio.run(Remote(stub.url).ask(Asked("pre")))


def test_weights_are_those_that_were_exported_unless_others_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    class Run:
        dtype: str | None = "bfloat16"

        def batcher(self, *, control: Any, dtype: str) -> FakeBatcher:
            asked.append(dtype)
            return FakeBatcher(answer())

    monkeypatch.setattr("gatewise.serve.lsp_models._first_token", lambda batcher: None)
    for chosen, exported in ((None, "bfloat16"), (None, None), ("float32", "bfloat16")):
        monkeypatch.setattr(Run, "dtype", exported)
        monkeypatch.setattr(Runs, "_loaded", lambda self, name: Run())
        Runs("best", chosen)("run", None)
    assert asked == ["bfloat16", "int8", "float32"]


def test_what_a_server_cannot_do() -> None:
    for url in ("localhost:8080", "http://[", "http://a:99999", "http://a:x", "http://", "ftp://a"):
        with pytest.raises(OptionError, match="expected an address"):
            Server(url)
    for token in ("a\nb", "\u2603"):
        with pytest.raises(OptionError, match="GATEWISE_TOKEN: expected letters"):
            Server("http://127.0.0.1:1", token)
    with pytest.raises(OptionError, match="a control acts where the model is"):
        Server("http://127.0.0.1:1")(None, Control.off("o"))
    assert Server("http://127.0.0.1:1")("m", None).name == "m at http://127.0.0.1:1"
