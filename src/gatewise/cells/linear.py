"""Finds out whether a cell is a linear recurrence, from its graph. Knows no time and no tensors.

A linear recurrence has for each state s a next value alpha * s + beta, unit by unit, where alpha and beta do
not depend on s. Then no step has to wait for the gates of the last one: they are computed for all times at
once, and what is left, s[t] = alpha[t] s[t-1] + beta[t], is a scan.

The class that is found: no pre-activation reads h[t-1], and the states can be put in an order in which
each is affine in its own previous value, with coefficients that read the input, parameters, and the
previous and next values of the states before it. So c = f c' + i g with h = o tanh(c) belongs to it (first
c, then h, whose alpha is 0), and h = c / n with a normaliser n; two states that read each other do
not, nor does a state that stands in a sigmoid, a product with itself or a matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from gatewise.cells.base import Law
from gatewise.cells.equations import Expr, as_node
from gatewise.cells.graph import Graph
from gatewise.errors import OptionError

Apply = Callable[..., Any]
"""(operation, operands) -> value, on whatever the values are: nodes, or tensors."""


class Affine(NamedTuple):
    """alpha * s + beta, of the previous value s of one state; a number where it is one."""

    alpha: Any
    beta: Any


class NotAffine(Exception):
    """Says why a value is not alpha * s + beta."""


@dataclass(frozen=True)
class Recurrence:
    """A cell as a linear recurrence.

    Attributes:
        order: the states, each after those that its equations read.
        alpha: state -> the factor of its previous value; a node over those of the cell's graph.
        beta: state -> what is added to it.
    """

    order: tuple[str, ...]
    alpha: Mapping[str, Expr]
    beta: Mapping[str, Expr]


def combine(op: str, operands: Sequence[Any], apply: Apply) -> Any:
    """The value of an operation of which some operands are `Affine`, the others free of the state.

    Raises:
        NotAffine: if it is not affine.
    """
    if op not in _RULES:
        raise NotAffine(f"it stands in {op}")
    return _RULES[op](apply, *operands)


def _split(value: Any) -> Affine:
    return value if isinstance(value, Affine) else Affine(0.0, value)


def _is(value: Any, number: float) -> bool:
    return isinstance(value, int | float) and value == number


def _plus(apply: Apply, a: Any, b: Any) -> Any:
    if _is(a, 0) or _is(b, 0):
        return b if _is(a, 0) else a
    return _fold("add", apply, a, b)


def _minus(apply: Apply, a: Any, b: Any) -> Any:
    if _is(b, 0):
        return a
    return apply("neg", b) if _is(a, 0) else _fold("sub", apply, a, b)


def _times(apply: Apply, a: Any, b: Any) -> Any:
    if _is(a, 0) or _is(b, 0):
        return 0.0
    if _is(a, 1) or _is(b, 1):
        return b if _is(a, 1) else a
    return _fold("mul", apply, a, b)


_NUMBERS: dict[str, Callable[[float, float], float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
}


def _fold(op: str, apply: Apply, a: Any, b: Any) -> Any:
    """Two numbers are a number, without a node of their own."""
    if isinstance(a, int | float) and isinstance(b, int | float):
        return _NUMBERS[op](a, b)
    return apply(op, a, b)


def _add(apply: Apply, a: Any, b: Any) -> Affine:
    (a1, b1), (a2, b2) = _split(a), _split(b)
    return Affine(_plus(apply, a1, a2), _plus(apply, b1, b2))


def _sub(apply: Apply, a: Any, b: Any) -> Affine:
    (a1, b1), (a2, b2) = _split(a), _split(b)
    return Affine(_minus(apply, a1, a2), _minus(apply, b1, b2))


def _mul(apply: Apply, a: Any, b: Any) -> Affine:
    if isinstance(a, Affine) and isinstance(b, Affine):
        raise NotAffine("it is multiplied with itself")
    line, factor = (a, b) if isinstance(a, Affine) else (b, a)
    return Affine(_times(apply, factor, line.alpha), _times(apply, factor, line.beta))


def _div(apply: Apply, a: Any, b: Any) -> Affine:
    if isinstance(b, Affine):
        raise NotAffine("it is a divisor")
    alpha, beta = (0.0 if _is(part, 0) else apply("div", part, b) for part in a)
    return Affine(alpha, beta)


def _where(apply: Apply, condition: Any, a: Any, b: Any) -> Affine:
    if isinstance(condition, Affine):
        raise NotAffine("it stands in a condition")

    def choose(this: Any, other: Any) -> Any:
        if isinstance(this, int | float) and _is(other, this):
            return this
        return apply("where", condition, this, other)

    (a1, b1), (a2, b2) = _split(a), _split(b)
    return Affine(choose(a1, a2), choose(b1, b2))


def _neg(apply: Apply, a: Affine) -> Affine:
    return Affine(*(-p if isinstance(p, int | float) else apply("neg", p) for p in a))


_RULES: dict[str, Callable[..., Affine]] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "identity": lambda apply, a: a,
    "where": _where,
}


def refusal(law: Law) -> str | None:
    """Why the cell is not a linear recurrence of the class above, or None."""
    found = _analyse(law)
    return found if isinstance(found, str) else None


def recurrence(law: Law) -> Recurrence:
    """The cell as a linear recurrence.

    Raises:
        OptionError: if it is none; the message says why.

    >>> from gatewise.cells import MinGRU
    >>> recurrence(MinGRU.law).order
    ('h',)
    """
    found = _analyse(law)
    if isinstance(found, str):
        raise OptionError(f"cell {law.name} is not a linear recurrence: {found}")
    return found


@cache
def _analyse(law: Law) -> Recurrence | str:
    """The recurrence, or why it is none."""
    if law.rounds:
        return "x and h[t-1] modulate each other before its gates"
    graph = law.graph
    order: list[str] = []
    found: dict[str, Affine] = {}
    waiting, reasons = list(law.states), {}
    while waiting:
        for state in waiting:
            try:
                found[state] = _Reader(law, graph, state, order).next_value()
            except NotAffine as why:
                reasons[state] = f"its {state} is not linear in {state}[t-1]: {why}"
            else:
                order.append(state)
                waiting.remove(state)
                break
        else:
            return reasons[waiting[0]]
    return Recurrence(
        tuple(order),
        {n: as_node(line.alpha) for n, line in found.items()},
        {n: as_node(line.beta) for n, line in found.items()},
    )


class _Reader:
    """The next value of one state in terms of its previous one, when `solved` are known for all times."""

    def __init__(self, law: Law, graph: Graph, state: str, solved: Sequence[str]) -> None:
        self._graph, self._state, self._solved = graph, state, solved
        self._recurrent = law.recurrent_blocks
        self._next = {place: name for name, place in graph.states.items()}
        self._known: dict[int, Any] = {}

    def next_value(self) -> Affine:
        return _split(self._value(self._graph.states[self._state]))

    def _value(self, place: int) -> Any:
        if place not in self._known:
            self._known[place] = self._read(place)
        return self._known[place]

    def _read(self, place: int) -> Any:
        node = self._graph.nodes[place]
        state = self._next.get(place)
        if state is not None and state != self._state:
            return self._of_solved(state, node, f"the next {state}")
        if node.op == "const":
            return node.value
        if node.key is not None:
            return self._input(node)
        values = [self._value(i) for i in self._graph.operands(place)]
        if not any(isinstance(v, Affine) for v in values):
            return node
        return combine(node.op, values, lambda op, *args: Expr(op, tuple(map(as_node, args))))

    def _input(self, node: Expr) -> Any:
        assert node.key is not None
        kind, name = node.key
        if kind == "state":
            if name == self._state:
                return Affine(1.0, 0.0)
            return self._of_solved(name, node, f"s.{name}")
        if kind in ("pre", "pre.h") and name in self._recurrent:
            raise NotAffine(f"a.{name} reads h[t-1] through a recurrent matrix")
        return node

    def _of_solved(self, state: str, node: Expr, what: str) -> Expr:
        if state not in self._solved:
            raise NotAffine(f"it reads {what}, which is not known for all times before it")
        return node
