"""One layer for one step: its products, and its equations on what they give.

States lie one column after another, each column's whole state in one row, and are changed in place: what
the products read of h was converted before.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from gatewise.cells.base import Law
from gatewise.engine.cpu.emit import Forward
from gatewise.engine.cpu.kinds import I64
from gatewise.engine.cpu.layout import Layout, Variant
from gatewise.engine.cpu.step.formats import Format
from gatewise.engine.cpu.step.panels import PLACE, Factor, Panels, Routine, place
from gatewise.engine.cpu.step.tiles import Target


@dataclass(frozen=True)
class LayerKind:
    """What one layer's function is made for.

    Args:
        law: of its cell.
        variant: what is recorded and controlled.
        table: the x part of the pre-activations is looked up for each token, not multiplied.
    """

    law: Law
    variant: Variant
    table: bool = False


def emit_layer(
    module: ir.Module, name: str, kind: LayerKind, form: Format, target: Target
) -> Routine:
    """``void (arguments, step, first, end, x rows, h rows, tokens)``: the panels first to end."""
    extra = [I64, I64, I64, PLACE, PLACE, I64.as_pointer()]
    routine = Routine(module, name, target, extra)
    routine.function.linkage = "internal"
    _Layer(routine, kind, form).emit()
    return routine


class _Layer:
    def __init__(self, routine: Routine, kind: LayerKind, form: Format) -> None:
        self.p, self.kind = routine, kind
        self.layout = Layout(kind.law, kind.variant)
        self.panels = Panels(routine, form)
        self.wide = len(kind.law.pre), len(kind.law.recurrent_blocks)
        self.most = self.panels.most(0 if kind.table else self.wide[0], self.wide[1])
        lanes = routine.target.lanes
        self.xs = routine.room(self.most * self.wide[0] * lanes)
        self.hs = routine.room(self.most * max(1, self.wide[1]) * lanes)

    def emit(self) -> None:
        p, b = self.p, self.p.builder
        self.step, first, end, xs, hs, self.tokens = p.extra
        with p.loop(first, end, "panel") as panel, self.panels.row_blocks(self.most) as block:
            row, count = block
            at = place(p, "weights", b.mul(panel, p.number("panel_bytes")))
            if not self.kind.table:
                factor = Factor(xs, "x")
                at = self.panels.multiply(factor, row, count, self.most, at, self.wide[0], self.xs)
            if self.wide[1]:
                factor = Factor(hs, "h")
                self.panels.multiply(factor, row, count, self.most, at, self.wide[1], self.hs)
            unit = b.mul(panel, I64(p.target.lanes))
            with p.loop(I64(0), count, "row") as r:
                source = _Row(self, b.add(row, r), r, unit)
                states = Forward(p.lanes, self.layout, source).run()
                for name, value in states.items():
                    p.lanes.store(value, source.state(name))
        p.finish()


class _Row:
    """Where the values of one row and one register of units come from, and go to."""

    def __init__(self, layer: _Layer, row: ir.Value, place: ir.Value, unit: ir.Value) -> None:
        self._layer, self._p = layer, layer.p
        self._row, self._place, self._unit = row, place, unit
        self._inputs: dict[tuple[str, str], ir.Value] = {}

    def input(self, kind: str, name: str) -> ir.Value:
        key = (kind, name)
        if key not in self._inputs:
            self._inputs[key] = self._read(kind, name)
        return self._inputs[key]

    def _read(self, kind: str, name: str) -> ir.Value:
        p, lanes = self._p, self._p.lanes
        if kind == "state":
            return lanes.load(self.state(name))
        if kind == "param":
            return lanes.load(p.at(p.pointer(f"param:{name}"), self._unit))
        law = self._layer.kind.law
        recurrent = name in law.recurrent_blocks
        x = self._x_part(law.pre.index(name)) if kind != "pre.h" else None
        if kind == "pre.x" or not recurrent:
            assert x is not None
            return x
        h = self._h_part(law.recurrent_blocks.index(name))
        return h if x is None else p.builder.fadd(x, h)

    def _x_part(self, block: int) -> ir.Value:
        """W x of a block, its bias included."""
        p, b, lanes = self._p, self._p.builder, self._p.lanes
        if self._layer.kind.table:
            token = b.load(b.gep(self._layer.tokens, [self._row]))
            panel = self._unit, I64(self._layer.wide[0])
            place = (token, p.number("table_row")), panel, I64(block * p.target.lanes)
            return lanes.load(p.at(p.pointer("table"), *place))
        bias = lanes.load(p.at(p.pointer("bias_x"), (I64(block), p.number("Hp")), self._unit))
        line = I64(self._layer.wide[0] * p.target.lanes)
        found = p.at(self._layer.xs, (self._place, line), I64(block * p.target.lanes))
        return b.fadd(lanes.load(found), bias)

    def _h_part(self, block: int) -> ir.Value:
        """R h of a block, and its bias where the parts are read apart."""
        p, lanes = self._p, self._p.lanes
        line = I64(self._layer.wide[1] * p.target.lanes)
        found = p.at(self._layer.hs, (self._place, line), I64(block * p.target.lanes))
        h = lanes.load(found)
        if not self._layer.layout.apart:
            return h
        bias = p.at(p.pointer("bias_h"), (I64(block), p.number("Hp")), self._unit)
        return p.builder.fadd(h, lanes.load(bias))

    def state(self, name: str) -> ir.Value:
        """The place of this row and register of a state."""
        p = self._p
        return p.at(p.pointer(f"state:{name}"), (self._row, p.number("row")), self._unit)

    def control(self, name: str) -> tuple[ir.Value, ir.Value]:
        p = self._p
        where = (
            (self._layer.step, p.number(f"control_t:{name}")),
            (self._row, p.number(f"control_b:{name}")),
            self._unit,
        )
        alpha, beta = (p.pointer(f"{side}:{name}") for side in ("alpha", "beta"))
        return p.lanes.load(p.at(alpha, *where)), p.lanes.load(p.at(beta, *where))

    def zoneout(self, state: str) -> ir.Value:
        p = self._p
        return p.lanes.splat(p.builder.load(p.pointer(f"zoneout:{state}")))

    def keep(self, slot: str, value: ir.Value) -> None:
        p = self._p
        at = p.at(
            p.pointer(f"slot:{slot}"),
            (self._layer.step, p.number("slot_t")),
            (self._row, p.number("Hp")),
            self._unit,
        )
        p.lanes.store(value, at)

    def kept(self, slot: str) -> ir.Value:
        raise AssertionError(f"no backward pass reads {slot}")
