"""What holds of every cell over time, whatever the numbers."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import gatewise as gw
from gatewise.probe import Control, Record
from gatewise.types import map_state, select, state_tensors
from parity import CELLS, PAIRS, random_state
from tolerances import assert_close

B, I, H = 3, 2, 3  # noqa: E741
EACH = pytest.mark.parametrize("cell", CELLS)
PAIR = pytest.mark.parametrize(("engine", "cell"), PAIRS)

# The net and its numbers are drawn by torch, seeded by hypothesis.
few = settings(max_examples=8)


def _stack(cell: str, **options: Any) -> gw.Stack:
    return gw.Stack(cell, I, H, dtype=torch.float64, **options)


def _x(steps: int, batch: int = B) -> Tensor:
    return torch.randn(steps, batch, I, dtype=torch.float64)


def _same_state(a: Any, b: Any) -> None:
    for mine, other in zip(state_tensors(a), state_tensors(b), strict=True):
        assert_close(mine, other)


cuts = st.lists(st.integers(0, 12), max_size=5).map(lambda c: [0, *sorted(c), 12])


def _chunks(
    stack: gw.Stack, x: Tensor, state: Any, places: list[int], **options: Any
) -> tuple[Tensor, Any, list[Any]]:
    hs, records = [], []
    for start, stop in pairwise(places):
        out = stack(x[start:stop], state, start=start, **options)
        state = out.state
        hs.append(out.h)
        records.append(out.record)
    return torch.cat(hs), state, records


@PAIR
@few
@given(places=cuts, given_state=st.booleans())
def test_split_and_resume_is_the_whole(
    engine: str, cell: str, places: list[int], given_state: bool
) -> None:
    """Chunks of any length, empty ones too, on every engine that can run them."""
    stack, x = _stack(cell, num_layers=2), _x(12)
    state = random_state(stack, B) if given_state else None
    whole = stack(x, state, engine=engine)
    # An empty chunk runs on the reference: a kernel has nothing to do.
    h, last, _ = _chunks(stack, x, state, sorted(set(places)), engine=engine)
    assert_close(h, whole.h)
    _same_state(last, whole.state)
    h, last, _ = _chunks(stack, x, state, places)
    assert_close(h, whole.h)
    _same_state(last, whole.state)


@EACH
@few
@given(places=cuts, every=st.integers(1, 4), shift=st.integers(0, 9))
def test_split_and_resume_with_records_and_controls(
    cell: str, places: list[int], every: int, shift: int
) -> None:
    stack, x = _stack(cell, num_layers=2), _x(12)
    pre = stack._law.names()[0]
    control = Control.scale(pre, 0.5, time=range(2, 20, 3), units=[1])
    control |= Control.patch("h", torch.rand(4, 1, 1), time=slice(5, 9), layer=0)
    record = Record("h", pre, every=every)
    whole = stack(x, start=shift, record=record, control=control)
    state, hs, records = None, [], []
    for start, stop in pairwise(places):
        out = stack(x[start:stop], state, start=start + shift, record=record, control=control)
        state = out.state
        hs.append(out.h)
        records.append(out.record)
    assert_close(torch.cat(hs), whole.h)
    _same_state(state, whole.state)
    assert torch.equal(torch.cat([r.times for r in records]), whole.record.times)
    for name in whole.record:
        assert_close(torch.cat([r[name] for r in records]), whole.record[name])


@PAIR
@few
@given(
    lengths=st.lists(st.integers(0, 6), min_size=B, max_size=B),
    garbage=st.sampled_from([float("nan"), float("inf"), 1e30]),
)
def test_padding_changes_nothing(
    engine: str, cell: str, lengths: list[int], garbage: float
) -> None:
    """Each column as if it were alone, whatever stands in the padding; gradients too."""
    if engine == "closed" and not any(lengths):
        engine = "reference"
    stack, x = _stack(cell, num_layers=2, bidirectional=True), _x(6)
    state = random_state(stack, B)
    padding = torch.arange(6)[:, None] >= torch.tensor(lengths)
    x = x.masked_fill(padding.unsqueeze(-1), garbage).requires_grad_()
    out = stack(x, state, lengths=lengths, engine=engine)
    assert not out.h[padding].any()
    (gradient,) = torch.autograd.grad(out.h.pow(2).sum(), x, retain_graph=True)
    weights = torch.autograd.grad(out.h.pow(2).sum(), list(stack.parameters()))
    assert not gradient[padding].any()
    total = [torch.zeros_like(p) for p in stack.parameters()]
    for column, length in enumerate(lengths):
        alone = x[:length, column : column + 1].detach().requires_grad_()
        one = stack(alone, select(state, torch.tensor([column])), engine="reference")
        assert_close(out.h[:length, column : column + 1], one.h)
        _same_state(select(out.state, torch.tensor([column])), one.state)
        if length:
            grads = torch.autograd.grad(one.h.pow(2).sum(), [alone, *stack.parameters()])
            assert_close(gradient[:length, column : column + 1], grads[0], gradient=True)
            total = [a + b for a, b in zip(total, grads[1:], strict=True)]
    for mine, other in zip(weights, total, strict=True):
        assert_close(mine, other, gradient=True)


@PAIR
@few
@given(order=st.permutations(range(B)))
def test_columns_are_independent(engine: str, cell: str, order: list[int]) -> None:
    stack, x = _stack(cell, bidirectional=True), _x(5)
    index = torch.tensor(order)
    lengths = torch.tensor([5, 2, 4])
    state = random_state(stack, B)
    out = stack(x, state, lengths=lengths, engine=engine)
    other = stack(x[:, index], select(state, index), lengths=lengths[index], engine=engine)
    assert_close(other.h, out.h[:, index])
    _same_state(other.state, select(out.state, index))


@PAIR
@few
@given(start=st.integers(0, 10**6))
def test_the_start_changes_nothing_without_controls_in_time(
    engine: str, cell: str, start: int
) -> None:
    stack, x = _stack(cell), _x(4)
    plain = stack(x, engine=engine).h
    assert torch.equal(stack(x, start=start, engine=engine).h, plain)
    starts = torch.tensor([start, 0, 7])
    assert torch.equal(stack(x, start=starts, engine=engine).h, plain)


@EACH
@few
@given(step=st.integers(0, 6), learned=st.booleans())
def test_a_reset_is_two_runs(cell: str, step: int, learned: bool) -> None:
    """In both directions: what is before the reset and what is after it are two sequences."""
    stack = _stack(cell, bidirectional=True, learned_state=learned)
    if learned:
        with torch.no_grad():
            for name, p in stack.named_parameters():
                if name.startswith("start_"):
                    p.normal_()
    x = _x(7)
    state = random_state(stack, B)
    reset = torch.zeros(7, B, dtype=torch.bool)
    reset[step, 1] = True
    out = stack(x, state, reset=reset)
    plain = stack(x, state)
    others = torch.tensor([0, 2])
    assert_close(out.h[:, others], plain.h[:, others])
    _same_state(select(out.state, others), select(plain.state, others))
    one = torch.tensor([1])
    given, fresh = select(state, one), stack.zero_state(1)
    if step == 0:
        # The forward direction begins anew; the backward one has nothing before it.
        mixed = map_state(lambda s: s.clone(), given)
        for mine, start in zip(state_tensors(mixed), state_tensors(fresh), strict=True):
            mine[0] = start[0]
        alone = stack(x[:, 1:2], mixed)
        assert_close(out.h[:, 1:2], alone.h)
        _same_state(select(out.state, one), alone.state)
        return
    before = stack(x[:step, 1:2], _pick(given, fresh))
    after = stack(x[step:, 1:2], _pick(fresh, given))
    assert_close(out.h[:, 1:2], torch.cat([before.h, after.h]))
    _same_state(select(out.state, one), _pick(after.state, before.state))


def _pick(forward: Any, backward: Any) -> Any:
    """The state whose forward direction is one's and whose backward direction is the other's."""
    if isinstance(forward, Tensor):
        return torch.stack([forward[0], backward[1]])
    return tuple(_pick(a, b) for a, b in zip(forward, backward, strict=True))


@EACH
def test_a_reset_in_the_padding_is_none(cell: str) -> None:
    stack, x = _stack(cell, bidirectional=True), _x(6)
    state, lengths = random_state(stack, B), [2, 6, 0]
    padding = torch.arange(6)[:, None] >= torch.tensor(lengths)
    out = stack(x, state, lengths=lengths, reset=padding)
    plain = stack(x, state, lengths=lengths, engine="reference")
    assert torch.equal(out.h, plain.h)
    _same_state(out.state, plain.state)


@EACH
def test_a_reset_everywhere_forgets_everything(cell: str) -> None:
    stack, x = _stack(cell), _x(4)
    out = stack(x, random_state(stack, B), reset=torch.ones(4, B, dtype=torch.bool))
    for t in range(4):
        assert_close(out.h[t], stack(x[t : t + 1]).h[0])


@PAIR
def test_a_step_at_a_time_keeps_only_the_state(engine: str, cell: str) -> None:
    """Detached and carried: gradients stop at the boundary."""
    stack, x = _stack(cell), _x(4).requires_grad_()
    out = stack(x[:2], engine=engine)
    carried = gw.types.detach(out.state)
    (gradient,) = torch.autograd.grad(stack(x[2:], carried, engine=engine).h.sum(), x)
    assert not gradient[:2].any()
    assert gradient[2:].any()


def test_results_say_what_ran_and_do_not_share_memory_with_the_input() -> None:
    cell = gw.cells.GRU(I, H)
    x = torch.randn(4, B, I)
    state = torch.randn(B, H)
    kept = state.clone()
    out = gw.unroll(cell, x, state)
    assert out.engine == "closed"
    assert out.record is None
    out.h.detach().fill_(7)
    assert torch.equal(state, kept)
    empty = gw.unroll(cell, x[:0], state)
    assert torch.equal(empty.state, state)


@pytest.mark.parametrize("start", [-1, 1.5, True, "0", [0, 1], np.array([0, 1])])
def test_a_start_that_is_no_time_is_said_in_one_line(start: Any) -> None:
    with pytest.raises(gw.errors.OptionError, match="start is a time"):
        gw.unroll(gw.cells.GRU(3, 4), torch.zeros(2, 2, 3), start=start)


@pytest.mark.gpu
@pytest.mark.parametrize("training", [True, False])
def test_gradients_on_a_gpu_in_both_modes(training: bool) -> None:
    cell = gw.cells.LSTM(3, 4, dtype=torch.float64).train(training)
    twin = copy.deepcopy(cell).to("cuda")
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    gw.unroll(cell, x, engine="reference").h.sum().backward()
    gw.unroll(twin, x.to("cuda"), engine="closed").h.sum().backward()
    for name, weight in cell.named_parameters():
        grad = twin.get_parameter(name).grad
        assert grad is not None
        assert weight.grad is not None
        assert_close(grad.cpu(), weight.grad)
