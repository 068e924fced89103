"""The products of a few activation rows with one pass of a panel, in each kind of numbers.

A product is a function ``void (rows, stride, panel, turns, header, out)``: out[r, v] = the sum over k, scaled,
as float32. For one row the order of its sums is the same whatever the number of rows, so that an
answer does not depend on what else is in the batch; whole numbers are exact anyway. Knows registers; no cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from llvmlite import ir

from gatewise.engine.cpu.kinds import I8, I32, I64, VOID, Kind
from gatewise.engine.cpu.lanes import Lanes
from gatewise.engine.cpu.step.formats import GROUP, Format

PLACE = I8.as_pointer()
I16 = ir.IntType(16)

_AHEAD, _LINE = 1024, 64
"""Bytes before they are used that weights are asked for, and bytes of what is asked for at once: without, the first
cache is filled from the second one with two thirds of the speed at which a plain loop reads."""

_LINES = {"float32": 16, "bfloat16": 16, "int8": 16, "int4": 4}
"""Lines of weights that one turn of a loop reads. LLVM asks for all lines of a turn at its beginning; where these are
many (32 were seen), nothing is gained."""


@dataclass(frozen=True)
class Target:
    """What the processor has.

    Args:
        lanes: float32 numbers of a register.
        dot8: it multiplies and adds fours of bytes (VNNI).
        dot16: it multiplies and adds pairs of bfloat16.
        x86: its other instructions are those of x86.
    """

    lanes: int
    dot8: bool = False
    dot16: bool = False
    x86: bool = True

    @property
    def kind(self) -> Kind:
        """Its registers of float32."""
        return Kind("float32", self.lanes)


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


class _Product:
    """One of the functions under construction."""

    def __init__(
        self,
        function: ir.Function,
        form: Format,
        target: Target,
        rows: int,
        vectors: int,
        stride: int,
    ) -> None:
        self.function, self.form, self.target = function, form, target
        self.rows, self.vectors, self.stride = rows, vectors, stride
        self.a, self.lda, self.panel, self.turns, self.header, self.out = function.args
        self.b = ir.IRBuilder(function.append_basic_block("entry"))
        self.lanes = Lanes(self.b, target.kind)
        self.register = target.lanes * 4
        self.integers = ir.VectorType(I32, target.lanes)

    def emit(self) -> None:
        raise NotImplementedError

    # --- pieces ----------------------------------------------------------------------------------

    @property
    def words(self) -> int:
        """Registers of a block of weights in one turn of the loop, a power of 2."""
        return max(1, _LINES[self.form.name] // (4 if self.vectors == 3 else self.vectors))

    def variables(self, count: int, kind: ir.Type) -> list[ir.Value]:
        """Places that become registers."""
        return [self.b.alloca(kind) for _ in range(count)]

    @contextmanager
    def loop(self, count: ir.Value | int) -> Iterator[ir.Value]:
        """for i in 0..count, at least once."""
        b, head = self.b, self.function.append_basic_block("turn")
        done = self.function.append_basic_block("done")
        before = b.block
        b.branch(head)
        b.position_at_end(head)
        index = b.phi(I64)
        index.add_incoming(I64(0), before)
        yield index
        following = b.add(index, I64(1))
        index.add_incoming(following, b.block)
        end = I64(count) if isinstance(count, int) else count
        b.cbranch(b.icmp_signed("<", following, end), head, done)
        b.position_at_end(done)

    def load(self, place: ir.Value, kind: ir.Type, align: int) -> ir.Value:
        return self.b.load(self.b.bitcast(place, kind.as_pointer()), align=align)

    def weights(self, place: ir.Value, index: int) -> ir.Value:
        """The index-th register after `place`, as 32-bit numbers; asks for what comes later."""
        offset = index * self.register
        if offset % _LINE == 0:
            self.prefetch(place, offset + _AHEAD)
        at = self.b.gep(place, [I64(offset)])
        return self.load(at, self.integers, self.register)

    def line(self, r: int) -> ir.Value:
        """Where the numbers of a row begin."""
        return self.b.gep(self.a, [self.b.add(self.b.mul(self.lda, I64(r)), self.header)])

    def head(self, r: int, offset: ir.Value, kind: ir.Type) -> ir.Value:
        """A number in front of a row."""
        at = self.b.gep(self.a, [self.b.add(self.b.mul(self.lda, I64(r)), offset)])
        return self.load(at, kind, 4)

    def prefetch(self, place: ir.Value, ahead: int) -> None:
        """Ask for a line that is needed soon."""
        module = self.function.module
        known = module.globals.get("llvm.prefetch.p0")
        signature = ir.FunctionType(VOID, [PLACE, I32, I32, I32])
        function = known or ir.Function(module, signature, "llvm.prefetch.p0")
        self.b.call(function, [self.b.gep(place, [I64(ahead)]), I32(0), I32(3), I32(1)])

    def write(self, r: int, v: int, value: ir.Value) -> None:
        at = self.b.gep(self.out, [I64(r * self.stride + v * self.target.lanes)])
        self.lanes.store(value, at)

    def add_to(self, variable: ir.Value, step: Callable[[ir.Value], ir.Value]) -> None:
        self.b.store(step(self.b.load(variable)), variable)


class _RealProduct(_Product):
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


class _ByteProduct(_Product):
    """Unsigned weights times signed bytes, with sums of 32 bits."""

    def dot8(self, sums: ir.Value, weights: ir.Value, factors: ir.Value) -> ir.Value:
        """sums + the products of fours of bytes: weights unsigned, factors signed."""
        if self.target.dot8:
            name = f"llvm.x86.avx512.vpdpbusd.{self.register * 8}"
            return self._call(name, [self.integers] * 3, sums, weights, factors)
        b = self.b
        even = ir.Constant(self.integers, [0x00FF00FF] * self.target.lanes)
        eight = ir.Constant(self.integers, [8] * self.target.lanes)
        words = ir.VectorType(I16, 2 * self.target.lanes)
        eights = ir.Constant(words, [8] * 2 * self.target.lanes)
        low = b.bitcast(b.and_(weights, even), words)
        high = b.bitcast(b.and_(b.lshr(weights, eight), even), words)
        signed = b.bitcast(factors, words)
        signed_low = b.ashr(b.shl(signed, eights), eights)
        signed_high = b.ashr(signed, eights)
        sums = b.add(sums, self._pairs(low, signed_low))
        return b.add(sums, self._pairs(high, signed_high))

    def _pairs(self, x: ir.Value, y: ir.Value) -> ir.Value:
        """The sum of the two products of 16 bits in each lane."""
        names = {4: "sse2.pmadd.wd", 8: "avx2.pmadd.wd", 16: "avx512.pmaddw.d.512"}
        words = ir.VectorType(I16, 2 * self.target.lanes)
        if self.target.x86:
            return self._call(f"llvm.x86.{names[self.target.lanes]}", [words] * 2, x, y)
        b, found = self.b, []
        sixteen = ir.Constant(self.integers, [16] * self.target.lanes)
        parts: tuple[Callable[[ir.Value], ir.Value], ...] = (
            lambda v: b.ashr(b.shl(v, sixteen), sixteen),
            lambda v: b.ashr(v, sixteen),
        )
        for part in parts:
            found.append(
                b.mul(part(b.bitcast(x, self.integers)), part(b.bitcast(y, self.integers)))
            )
        return b.add(*found)

    def _call(self, name: str, kinds: list[ir.Type], *values: ir.Value) -> ir.Value:
        module = self.function.module
        signature = ir.FunctionType(self.integers, kinds)
        function = module.globals.get(name) or ir.Function(module, signature, name)
        return self.b.call(function, values)

    def _add_dot8(self, place: ir.Value, weights: ir.Value, factor: ir.Value) -> None:
        self.add_to(place, lambda s: self.dot8(s, weights, factor))

    def real(self, integers: ir.Value) -> ir.Value:
        return self.b.sitofp(integers, self.lanes.kind.vector)


class _Int8Product(_ByteProduct):
    def emit(self) -> None:
        b, vectors = self.b, self.vectors
        sets = 2 if self.rows < 3 else 1
        sums = self.variables(self.rows * vectors * sets, self.integers)
        for r in range(self.rows):
            offset = self.lanes.splat(self.head(r, I64(4), I32))
            for v in range(vectors):
                for s in range(sets):
                    start = offset if s == 0 else ir.Constant(self.integers, None)
                    b.store(start, sums[(s * self.rows + r) * vectors + v])
        lines = [self.line(r) for r in range(self.rows)]
        scales = self._scales_bytes()
        words = min(self.form.turn // 4, self.words)
        body = b.gep(self.panel, [I64(scales)])
        with self.loop(b.mul(self.turns, I64(self.form.turn // 4 // words))) as turn:
            at = b.gep(body, [b.mul(turn, I64(words * vectors * self.register))])
            first = b.mul(turn, I64(words * 4))
            for word in range(words):
                factors = [
                    self.lanes.splat(self.load(b.gep(line, [b.add(first, I64(4 * word))]), I32, 4))
                    for line in lines
                ]
                for v in range(vectors):
                    weights = self.weights(at, word * vectors + v)
                    for r, factor in enumerate(factors):
                        place = sums[(word % sets * self.rows + r) * vectors + v]
                        self._add_dot8(place, weights, factor)
        self._finish(sums, sets)
        b.ret_void()

    def _scales_bytes(self) -> int:
        return -(-4 * self.vectors * self.target.lanes // 64) * 64

    def _finish(self, sums: list[ir.Value], sets: int) -> None:
        b, real = self.b, self.lanes.kind.vector
        scales = [
            self.load(b.gep(self.panel, [I64(v * self.register)]), real, self.register)
            for v in range(self.vectors)
        ]
        for r in range(self.rows):
            scale = self.lanes.splat(self.head(r, I64(0), self.lanes.kind.scalar))
            for v in range(self.vectors):
                own = [b.load(sums[(s * self.rows + r) * self.vectors + v]) for s in range(sets)]
                total = own[0] if sets == 1 else b.add(*own)
                self.write(r, v, b.fmul(self.real(total), b.fmul(scale, scales[v])))


class _Int4Product(_ByteProduct):
    def emit(self) -> None:
        b, count = self.b, self.rows * self.vectors
        # high halves have sums of their own where there is room: 16 times as much, and no shift
        self.apart = self.rows < 3
        totals = self.variables(count, self.lanes.kind.vector)
        sums = self.variables(count * (2 if self.apart else 1), self.integers)
        for t in totals:
            b.store(self.lanes.number(0.0), t)
        self._clear(sums)
        lines = [self.line(r) for r in range(self.rows)]
        head = -(-2 * self.vectors * self.target.lanes // 64) * 64
        size = head + GROUP // 8 * self.vectors * self.register
        parts = GROUP // 8 // self.words
        with self.loop(b.mul(self.turns, I64(parts))) as turn:
            group, part = b.sdiv(turn, I64(parts)), b.srem(turn, I64(parts))
            at = b.gep(self.panel, [b.mul(group, I64(size))])
            first = b.add(b.mul(group, I64(GROUP)), b.mul(part, I64(4 * self.words)))
            offset = b.mul(part, I64(self.words * self.vectors * self.register))
            self._part(lines, b.gep(at, [b.add(I64(head), offset)]), first, sums)
            with b.if_then(b.icmp_signed("==", part, I64(parts - 1))):
                self._end(at, group, sums, totals)
        for r in range(self.rows):
            scale = self.lanes.splat(self.head(r, I64(0), self.lanes.kind.scalar))
            for v in range(self.vectors):
                self.write(r, v, b.fmul(b.load(totals[r * self.vectors + v]), scale))
        b.ret_void()

    def _clear(self, sums: list[ir.Value]) -> None:
        for s in sums:
            self.b.store(ir.Constant(self.integers, None), s)

    def _part(
        self, lines: list[ir.Value], body: ir.Value, first: ir.Value, sums: list[ir.Value]
    ) -> None:
        """Add some words of a group to the sums of whole numbers."""
        b, vectors = self.b, self.vectors
        for word in range(self.words):
            factors = [self._two_words(line, b.add(first, I64(4 * word))) for line in lines]
            for v in range(vectors):
                halves = self._halves(self.weights(body, word * vectors + v))
                for r, pair in enumerate(factors):
                    for half in (0, 1):
                        k = r * vectors + v
                        k += half * self.rows * vectors if self.apart else 0
                        self._add_dot8(sums[k], halves[half], pair[half])

    def _end(
        self, at: ir.Value, group: ir.Value, sums: list[ir.Value], totals: list[ir.Value]
    ) -> None:
        """The sums of a group, without the weights' offset and scaled, are added to the totals."""
        b, count = self.b, self.rows * self.vectors
        four = ir.Constant(self.integers, [4] * self.target.lanes)
        scales = [
            self._scale(b.gep(at, [I64(2 * v * self.target.lanes)])) for v in range(self.vectors)
        ]
        for r in range(self.rows):
            offset = b.add(I64(64), b.mul(group, I64(4)))
            offset = self.lanes.splat(self.head(r, offset, I32))
            for v, scale in enumerate(scales):
                k = r * self.vectors + v
                whole = b.add(b.load(sums[k]), offset)
                if self.apart:
                    whole = b.add(whole, b.ashr(b.load(sums[count + k]), four))
                self.add_to(totals[k], partial(self.lanes.fma, self.real(whole), scale))
        self._clear(sums)

    def _halves(self, both: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The low halves of bytes, and the high ones: apart as they lie there, 16 times as large."""
        b, n = self.b, self.target.lanes
        low = ir.Constant(self.integers, [0x0F0F0F0F] * n)
        if self.apart:
            high = ir.Constant(self.integers, [0xF0F0F0F0 - (1 << 32)] * n)
            return b.and_(both, low), b.and_(both, high)
        shift = ir.Constant(self.integers, [4] * n)
        return b.and_(both, low), b.and_(b.lshr(both, shift), low)

    def _two_words(self, line: ir.Value, at: ir.Value) -> list[ir.Value]:
        """Four numbers of a row in every lane, and the four half a group later."""
        b = self.b
        places = (b.gep(line, [b.add(at, I64(half))]) for half in (0, GROUP // 2))
        return [self.lanes.splat(self.load(p, I32, 4)) for p in places]

    def _scale(self, place: ir.Value) -> ir.Value:
        """A register of bfloat16 numbers."""
        b, lanes = self.b, self.target.lanes
        half = self.load(place, ir.VectorType(I16, lanes), 2 * lanes)
        bits = b.shl(b.zext(half, self.integers), ir.Constant(self.integers, [16] * lanes))
        return b.bitcast(bits, self.lanes.kind.vector)


_KINDS: dict[str, type[_Product]] = {
    "float32": _RealProduct,
    "bfloat16": _RealProduct,
    "int8": _Int8Product,
    "int4": _Int4Product,
}
