"""A step's equations in stages: what needs all units, a mean or a product, waits until each has come there.

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
        products: the products with matrices, likewise.
        slots: id of a node that a later stage reads -> its slot.
        free: whether a node is read again at any stage.
        stages: their number.
        width: of a node, how many units it has.
    """

    stage: Mapping[int, int]
    order: tuple[Expr, ...]
    sums: tuple[Expr, ...]
    products: tuple[Expr, ...]
    slots: Mapping[int, int]
    free: Callable[[Expr], bool]
    stages: int
    width: Callable[[Expr], str]

    def nodes(self, stage: int, width: str) -> list[Expr]:
        """What a stage computes of a width, means apart."""
        own = [n for n in self.order if n.op != "row_mean" and self.stage[id(n)] == stage]
        return [n for n in own if self.width(n) == width]

    def added(self, stage: int, width: str) -> list[Expr]:
        """The means whose summands a stage computes."""
        return [m for m in self.sums if self.stage[id(m)] == stage + 1 and self.width(m) == width]

    def fed(self, stage: int, width: str) -> list[Expr]:
        """The products whose right side, of a width, is known from this stage on."""
        later = [p for p in self.products if self.stage[id(p)] == stage + 1]
        return [p for p in later if self.width(p.args[1]) == width]

    def formed(self, stage: int) -> list[Expr]:
        """The products that a stage begins with."""
        return [p for p in self.products if self.stage[id(p)] == stage]

    def means(self, stage: int) -> list[Expr]:
        """The means that a stage reads, or is the first that could."""
        own = [n for n in self.order if n.op != "row_mean" and self.stage[id(n)] == stage]
        read = {id(a) for n in own for a in n.args}
        return [m for m in self.sums if id(m) in read or self.stage[id(m)] == stage]

    def index(self, mean: Expr) -> int:
        """The place of a mean among the sums."""
        return next(k for k, node in enumerate(self.sums) if node is mean)

    def place(self, product: Expr) -> int:
        """The place of a product among the products."""
        return next(k for k, node in enumerate(self.products) if node is product)

    def last(self, terms: Sequence[Expr]) -> int:
        """The stage at which all of some values are known."""
        return max((self.stage[id(t)] for t in terms), default=0)


_PRODUCTS = ("matmul", "matmul_back")


def cut_forward(graph: Graph, width: Callable[[Expr], str]) -> Cut:
    """The stages of a cell's equations."""

    def free(node: Expr) -> bool:
        return node.op == "const" or (node.key is not None and node.key[0] in ("state", "param"))

    return _cut(graph.nodes, width, free, [])


def cut_backward(
    graph: Graph,
    width: Callable[[Expr], str],
    sums: Iterable[Sequence[Expr]],
    last: Iterable[Expr],
    roots: Iterable[Expr],
) -> Cut:
    """The stages of the gradients of a cell's equations.

    Args:
        graph: the equations.
        width: of a node.
        sums: gradients that are added to each other.
        last: those that the last stage reads.
        roots: all of them.
    """
    fixed = {id(graph.nodes[i]) for i in graph.names}
    fixed |= {id(n) for n in graph.nodes if n.op in ("row_mean", "matmul")}

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
    return _cut(tuple(order.values()), width, free, [*sums], list(last))


def _cut(
    order: Sequence[Expr],
    width: Callable[[Expr], str],
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
        between = node.op == "row_mean" or node.op in _PRODUCTS
        stage[id(node)] = own + (between and not free(node))
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
        tuple(n for n in computed if n.op in _PRODUCTS),
        {key: slot for slot, key in enumerate(crossing)},
        free,
        stages,
        width,
    )
