"""torch's transforms of functions, through the engine that is chosen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import gatewise as gw
from parity import CELLS
from tolerances import assert_close

# torch's own, when forward-mode AD loads its decompositions.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

ALL = pytest.mark.parametrize("cell", CELLS)


def _stack(cell: str) -> gw.Stack:
    return gw.Stack(cell, 2, 3, dtype=torch.float64)


@ALL
def test_vmap_is_a_loop(cell: str) -> None:
    stack = _stack(cell)
    xs = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    assert_close(vmap(lambda x: stack(x).h)(xs), torch.stack([stack(x).h for x in xs]))


@ALL
def test_gradients_for_each_sample(cell: str) -> None:
    stack = _stack(cell)
    weights = {name: p.detach() for name, p in stack.named_parameters()}
    xs = torch.randn(4, 3, 1, 2, dtype=torch.float64)

    def cost(w: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(stack, w, (x,)).h.pow(2).sum()

    each = vmap(grad(cost), in_dims=(None, 0))(weights, xs)
    for k, x in enumerate(xs):
        one = torch.autograd.grad(stack(x).h.pow(2).sum(), list(stack.parameters()))
        for name, expected in zip(weights, one, strict=True):
            assert_close(each[name][k], expected, gradient=True)


@ALL
def test_forward_and_reverse_jacobians_agree(cell: str) -> None:
    stack = _stack(cell)
    x = torch.randn(2, 1, 2, dtype=torch.float64)

    def run(x: Tensor) -> Tensor:
        return stack(x).h

    backward, forward = jacrev(run)(x), jacfwd(run)(x)
    assert_close(forward, backward, gradient=True)
    tangent = torch.randn_like(x)
    value, moved = jvp(run, (x,), (tangent,))
    assert_close(value, run(x))
    assert_close(moved, torch.tensordot(backward, tangent, 3), gradient=True)
    _, pull = vjp(run, x)
    assert_close(pull(moved)[0], torch.tensordot(moved, backward, 3), gradient=True)


@ALL
def test_hessian_is_symmetric_and_that_of_autograd(cell: str) -> None:
    stack = _stack(cell)
    x = torch.randn(2, 1, 2, dtype=torch.float64)

    def cost(x: Tensor) -> Tensor:
        return stack(x).h.pow(2).sum()

    second = hessian(cost)(x).view(4, 4)
    assert_close(second, second.T, gradient=True)
    expected = torch.autograd.functional.hessian(cost, x).view(4, 4)
    assert_close(second, expected, gradient=True)


def test_vmap_with_lengths_records_and_controls() -> None:
    stack = _stack("lstm")
    xs = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    control = gw.Control.keep(time=[1], units=[0]) | gw.Control.scale("o", 0.5)

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        out = stack(x, lengths=[3, 1], record=gw.Record("c"), control=control)
        return out.h, out.record["layers.0.c"]

    for mapped, looped in zip(vmap(run)(xs), zip(*(run(x) for x in xs), strict=True), strict=True):
        assert_close(mapped, torch.stack(looped))


def test_checkpointing_draws_the_same_masks() -> None:
    stack = gw.Stack("lstm", 3, 4, 2, dropout=0.5, weight_drop=0.3, zoneout=0.2)
    x = torch.randn(5, 2, 3, requires_grad=True)
    torch.manual_seed(2)
    (plain,) = torch.autograd.grad(stack(x).h.sum(), x)
    torch.manual_seed(2)
    h = torch.utils.checkpoint.checkpoint(lambda x: stack(x).h, x, use_reentrant=False)
    (again,) = torch.autograd.grad(h.sum(), x)
    assert torch.equal(plain, again)
