"""A kernel under construction: its arguments, loops, share of the work, barrier, and matrix products.

A kernel is one function ``void (int64 *arguments)`` run by every thread. Between two steps the threads meet at
a barrier. Knows registers and memory; no cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from llvmlite import ir

from gatewise.engine.cpu.lanes import I32, I64, VOID, Kind, Lanes

ROWS = 6
"""Rows of the batch whose sums are in registers at once."""

BACKWARD_WIDE = 2
"""Registers of units in a panel of the backward kernel."""

_UNROLL = 4


def passes(vectors: int) -> list[int]:
    """How many registers of a row each pass over the weights computes: two leave room for six rows."""
    if vectors == 3:
        return [3]
    return [2] * (vectors // 2) + [1] * (vectors % 2)


def rows_of(vectors: int) -> int:
    """Rows at once: 3 registers of 4 rows are as many sums as 2 of 6."""
    return 4 if vectors == 3 else ROWS


class Program:
    """One kernel under construction.

    Args:
        module: where its function is added.
        name: of the function.
        kind: numbers of its registers.
        extra: types of arguments after the array, for functions that a kernel calls.

    Attributes:
        arguments: argument name -> its place in the array.
    """

    def __init__(
        self, module: ir.Module, name: str, kind: Kind, extra: Sequence[ir.Type] = ()
    ) -> None:
        self.kind = kind
        self.module = module
        self.arguments: dict[str, int] = {}
        self._loaded: dict[str, ir.Value] = {}
        self.function = ir.Function(module, ir.FunctionType(VOID, [I64.as_pointer(), *extra]), name)
        entry = self.function.append_basic_block("entry")
        body = self.function.append_basic_block("body")
        self._entry = ir.IRBuilder(entry)
        self._entry.branch(body)
        self.builder = ir.IRBuilder(body)
        self.lanes = Lanes(self.builder, kind)

    def number(self, name: str) -> ir.Value:
        """An argument that is a whole number."""
        if name not in self._loaded:
            place = self.arguments.setdefault(name, len(self.arguments))
            self._entry.position_before(self._entry.block.terminator)
            at = self._entry.gep(self.function.args[0], [I64(place)])
            self._loaded[name] = self._entry.load(at, name=name)
        return self._loaded[name]

    def pointer(self, name: str, kind: ir.Type | None = None) -> ir.Value:
        """An argument that is an address."""
        key = f"{name}*"
        if key not in self._loaded:
            value = self.number(name)
            self._entry.position_before(self._entry.block.terminator)
            target = (kind or self.kind.scalar).as_pointer()
            self._loaded[key] = self._entry.inttoptr(value, target)
        return self._loaded[key]

    def at(self, pointer: ir.Value, *offsets: tuple[ir.Value, ir.Value] | ir.Value) -> ir.Value:
        """pointer + the sum of index times stride, in elements."""
        b, total = self.builder, None
        for offset in offsets:
            term = b.mul(*offset) if isinstance(offset, tuple) else offset
            total = term if total is None else b.add(total, term)
        return pointer if total is None else b.gep(pointer, [total])

    @contextmanager
    def loop(self, first: ir.Value, end: ir.Value, name: str) -> Iterator[ir.Value]:
        """for i in first..end."""
        b, function = self.builder, self.function
        head = function.append_basic_block(f"{name}.head")
        body = function.append_basic_block(f"{name}.body")
        done = function.append_basic_block(f"{name}.done")
        before = b.block
        b.branch(head)
        b.position_at_end(head)
        index = b.phi(I64, name=name)
        index.add_incoming(first, before)
        b.cbranch(b.icmp_signed("<", index, end), body, done)
        b.position_at_end(body)
        yield index
        index.add_incoming(b.add(index, I64(1)), b.block)
        b.branch(head)
        b.position_at_end(done)

    def external(self, name: str, result: ir.Type, *arguments: ir.Type) -> ir.Function:
        """A function of the process."""
        known = self.module.globals.get(name)
        return known or ir.Function(self.module, ir.FunctionType(result, arguments), name)

    def share(self, count: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """This thread's part of `count` things, first and end; and the number of threads."""
        b = self.builder
        here = b.sext(b.call(self.external("omp_get_thread_num", I32), []), I64)
        threads = b.sext(b.call(self.external("omp_get_num_threads", I32), []), I64)
        first = b.sdiv(b.mul(count, here), threads)
        end = b.sdiv(b.mul(count, b.add(here, I64(1))), threads)
        return first, end, threads

    def barrier(self, target: ir.Value) -> None:
        """Wait until as many threads as `target` have come here, all times together."""
        b, counter = self.builder, self.pointer("barrier", I64)
        b.atomic_rmw("add", counter, I64(1), "acq_rel")
        wait = self.function.append_basic_block("wait")
        rest = self.function.append_basic_block("rest")
        done = self.function.append_basic_block("met")
        before = b.block
        b.branch(wait)
        b.position_at_end(wait)
        turns = b.phi(I64, name="turns")
        turns.add_incoming(I64(0), before)
        arrived = b.load_atomic(counter, "acquire", 8)
        b.cbranch(b.icmp_signed("<", arrived, target), rest, done)
        b.position_at_end(rest)
        more = b.add(turns, I64(1))
        # where there are more threads than processors, let the one that is waited for run
        tired = b.icmp_signed("==", b.and_(more, I64(1023)), I64(0))
        with b.if_then(tired, likely=False):
            b.call(self.external("sched_yield", I32), [])
        turns.add_incoming(more, b.block)
        b.branch(wait)
        b.position_at_end(done)

    def finish(self) -> None:
        """Close the function."""
        self.builder.ret_void()


