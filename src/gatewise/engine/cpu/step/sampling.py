"""From a row of scores to a token, in the order of `gatewise.generate.choose`, in machine code.

The draw inverts the cumulative distribution at a uniform number that follows from the row's seed and
position alone (SplitMix64, as `gatewise.generate.choose.uniform`), and every sum has one order: a token depends on nothing else in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from llvmlite import ir

from gatewise.engine.cpu.kinds import I1, I32, I64
from gatewise.engine.cpu.step.panels import Routine
from gatewise.engine.cpu.step.tiles import Target

F64 = ir.DoubleType()
CHUNK = 16
"""Registers whose sum is one entry of the cumulative sums."""

_GOLDEN, _MIX1, _MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def emit_sampler(module: ir.Module, target: Target) -> Routine:
    """``void (arguments, row, tokens, logprobs, logits)``: one row's token, and its log-probability."""
    real = target.kind.scalar.as_pointer()
    routine = Routine(module, "sample", target, [I64, I64.as_pointer(), real, real, I64])
    routine.function.linkage = "internal"
    _Sampler(routine).emit()
    return routine


class _Sampler:
    """The function under construction.

    Arguments: registers (of a row), row (numbers of a row), offsets (or 0), weights (B, row) and sums
    (B, row) to work in, seeds and positions (B), and the options.
    """

    def __init__(self, routine: Routine) -> None:
        self.p, self.b, self.lanes = routine, routine.builder, routine.lanes
        self.n = routine.target.lanes
        self.real, self.vector = self.lanes.kind.scalar, self.lanes.kind.vector
        self.integers = ir.VectorType(I32, self.n)

    def emit(self) -> None:
        p, b = self.p, self.b
        self.row, tokens, logprobs, logits, step = p.extra
        offset = b.mul(self.row, p.number("row"))
        self.logits = b.gep(logits, [offset])
        self.weights = b.gep(p.pointer("weights"), [offset])
        self.sums = b.gep(p.pointer("sums", F64), [b.mul(self.row, p.number("chunks"))])
        with b.goto_entry_block():
            place, largest = b.alloca(I64), b.alloca(self.real)
        greedy = b.fcmp_ordered("<=", self._option("temperature"), self.real(0.0))
        bare = b.icmp_signed("==", p.number("offsets"), I64(0))
        with b.if_else(b.and_(greedy, bare)) as (then, otherwise):
            with then:
                token, raw = self._best()
                b.store(token, place)
                b.store(raw, largest)
            with otherwise:
                top, raw = self._adjust()
                b.store(raw, largest)
                with b.if_else(greedy) as (then, otherwise):
                    with then:
                        b.store(self._first_equal(self.lanes.splat(top)), place)
                    with otherwise:
                        self._weigh(top)
                        self._filter()
                        b.store(self._draw(step), place)
        token = b.load(place)
        b.store(token, b.gep(tokens, [self.row]))
        with b.if_then(b.icmp_signed("!=", p.number("logprobs"), I64(0))):
            b.store(self._logprob(token, b.load(largest)), b.gep(logprobs, [self.row]))
        p.finish()

    # --- passes over the row ---------------------------------------------------------------------

    def _option(self, name: str) -> ir.Value:
        """A float32 among the arguments."""
        bits = self.b.trunc(self.p.number(name), I32)
        return self.b.bitcast(bits, self.real)

    def _fold(
        self,
        start: list[ir.Value],
        step: Callable[[ir.Value, list[ir.Value]], list[ir.Value]],
        first: ir.Value | None = None,
        end: ir.Value | None = None,
    ) -> list[ir.Value]:
        """What `step` makes of `start`, register after register; `i` counts numbers."""
        p, b = self.p, self.b
        with b.goto_entry_block():
            places = [b.alloca(value.type) for value in start]
        for at, value in zip(places, start, strict=True):
            b.store(value, at)
        begin = I64(0) if first is None else first
        last = p.number("registers") if end is None else end
        with p.loop(begin, last, "scan") as i:
            new = step(b.mul(i, I64(self.n)), [b.load(at) for at in places])
            for at, value in zip(places, new, strict=True):
                b.store(value, at)
        return [b.load(at) for at in places]

    def _at(self, base: ir.Value, i: ir.Value) -> ir.Value:
        return self.b.gep(base, [i])

    def _read(self, base: ir.Value, i: ir.Value) -> ir.Value:
        return self.lanes.load(self._at(base, i))

    def _reduce(self, name: str, value: ir.Value) -> ir.Value:
        kind = value.type
        suffix = f"v{self.n}{'i32' if kind.element == I32 else 'f32'}"
        full, scalar = f"llvm.vector.reduce.{name}.{suffix}", kind.element
        kinds = [scalar, kind] if name == "fadd" else [kind]
        module = self.p.module
        function = module.globals.get(full) or ir.Function(
            module, ir.FunctionType(scalar, kinds), full
        )
        if name != "fadd":
            return self.b.call(function, [value])
        # pairs of lanes, not one after the other: as fixed an order, in a quarter of the time
        return self.b.call(function, [scalar(0.0), value], fastmath=("reassoc",))

    def _highest(self, value: ir.Value) -> ir.Value:
        """The largest lane; NaN if one is."""
        b = self.b
        nan = b.fcmp_unordered("uno", self._reduce("fadd", value), self.real(0.0))
        found = self._reduce("fmax", value)
        return b.select(nan, self.real(math.nan), found)

    # --- steps -----------------------------------------------------------------------------------

    def _adjust(self) -> tuple[ir.Value, ir.Value]:
        """weights <- scores + offsets; their largest, and that of the scores."""
        b, lowest = self.b, self.lanes.number(-math.inf)
        present = b.icmp_signed("!=", self.p.number("offsets"), I64(0))
        offsets = self.p.pointer("offsets")

        def plain(i: ir.Value, best: list[ir.Value]) -> list[ir.Value]:
            value = self._read(self.logits, i)
            self.lanes.store(value, self._at(self.weights, i))
            return [self.lanes.maximum(best[0], value)]

        def moved(i: ir.Value, best: list[ir.Value]) -> list[ir.Value]:
            value = b.fadd(self._read(self.logits, i), self._read(offsets, i))
            self.lanes.store(value, self._at(self.weights, i))
            return [self.lanes.maximum(best[0], value)]

        raw = self._highest(self._fold([lowest], plain)[0])
        top = b.alloca(self.real)
        b.store(raw, top)
        with b.if_then(present):
            b.store(self._highest(self._fold([lowest], moved)[0]), top)
        return b.load(top), raw

    def _best(self) -> tuple[ir.Value, ir.Value]:
        """The first place of the largest score, and that score."""
        b, lanes = self.b, self.lanes
        numbers = ir.Constant(self.integers, list(range(self.n)))

        def step(i: ir.Value, best: list[ir.Value]) -> list[ir.Value]:
            value = self._read(self.logits, i)
            larger = lanes.compare(">", value, best[0])
            here = b.add(numbers, lanes.splat(b.trunc(i, I32)))
            return [lanes.where(larger, value, best[0]), b.select(larger, here, best[1])]

        start = [lanes.number(-math.inf), ir.Constant(self.integers, None)]
        values, places = self._fold(start, step)
        top = self._reduce("fmax", values)
        equal = lanes.compare("==", values, lanes.splat(top))
        last = ir.Constant(self.integers, [(1 << 31) - 1] * self.n)
        return b.sext(self._reduce("smin", b.select(equal, places, last)), I64), top

    def _first_equal(self, wanted: ir.Value) -> ir.Value:
        """The first place in weights of a value that is there; 0 where it is NaN."""
        b = self.b
        never = I64(1 << 62)

        def step(i: ir.Value, best: list[ir.Value]) -> list[ir.Value]:
            equal = self.lanes.compare("==", self._read(self.weights, i), wanted)
            bits = b.zext(b.bitcast(equal, ir.IntType(self.n)), I64)
            here = b.add(i, self._trailing(bits))
            found = b.and_(b.icmp_unsigned("!=", bits, I64(0)), b.icmp_signed("==", best[0], never))
            return [b.select(found, here, best[0])]

        place = self._fold([never], step)[0]
        return b.select(b.icmp_signed("==", place, never), I64(0), place)

    def _trailing(self, bits: ir.Value) -> ir.Value:
        module, name = self.p.module, "llvm.cttz.i64"
        signature = ir.FunctionType(I64, [I64, I1])
        function = module.globals.get(name) or ir.Function(module, signature, name)
        return self.b.call(function, [bits, I1(0)])

    def _weigh(self, top: ir.Value) -> None:
        """weights <- exp((scores - largest) / temperature), 0 where that is out of range."""
        b, lanes = self.b, self.lanes
        inverse = b.fdiv(self.real(1.0), self._option("temperature"))
        largest, factor = lanes.splat(top), lanes.splat(inverse)

        def step(i: ir.Value, none: list[ir.Value]) -> list[ir.Value]:
            power = b.fmul(b.fsub(self._read(self.weights, i), largest), factor)
            inside = lanes.compare(">", power, lanes.number(-87.0))
            value = lanes.where(inside, lanes.exp(power), lanes.number(0.0))
            lanes.store(value, self._at(self.weights, i))
            return none

        self._fold([], step)

    def _filter(self) -> None:
        """Top-k, top-p and min-p: what is taken away gets the weight 0."""
        b, p = self.b, self.p
        k = p.number("top_k")
        some = b.and_(b.icmp_signed(">", k, I64(0)), b.icmp_signed("<", k, p.number("outputs")))
        with b.if_then(some):
            self._top_k(k)
        share = self._option("top_p")
        with b.if_then(b.fcmp_ordered("<", share, self.real(1.0))):
            self._top_p(share)
        least = self._option("min_p")
        with b.if_then(b.fcmp_ordered(">", least, self.real(0.0))):
            self._keep(b.bitcast(least, I32), I64(1 << 40))

    def _bisect(self, holds: Callable[[ir.Value], ir.Value]) -> ir.Value:
        """The largest bits t of a weight for which `holds(t)`, which holds up to some t; else 0.

        Weights are 0 to 1, and as bits in the same order.
        """
        b, p = self.b, self.p
        with b.goto_entry_block():
            place = b.alloca(I32)
        b.store(I32(0), place)
        with p.loop(I64(0), I64(30), "bit") as i:
            bit = b.shl(I32(1), b.trunc(b.sub(I64(29), i), I32))
            candidate = b.or_(b.load(place), bit)
            new = b.select(holds(candidate), candidate, b.load(place))
            b.store(new, place)
        return b.load(place)

    def _top_k(self, k: ir.Value) -> None:
        b = self.b
        threshold = self._bisect(
            lambda t: b.icmp_signed(">=", self._count("sge", t), b.trunc(k, I32))
        )
        above = self._count("sgt", threshold)
        self._keep(threshold, b.sub(k, b.sext(above, I64)))

    def _top_p(self, share: ir.Value) -> None:
        b = self.b
        aim = b.fmul(share, self._total("sge", I32(0)))
        least = self._bisect(lambda t: b.fcmp_ordered(">=", self._total("sge", t), aim))
        # what is above it is not enough: all of that is kept, and of those equal the first
        above = self._total("sgt", least)
        weight = b.bitcast(least, self.real)
        missing = b.fdiv(b.fsub(aim, above), weight)
        some = b.fcmp_ordered(">", weight, self.real(0.0))
        module, name = self.p.module, "llvm.ceil.f32"
        ceil = module.globals.get(name) or ir.Function(
            module, ir.FunctionType(self.real, [self.real]), name
        )
        whole = b.fptosi(b.call(ceil, [b.select(some, missing, self.real(1.0))]), I64)
        self._keep(least, b.select(b.icmp_signed("<", whole, I64(1)), I64(1), whole))

    def _count(self, op: str, threshold: ir.Value) -> ir.Value:
        """How many weights are at or above, or above, the threshold."""
        b, at = self.b, self.lanes.splat(threshold)

        def step(i: ir.Value, count: list[ir.Value]) -> list[ir.Value]:
            bits = b.bitcast(self._read(self.weights, i), self.integers)
            inside = b.icmp_signed(">=" if op == "sge" else ">", bits, at)
            return [b.add(count[0], b.zext(inside, self.integers))]

        return self._reduce("add", self._fold([ir.Constant(self.integers, None)], step)[0])

    def _total(self, op: str, threshold: ir.Value) -> ir.Value:
        """The sum of the weights at or above, or above, the threshold."""
        b, lanes, at = self.b, self.lanes, self.lanes.splat(threshold)

        def step(i: ir.Value, total: list[ir.Value]) -> list[ir.Value]:
            value = self._read(self.weights, i)
            inside = b.icmp_signed(
                ">=" if op == "sge" else ">", b.bitcast(value, self.integers), at
            )
            return [b.fadd(total[0], lanes.where(inside, value, lanes.number(0.0)))]

        return self._reduce("fadd", self._fold([lanes.number(0.0)], step)[0])

    def _keep(self, threshold: ir.Value, equal: ir.Value) -> None:
        """weights below the threshold become 0, and those equal to it after the first `equal`."""
        b, lanes, at = self.b, self.lanes, self.lanes.splat(threshold)

        def step(i: ir.Value, none: list[ir.Value]) -> list[ir.Value]:
            value = self._read(self.weights, i)
            inside = b.icmp_signed(">=", b.bitcast(value, self.integers), at)
            lanes.store(lanes.where(inside, value, lanes.number(0.0)), self._at(self.weights, i))
            return none

        self._fold([], step)
        there = b.sub(self._count("sge", threshold), self._count("sgt", threshold))
        with b.if_then(b.icmp_signed(">", b.sext(there, I64), equal), likely=False):
            self._drop_equal(threshold, equal)

    def _drop_equal(self, threshold: ir.Value, equal: ir.Value) -> None:
        p, b = self.p, self.b
        with b.goto_entry_block():
            left = b.alloca(I64)
        b.store(equal, left)
        with p.loop(I64(0), b.mul(p.number("registers"), I64(self.n)), "equal") as i:
            at = self._at(self.weights, i)
            same = b.icmp_signed("==", b.bitcast(b.load(at), I32), threshold)
            with b.if_then(same):
                count = b.load(left)
                with b.if_then(b.icmp_signed("<=", count, I64(0))):
                    b.store(self.real(0.0), at)
                b.store(b.sub(count, I64(1)), left)

    # --- the draw --------------------------------------------------------------------------------

    def _draw(self, step: ir.Value) -> ir.Value:
        """The first place whose cumulative weight exceeds a uniform share of the whole."""
        p, b = self.p, self.b
        chunks = p.number("chunks")
        with b.goto_entry_block():
            running, chosen, place, last = (
                b.alloca(F64), b.alloca(I64), b.alloca(I64), b.alloca(I64)
            )  # fmt: skip
        b.store(F64(0.0), running)
        with p.loop(I64(0), chunks, "chunk") as c:
            first, end = self._registers_of(c)
            total = self._fold(
                [self.lanes.number(0.0)],
                lambda i, t: [b.fadd(t[0], self._read(self.weights, i))],
                first,
                end,
            )[0]
            new = b.fadd(b.load(running), b.fpext(self._reduce("fadd", total), F64))
            b.store(new, running)
            b.store(new, b.gep(self.sums, [c]))
        aim = b.fmul(self._uniform(step), b.load(running))
        b.store(I64(0), chosen)
        with p.loop(I64(0), b.sub(chunks, I64(1)), "seek") as c:
            passed = b.fcmp_ordered("<=", b.load(b.gep(self.sums, [c])), aim)
            b.store(b.add(b.load(chosen), b.zext(passed, I64)), chosen)
        c = b.load(chosen)
        before = b.gep(self.sums, [b.select(b.icmp_signed(">", c, I64(0)), b.sub(c, I64(1)), c)])
        start = b.select(b.icmp_signed(">", c, I64(0)), b.load(before), F64(0.0))
        b.store(start, running)
        b.store(I64(-1), place)
        b.store(I64(0), last)
        first, end = self._registers_of(c)
        with p.loop(b.mul(first, I64(self.n)), b.mul(end, I64(self.n)), "within") as i:
            weight = b.fpext(b.load(self._at(self.weights, i)), F64)
            total = b.fadd(b.load(running), weight)
            b.store(total, running)
            positive = b.fcmp_ordered(">", weight, F64(0.0))
            reached = b.and_(b.fcmp_ordered(">", total, aim), positive)
            unset = b.icmp_signed("<", b.load(place), I64(0))
            b.store(b.select(b.and_(reached, unset), i, b.load(place)), place)
            b.store(b.select(positive, i, b.load(last)), last)
        found = b.load(place)
        return b.select(b.icmp_signed("<", found, I64(0)), b.load(last), found)

    def _registers_of(self, chunk: ir.Value) -> tuple[ir.Value, ir.Value]:
        b, registers = self.b, self.p.number("registers")
        first = b.mul(chunk, I64(CHUNK))
        end = b.add(first, I64(CHUNK))
        return first, b.select(b.icmp_signed("<", end, registers), end, registers)

    def _uniform(self, step: ir.Value) -> ir.Value:
        p, b = self.p, self.b
        seed = b.load(b.gep(p.pointer("seeds", I64), [self.row]))
        position = b.add(b.load(b.gep(p.pointer("positions", I64), [self.row])), step)
        golden = I64(_GOLDEN - (1 << 64))
        key = self._mixed(b.add(seed, golden))
        bits = self._mixed(b.add(key, b.mul(golden, b.add(position, I64(1)))))
        return b.fmul(b.uitofp(b.lshr(bits, I64(11)), F64), F64(2.0**-53))

    def _mixed(self, x: ir.Value) -> ir.Value:
        b = self.b
        for shift, factor in ((30, _MIX1), (27, _MIX2)):
            x = b.mul(b.xor(x, b.lshr(x, I64(shift))), I64(factor - (1 << 64)))
        return b.xor(x, b.lshr(x, I64(31)))

    def _logprob(self, token: ir.Value, largest: ir.Value) -> ir.Value:
        """log softmax of the scores, at temperature 1."""
        p, b, lanes = self.p, self.b, self.lanes
        top = lanes.splat(largest)
        total = self._fold(
            [lanes.number(0.0)],
            lambda i, t: [b.fadd(t[0], lanes.exp(b.fsub(self._read(self.logits, i), top)))],
        )[0]
        log = p.external("logf", self.real, self.real)
        whole = b.call(log, [self._reduce("fadd", total)])
        return b.fsub(b.fsub(b.load(b.gep(self.logits, [token])), largest), whole)
