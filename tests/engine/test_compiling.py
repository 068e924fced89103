"""Compiled kernels are kept on disk, whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gatewise as gw
from gatewise.engine.cpu import compiling, making


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    making._kernels.cache_clear()
    return tmp_path / "gatewise" / "kernels"


def run() -> torch.Tensor:
    torch.manual_seed(1)
    stack = gw.Stack("gru", 3, 5)
    return stack(torch.randn(4, 2, 3), engine="compiled").h


def test_a_kernel_is_compiled_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run()
    assert len(list(folder.iterdir())) == 1
    making._kernels.cache_clear()

    def fail(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(compiling, "_optimise", fail)
    assert torch.equal(run(), first)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_file_is_replaced(folder: Path, damage: str) -> None:
    first = run()
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    flipped = bytes([whole[0] ^ 1]) + whole[1:]
    path.write_bytes({"cut": whole[:-9], "flipped": flipped, "empty": b""}[damage])
    making._kernels.cache_clear()
    assert torch.equal(run(), first)
    assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    making._kernels.cache_clear()
    assert run().shape == (4, 2, 5)


SCRIPT = """
import os, torch
import gatewise as gw
torch.set_num_threads(2)
torch.manual_seed(1)
stack = gw.Stack("lstm", 64, 128)
x = torch.randn(8, 16, 64)
first = stack(x, engine="compiled").h
child = os.fork()
if child == 0:
    torch.set_num_threads(1)  # as loaders do: the pool does not survive the fork
    os._exit(0 if torch.equal(stack(x, engine="compiled").h, first) else 1)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks a process with threads")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], timeout=60, check=False)
    assert done.returncode == 0
