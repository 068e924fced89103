"""The loops over panels and rows that a layer, a projection and the decoder share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from llvmlite import ir

from gatewise.engine.cpu.kinds import I8, I64
from gatewise.engine.cpu.program import Program
from gatewise.engine.cpu.step.formats import Format, passes
from gatewise.engine.cpu.step.products import most_rows, product
from gatewise.engine.cpu.step.tiles import PLACE, Target


class Routine(Program):
    """A function that a kernel calls: ``void (int64 *arguments, ...)``."""

    def __init__(
        self, module: ir.Module, name: str, target: Target, extra: Sequence[ir.Type] = ()
    ) -> None:
        super().__init__(module, name, target.kind, extra=extra)
        self.target = target
        self.extra: tuple[ir.Value, ...] = tuple(self.function.args[1:])

    def room(self, numbers: int) -> ir.Value:
        """Memory of its own, made once."""
        with self.builder.goto_entry_block():
            place = self.builder.alloca(self.kind.scalar, I64(numbers))
            place.align = 64
        return place


@dataclass(frozen=True)
class Factor:
    """Activation rows: names of the arguments that say how they lie.

    Args:
        rows: where the first begins.
        name: of the arguments ``turns:name``, ``header:name``, ``bytes:name``.
    """

    rows: ir.Value
    name: str


class Panels:
    """Products of activation rows with panels inside one routine."""

    def __init__(self, routine: Routine, form: Format) -> None:
        self.p, self.form = routine, form

    def most(self, *blocks: int) -> int:
        """Rows at once, for weights of so many blocks."""
        counts = [v for b in blocks for v in passes(b)] if any(blocks) else [4]
        return min(most_rows(self.form, v) for v in counts)

    @contextmanager
    def row_blocks(self, most: int) -> Iterator[tuple[ir.Value, ir.Value]]:
        """Rows in blocks of nearly equal size, `most` at most: first and count."""
        p, b = self.p, self.p.builder
        batch = p.number("B")
        count = b.sdiv(b.add(batch, I64(most - 1)), I64(most))
        with p.loop(I64(0), count, "rows") as i:
            first = b.sdiv(b.mul(batch, i), count)
            end = b.sdiv(b.mul(batch, b.add(i, I64(1))), count)
            yield first, b.sub(end, first)

    def multiply(
        self,
        factor: Factor,
        first: ir.Value,
        count: ir.Value,
        most: int,
        panel: ir.Value,
        blocks: int,
        out: ir.Value,
    ) -> ir.Value:
        """out <- `count` rows from `first` on times all passes of a panel; what follows the panel."""
        p, b, lanes = self.p, self.p.builder, self.p.target.lanes
        stride = p.number(f"bytes:{factor.name}")
        a = b.gep(factor.rows, [b.mul(first, stride)])
        done = 0
        for number, vectors in enumerate(passes(blocks)):
            at = b.gep(out, [I64(done * lanes)])
            end = p.function.append_basic_block("multiplied")
            choice = b.switch(count, end)
            for rows in range(1, most + 1):
                block = p.function.append_basic_block(f"rows{rows}")
                choice.add_case(I64(rows), block)
                b.position_at_end(block)
                function = product(p.module, self.form, p.target, rows, vectors, blocks * lanes)
                turns, header = p.number(f"turns:{factor.name}"), p.number(f"header:{factor.name}")
                b.call(function, [a, stride, panel, turns, header, at])
                b.branch(end)
            b.position_at_end(end)
            done += vectors
            panel = b.gep(panel, [p.number(f"pass{number}:{factor.name}")])
        return panel


def place(p: Program, name: str, *offsets: ir.Value) -> ir.Value:
    """A place in bytes."""
    at = p.pointer(name, I8)
    for offset in offsets:
        at = p.builder.gep(at, [offset])
    return at


__all__ = ["PLACE", "Factor", "Panels", "Routine", "place"]
