"""The walk over a step's equations stage by stage: what the whole walk of `emit` does, in parts.

Knows the cut, and where a value waits between two stages (`Space`); no registers, no memory.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from gatewise.cells.equations import Expr
from gatewise.engine.cpu.emit import Arithmetic, BackwardPass, Forward, Source
from gatewise.engine.cpu.layout import Layout

V = TypeVar("V")
_CONDITIONS = ("gt", "lt", "ge", "le")


class Space(Protocol[V]):
    """Where the values of a row and its units wait for a later stage."""

    def get(self, slot: int) -> V:
        """What waits in a slot."""

    def put(self, slot: int, value: V) -> None:
        """Let a value wait in a slot."""

    def add(self, index: int, value: V) -> None:
        """Add the units to a sum over the row."""

    def mean(self, index: int) -> V:
        """The mean over the row, in every lane."""

    def product(self, index: int) -> V:
        """The result of a product with a matrix."""


def _put(lanes: Arithmetic[V], space: Space[V], slot: int, value: V, condition: bool) -> None:
    """Let a value wait; a condition as 1 or 0."""
    if condition:
        value = lanes.where(value, lanes.number(1.0), lanes.number(0.0))
    space.put(slot, value)


def _get(lanes: Arithmetic[V], space: Space[V], slot: int, condition: bool) -> V:
    value = space.get(slot)
    return lanes.compare(">", value, lanes.number(0.5)) if condition else value


class StageForward(Forward[V]):
    """Evaluates one stage of the equations of a step.

    Args:
        lanes, layout, source: as of `Forward`.
        space: where values wait.
        marked: the nodes that wait with a mark of where a control has set them; shared by all stages.
        width: of the values that are computed.
    """

    def __init__(
        self,
        lanes: Arithmetic[V],
        layout: Layout,
        source: Source[V],
        space: Space[V],
        marked: set[int],
        width: str,
    ) -> None:
        super().__init__(lanes, layout, source)
        self._space = space
        self._width = width
        self._marked = marked
        self._cut = layout.forward_cut
        self._places = {id(node): place for place, node in enumerate(layout.graph.nodes)}

    def run_stage(self, stage: int) -> dict[str, V]:
        """The next states that this stage computes."""
        cut, graph = self._cut, self._layout.graph
        own = cut.nodes(stage, self._width)
        for node in own:
            place = self._places[id(node)]
            for i in graph.operands(place) if node.op != "matmul" else ():
                self._read(i)
            self._define(place)
            self._hold(place, node)
        for mean in cut.added(stage, self._width):
            self._space.add(cut.index(mean), self._known(mean.args[0]))
        for product in cut.fed(stage, self._width):
            slot = f"op:{self._places[id(product)]}"
            self._source.keep(slot, self._known(product.args[1]))
        found = {id(node) for node in own}
        states = graph.states.items()
        return {n: self._values[p] for n, p in states if id(graph.nodes[p]) in found}

    def _known(self, node: Expr) -> V:
        place = self._places[id(node)]
        self._read(place)
        return self._values[place]

    def _compute(self, place: int, node: Expr) -> tuple[V, V | None]:
        if node.op == "matmul":
            return self._space.product(self._cut.place(node)), None
        return super()._compute(place, node)

    def _read(self, place: int) -> None:
        """Have the value of a node that this stage reads."""
        if place in self._values:
            return
        node, cut = self._layout.graph.nodes[place], self._cut
        if cut.free(node):
            self._values[place], _ = self._compute(place, node)
        elif node.op == "row_mean":
            self._values[place] = self._space.mean(cut.index(node))
        else:
            slot, space = cut.slots[id(node)], self._space
            self._values[place] = _get(self._lanes, space, slot, node.op in _CONDITIONS)
            if place in self._marked:
                self._held[place] = _get(self._lanes, space, len(cut.slots) + slot, True)

    def _hold(self, place: int, node: Expr) -> None:
        if id(node) not in self._cut.slots:
            return
        slot, lanes = self._cut.slots[id(node)], self._lanes
        _put(lanes, self._space, slot, self._values[place], node.op in _CONDITIONS)
        if place in self._held:
            self._marked.add(place)
            _put(lanes, self._space, len(self._cut.slots) + slot, self._held[place], True)


class StageBackward(BackwardPass[V]):
    """Evaluates one stage of the gradients of a step.

    Args:
        lanes, layout, source: as of `BackwardPass`.
        space: where values wait.
        stage: which.
        width: of the values that are computed.
    """

    def __init__(
        self,
        lanes: Arithmetic[V],
        layout: Layout,
        source: Source[V],
        space: Space[V],
        stage: int,
        width: str,
    ) -> None:
        super().__init__(lanes, layout, source)
        self._space = space
        self._stage = stage
        self._width = width
        self._cut = layout.backward_cut
        slots = {"row_mean": "m", "matmul": "y"}
        self._formed = {
            id(node): f"{slots[node.op]}:{place}"
            for place, node in enumerate(layout.graph.nodes)
            if node.op in slots and place not in layout.graph.names
        }

    def run_stage(self) -> None:
        """Compute what belongs to the stage, and let wait what later ones read."""
        cut = self._cut
        for node in cut.nodes(self._stage, self._width):
            value = self.value(node)
            if id(node) in cut.slots:
                slot = cut.slots[id(node)]
                _put(self._lanes, self._space, slot, value, node.op in _CONDITIONS)
        for mean in cut.added(self._stage, self._width):
            self._space.add(cut.index(mean), self.value(mean.args[0]))

    def value(self, node: Expr) -> V:
        """The value of a node of this stage or an earlier one."""
        if id(node) not in self._values:
            found = self._waiting(node)
            if found is not None:
                self._values[id(node)] = found
        return super().value(node)

    def _waiting(self, node: Expr) -> V | None:
        """What is known of an earlier stage or of the forward pass."""
        cut = self._cut
        if id(node) in self._formed:
            return self._source.kept(self._formed[id(node)])
        if cut.free(node):
            return None
        if node.op == "row_mean":
            return self._space.mean(cut.index(node))
        if cut.stage[id(node)] < self._stage:
            slot = cut.slots[id(node)]
            return _get(self._lanes, self._space, slot, node.op in _CONDITIONS)
        if node.op == "matmul_back":
            return self._space.product(cut.place(node))
        return None
