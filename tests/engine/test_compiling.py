"""Compiled kernels are kept on disk, whole or not at all."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gatewise as gw
from gatewise.engine.cpu import compiling, making, moving, store
from gatewise.engine.cpu.target import TARGETS, host


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    run()  # the kernels that pack weights are at hand: what a test counts is the cell's
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


def test_a_stored_kernel_is_found_without_its_ir(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run()
    making._kernels.cache_clear()

    def fail(*_: object) -> None:
        raise AssertionError("emitted again")

    monkeypatch.setattr(making, "emit", fail)
    assert torch.equal(run(), first)


def scaled(factor: float) -> type[gw.Cell]:
    @gw.cell
    def mine(a: gw.PreActivations, s: gw.Names) -> tuple[object, object]:
        return {"h": gw.tanh(a.z) * factor}, {}

    return mine


def test_constants_that_print_alike_have_kernels_of_their_own(folder: Path) -> None:
    found = []
    for factor in (0.123456789, 0.123456788, 0.123456789):
        torch.manual_seed(1)
        stack = gw.Stack(scaled(factor), 3, 5, dtype=torch.float64)
        x = torch.ones(4, 2, 3, dtype=torch.float64)
        h = stack(x, engine="compiled").h
        torch.testing.assert_close(h, stack(x, engine="reference").h, rtol=1e-12, atol=0)
        found.append(h)
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


def test_other_emitters_have_other_kernels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run()
    making._kernels.cache_clear()
    monkeypatch.setattr(store, "sources", lambda: "changed")
    assert torch.equal(run(), first)
    assert len(list(folder.iterdir())) == 2


def test_where_sources_cannot_be_read_the_text_decides(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "sources", lambda: None)
    first = run()
    making._kernels.cache_clear()
    monkeypatch.setattr(compiling, "_optimise", None)  # nothing is compiled again
    assert torch.equal(run(), first)
    assert len(list(folder.iterdir())) == 1


def test_the_collector_is_left_as_it_was() -> None:
    for wanted in (False, True):
        (gc.enable if wanted else gc.disable)()
        try:
            making._kernels.cache_clear()
            run()
            assert gc.isenabled() == wanted
        finally:
            gc.enable()


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


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has no modes of this kind")
@pytest.mark.parametrize("open_to_all", ["folder", "file"])
def test_code_that_others_may_have_written_is_not_run(
    folder: Path, open_to_all: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run()
    (path,) = folder.iterdir()
    (folder if open_to_all == "folder" else path).chmod(0o777)
    making._kernels.cache_clear()
    compiled: list[object] = []
    real = compiling._optimise
    monkeypatch.setattr(compiling, "_optimise", lambda *a: (compiled.append(a), real(*a)))
    assert torch.equal(run(), first)
    assert compiled  # anew, and stored so that it can be trusted the next time
    assert folder.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o022 == 0


def test_a_folder_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    making._kernels.cache_clear()
    assert run().shape == (4, 2, 5)


def test_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(store, "user_cache", homeless)
    making._kernels.cache_clear()
    assert run().shape == (4, 2, 5)


def test_the_least_recently_used_are_dropped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(parents=True)
    for k in range(4):
        (folder / f"old{k}").write_bytes(b"")
        os.utime(folder / f"old{k}", (1000 + k, 1000 + k))
    (folder / "unfinished-1").write_bytes(b"")  # a process that was killed
    os.utime(folder / "unfinished-1", (1000, 1000))
    (folder / "unfinished-2").write_bytes(b"")  # one that is writing
    monkeypatch.setattr(store, "_KEEP", 3)
    run()
    left = {p.name for p in folder.iterdir()}
    assert {"old2", "old3", "unfinished-2"} <= left
    assert len(left) == 4


def test_another_target_has_other_kernels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run()
    if "x86-64-v2" not in {
        t.name for t in TARGETS.values() if t.architecture == host().architecture
    }:
        pytest.skip("no other target of this processor by that name")
    monkeypatch.setenv("GATEWISE_TARGET", "x86-64-v2")
    moving._mover.cache_clear()
    torch.testing.assert_close(run(), first)
    assert (
        len(list(folder.iterdir())) == 3
    )  # the cell's, for both; what packs weights, for the other


PROGRAM = """
import torch
import gatewise as gw
torch.manual_seed(1)
print(gw.Stack("gru", 3, 5)(torch.randn(4, 2, 3), engine="compiled").h.sum().item())
"""


def test_processes_that_start_at_once(folder: Path) -> None:
    """All compile, all write the same file; every one of them has the right kernel."""
    started = [
        subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    printed = {process.communicate(timeout=60)[0] for process in started}
    assert [process.returncode for process in started] == [0] * 4
    assert len(printed) == 1
    assert len(list(folder.iterdir())) == 2  # the cell's, and what packs its weights
