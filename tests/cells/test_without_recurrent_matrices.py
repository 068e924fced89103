"""Cells that have no recurrent matrix: their weight_hh has no rows, and is a weight like any other."""

from __future__ import annotations

import pytest
import torch

import gatewise as gw
from gatewise.cells import REGISTRY
from gatewise.cells.base import weight_shapes
from gatewise.optim import clip_gradients
from parity import CELLS
from tolerances import assert_close

EACH = pytest.mark.parametrize("name", [n for n in CELLS if not REGISTRY[n].law.recurrent_blocks])


@EACH
@pytest.mark.parametrize("bias", [True, False])
def test_the_empty_weights_have_empty_gradients(name: str, bias: bool) -> None:
    """No gradient at all would be a special case for whoever sums, clips or sends them."""
    assert weight_shapes(REGISTRY[name].law, 3, 4)["weight_hh"] == (0, 4)
    stack = gw.Stack(name, 3, 4, 2, bias=bias, bidirectional=True)
    x = torch.randn(5, 2, 3, requires_grad=True)
    gradients = torch.autograd.grad(stack(x).h.sum(), [x, *stack.parameters()])
    shapes = [tuple(g.shape) for g in gradients]
    assert shapes == [(5, 2, 3), *(tuple(p.shape) for p in stack.parameters())]
    cell = REGISTRY[name](3, 4, bias=bias)
    cell(torch.randn(2, 3)).sum().backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for p in cell.parameters())


@EACH
def test_they_go_through_a_state_dict(name: str) -> None:
    stack, other = gw.Stack(name, 3, 4, 2), gw.Stack(name, 3, 4, 2)
    x = torch.randn(5, 2, 3)
    state = stack.state_dict()
    assert state["weight_hh_l1"].shape == (0, 4)
    other.load_state_dict(state, strict=True)
    assert torch.equal(other(x).h, stack(x).h)


@EACH
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_they_are_trained(name: str, optimizer: type[torch.optim.Optimizer]) -> None:
    stack, x = gw.Stack(name, 3, 4), torch.randn(5, 2, 3)
    steps = optimizer(stack.parameters(), lr=0.01)  # type: ignore[call-arg]
    costs = []
    for _ in range(20):
        steps.zero_grad()
        cost = (stack(x).h - 1).pow(2).sum()
        cost.backward()
        clip_gradients(stack.named_parameters(), norm=1.0)
        steps.step()
        costs.append(float(cost.detach()))
    assert costs[-1] < costs[0]


def test_gates_of_a_minimal_lstm_sum_to_one_however_closed_both_are() -> None:
    """In the paper's words f / (f + i), which is 0 / 0 there."""
    cell = REGISTRY["minlstm"](3, 4, init_bias={"f": -300.0, "i": -300.0})
    out = gw.unroll(cell, torch.randn(5, 2, 3), record=gw.Record("f", "i"))
    assert out.record is not None
    assert_close(out.record["f"] + out.record["i"], torch.ones(5, 2, 4))
    assert out.h.isfinite().all()
