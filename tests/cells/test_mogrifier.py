"""The Mogrifier LSTM: its rounds, their options, and what engines make of them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import gatewise as gw
from gatewise.cells import LSTM, REGISTRY, Mogrifier
from gatewise.cells.linear import refusal
from gatewise.errors import EngineError, OptionError
from gatewise.types import state_tensors
from parity import lstm, sigmoid, spread
from tolerances import assert_close


class Short(Mogrifier):
    """Three rounds of rank 2: a cell of its own."""

    rounds = 3
    rank = 2


def test_without_rounds_it_is_the_lstm() -> None:
    cell, plain = Mogrifier(3, 4, rounds=0), LSTM(3, 4)
    cell.load_state_dict(plain.state_dict(), strict=True)
    x = torch.randn(5, 2, 3)
    assert_close(gw.unroll(cell, x).h, gw.unroll(plain, x).h)


def test_matrices_of_zeros_change_nothing() -> None:
    """2 sigmoid(0) is 1."""
    cell, plain = Mogrifier(3, 4), LSTM(3, 4)
    cell.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        for name in ("q1", "r2", "q3", "r4", "q5"):
            getattr(cell, name).zero_()
    x = torch.randn(5, 2, 3)
    assert_close(gw.unroll(cell, x).h, gw.unroll(plain, x).h)


@pytest.mark.parametrize("proj_size", [0, 2])
def test_low_rank_by_hand(proj_size: int) -> None:
    cell = Short(3, 5, proj_size=proj_size, dtype=torch.float64)
    spread(cell)
    w = {n: p.detach().numpy() for n, p in cell.named_parameters()}
    width = proj_size or 5
    shapes = {"q1_left": (3, 2), "q1_right": (2, width), "r2_left": (width, 2), "r2_right": (2, 3)}
    assert {n: w[n].shape for n in shapes} == shapes
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    names = ("x.mog1", "h.mog2", "x.mog3")
    record = gw.unroll(cell, x, record=gw.Record(*names)).record
    out = gw.unroll(cell, x)
    assert record is not None
    h, c = np.zeros((2, width)), np.zeros((2, 5))
    for t, row in enumerate(x.numpy()):
        first = 2 * sigmoid(h @ w["q1_right"].T @ w["q1_left"].T) * row
        moved = 2 * sigmoid(first @ w["r2_right"].T @ w["r2_left"].T) * h
        third = 2 * sigmoid(moved @ w["q3_right"].T @ w["q3_left"].T) * first
        for name, expected in zip(names, (first, moved, third), strict=True):
            assert_close(record[name][t], torch.from_numpy(expected), what=name)
        step = lstm(w, third, {"h": moved, "c": c})
        h, c = step["h"], step["c"]
        h = h @ w["weight_hr"].T if proj_size else h
        assert_close(out.h[t], torch.from_numpy(h))


def test_options_by_argument_and_by_class() -> None:
    cell = Mogrifier(3, 4, rounds=2, rank=1)
    assert cell.law.names()[:2] == ("x.mog1", "h.mog2")
    assert "rounds=2" in repr(cell)
    assert "rank=1" in repr(cell)
    assert repr(Mogrifier(3, 4)) == "Mogrifier(3, 4)"
    assert Mogrifier(3, 4, rounds=3, rank=2).law is Short.law is Short(3, 4).law
    assert REGISTRY["mogrifier"].law is Mogrifier(3, 4).law
    for copied in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
        assert copied.law is cell.law
        x = torch.randn(3, 2, 3)
        assert torch.equal(gw.unroll(copied, x).h, gw.unroll(cell, x).h)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": -1}, "rounds: expected a whole number from 0 on, found -1"),
        ({"rounds": 2.0}, "rounds: expected a whole number from 0 on, found 2.0"),
        ({"rank": 0}, "rank: expected None or a whole number from 1 on, found 0"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        Mogrifier(3, 4, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("kind", ["mogrifier", Short])
def test_a_stack_of_layers_of_several_sizes(kind: Any) -> None:
    stack = gw.Stack(kind, 3, [5, 4], bidirectional=True, dtype=torch.float64)
    spread(stack, 0.2)
    record = gw.Record("x.mog1", "layers.1.reverse.h.mog2")
    out = stack(torch.randn(6, 2, 3, dtype=torch.float64), lengths=[6, 3], record=record)
    assert out.record is not None
    assert out.record["layers.0.x.mog1"].shape == (6, 2, 3)
    assert out.record["layers.1.x.mog1"].shape == (6, 2, 10)
    assert out.record["layers.1.reverse.h.mog2"].shape == (6, 2, 4)
    assert (out.record["layers.0.x.mog1"][3:, 1] == 0).all()


def test_rounds_are_controlled_where_they_are_defined() -> None:
    cell = Mogrifier(3, 4, dtype=torch.float64)
    spread(cell)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    fixed = torch.randn(3, dtype=torch.float64, requires_grad=True)
    control = gw.Control.set("x.mog3", fixed, time=slice(1, 3)) | gw.Control.scale("h.mog2", 0.5)
    record = gw.Record("x.mog3", "h.mog4", "h.mog2", grad=True)
    out = gw.unroll(cell, x, control=control, record=record)
    assert out.record is not None
    x3, h2 = out.record["x.mog3"], out.record["h.mog2"]
    assert torch.equal(x3[1:3].detach(), fixed.detach().expand(2, 2, 3))
    expected = 2 * torch.sigmoid(x3 @ cell.r4.T) * h2
    assert_close(out.record["h.mog4"], expected)
    (gradient,) = torch.autograd.grad(out.h.sum(), fixed)
    assert bool((gradient != 0).all())


def test_a_round_held_at_zero_closes() -> None:
    cell = Mogrifier(3, 4)
    x = torch.randn(3, 2, 3)
    x[1] = float("nan")
    plain = gw.unroll(cell, x)
    assert bool(plain.h[1:].isnan().all())
    out = gw.unroll(cell, x, control=gw.Control.off("x.mog1", time=1))
    assert bool(out.h.isfinite().all())


def test_drop_connect_drops_what_multiplies_h() -> None:
    cell = Short(3, 64, weight_drop=0.5)
    kinds = cell.law.params
    assert [n for n, kind in kinds.items() if kind == "recurrent"] == ["q1_right", "q3_right"]
    x = torch.randn(4, 2, 3)
    first, second = gw.unroll(cell, x).h, gw.unroll(cell, x).h
    assert not torch.equal(first, second)
    with torch.no_grad():
        for name in ("weight_hh", "q1_right", "q3_right"):
            getattr(cell, name).zero_()
    assert torch.equal(gw.unroll(cell, x).h, gw.unroll(cell, x).h)


@pytest.mark.parametrize("options", [{}, {"rank": 1, "rounds": 4}, {"proj_size": 2}])
def test_gradients(options: dict[str, Any]) -> None:
    torch.manual_seed(3)
    cell = Mogrifier(2, 3, dtype=torch.float64, **options)
    spread(cell, 0.3)
    names, weights = zip(*cell.named_parameters(), strict=True)
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        given = dict(zip(names, values, strict=True))
        with torch.nn.utils.stateless._reparametrize_module(cell, given):
            out = gw.unroll(cell, x)
        return torch.cat([out.h.flatten(), *(s.flatten() for s in state_tensors(out.state))])

    assert gradcheck(run, (x, *weights), fast_mode=True)
    assert gradgradcheck(run, (x, *weights), fast_mode=True)


def test_autocast_keeps_the_state_in_float32() -> None:
    stack = gw.Stack("mogrifier", 3, 4, 2)
    x = torch.randn(5, 2, 3)
    exact = stack(x).h
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = stack(x)
    assert out.h.dtype == torch.bfloat16
    assert_close(out.h, exact.to(torch.bfloat16))


def test_engines_that_cannot_say_why() -> None:
    stack, x = gw.Stack("mogrifier", 3, 64), torch.randn(16, 8, 3)
    assert stack(x).engine == "reference"
    reasons = {
        "closed": "torch has no kernel for the cell mogrifier",
        "compiled": "in the cell mogrifier x and h modulate each other before the gates",
        "scan": "the cell mogrifier is not a linear recurrence: x and h",
    }
    for engine, reason in reasons.items():
        with pytest.raises(EngineError, match=reason):
            stack(x, engine=engine)
    assert refusal(Mogrifier.law) is not None


def test_its_rounds_are_shown() -> None:
    shown = gw.show(Short)
    lines = shown.equations.splitlines()
    assert lines[0] == "x.mog1 = (2 * sigmoid(p.q1_left @ p.q1_right @ s.h)) * x"
    assert lines[1] == "h.mog2 = (2 * sigmoid(p.r2_left @ p.r2_right @ x.mog1)) * s.h"
    assert lines[2] == "x.mog3 = (2 * sigmoid(p.q3_left @ p.q3_right @ h.mog2)) * x.mog1"
    assert r"\mathrm{x.mog1}_t &= 2 \sigma\left(" in shown.latex
    assert shown.reads_past
