"""A cell that a user writes down: per operation beside our LSTM, beside its loop, and how soon it runs.

The equations are those of a coupled-gate LSTM, written as a user would. The time from their definition to
the first result is taken in processes of their own: with an empty folder of kernels, and with a filled one.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gatewise.bench import parity, training
from gatewise.bench.alone import answer, in_process
from gatewise.bench.contestants import Contestant
from gatewise.bench.loops import EquationLoop, coupled_step
from gatewise.bench.sizes import Size
from gatewise.cells.base import Cell
from gatewise.cells.define import cell
from gatewise.cells.equations import Names, PreActivations, sigmoid, tanh
from gatewise.stack import Stack
from gatewise.types import state_tensors

BASE = "gatewise"
FIRST = Size(35, 20, 200, 1)


def define() -> type[Cell]:
    """The cell, defined anew: what a user writes."""

    @cell
    def coupled(a: PreActivations, s: Names) -> Any:
        f, o, g = sigmoid(a.f), sigmoid(a.o), tanh(a.g)
        c = f * s.c + (1 - f) * g
        return {"h": o * tanh(c), "c": c}, {"f": f, "o": o, "g": g}

    return coupled


@dataclass(frozen=True, eq=False)
class Task:
    """A stack of the user's cell, and torch's LSTM of the same size; x and the gradient of h are the same.

    Args:
        size: T, B, H, L.
        stack: of the user's cell, whose weights its loop has too.
        lstm: the task of our LSTM.
    """

    size: Size
    stack: Stack
    lstm: training.Task


@dataclass(frozen=True, eq=False)
class Entry:
    """Somebody who is ready, and what it should compute.

    Args:
        run: how it is called.
        truth: its own results in float64.
    """

    run: training.Entry
    truth: Callable[[], list[Tensor]]


def make_task(size: Size, *, seed: int = 0) -> Task:
    """A task with weights and inputs drawn from a seed."""
    lstm = training.make_task("lstm", size, seed=seed)
    stack = _stack(size)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in stack.parameters():
            weight.uniform_(-(size.hidden**-0.5), size.hidden**-0.5, generator=generator)
    return Task(size, stack, lstm)


def _stack(size: Size) -> Stack:
    return Stack(define(), size.hidden, size.hidden, size.layers)


def error(entry: Entry, task: Task, dtype: str) -> float:
    """How far an entry is from its own truth."""
    found = training.step(entry.run, task.lstm.x, task.lstm.grad, dtype)
    return parity.error(found, entry.truth())


def _coupled_truth(task: Task) -> list[Tensor]:
    """h, the last states and the gradients of the user's cell, by the reference engine in float64."""
    exact = _stack(task.size).double()
    exact.load_state_dict(task.stack.state_dict())
    entry = training.over_stack(exact, record=False, control=False, engine="reference")
    x = task.lstm.x.detach().double().requires_grad_()
    return training.step(entry, x, task.lstm.grad.double(), "float64")


def _coupled(record: bool = False) -> Callable[[Task], Entry]:
    def enter(task: Task) -> Entry:
        stack = _stack(task.size)
        stack.load_state_dict(task.stack.state_dict())
        run = training.over_stack(stack, record=record, control=False)
        return Entry(run, lambda: _coupled_truth(task))

    return enter


def _loop(task: Task) -> Entry:
    state = task.stack.state_dict()
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    layers = [{n: state[f"{n}_l{k}"] for n in names} for k in range(task.size.layers)]
    loop = EquationLoop(coupled_step, layers, 2)
    return Entry(training.Entry(loop, loop.weights), lambda: _coupled_truth(task))


def _lstm(task: Task) -> Entry:
    return Entry(training.ours()(task.lstm), lambda: training.truth(task.lstm))


CONTESTANTS: Mapping[str, Contestant[Task, Entry]] = {
    "gatewise": Contestant("gatewise's LSTM", "float32", _lstm, ours=True),
    "gatewise-bf16": Contestant("gatewise's LSTM", "bfloat16", _lstm, ours=True),
    "coupled": Contestant("the user's cell", "float32", _coupled(), ours=True),
    "coupled-gates": Contestant("the same, all gates", "float32", _coupled(True), ours=True),
    "coupled-bf16": Contestant("the user's cell", "bfloat16", _coupled(), ours=True),
    "coupled-loop": Contestant("loop over its equations", "float32", _loop),
}
"""Name -> contestant."""


def blocks(name: str) -> int:
    """Row blocks of a contestant's weights."""
    return 3 if name.startswith("coupled") else 4


# ---------------------------------------------------------------------------- the first result


@dataclass(frozen=True)
class First:
    """Seconds from the definition of a cell, in a process that has imported torch and gatewise.

    Args:
        output: to the first output, of a run that keeps what gradients need.
        gradients: to the first gradients.
    """

    output: float
    gradients: float


def first_results(threads: int) -> dict[str, First]:
    """Each in a process of its own.

    "cold": with an empty folder of kernels; "warm": with the one that this filled; "loaded": warm, in a
    process that has used the compiler before (loading LLVM is most of what is left).

    Raises:
        FailedError: if such a process fails.
    """
    with tempfile.TemporaryDirectory(prefix="gatewise-bench-") as folder:
        return {
            name: First(**in_process(_MODULE, [threads, name == "loaded"], Path(folder)))
            for name in ("cold", "warm", "loaded")
        }


_MODULE = "gatewise.bench.cells"


def _first(threads: int, loaded: bool) -> First:
    """Define, build, run, differentiate."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    x = torch.randn(FIRST.steps, FIRST.batch, FIRST.hidden, requires_grad=True)
    (x @ torch.randn(FIRST.hidden, FIRST.hidden)).sum().backward()  # type: ignore[no-untyped-call]  # torch's own start is not the cell's
    if loaded:
        Stack("lstm", FIRST.hidden, FIRST.hidden)(x, engine="compiled")
    start = time.perf_counter()
    stack = Stack(define(), FIRST.hidden, FIRST.hidden, FIRST.layers)
    out = stack(x)
    output = time.perf_counter() - start
    torch.autograd.grad(out.h.sum(), [x, *stack.parameters()])
    assert all(bool(t.isfinite().all()) for t in [out.h, *state_tensors(out.state)])
    return First(output, time.perf_counter() - start)


if __name__ == "__main__":
    answer(lambda threads, loaded: vars(_first(int(threads), loaded == "True")))
