"""Backward equations of a cell, by reverse-mode differentiation of its graph.

The result is made of the same nodes as the graph, so that what runs it forward runs it backward. It
knows where a control or zoneout may stand (at a name, and at a state), not what they do: those places are
nodes of their own (`PLACES`), which an engine fills in or passes through.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

from gatewise.cells.equations import Expr, sigmoid, where
from gatewise.cells.graph import Graph
from gatewise.cells.norms import normal_gradient
from gatewise.cells.simplify import Simplifier
from gatewise.errors import OptionError

PLACES = {
    "raw": "the value of a named node before its control",
    "through": "a gradient on its way back through the control of `key`",
    "kept": "the part of a state's gradient that zoneout hands to the previous state",
    "passed": "the part of a state's gradient that zoneout lets through to the new value",
}
"""Operations that stand in a backward graph beside those of the forward one."""

Rule = Callable[..., "tuple[Expr | None, ...]"]


def _minimum(d: Expr, _: Expr, a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """Where both are equal each gets half, as torch has it."""
    return (
        where(a < b, d, where(a > b, 0.0, 0.5 * d)),
        where(b < a, d, where(b > a, 0.0, 0.5 * d)),
    )


def _maximum(d: Expr, y: Expr, a: Expr, b: Expr) -> tuple[Expr, Expr]:
    to_b, to_a = _minimum(d, y, a, b)
    return to_a, to_b


RULES: dict[str, Rule] = {
    "add": lambda d, y, a, b: (d, d),
    "sub": lambda d, y, a, b: (d, -d),
    "mul": lambda d, y, a, b: (d * b, d * a),
    "div": lambda d, y, a, b: (d / b, -(d * y) / b),
    "neg": lambda d, y, a: (-d,),
    "gt": lambda d, y, a, b: (None, None),
    "lt": lambda d, y, a, b: (None, None),
    "ge": lambda d, y, a, b: (None, None),
    "le": lambda d, y, a, b: (None, None),
    "identity": lambda d, y, a: (d,),
    "sigmoid": lambda d, y, a: (d * (y * (1 - y)),),
    "tanh": lambda d, y, a: (d * (1 - y * y),),
    "relu": lambda d, y, a: (where(y > 0, d, 0.0),),
    "exp": lambda d, y, a: (d * y,),
    "log": lambda d, y, a: (d / a,),
    "sqrt": lambda d, y, a: (d / (2 * y),),
    "softplus": lambda d, y, a: (d * sigmoid(a),),
    "minimum": _minimum,
    "maximum": _maximum,
    "where": lambda d, y, c, a, b: (None, where(c, d, 0.0), where(c, 0.0, d)),
    "normal": normal_gradient,
}
"""Operation -> its gradient: from that of the result d, the result y and the operands, to theirs.

What reads other units (layer_norm, matmul) has none here: no lane can compute it alone. `norms` writes a
layer_norm out; the means in it have none either, since "normal" takes it all. A product M v with a matrix
hands on "matmul_back", M^T d; the gradient of M itself is d times v, over rows and steps.
"""


@dataclass(frozen=True)
class Backward:
    """The gradients of one step, as nodes over those of the forward graph.

    Attributes:
        gradients: input key ("pre" | "pre.x" | "pre.h" | "state" | "param", name) -> its gradient,
            for those that have one. Inputs ("grad", state) are the gradients of the next states.
        products: place of a matmul in the graph -> the gradient of its result.
    """

    gradients: Mapping[tuple[str, str], Expr]
    products: Mapping[int, Expr]


def differentiate(graph: Graph) -> Backward:
    """The backward equations of `graph`.

    Raises:
        OptionError: if an operation has no gradient here (layer_norm, which `norms` writes out).
    """
    products: dict[int, Expr] = {}
    parts: dict[int, list[Expr]] = {i: [] for i in range(len(graph.nodes))}
    carried: dict[tuple[str, str], list[Expr]] = {}
    for state, place in graph.states.items():
        parts[place].append(Expr("input", key=("grad", state)))
    state_at = {place: state for state, place in graph.states.items()}
    for place in reversed(range(len(graph.nodes))):
        if not parts[place]:
            continue
        node, gradient = graph.nodes[place], reduce(add, parts[place])
        if place in state_at:
            state = state_at[place]
            gradient = Expr("through", (gradient,), key=("name", state))
            kept = Expr("kept", (gradient,), key=("state", state))
            carried.setdefault(("state", state), []).append(kept)
            gradient = Expr("passed", (gradient,), key=("state", state))
            gradient = Expr("through", (gradient,), key=("name", f"{state}.new"))
        elif place in graph.names:
            gradient = Expr("through", (gradient,), key=("name", graph.names[place]))
        if node.op == "input":
            assert node.key is not None
            carried.setdefault(node.key, []).append(_at_input(graph, node, gradient))
        elif node.op == "matmul":
            products[place] = gradient
            back = Expr("matmul_back", (node.args[0], gradient), key=("product", str(place)))
            parts[graph.operands(place)[1]].append(back)
        elif node.op != "const":
            _spread(graph, place, gradient, parts)
    simplify = Simplifier(graph.nodes)
    return Backward(
        {key: simplify(reduce(add, terms)) for key, terms in carried.items()},
        {place: simplify(gradient) for place, gradient in products.items()},
    )


def _at_input(graph: Graph, node: Expr, gradient: Expr) -> Expr:
    assert node.key is not None
    name = graph.inputs.get(node.key)
    return gradient if name is None else Expr("through", (gradient,), key=("name", name))


def _spread(graph: Graph, place: int, gradient: Expr, parts: dict[int, list[Expr]]) -> None:
    """Hand the gradient of a node to those that it reads."""
    node = graph.nodes[place]
    if node.op not in RULES:
        raise OptionError(f"{node.op} reads other units: it has no gradient unit by unit")
    result = Expr("raw", (node,)) if place in graph.names else node
    found = RULES[node.op](gradient, result, *node.args)
    for operand, part in zip(graph.operands(place), found, strict=True):
        if part is not None and graph.nodes[operand].op != "const":
            parts[operand].append(part)
