"""The compiled engine: a cell's equations as machine code for this processor, with every gate open."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from gatewise.engine.base import Direction, Plan, Result, States, autocast_dtype
from gatewise.engine.cpu import forks
from gatewise.engine.cpu.target import unsupported
from gatewise.engine.layers import Part, Rules, run_layers
from gatewise.engine.preparing import prepare, refusal_of_plan
from gatewise.engine.recorder import collect

_DTYPES = (torch.float32, torch.float64, torch.bfloat16)
_WORTHWHILE = 4096  # steps x columns x units; depends on the plan alone, so that a run repeats


class CompiledEngine:
    """Kernels made from the cell's graph, run on torch's threads."""

    name = "compiled"
    summary = "machine code from the cell's equations: every gate read and set, on CPUs"

    def available(self) -> str | None:
        """It needs llvmlite, and a kind of processor that it has kernels for."""
        if not _has_llvmlite():
            return "llvmlite is not installed"
        return unsupported()

    def refusal(self, plan: Plan, x: Tensor) -> str | None:
        """Why the kernels cannot honour the plan, or None."""
        if x.device.type != "cpu" or x.dtype not in _DTYPES:
            return f"it computes float32, float64 and bfloat16 on CPUs, not {x.dtype} on {x.device.type}"
        if autocast_dtype(x) not in (None, torch.bfloat16):
            return f"autocast is on, to {autocast_dtype(x)}"
        return refusal_of_plan(plan, x, _DTYPES, by_rows=True)

    def reluctance(self, plan: Plan, x: Tensor) -> str | None:
        """A first call compiles; where little is computed it would never be worth it."""
        units = max(d.weights.hidden_size for d in plan.directions)
        if x.shape[0] * x.shape[1] * units < _WORTHWHILE:
            return "the run is too small to compile for"
        return None

    def run(self, plan: Plan, x: Tensor, states: States) -> Result:
        """Run the plan layer by layer."""
        with forks.alive():
            return run_layers(plan, x, states, _run)


@cache
def _has_llvmlite() -> bool:
    """Asked at every choice: looking for a package that is not loaded walks the whole path."""
    return find_spec("llvmlite") is not None


def has_wide_registers() -> bool:
    """Whether the kernels' registers are of 64 bytes."""
    from gatewise.engine.cpu.target import current

    return current().vector_bytes == 64


def _run(
    direction: Direction,
    plan: Plan,
    rules: Rules,
    valid: Tensor | None,
    x: Tensor,
    state: Mapping[str, Tensor],
) -> Part:
    """One direction over all steps."""
    with _uncollected():
        # llvmlite is loaded by the first run, not by `import gatewise`
        from gatewise.engine.cpu.direction import Job, run
        from gatewise.engine.cpu.making import kernels

    weights, low = direction.weights, autocast_dtype(x)
    setting = prepare(direction, plan, rules, valid, x, state, x.dtype)
    narrow = low is not None or x.dtype == torch.bfloat16
    variant = replace(setting.variant, narrow=narrow)
    with _uncollected():
        made = kernels(direction.law, variant, torch.float32 if narrow else x.dtype)
    job = Job(made, setting, shown=x.dtype if low is None else torch.float32)
    h, final = run(
        job, x, weights.ih, weights.hh, weights.b_ih, weights.b_hh, weights.params, setting.state
    )
    return Part(h, final, collect(setting.slots, direction, plan, valid, x))


@contextmanager
def _uncollected() -> Iterator[None]:
    """A block without Python's collector: what is loaded here stays, and to look through all of torch takes 80 ms."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
