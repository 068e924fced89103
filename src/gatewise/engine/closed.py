"""The closed engine: torch's own kernels (oneDNN, cuDNN, or its native ones). Fast; no gate can be seen."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from gatewise import cells
from gatewise.cells.base import Law
from gatewise.engine.base import Direction, Plan, Result, States, autocast_dtype
from gatewise.engine.cpu.engine import CompiledEngine, has_wide_registers
from gatewise.engine.cuda.engine import CudaEngine, wants_gradients

_OUTRUN = {cells.LSTM.law: 1 << 18, cells.GRU.law: 1 << 17}
"""Steps x columns x units from which on the compiled engine was measured to train faster (gatewise bench)."""

_OUTRUN_ON_A_CARD = (cells.LSTM.law, cells.GRU.law)
"""Cells of which our kernels were measured to be faster where one launch takes all steps (benchmarks/gpu.py)."""

Kernel: TypeAlias = "Callable[..., Any]"

_KERNELS: tuple[tuple[Law, Kernel, Kernel], ...] = (
    (cells.RNN.law, torch.rnn_tanh, torch.rnn_tanh_cell),
    (cells.ReluRNN.law, torch.rnn_relu, torch.rnn_relu_cell),
    (cells.LSTM.law, torch.lstm, torch.lstm_cell),
    (cells.GRU.law, torch.gru, torch.gru_cell),
)
"""Of each cell torch's kernel over time, and the one for a single step."""

# torch says once that a projected LSTM is not oneDNN's; it is nothing a user could act on.
warnings.filterwarnings("ignore", "LSTM with projections is not supported with oneDNN", UserWarning)


def _is_persistent(plan: Plan) -> bool:
    """Whether cuDNN can have a kernel of all steps for it, which is as fast without gradients."""
    return plan.lengths is None and [d.law for d in plan.directions] == [cells.LSTM.law]


def _kernels(law: Law) -> tuple[Kernel, Kernel] | None:
    """torch's kernels for these very equations: a user's cell may have the same name."""
    return next(((over, step) for known, over, step in _KERNELS if known is law), None)


@cache
def _lstm_autocasts(dtype: torch.dtype) -> bool:
    """Whether torch's LSTM runs under autocast on this CPU: oneDNN needs AVX512 or better for it."""
    weights = [torch.zeros(s, device="cpu") for s in ((16, 4), (16, 4), (16,), (16,))]
    x, start = torch.zeros(1, 1, 4, device="cpu"), torch.zeros(1, 1, 4, device="cpu", dtype=dtype)
    try:
        with torch.autocast("cpu", dtype=dtype):
            torch.lstm(x, (start, start), weights, True, 1, 0.0, False, False, False)
    except RuntimeError:
        return False
    return True


