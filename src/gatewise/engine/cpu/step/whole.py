"""Products of whole numbers: weights of 8 and of 4 bits, unsigned, times signed bytes. Sums are exact."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from llvmlite import ir

from gatewise.engine.cpu.kinds import I32, I64
from gatewise.engine.cpu.step.formats import GROUP
from gatewise.engine.cpu.step.tiles import I16, Product


class _ByteProduct(Product):
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


class Int8Product(_ByteProduct):
    """A scale for each row."""

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


class Int4Product(_ByteProduct):
    """A scale for each group of 64."""

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
