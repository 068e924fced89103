"""The products of a few activation rows with one pass of a panel, in each kind of numbers.

A product is a function ``void (rows, stride, panel, turns, header, out)``: out[r, v] = the sum over k, scaled,
as float32. For one row the order of its sums is the same whatever the number of rows, so that an
answer does not depend on what else is in the batch; whole numbers are exact anyway. Knows registers; no cell.
"""

from __future__ import annotations

from functools import partial

from llvmlite import ir

from gatewise.engine.cpu.kinds import I32, I64, VOID
from gatewise.engine.cpu.step.formats import Format
from gatewise.engine.cpu.step.tiles import PLACE, Product, Target
from gatewise.engine.cpu.step.whole import Int4Product, Int8Product


def most_rows(form: Format, vectors: int) -> int:
    """Rows whose sums are in registers at once."""
    if form.name == "int8":
        return min(6, 24 // vectors)
    if form.name == "int4":
        return min(6, 12 // vectors)
    return 24 // (vectors * _sets(vectors))


def _sets(vectors: int) -> int:
    """Sums of each number: enough to hide how long an addition takes, whatever the number of rows."""
    return {1: 8, 2: 4}.get(vectors, 2)


def product(
    module: ir.Module, form: Format, target: Target, rows: int, vectors: int, stride: int
) -> ir.Function:
    """The function for so many rows and registers; `stride`: numbers between two rows of `out`."""
    name = f"product_{form.name}_{rows}_{vectors}_{stride}"
    if name not in module.globals:
        place = target.kind.scalar.as_pointer()
        signature = ir.FunctionType(VOID, [PLACE, I64, PLACE, I64, I64, place])
        function = ir.Function(module, signature, name)
        function.linkage = "internal"
        _KINDS[form.name](function, form, target, rows, vectors, stride).emit()
    return module.globals[name]


class _RealProduct(Product):
    """Float32 weights, or pairs of bfloat16 with float32 sums."""

    def emit(self) -> None:
        b, sets = self.b, _sets(self.vectors)
        count = self.rows * self.vectors
        sums = self.variables(count * sets, self.lanes.kind.vector)
        for s in sums:
            b.store(self.lanes.number(0.0), s)
        lines = [self.line(r) for r in range(self.rows)]
        whole = self.form.turn * self.form.bits // 32
        words = min(whole, self.words)
        with self.loop(b.mul(self.turns, I64(whole // words))) as turn:
            at = b.gep(self.panel, [b.mul(turn, I64(words * self.vectors * self.register))])
            first = b.mul(turn, I64(words * 4))
            for word in range(words):
                weights = [self.weights(at, word * self.vectors + v) for v in range(self.vectors)]
                for r, line in enumerate(lines):
                    factor = self.load(b.gep(line, [b.add(first, I64(4 * word))]), I32, 4)
                    for v in range(self.vectors):
                        place = sums[(word % sets * self.rows + r) * self.vectors + v]
                        self._step(place, factor, weights[v])
        for r in range(self.rows):
            for v in range(self.vectors):
                own = [b.load(sums[(s * self.rows + r) * self.vectors + v]) for s in range(sets)]
                self.write(r, v, self._tree(own))
        b.ret_void()

    def _tree(self, values: list[ir.Value]) -> ir.Value:
        while len(values) > 1:
            values = [self.b.fadd(x, y) for x, y in zip(values[::2], values[1::2], strict=True)]
        return values[0]

    def _step(self, place: ir.Value, factor: ir.Value, weights: ir.Value) -> None:
        b, lanes = self.b, self.lanes
        factors = lanes.splat(factor)
        if self.form.name == "float32":
            real = b.bitcast(factors, lanes.kind.vector)
            self.add_to(place, lambda s: lanes.fma(real, b.bitcast(weights, lanes.kind.vector), s))
        elif self.target.dot16:
            self.add_to(place, lambda s: self._dot16(s, factors, weights))
        else:
            for part in (self._low, self._high):
                self.add_to(place, partial(lanes.fma, part(factors), part(weights)))

    def _dot16(self, sums: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
        name = f"llvm.x86.avx512bf16.dpbf16ps.{self.register * 8}"
        module = self.function.module
        real = self.lanes.kind.vector
        signature = ir.FunctionType(real, [real, self.integers, self.integers])
        function = module.globals.get(name) or ir.Function(module, signature, name)
        return self.b.call(function, [sums, x, y])

    def _low(self, pair: ir.Value) -> ir.Value:
        bits = self.b.shl(pair, ir.Constant(self.integers, [16] * self.target.lanes))
        return self.b.bitcast(bits, self.lanes.kind.vector)

    def _high(self, pair: ir.Value) -> ir.Value:
        bits = self.b.and_(pair, ir.Constant(self.integers, [-65536] * self.target.lanes))
        return self.b.bitcast(bits, self.lanes.kind.vector)


_KINDS: dict[str, type[Product]] = {
    "float32": _RealProduct,
    "bfloat16": _RealProduct,
    "int8": Int8Product,
    "int4": Int4Product,
}
