"""The backward kernel: over time the other way, panels of units and rows of the batch."""

from __future__ import annotations

from collections.abc import Mapping

from llvmlite import ir

from gatewise.cells.equations import Expr
from gatewise.engine.cpu.emit import BackwardPass
from gatewise.engine.cpu.kinds import I64, Kind
from gatewise.engine.cpu.layout import Layout
from gatewise.engine.cpu.program import BACKWARD_WIDE, Program
from gatewise.engine.cpu.rows import Loops, Row, inside


class BackwardRow(Row):
    """Sources of the backward pass; `carried`: the gradients of the next states that came back."""

    def __init__(
        self,
        kernel: Loops,
        t: ir.Value,
        row: ir.Value,
        unit: ir.Value,
        carried: Mapping[str, tuple[ir.Value, ir.Value]],
        width: str = "H",
    ) -> None:
        super().__init__(kernel, t, row, unit, width)
        self._incoming = {name: value for name, (_, value) in carried.items()}
        hidden = kernel.layout.hidden
        if hidden in carried:
            shown = kernel.p.lanes.load(self.array("d_output"))
            self._incoming[hidden] = kernel.p.builder.fadd(self._incoming[hidden], shown)

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
    multiply(k, s, t, panel, first, rows)

    def one(row: ir.Value, unit: ir.Value, line: ir.Value) -> None:
        _backward_row(k, t, row, unit, line)

    k.over_lines(panel, first, rows, one, "H", k.wide)


def multiply(
    k: Loops, s: ir.Value, t: ir.Value, panel: ir.Value, first: ir.Value, rows: ir.Value
) -> None:
    """R^T times the gradients of the step after, of a panel and some rows, to the scratch."""
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
                k.product(rows, a, depth, w, depth, k.wide)


def _backward_row(k: Loops, t: ir.Value, row: ir.Value, unit: ir.Value, line: ir.Value) -> None:
    carried = carried_gradients(k, t, row, unit, line)
    source = BackwardRow(k, t, row, unit, carried)
    stores = BackwardStores(k, source, BackwardPass(k.p.lanes, k.layout, source))
    stores.inputs()
    stores.params()
    stores.states(carried)


def carried_gradients(
    k: Loops,
    t: ir.Value,
    row: ir.Value,
    unit: ir.Value,
    line: ir.Value | None,
    width: str = "H",
    fresh: bool = True,
) -> dict[str, tuple[ir.Value, ir.Value]]:
    """State of a width -> where its gradient is carried, and that of its value after this step.

    `line` is where R^T times the later gradients is; None: nowhere. Not `fresh`: all has been added already.
    """
    p, b, lanes = k.p, k.p.builder, k.p.lanes
    cut = k.flag("cut", t, row) if k.layout.variant.cut and fresh else None
    carried = {}
    for name in k.layout.law.states:
        if k.layout.widths.state(name) != width:
            continue
        place = p.at(p.pointer(f"d:{name}"), (row, p.number(f"{width}p")), unit)
        value = lanes.load(place)
        if name == k.layout.hidden and k.layout.law.recurrent_blocks and line is not None:
            value = b.fadd(value, lanes.load(line))
        if cut is not None:  # what came after began anew
            value = lanes.where(cut, lanes.number(0.0), value)
        carried[name] = (place, value)
    return carried


class BackwardStores:
    """Writes the gradients of one row and one register of units."""

    def __init__(self, kernel: Loops, row: Row, step: BackwardPass[ir.Value]) -> None:
        self._k, self._row, self._step = kernel, row, step
        ragged = kernel.layout.variant.ragged
        self._valid = kernel.flag("valid", row.t, row.row) if ragged else None
        self._filled = inside(kernel, row.unit, row.width)

    def inputs(self, stage: int | None = None) -> None:
        """Those of the pre-activations; with `stage` those that it completes."""
        layout, law = self._k.layout, self._k.layout.law
        for index, block in enumerate(law.recurrent_blocks):
            self._store(layout.input_gradient("h", block), "dh", index, "dh_row", stage)
        if layout.apart or law.recurrent_blocks != law.pre:
            for index, block in enumerate(law.pre):
                self._store(layout.input_gradient("x", block), "dx", index, "xs_row", stage)

    def _store(
        self, terms: tuple[Expr, ...], name: str, index: int, row: str, stage: int | None
    ) -> None:
        if self._belongs(terms, stage):
            self._put(terms, self._row.blocks(name, index, row))

    def products(self, stage: int) -> None:
        """Those of the products with matrices that a stage completes, of the row's width."""
        layout = self._k.layout
        for place, gradient in layout.backward.products.items():
            name = f"dp:{place}"
            if layout.width(name) == self._row.width and self._belongs((gradient,), stage):
                self._put((gradient,), self._row.array(name))

    def _put(self, terms: tuple[Expr, ...], place: ir.Value) -> None:
        """The sum of some gradients; 0 outside the column, and in the padding of a product."""
        lanes, zero = self._k.p.lanes, self._k.p.lanes.number(0.0)
        value = self._step.total(terms)
        value = zero if value is None else value
        if self._valid is not None:
            value = lanes.where(self._valid, value, zero)
        lanes.store(lanes.where(self._filled, value, zero), place)

    def params(self, stage: int | None = None) -> None:
        """Add those of the parameters, over rows and time; with `stage` those that it completes."""
        k, p, lanes = self._k, self._k.p, self._k.p.lanes
        for name in k.layout.law.params:
            terms = _gradient(k.layout, "param", name)
            found = self._step.total(terms) if self._belongs(terms, stage) else None
            if found is not None:
                place = p.at(p.pointer(f"d_param:{name}"), *k.param_place(self._row.unit))
                if self._valid is not None:
                    found = lanes.where(self._valid, found, lanes.number(0.0))
                lanes.store(p.builder.fadd(lanes.load(place), found), place)

    def states(self, carried: Mapping[str, tuple[ir.Value, ir.Value]]) -> None:
        """Those of the states before the step, to be carried on."""
        lanes = self._k.p.lanes
        for name, (place, value) in carried.items():
            found = self._step.total(_gradient(self._k.layout, "state", name))
            found = lanes.number(0.0) if found is None else found
            if self._valid is not None:
                found = lanes.where(self._valid, found, value)
            lanes.store(found, place)

    def _belongs(self, terms: tuple[Expr, ...], stage: int | None) -> bool:
        return stage is None or self._k.layout.backward_cut.last(terms) == stage


def _gradient(layout: Layout, kind: str, name: str) -> tuple[Expr, ...]:
    found = layout.backward.gradients.get((kind, name))
    return () if found is None else (found,)
