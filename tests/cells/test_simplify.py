"""Simplified expressions have the values of those that they stand for."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import gatewise as gw
from gatewise.cells.derive import differentiate
from gatewise.cells.equations import OPERATIONS, Expr
from gatewise.cells.simplify import Simplifier

X, Y = (Expr("input", key=("state", n)) for n in "xy")
NUMBERS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.5, float("inf"), float("nan")])


def nodes() -> st.SearchStrategy[Expr]:
    leaves = st.one_of(st.sampled_from([X, Y]), NUMBERS.map(lambda v: Expr("const", value=v)))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(lambda op, a, b: Expr(op, (a, b)), st.sampled_from(BINARY), inner, inner),
            st.builds(lambda a: Expr("neg", (a,)), inner),
            st.builds(lambda a, b: gw.where(a > 0, a, b), inner, inner),
        ),
        max_leaves=12,
    )


BINARY = ["add", "sub", "mul", "div"]


def value(node: Expr, inputs: dict[str, Tensor]) -> Tensor:
    if node.op == "const":
        return torch.tensor(node.value, dtype=torch.float64)
    if node.key is not None:
        return inputs[node.key[1]]
    return OPERATIONS[node.op](*(value(a, inputs) for a in node.args))


def size(node: Expr) -> int:
    return 1 + sum(map(size, node.args))


@given(nodes())
def test_values_do_not_change(node: Expr) -> None:
    numbers = torch.tensor([0.0, -1.5, 3.0, torch.inf, -torch.inf, torch.nan], dtype=torch.float64)
    inputs = {"x": numbers, "y": numbers.flip(0)}
    small = Simplifier()(node)
    assert size(small) <= size(node)
    before, after = (value(n, inputs).expand(6) for n in (node, small))
    if any(n.op == "div" for n in _all(node)):  # by a zero that has lost its sign
        before, after = before.abs(), after.abs()
        keep = before.isfinite() & after.isfinite()
        before, after = before[keep], after[keep]
    torch.testing.assert_close(after, before, rtol=0, atol=0, equal_nan=True)


def _all(node: Expr) -> list[Expr]:
    return [node, *(n for a in node.args for n in _all(a))]


def test_what_is_written_smaller() -> None:
    simplify = Simplifier()
    assert simplify(X * 1 + 0) is X
    negated = -(X / 1)
    assert simplify(-negated) is X
    assert simplify(1 * X - 0.0) is X
    assert simplify(gw.where(X > 0, Y + 0, Y)) is Y
    assert simplify(X * (2 * Expr("const", value=3.0))).args[1].value == 6
    assert simplify(0 * X).op == "mul"  # NaN where x is not finite
    twice = simplify((X + Y) * (X + Y))
    assert twice.args[0] is twice.args[1]


def test_what_is_fixed_stays() -> None:
    kept = X * 1
    assert Simplifier([kept])(kept + 0) is kept


def test_gradients_are_simplified() -> None:
    def cell(a: Any, s: Any) -> Any:
        return {"h": gw.minimum(a.z, 1.0) * 1.0 + s.h}, {}

    backward = differentiate(gw.cell(cell).law.graph)
    for node in backward.gradients.values():
        for part in _all(node):
            assert not (
                part.op == "mul" and any(a.op == "const" and a.value == 1 for a in part.args)
            )
