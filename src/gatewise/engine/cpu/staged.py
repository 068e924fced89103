"""The kernels of a cell with means over its units: each thread owns whole rows of the batch, so none waits.

A step begins with the products and the first stage, panel by panel, as everywhere; the stages after it run row
by row over that row's units, each once the sums of the one before are whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from llvmlite import ir

from gatewise.engine.cpu.backward import BackwardRow, BackwardStores, carried_gradients
from gatewise.engine.cpu.backward import multiply as multiply_backward
from gatewise.engine.cpu.forward import ForwardRow, store_states
from gatewise.engine.cpu.forward import multiply as multiply_forward
from gatewise.engine.cpu.kinds import I64, Kind
from gatewise.engine.cpu.layout import Layout
from gatewise.engine.cpu.program import BACKWARD_WIDE, Program
from gatewise.engine.cpu.rows import Loops, inside
from gatewise.engine.cpu.stages import Cut
from gatewise.engine.cpu.staging import StageBackward, StageForward

_TOGETHER = (
    48  # rows of which a step is computed at once: what waits between stages stays in the cache
)

Block: TypeAlias = Callable[[ir.Value, ir.Value, ir.Value, ir.Value, ir.Value], None]
"""(s-th step to be run, its time, panel, first row, number of rows): the first stage of them."""
Stage: TypeAlias = Callable[[int, ir.Value, ir.Value, ir.Value, "RowSpace"], None]
"""(stage, its time, row, unit, where its values wait): a later stage of a register of units."""


def emit_staged_forward(module: ir.Module, layout: Layout, kind: Kind) -> Program:
    """The forward kernel of a layout whose equations have stages."""
    count = len(layout.law.recurrent_blocks)
    k = _Staged(module, layout, kind, "forward", count, layout.forward_cut)
    marked: set[int] = set()

    def compute(stage: int, row: ForwardRow, space: RowSpace) -> None:
        walk = StageForward(k.p.lanes, layout, row, space, marked)
        store_states(k, row, walk.run_stage(stage))

    def block(s: ir.Value, t: ir.Value, panel: ir.Value, first: ir.Value, rows: ir.Value) -> None:
        p, b = k.p, k.p.builder
        multiply_forward(k, t, panel, first, rows)
        unit = b.mul(panel, I64(kind.lanes))
        with p.loop(I64(0), rows, "row") as r:
            line, row = p.at(k.scratch, (r, I64(count * kind.lanes))), b.add(first, r)
            compute(0, ForwardRow(k, t, row, unit, line), RowSpace(k, row, unit))

    def later(stage: int, t: ir.Value, row: ir.Value, unit: ir.Value, space: RowSpace) -> None:
        compute(stage, ForwardRow(k, t, row, unit, None), space)

    return k.over_rows(block, later, keep_means=True)


def emit_staged_backward(module: ir.Module, layout: Layout, kind: Kind) -> Program:
    """The backward kernel of a layout whose equations have stages."""
    k = _Staged(module, layout, kind, "backward", BACKWARD_WIDE, layout.backward_cut)
    last = layout.backward_cut.stages - 1

    def compute(stage: int, t: ir.Value, row: ir.Value, unit: ir.Value, line: ir.Value | None,
                space: RowSpace) -> None:  # fmt: skip
        carried = carried_gradients(k, t, row, unit, line)
        if stage == 0 < last:  # as later stages read it
            for place, value in carried.values():
                k.p.lanes.store(value, place)
        source = BackwardRow(k, t, row, unit, carried)
        walk = StageBackward(k.p.lanes, layout, source, space, stage)
        walk.run_stage()
        stores = BackwardStores(k, source, walk)
        stores.inputs(stage)
        stores.params(stage)
        if stage == last:
            stores.states(carried)

    def block(s: ir.Value, t: ir.Value, panel: ir.Value, first: ir.Value, rows: ir.Value) -> None:
        multiply_backward(k, s, t, panel, first, rows)

        def one(row: ir.Value, unit: ir.Value, line: ir.Value) -> None:
            compute(0, t, row, unit, line, RowSpace(k, row, unit))

        k.over_lines(panel, first, rows, one)

    def later(stage: int, t: ir.Value, row: ir.Value, unit: ir.Value, space: RowSpace) -> None:
        compute(stage, t, row, unit, None, space)

    return k.over_rows(block, later)


def room(cut: Cut, size: int, kind: Kind) -> int:
    """The numbers of a row of the space, for `size` units, padding included."""
    return _slots(cut) * size + len(cut.sums) * kind.lanes


def _slots(cut: Cut) -> int:
    """What waits, and the marks of where a control has set it."""
    return 2 * len(cut.slots)


class _Staged(Loops):
    """The loops of a kernel with stages."""

    def __init__(
        self, module: ir.Module, layout: Layout, kind: Kind, name: str, wide: int, cut: Cut
    ) -> None:
        super().__init__(module, layout, kind, name, wide)
        self.cut = cut
        b = self.p.builder
        self._sums_at = b.mul(I64(_slots(cut)), self.p.number("Hp"))
        self.space_row = b.add(self._sums_at, I64(len(cut.sums) * kind.lanes))
        """From row to row of the space."""
        self._thread = self.p.thread()

    def over_rows(self, block: Block, later: Stage, keep_means: bool = False) -> Program:
        """The whole kernel: for this thread's rows all steps, stage after stage."""
        p, b = self.p, self.p.builder
        first, end, _ = p.share(p.number("B"))
        mine = b.sub(end, first)
        chunks = b.sdiv(b.add(mine, I64(_TOGETHER - 1)), I64(_TOGETHER))
        with p.loop(I64(0), chunks, "chunk") as c:
            begin = b.add(first, b.sdiv(b.mul(mine, c), chunks))
            stop = b.add(first, b.sdiv(b.mul(mine, b.add(c, I64(1))), chunks))
            with p.loop(I64(0), p.number("T"), "s") as s:
                t = b.add(p.number("t0"), b.mul(s, p.number("dir")))
                self._begin(begin, stop)
                self._blocks(begin, stop, lambda *at: block(s, t, *at))
                with p.loop(begin, stop, "whole") as row:
                    for stage in range(1, self.cut.stages):
                        self._stage(stage, t, row, later, keep_means)
        p.finish()
        return p

    def param_place(self, unit: ir.Value) -> tuple[ir.Value, ...]:
        """Each thread has sums of its own."""
        return self.p.builder.mul(self._thread, self.p.number("Hp")), unit

    def _begin(self, first: ir.Value, end: ir.Value) -> None:
        """No sum has a summand yet."""
        p = self.p
        with p.loop(first, end, "begin") as row:
            for k in range(len(self.cut.sums)):
                p.lanes.store(p.lanes.number(0.0), self.sum_at(row, k))

    def sum_at(self, row: ir.Value, index: int) -> ir.Value:
        """Where the partial sums of a mean are."""
        p = self.p
        return p.at(
            p.pointer("space"), (row, self.space_row), self._sums_at, I64(index * self.kind.lanes)
        )

    def _blocks(
        self,
        first: ir.Value,
        end: ir.Value,
        body: Callable[[ir.Value, ir.Value, ir.Value], None],
    ) -> None:
        """Panels times blocks of rows: a panel of weights stays near for all of its rows."""
        p, b = self.p, self.p.builder
        count = b.sub(end, first)
        blocks = b.sdiv(b.add(count, I64(self.rows - 1)), I64(self.rows))
        with (
            p.loop(I64(0), p.number("panels"), "panel") as panel,
            p.loop(I64(0), blocks, "part") as i,
        ):
            row = b.add(first, b.sdiv(b.mul(count, i), blocks))
            after = b.add(first, b.sdiv(b.mul(count, b.add(i, I64(1))), blocks))
            body(panel, row, b.sub(after, row))

    def _stage(
        self, stage: int, t: ir.Value, row: ir.Value, later: Stage, keep_means: bool
    ) -> None:
        p, lanes = self.p, self.p.lanes
        size = p.builder.sitofp(p.number("H"), self.kind.scalar)
        means = {}
        for mean in self.cut.means(stage):
            index = self.cut.index(mean)
            total = lanes.total(lanes.load(self.sum_at(row, index)))
            value = p.builder.fdiv(total, size)
            means[index] = lanes.splat(value)
            if keep_means and self.cut.stage[id(mean)] == stage:
                self._keep_mean(mean, t, row, value)
        with p.loop(I64(0), p.number("Hp"), f"stage{stage}", self.kind.lanes) as unit:
            later(stage, t, row, unit, RowSpace(self, row, unit, means))

    def _keep_mean(self, mean: object, t: ir.Value, row: ir.Value, value: ir.Value) -> None:
        nodes = self.layout.graph.nodes
        place = next(i for i, node in enumerate(nodes) if node is mean)
        if f"m:{place}" in self.layout.kept:
            p = self.p
            p.builder.store(value, p.at(p.pointer(f"m:{place}"), (t, p.number("B")), row))


class RowSpace:
    """Where the values of one row and one register of units wait (`staging.Space`)."""

    def __init__(
        self,
        kernel: _Staged,
        row: ir.Value,
        unit: ir.Value,
        means: dict[int, ir.Value] | None = None,
    ) -> None:
        self._k, self._row, self._unit = kernel, row, unit
        self._means = means or {}

    def _at(self, slot: int) -> ir.Value:
        p = self._k.p
        return p.at(
            p.pointer("space"),
            (self._row, self._k.space_row),
            (I64(slot), p.number("Hp")),
            self._unit,
        )

    def get(self, slot: int) -> ir.Value:
        return self._k.p.lanes.load(self._at(slot))

    def put(self, slot: int, value: ir.Value) -> None:
        self._k.p.lanes.store(value, self._at(slot))

    def add(self, index: int, value: ir.Value) -> None:
        """Padding is no unit."""
        p = self._k.p
        value = p.lanes.where(inside(self._k, self._unit), value, p.lanes.number(0.0))
        place = self._k.sum_at(self._row, index)
        p.lanes.store(p.builder.fadd(p.lanes.load(place), value), place)

    def mean(self, index: int) -> ir.Value:
        return self._means[index]
