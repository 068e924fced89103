"""The softmax of rows of scores as machine code: their costs, and the scores turned into their gradient.

One kernel, ``softmax``, and one that stops at the costs, ``softmax_cost``. With z = scores + bias, a row i
with target y, and the target distribution q = hit (one-hot of y) + uniform:

    m = max_v z[v],  s = sum_v exp(z[v] - m)
    loss[i] = log s + m - z[y] + smoothing (z[y] - mean_v z[v])
    score[v] <- w[i] (exp(z[v] - m) / s - q[v])
    gradient of the bias += what was written (each thread into a row of its own)

Scores are float32 or bfloat16 in memory and float32 in registers; a row is read two or three times and stays in
the first caches. Knows rows and registers; nothing of autograd or of where scores come from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from llvmlite import ir

from gatewise.engine.cpu.kinds import I32, I64
from gatewise.engine.cpu.lanes import Lanes
from gatewise.engine.cpu.making import Kernel, kind_of, make
from gatewise.engine.cpu.program import Program

ALIGN = 16
"""Rows of scores begin at multiples of this many numbers."""

DTYPES = (torch.float32, torch.bfloat16)
"""What the scores can be."""

_MAGIC = 12582912.0  # 1.5 * 2^23
_LOG2_E = 1.4426950408889634
# 2^r for |r| <= 1/2, exact at 0 and of least relative error elsewhere (9.1e-8)
_POWER = (
    0.001326472614891827,
    0.009671512991189957,
    0.05550733581185341,
    0.24022242426872253,
    0.6931470036506653,
    1.0,
)

Fold = Callable[[ir.Value, ir.Value | None, list[ir.Value]], list[ir.Value]]
"""Place in the row, lanes that are classes (None: all), what is carried -> what is carried on."""


@cache
def softmax_kernels(dtype: torch.dtype) -> tuple[Kernel, Kernel]:
    """The kernel of costs alone and that of costs and gradients, for scores of `dtype`.

    Arguments: scores (rows, classes rounded up to ALIGN), bias (as many float32, zeros beyond the
    classes), targets (rows,) int64, losses (rows,) float32, shares (smoothing, hit, uniform) float32; for
    gradients also weights (rows,) float32 and sums (threads, classes rounded up) float32, zeros at first.
    """
    made = make(f"softmax {dtype}", lambda: _write(dtype))
    return made["cost"], made["full"]


def _write(dtype: torch.dtype) -> dict[str, Program]:
    module = ir.Module()
    rows = {
        "cost": _Rows(module, dtype, gradient=False),
        "full": _Rows(module, dtype, gradient=True),
    }
    return {name: row.emit() for name, row in rows.items()}


class _Scores(Lanes):
    """What the softmax needs beyond the lanes' arithmetic."""

    def power(self, x: ir.Value) -> ir.Value:
        """exp(x) for x of at most 0, as 2^(x log2 e); below 2^-126 it is 0; NaN stays NaN."""
        b = self.builder
        t = b.fmul(x, self.number(_LOG2_E))
        shifted = b.fadd(t, self.number(_MAGIC))  # rounds: the whole number is in the low bits
        part = b.fsub(t, b.fsub(shifted, self.number(_MAGIC)))
        whole = b.shl(b.bitcast(shifted, self.kind.bits), self._integers(23))
        grown = b.add(b.bitcast(self._horner(_POWER, part), self.kind.bits), whole)
        small = self.compare("<", t, self.number(-126.0))
        return self.where(small, self.number(0.0), b.bitcast(grown, self.kind.vector))

    def reduce(self, op: Callable[[ir.Value, ir.Value], ir.Value], value: ir.Value) -> ir.Value:
        """One number in all lanes: those of `value` combined by `op`, in a fixed order."""
        b, lanes, width = self.builder, self.kind.lanes, self.kind.lanes // 2
        while width:
            order = ir.Constant(ir.VectorType(I32, lanes), [i ^ width for i in range(lanes)])
            value = op(value, b.shuffle_vector(value, value, order))
            width //= 2
        return value

    def scalar(self, value: ir.Value) -> ir.Value:
        """The first lane."""
        return self.builder.extract_element(value, I32(0))


