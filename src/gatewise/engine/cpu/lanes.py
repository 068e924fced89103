"""Arithmetic on vectors of a few units, as LLVM IR. Knows numbers and registers; no cell, no time.

No fast-math flags: they delete checks for NaN. Products and sums are contracted only where a function asks
for it (`fma`), so that an equation rounds as it does on tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llvmlite import ir

from gatewise.engine.cpu.kinds import BFLOAT, I16, I32, VOID, Kind


@dataclass(frozen=True)
class _Exponential:
    """exp(x) = 2^n (1 + r + r^2 P(r)), n = round(x / ln 2): constants of one precision."""

    low: float
    high: float
    magic: float
    bias: int
    mantissa: int
    ln2: tuple[float, float]
    poly: tuple[float, ...]


# float32: the polynomial of the Cephes library (expf); float64: Taylor's to degree 13, which is exact to
# rounding for |r| <= ln 2 / 2.
_EXP = {
    "float32": _Exponential(
        -87.33654,
        88.72283,
        12582912.0,
        127,
        23,
        (0.693359375, -2.12194440e-4),
        (
            1.9875691500e-4,
            1.3981999507e-3,
            8.3334519073e-3,
            4.1665795894e-2,
            1.6666665459e-1,
            5.0000001201e-1,
        ),
    ),
    "float64": _Exponential(
        -708.396,
        709.782,
        6755399441055744.0,
        1023,
        52,
        (6.93145751953125e-1, 1.42860682030941723212e-6),
        tuple(1 / math.factorial(k) for k in range(13, 1, -1)),
    ),
}
# tanh(x) = x P(x^2) / Q(x^2): numerator, denominator, and where beyond it is constant or given otherwise.
# float32: Eigen's rational function of the whole range; float64: Cephes', for small x only.
_TANH = {
    "float32": (
        (
            -2.76076847742355e-16,
            2.00018790482477e-13,
            -8.60467152213735e-11,
            5.12229709037114e-08,
            1.48572235717979e-05,
            6.37261928875436e-04,
            4.89352455891786e-03,
        ),
        (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03),
        7.90531110763549805,
    ),
    "float64": (
        (-9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3),
        (1.0, 1.12811678491631932402e2, 2.23548839060100448583e3, 4.84406305325125486048e3),
        0.625,
    ),
}


class Lanes:
    """Emits arithmetic on registers of `kind` where `builder` stands.

    `builder` may be moved (a new block, a new function) between calls.
    """

    def __init__(self, builder: ir.IRBuilder, kind: Kind) -> None:
        self.builder = builder
        self.kind = kind

    # --- numbers ---------------------------------------------------------------------------------

    def number(self, value: float) -> ir.Constant:
        """A register that holds `value` in every lane."""
        return ir.Constant(self.kind.vector, [value] * self.kind.lanes)

    def splat(self, scalar: ir.Value) -> ir.Value:
        """A register that holds `scalar` in every lane."""
        vector = ir.VectorType(scalar.type, self.kind.lanes)
        first = self.builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, I32(0))
        zeros = ir.Constant(ir.VectorType(I32, self.kind.lanes), [0] * self.kind.lanes)
        return self.builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)

    def load(self, pointer: ir.Value, aligned: bool = False) -> ir.Value:
        """A register from memory; `pointer` is to a number, or to a bfloat16 (i16), which is widened."""
        b = self.builder
        if pointer.type.pointee == I16:
            half = b.load(b.bitcast(pointer, self._halves.as_pointer()), align=2)
            return self.widened(half)
        place = b.bitcast(pointer, self.kind.vector.as_pointer())
        return b.load(place, align=self._alignment(aligned))

    def store(self, value: ir.Value, pointer: ir.Value, aligned: bool = False) -> None:
        """A register to memory; to a bfloat16 (i16) it is rounded, to the nearest, ties to even."""
        b = self.builder
        if pointer.type.pointee == I16:
            half = self.narrowed(value)
            b.store(half, b.bitcast(pointer, half.type.as_pointer()), align=2)
            return
        place = b.bitcast(pointer, self.kind.vector.as_pointer())
        b.store(value, place, align=self._alignment(aligned))

    def load_some(self, pointer: ir.Value, mask: ir.Value) -> ir.Value:
        """The lanes of a register where `mask` holds, from memory that need not go on elsewhere; else 0."""
        kind, suffix = self.kind.vector, f"v{self.kind.lanes}f{8 * self.kind.itemsize}"
        place = self.builder.bitcast(pointer, kind.as_pointer())
        name = f"llvm.masked.load.{suffix}.p0"
        function = self._function(name, kind, place.type, I32, mask.type, kind)
        align = I32(self.kind.itemsize)
        return self.builder.call(function, [place, align, mask, self.number(0.0)])

    def store_some(self, value: ir.Value, pointer: ir.Value, mask: ir.Value) -> None:
        """Write the lanes of a register where `mask` holds."""
        kind, suffix = self.kind.vector, f"v{self.kind.lanes}f{8 * self.kind.itemsize}"
        place = self.builder.bitcast(pointer, kind.as_pointer())
        name = f"llvm.masked.store.{suffix}.p0"
        function = self._function(name, VOID, kind, place.type, I32, mask.type)
        self.builder.call(function, [value, place, I32(self.kind.itemsize), mask])

    def load_packed(self, pointer: ir.Value) -> ir.Value:
        """A register of a packed matrix, from memory that is aligned to it."""
        kind = ir.VectorType(self.kind.packed, self.kind.lanes)
        place = self.builder.bitcast(pointer, kind.as_pointer())
        return self.builder.load(place, align=self._alignment(True))

    @property
    def _halves(self) -> ir.VectorType:
        return ir.VectorType(I16, self.kind.lanes)

    def widened(self, half: ir.Value) -> ir.Value:
        """bfloat16 (a register of i16) as float32."""
        b = self.builder
        bits = b.shl(b.zext(half, self.kind.bits), self._integers(16))
        return b.bitcast(bits, self.kind.vector)

    def narrowed(self, value: ir.Value) -> ir.Value:
        """float32 as bfloat16, a register of i16."""
        b, kind = self.builder, self.kind
        if kind.dots and kind.lanes == 16:
            result = ir.VectorType(BFLOAT, 16)
            convert = self._function("llvm.x86.avx512bf16.cvtneps2bf16.512", result, kind.vector)
            return b.bitcast(b.call(convert, [value]), self._halves)
        bits = b.bitcast(value, kind.bits)
        odd = b.and_(b.lshr(bits, self._integers(16)), self._integers(1))
        rounded = b.lshr(b.add(bits, b.add(odd, self._integers(0x7FFF))), self._integers(16))
        quiet = b.or_(b.lshr(bits, self._integers(16)), self._integers(0x40))
        return b.trunc(b.select(self.is_nan(value), quiet, rounded), self._halves)

    def _alignment(self, aligned: bool) -> int:
        return self.kind.itemsize * (self.kind.lanes if aligned else 1)

    # --- arithmetic ------------------------------------------------------------------------------

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a b + c, in one instruction where the processor has it."""
        return self._intrinsic("llvm.fmuladd", a, b, c)

    def multiply(self, a: ir.Value, w: ir.Value, total: ir.Value) -> ir.Value:
        """total + a w, of packed numbers: of pairs of bfloat16 both products are added."""
        b, kind = self.builder, self.kind
        if not kind.narrow:
            return self.fma(a, w, total)
        if kind.dots and kind.lanes == 16:
            pairs = ir.VectorType(BFLOAT, 32)
            dots = self._function(
                "llvm.x86.avx512bf16.dpbf16ps.512", kind.vector, kind.vector, pairs, pairs
            )
            return b.call(dots, [total, b.bitcast(a, pairs), b.bitcast(w, pairs)])
        for part in (self._first, self._second):
            total = self.fma(part(a), part(w), total)
        return total

    def _first(self, pairs: ir.Value) -> ir.Value:
        return self.builder.bitcast(self.builder.shl(pairs, self._integers(16)), self.kind.vector)

    def _second(self, pairs: ir.Value) -> ir.Value:
        high = self.builder.and_(pairs, self._integers(0xFFFF0000))
        return self.builder.bitcast(high, self.kind.vector)

    def add(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """a + b."""
        return self.builder.fadd(a, b)

    def sub(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """a - b."""
        return self.builder.fsub(a, b)

    def mul(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """a b, rounded before anything is added."""
        return self.builder.fmul(a, b)

    def both(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Where two conditions hold."""
        return self.builder.and_(a, b)

    def either(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Where one of two conditions holds."""
        return self.builder.or_(a, b)

    def apply(self, op: str, *operands: ir.Value) -> ir.Value:
        """An operation of a cell's equations."""
        return ON_LANES[op](self, *operands)

    def where(self, condition: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
        """a in the lanes where the condition holds, else b."""
        return self.builder.select(condition, a, b)

    def compare(self, op: str, a: ir.Value, b: ir.Value) -> ir.Value:
        """An ordered comparison: false where one is NaN."""
        return self.builder.fcmp_ordered(op, a, b)

    def is_nan(self, a: ir.Value) -> ir.Value:
        """Where a is no number."""
        return self.builder.fcmp_unordered("uno", a, a)

    def exp(self, x: ir.Value) -> ir.Value:
        """The exponential; NaN stays NaN."""
        b, c = self.builder, _EXP[self.kind.name]
        over = self.compare(">", x, self.number(c.high))
        shifted, small = self._reduced(self._at_most(self._at_least(x, c.low), c.high))
        whole = b.sub(b.bitcast(shifted, self.kind.bits), self._bits(c.magic))
        # 2^n in two factors: n may be one more than the largest exponent
        half = b.ashr(whole, self._integers(1))
        result = b.fmul(b.fmul(small, self._power(half)), self._power(b.sub(whole, half)))
        return self.where(over, self.number(math.inf), result)

    def _exp_inside(self, x: ir.Value) -> ir.Value:
        """The exponential of what is known to be well inside its range, or NaN."""
        b, c = self.builder, _EXP[self.kind.name]
        shifted, small = self._reduced(x)
        # the low bits of the shifted number are n: moved to the exponent's place they multiply by 2^n
        n = b.shl(b.bitcast(shifted, self.kind.bits), self._integers(c.mantissa))
        return b.bitcast(b.add(b.bitcast(small, self.kind.bits), n), self.kind.vector)

    def _reduced(self, x: ir.Value) -> tuple[ir.Value, ir.Value]:
        """n + magic, n = round(x / ln 2); and exp(x - n ln 2)."""
        b, c = self.builder, _EXP[self.kind.name]
        # adding 1.5 * 2^mantissa rounds to the nearest whole number, left in the low bits
        shifted = self.fma(x, self.number(1 / math.log(2)), self.number(c.magic))
        n = b.fsub(shifted, self.number(c.magic))
        r = self.fma(n, self.number(-c.ln2[0]), x)
        r = self.fma(n, self.number(-c.ln2[1]), r)
        small = self.fma(b.fmul(r, r), self._horner(c.poly, r), r)
        return shifted, b.fadd(small, self.number(1.0))

    def _power(self, n: ir.Value) -> ir.Value:
        c = _EXP[self.kind.name]
        exponent = self.builder.add(n, self._integers(c.bias))
        bits = self.builder.shl(exponent, self._integers(c.mantissa))
        return self.builder.bitcast(bits, self.kind.vector)

    def _at_least(self, x: ir.Value, low: float) -> ir.Value:
        """max(x, low); NaN stays NaN."""
        return self.where(self.compare("<", x, self.number(low)), self.number(low), x)

    def _at_most(self, x: ir.Value, high: float) -> ir.Value:
        """min(x, high); NaN stays NaN."""
        return self.where(self.compare(">", x, self.number(high)), self.number(high), x)

    def sigmoid(self, x: ir.Value) -> ir.Value:
        """1 / (1 + exp(-x)); below the smallest normal number it stays there."""
        b, one, edge = self.builder, self.number(1.0), -_EXP[self.kind.name].low
        inside = self._at_most(self._at_least(x, -edge), edge)
        return b.fdiv(one, b.fadd(one, self._exp_inside(b.fneg(inside))))

    def tanh(self, x: ir.Value) -> ir.Value:
        """A rational function; in float64, away from 0, 1 - 2 / (exp(2|x|) + 1)."""
        b = self.builder
        top, bottom, edge = _TANH[self.kind.name]
        if self.kind.name == "float32":
            x = self._at_most(self._at_least(x, -edge), edge)
            square = b.fmul(x, x)
            ratio = b.fdiv(self._horner(top, square), self._horner(bottom, square))
            return b.fmul(x, ratio)
        size, square = self._intrinsic("llvm.fabs", x), b.fmul(x, x)
        ratio = b.fdiv(self._horner(top, square), self._horner(bottom, square))
        near = self.fma(b.fmul(x, square), ratio, x)
        grown = b.fadd(self.exp(b.fadd(size, size)), self.number(1.0))
        far = b.fsub(self.number(1.0), b.fdiv(self.number(2.0), grown))
        far = self._intrinsic("llvm.copysign", far, x)
        return self.where(self.compare("<", size, self.number(edge)), near, far)

    def log(self, x: ir.Value) -> ir.Value:
        """The natural logarithm, by the C library's function for each lane."""
        return self._intrinsic("llvm.log", x)

    def softplus(self, x: ir.Value) -> ir.Value:
        """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|))."""
        b, one = self.builder, self.number(1.0)
        u = self.exp(b.fneg(self._intrinsic("llvm.fabs", x)))
        w = b.fadd(one, u)
        rest = b.fsub(w, one)
        # log1p(u) = log(w) u / (w - 1) is exact to rounding however small u is
        exact = b.fdiv(b.fmul(self.log(w), u), rest)
        tail = self.where(self.compare("==", rest, self.number(0.0)), u, exact)
        return b.fadd(self.relu(x), tail)

    def relu(self, x: ir.Value) -> ir.Value:
        """max(x, 0); NaN stays NaN."""
        zero = self.number(0.0)
        return self.where(self.compare("<", x, zero), zero, x)

    def sqrt(self, x: ir.Value) -> ir.Value:
        """The square root."""
        return self._intrinsic("llvm.sqrt", x)

    def minimum(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """The smaller; NaN if one is."""
        return self._extreme("<", a, b)

    def maximum(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """The larger; NaN if one is."""
        return self._extreme(">", a, b)

    def _extreme(self, op: str, a: ir.Value, b: ir.Value) -> ir.Value:
        first = self.builder.or_(self.compare(op, a, b), self.is_nan(a))
        return self.where(first, a, b)

    def total(self, x: ir.Value) -> ir.Value:
        """The sum of all lanes, a number: halves are added to each other."""
        b, lanes = self.builder, self.kind.lanes
        while lanes > 1:
            lanes //= 2
            upper = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes, 2 * lanes)))
            lower = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes)))
            nothing = ir.Constant(x.type, ir.Undefined)
            halves = (b.shuffle_vector(x, nothing, part) for part in (lower, upper))
            x = b.fadd(*halves)
        return b.extract_element(x, I32(0))

    def _horner(self, coefficients: Sequence[float], x: ir.Value) -> ir.Value:
        value: ir.Value = self.number(coefficients[0])
        for c in coefficients[1:]:
            value = self.fma(value, x, self.number(c))
        return value

    def _bits(self, value: float) -> ir.Value:
        return self.builder.bitcast(self.number(value), self.kind.bits)

    def _integers(self, value: int) -> ir.Constant:
        return ir.Constant(self.kind.bits, [value] * self.kind.lanes)

    def _intrinsic(self, name: str, *args: ir.Value) -> ir.Value:
        kind = self.kind.vector
        suffix = f"v{self.kind.lanes}f{8 * self.kind.itemsize}"
        function = self._function(f"{name}.{suffix}", kind, *[kind] * len(args))
        return self.builder.call(function, args)

    def _function(self, name: str, result: ir.Type, *arguments: ir.Type) -> ir.Function:
        module, kind = self.builder.module, ir.FunctionType(result, arguments)
        return module.globals.get(name) or ir.Function(module, kind, name)


ON_LANES: dict[str, Callable[..., ir.Value]] = {
    "add": lambda v, a, b: v.builder.fadd(a, b),
    "sub": lambda v, a, b: v.builder.fsub(a, b),
    "mul": lambda v, a, b: v.builder.fmul(a, b),
    "div": lambda v, a, b: v.builder.fdiv(a, b),
    "neg": lambda v, a: v.builder.fneg(a),
    "gt": lambda v, a, b: v.compare(">", a, b),
    "lt": lambda v, a, b: v.compare("<", a, b),
    "ge": lambda v, a, b: v.compare(">=", a, b),
    "le": lambda v, a, b: v.compare("<=", a, b),
    "identity": lambda v, a: a,
    "sigmoid": Lanes.sigmoid,
    "tanh": Lanes.tanh,
    "relu": Lanes.relu,
    "exp": Lanes.exp,
    "log": Lanes.log,
    "sqrt": Lanes.sqrt,
    "softplus": Lanes.softplus,
    "minimum": Lanes.minimum,
    "maximum": Lanes.maximum,
    "where": Lanes.where,
    "normal": lambda v, a, mean, inverse: v.mul(v.sub(a, mean), inverse),
}
"""What each operation of a cell's equations is on registers."""
