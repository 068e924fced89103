"""Numbers in equations: exact in every dtype, and functions of numbers alone."""

from __future__ import annotations

from typing import Any

import torch

import gatewise as gw


@gw.cell
def bounded(a: Any, s: Any) -> Any:
    return {"h": gw.minimum(a.p * 0 + 1, 0.7) + 0 * s.h}, {}


@gw.cell
def scaled(a: Any, s: Any) -> Any:
    return {"h": a.p * gw.sigmoid(gw.tanh(0.7) + 1) + 0 * s.h}, {}


def test_a_bound_has_all_its_digits() -> None:
    cell = bounded(1, 1, dtype=torch.float64)
    h = gw.unroll(cell, torch.zeros(1, 1, 1, dtype=torch.float64)).h
    assert h.detach().item() == 0.7


def test_a_function_of_numbers_is_a_number() -> None:
    cell = scaled(1, 1, dtype=torch.float64)
    x = torch.ones(1, 1, 1, dtype=torch.float64)
    factor = torch.sigmoid(torch.tanh(torch.tensor(0.7, dtype=torch.float64)) + 1)
    before = cell.weight_ih * x[0] + cell.bias_ih + cell.bias_hh
    torch.testing.assert_close(gw.unroll(cell, x, engine="reference").h[0], before * factor)