class _Rows:
    """Emits one of the kernels."""

    def __init__(self, module: ir.Module, dtype: torch.dtype, *, gradient: bool) -> None:
        narrow = dtype == torch.bfloat16
        self._kind = kind_of("float32", narrow)
        self._program = Program(
            module,
            "softmax" if gradient else "softmax_cost",
            self._kind,
            lambda name: narrow and name == "scores",
        )
        self._lanes = _Scores(self._program.builder, self._kind)
        self._gradient = gradient

    def emit(self) -> Program:
        """The whole kernel."""
        p, b, lanes = self._program, self._program.builder, self._kind.lanes
        classes = p.number("classes")
        whole = b.sdiv(classes, I64(lanes))
        self._spans = ((I64(0), whole), (whole, b.sdiv(b.add(classes, I64(lanes - 1)), I64(lanes))))
        self._classes = self._splat(classes)
        self._stride = b.and_(b.add(classes, I64(ALIGN - 1)), I64(-ALIGN))
        self._bias = p.pointer("bias")
        if self._gradient:
            here = b.call(p.external("omp_get_thread_num", I32), [])
            self._sums = p.at(p.pointer("sums"), (b.sext(here, I64), self._stride))
        first, end, _ = p.share(p.number("rows"))
        with p.loop(first, end, "row") as row:
            self._row(row)
        p.finish()
        return p

    def _row(self, row: ir.Value) -> None:
        p, b, v = self._program, self._program.builder, self._lanes
        line = p.at(p.pointer("scores"), (row, self._stride))
        target = b.load(p.at(p.pointer("targets", I64), row))
        found = self._one(line, target)
        start = [v.number(float("-inf")), v.number(0.0)]
        top, total = self._fold("top", start, lambda *at: self._extent(line, *at))
        top, total = v.reduce(self._larger, top), v.scalar(v.reduce(b.fadd, total))
        (mass,) = self._fold(
            "mass",
            [v.number(0.0)],
            lambda at, inside, held: [b.fadd(held[0], self._power(line, at, inside, top))],
        )
        mass = v.reduce(b.fadd, mass)
        self._cost(row, v.scalar(top), v.scalar(mass), found, total)
        if self._gradient:
            weight = v.splat(b.load(p.at(p.pointer("weights"), row)))
            share, uniform = b.fdiv(weight, mass), b.fmul(weight, v.splat(self._share(2)))
            self._fold(
                "down",
                [],
                lambda at, inside, _: self._differentiate(line, at, inside, (top, share, uniform)),
            )
            hit = b.fmul(weight, v.splat(self._share(1)))
            power = v.power(b.fsub(v.splat(found), top))
            self._hit(line, target, b.fsub(b.fmul(power, share), b.fadd(uniform, hit)), hit)

    # --- passes over a row ----------------------------------------------------------------------

    def _fold(self, name: str, start: Sequence[ir.Value], body: Fold) -> list[ir.Value]:
        """Carry registers through a row: the whole ones, then the one that the row ends in."""
        lanes, held = self._kind.lanes, list(start)
        for last, (first, end) in enumerate(self._spans):

            def inside(index: ir.Value, held: list[ir.Value], last: int = last) -> list[ir.Value]:
                at = self._program.builder.mul(index, I64(lanes))
                return body(at, self._inside(at) if last else None, held)

            held = self._loop(f"{name}{last}", first, end, held, inside)
        return held

    def _loop(
        self,
        name: str,
        first: ir.Value,
        end: ir.Value,
        start: list[ir.Value],
        body: Callable[[ir.Value, list[ir.Value]], list[ir.Value]],
    ) -> list[ir.Value]:
        """for i in first..end, registers carried from one turn to the next."""
        b, function = self._program.builder, self._program.function
        head, inside, done = (
            function.append_basic_block(f"{name}.{part}") for part in ("head", "body", "done")
        )
        before = b.block
        b.branch(head)
        b.position_at_end(head)
        index = b.phi(I64)
        index.add_incoming(first, before)
        held = [b.phi(value.type) for value in start]
        for phi, value in zip(held, start, strict=True):
            phi.add_incoming(value, before)
        b.cbranch(b.icmp_signed("<", index, end), inside, done)
        b.position_at_end(inside)
        new = body(index, held)
        index.add_incoming(b.add(index, I64(1)), b.block)
        for phi, value in zip(held, new, strict=True):
            phi.add_incoming(value, b.block)
        b.branch(head)
        b.position_at_end(done)
        return held

    def _extent(
        self, line: ir.Value, at: ir.Value, inside: ir.Value | None, held: list[ir.Value]
    ) -> list[ir.Value]:
        """The largest score and the sum of all, with those of `at`."""
        b, v = self._program.builder, self._lanes
        z = self._scores(line, at)
        counted = z if inside is None else v.where(inside, z, v.number(0.0))
        if inside is not None:
            z = v.where(inside, z, v.number(float("-inf")))
        return [self._larger(z, held[0]), b.fadd(held[1], counted)]

    def _power(
        self, line: ir.Value, at: ir.Value, inside: ir.Value | None, top: ir.Value
    ) -> ir.Value:
        """exp(z - top), 0 beyond the classes."""
        v = self._lanes
        power = v.power(self._program.builder.fsub(self._scores(line, at), top))
        return power if inside is None else v.where(inside, power, v.number(0.0))

    def _differentiate(
        self,
        line: ir.Value,
        at: ir.Value,
        inside: ir.Value | None,
        parts: tuple[ir.Value, ir.Value, ir.Value],
    ) -> list[ir.Value]:
        """The scores <- the gradient, the target's part left out; it is added to the sums too."""
        p, b, v = self._program, self._program.builder, self._lanes
        top, share, uniform = parts
        d = b.fsub(b.fmul(self._power(line, at, inside, top), share), uniform)
        if inside is not None:
            d = v.where(inside, d, v.number(0.0))
        v.store(d, p.at(line, at))
        place = p.at(self._sums, at)
        v.store(b.fadd(v.load(place), d), place)
        return []

    def _hit(self, line: ir.Value, target: ir.Value, d: ir.Value, hit: ir.Value) -> None:
        """The target's gradient, formed before it is rounded."""
        p, b, v = self._program, self._program.builder, self._lanes
        score = v.narrowed(d) if self._kind.narrow else d
        b.store(v.scalar(score), p.at(line, target))
        place = p.at(self._sums, target)
        b.store(b.fsub(b.load(place), v.scalar(hit)), place)

    def _cost(
        self, row: ir.Value, top: ir.Value, mass: ir.Value, found: ir.Value, total: ir.Value
    ) -> None:
        p, b = self._program, self._program.builder
        number = ir.FloatType()
        name = "llvm.log.f32"
        log = p.module.globals.get(name) or ir.Function(
            p.module, ir.FunctionType(number, [number]), name
        )
        cost = b.fadd(b.call(log, [mass]), b.fsub(top, found))
        smoothing = self._share(0)
        mean = b.fdiv(total, b.sitofp(p.number("classes"), number))
        smooth = b.fadd(cost, b.fmul(smoothing, b.fsub(found, mean)))
        # 0 times infinity must not come into a cost without smoothing
        off = b.fcmp_ordered("==", smoothing, ir.Constant(number, 0.0))
        b.store(b.select(off, cost, smooth), p.at(p.pointer("losses"), row))

    # --- parts ----------------------------------------------------------------------------------

    def _scores(self, line: ir.Value, at: ir.Value) -> ir.Value:
        p, v = self._program, self._lanes
        return p.builder.fadd(v.load(p.at(line, at)), v.load(p.at(self._bias, at)))

    def _one(self, line: ir.Value, place: ir.Value) -> ir.Value:
        """A single score with its bias."""
        p, b = self._program, self._program.builder
        score = b.load(p.at(line, place))
        if self._kind.narrow:
            score = b.bitcast(b.shl(b.zext(score, I32), I32(16)), ir.FloatType())
        return b.fadd(score, b.load(p.at(self._bias, place)))

    def _share(self, place: int) -> ir.Value:
        return self._program.builder.load(
            self._program.at(self._program.pointer("shares"), I64(place))
        )

    def _splat(self, value: ir.Value) -> ir.Value:
        """A whole number below 2^31 in all lanes."""
        return self._lanes.splat(self._program.builder.trunc(value, I32))

    def _inside(self, at: ir.Value) -> ir.Value:
        """Which lanes are classes."""
        order = ir.Constant(self._kind.bits, list(range(self._kind.lanes)))
        places = self._program.builder.add(self._splat(at), order)
        return self._program.builder.icmp_signed("<", places, self._classes)

    def _larger(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """The larger; what is no number comes back in the sum of exponentials."""
        return self._lanes.where(self._lanes.compare(">", a, b), a, b)
