"""The pointwise part of a step: a cell's equations forward and backward, with its controls.

Knows the layout of slots, how to ask for a value (`Source`) and how to compute with it (`Arithmetic`): the
same walk over the equations writes machine code on registers and CUDA C. No loops, no matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from gatewise.cells.equations import Expr
from gatewise.engine.cpu.layout import Layout

V = TypeVar("V")
"""A value in the code that is written: a register of units, or a variable's name."""


class Arithmetic(Protocol[V]):
    """How the code that is written computes; conditions are values too."""

    def number(self, value: float) -> V:
        """A constant."""

    def add(self, a: V, b: V) -> V:
        """a + b."""

    def sub(self, a: V, b: V) -> V:
        """a - b."""

    def mul(self, a: V, b: V) -> V:
        """a b, rounded before anything is added."""

    def both(self, a: V, b: V) -> V:
        """Where two conditions hold."""

    def either(self, a: V, b: V) -> V:
        """Where one of two conditions holds."""

    def where(self, condition: V, a: V, b: V) -> V:
        """a where the condition holds, else b."""

    def compare(self, op: str, a: V, b: V) -> V:
        """An ordered comparison: false where one is NaN."""

    def is_nan(self, a: V) -> V:
        """Where a is no number."""

    def apply(self, op: str, *operands: V) -> V:
        """An operation of a cell's equations."""


class Source(Protocol[V]):
    """Where the values of one row and of its units come from, and go to."""

    def input(self, kind: str, name: str) -> V:
        """A pre-activation, previous state, parameter, or ("grad", state)."""

    def control(self, name: str) -> tuple[V, V]:
        """alpha and beta of a controlled name: v <- alpha v + beta; alpha not finite: v <- beta."""

    def zoneout(self, state: str) -> V:
        """The mask of a state (lanes of i1), or what is kept of it (a register)."""

    def keep(self, slot: str, value: V) -> None:
        """Forward: note a value that is kept or recorded."""

    def kept(self, slot: str) -> V:
        """Backward: the value of a slot."""


class Forward(Generic[V]):
    """Evaluates the equations of one step."""

    def __init__(self, lanes: Arithmetic[V], layout: Layout, source: Source[V]) -> None:
        self._lanes = lanes
        self._layout = layout
        self._source = source
        self._values: dict[int, V] = {}
        self._held: dict[int, V] = {}
        self._kept = set(layout.kept)
        self._states = {place: name for name, place in layout.graph.states.items()}

    def run(self) -> dict[str, V]:
        """The next states."""
        for place in range(len(self._layout.graph.nodes)):
            self._define(place)
        return {name: self._values[place] for name, place in self._layout.graph.states.items()}

    def _define(self, place: int) -> None:
        """Compute a node, whose operands are known, up to the control of its name."""
        graph = self._layout.graph
        value, held = self._compute(place, graph.nodes[place])
        if place in self._states:
            value, held = self._state(self._states[place], value, held)
        elif place in graph.names:
            name = graph.names[place]
            self._keep(f"r:{name}", value)
            value, held = self._controlled(name, value, held)
            self._keep(f"v:{name}", value)
        elif graph.nodes[place].op == "matmul":
            self._keep(f"y:{place}", value)
        if held is not None:
            self._held[place] = held
        self._values[place] = value

    def _compute(self, place: int, node: Expr) -> tuple[V, V | None]:
        """A node's value before its name's control, and where it follows from set numbers alone."""
        graph, lanes = self._layout.graph, self._lanes
        if node.op == "const":
            return lanes.number(node.value), None
        if node.op == "input":
            assert node.key is not None
            value = self._source.input(*node.key)
            name = graph.inputs.get(node.key)
            value, held = (value, None) if name is None else self._controlled(name, value, None)
            self._keep(f"i:{node.key[0]}:{node.key[1]}", value)
            return value, held
        operands = graph.operands(place)
        value = lanes.apply(node.op, *(self._values[i] for i in operands))
        if node.op == "mul":
            for i in operands:
                if i in self._held:  # a factor set to 0 is a closed gate, also for NaN
                    zero = lanes.compare("==", self._values[i], lanes.number(0.0))
                    closed = lanes.both(self._held[i], zero)
                    value = lanes.where(closed, lanes.number(0.0), value)
        return value, self._following(operands)

    def _following(self, operands: tuple[int, ...]) -> V | None:
        where: V | None = None
        for i in operands:
            if self._layout.graph.nodes[i].op == "const":
                continue
            if i not in self._held:
                return None
            held = self._held[i]
            where = held if where is None else self._lanes.both(where, held)
        return where

    def _state(self, name: str, value: V, held: V | None) -> tuple[V, V | None]:
        """``c.new``, zoneout, ``c``."""
        self._keep(f"r:{name}", value)
        value, _ = self._controlled(f"{name}.new", value, None)
        self._keep(f"n:{name}", value)
        if name in self._layout.zoneout:
            value = self._zoned(name, value)
        value, held = self._controlled(name, value, held)
        self._keep(f"v:{name}", value)
        return value, held

    def _zoned(self, name: str, value: V) -> V:
        previous, share = self._source.input("state", name), self._source.zoneout(name)
        if self._layout.zoneout[name] == "mask":
            return self._lanes.where(share, previous, value)
        lanes = self._lanes
        return lanes.add(value, lanes.mul(share, lanes.sub(previous, value)))

    def _controlled(self, name: str, value: V, held: V | None) -> tuple[V, V | None]:
        if name not in self._layout.variant.controlled:
            return value, held
        lanes = self._lanes
        alpha, beta = self._source.control(name)
        computed = lanes.add(lanes.mul(alpha, value), beta)
        number = lanes.is_nan(alpha)
        held = number if held is None else lanes.either(number, held)
        return lanes.where(is_finite(lanes, alpha), computed, beta), held

    def _keep(self, slot: str, value: V) -> None:
        if slot in self._kept:
            self._source.keep(slot, value)


