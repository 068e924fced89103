"""Jacobians and exponents against systems whose answer is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import gatewise as gw
from gatewise import gradients
from gatewise.errors import OptionError


@gw.cell
def linear(a: Any, s: Any) -> Any:
    return {"h": a.u}, {}


@gw.cell(states={"y": 0.0})
def henon(a: Any, s: Any) -> Any:
    h = 1 - 1.4 * s.h * s.h + s.y + 0 * a.u
    return {"h": h, "y": 0.3 * s.h}, {}


def test_the_exponents_of_a_linear_net_are_its_eigenvalues() -> None:
    cell: Any = linear(2, 4, bias=False).double()
    basis = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    eigenvalues = torch.tensor([1.2, 0.9, 0.5, 0.25], dtype=torch.float64)
    with torch.no_grad():
        cell.weight_hh.copy_(basis @ torch.diag(eigenvalues) @ basis.T)
    x = torch.randn(80, 3, 2, dtype=torch.float64)
    found = gradients.lyapunov(cell, x, skip=40)
    torch.testing.assert_close(found.values, eigenvalues.log().expand(3, 4), rtol=1e-6, atol=1e-6)
    spectrum = gradients.spectra(cell, x[:4], every=2)
    assert spectrum.times.tolist() == [0, 2]
    torch.testing.assert_close(spectrum.radius, torch.full((2, 3), 1.2, dtype=torch.float64))
    torch.testing.assert_close(spectrum.singular[0, 0], eigenvalues)


def test_the_exponents_of_the_henon_map() -> None:
    """.419 and -1.623 (Sprott 2003, Chaos and Time-Series Analysis, table 5.1); dimension 1.258."""
    cell = henon(1, 1).double()
    begin = torch.linspace(-0.1, 0.1, 40, dtype=torch.float64)[:, None]
    state = (begin, torch.zeros_like(begin))
    found = gradients.lyapunov(cell, torch.zeros(300, 40, 1, dtype=torch.float64), state, skip=20)
    mean = found.values.mean(0)
    assert mean[0] == pytest.approx(0.419, abs=0.01)
    assert float(mean.sum()) == pytest.approx(
        math.log(0.3), abs=1e-9
    )  # the map shrinks areas by .3
    assert found.dimension.mean() == pytest.approx(1.258, abs=0.01)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_a_jacobian_is_that_of_autograd(kind: str) -> None:
    net = getattr(gw.nn, kind)(3, 4, num_layers=2, dtype=torch.float64)
    x = torch.randn(3, 1, 3, dtype=torch.float64)
    _, state = net(x[:2])
    parts = state if isinstance(state, tuple) else (state,)

    def step(vector: torch.Tensor) -> torch.Tensor:
        pieces = [p.reshape(2, 1, 4) for p in torch.split(vector, 8)]
        _, after = net(x[2:], tuple(pieces) if len(pieces) > 1 else pieces[0])
        after = after if isinstance(after, tuple) else (after,)
        return torch.cat([p.reshape(-1) for p in after])

    expected = torch.func.jacrev(step)(torch.cat([p.reshape(-1) for p in parts]))
    *_, (time, found) = gradients.jacobians(net, x)
    assert time == 2
    torch.testing.assert_close(found[0], expected, rtol=1e-10, atol=1e-12)


def test_weights_of_half_precision() -> None:
    net = gw.nn.LSTM(3, 4)
    x = torch.randn(6, 1, 3)
    small, rounded = gw.nn.LSTM(3, 4).bfloat16(), x.bfloat16()
    small.load_state_dict(net.state_dict())
    for look in (
        lambda *two: gradients.lyapunov(*two).values,
        lambda *two: gradients.spectra(*two).singular,
    ):
        torch.testing.assert_close(look(small, rounded), look(net, x), rtol=0.1, atol=0.1)


def test_what_is_wrong_is_said() -> None:
    x = torch.randn(5, 1, 3)
    with pytest.raises(OptionError, match="one direction"):
        gradients.jacobians(gw.nn.GRU(3, 4, bidirectional=True), x)
    with pytest.raises(OptionError, match="skip: expected 0 to 4"):
        gradients.lyapunov(gw.cells.GRU(3, 4), x, skip=5)
    with pytest.raises(OptionError, match="count: expected 1 to 4"):
        gradients.lyapunov(gw.cells.GRU(3, 4), x, count=9)