def tile(module: ir.Module, kind: Kind, rows: int, vectors: int, row_stride: int) -> ir.Function:
    """``void (a, lda, w, depth, out)``: out[r, v] = sum_k a[r, k] w[k, v], `rows` times `vectors`.

    w is packed, (depth, vectors, lanes); out has `row_stride` numbers from row to row.
    """
    name = f"tile_{rows}_{vectors}_{row_stride}"
    if name in module.globals:
        return module.globals[name]
    place = kind.scalar.as_pointer()
    signature = ir.FunctionType(VOID, [place, I64, place, I64, place])
    function = ir.Function(module, signature, name)
    function.linkage = "internal"
    a, lda, w, depth, out = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    lanes = Lanes(b, kind)
    lines = [b.gep(a, [b.mul(lda, I64(r))]) for r in range(rows)]
    sums = [lanes.number(0.0)] * (rows * vectors)
    whole = b.and_(depth, I64(-_UNROLL))
    for first, end, step in ((I64(0), whole, _UNROLL), (whole, depth, 1)):
        sums = _sum_products(b, lanes, function, lines, w, sums, vectors, (first, end, step))
    for r in range(rows):
        for v in range(vectors):
            at = b.gep(out, [I64(r * row_stride + v * kind.lanes)])
            lanes.store(sums[r * vectors + v], at)
    b.ret_void()
    return function


def _sum_products(
    b: ir.IRBuilder,
    lanes: Lanes,
    function: ir.Function,
    lines: Sequence[ir.Value],
    w: ir.Value,
    sums: list[ir.Value],
    vectors: int,
    span: tuple[ir.Value, ir.Value, int],
) -> list[ir.Value]:
    """The sums after k = first..end, in steps."""
    first, end, step = span
    head, body, done = (function.append_basic_block(n) for n in ("k.head", "k.body", "k.done"))
    before = b.block
    b.branch(head)
    b.position_at_end(head)
    k = b.phi(I64, name="k")
    k.add_incoming(first, before)
    carried = []
    for value in sums:
        phi = b.phi(value.type)
        phi.add_incoming(value, before)
        carried.append(phi)
    b.cbranch(b.icmp_signed("<", k, end), body, done)
    b.position_at_end(body)
    new: list[ir.Value] = list(carried)
    for j in range(step):
        here = b.add(k, I64(j))
        row = b.gep(w, [b.mul(here, I64(vectors * lanes.kind.lanes))])
        weights = [
            lanes.load(b.gep(row, [I64(v * lanes.kind.lanes)]), aligned=True)
            for v in range(vectors)
        ]
        for r, line in enumerate(lines):
            factor = lanes.splat(b.load(b.gep(line, [here])))
            for v in range(vectors):
                i = r * vectors + v
                new[i] = lanes.fma(factor, weights[v], new[i])
    k.add_incoming(b.add(k, I64(step)), b.block)
    for phi, value in zip(carried, new, strict=True):
        phi.add_incoming(value, b.block)
    b.branch(head)
    b.position_at_end(done)
    return list(carried)
