"""A run that is trained once in seconds, and the command line called in this process."""

from __future__ import annotations

import io
import os
import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from gatewise.cli import main

# torch notes once which functions a device context acts on: before they are wrapped (conftest.py)
with torch.device("meta"):
    torch.zeros(0)


@dataclass(frozen=True)
class Called:
    """What a command line did."""

    status: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line that it left on standard error."""
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("gatewise: "), self.err
        return self.err.removeprefix("gatewise: ").rstrip("\n")


Call = Callable[..., Called]


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The user's own cache is left alone."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def gatewise(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls the command line; `stdin` is what stands in its standard input."""

    def call(*words: object, stdin: str = "") -> Called:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capsys.readouterr()
        status = main([str(word) for word in words])
        found = capsys.readouterr()
        return Called(status, found.out, found.err)

    return call


def make_text(lines: int = 250) -> str:
    """Lines that look like code, in a random order."""
    draw = random.Random(7)
    patterns = ("def {}(self):", "    return {}", "for {} in range(9):", "    {} = 'x'", "")
    names = ("gate", "memory", "open", "keep")
    return "\n".join(draw.choice(patterns).format(draw.choice(names)) for _ in range(lines))


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "code.txt"
    path.write_text(make_text())
    return path


@pytest.fixture(scope="session")
def trained(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run; never written to by a test."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    words = ["train", "lm", str(text), "--out", str(folder), "--preset", "tiny", "--steps", "120"]
    assert main(words) == 0
    torch.set_num_threads(threads)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, to be broken."""
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def untouched() -> Callable[[Path], Callable[[], None]]:
    """Notes what a folder holds; what it returns checks that this is so still."""

    def note(folder: Path) -> Callable[[], None]:
        before = contents(folder)

        def check() -> None:
            assert contents(folder) == before

        return check

    return note
