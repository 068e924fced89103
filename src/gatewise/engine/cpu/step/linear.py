"""A product of the last layer's rows with a matrix, and what is done to the result: decoder, projection."""

from __future__ import annotations

from llvmlite import ir

from gatewise.engine.cpu.kinds import I32, I64
from gatewise.engine.cpu.lanes import ON_LANES
from gatewise.engine.cpu.step.formats import Format
from gatewise.engine.cpu.step.panels import PLACE, Factor, Panels, Routine, place
from gatewise.engine.cpu.step.tiles import Target

WIDE = 4
"""Registers of outputs in a panel."""


def emit_linear(
    module: ir.Module, name: str, form: Format, target: Target, activation: str, outside: float
) -> Routine:
    """``void (arguments, first, end, rows, out)``: out (B, row) = activation(W rows + bias).

    Args:
        module: where the function is added.
        name: of the function.
        form: of the weights.
        target: the processor.
        activation: "linear", or an operation on registers.
        outside: what stands after the last output.
    """
    routine = Routine(module, name, target, [I64, I64, PLACE, target.kind.scalar.as_pointer()])
    routine.function.linkage = "internal"
    p, b, lanes = routine, routine.builder, target.lanes
    panels = Panels(p, form)
    most = panels.most(WIDE)
    scratch = p.room(most * WIDE * lanes)
    first, end, rows, out = p.extra
    with p.loop(first, end, "panel") as panel, panels.row_blocks(most) as (row, count):
        at = place(p, "weights", b.mul(panel, p.number("panel_bytes")))
        panels.multiply(Factor(rows, "x"), row, count, most, at, WIDE, scratch)
        with p.loop(I64(0), count, "row") as r:
            for v in range(WIDE):
                unit = b.add(b.mul(panel, I64(WIDE * lanes)), I64(v * lanes))
                value = p.lanes.load(p.at(scratch, (r, I64(WIDE * lanes)), I64(v * lanes)))
                value = b.fadd(value, p.lanes.load(p.at(p.pointer("bias"), unit)))
                if activation != "linear":
                    value = ON_LANES[activation](p.lanes, value)
                value = _inside(p, unit, value, outside)
                p.lanes.store(value, p.at(out, (b.add(row, r), p.number("row")), unit))
    p.finish()
    return routine


def _inside(p: Routine, unit: ir.Value, value: ir.Value, outside: float) -> ir.Value:
    """`value` up to the number of outputs, then `outside`."""
    b, integers = p.builder, ir.VectorType(I32, p.target.lanes)
    places = ir.Constant(integers, list(range(p.target.lanes)))
    numbers = b.add(places, p.lanes.splat(b.trunc(unit, I32)))
    inside = b.icmp_signed("<", numbers, p.lanes.splat(b.trunc(p.number("outputs"), I32)))
    return p.lanes.where(inside, value, p.lanes.number(outside))
