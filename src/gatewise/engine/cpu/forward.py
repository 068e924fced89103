"""The forward kernel: over time, panels of units and rows of the batch."""

from __future__ import annotations

from collections.abc import Mapping

from llvmlite import ir

from gatewise.engine.cpu.emit import Forward
from gatewise.engine.cpu.kinds import I64, Kind
from gatewise.engine.cpu.layout import Layout
from gatewise.engine.cpu.program import Program
from gatewise.engine.cpu.rows import Loops, Row, inside


class ForwardRow(Row):
    """Sources of the forward pass; `line`: where R h of the row is, None after the first stage."""

    def __init__(
        self,
        kernel: Loops,
        t: ir.Value,
        row: ir.Value,
        unit: ir.Value,
        line: ir.Value | None,
        width: str = "H",
    ) -> None:
        super().__init__(kernel, t, row, unit, width)
        self._line = line

    def _read(self, kind: str, name: str) -> ir.Value:
        if not kind.startswith("pre"):
            return super()._read(kind, name)
        law, lanes = self._k.layout.law, self._k.p.lanes
        recurrent = name in law.recurrent_blocks
        x = (
            lanes.load(self.blocks("xs", law.pre.index(name), "xs_row"))
            if kind != "pre.h"
            else None
        )
        if kind == "pre.x" or not recurrent:
            assert x is not None
            return x
        h = self._hidden(law.recurrent_blocks.index(name))
        return h if x is None else lanes.builder.fadd(x, h)

    def _hidden(self, block: int) -> ir.Value:
        """R h of a block, and its bias where the parts are read apart."""
        k, p = self._k, self._k.p
        assert self._line is not None
        h = p.lanes.load(p.at(self._line, I64(block * k.kind.lanes)))
        if not k.layout.apart:
            return h
        bias = p.at(p.pointer("bias_h"), (I64(block), p.number("Hp")), self.unit)
        return p.builder.fadd(h, p.lanes.load(bias))


def emit_forward(module: ir.Module, layout: Layout, kind: Kind) -> Program:
    """The forward kernel of a layout."""
    count = len(layout.law.recurrent_blocks)
    k = Loops(module, layout, kind, "forward", count)
    return k.over_time(lambda s, t, panel, first, rows: _forward_block(k, t, panel, first, rows))


def multiply(k: Loops, t: ir.Value, panel: ir.Value, first: ir.Value, rows: ir.Value) -> None:
    """R h of a panel and some rows, to the scratch."""
    p, b, count = k.p, k.p.builder, k.wide
    depth = p.number("depth")
    if count:
        packed = p.pointer("weights", k.kind.packed)
        w = p.at(packed, (b.mul(panel, depth), I64(count * k.kind.lanes)))
        operand = f"before:{'operand' if k.layout.operand else k.layout.hidden}"
        width = k.layout.width(operand)
        row = p.number(f"{width}p")
        a = p.at(p.pointer(operand), (t, p.number(f"step:{width}")), (first, row))
        k.product(rows, a, p.number("lda"), w, depth, count)


def _forward_block(k: Loops, t: ir.Value, panel: ir.Value, first: ir.Value, rows: ir.Value) -> None:
    p, b, count = k.p, k.p.builder, k.wide
    unit = b.mul(panel, I64(k.kind.lanes))
    multiply(k, t, panel, first, rows)
    with p.loop(I64(0), rows, "row") as r:
        line = p.at(k.scratch, (r, I64(count * k.kind.lanes)))
        row = ForwardRow(k, t, b.add(first, r), unit, line)
        states = Forward(p.lanes, k.layout, row).run()
        store_states(k, row, states)


def store_states(k: Loops, row: Row, states: Mapping[str, ir.Value]) -> None:
    """The states after the step, as the next step reads them, and the output."""
    layout, variant, lanes = k.layout, k.layout.variant, k.p.lanes
    hidden = layout.hidden
    zero = lanes.number(0.0)
    if not states:
        return
    # where pairs are multiplied, what follows an odd h is read too, and times 0 it must be 0
    odd = variant.narrow and layout.law.recurrent_blocks
    filled = inside(k, row.unit, row.width) if odd else None
    valid = k.flag("valid", row.t, row.row) if variant.ragged else None
    cut = k.flag("cut", row.t, row.row) if variant.cut else None
    for name, value in states.items():
        if name == hidden and filled is not None:
            value = lanes.where(filled, value, zero)
        if name == hidden and layout.output:
            shown = value if valid is None else lanes.where(valid, value, zero)
            lanes.store(shown, row.array("output"))
        if valid is not None:
            value = lanes.where(valid, value, row.input("state", name))
        if cut is not None:
            start = lanes.load(k.p.at(k.p.pointer(f"start:{name}"), row.unit))
            value = lanes.where(cut, start, value)
        lanes.store(value, row.array(f"after:{name}"))
        if name == hidden and layout.operand:
            lanes.store(value, row.array("after:operand"))
