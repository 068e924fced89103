"""A run that is trained once in seconds, and the application called in this process or as one of its own."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from gatewise.bench.server_process import SERVE, ServerProcess
from gatewise.cli import main
from gatewise.serve.app import Settings, build_api, wrap
from gatewise.serve.runs import Runs, Source

# torch notes once which functions a device context acts on: before they are wrapped (conftest.py)
with torch.device("meta"):
    torch.zeros(0)

BASE = "http://localhost:8080"


def make_text(lines: int = 250) -> str:
    """Lines of words and full stops, in a random order."""
    draw = random.Random(7)
    words = ("gate", "memory", "open", "keep", "a", "state", "é", "def", "(self):", "\n   ")
    parts = []
    for _ in range(lines):
        parts.append(" ".join(draw.choice(words) for _ in range(draw.randint(3, 9))))
        parts.append(draw.choice((". ", ".\n", "! ")))
    return "".join(parts)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The user's own cache is left alone."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run; never written to by a test."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    text = tmp_path_factory.mktemp("text") / "words.txt"
    text.write_text(make_text(), encoding="utf-8")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    words = ["train", "lm", str(text), "--out", str(folder), "--preset", "tiny", "--steps", "60"]
    assert main(words) == 0
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="session")
def runs(trained: Path) -> Iterator[Runs]:
    found = Runs([Source("mine", trained), Source("other", trained, dtype="float32")])
    found.open()
    yield found
    found.close(5)


@dataclass
class Client:
    """Calls an application in this process."""

    app: Any
    head: dict[str, str]

    def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        return asyncio.run(self.call(method, path, body, **options))

    async def call(
        self, method: str, path: str, body: Any = None, **options: Any
    ) -> httpx.Response:
        head = self.head | options.pop("headers", {})
        if body is not None:
            options["json"] = body
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            return await client.request(method, path, headers=head, **options)

    def post(self, path: str, body: Any, **options: Any) -> Any:
        """The document of an answer that is none of an error."""
        found = self("POST", path, body, **options)
        assert found.status_code == 200, found.text
        return found.json()

    def refused(self, path: str, body: Any, status: int = 400) -> Any:
        """The document of an answer that is one of an error."""
        found = self("POST", path, body)
        assert found.status_code == status, found.text
        return found.json()


Make = Callable[..., Client]


@pytest.fixture(scope="session")
def make(runs: Runs) -> Make:
    """Makes a client of an application with other settings."""

    def build(settings: Settings | None = None, of: Runs | None = None, **head: str) -> Client:
        chosen = settings or Settings()
        return Client(wrap(build_api(of or runs, chosen), chosen), head)

    return build


@pytest.fixture(scope="session")
def client(make: Make) -> Client:
    return make()


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers; all are ended at the end."""
    started: list[ServerProcess] = []

    def begin(*words: object, **environment: str) -> ServerProcess:
        started.append(ServerProcess(*SERVE, *words, OMP_NUM_THREADS="1", **environment))
        return started[-1]

    yield begin
    for process in started:
        process.end()


@pytest.fixture(scope="session")
def process(start: Callable[..., ServerProcess], trained: Path) -> ServerProcess:
    return start(trained)
