"""A kernel under construction: its arguments, loops, share of the work, barrier, and matrix products.

A kernel is one function ``void (int64 *arguments)`` run by every thread. Between two steps the threads meet at
a barrier. Knows registers and memory; no cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from llvmlite import ir

from gatewise.engine.cpu.kinds import I16, I32, I64, VOID, Kind
from gatewise.engine.cpu.lanes import Lanes

BACKWARD_WIDE = 2
"""Registers of units in a panel of the backward kernel."""
BETWEEN_WIDE = 2
"""Registers of units in a panel of a product within a step."""

_UNROLL = 4
_WIDEST = {16: 3, 32: 4}
_TALLEST = {16: {1: 6, 2: 6, 3: 4}, 32: {1: 10, 2: 10, 3: 8, 4: 6}}
"""Registers of the processor -> registers of a row -> rows whose sums fit beside a row of weights."""

_HEIGHTS = (1, 2, 3, 4, 5, 6, 8, 10)
"""Rows for which there is code; fewer take the next one up, and compute their last row again."""


def passes(vectors: int, kind: Kind) -> list[int]:
    """How many registers of a row each pass over the weights computes: in even shares.

    With 16 registers 4 are two passes of 2: they leave room for six rows.
    """
    widest = _WIDEST[kind.registers]
    if vectors <= 0:
        return []
    count = -(-vectors // widest)
    if kind.registers == 16 and vectors > widest:
        count = -(-vectors // 2)
    return [(vectors * (k + 1)) // count - (vectors * k) // count for k in range(count)]


def rows_of(vectors: int, kind: Kind) -> int:
    """Rows at once."""
    tallest = _TALLEST[kind.registers]
    return min((tallest[v] for v in passes(vectors, kind)), default=tallest[1])


def heights(most: int) -> list[int]:
    """The numbers of rows for which tiles are made, `most` the largest."""
    return [h for h in _HEIGHTS if h < most] + [most]


class Program:
    """One kernel under construction.

    Args:
        module: where it is written.
        name: of the function.
        kind: its numbers.
        narrow: which arguments are arrays of bfloat16.
        extra: types of arguments after the array, for functions that a kernel calls.

    Attributes:
        arguments: argument name -> its place in the array.
    """

    def __init__(
        self,
        module: ir.Module,
        name: str,
        kind: Kind,
        narrow: Callable[[str], bool] = lambda _: False,
        extra: Sequence[ir.Type] = (),
    ) -> None:
        self.kind = kind
        self.module = module
        self._narrow = narrow
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
            own = I16 if self._narrow(name) else self.kind.scalar
            target = (kind or own).as_pointer()
            self._loaded[key] = self._entry.inttoptr(value, target)
        return self._loaded[key]

    def at(self, pointer: ir.Value, *offsets: tuple[ir.Value, ir.Value] | ir.Value) -> ir.Value:
        """pointer + the sum of index times stride, in elements."""
        b, total = self.builder, None
        for offset in offsets:
            term = b.mul(*offset) if isinstance(offset, tuple) else offset
            total = term if total is None else b.add(total, term)
        return pointer if total is None else b.gep(pointer, [total])

    def repeat(
        self,
        first: ir.Value,
        end: ir.Value,
        step: int,
        start: Sequence[ir.Value],
        body: Callable[[ir.Value, list[ir.Value]], list[ir.Value]],
    ) -> list[ir.Value]:
        """Values carried through a loop over first..end: body(i, values) gives the next ones."""
        return repeat(self.builder, self.function, (first, end, step), start, body)

    @contextmanager
    def loop(self, first: ir.Value, end: ir.Value, name: str, step: int = 1) -> Iterator[ir.Value]:
        """for i in first..end, by `step`."""
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
        index.add_incoming(b.add(index, I64(step)), b.block)
        b.branch(head)
        b.position_at_end(done)

    def external(self, name: str, result: ir.Type, *arguments: ir.Type) -> ir.Function:
        """A function of the process."""
        known = self.module.globals.get(name)
        return known or ir.Function(self.module, ir.FunctionType(result, arguments), name)

    def share(self, count: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """This thread's part of `count` things, first and end; and the number of threads."""
        b = self.builder
        here = self.thread()
        threads = b.sext(b.call(self.external("omp_get_num_threads", I32), []), I64)
        first = b.sdiv(b.mul(count, here), threads)
        end = b.sdiv(b.mul(count, b.add(here, I64(1))), threads)
        return first, end, threads

    def thread(self) -> ir.Value:
        """The number of this thread."""
        b = self.builder
        return b.sext(b.call(self.external("omp_get_thread_num", I32), []), I64)

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

    def order(self) -> tuple[str, ...]:
        """The arguments in the order of their places."""
        return tuple(sorted(self.arguments, key=self.arguments.__getitem__))

    def finish(self) -> None:
        """Close the function."""
        self.builder.ret_void()