class ClosedEngine:
    """torch.nn.RNN, LSTM and GRU's kernels.

    Args:
        cuda: the engine that is faster with some nets on a card. Default: none.
    """

    name = "closed"
    summary = "torch's own RNN, LSTM and GRU kernels: no record, control, reset or zoneout"

    def __init__(self, cuda: CudaEngine | None = None) -> None:
        self._cuda = cuda

    def available(self) -> str | None:
        """It is part of torch."""
        return None

    def refusal(self, plan: Plan, x: Tensor) -> str | None:
        """Why these kernels cannot honour the plan, or None."""
        if plan.record is not None:
            return "something is recorded"
        if plan.control is not None:
            return "something is controlled"
        for direction in plan.directions:
            if _kernels(direction.law) is None:
                return f"torch has no kernel for the cell {direction.law.name}"
        if plan.reset is not None:
            return "there is a reset mask"
        if any(d.zoneout for d in plan.directions):
            return "there is zoneout"
        if plan.special is not None:
            return f"{plan.special} is active"
        return self._refusal_of_numbers(plan, x)

    def _refusal_of_numbers(self, plan: Plan, x: Tensor) -> str | None:
        low = autocast_dtype(x)
        is_lstm = any(d.law is cells.LSTM.law for d in plan.directions)
        if low is not None and is_lstm and x.device.type == "cpu" and not _lstm_autocasts(low):
            return f"torch's LSTM kernel for {low} autocast does not run on this CPU"
        if x.shape[0] == 0 or x.shape[1] == 0:
            return "there is no step or no column"
        if plan.lengths is not None and not bool((plan.lengths > 0).any()):
            return "every column is empty"
        return None

    def reluctance(self, plan: Plan, x: Tensor) -> str | None:
        """Where our own kernels are faster: in 16 bits on a card, and in training on wide registers."""
        if x.dtype == torch.float64:
            return None
        if self._outrun_on_a_card(plan, x):
            return "cuda is faster in 16 bits where one launch takes all steps"
        units = max(d.weights.hidden_size for d in plan.directions)
        least = max(_OUTRUN.get(d.law, sys.maxsize) for d in plan.directions)
        small = x.shape[0] < 2 or x.shape[0] * x.shape[1] * units < least
        if small or not plan.grad:
            return None
        compiled = CompiledEngine()
        if compiled.available() or compiled.refusal(plan, x) or not has_wide_registers():
            return None
        return "compiled trains a net of this size faster on this processor"

    def _outrun_on_a_card(self, plan: Plan, x: Tensor) -> bool:
        if self._cuda is None or any(d.law not in _OUTRUN_ON_A_CARD for d in plan.directions):
            return False
        if _is_persistent(plan) and not wants_gradients(plan, x):
            return False
        return self._cuda.runs_together(plan, x)

    def run(self, plan: Plan, x: Tensor, states: States) -> Result:
        """Run the plan: one kernel call where nothing stands between the layers."""
        if plan.lengths is not None:
            return self._run_ragged(plan, x, states)
        return _run_layers(plan, x, None, states)

    def _run_ragged(self, plan: Plan, x: Tensor, states: States) -> Result:
        """Pack the columns that have steps; an empty column keeps its state."""
        assert plan.lengths is not None
        full = bool((plan.lengths > 0).all())
        filled = plan.lengths.nonzero().flatten()
        lengths = plan.lengths if full else plan.lengths[filled]
        used = x if full else x.index_select(1, filled)
        given = states if full else tuple(_pick(s, filled) for s in states)
        masks = tuple(_columns(m, None if full else filled) for m in plan.masks)
        result = _run_layers(replace(plan, masks=masks), used, lengths.cpu(), given)
        if full:
            return result
        h = x.new_zeros(x.shape[0], x.shape[1], result.h.shape[-1], dtype=result.h.dtype)
        h = h.index_copy(1, filled, result.h)
        return Result(h, tuple(map(_merge, states, result.states, [filled] * len(states))))


def _columns(mask: Tensor | None, filled: Tensor | None) -> Tensor | None:
    if mask is None or filled is None or mask.shape[1] == 1:
        return mask
    return mask.index_select(1, filled)


def _pick(state: dict[str, Tensor], columns: Tensor) -> dict[str, Tensor]:
    return {name: value.index_select(0, columns) for name, value in state.items()}


def _merge(old: dict[str, Tensor], new: dict[str, Tensor], columns: Tensor) -> dict[str, Tensor]:
    """`old` with the given columns replaced."""
    return {n: v.to(new[n].dtype).index_copy(0, columns, new[n]) for n, v in old.items()}


def _run_layers(plan: Plan, x: Tensor, lengths: Tensor | None, states: States) -> Result:
    """Call the kernel on as many layers at once as have the same cell and nothing in between."""
    finals: list[dict[str, Tensor]] = []
    first = 0
    for last in range(1, len(plan.layers) + 1):
        if last < len(plan.layers) and not _split_at(plan, last):
            continue
        group = plan.layers[first:last]
        width = len(group) * len(group[0])
        call = _step if _is_step(group, x, lengths) else _call
        x, new = call(group, x, lengths, states[len(finals) : len(finals) + width])
        finals += new
        mask = plan.mask(last - 1)
        if mask is not None:
            x = x * mask
        first = last
    return Result(x, tuple(finals))


