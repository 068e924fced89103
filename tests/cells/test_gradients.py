"""First and second derivatives of every cell against finite differences, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import gatewise as gw
from gatewise.cells import REGISTRY
from gatewise.types import state_tensors
from parity import CELLS, spread

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "learned": {"learned_state": True},
    "projected": {"proj_size": 2},
}


def _cases() -> list[tuple[str, str]]:
    wanted = [(name, option) for name in CELLS for option in OPTIONS]
    return [(n, o) for n, o in wanted if o != "projected" or CELLS[n].projects]


def _function(cell: gw.cells.Cell, engine: str) -> tuple[Any, tuple[Tensor, ...]]:
    """A function of x and of all weights as one vector: fast_mode perturbs each input once."""
    names, weights = zip(*cell.named_parameters(), strict=True)
    sizes = [w.numel() for w in weights]

    def run(x: Tensor, theta: Tensor) -> Tensor:
        parts = zip(names, weights, theta.split(sizes), strict=True)
        values = {name: part.view_as(w) for name, w, part in parts}
        with torch.nn.utils.stateless._reparametrize_module(cell, values):
            out = gw.unroll(cell, x, engine=engine)
        return torch.cat([out.h.flatten(), *(s.flatten() for s in state_tensors(out.state))])

    x = torch.randn(2, 2, cell.input_size, dtype=torch.float64, requires_grad=True)
    theta = torch.cat([w.detach().flatten() for w in weights]).requires_grad_()
    return run, (x, theta)


@pytest.mark.parametrize(("name", "option"), _cases())
def test_gradients_are_those_of_finite_differences(name: str, option: str) -> None:
    torch.manual_seed(3)
    cell = REGISTRY[name](2, 3, dtype=torch.float64, **OPTIONS[option])
    spread(cell, 0.3)
    run, inputs = _function(cell, "reference")
    assert gradcheck(run, inputs, fast_mode=True)
    assert gradgradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("name", CELLS)
def test_gradients_exhaustively(name: str) -> None:
    """Every entry, not a random direction: one cell at a small size."""
    torch.manual_seed(4)
    cell = REGISTRY[name](1, 2, dtype=torch.float64)
    spread(cell, 0.3)
    run, inputs = _function(cell, "reference")
    assert gradcheck(run, inputs)


@pytest.mark.parametrize("name", [n for n, row in CELLS.items() if row.torch])
def test_second_derivatives_of_the_engine_chosen(name: str) -> None:
    torch.manual_seed(3)
    cell = REGISTRY[name](2, 3, dtype=torch.float64)
    run, inputs = _function(cell, "auto")
    assert gw.unroll(cell, inputs[0]).engine == "closed"
    assert gradcheck(run, inputs, fast_mode=True)
    assert gradgradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", [n for n, row in CELLS.items() if row.torch])
def test_double_backward_agrees_between_engines(
    name: str, training: bool, dtype: torch.dtype
) -> None:
    """float32 has kernels of its own (oneDNN), which must give second derivatives too."""
    stack = gw.Stack(name, 3, 4, 2, dtype=dtype).train(training)
    x = torch.randn(5, 2, 3, dtype=dtype, requires_grad=True)
    second = []
    for engine in ("reference", "closed"):
        h = stack(x, engine=engine).h
        (first,) = torch.autograd.grad(h.pow(2).sum(), x, create_graph=True)
        second.append(torch.autograd.grad(first.pow(2).sum(), (x, *stack.parameters())))
    for mine, other in zip(*second, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)
