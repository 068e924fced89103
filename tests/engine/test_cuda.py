"""The CUDA engine against the plain loop, its kernels run by a stand-in for the card."""

from __future__ import annotations

from functools import partial, reduce
from operator import or_
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import emulation
import gatewise as gw
import kernel_cases
from gatewise.errors import EngineError
from kernel_cases import (
    BATCH,
    CELLS,
    INPUT,
    REFUSED,
    REFUSED_BY_ROWS,
    STEPS,
    build,
    check_refusal,
    controls,
    expressions,
    numbers,
    plans,
    random_cell,
)
from parity import random_state
from tolerances import assert_close

compare = partial(kernel_cases.compare, "cuda")
EACH = pytest.mark.parametrize("cell", CELLS)
RAGGED = [7, 0, 1, 6, 3]


@pytest.fixture(autouse=True)
def _emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    emulation.emulate(monkeypatch)


def every_name(stack: gw.Stack) -> gw.Record:
    return gw.Record(*stack.directions()[0].names)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@EACH
def test_two_layers_both_ways(cell: str, dtype: torch.dtype) -> None:
    stack = build(cell, dtype, num_layers=2, bidirectional=True)
    compare(stack, numbers(dtype), random_state(stack, BATCH))


@EACH
def test_records_of_some_units_and_steps(cell: str) -> None:
    stack = build(cell, bidirectional=True)
    names = stack.directions()[0].names
    for record in gw.Record(*names, every=2, units=[0, 12]), gw.Record(*names, time=slice(4, 6)):
        compare(stack, numbers(), record=record, lengths=RAGGED, start=3)


@EACH
def test_ragged_lengths_and_resets(cell: str) -> None:
    stack = build(cell, num_layers=2, bidirectional=True)
    reset = torch.rand(STEPS, BATCH) < 0.3
    state, record = random_state(stack, BATCH), every_name(stack)
    compare(stack, numbers(), state, reset=reset)
    compare(stack, numbers(), state, reset=reset, lengths=RAGGED, record=record)


@pytest.mark.parametrize("training", [True, False])
@EACH
def test_noise(cell: str, training: bool) -> None:
    stack = build(cell, num_layers=2, zoneout=0.3, weight_drop=0.2, dropout=0.4, bidirectional=True)
    stack.train(training)
    compare(stack, numbers(), lengths=RAGGED, record=every_name(stack))


@pytest.mark.parametrize(("steps", "units"), [(1, 1), (63, 5), (2, 131)])
@EACH
def test_sizes(cell: str, steps: int, units: int) -> None:
    """One step, one unit; more units than a block has threads."""
    stack = build(cell, hidden_size=units)
    compare(stack, numbers(steps=steps), random_state(stack, BATCH))


@EACH
def test_without_bias_and_with_a_learned_start(cell: str) -> None:
    compare(build(cell, bias=False, learned_state=True, bidirectional=True), numbers())


@EACH
def test_every_name_is_controlled(cell: str) -> None:
    """One kernel in which all names have a control, most of which change nothing."""
    stack = build(cell, bidirectional=True)
    names = stack.directions()[0].names
    neutral = reduce(or_, (gw.Control.scale(n, 1.0) for n in names))
    makes = list(controls().values())
    for k, name in enumerate(names):
        for make in (makes[k % len(makes)], makes[(3 * k + 1) % len(makes)]):
            control = neutral | make(name)
            compare(stack, numbers(), control=control, record=every_name(stack), start=3)


@pytest.mark.slow
@pytest.mark.parametrize("control", controls())
@EACH
def test_every_name_is_controlled_alone(cell: str, control: str) -> None:
    stack = build(cell, num_layers=2, bidirectional=True)
    make = controls()[control]
    for name in stack.directions()[0].names:
        compare(stack, numbers(), control=make(name), record=every_name(stack), start=3)


@pytest.mark.parametrize("memory", ["keep", "reset", "write"])
def test_memory_controls_where_columns_begin_at_different_times(memory: str) -> None:
    stack = build("lstm", num_layers=2, zoneout=0.2)
    control = getattr(gw.Control, memory)(layer=1, units=slice(0, 9), time=slice(2, 5))
    starts = torch.tensor([0, 1, 2, 0, 3])
    compare(stack, numbers(), control=control, start=starts, lengths=RAGGED)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_keep_is_exact(dtype: torch.dtype) -> None:
    stack = build("lstm", dtype)
    control = gw.Control.keep(units=slice(0, 6), time=slice(2, 5))
    out = stack(numbers(dtype), engine="cuda", control=control, record=gw.Record("c"))
    c = out.record["layers.0.c"]
    assert torch.equal(c[2:5, :, :6], c[1:2, :, :6].expand(3, -1, -1))


def test_a_closed_gate_lets_no_nan_through() -> None:
    stack = build("lstm")
    x = numbers()
    x[3] = float("nan")
    control = gw.Control.keep(time=3) | gw.Control.off("o", time=3)
    out = stack(x, engine="cuda", control=control, record=gw.Record("c", "h"))
    assert bool(out.record["layers.0.c"].isfinite().all())


# --- precision -----------------------------------------------------------------------------------

ALL = [(cell, plan) for cell in CELLS for plan in plans(build(cell).directions()[0].names)]
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
SMOOTH = [cell for cell in CELLS if not kernel_cases.kinks(cell)]


def check_precision(cell: str, plan: str, dtype: torch.dtype, autocast: bool) -> None:
    kernel_cases.check_errors("cuda", cell, plan, BOUNDS[dtype], dtype=dtype, autocast=autocast)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("cell", SMOOTH)
