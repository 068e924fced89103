"""Sensitivities through time against plain autograd, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import gatewise as gw
from gatewise import gradients
from gatewise.errors import OptionError, ShapeError
from gatewise.probe import Control

T, B, H = 9, 2, 4
WIDTH = 3


def squares(y: Tensor) -> Tensor:
    return (y * y).sum(2)


def by_hand(net: Any, x: Tensor, layer: int, wrt: str) -> Tensor:
    """The matrix by torch's own cells in a plain loop, and one backward pass for each pair."""
    kind = {"LSTM": torch.nn.LSTMCell, "GRU": torch.nn.GRUCell, "RNN": torch.nn.RNNCell}
    cells = []
    for one in range(net.num_layers):
        cell = kind[type(net).__name__](WIDTH if one == 0 else H, H, dtype=torch.float64)
        for name, weight in cell.named_parameters():
            weight.data = getattr(net, f"{name}_l{one}").data
        cells.append(cell)
    states: list[Any] = [None] * len(cells)
    kept, outputs = [], []
    for step in x:
        below = step
        for one, cell in enumerate(cells):
            states[one] = cell(below, states[one])
            below = states[one][0] if isinstance(states[one], tuple) else states[one]
        parts = states[layer] if isinstance(states[layer], tuple) else (states[layer],)
        kept.append(dict(zip("hc", parts, strict=False)))
        outputs.append(below)
    costs = squares(torch.stack(outputs))
    found = torch.zeros(len(x), len(x), dtype=torch.float64)
    for t in range(len(x)):
        for k in range(t + 1):
            wanted = list(kept[k].values()) if wrt == "state" else [kept[k][wrt]]
            grads = torch.autograd.grad(
                costs[t].sum(), wanted, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            found[t, k] = torch.cat(grads, 1).norm(dim=1).mean()
    return found


@pytest.mark.parametrize("layer", [0, -1])
@pytest.mark.parametrize(
    ("kind", "wrt"),
    [("LSTM", "h"), ("LSTM", "c"), ("LSTM", "state"), ("GRU", "h"), ("RNN", "state")],
)
def test_the_matrix_is_that_of_plain_autograd(kind: str, wrt: str, layer: int) -> None:
    net = getattr(gw.nn, kind)(WIDTH, H, num_layers=2, dtype=torch.float64)
    x = torch.randn(T, B, WIDTH, dtype=torch.float64)
    expected = by_hand(net, x, layer, wrt)
    found = gradients.flow(net, x, squares, layer=layer, wrt=wrt)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    profile = gradients.lag_profile(net, x, squares, layer=layer, wrt=wrt)
    torch.testing.assert_close(profile.norms.flip(0), expected[-1], rtol=1e-10, atol=1e-14)


def shifted(net: Any, x: Tensor, cost: Callable[[Tensor], Tensor], name: str) -> Tensor:
    """The matrix by adding a number where the name is defined, in one graph, a pass for each cost."""
    added = torch.zeros(len(x), B, net.hidden_size, dtype=x.dtype, requires_grad=True)
    out = gw.unroll(net, x, engine="reference", control=Control.add(name, added))
    costs = cost(out.h).sum(1)
    rows = [torch.autograd.grad(one, added, retain_graph=True)[0] for one in costs]
    norms: Tensor = torch.linalg.vector_norm(torch.stack(rows), dim=-1).mean(dim=-1)
    return norms


@pytest.mark.parametrize("cell", ["PeepholeLSTM", "LayerNormLSTM", "MinLSTM", "SLSTM"])
def test_any_cell(cell: str) -> None:
    net = getattr(gw.cells, cell)(WIDTH, H, dtype=torch.float64)
    x = torch.randn(T, B, WIDTH, dtype=torch.float64)
    found = gradients.flow(net, x, squares)
    torch.testing.assert_close(found, shifted(net, x, squares, "h"), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("wrt", ["h", "c", "state"])
def test_a_projected_h_is_what_the_next_step_reads(wrt: str) -> None:
    net = gw.nn.LSTM(WIDTH, 6, proj_size=2, dtype=torch.float64)
    x = torch.randn(5, 1, WIDTH, dtype=torch.float64)
    h, c, kept = torch.zeros(1, 2).double(), torch.zeros(1, 6).double(), []
    for step in x:
        total = step @ net.weight_ih_l0.T + h @ net.weight_hh_l0.T + net.bias_ih_l0 + net.bias_hh_l0
        i, f, g, o = total.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = (o.sigmoid() * c.tanh()) @ net.weight_hr_l0.T
        kept.append({"h": [h], "c": [c], "state": [h, c]})
    expected = torch.zeros(5, 5, dtype=torch.float64)
    for t in range(5):
        for k in range(t + 1):
            cost = kept[t]["h"][0].square().sum()
            grads = torch.autograd.grad(
                cost, kept[k][wrt], retain_graph=True, allow_unused=True, materialize_grads=True
            )
            expected[t, k] = torch.cat(grads, 1).norm()
    found = gradients.flow(net, x, squares, wrt=wrt)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    cell = gw.cells.LSTM(WIDTH, 6, proj_size=2, dtype=torch.float64)
    cell.load_state_dict({name[:-3]: value for name, value in net.state_dict().items()})
    torch.testing.assert_close(gradients.flow(cell, x, squares, wrt=wrt), found)


@pytest.mark.parametrize("share", [1.0, 1e-5])
def test_costs_that_look_at_other_steps(share: float) -> None:
    net = gw.cells.LSTM(WIDTH, H, dtype=torch.float64)
    x = torch.randn(T, B, WIDTH, dtype=torch.float64)

    def around(y: Tensor) -> Tensor:  # each cost sees the step before and the one after
        total = squares(y)
        return total + share * (torch.roll(total, 1, 0) + torch.roll(total, -1, 0))

    found = gradients.flow(net, x, around)
    torch.testing.assert_close(found, shifted(net, x, around, "h"), rtol=1e-10, atol=1e-14)
    assert found.triu(1).any()


def test_two_directions_have_no_last_word() -> None:
    net = gw.nn.LSTM(WIDTH, H, bidirectional=True, dtype=torch.float64)
    x = torch.randn(T, B, WIDTH, dtype=torch.float64)
    found = gradients.flow(net, x, squares, wrt="state")
    assert found.triu(1).any()
    assert found.tril(-1).any()


def test_a_start_state_and_training_mode_are_left_alone() -> None:
    net = gw.Stack("lstm", WIDTH, H, num_layers=2, dropout=0.5, zoneout=0.2).double()
    x = torch.randn(T, B, WIDTH, dtype=torch.float64)
    state = net(x).state
    found = gradients.flow(net, x, squares, state=state)
    again = gradients.flow(net, x, squares, state=state)
    assert torch.equal(found, again)
    assert net.training
    assert not torch.equal(found, gradients.flow(net, x, squares))


def test_what_has_nearly_vanished_is_no_zero_in_single_precision() -> None:
    cell = gw.cells.RNN(1, 2)
    with torch.no_grad():
        for weight in cell.parameters():
            weight.zero_()
        cell.weight_hh.copy_(0.01 * torch.eye(2))
    x = torch.zeros(16, 1, 1)
    found = gradients.lag_profile(cell, x, lambda y: y.sum(2))
    expected = 2**0.5 * 0.01 ** torch.arange(16, dtype=torch.float64)  # to 1e-30
    torch.testing.assert_close(found.norms.double(), expected, rtol=1e-5, atol=0)
    row = gradients.flow(cell, x, lambda y: y.sum(2))[-1]
    torch.testing.assert_close(row.flip(0), found.norms, rtol=1e-5, atol=0)
    assert found.decay() == pytest.approx(math.log(0.01), rel=1e-6)


def test_by_lag_and_what_is_said_of_a_profile() -> None:
    matrix = torch.tensor([[4.0, 0, 0], [2, 4, 0], [1, 2, 4]])
    norms = gradients.by_lag(matrix)
    assert norms.tolist() == [4, 2, 1]
    profile = gradients.Profile(norms, "h", 0)
    assert profile.decay(0) == pytest.approx(-torch.log(torch.tensor(2.0)).item())
    assert profile.reach(0.5) == 1
    assert profile.mean_lag == pytest.approx(4 / 7)
    nothing = gradients.Profile(torch.zeros(3), "h", 0)
    assert (nothing.reach(), nothing.mean_lag) == (0, 0.0)


def test_what_is_wrong_is_said() -> None:
    net = gw.cells.GRU(WIDTH, H)
    x = torch.randn(T, B, WIDTH)
    with pytest.raises(OptionError, match="expected one of h, state of gru, found 'c'"):
        gradients.flow(net, x, squares, wrt="c")
    with pytest.raises(OptionError, match="layer: expected -1 to 0 of 1 layers, found 1"):
        gradients.flow(net, x, squares, layer=1)
    with pytest.raises(ShapeError, match="a cost for each step and column"):
        gradients.flow(net, x, lambda y: y.sum())
    for empty in (x[:0], x[:, :0]):
        with pytest.raises(ShapeError, match="at least one step and one column"):
            gradients.flow(net, empty, squares)
    for look in (gradients.flow, gradients.lag_profile):
        for one in (net, gw.nn.GRU(WIDTH, H, bidirectional=True)):
            with pytest.raises(ShapeError, match="constants"):
                look(one, x, lambda y: torch.zeros(T, B))
    with pytest.raises(OptionError, match=r"run\.model\.stack"):
        gradients.flow(torch.nn.LSTM(WIDTH, H), x, squares)  # type: ignore[arg-type]
