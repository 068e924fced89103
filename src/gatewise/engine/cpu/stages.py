"""A step's equations in stages: a value that needs the mean over all units waits until each unit has come there.

Every node belongs to one stage; what a later stage reads of an earlier one is held in a slot of its row. Knows
graphs; no registers, no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gatewise.cells.equations import Expr
from gatewise.cells.graph import Graph


@dataclass(frozen=True)
class Cut:
    """Which stage computes what.

    Attributes:
        stage: id of a node -> its stage; of what can be read again at any stage 0.
        order: the nodes that are computed, each after those it reads.
        sums: the means over units that are formed, in order: each of a value of the stage before its own.
        slots: id of a node that a later stage reads -> its slot.
        free: whether a node is read again at any stage.
        stages: their number.
    """

    stage: Mapping[int, int]
    order: tuple[Expr, ...]
    sums: tuple[Expr, ...]
    slots: Mapping[int, int]
    free: Callable[[Expr], bool]
    stages: int

    def nodes(self, stage: int) -> list[Expr]:
        """What a stage computes, means apart."""
        return [n for n in self.order if n.op != "row_mean" and self.stage[id(n)] == stage]

    def added(self, stage: int) -> list[Expr]:
        """The means whose summands a stage computes."""
        return [m for m in self.sums if self.stage[id(m)] == stage + 1]

    def means(self, stage: int) -> list[Expr]:
        """The means that a stage reads, or is the first that could."""
        read = {id(a) for n in self.nodes(stage) for a in n.args}
        return [m for m in self.sums if id(m) in read or self.stage[id(m)] == stage]

    def index(self, mean: Expr) -> int:
        """The place of a mean among the sums."""
        return next(k for k, node in enumerate(self.sums) if node is mean)

    def last(self, terms: Sequence[Expr]) -> int:
        """The stage at which all of some values are known."""
        return max((self.stage[id(t)] for t in terms), default=0)


def cut_forward(graph: Graph) -> Cut:
    """The stages of a cell's equations."""

    def free(node: Expr) -> bool:
        return node.op == "const" or (node.key is not None and node.key[0] in ("state", "param"))

    return _cut(graph.nodes, free, [])


def cut_backward(
    graph: Graph, sums: Iterable[Sequence[Expr]], last: Iterable[Expr], roots: Iterable[Expr]
) -> Cut:
    """The stages of the gradients of a cell's equations.

    Args:
        graph: the equations.
        sums: gradients that are added to each other.
        last: those that the last stage reads.
        roots: all of them.
    """
    fixed = {id(graph.nodes[i]) for i in graph.names}
    fixed |= {id(n) for n in graph.nodes if n.op == "row_mean"}

    def free(node: Expr) -> bool:
        return node.op in ("const", "input", "raw") or id(node) in fixed

    order: dict[int, Expr] = {}

    def visit(node: Expr) -> None:
        if id(node) not in order:
            for arg in () if free(node) else node.args:
                visit(arg)
            order[id(node)] = node

    for root in roots:
        visit(root)
    return _cut(tuple(order.values()), free, [*sums], list(last))


def _cut(
    order: Sequence[Expr],
    free: Callable[[Expr], bool],
    together: Iterable[Sequence[Expr]],
    last: Sequence[Expr] = (),
) -> Cut:
    stage: dict[int, int] = {}
    crossing: dict[int, Expr] = {}

    def held_for(node: Expr, reader: int) -> None:
        if not free(node) and node.op != "row_mean" and stage[id(node)] < reader:
            crossing[id(node)] = node

    for node in order:
        args = () if free(node) else node.args
        own = max((stage[id(a)] for a in args), default=0)
        stage[id(node)] = own + (node.op == "row_mean" and not free(node))
        for arg in args:
            held_for(arg, own)
    computed = tuple(n for n in order if not free(n))
    stages = 1 + max(stage.values(), default=0)
    for terms in together:
        end = max(stage[id(t)] for t in terms)
        for term in terms:
            held_for(term, end)
    for node in last:
        held_for(node, stages - 1)
    return Cut(
        stage,
        computed,
        tuple(n for n in computed if n.op == "row_mean"),
        {key: slot for slot, key in enumerate(crossing)},
        free,
        stages,
    )