def test_sixteen_bits_are_near_float64(cell: str, autocast: bool, dtype: torch.dtype) -> None:
    for plan in ("whole", "resets", "noise"):
        check_precision(cell, plan, dtype, autocast)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cell", sorted({*CELLS} - {*SMOOTH}))
def test_sixteen_bits_are_no_further_than_on_operators(cell: str, dtype: torch.dtype) -> None:
    """One step, so that no kink is met on another side."""
    stack = build(cell, torch.float32).to(dtype)
    x, state = numbers(dtype, 1), random_state(stack, BATCH)
    ours, theirs = (stack(x, state, engine=e).h for e in ("cuda", "reference"))
    assert_close(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "plan"), ALL)
def test_single_precision_is_near_float64(cell: str, plan: str) -> None:
    check_precision(cell, plan, torch.float32, False)


def test_autocast_gives_the_reference_s_dtypes() -> None:
    stack = build("lstm", torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        for times in (None, slice(99, 100)):
            record = gw.Record("f", "h", time=times)
            ours, theirs = (
                stack(numbers(torch.float32), engine=e, record=record)
                for e in ("cuda", "reference")
            )
            for path, value in theirs.record.items():
                assert ours.record[path].dtype == value.dtype == torch.bfloat16
                assert ours.record[path].shape == value.shape
            assert ours.h.dtype == theirs.h.dtype == torch.bfloat16
            assert [s.dtype for s in ours.state] == [s.dtype for s in theirs.state]
        again = stack(ours.h[:, :, :INPUT].contiguous(), ours.state, engine="cuda")
    assert again.h.dtype == torch.bfloat16


# --- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru", "slstm", "many operations", "peephole"])
def test_gradients_of_gradients(cell: str) -> None:
    stack = build(cell, hidden_size=3)
    x = torch.randn(3, 2, INPUT, dtype=torch.float64, requires_grad=True)

    def run(value: Tensor) -> Tensor:
        return stack(value, engine="cuda", control=gw.Control.scale("h", 0.9)).h

    assert torch.autograd.gradcheck(run, (x,))
    assert torch.autograd.gradgradcheck(run, (x,))


def test_gradients_of_gradients_under_autocast() -> None:
    stack = build("lstm", torch.float32)
    x = numbers(torch.float32).requires_grad_()
    found = []
    for engine in ("cuda", "reference"):
        with torch.autocast("cpu", torch.bfloat16):
            h = stack(x, engine=engine).h
        (first,) = torch.autograd.grad(h.float().sin().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first.sin().sum(), x)[0])
    torch.testing.assert_close(found[0], found[1], rtol=5e-2, atol=5e-2)


def test_a_result_changed_in_place_is_noticed() -> None:
    out = build("lstm")(numbers().requires_grad_(), engine="cuda", record=gw.Record("f"))
    cost = out.h.sum()
    with torch.no_grad():
        out.record["layers.0.f"].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        cost.backward()


def test_a_graph_is_used_twice() -> None:
    x = numbers().requires_grad_()
    cost = build("gru")(x, engine="cuda").h.sum()
    first = torch.autograd.grad(cost, x, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(cost, x)[0])


def test_only_some_gradients_are_wanted() -> None:
    stack = build("lstm")
    for name, p in stack.named_parameters():
        p.requires_grad_(name.startswith("bias_hh"))
    found = []
    for engine in ("cuda", "reference"):
        h = stack(numbers().detach() * 0 + 0.3, engine=engine).h
        found.append(torch.autograd.grad(h.sum(), stack.bias_hh_l0)[0])
    assert_close(found[0], found[1], gradient=True)


def test_inference_mode_and_strided_tensors() -> None:
    stack = build("lstm")
    x = torch.randn(INPUT, BATCH, STEPS, dtype=torch.float64).permute(2, 1, 0)
    with torch.no_grad():
        for name, p in stack.named_parameters():
            if p.ndim == 2:
                setattr(stack, name, torch.nn.Parameter(p.t().contiguous().t()))
    compare(stack, x, random_state(stack, BATCH))
    with torch.inference_mode():
        out = stack(x, engine="cuda", record=gw.Record("f"))
        assert_close(out.h, stack(x, engine="reference").h)


# --- what it refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize("case", [*REFUSED, *REFUSED_BY_ROWS])
def test_what_it_cannot_do_it_says(case: str) -> None:
    check_refusal("cuda", case)


def test_float64_weights_under_autocast_are_refused() -> None:
    stack = gw.Stack("lstm", 3, 4, dtype=torch.float64)
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(EngineError, match="takes float32 weights"),
    ):
        stack(torch.zeros(5, 2, 3, dtype=torch.float64), engine="cuda")


@settings(max_examples=10)
@given(expressions(), expressions(), st.integers(0, 10**6))
def test_random_cells(first: Any, second: Any, seed: int) -> None:
    torch.manual_seed(seed)
    stack = gw.Stack(random_cell(first, second), INPUT, 3, dtype=torch.float64)
    compare(
        stack, numbers(steps=3), record=gw.Record("gate"), control=gw.Control.scale("gate", 0.9)
    )


def test_means_over_units_are_refused() -> None:
    stack = gw.Stack("lstm_layer_norm", 3, 4)
    with pytest.raises(EngineError, match="layer_norm reads other units"):
        stack(torch.zeros(5, 2, 3), engine="cuda")