class BackwardPass(Generic[V]):
    """Evaluates the gradients of one step."""

    def __init__(self, lanes: Arithmetic[V], layout: Layout, source: Source[V]) -> None:
        self._lanes = lanes
        self._layout = layout
        self._source = source
        graph = layout.graph
        self._names = {id(graph.nodes[i]): name for i, name in graph.names.items()}
        self._values: dict[int, V] = {}
        self._places: dict[str, Callable[[Expr], V]] = {
            "raw": self._raw,
            "through": self._through,
            "kept": self._kept,
            "passed": self._passed,
        }

    def value(self, node: Expr) -> V:
        """The value of a node of the forward or the backward equations."""
        if id(node) not in self._values:
            self._values[id(node)] = self._compute(node)
        return self._values[id(node)]

    def total(self, terms: tuple[Expr, ...]) -> V | None:
        """The sum of some gradients; None where there is none."""
        if not terms:
            return None
        value = self.value(terms[0])
        for term in terms[1:]:
            value = self._lanes.add(value, self.value(term))
        return value

    def _compute(self, node: Expr) -> V:
        if node.op in self._places:
            return self._places[node.op](node)
        if node.op == "const":
            return self._lanes.number(node.value)
        if id(node) in self._names:
            return self._source.kept(f"v:{self._names[id(node)]}")
        if node.op == "input":
            assert node.key is not None
            kind, name = node.key
            if kind.startswith("pre"):
                return self._source.kept(f"i:{kind}:{name}")
            return self._source.input(kind, name)
        return self._lanes.apply(node.op, *(self.value(a) for a in node.args))

    def _raw(self, node: Expr) -> V:
        return self._source.kept(self._layout.raw_slot(self._names[id(node.args[0])]))

    def _through(self, node: Expr) -> V:
        gradient = self.value(node.args[0])
        assert node.key is not None
        if node.key[1] not in self._layout.variant.controlled:
            return gradient
        lanes = self._lanes
        alpha, _ = self._source.control(node.key[1])
        scaled = lanes.mul(alpha, gradient)
        return lanes.where(is_finite(lanes, alpha), scaled, lanes.number(0.0))

    def _kept(self, node: Expr) -> V:
        return self._share(node, kept=True)

    def _passed(self, node: Expr) -> V:
        return self._share(node, kept=False)

    def _share(self, node: Expr, *, kept: bool) -> V:
        lanes, gradient = self._lanes, self.value(node.args[0])
        assert node.key is not None
        zero, mode = lanes.number(0.0), self._layout.zoneout.get(node.key[1])
        if mode is None:
            return zero if kept else gradient
        share = self._source.zoneout(node.key[1])
        if mode == "mask":
            return (
                lanes.where(share, gradient, zero) if kept else lanes.where(share, zero, gradient)
            )
        held = lanes.mul(share, gradient)
        return held if kept else lanes.sub(gradient, held)


def is_finite(lanes: Arithmetic[V], value: V) -> V:
    """Where a value is neither infinite nor NaN."""
    below = lanes.compare("<", value, lanes.number(float("inf")))
    above = lanes.compare(">", value, lanes.number(float("-inf")))
    return lanes.both(below, above)
