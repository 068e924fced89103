"""Layer normalisation written out: means over the units, and arithmetic unit by unit.

So that an engine which computes a few units at a time knows where it has to meet the others: at each `row_mean`.
"""

from __future__ import annotations

from dataclasses import replace

from gatewise.cells.equations import NORM_EPSILON, Expr, sqrt
from gatewise.cells.graph import Graph


def row_mean(v: Expr) -> Expr:
    """The mean over the units, the same for each of them."""
    return Expr("row_mean", (v,))


def written_out(graph: Graph) -> Graph:
    """The same equations without `layer_norm`; the same graph where there is none.

    The variance is that of what is centred already: the difference of two large squares would lose its digits.
    """
    if all(node.op != "layer_norm" for node in graph.nodes):
        return graph
    nodes: list[Expr] = []
    places: dict[int, int] = {}
    moved: list[int] = []

    def place(node: Expr) -> Expr:
        if id(node) not in places:
            for arg in node.args:
                place(arg)
            places[id(node)] = len(nodes)
            nodes.append(node)
        return node

    for index, node in enumerate(graph.nodes):
        args = tuple(nodes[moved[i]] for i in graph.operands(index))
        if node.op == "layer_norm":
            node = _layer_norm(*args)
        elif any(a is not b for a, b in zip(args, node.args, strict=True)):
            node = replace(node, args=args)
        moved.append(places[id(place(node))])
    return Graph(
        nodes=tuple(nodes),
        names={moved[i]: name for i, name in graph.names.items()},
        states={name: moved[i] for name, i in graph.states.items()},
        gates={name: moved[i] for name, i in graph.gates.items()},
        pre=graph.pre,
        parts=graph.parts,
        _places={i: tuple(places[id(a)] for a in node.args) for i, node in enumerate(nodes)},
    )


def _layer_norm(v: Expr, scale: Expr, shift: Expr) -> Expr:
    mean = row_mean(v)
    centred = v - mean
    inverse = 1 / sqrt(row_mean(centred * centred) + NORM_EPSILON)
    return Expr("normal", (v, mean, inverse)) * scale + shift


def normal_gradient(
    d: Expr, y: Expr, v: Expr, mean: Expr, inverse: Expr
) -> tuple[Expr | None, ...]:
    """Of ``normal``, (v - mean) * inverse: as mean and inverse follow from v, it is all v's."""
    return (d - row_mean(d) - y * row_mean(d * y)) * inverse, None, None
