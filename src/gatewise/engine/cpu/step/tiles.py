"""What the products of all kinds of numbers are made of: the processor, and a function under construction.

Knows registers and lines of memory; no kind of numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from llvmlite import ir

from gatewise.engine.cpu.kinds import I8, I32, I64, VOID, Kind
from gatewise.engine.cpu.lanes import Lanes
from gatewise.engine.cpu.step.formats import Format

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


class Product:
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
