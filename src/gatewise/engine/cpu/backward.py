"""The backward kernel: over time the other way, panels of units and rows of the batch."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from gatewise.cells.equations import Expr
from gatewise.engine.cpu.emit import BackwardPass
from gatewise.engine.cpu.kinds import I64, Kind
from gatewise.engine.cpu.layout import Layout
from gatewise.engine.cpu.program import BACKWARD_WIDE, Program
from gatewise.engine.cpu.rows import Loops, Row, inside


class _BackwardRow(Row):
    def __init__(
        self,
        kernel: Loops,
        t: ir.Value,
        row: ir.Value,
        unit: ir.Value,
        incoming: dict[str, ir.Value],
    ) -> None:
        super().__init__(kernel, t, row, unit)
        self._incoming = incoming

    def _read(self, kind: str, name: str) -> ir.Value:
        return self._incoming[name] if kind == "grad" else super()._read(kind, name)


def emit_backward(module: ir.Module, layout: Layout, kind: Kind) -> Program:
    """The backward kernel of a layout."""
    k = Loops(module, layout, kind, "backward", BACKWARD_WIDE)
    return k.over_time(
        lambda s, t, panel, first, rows: _backward_block(k, s, t, panel, first, rows)
    )


def _backward_block(
    k: Loops, s: ir.Value, t: ir.Value, panel: ir.Value, first: ir.Value, rows: ir.Value
) -> None:
    p, b, lanes = k.p, k.p.builder, k.kind.lanes
    line_size = k.wide * lanes
    depth = p.number("depth")
    if k.layout.law.recurrent_blocks:
        with b.if_else(b.icmp_signed("==", s, I64(0))) as (start, later):
            with start, p.loop(I64(0), rows, "clear") as r:
                for v in range(k.wide):
                    p.lanes.store(
                        p.lanes.number(0.0), p.at(k.scratch, (r, I64(line_size)), I64(v * lanes))
                    )
            with later:
                packed = p.pointer("weights", k.kind.packed)
                w = p.at(packed, (b.mul(panel, depth), I64(line_size)))
                rows_at = b.mul(b.sub(t, p.number("dir")), p.number("B"))
                a = p.at(p.pointer("dh"), (b.add(rows_at, first), p.number("dh_row")))
                k.product(rows, a, depth, w, depth)
    with p.loop(I64(0), I64(k.wide), "vector") as v:
        unit = b.add(b.mul(panel, I64(line_size)), b.mul(v, I64(lanes)))
        here = b.icmp_signed("<", unit, p.number("Hp"))
        with b.if_then(here), p.loop(I64(0), rows, "row") as r:
            line = p.at(k.scratch, (r, I64(line_size)), (v, I64(lanes)))
            _backward_row(k, t, b.add(first, r), unit, line)


def _backward_row(k: Loops, t: ir.Value, row: ir.Value, unit: ir.Value, line: ir.Value) -> None:
    p, b, lanes, variant = k.p, k.p.builder, k.p.lanes, k.layout.variant
    zero = lanes.number(0.0)
    valid = k.flag("valid", t, row) if variant.ragged else None
    cut = k.flag("cut", t, row) if variant.cut else None
    carried, incoming = {}, {}
    for name in k.layout.law.states:
        place = p.at(p.pointer(f"d:{name}"), (row, p.number("Hp")), unit)
        value = lanes.load(place)
        if name == "h" and k.layout.law.recurrent_blocks:
            value = b.fadd(value, lanes.load(line))
        if cut is not None:  # what came after began anew
            value = lanes.where(cut, zero, value)
        carried[name] = (place, value)
        incoming[name] = value
    source = _BackwardRow(k, t, row, unit, incoming)
    shown = lanes.load(source.array("d_output"))
    incoming["h"] = b.fadd(incoming["h"], shown)
    step = BackwardPass(lanes, k.layout, source)
    filled = inside(k, unit)

    def store(value: ir.Value | None, at: ir.Value) -> None:
        value = zero if value is None else value
        if valid is not None:
            value = lanes.where(valid, value, zero)
        lanes.store(lanes.where(filled, value, zero), at)

    _store_input_gradients(k, source, step, store)
    for name in k.layout.law.params:
        found = step.total(_gradient(k.layout, "param", name))
        if found is not None:
            place = p.at(p.pointer(f"d_param:{name}"), unit)
            found = found if valid is None else lanes.where(valid, found, zero)
            lanes.store(b.fadd(lanes.load(place), found), place)
    for name, (place, value) in carried.items():
        found = step.total(_gradient(k.layout, "state", name))
        found = zero if found is None else found
        lanes.store(found if valid is None else lanes.where(valid, found, value), place)


def _gradient(layout: Layout, kind: str, name: str) -> tuple[Expr, ...]:
    found = layout.backward.gradients.get((kind, name))
    return () if found is None else (found,)


def _store_input_gradients(
    k: Loops,
    row: Row,
    step: BackwardPass[ir.Value],
    store: Callable[[ir.Value | None, ir.Value], None],
) -> None:
    law = k.layout.law
    for index, block in enumerate(law.recurrent_blocks):
        value = step.total(k.layout.input_gradient("h", block))
        store(value, row.blocks("dh", index, "dh_row"))
    if k.layout.apart or law.recurrent_blocks != law.pre:
        for index, block in enumerate(law.pre):
            value = step.total(k.layout.input_gradient("x", block))
            store(value, row.blocks("dx", index, "xs_row"))
