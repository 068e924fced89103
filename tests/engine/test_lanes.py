"""The elementary functions on registers against torch's in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import gatewise as gw

EPSILONS = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}
FUNCTIONS: dict[str, Any] = {
    "sigmoid": (gw.sigmoid, torch.sigmoid),
    "tanh": (gw.tanh, torch.tanh),
    "exp": (gw.exp, torch.exp),
    "softplus": (gw.softplus, lambda v: torch.logaddexp(v, torch.zeros_like(v))),
}


def on_lanes(function: Any, values: torch.Tensor) -> torch.Tensor:
    """function(values), by a cell that does nothing else."""

    def law(a: Any, s: Any) -> Any:
        return {"h": function(a.v) + 0 * s.h}, {}

    cell = gw.cell(law)(1, 1, bias=False, dtype=values.dtype)
    with torch.no_grad():
        cell.weight_ih.fill_(1)
        cell.weight_hh.zero_()
        return gw.unroll(cell, values.view(1, -1, 1), engine="compiled").h.flatten()


@pytest.mark.parametrize("dtype", EPSILONS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_they_are_exact_to_some_roundings(name: str, dtype: torch.dtype) -> None:
    ours, theirs = FUNCTIONS[name]
    wide = torch.cat([torch.linspace(-80, 80, 20001), torch.logspace(-20, 0, 2001)]).to(dtype)
    values = torch.cat([wide, -wide, torch.zeros(1, dtype=dtype)])
    expected = theirs(values.double())
    error = (on_lanes(ours, values).double() - expected).abs() / expected.abs().clamp(min=1e-37)
    assert float(error.max()) < 12 * EPSILONS[dtype]


@pytest.mark.parametrize("dtype", EPSILONS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_they_end_as_torch_s_do(name: str, dtype: torch.dtype) -> None:
    ours, theirs = FUNCTIONS[name]
    values = torch.tensor([1e4, -1e4, 1e30, -1e30, math.nan], dtype=dtype)
    torch.testing.assert_close(
        on_lanes(ours, values), theirs(values), rtol=1e-5, atol=1e-30, equal_nan=True
    )
