"""Smaller expressions of the same values: what differentiation writes down and nobody would by hand.

Only what is exact in floating point: numbers folded (in double precision), x * 1, x / 1, x + 0, x - 0, -(-x), a condition with one
outcome, and the same operation on the same operands written once. Not 0 * x, which is NaN where x is not
finite, nor 1 - (1 - x), which rounds. (x + 0 forgets the sign of a zero.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from gatewise.cells.equations import Expr

_FOLDED: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "neg": lambda a: -a,
}


class Simplifier:
    """Simplifies nodes; equal parts of all that it is given become one node.

    Args:
        fixed: nodes that stay as they are: an engine knows them by identity.
    """

    def __init__(self, fixed: Collection[Expr] = ()) -> None:
        self._fixed = {id(node) for node in fixed}
        self._done: dict[int, Expr] = {}
        self._known: dict[tuple[object, ...], Expr] = {}
        self._alive: list[Expr] = []  # so that no id is given twice

    def __call__(self, node: Expr) -> Expr:
        """The node, or a smaller one of the same value."""
        if id(node) in self._fixed:
            return node
        if id(node) not in self._done:
            self._alive.append(node)
            args = tuple(self(arg) for arg in node.args)
            same = all(a is b for a, b in zip(args, node.args, strict=True))
            new = node if same else Expr(node.op, args, node.key, node.value)
            self._done[id(node)] = self._once(_smaller(new))
        return self._done[id(node)]

    def _once(self, node: Expr) -> Expr:
        if id(node) in self._fixed:
            return node
        value = (node.value, math.copysign(1.0, node.value))
        key = (node.op, node.key, value, *map(id, node.args))
        return self._known.setdefault(key, node)


def _smaller(node: Expr) -> Expr:
    """One step, on a node whose operands are simplified."""
    numbers = [a.value for a in node.args if a.op == "const"]
    if node.args and len(numbers) == len(node.args) and node.op in _FOLDED:
        return Expr("const", value=float(_FOLDED[node.op](*numbers)))
    if node.op == "neg" and node.args[0].op == "neg":
        return node.args[0].args[0]
    if node.op == "where" and node.args[1] is node.args[2]:
        return node.args[1]
    if len(node.args) == 2:
        left, right = node.args
        if _is(right, {"mul": 1.0, "div": 1.0, "add": 0.0, "sub": 0.0}.get(node.op)):
            return left
        if _is(left, {"mul": 1.0, "add": 0.0}.get(node.op)):
            return right
    return node


def _is(node: Expr, value: float | None) -> bool:
    return value is not None and node.op == "const" and node.value == value
