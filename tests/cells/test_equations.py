"""Each cell against its step by hand in float64 NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import gatewise as gw
from gatewise.cells import REGISTRY
from gatewise.cells.graph import text
from gatewise.errors import OptionError, ShapeError, UnknownNameError
from gatewise.types import state_tensors
from parity import CELLS, spread
from tolerances import assert_close


def test_every_cell_has_a_row() -> None:
    assert set(CELLS) == set(REGISTRY)


def test_a_cell_shows_what_differs_from_the_defaults() -> None:
    assert repr(gw.cells.GRU(3, 4)) == "GRU(3, 4)"
    cell = gw.cells.LSTM(3, 4, zoneout=0.1, learned_state=True, init_bias={"f": 1.0})
    assert repr(cell).endswith("learned_state=True, init_bias={'f': 1.0})")
    assert "zoneout=" in repr(cell)


def _arrays(cell: gw.cells.Cell) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy() for name, p in cell.named_parameters()}


@pytest.mark.parametrize("name", CELLS)
def test_the_step_is_the_one_by_hand(name: str) -> None:
    cell = REGISTRY[name](3, 5, dtype=torch.float64)
    spread(cell)
    steps, batch = 4, 2
    x = torch.randn(steps, batch, 3, dtype=torch.float64)
    state = tuple(torch.randn(batch, 5, dtype=torch.float64) for _ in cell.law.states)
    out = gw.unroll(cell, x, state, record=gw.Record(*cell.law.names()))
    assert out.record is not None
    values = dict(zip(cell.law.states, (s.numpy() for s in state), strict=True))
    by_cell = state if len(state) > 1 else state[0]
    for t in range(steps):
        values = CELLS[name].step(_arrays(cell), x[t].numpy(), values)
        by_cell = cell(x[t], by_cell)
        for value, part in zip(cell.law.states, state_tensors(by_cell), strict=True):
            assert_close(part, torch.from_numpy(values[value]), what=f"{value} at {t}")
        for value in cell.law.names():
            expected = torch.from_numpy(values[value.removesuffix(".new")])
            assert_close(out.record[value][t], expected, what=f"{value} at {t}")
    assert_close(out.h[-1], torch.from_numpy(values["h"]))


@pytest.mark.parametrize("name", CELLS)
def test_the_names_are_those_of_the_step_by_hand(name: str) -> None:
    """So no value of a cell escapes the comparison above."""
    law = REGISTRY[name].law
    w = {n: p.detach().double().numpy() for n, p in REGISTRY[name](2, 3).named_parameters()}
    by_hand = CELLS[name].step(w, np.zeros((1, 2)), dict.fromkeys(law.states, np.zeros((1, 3))))
    assert set(by_hand) | {f"{s}.new" for s in law.states} == set(law.names())
    assert len(set(law.names())) == len(law.names())


@pytest.mark.parametrize("name", [n for n, row in CELLS.items() if row.torch])
def test_one_step_is_torchs(name: str) -> None:
    row = CELLS[name]
    assert row.torch is not None
    cell = REGISTRY[name](3, 5)
    theirs = row.torch(3, 5, **dict(row.options))
    theirs.load_state_dict({f"{n}_l0": p for n, p in cell.state_dict().items()}, strict=True)
    x = torch.randn(1, 2, 3)
    h, state = theirs(x)
    assert_close(gw.unroll(cell, x).h, h)
    for mine, other in zip(state_tensors(cell(x[0])), state_tensors(state), strict=True):
        assert_close(mine, other[0])


def test_projected_names_and_step() -> None:
    cell = gw.cells.LSTM(3, 5, proj_size=2, dtype=torch.float64)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    names = cell.law.names(projected=True)
    out = gw.unroll(cell, x, record=gw.Record(*names))
    assert out.record is not None
    assert out.record["h"].shape == (4, 2, 5)
    raw = out.record["o"] * torch.tanh(out.record["c"])
    assert_close(out.record["h"], raw)
    assert_close(out.record["proj"], raw @ cell.weight_hr.T)
    assert torch.equal(out.record["proj"], out.h)
    assert "h.new" not in names


@pytest.mark.parametrize("name", ["rnn_tanh", "lstm", "gru_paper"])
def test_bias_off(name: str) -> None:
    cell = REGISTRY[name](3, 5, bias=False)
    assert not [n for n, _ in cell.named_parameters() if "bias" in n]
    zero_input = gw.unroll(cell, torch.zeros(2, 1, 3)).h
    assert torch.equal(zero_input, torch.zeros_like(zero_input))


def test_forget_bias() -> None:
    cell = gw.cells.LSTM(3, 4, init_bias={"f": 1.0})
    assert torch.equal(cell.bias_ih[4:8], torch.ones(4))
    assert torch.equal(cell.bias_hh[4:8], torch.zeros(4))
    assert not torch.equal(cell.bias_ih[:4], torch.ones(4))
    with pytest.raises(UnknownNameError, match=r"unknown bias block of lstm 'q': expected one of"):
        gw.cells.LSTM(3, 4, init_bias={"q": 1.0})
    with pytest.raises(OptionError, match="needs bias=True"):
        gw.cells.LSTM(3, 4, bias=False, init_bias={"f": 1.0})


def test_layer_norm_starts_as_the_plain_norm() -> None:
    cell = gw.cells.LayerNormLSTM(3, 4)
    assert torch.equal(cell.scale_f, torch.ones(4))
    assert torch.equal(cell.shift_c, torch.zeros(4))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((0, 4), {}, OptionError, "input_size must be greater than zero, found 0"),
        ((3, -1), {}, OptionError, "hidden_size must be greater than zero, found -1"),
        ((3, 4.0), {}, TypeError, "hidden_size should be of type int, got: float"),
        ((3, 4), {"proj_size": 4}, OptionError, "smaller than hidden_size"),
        ((3, 4), {"zoneout": 1.0}, OptionError, "zoneout should be a probability"),
        ((3, 4), {"zoneout": {"q": 0.1}}, UnknownNameError, "unknown state of lstm 'q'"),
        ((3, 4), {"weight_drop": -0.1}, OptionError, "weight_drop should be a probability"),
    ],
)
def test_options_outside_their_range(
    arguments: tuple, options: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        gw.cells.LSTM(*arguments, **options)


@pytest.mark.parametrize("cell", [gw.cells.GRU, gw.cells.PaperGRU])
def test_a_cell_that_reads_h_unit_by_unit_cannot_be_projected(cell: type) -> None:
    with pytest.raises(OptionError, match="expected proj_size 0, found 2"):
        cell(3, 4, proj_size=2)


def test_an_unknown_cell_has_its_neighbour_named() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown cell 'lsmt'.*did you mean 'lstm'"):
        gw.Stack("lsmt", 3, 4)


@pytest.mark.parametrize("x", [torch.zeros(2, 4), torch.zeros(3), None, [1.0]])
def test_one_step_of_a_wrong_input(x: object) -> None:
    with pytest.raises(ShapeError, match=r"expected x of shape \(B, 3\), found"):
        gw.cells.LSTM(3, 4)(x)


@pytest.mark.parametrize(
    "state", [torch.zeros(2, 4), (torch.zeros(2, 4),), (torch.zeros(2, 4), None), "ab"]
)
def test_one_step_from_a_wrong_state(state: object) -> None:
    with pytest.raises(ShapeError, match=r"^expected .* found"):
        gw.cells.LSTM(3, 4)(torch.zeros(2, 3), state)


def test_the_equations_can_be_read() -> None:
    assert text(gw.cells.LSTM.law.graph).splitlines() == [
        "o = sigmoid(a.o)",
        "f = sigmoid(a.f)",
        "i = sigmoid(a.i)",
        "g = tanh(a.g)",
        "c = (f * s.c) + (i * g)",
        "h = o * tanh(c)",
    ]


def test_repr_says_what_differs() -> None:
    assert repr(gw.cells.LSTM(3, 4)) == "LSTM(3, 4)"
    shown = repr(gw.cells.LSTM(3, 4, bias=False, proj_size=2, weight_drop=0.1, zoneout=0.2))
    assert shown == (
        "LSTM(3, 4, bias=False, proj_size=2, zoneout={'h': 0.2, 'c': 0.2}, weight_drop=0.1)"
    )
