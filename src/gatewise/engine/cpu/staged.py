"""The kernels of a cell with means or products within a step: each thread owns whole rows of the batch, so none waits.

A step begins with the products R h and the first stage, panel by panel, as everywhere; the stages after it run row
by row over that row's units, each once the sums and the products of the one before are whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from llvmlite import ir

from gatewise.cells.equations import Expr
from gatewise.engine.cpu.backward import BackwardRow, BackwardStores, carried_gradients
from gatewise.engine.cpu.backward import multiply as multiply_backward
from gatewise.engine.cpu.forward import ForwardRow, store_states
from gatewise.engine.cpu.forward import multiply as multiply_forward
from gatewise.engine.cpu.kinds import I64, Kind
from gatewise.engine.cpu.layout import Layout
from gatewise.engine.cpu.program import BACKWARD_WIDE, BETWEEN_WIDE, Program, rows_of
from gatewise.engine.cpu.rows import Loops, inside
from gatewise.engine.cpu.stages import Cut
from gatewise.engine.cpu.staging import StageBackward, StageForward

_TOGETHER = (
    48  # rows of which a step is computed at once: what waits between stages stays in the cache
)

Block: TypeAlias = Callable[[ir.Value, ir.Value, ir.Value, ir.Value, ir.Value], None]
"""(s-th step to be run, its time, panel, first row, number of rows): the first stage of them."""
Stage: TypeAlias = Callable[[int, ir.Value, "RowSpace"], None]
"""(stage, its time, where values wait): a stage of one row and a register of units."""


def emit_staged_forward(module: ir.Module, layout: Layout, kind: Kind) -> Program:
    """The forward kernel of a layout whose equations have stages."""
    count = len(layout.law.recurrent_blocks)
    k = _Staged(module, layout, kind, "forward", count, layout.forward_cut)
    marked: set[int] = set()

    def compute(stage: int, row: ForwardRow, space: RowSpace) -> None:
        walk = StageForward(k.p.lanes, layout, row, space, marked, space.width)
        store_states(k, row, walk.run_stage(stage))

    def block(s: ir.Value, t: ir.Value, panel: ir.Value, first: ir.Value, rows: ir.Value) -> None:
        p, b = k.p, k.p.builder
        multiply_forward(k, t, panel, first, rows)
        unit = b.mul(panel, I64(kind.lanes))
        with p.loop(I64(0), rows, "row") as r:
            line, row = p.at(k.scratch, (r, I64(count * kind.lanes))), b.add(first, r)
            compute(0, ForwardRow(k, t, row, unit, line), RowSpace(k, row, unit, "H"))

    def later(stage: int, t: ir.Value, space: RowSpace) -> None:
        row = ForwardRow(k, t, space.row, space.unit, None, space.width)
        compute(stage, row, space)

    return k.over_rows(block, "H", later, keep_means=True)


def emit_staged_backward(module: ir.Module, layout: Layout, kind: Kind) -> Program:
    """The backward kernel of a layout whose equations have stages."""
    k = _Staged(module, layout, kind, "backward", BACKWARD_WIDE, layout.backward_cut)
    last = layout.backward_cut.stages - 1
    k.always = {0: layout.widths.all, last: layout.widths.all}  # the states' gradients
    first_width = layout.widths.state(layout.hidden)

    def compute(stage: int, t: ir.Value, line: ir.Value | None, space: RowSpace) -> None:
        row, unit, width = space.row, space.unit, space.width
        carried = carried_gradients(k, t, row, unit, line, width, fresh=stage == 0)
        if stage == 0 < last:  # as later stages read it
            for place, value in carried.values():
                k.p.lanes.store(value, place)
        source = BackwardRow(k, t, row, unit, carried, width)
        walk = StageBackward(k.p.lanes, layout, source, space, stage, width)
        walk.run_stage()
        stores = BackwardStores(k, source, walk)
        stores.products(stage)
        if width == "H":
            stores.inputs(stage)
            stores.params(stage)
        if stage == last:
            stores.states(carried)

    def block(s: ir.Value, t: ir.Value, panel: ir.Value, first: ir.Value, rows: ir.Value) -> None:
        multiply_backward(k, s, t, panel, first, rows)

        def one(row: ir.Value, unit: ir.Value, line: ir.Value) -> None:
            compute(0, t, line, RowSpace(k, row, unit, first_width))

        k.over_lines(panel, first, rows, one, first_width, k.wide)

    def later(stage: int, t: ir.Value, space: RowSpace) -> None:
        compute(stage, t, None, space)

    return k.over_rows(block, first_width, later)


def room(cut: Cut, size: int, kind: Kind) -> int:
    """The numbers of a row of the space, for `size` units, padding included."""
    return _slots(cut) * size + len(cut.sums) * kind.lanes


def _slots(cut: Cut) -> int:
    """What waits, the marks of where a control has set it, and the results of products."""
    return 2 * len(cut.slots) + len(cut.products)


class _Staged(Loops):
    """The loops of a kernel with stages."""

    def __init__(
        self, module: ir.Module, layout: Layout, kind: Kind, name: str, wide: int, cut: Cut
    ) -> None:
        super().__init__(module, layout, kind, name, wide)
        self.cut = cut
        self.always: dict[int, tuple[str, ...]] = {}
        """Stage -> widths of which it has something to do, beside its values'."""
        b = self.p.builder
        self._sums_at = b.mul(I64(_slots(cut)), self.p.number("most"))
        self.space_row = b.add(self._sums_at, I64(len(cut.sums) * kind.lanes))
        """From row to row of the space."""
        self._thread = self.p.thread()

    def over_rows(
        self, block: Block, first_width: str, later: Stage, keep_means: bool = False
    ) -> Program:
        """The whole kernel: for this thread's rows all steps, stage after stage.

        Args:
            block: the first stage of some rows and a panel, products R h and all.
            first_width: of the units that `block` runs over.
            later: all other stages, and the first one's other widths.
            keep_means: as the backward pass reads them.
        """
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
                panels = p.number("panels")
                self._blocks(begin, stop, panels, self.rows, lambda *at: block(s, t, *at))
                for group in self._groups():
                    for product in self.cut.formed(group[0]):
                        self._product(product, t, begin, stop)
                    with p.loop(begin, stop, "whole") as row:
                        for stage in group:
                            done = first_width if stage == 0 else ""
                            self._stage(stage, t, row, done, later, keep_means)
        p.finish()
        return p

    def _groups(self) -> list[list[int]]:
        """Stages that a row runs through without waiting for a product of all rows."""
        groups: list[list[int]] = [[0]]
        for stage in range(1, self.cut.stages):
            if self.cut.formed(stage):
                groups.append([])
            groups[-1].append(stage)
        return groups

    def _product(self, node: Expr, t: ir.Value, begin: ir.Value, stop: ir.Value) -> None:
        """A product with a matrix, of these rows, to its place in the space."""
        p, b, forward = self.p, self.p.builder, node.op == "matmul"
        nodes = self.layout.graph.nodes
        place = node.key[1] if node.key else next(i for i, n in enumerate(nodes) if n is node)
        name = f"{'op' if forward else 'dp'}:{place}"
        width, read = self.cut.width(node), self.layout.width(name)
        step, row = p.number(f"{'once' if forward else 'step'}:{read}"), p.number(f"{read}p")
        depth, index = p.number(f"depth:{place}"), 2 * len(self.cut.slots) + self.cut.place(node)
        packed = p.pointer(f"matrix:{place}", self.kind.packed)
        lda = b.sdiv(row, I64(self.kind.factors))

        def block(panel: ir.Value, first: ir.Value, rows: ir.Value) -> None:
            w = p.at(packed, (b.mul(panel, depth), I64(BETWEEN_WIDE * self.kind.lanes)))
            a = p.at(p.pointer(name), (t, step), (first, row))
            self.product(rows, a, lda, w, depth, BETWEEN_WIDE)
            self.over_lines(panel, first, rows, copy, width, BETWEEN_WIDE)

        def copy(row: ir.Value, unit: ir.Value, line: ir.Value) -> None:
            RowSpace(self, row, unit, width).put(index, p.lanes.load(line))

        panels = p.number(f"panels:{width}")
        self._blocks(begin, stop, panels, rows_of(BETWEEN_WIDE, self.kind), block)

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
        panels: ir.Value,
        rows: int,
        body: Callable[[ir.Value, ir.Value, ir.Value], None],
    ) -> None:
        """Panels times blocks of rows: a panel of weights stays near for all of its rows."""
        p, b = self.p, self.p.builder
        count = b.sub(end, first)
        blocks = b.sdiv(b.add(count, I64(rows - 1)), I64(rows))
        with (
            p.loop(I64(0), panels, "panel") as panel,
            p.loop(I64(0), blocks, "part") as i,
        ):
            row = b.add(first, b.sdiv(b.mul(count, i), blocks))
            after = b.add(first, b.sdiv(b.mul(count, b.add(i, I64(1))), blocks))
            body(panel, row, b.sub(after, row))

    def _stage(
        self,
        stage: int,
        t: ir.Value,
        row: ir.Value,
        done: str,
        later: Stage,
        keep_means: bool,
    ) -> None:
        """A stage of one row, but for the width that is `done`."""
        p, lanes = self.p, self.p.lanes
        means = {}
        for mean in self.cut.means(stage) if not done else ():
            index = self.cut.index(mean)
            size = p.builder.sitofp(p.number(self.cut.width(mean)), self.kind.scalar)
            total = lanes.total(lanes.load(self.sum_at(row, index)))
            value = p.builder.fdiv(total, size)
            means[index] = lanes.splat(value)
            if keep_means and self.cut.stage[id(mean)] == stage:
                self._keep_mean(mean, t, row, value)
        for width in self._widths(stage):
            if width == done:
                continue
            size = p.number(f"{width}p")
            with p.loop(I64(0), size, f"stage{stage}", self.kind.lanes) as unit:
                later(stage, t, RowSpace(self, row, unit, width, means))

    def _widths(self, stage: int) -> list[str]:
        """Those of the values that a stage computes or hands on."""
        cut, always = self.cut, self.always.get(stage, ())
        return [
            w
            for w in self.layout.widths.all
            if w in always or cut.nodes(stage, w) or cut.added(stage, w) or cut.fed(stage, w)
        ]

    def _keep_mean(self, mean: object, t: ir.Value, row: ir.Value, value: ir.Value) -> None:
        nodes = self.layout.graph.nodes
        place = next(i for i, node in enumerate(nodes) if node is mean)
        if f"m:{place}" in self.layout.kept:
            p = self.p
            p.builder.store(value, p.at(p.pointer(f"m:{place}"), (t, p.number("B")), row))


