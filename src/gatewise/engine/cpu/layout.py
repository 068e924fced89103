"""What one pair of kernels computes, and which values pass from the forward to the backward one.

Knows the cell's graph and which controls, masks and records are there; no registers, no memory.

Slots name what is kept for each step, (T, B, H) each: ``v:f`` a named value after its control, ``r:f``
before it, ``n:c`` a state after the control of ``c.new``, ``i:pre:f`` an input after its control. ``m:7`` is
the mean over the units that node 7 is, (T, B), ``y:7`` the product with a matrix that it is. What such a product
reads is ``op:7``, and the gradient of its result ``dp:7``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property

from gatewise.cells.base import Law
from gatewise.cells.derive import RULES, Backward, differentiate
from gatewise.cells.equations import Expr
from gatewise.cells.graph import Graph
from gatewise.cells.norms import written_out
from gatewise.engine.cpu.stages import Cut, cut_backward, cut_forward
from gatewise.engine.cpu.widths import Widths, refusal_of_matrices

_NARROW = ("xs", "dh", "dx", "output", "d_output", "i", "y", "op", "dp")
_BETWEEN = ("row_mean", "matmul")
_COMPARISONS = frozenset({"gt", "lt", "ge", "le"})


@dataclass(frozen=True)
class Variant:
    """What a kernel is made for; everything else is a number given at the call.

    Args:
        controlled: names with a control.
        recorded: names that are recorded.
        zoneout: states with zoneout, and whether by "mask" or by "share" (its expectation).
        ragged: some steps lie outside their column.
        cut: some states are put back to their start.
        grad: a backward pass may follow.
        narrow: activations and weights are bfloat16; sums, equations and states float32.
    """

    controlled: tuple[str, ...] = ()
    recorded: tuple[str, ...] = ()
    zoneout: tuple[tuple[str, str], ...] = ()
    ragged: bool = False
    cut: bool = False
    grad: bool = False
    narrow: bool = False


@cache
def refusal(law: Law, by_rows: bool = False) -> str | None:
    """Why the equations cannot be computed unit by unit, or None.

    Args:
        law: whose.
        by_rows: with means over the units, and products with matrices, between.
    """
    graph = written_out(law.graph) if by_rows else law.graph
    for place, node in enumerate(graph.nodes):
        if node.op in ("input", "const") or (by_rows and node.op in _BETWEEN):
            continue
        if node.op not in RULES:
            return f"{node.op} reads other units"
        bools = [graph.nodes[i].op in _COMPARISONS for i in graph.operands(place)]
        expected = [node.op == "where", *[False] * (len(bools) - 1)]
        if bools != expected[: len(bools)]:
            return f"{node.op} has a condition where a number belongs, or the reverse"
    if by_rows:
        return refusal_of_matrices(law, graph)
    kinds = set(law.params.values()) - {"vector"}
    return f"it has a parameter that is a {min(kinds)}" if kinds else None


@dataclass(frozen=True)
class Layout:
    """The slots of one law under one variant."""

    law: Law
    variant: Variant

    @cached_property
    def graph(self) -> Graph:
        """The forward equations, layer normalisation written out."""
        return written_out(self.law.graph)

    @cached_property
    def widths(self) -> Widths:
        """How many units each value has."""
        return Widths(self.law)

    @property
    def hidden(self) -> str:
        """The state that is the output: ``h``, or ``proj`` where it is projected."""
        return self.widths.hidden

    @cached_property
    def products(self) -> Mapping[int, str]:
        """Place of a product in the equations -> its matrix."""
        nodes = enumerate(self.graph.nodes)
        return {i: n.args[0].key[1] for i, n in nodes if n.op == "matmul" and n.args[0].key}

    def width(self, name: str) -> str:
        """Of an array of the kernels, by the name of its argument."""
        kind, _, value = name.partition(":")
        nodes = self.graph.nodes
        if kind in ("y", "op", "dp"):
            return self.widths.matrix(self.products[int(value)])[kind == "op"]
        if kind in ("output", "d_output"):
            return self.widths.state(self.hidden)
        if value in self.law.states or value == "operand":
            return self.widths.state(self.hidden if value == "operand" else value)
        named = next((i for i, n in self.graph.names.items() if n == value), None)
        return "H" if named is None or kind not in ("v", "r") else self.widths(nodes[named])

    @cached_property
    def backward(self) -> Backward:
        """The backward equations."""
        return differentiate(self.graph)

    @cached_property
    def by_rows(self) -> bool:
        """Whether some values are means over the units: whole rows are computed together."""
        return self.forward_cut.stages > 1

    @cached_property
    def forward_cut(self) -> Cut:
        """The stages of the forward equations."""
        return cut_forward(self.graph, self.widths)

    @cached_property
    def backward_cut(self) -> Cut:
        """The stages of the backward equations."""
        stored = [self.input_gradient(p, n) for p in ("x", "h") for n in self.law.pre]
        found, products = self.backward.gradients, self.backward.products.values()
        last = [found[key] for key in found if key[0] == "state"]
        roots = (*found.values(), *products)
        return cut_backward(self.graph, self.widths, [t for t in stored if t], last, roots)

    @cached_property
    def zoneout(self) -> Mapping[str, str]:
        """State -> "mask" or "share"."""
        return dict(self.variant.zoneout)

    def slot_of(self, name: str) -> str:
        """The slot of a name that can be recorded."""
        for (kind, block), own in self.graph.inputs.items():
            if own == name:
                return f"i:{kind}:{block}"
        return f"n:{name[:-4]}" if name.endswith(".new") else f"v:{name}"

    def raw_slot(self, name: str) -> str:
        """The slot of a named node's value before its control."""
        changed = {name, f"{name}.new"} & set(self.variant.controlled)
        return f"r:{name}" if changed or name in self.zoneout else f"v:{name}"

    @cached_property
    def read(self) -> tuple[str, ...]:
        """The slots that the backward equations read."""
        if not self.variant.grad:
            return ()
        found: dict[str, None] = {}
        names = {id(self.graph.nodes[i]): n for i, n in self.graph.names.items()}
        places = {id(node): place for place, node in enumerate(self.graph.nodes)}
        seen: set[int] = set()

        def visit(node: Expr) -> None:
            if id(node) in seen:
                return
            seen.add(id(node))
            if node.op == "raw":
                found[self.raw_slot(names[id(node.args[0])])] = None
            elif id(node) in names:
                found[f"v:{names[id(node)]}"] = None
            elif node.key is not None and node.key[0].startswith("pre"):
                found[f"i:{node.key[0]}:{node.key[1]}"] = None
            elif node.op == "row_mean" and id(node) in places:
                found[f"m:{places[id(node)]}"] = None
            elif node.op == "matmul" and id(node) in places:
                found[f"y:{places[id(node)]}"] = None
            else:
                for arg in node.args:
                    visit(arg)

        for gradient in (*self.backward.gradients.values(), *self.backward.products.values()):
            visit(gradient)
        return tuple(found)

    @cached_property
    def kept(self) -> tuple[str, ...]:
        """The slots that the forward kernel writes."""
        recorded = (self.slot_of(name) for name in self.variant.recorded)
        wanted = dict.fromkeys([*self.read, *recorded])
        return tuple(s for s in wanted if not self.is_state(s))

    def is_state(self, slot: str) -> bool:
        """Whether the slot is the state array itself: a state that nothing puts back."""
        return slot[:2] == "v:" and slot[2:] in self.law.states and not self.variant.cut

    @cached_property
    def wide_h(self) -> bool:
        """Whether the equations read h[t-1] itself, which rounding at each step would wear down."""
        variant = self.variant
        return self.graph.reads_h or variant.ragged or self.hidden in self.zoneout

    @cached_property
    def operand(self) -> bool:
        """Whether the products read h from an array of its own, of 16 bits."""
        return self.variant.narrow and self.wide_h and bool(self.law.recurrent_blocks)

    @cached_property
    def output(self) -> bool:
        """Whether the output is an array of its own: it is 0 in the padding, and narrow."""
        variant = self.variant
        apart = variant.narrow and self.wide_h and not self.operand
        return variant.ragged or variant.cut or apart

    @cached_property
    def _normed(self) -> frozenset[str]:
        """The slots that what is normalised is computed from again: to a mean of exact values they must be exact."""
        found: set[str] = set()

        def visit(place: int, top: bool = False) -> None:
            node = self.graph.nodes[place]
            if not top and place in self.graph.names:
                name = self.graph.names[place]
                found.update((f"v:{name}", f"r:{name}"))
            elif node.op == "input" and node.key is not None:
                found.add(f"i:{node.key[0]}:{node.key[1]}")
            elif node.op == "matmul":
                found.add(f"y:{place}")
            else:
                for operand in self.graph.operands(place):
                    visit(operand)

        for place, node in enumerate(self.graph.nodes):
            if node.op == "normal":
                visit(place, top=True)
        return frozenset(found)

    def is_narrow(self, name: str) -> bool:
        """Whether an array of the kernels, by the name of its argument, is of 16 bits."""
        if not self.variant.narrow or name in self._normed:
            return False
        kind, _, value = name.partition(":")
        if kind in ("before", "after"):
            return value == "operand" or (value == self.hidden and not self.wide_h)
        if kind in ("v", "r", "n"):
            return value == self.hidden or value not in self.law.states
        return kind in _NARROW

    @cached_property
    def apart(self) -> bool:
        """Whether the gradients of a block's x part and h part can differ."""
        return bool(self.graph.parts)

    def input_gradient(self, part: str, block: str) -> tuple[Expr, ...]:
        """The terms of the gradient of a block's x or h part."""
        keys = (("pre", block), (f"pre.{part}", block))
        found = self.backward.gradients
        return tuple(found[key] for key in keys if key in found)
