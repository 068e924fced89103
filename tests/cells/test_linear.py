"""Which cells are linear recurrences, and their alpha and beta, from the graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gatewise as gw
from gatewise.cells import REGISTRY, MinGRU, MinLSTM
from gatewise.cells.equations import OPERATIONS, Expr
from gatewise.cells.linear import recurrence, refusal
from gatewise.errors import OptionError
from linear_cells import LINEAR, NEARLY
from tolerances import assert_close

BUILT_IN = {"minlstm", "mingru"}


def evaluate(node: Expr, inputs: Any) -> Any:
    if node.key is not None:
        return inputs[node.key]
    if node.op == "const":
        return node.value
    return OPERATIONS[node.op](*(evaluate(a, inputs) for a in node.args))


def test_of_the_built_in_cells_these_are() -> None:
    assert {n for n, cell in REGISTRY.items() if refusal(cell.law) is None} == BUILT_IN


@pytest.mark.parametrize("kind", [MinGRU, MinLSTM, *LINEAR.values()])
def test_alpha_and_beta_are_the_next_state(kind: Any) -> None:
    law = kind.law
    found, width = recurrence(law), 3
    assert set(found.order) == set(law.states)
    keys = {n.key for n in law.graph.nodes if n.key is not None}
    inputs = {key: torch.randn(2, width, dtype=torch.float64) for key in keys}
    for (group, name), value in inputs.items():
        if group == "param":
            shape = (width,) if law.params[name] == "vector" else (width, width)
            inputs[group, name] = torch.randn(shape, dtype=torch.float64)
        elif group == "state" and name == "n":
            inputs[group, name] = value.abs()
    inputs.setdefault(("state", "h"), torch.randn(2, width, dtype=torch.float64))
    values = law.graph.run(inputs)
    for state in found.order:
        last = inputs.get(("state", state), torch.zeros(2, width, dtype=torch.float64))
        alpha, beta = (evaluate(part[state], inputs) for part in (found.alpha, found.beta))
        assert_close((alpha * last + beta).expand(2, width), values[state].expand(2, width))


def test_alpha_does_not_read_the_state() -> None:
    found = recurrence(MinGRU.law)

    def keys(node: Expr) -> set[Any]:
        own = set() if node.key is None else {node.key}
        return own.union(*(keys(a) for a in node.args))

    assert keys(found.alpha["h"]) == {("pre", "z")}
    assert keys(found.beta["h"]) == {("pre", "z"), ("pre", "n")}


def test_what_is_read_decides_the_order() -> None:
    assert recurrence(LINEAR["pooling"].law).order == ("c", "h")
    assert recurrence(LINEAR["mean"].law).order[-1] == "h"


@pytest.mark.parametrize("name", NEARLY)
def test_what_is_nearly_linear_is_refused(name: str) -> None:
    kind, reason = NEARLY[name]
    found = refusal(kind.law)
    assert found is not None
    assert reason in found
    with pytest.raises(OptionError, match="is not a linear recurrence: its"):
        recurrence(kind.law)


def test_a_graph_that_is_long_is_analysed() -> None:
    """Every node once, however often it is read."""

    @gw.cell
    def doubling(a: Any, s: Any) -> Any:
        value = a.x.z * s.h
        for _ in range(60):
            value = 0.5 * value + 0.5 * value
        return {"h": value + a.x.z}, {}

    assert refusal(doubling.law) is None