class RowSpace:
    """Where the values of one row and one register of units of a width wait (`staging.Space`)."""

    def __init__(
        self,
        kernel: _Staged,
        row: ir.Value,
        unit: ir.Value,
        width: str,
        means: dict[int, ir.Value] | None = None,
    ) -> None:
        self._k, self.row, self.unit, self.width = kernel, row, unit, width
        self._means = means or {}

    def _at(self, slot: int) -> ir.Value:
        p = self._k.p
        return p.at(
            p.pointer("space"),
            (self.row, self._k.space_row),
            (I64(slot), p.number("most")),
            self.unit,
        )

    def get(self, slot: int) -> ir.Value:
        return self._k.p.lanes.load(self._at(slot))

    def put(self, slot: int, value: ir.Value) -> None:
        self._k.p.lanes.store(value, self._at(slot))

    def add(self, index: int, value: ir.Value) -> None:
        """Padding is no unit."""
        p = self._k.p
        real = inside(self._k, self.unit, self.width)
        value = p.lanes.where(real, value, p.lanes.number(0.0))
        place = self._k.sum_at(self.row, index)
        p.lanes.store(p.builder.fadd(p.lanes.load(place), value), place)

    def mean(self, index: int) -> ir.Value:
        return self._means[index]

    def product(self, index: int) -> ir.Value:
        return self.get(2 * len(self._k.cut.slots) + index)
