"""Kernels for other processors: emitted and compiled for all of them, run where this one can."""

from __future__ import annotations

import re

import pytest
import torch

import gatewise as gw
from gatewise.cells import REGISTRY
from gatewise.engine.cpu import compiling, engine, making, target
from gatewise.engine.cpu.layout import Layout, Variant
from gatewise.engine.cpu.target import TARGETS, VARIABLE
from gatewise.errors import OptionError, UnknownNameError
from parity import ENGINES, random_state, spread
from tolerances import assert_close

FUSED = {"x86-64-v3": r"vfmadd\w+ps.*%ymm", "x86-64-v4": r"vfmadd\w+ps.*%zmm"}
FUSED |= {"aarch64": r"fmla\s+v\d+\.4s", "apple-m1": r"fmla\.4s\s+v\d+"}
MAGIC = {"x86_64-unknown-linux-gnu": b"\x7fELF", "aarch64-unknown-linux-gnu": b"\x7fELF"}
MAGIC |= {"arm64-apple-macosx11.0.0": b"\xcf\xfa\xed\xfe"}
# what kernels may call: threads, memory, the logarithm
KNOWN = {"omp_get_thread_num", "omp_get_num_threads", "sched_yield", "memset", "memcpy", "logf"}
KNOWN |= {"log", "bzero"}


def emitted(cell: str, name: str, dtype: str = "float32") -> str:
    layout = Layout(REGISTRY[cell].law, Variant(grad=True))
    module, programs, _ = making.emit(layout, dtype, TARGETS[name])
    assert set(programs) == {"forward", "backward"}
    return compiling.assembly(module, TARGETS[name])


def called(assembly: str) -> set[str]:
    """The functions that are called by name, without those of the module."""
    found = re.findall(r"^\s+(?:call|callq|bl|b|jmp)\s+([A-Za-z]\w*|_\w+)", assembly, re.MULTILINE)
    return {name.lstrip("_") for name in found if not name.lstrip("_").startswith(("tile_", "LBB"))}


@pytest.mark.parametrize("name", ["x86-64-v3", "aarch64"])
@pytest.mark.parametrize("cell", ENGINES["compiled"])
def test_every_cell_for_two_architectures(cell: str, name: str) -> None:
    text = emitted(cell, name)
    if REGISTRY[cell].law.recurrent_blocks:
        assert re.search(FUSED[name], text)
    assert called(text) <= KNOWN


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", TARGETS)
def test_an_lstm_for_every_target(name: str, dtype: str) -> None:
    layout = Layout(gw.cells.LSTM.law, Variant(grad=True, recorded=("f",), controlled=("c",)))
    module, _, kind = making.emit(layout, dtype, TARGETS[name])
    assert kind.lanes * kind.itemsize == TARGETS[name].vector_bytes
    text = compiling.assembly(module, TARGETS[name])
    assert called(text) <= KNOWN
    if dtype == "float32" and name in FUSED:
        assert re.search(FUSED[name], text)
    code = compiling.object_code(module, TARGETS[name])
    assert code.startswith(MAGIC[TARGETS[name].triple])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v4", "apple-m1"])
@pytest.mark.parametrize("cell", ENGINES["compiled"])
def test_every_cell_for_the_other_targets(cell: str, name: str) -> None:
    assert called(emitted(cell, name)) <= KNOWN


def narrower() -> list[str]:
    """The targets that this processor can run, but for its own."""
    if engine.CompiledEngine().available() is not None:
        return []
    here = target.host()
    return [
        t.name
        for t in TARGETS.values()
        if t.architecture == here.architecture and t.vector_bytes <= here.vector_bytes
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cell", ENGINES["compiled"])
@pytest.mark.parametrize("name", [n for n in narrower() if n == "x86-64-v3"])
def test_their_results(
    name: str, cell: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole tests of the engine run for another target with its name in GATEWISE_TARGET."""
    check_parity(name, cell, dtype, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ENGINES["compiled"])
@pytest.mark.parametrize("name", [n for n in narrower() if n != "x86-64-v3"])
def test_results_of_the_others(name: str, cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_parity(name, cell, torch.float32, monkeypatch)


def check_parity(name: str, cell: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, name)
    stack = gw.Stack(cell, 3, 21, bidirectional=True, dtype=dtype)
    spread(stack, 0.2)
    x, state = torch.randn(6, 7, 3, dtype=dtype), random_state(stack, 7)
    names = stack.directions()[0].names
    found = []
    for each in ("reference", "compiled"):
        out = stack(x, state, lengths=[6, 0, 1, 4, 6, 2, 6], engine=each, record=gw.Record(*names))
        cost = torch.sin(out.h).sum()
        gradients = torch.autograd.grad(cost, list(stack.parameters()), materialize_grads=True)
        found.append([out.h, *out.record.values(), *gradients])
    for expected, actual in zip(*found, strict=True):
        assert_close(actual, expected, gradient=True)


def test_a_target_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "x86-64-v9")
    with pytest.raises(UnknownNameError, match="unknown GATEWISE_TARGET 'x86-64-v9': expected one"):
        target.current()
    other = "aarch64" if target.host().architecture == "x86_64" else "x86-64-v3"
    monkeypatch.setenv(VARIABLE, other)
    with pytest.raises(OptionError, match="expected a target of this machine"):
        target.current()
    monkeypatch.setenv(VARIABLE, "host")
    assert target.current() == target.host()


@pytest.mark.parametrize(
    ("machine", "system", "works"),
    [
        ("x86_64", "linux", True),
        ("aarch64", "linux", True),
        ("arm64", "darwin", True),
        ("riscv64", "linux", False),
        ("AMD64", "win32", False),
    ],
)
def test_where_there_are_kernels(
    machine: str, system: str, works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target.platform, "machine", lambda: machine)
    monkeypatch.setattr(target.sys, "platform", system)
    assert (engine.CompiledEngine().available() is None) == works
