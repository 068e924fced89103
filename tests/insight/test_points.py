"""Slow points of nets whose points are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gatewise as gw
from gatewise.errors import DataError, OptionError, ShapeError
from gatewise.insight import points, principal_plane, slow_points


@gw.cell
def linear(a: Any, s: Any) -> Any:
    return {"h": a.u}, {}


def test_the_one_point_of_a_linear_net() -> None:
    cell: Any = linear(2, 3).double()
    with torch.no_grad():
        cell.weight_hh.copy_(torch.diag(torch.tensor([0.5, -0.9, 0.1], dtype=torch.float64)))
    x = torch.tensor([1.0, -2.0], dtype=torch.float64)
    drive = cell.weight_ih @ x + cell.bias_ih + cell.bias_hh
    expected = torch.linalg.solve(torch.eye(3, dtype=torch.float64) - cell.weight_hh, drive)
    found = slow_points(cell, x, torch.randn(8, 3, dtype=torch.float64), steps=100)
    assert len(found) == 1
    torch.testing.assert_close(found.states[0], expected.detach(), rtol=1e-9, atol=1e-9)
    assert found.eigenvalues[0].real.tolist() == pytest.approx([-0.9, 0.5, 0.1], abs=1e-9)
    assert found.unstable.tolist() == [0]


def test_two_attractors_and_the_saddle_between_them() -> None:
    """h = tanh(2 h): 0 is unstable, and h = tanh(2 h) has two more solutions, at .9575."""
    cell = gw.cells.RNN(1, 1, dtype=torch.float64)
    with torch.no_grad():
        for weight in cell.parameters():
            weight.zero_()
        cell.weight_hh.fill_(2.0)
    starts = torch.linspace(-1.5, 1.5, 31, dtype=torch.float64).unsqueeze(1)
    found = slow_points(cell, torch.zeros(1, dtype=torch.float64), starts, steps=300)
    order = found.states[:, 0].argsort()
    assert found.states[order, 0].tolist() == pytest.approx([-0.957504, 0.0, 0.957504], abs=1e-6)
    assert found.unstable[order].tolist() == [0, 1, 0]


def test_points_looked_at_one_by_one_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    net = gw.nn.LSTM(2, 3, num_layers=2, dtype=torch.float64)
    state = (torch.randn(2, 4, 3).double(), torch.randn(2, 4, 3).double())
    x = torch.zeros(2, dtype=torch.float64)
    whole = slow_points(net, x, state, steps=20, tolerance=9, apart=0)
    monkeypatch.setattr(points, "_ROOM", 1)
    single = slow_points(net, x, state, steps=20, tolerance=9, apart=0)
    assert len(whole) == 4
    torch.testing.assert_close(single.states, whole.states)
    torch.testing.assert_close(single.eigenvalues.abs(), whole.eigenvalues.abs())


def test_states_of_several_layers_and_no_slow_point() -> None:
    net = gw.nn.LSTM(2, 3, num_layers=2, dtype=torch.float64)
    state = (torch.randn(2, 4, 3).double(), torch.randn(2, 4, 3).double())
    found = slow_points(net, torch.zeros(2, dtype=torch.float64), state, steps=200)
    assert found.states.shape == (1, 12)  # an untrained net has one point
    assert found.speeds[0] < 1e-9
    h, c = (part.reshape(2, 1, 3) for part in (found.states[0, :6], found.states[0, 6:]))
    _, (after, _) = net(torch.zeros(1, 1, 2, dtype=torch.float64), (h, c))
    torch.testing.assert_close(after, h, rtol=0, atol=1e-9)
    nothing = slow_points(net, torch.zeros(2, dtype=torch.float64), state, steps=1, tolerance=1e-30)
    assert len(nothing) == 0
    assert nothing.unstable.tolist() == []
    assert nothing.eigenvalues.dtype == torch.complex128


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_a_gate_keeps_does_not_grow(dtype: torch.dtype) -> None:
    values = torch.tensor([[1 + 1e-5 * (dtype == torch.float32), 1.0], [1.01, 0.5]], dtype=dtype)
    found = points.SlowPoints(torch.zeros(2, 2), torch.zeros(2, dtype=dtype), values.cfloat())
    assert found.unstable.tolist() == [0, 1]


def test_the_plane_in_which_states_lie() -> None:
    flat = torch.randn(50, 2).double() @ torch.tensor([[3.0, 0, 4, 0], [0, 0.5, 0, 0]]).double() + 1
    plane = principal_plane(flat)
    assert plane.shares.sum() == pytest.approx(1.0)
    torch.testing.assert_close(plane.axes @ plane.axes.T, torch.eye(2).double())
    torch.testing.assert_close(plane.project(flat) @ plane.axes + plane.mean, flat)


def test_what_is_wrong_is_said() -> None:
    cell = gw.cells.GRU(2, 3)
    with pytest.raises(ShapeError, match=r"expected x of shape \(2,\)"):
        slow_points(cell, torch.zeros(3), torch.zeros(1, 3))
    with pytest.raises(OptionError, match="tolerance above 0"):
        slow_points(cell, torch.zeros(2), torch.zeros(1, 3), tolerance=0)
    with pytest.raises(OptionError, match="one direction"):
        slow_points(gw.nn.GRU(2, 3, bidirectional=True), torch.zeros(2), torch.zeros(2, 1, 3))
    with pytest.raises(DataError, match="states to begin at, found none"):
        slow_points(cell, torch.zeros(2), torch.zeros(0, 3))
    with pytest.raises(ShapeError, match=r"expected starts as states of columns.* found \(3,\)"):
        slow_points(cell, torch.zeros(2), torch.zeros(3))
    with pytest.raises(OptionError, match=r"single or double precision, found torch\.bfloat16"):
        slow_points(gw.cells.GRU(2, 3).bfloat16(), torch.zeros(2).bfloat16(), torch.zeros(1, 3))
    assert principal_plane(torch.randn(5, 3).bfloat16()).axes.dtype == torch.float32
    with pytest.raises(ShapeError, match=r"found \(1, 3\) of torch.int64"):
        slow_points(cell, torch.zeros(2), torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"expected states \(n, S\), found \(4, 2, 3\)"):
        principal_plane(torch.zeros(4, 2, 3))
    with pytest.raises(DataError, match="at least two states"):
        principal_plane(torch.zeros(1, 3))
    with pytest.raises(OptionError, match="dimensions: expected 1 to 2"):
        principal_plane(torch.zeros(2, 3), 3)


def test_paths_are_drawn() -> None:
    pytest.importorskip("matplotlib", reason="the extra gatewise[plot] is not installed")
    from gatewise.plots import paths

    states = torch.randn(12, 4, 5)
    slow = slow_points(gw.cells.GRU(2, 5), torch.zeros(2), torch.randn(3, 5), steps=20)
    for dimensions in (2, 3):
        plane = principal_plane(states.flatten(0, 1), dimensions)
        by_time = paths(plane, states, slow=slow)
        assert by_time.axes[0].get_xlabel().startswith("component 1, ")
        names = {text.get_text() for text in by_time.legends[0].texts}
        kinds = [int(one) for one in slow.unstable]
        assert ("rests, attracts" in names) == (0 in kinds)
        assert ("rests, a direction leaves" in names) == any(kinds)
        by_class = paths(plane, states, classes=["a", "b", "a", "b"])
        assert [text.get_text() for text in by_class.legends[0].texts] == ["a", "b"]
    many = paths(plane, torch.randn(12, 10, 5), classes=list("0123456789")).legends[0]
    looks = {(line.get_color(), line.get_linestyle()) for line in many.get_lines()}
    assert len(looks) == 10
    with pytest.raises(ShapeError, match="a class for each of 4 sequences, found 3"):
        paths(plane, states, classes=["a", "b", "a"])
    with pytest.raises(ShapeError, match=r"expected states \(T, B, S\), found \(48, 5\)"):
        paths(plane, states.flatten(0, 1))
    with pytest.raises(OptionError, match="2 or 3 dimensions"):
        paths(principal_plane(states.flatten(0, 1), 4), states)