def _split_at(plan: Plan, layer: int) -> bool:
    """Whether the kernel call must end before `layer`."""
    below, above = plan.layers[layer - 1][0], plan.layers[layer][0]
    return (
        plan.mask(layer - 1) is not None
        or below.law is not above.law
        or below.weights.hidden_size != above.weights.hidden_size
        or below.weights.output_size != above.weights.output_size
        or (below.weights.b_ih is None) != (above.weights.b_ih is None)
    )


def _call(
    group: tuple[tuple[Direction, ...], ...],
    x: Tensor,
    lengths: Tensor | None,
    states: States,
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """One kernel call: h (T, B, D H) and the last states."""
    directions = [d for layer in group for d in layer]
    law = directions[0].law
    flat = [w for d in directions for w in _flat(d)]
    names = list(law.states)
    low = autocast_dtype(x)
    hx = tuple(torch.stack([s[n].to(low or x.dtype) for s in states]) for n in names)
    has_bias = directions[0].weights.b_ih is not None
    # cuDNN refuses the backward pass of what ran in evaluation mode; without dropout both are equal.
    train = x.is_cuda and torch.is_grad_enabled()
    options = (has_bias, len(group), 0.0, train, len(group[0]) == 2)
    kernels = _kernels(law)
    assert kernels is not None
    kernel = kernels[0]
    with _own_weights(x):
        if lengths is None:
            h, *final = kernel(x, hx if len(hx) > 1 else hx[0], flat, *options, False)
        else:
            h, final = _packed(kernel, x, hx, flat, options, lengths)
    if low is not None and len(final) > 1:
        # torch returns c in the low precision; a state that is carried on stays float32.
        final[1:] = [c.float() for c in final[1:]]
    return h, [{n: f[k] for n, f in zip(names, final, strict=True)} for k in range(len(directions))]


@contextmanager
def _own_weights(x: Tensor) -> Iterator[None]:
    """Without cuDNN's advice to keep all weights in one block, which a stack's parameters are not."""
    if not x.is_cuda:
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous")
        yield


def _is_step(group: tuple[tuple[Direction, ...], ...], x: Tensor, lengths: Tensor | None) -> bool:
    """Whether the kernels of a single step serve: oneDNN packs its weights anew at every call."""
    projected = group[0][0].weights.hr is not None
    return x.shape[0] == 1 and lengths is None and not projected and autocast_dtype(x) is None


def _step(
    group: tuple[tuple[Direction, ...], ...],
    x: Tensor,
    lengths: Tensor | None,
    states: States,
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """One step of every layer: h (1, B, D H) and the last states."""
    finals: list[dict[str, Tensor]] = []
    row = x[0]
    for layer in group:
        outputs = []
        for direction in layer:
            law, w = direction.law, direction.weights
            kernels = _kernels(law)
            assert kernels is not None
            given = tuple(states[len(finals)][name] for name in law.states)
            hx = given if len(given) > 1 else given[0]
            new = kernels[1](row, hx, w.ih, w.hh, w.b_ih, w.b_hh)
            parts = (new,) if isinstance(new, Tensor) else new
            finals.append(dict(zip(law.states, parts, strict=True)))
            outputs.append(parts[0])
        row = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
    return row.unsqueeze(0), finals


def _packed(
    kernel: Kernel,
    x: Tensor,
    hx: tuple[Tensor, ...],
    flat: list[Tensor],
    options: tuple[object, ...],
    lengths: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    order, back = packed.sorted_indices, packed.unsorted_indices
    assert order is not None and back is not None
    given = tuple(s.index_select(1, order) for s in hx)
    first = given if len(given) > 1 else given[0]
    data, *final = kernel(packed.data, packed.batch_sizes, first, flat, *options)
    out = PackedSequence(data, packed.batch_sizes, order, back)
    h, _ = pad_packed_sequence(out, total_length=x.shape[0])
    return h, [f.index_select(1, back) for f in final]


def _flat(direction: Direction) -> list[Tensor]:
    """The weights in the order of torch's kernels."""
    w = direction.weights
    return [t for t in (w.ih, w.hh, w.b_ih, w.b_hh, w.hr) if t is not None]
