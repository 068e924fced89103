"""The kernels around those over time: packing, sums of columns, products. Each is made at most once."""

from __future__ import annotations

from functools import cache

from llvmlite import ir

from gatewise.engine.cpu import forks
from gatewise.engine.cpu.kinds import Kind
from gatewise.engine.cpu.making import Kernel, make
from gatewise.engine.cpu.multiply import emit_multiply
from gatewise.engine.cpu.packs import emit_column_sums, emit_columns_pack, emit_rows_pack
from gatewise.engine.cpu.program import Program
from gatewise.engine.cpu.target import Target, current

_SMALL = 1 << 14  # numbers below which a second thread costs more than it does


def workers(numbers: int) -> int:
    """How many threads so much work is worth."""
    return 1 if numbers < _SMALL else forks.count()


def mover(kind: Kind, what: str) -> Kernel:
    """The kernel that packs "rows" or "columns", sums columns ("sums"), or multiplies.

    "multiply" reads A by rows, "multiply columns" by columns; see `multiply.emit_multiply`.
    """
    return _mover(kind, what, current())


@cache
def _mover(kind: Kind, what: str, _: Target) -> Kernel:
    return make(f"mover {kind} {what}", lambda: {what: _write(kind, what)})[what]


def _write(kind: Kind, what: str) -> Program:
    module = ir.Module()
    if what == "rows":
        return emit_rows_pack(module, kind, "pack")
    if what == "columns":
        return emit_columns_pack(module, kind, "pack")
    if what == "sums":
        return emit_column_sums(module, kind, "sums")
    return emit_multiply(module, kind, "multiply", by_columns=what == "multiply columns")