def repeat(
    b: ir.IRBuilder,
    function: ir.Function,
    span: tuple[ir.Value, ir.Value, int],
    start: Sequence[ir.Value],
    body: Callable[[ir.Value, list[ir.Value]], list[ir.Value]],
) -> list[ir.Value]:
    """Values carried through a loop over first..end in steps: body(i, values) gives the next ones."""
    first, end, step = span
    head, inner, done = (
        function.append_basic_block(f"carried.{n}") for n in ("head", "body", "done")
    )
    before = b.block
    b.branch(head)
    b.position_at_end(head)
    index = b.phi(I64, name="k")
    index.add_incoming(first, before)
    carried = []
    for value in start:
        phi = b.phi(value.type)
        phi.add_incoming(value, before)
        carried.append(phi)
    b.cbranch(b.icmp_signed("<", index, end), inner, done)
    b.position_at_end(inner)
    new = body(index, list(carried))
    index.add_incoming(b.add(index, I64(step)), b.block)
    for phi, value in zip(carried, new, strict=True):
        phi.add_incoming(value, b.block)
    b.branch(head)
    b.position_at_end(done)
    return list(carried)


def tile(module: ir.Module, kind: Kind, rows: int, vectors: int, row_stride: int) -> ir.Function:
    """``void (a, lda, count, w, depth, out)``: out[r, v] = sum_k a[r, k] w[k, v].

    a has `count` rows, `lda` packed numbers apart, of which the last stands for those that are missing
    to `rows`; w is packed, (depth, vectors, lanes); out has `row_stride` numbers from row to row. A
    packed number is a number, or a pair of bfloat16: `depth` counts them.
    """
    name = f"tile_{rows}_{vectors}_{row_stride}"
    if name in module.globals:
        return module.globals[name]
    packed, place = kind.packed.as_pointer(), kind.scalar.as_pointer()
    signature = ir.FunctionType(VOID, [packed, I64, I64, packed, I64, place])
    function = ir.Function(module, signature, name)
    function.linkage = "internal"
    a, lda, count, w, depth, out = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    lanes = Lanes(b, kind)
    last = b.sub(count, I64(1))
    lines = [a]
    for r in range(1, rows):
        row = b.select(b.icmp_signed("<", I64(r), last), I64(r), last)
        lines.append(b.gep(a, [b.mul(lda, row)]))
    sums = [lanes.number(0.0)] * (rows * vectors)
    sums = sum_products(
        b, lanes, function, lambda r, k: b.gep(lines[r], [k]), w, sums, vectors, depth
    )
    for r in range(rows):
        for v in range(vectors):
            at = b.gep(out, [I64(r * row_stride + v * kind.lanes)])
            lanes.store(sums[r * vectors + v], at)
    b.ret_void()
    return function


def sum_products(
    b: ir.IRBuilder,
    lanes: Lanes,
    function: ir.Function,
    factor: Callable[[int, ir.Value], ir.Value],
    w: ir.Value,
    sums: list[ir.Value],
    vectors: int,
    depth: ir.Value,
) -> list[ir.Value]:
    """sums[r, v] + sum_k a[r, k] w[k, v] over the packed `depth`; factor(r, k) is where a[r, k] is."""
    rows = len(sums) // vectors

    def add(step: int) -> Callable[[ir.Value, list[ir.Value]], list[ir.Value]]:
        def body(k: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
            for j in range(step):
                here = b.add(k, I64(j))
                row = b.gep(w, [b.mul(here, I64(vectors * lanes.kind.lanes))])
                weights = [
                    lanes.load_packed(b.gep(row, [I64(v * lanes.kind.lanes)]))
                    for v in range(vectors)
                ]
                for r in range(rows):
                    a = lanes.splat(b.load(factor(r, here)))
                    for v in range(vectors):
                        i = r * vectors + v
                        totals[i] = lanes.multiply(a, weights[v], totals[i])
            return totals

        return body

    whole = b.and_(depth, I64(-_UNROLL))
    sums = repeat(b, function, (I64(0), whole, _UNROLL), sums, add(_UNROLL))
    return repeat(b, function, (whole, depth, 1), sums, add(1))
