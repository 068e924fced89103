"""Every engine against the reference: outputs, states, all gradients, whatever the plan."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gatewise as gw
from gatewise.engine import closed
from gatewise.types import state_tensors
from parity import PAIRS, random_state
from tolerances import VALUES, assert_close

FAST = [(engine, cell) for engine, cell in PAIRS if engine != "reference"]
LENGTHS = [4, 0, 2]

BUILDS: dict[str, dict[str, Any]] = {
    "one": {},
    "two both ways": {"num_layers": 2, "bidirectional": True},
    "sizes": {"hidden_size": [5, 3, 4]},
    "no bias": {"bias": False, "num_layers": 2},
    "dropout": {"num_layers": 3, "dropout": 0.4},
    "locked": {"num_layers": 2, "dropout": 0.4, "locked_dropout": True, "bidirectional": True},
    "weight drop": {"num_layers": 2, "weight_drop": 0.3},
    "learned": {"num_layers": 2, "learned_state": True, "bidirectional": True},
}
CALLS: dict[str, dict[str, Any]] = {"whole": {}, "ragged": {"lengths": LENGTHS}}


def _run(stack: gw.Stack, x: Tensor, state: Any, engine: str, **call: Any) -> list[Tensor]:
    """Every result and every gradient."""
    torch.manual_seed(7)  # the same masks
    x = x.clone().requires_grad_()
    leaves = [x, *stack.parameters()]
    out = stack(x, state, engine=engine, **call)
    assert out.engine == engine
    values = [out.h, *state_tensors(out.state)]
    cost = sum(((k + 1) * v.pow(2)).sum() for k, v in enumerate(values))
    return values + list(torch.autograd.grad(cost, leaves, allow_unused=True))


def _compare(stack: gw.Stack, x: Tensor, state: Any, engine: str, **call: Any) -> None:
    expected = _run(stack, x, state, "reference", **call)
    for k, (a, b) in enumerate(zip(_run(stack, x, state, engine, **call), expected, strict=True)):
        if a is None or b is None:
            a, b = (torch.zeros(()) if v is None else v.abs().sum() for v in (a, b))
        assert_close(a, b, gradient=True, what=f"result {k}")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize(("engine", "cell"), FAST)
def test_parity(engine: str, cell: str, build: str, call: str) -> None:
    options = {"hidden_size": 4, **BUILDS[build]}
    stack = gw.Stack(cell, 3, **options)
    x = torch.randn(4, 3, 3)
    given = None if build == "learned" else random_state(stack, 3)
    _compare(stack, x, given, engine, **CALLS[call])


@pytest.mark.parametrize(("engine", "cell"), FAST)
def test_parity_at_the_edges_in_double_precision(engine: str, cell: str) -> None:
    stack = gw.Stack(cell, 1, 5, 2, dtype=torch.float64)
    for steps, batch in (1, 1), (63, 1), (2, 7):
        _compare(stack, torch.randn(steps, batch, 1, dtype=torch.float64), None, engine)


def test_projections_have_parity() -> None:
    stack = gw.Stack("lstm", 3, 5, 2, proj_size=2, bidirectional=True)
    _compare(stack, torch.randn(4, 3, 3), random_state(stack, 3), "closed", lengths=LENGTHS)


def test_eval_mode_has_parity() -> None:
    stack = gw.Stack("gru", 3, 4, 2, dropout=0.5, weight_drop=0.5).eval()
    _compare(stack, torch.randn(4, 3, 3), None, "closed")
    with torch.no_grad():
        x = torch.randn(4, 3, 3)
        assert_close(stack(x, engine="closed").h, stack(x, engine="reference").h)


AUTOCASTS = [pair for pair in FAST if pair[0] != "compiled"]  # it has no 16-bit kernels


@pytest.mark.parametrize("build", ["one", "dropout", "two both ways"])
@pytest.mark.parametrize(("engine", "cell"), AUTOCASTS)
def test_autocast(engine: str, cell: str, build: str) -> None:
    """Matrix products in bfloat16; h comes out in bfloat16, c stays in float32."""
    if engine == "closed" and cell == "lstm" and not closed._lstm_autocasts(torch.bfloat16):
        pytest.skip("torch's LSTM has no bfloat16 autocast on this CPU")
    stack = gw.Stack(cell, 3, **{"hidden_size": 4, **BUILDS[build]})
    x = torch.randn(4, 3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _check_dtypes(stack, x, engine)
        first, second = (_run(stack, x, None, e) for e in ("reference", engine))
    for a, b in zip(second[:2], first[:2], strict=True):
        assert_close(a, b)


def _check_dtypes(stack: gw.Stack, x: Tensor, engine: str) -> None:
    for lengths in (None, LENGTHS):
        out = stack(x, lengths=lengths, engine=engine)
        assert out.h.dtype == torch.bfloat16
        h, *rest = state_tensors(out.state)
        assert h.dtype == torch.bfloat16
        assert all(c.dtype == torch.float32 for c in rest)
        again = stack(x, out.state, engine=engine)
        assert again.h.dtype == torch.bfloat16


@pytest.mark.parametrize("cell", ["lstm", "gru_paper", "lstm_layer_norm"])
def test_autocast_is_near_full_precision(cell: str) -> None:
    stack = gw.Stack(cell, 3, 4)
    x = torch.randn(6, 2, 3)
    exact = stack(x, engine="reference").h
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = stack(x, engine="reference", record=gw.Record("h", *stack._law.states))
    assert out.record is not None
    for name, value in out.record.items():  # as those that leave: h narrow, other states wide
        narrow = name == "layers.0.h"
        assert value.dtype == (torch.bfloat16 if narrow else torch.float32)
    tolerance = VALUES[torch.bfloat16]
    torch.testing.assert_close(
        out.h.float(), exact, rtol=tolerance.relative, atol=tolerance.absolute
    )
    stack(x, out.state)  # carried on without autocast: a state of less precision is taken


def test_autocast_without_a_step_gives_the_same_dtypes() -> None:
    stack = gw.Stack("lstm", 3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = stack(torch.zeros(0, 2, 3))
    assert out.h.dtype == torch.bfloat16
    assert out.h.shape == (0, 2, 4)
