"""The loops around the equations that both passes share: rows in blocks, products, where a row's values are.

A panel is a register of units with all its gates; its weights lie packed one panel after another, so that the
matrix product of a few rows with a panel ends with all gates of a unit in registers, and the
equations run on them at once. Time runs either way: every array has a stride.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from llvmlite import ir

from gatewise.engine.cpu.kinds import I1, I8, I64, Kind
from gatewise.engine.cpu.layout import Layout
from gatewise.engine.cpu.program import BETWEEN_WIDE, Program, heights, passes, rows_of, tile

Body: TypeAlias = Callable[[ir.Value, ir.Value, ir.Value, ir.Value, ir.Value], None]
"""(s-th step to be run, its time, panel, first row, number of rows)."""


class Loops:
    """What the forward and the backward kernel share."""

    def __init__(self, module: ir.Module, layout: Layout, kind: Kind, name: str, wide: int) -> None:
        self.p = Program(module, name, kind, layout.is_narrow)
        self.layout = layout
        self.kind = kind
        self.wide = wide
        """Registers of a row in a panel."""
        self.rows = rows_of(wide, kind)
        """Rows at once."""
        size = (
            max(max(1, wide) * self.rows, BETWEEN_WIDE * rows_of(BETWEEN_WIDE, kind)) * kind.lanes
        )
        self.scratch = self.p.builder.alloca(kind.scalar, I64(size), name="scratch")
        self.scratch.align = kind.lanes * kind.itemsize

    def over_time(self, body: Body) -> Program:
        """The whole kernel: at each step this thread's share of panels times blocks of rows.

        A panel stays with one thread where gradients of parameters are summed over its rows.
        """
        p, b = self.p, self.p.builder
        batch = p.number("B")
        blocks = b.sdiv(b.add(batch, I64(self.rows - 1)), I64(self.rows))
        panels = p.number("panels")
        if self.layout.law.params:
            first, end, threads = p.share(panels)
            first, end = b.mul(first, blocks), b.mul(end, blocks)
        else:
            first, end, threads = p.share(b.mul(panels, blocks))
        with p.loop(I64(0), p.number("T"), "s") as s:
            t = b.add(p.number("t0"), b.mul(s, p.number("dir")))
            with p.loop(first, end, "part") as part:
                panel = b.sdiv(part, blocks)
                i = b.sub(part, b.mul(panel, blocks))
                row = b.sdiv(b.mul(batch, i), blocks)
                last = b.sdiv(b.mul(batch, b.add(i, I64(1))), blocks)
                body(s, t, panel, row, b.sub(last, row))
            p.barrier(b.mul(threads, b.add(s, I64(1))))
        p.finish()
        return p

    def over_lines(
        self,
        panel: ir.Value,
        first: ir.Value,
        rows: ir.Value,
        body: Callable[[ir.Value, ir.Value, ir.Value], None],
        width: str,
        wide: int,
    ) -> None:
        """body(row, unit, where its product is) for all rows and units of a panel of `wide` registers."""
        p, b, lanes = self.p, self.p.builder, self.kind.lanes
        size = wide * lanes
        with p.loop(I64(0), I64(wide), "vector") as v:
            unit = b.add(b.mul(panel, I64(size)), b.mul(v, I64(lanes)))
            here = b.icmp_signed("<", unit, p.number(f"{width}p"))
            with b.if_then(here), p.loop(I64(0), rows, "row") as r:
                line = p.at(self.scratch, (r, I64(size)), (v, I64(lanes)))
                body(b.add(first, r), unit, line)

    def param_place(self, unit: ir.Value) -> tuple[ir.Value, ...]:
        """Where the gradient of a parameter is summed."""
        return (unit,)

    def product(
        self,
        count: ir.Value,
        a: ir.Value,
        lda: ir.Value,
        w: ir.Value,
        depth: ir.Value,
        wide: int,
    ) -> None:
        """scratch <- the rows a times the panel w of `wide` registers; `lda` and `depth` in packed numbers."""
        p, b, done = self.p, self.p.builder, 0
        a = b.bitcast(a, self.kind.packed.as_pointer())
        for vectors in passes(wide, self.kind):
            at = b.gep(w, [b.mul(depth, I64(done * self.kind.lanes))])
            out = b.gep(self.scratch, [I64(done * self.kind.lanes)])
            end = p.function.append_basic_block("multiplied")
            choice = b.switch(count, end)
            done_rows = 0
            for rows in heights(rows_of(wide, self.kind)):
                block = p.function.append_basic_block(f"rows{rows}")
                for fewer in range(done_rows + 1, rows + 1):
                    choice.add_case(I64(fewer), block)
                done_rows = rows
                b.position_at_end(block)
                function = tile(p.module, self.kind, rows, vectors, wide * self.kind.lanes)
                b.call(function, [a, lda, count, at, depth, out])
                b.branch(end)
            b.position_at_end(end)
            done += vectors

    def flag(self, name: str, t: ir.Value, row: ir.Value) -> ir.Value:
        """A byte of a (T, B) array, as a condition for all lanes."""
        p, b = self.p, self.p.builder
        byte = b.load(p.at(p.pointer(name, I8), (t, p.number("B")), row))
        return p.lanes.splat(b.icmp_unsigned("!=", byte, I8(0)))


def inside(k: Loops, unit: ir.Value, width: str) -> ir.Value:
    """The lanes that are units of a width, not padding."""
    p, b = k.p, k.p.builder
    kind = ir.VectorType(I64, k.kind.lanes)
    counting = ir.Constant(kind, list(range(k.kind.lanes)))
    return b.icmp_signed("<", b.add(p.lanes.splat(unit), counting), p.lanes.splat(p.number(width)))


class Row:
    """Sources for one row and one register of units of a width, common to both directions of the pass."""

    def __init__(
        self, kernel: Loops, t: ir.Value, row: ir.Value, unit: ir.Value, width: str = "H"
    ) -> None:
        self._k, self.t, self.row, self.unit, self.width = kernel, t, row, unit, width
        self._inputs: dict[tuple[str, str], ir.Value] = {}

    def array(self, name: str, kind: ir.Type | None = None) -> ir.Value:
        """The place of this row and register in an array (T, B, units of the width, padded)."""
        p, w = self._k.p, self.width
        step = p.number(f"{'once' if name[:3] == 'op:' else 'step'}:{w}")
        return p.at(p.pointer(name, kind), (self.t, step), (self.row, p.number(f"{w}p")), self.unit)

    def blocks(self, name: str, index: int, count: str) -> ir.Value:
        """The place in block `index` of a (T, B, blocks, Hp) array."""
        p, b = self._k.p, self._k.p.builder
        rows = b.add(b.mul(self.t, p.number("B")), self.row)
        return p.at(
            p.pointer(name), (rows, p.number(count)), (I64(index), p.number("Hp")), self.unit
        )

    def input(self, kind: str, name: str) -> ir.Value:
        key = (kind, name)
        if key not in self._inputs:
            self._inputs[key] = self._read(kind, name)
        return self._inputs[key]

    def _read(self, kind: str, name: str) -> ir.Value:
        lanes, p = self._k.p.lanes, self._k.p
        if kind == "state":
            return lanes.load(self.array(f"before:{name}"))
        if kind == "param":
            return lanes.load(p.at(p.pointer(f"param:{name}"), self.unit))
        raise AssertionError(f"{kind}.{name}")

    def control(self, name: str) -> tuple[ir.Value, ir.Value]:
        p = self._k.p
        where = (
            (self.t, p.number(f"control_t:{name}")),
            (self.row, p.number(f"control_b:{name}")),
            self.unit,
        )
        alpha, beta = (p.pointer(f"{side}:{name}") for side in ("alpha", "beta"))
        return p.lanes.load(p.at(alpha, *where)), p.lanes.load(p.at(beta, *where))

    def zoneout(self, state: str) -> ir.Value:
        p, lanes = self._k.p, self._k.p.lanes
        if self._k.layout.zoneout[state] == "share":
            return lanes.splat(p.builder.load(p.pointer(f"zoneout:{state}")))
        place = self.array(f"zoneout:{state}", I8)
        kind = ir.VectorType(I8, self._k.kind.lanes)
        found = p.builder.load(p.builder.bitcast(place, kind.as_pointer()), align=1)
        return p.builder.trunc(found, ir.VectorType(I1, self._k.kind.lanes))

    def kept(self, slot: str) -> ir.Value:
        lanes, p = self._k.p.lanes, self._k.p
        if slot[:2] == "m:":
            place = p.at(p.pointer(slot), (self.t, p.number("B")), self.row)
            return lanes.splat(p.builder.load(place))
        if self._k.layout.is_state(slot):
            return lanes.load(self.array(f"after:{slot[2:]}"))
        return lanes.load(self.array(slot))

    def keep(self, slot: str, value: ir.Value) -> None:
        if slot[:3] == "op:" and self._k.kind.narrow:  # what follows an odd number is read with it
            lanes = self._k.p.lanes
            value = lanes.where(inside(self._k, self.unit, self.width), value, lanes.number(0.0))
        self._k.p.lanes.store(value, self.array(slot))
