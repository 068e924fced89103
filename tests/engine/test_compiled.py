"""The compiled engine against the plain loop: every cell, control, record, mask and length."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from functools import partial, reduce
from operator import or_
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import gatewise as gw
import kernel_cases
from kernel_cases import (
    BATCH,
    COMPILED,
    INPUT,
    NORM,
    REFUSED,
    STEPS,
    build,
    check_refusal,
    controls,
    expressions,
    numbers,
    random_cell,
)
from parity import random_state
from tolerances import assert_close

compare = partial(kernel_cases.compare, "compiled")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cell", COMPILED)
def test_two_layers_both_ways(cell: str, dtype: torch.dtype) -> None:
    stack = build(cell, dtype, num_layers=2, bidirectional=True)
    compare(stack, numbers(dtype), random_state(stack, BATCH))


@pytest.mark.parametrize("cell", COMPILED)
def test_every_name_is_recorded(cell: str) -> None:
    stack = build(cell, bidirectional=True)
    names = stack.directions()[0].names
    for record in (
        gw.Record(*names),
        gw.Record(*names, every=2, units=[0, 4]),
        gw.Record(names[-1], time=slice(2, 4)),
    ):
        compare(stack, numbers(), record=record, lengths=[7, 0, 1, 6, 3], start=3)


@pytest.mark.parametrize("cell", COMPILED)
def test_ragged_lengths_and_resets(cell: str) -> None:
    stack = build(cell, num_layers=2, bidirectional=True)
    names = stack.directions()[0].names
    reset = torch.rand(STEPS, BATCH) < 0.3
    for call in (
        {"lengths": [7, 0, 1, 6, 3]},
        {"reset": reset},
        {"reset": reset, "lengths": [7, 0, 1, 6, 3], "record": gw.Record(*names)},
    ):
        compare(stack, numbers(), random_state(stack, BATCH), **call)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("cell", COMPILED)
def test_noise(cell: str, training: bool) -> None:
    stack = build(cell, num_layers=2, zoneout=0.3, weight_drop=0.2, dropout=0.4, bidirectional=True)
    names = stack.directions()[0].names
    stack.train(training)
    compare(stack, numbers(), lengths=[7, 0, 1, 6, 3], record=gw.Record(*names))


@pytest.mark.parametrize(("steps", "units"), [(1, 1), (63, 1), (2, 8), (3, 16), (2, 17), (5, 31)])
@pytest.mark.parametrize("cell", COMPILED)
def test_sizes(cell: str, steps: int, units: int) -> None:
    stack = build(cell, hidden_size=units)
    compare(stack, numbers(steps=steps), random_state(stack, BATCH))


@pytest.mark.parametrize("cell", COMPILED)
def test_without_bias_and_with_a_learned_start(cell: str) -> None:
    compare(build(cell, bias=False, learned_state=True, bidirectional=True), numbers())


@pytest.mark.parametrize("cell", COMPILED)
def test_every_name_is_controlled(cell: str) -> None:
    """One kernel in which all names have a control, most of which change nothing."""
    stack = build(cell, bidirectional=True)
    names = stack.directions()[0].names
    neutral = reduce(or_, (gw.Control.scale(n, 1.0) for n in names))
    for k, name in enumerate(names):
        makes = list(controls(stack.directions()[0].width(name)).values())
        for make in (makes[k % len(makes)], makes[(3 * k + 1) % len(makes)]):
            control = neutral | make(name)
            compare(stack, numbers(), control=control, record=gw.Record(*names), start=3)


@pytest.mark.slow
@pytest.mark.parametrize("control", controls())
@pytest.mark.parametrize("cell", COMPILED)
def test_every_name_is_controlled_alone(cell: str, control: str) -> None:
    """A kernel for each name: minutes of compilation."""
    stack = build(cell, num_layers=2, bidirectional=True)
    names = stack.directions()[0].names
    for name in names:
        make = controls(stack.directions()[0].width(name))[control]
        compare(stack, numbers(), control=make(name), record=gw.Record(*names), start=3)


@pytest.mark.parametrize("memory", ["keep", "reset", "write"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_memory_controls(cell: str, memory: str) -> None:
    stack = build(cell, num_layers=2, zoneout=0.2)
    control = getattr(gw.Control, memory)(layer=1, units=slice(0, 9), time=slice(2, 5))
    starts = torch.tensor([0, 1, 2, 0, 3])
    compare(stack, numbers(), control=control, start=starts, lengths=[7, 0, 1, 6, 3])


def test_keep_is_exact() -> None:
    stack = build("lstm", torch.float32)
    record = gw.Record("c")
    control = gw.Control.keep(units=slice(0, 6), time=slice(2, 5))
    out = stack(numbers(torch.float32), engine="compiled", control=control, record=record)
    c = out.record["layers.0.c"]
    assert torch.equal(c[2:5, :, :6], c[1:2, :, :6].expand(3, -1, -1))


def test_a_closed_gate_lets_no_nan_through() -> None:
    stack = build("lstm")
    x = numbers()
    x[3] = float("nan")
    control = gw.Control.keep(time=3) | gw.Control.off("o", time=3)
    for engine in ("reference", "compiled"):
        out = stack(x, engine=engine, control=control, record=gw.Record("c", "h"))
        assert bool(out.record["layers.0.c"].isfinite().all()), engine


@pytest.mark.parametrize("cell", COMPILED)
def test_gradients_of_gradients(cell: str) -> None:
    stack = build(cell, hidden_size=3)
    x = torch.randn(3, 2, INPUT, dtype=torch.float64, requires_grad=True)

    def run(value: Tensor) -> Tensor:
        return stack(value, engine="compiled", control=gw.Control.scale("h", 0.9)).h

    assert torch.autograd.gradcheck(run, (x,))
    assert torch.autograd.gradgradcheck(run, (x,))


def test_a_result_changed_in_place_is_noticed() -> None:
    stack = build("lstm")
    out = stack(numbers().requires_grad_(), engine="compiled", record=gw.Record("f"))
    cost = out.h.sum()
    with torch.no_grad():
        out.h.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        cost.backward()


def test_inference_mode_and_strided_tensors() -> None:
    stack = build("lstm")
    x = torch.randn(INPUT, BATCH, STEPS, dtype=torch.float64).permute(2, 1, 0)
    with torch.no_grad():
        for name, p in stack.named_parameters():
            if p.ndim == 2:
                setattr(stack, name, torch.nn.Parameter(p.t().contiguous().t()))
    compare(stack, x, random_state(stack, BATCH))
    with torch.inference_mode():
        out = stack(x, engine="compiled", record=gw.Record("f"))
        assert_close(out.h, stack(x, engine="reference").h)


def test_two_python_threads_at_once() -> None:
    stack = build("gru", hidden_size=64)
    inputs = [numbers() for _ in range(4)]
    expected = [stack(x, engine="compiled").h for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: stack(x, engine="compiled").h, inputs * 8))
    assert all(torch.equal(a, expected[k % 4]) for k, a in enumerate(found))


def test_a_graph_is_used_twice() -> None:
    stack = build("gru")
    x = numbers().requires_grad_()
    cost = stack(x, engine="compiled").h.sum()
    first = torch.autograd.grad(cost, x, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(cost, x)[0])


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_cannot_do_it_says(case: str) -> None:
    check_refusal("compiled", case)


@settings(max_examples=10)
@given(expressions(), expressions(), st.integers(0, 10**6))
def test_random_cells(first: Any, second: Any, seed: int) -> None:
    torch.manual_seed(seed)
    stack = gw.Stack(random_cell(first, second), INPUT, 3, dtype=torch.float64)
    compare(
        stack, numbers(steps=3), record=gw.Record("gate"), control=gw.Control.scale("gate", 0.9)
    )


@settings(max_examples=10)
@given(expressions(norms=True), expressions(norms=True), st.integers(0, 10**6))
def test_random_cells_with_norms(first: Any, second: Any, seed: int) -> None:
    torch.manual_seed(seed)
    stack = gw.Stack(random_cell((NORM, first), second), INPUT, 3, dtype=torch.float64)
    control = gw.Control.scale("gate", 0.9) | gw.Control.off("gate", units=[1])
    compare(stack, numbers(steps=3), record=gw.Record("gate"), control=control)


@pytest.mark.parametrize("batch", [1, 2, 101])
def test_rows_are_shared_among_threads(batch: int) -> None:
    """One row for each thread, and more than are computed at once."""
    stack = build("lstm_layer_norm", hidden_size=70, bidirectional=True)
    compare(stack, torch.randn(3, batch, INPUT, dtype=torch.float64))


def test_a_variance_beside_a_large_mean() -> None:
    """The difference of two large squares would have no digits left."""
    stack = build("lstm_layer_norm", torch.float32)
    with torch.no_grad():
        stack.get_parameter("bias_ih_l0").add_(3000.0)
    x = numbers(torch.float32)
    exact = copy.deepcopy(stack).double()(x.double(), engine="reference").h
    found = stack(x, engine="compiled").h
    assert (
        float((found.detach().double() - exact.detach()).abs().max()) < 1e-2
    )  # 3000 + v keeps 11 bits of v


def test_norms_and_a_projection_in_one_step() -> None:
    stack = build("lstm_layer_norm to 12", bidirectional=True, zoneout=0.3)
    names = stack.directions()[0].names
    compare(stack, numbers(), lengths=[7, 0, 1, 6, 3], record=gw.Record(*names))
