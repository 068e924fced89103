"""From float32 vectors to activation rows. Knows one vector; see `formats` for how a row lies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from llvmlite import ir

from gatewise.engine.cpu.kinds import I8, I32, I64, VOID
from gatewise.engine.cpu.lanes import Lanes
from gatewise.engine.cpu.step.formats import GROUP, Format
from gatewise.engine.cpu.step.tiles import I16, PLACE, Target

_OFFSET = {"int8": 128, "int4": 8}
_MAGIC = 12582912.0  # 1.5 * 2^23: adding it rounds to the nearest whole number


def conversion(module: ir.Module, form: Format, target: Target) -> ir.Function:
    """``void (source, k, depth, header, row)``: k numbers as one row of `depth` numbers."""
    name = f"convert_{form.name}"
    if name not in module.globals:
        place = target.kind.scalar.as_pointer()
        signature = ir.FunctionType(VOID, [place, I64, I64, I64, PLACE])
        function = ir.Function(module, signature, name)
        function.linkage = "internal"
        _Conversion(function, form, target).emit()
    return module.globals[name]


class _Conversion:
    """The function under construction."""

    def __init__(self, function: ir.Function, form: Format, target: Target) -> None:
        self.function, self.form, self.target = function, form, target
        self.source, self.k, self.depth, self.header, self.row = function.args
        self.b = ir.IRBuilder(function.append_basic_block("entry"))
        self.lanes = Lanes(self.b, target.kind)
        self.integers = ir.VectorType(I32, target.lanes)

    def emit(self) -> None:
        if self.form.bits < 16:
            self._whole()
        else:
            with self._loop(self.depth) as i:
                self._real(i)
        self.b.ret_void()

    @contextmanager
    def _loop(self, end: ir.Value, first: ir.Value | None = None) -> Iterator[ir.Value]:
        """Registers from first to end, at least one."""
        b, head = self.b, self.function.append_basic_block("register")
        done = self.function.append_basic_block("done")
        before = b.block
        b.branch(head)
        b.position_at_end(head)
        index = b.phi(I64)
        index.add_incoming(I64(0) if first is None else first, before)
        yield index
        following = b.add(index, I64(self.target.lanes))
        index.add_incoming(following, b.block)
        b.cbranch(b.icmp_signed("<", following, end), head, done)
        b.position_at_end(done)

    def _read(self, i: ir.Value) -> ir.Value:
        """The numbers from i on; 0 after the end."""
        b, n = self.b, self.target.lanes
        places = ir.Constant(self.integers, list(range(n)))
        inside = b.icmp_signed(
            "<",
            b.add(places, self.lanes.splat(b.trunc(i, I32))),
            self.lanes.splat(b.trunc(self.k, I32)),
        )
        real, module = self.lanes.kind.vector, self.function.module
        name = f"llvm.masked.load.v{n}f32.p0"
        at = b.bitcast(b.gep(self.source, [i]), real.as_pointer())
        signature = ir.FunctionType(real, [real.as_pointer(), I32, inside.type, real])
        function = module.globals.get(name) or ir.Function(module, signature, name)
        return b.call(function, [at, I32(4), inside, self.lanes.number(0.0)])

    def _write(self, value: ir.Value, offset: ir.Value) -> None:
        at = self.b.gep(self.row, [self.b.add(self.header, offset)])
        self.b.store(value, self.b.bitcast(at, value.type.as_pointer()), align=1)

    def _real(self, i: ir.Value) -> None:
        b, value = self.b, self._read(i)
        if self.form.name == "float32":
            self._write(value, b.mul(i, I64(4)))
            return
        bits = b.bitcast(value, self.integers)
        sixteen, one = self._number(16), self._number(1)
        even = b.and_(b.lshr(bits, sixteen), one)  # a tie goes to the even one
        rounded = b.lshr(b.add(bits, b.add(even, self._number(0x7FFF))), sixteen)
        chosen = b.select(self.lanes.is_nan(value), self._number(0x7FC0), rounded)
        self._write(b.trunc(chosen, ir.VectorType(I16, self.target.lanes)), b.mul(i, I64(2)))

    def _whole(self) -> None:
        """Scale by the largest, round, and note the sums that take the weights' offset away."""
        b, lanes = self.b, self.lanes
        largest = b.alloca(lanes.kind.vector)
        trouble = b.alloca(lanes.kind.vector)
        for place in (largest, trouble):
            b.store(lanes.number(0.0), place)
        with self._loop(self.depth) as i:
            value = self._read(i)
            size = lanes._intrinsic("llvm.fabs", value)
            b.store(lanes.maximum(b.load(largest), size), largest)
            # NaN and infinity times 0 are NaN: they must not vanish in a whole number
            b.store(b.fadd(b.load(trouble), b.fmul(value, lanes.number(0.0))), trouble)
        top = self._reduce("fmax", b.load(largest))
        broken = self._reduce("fadd", b.load(trouble))
        real = lanes.kind.scalar
        scale = b.fadd(b.fdiv(top, real(127.0)), broken)
        self._head(scale, I64(0))
        positive = b.fcmp_ordered(">", top, real(1e-30))  # below, its inverse is infinite
        factor = b.select(positive, b.fdiv(real(127.0), top), real(0.0))
        self._numbers(lanes.splat(factor))

    def _numbers(self, factor: ir.Value) -> None:
        b, grouped = self.b, self.form.name == "int4"
        sums = b.alloca(self.integers)
        if not grouped:
            b.store(ir.Constant(self.integers, None), sums)
            with self._loop(self.depth) as i:
                self._round(i, factor, sums)
            self._total(sums, I64(4))
            return
        head = self.function.append_basic_block("group")
        done = self.function.append_basic_block("grouped")
        before = b.block
        b.branch(head)
        b.position_at_end(head)
        first = b.phi(I64)
        first.add_incoming(I64(0), before)
        b.store(ir.Constant(self.integers, None), sums)
        end = b.add(first, I64(GROUP))
        with self._loop(end, first) as i:
            self._round(i, factor, sums)
        self._total(sums, b.add(I64(64), b.mul(b.udiv(first, I64(GROUP)), I64(4))))
        first.add_incoming(end, b.block)
        b.cbranch(b.icmp_signed("<", end, self.depth), head, done)
        b.position_at_end(done)

    def _round(self, i: ir.Value, factor: ir.Value, sums: ir.Value) -> None:
        b, lanes = self.b, self.lanes
        scaled = b.fadd(b.fmul(self._read(i), factor), lanes.number(_MAGIC))
        whole = b.sub(
            b.bitcast(scaled, self.integers), b.bitcast(lanes.number(_MAGIC), self.integers)
        )
        b.store(b.add(b.load(sums), whole), sums)
        self._write(b.trunc(whole, ir.VectorType(I8, self.target.lanes)), i)

    def _total(self, sums: ir.Value, offset: ir.Value) -> None:
        total = self._reduce("add", self.b.load(sums))
        self._head(self.b.mul(total, I32(-_OFFSET[self.form.name])), offset)

    def _head(self, value: ir.Value, offset: ir.Value) -> None:
        at = self.b.gep(self.row, [offset])
        self.b.store(value, self.b.bitcast(at, value.type.as_pointer()), align=4)

    def _number(self, value: int) -> ir.Constant:
        return ir.Constant(self.integers, [value] * self.target.lanes)

    def _reduce(self, name: str, value: ir.Value) -> ir.Value:
        """One number of a register; sums of reals in the order of the lanes."""
        module, kind = self.function.module, value.type
        suffix = f"v{self.target.lanes}{'i32' if name == 'add' else 'f32'}"
        full, scalar = f"llvm.vector.reduce.{name}.{suffix}", kind.element
        kinds = [scalar, kind] if name == "fadd" else [kind]
        function = module.globals.get(full) or ir.Function(
            module, ir.FunctionType(scalar, kinds), full
        )
        start = [scalar(0.0)] if name == "fadd" else []
        return self.b.call(function, [*start, value])
