"""The one entry point over time: a plan is checked, an engine chosen, and run."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from gatewise.cells.base import Cell, Law, Weights, as_state, previous_state
from gatewise.engine import check_engine, choose
from gatewise.engine.base import Direction, Plan, States, autocast_dtype, check_lengths
from gatewise.engine.choose import active_transform
from gatewise.engine.naming import check_control
from gatewise.engine.opaque import OPAQUE, run_opaque
from gatewise.engine.recorder import check_record, recorded_steps, times_of
from gatewise.errors import OptionError, ShapeError
from gatewise.noise import Noise
from gatewise.probe import Control, Record, Records, active_control
from gatewise.types import State


@dataclass(frozen=True, eq=False)
class Unrolled:
    """What a net gave over time.

    Args:
        h: outputs, (T, B, H); 0 in the padding of ragged columns.
        state: the last state of each column; pass it back in to continue.
        record: what was recorded, or None if nothing was asked for.
        engine: the name of the engine that ran; "opaque" in a program of torch.compile, where it
            is chosen when the program runs.
    """

    h: Tensor
    state: State
    record: Records | None
    engine: str


def unroll(
    cell: Cell,
    x: Tensor,
    state: State = None,
    *,
    lengths: Tensor | Sequence[int] | None = None,
    reset: Tensor | None = None,
    start: int | Tensor = 0,
    engine: str = "auto",
    record: Record | None = None,
    control: Control | None = None,
) -> Unrolled:
    """Run a cell over time: h[t] = Pred(h[t-1], x[t]).

    Args:
        cell: a module of `gatewise.cells`.
        x: inputs, (T, B, I).
        state: h, or (h, c), each (B, H). Default: the cell's start state.
        lengths: (B,), each 0 to T: where a column ends. Order is kept, no sorting or packing.
        reset: (T, B) bool; where True, the state is put back to its start before that step.
        start: the time of x[0], a number or (B,): where this chunk begins in its sequence.
        engine: a name of `gatewise.engines()`, or "auto".
        record: what to read.
        control: what to set.
    Returns:
        h, state, record and engine. Names in the record are short ("f").
    Raises:
        ShapeError: if a shape does not fit.
        UnknownNameError: if a name or engine does not exist.
        EngineError: if the named engine cannot do it.

    >>> from gatewise.cells import LSTM
    >>> cell = LSTM(3, 4)
    >>> out = unroll(cell, torch.zeros(5, 2, 3), record=Record("f"), control=Control.on("f"))
    >>> out.h.shape, out.engine, out.record["f"].unique()
    (torch.Size([5, 2, 4]), 'reference', tensor([1.]))
    """
    check_input(x, cell.input_size)
    noise = Noise.draw() if cell.training and (cell.zoneout or cell.weight_drop) else None
    weights = drop_weights(cell.law, cell.weights(), cell.weight_drop, noise, "")
    direction = Direction(
        cell.law,
        weights,
        start=cell.start(),
        zoneout=zoneout_masks(cell.law, weights, cell.zoneout, noise, "", x),
    )
    previous = previous_state(cell.law, weights, state, x.shape[1], x, cell.start())
    out = run_plan(
        Plan(((direction,),)),
        x,
        (previous,),
        lengths=lengths,
        reset=reset,
        start=start,
        engine=engine,
        record=record,
        control=active_control(cell, control),
    )
    assert isinstance(out.state, tuple)
    return replace(out, state=out.state[0])


def run_plan(
    plan: Plan,
    x: Tensor,
    states: States,
    *,
    lengths: Tensor | Sequence[int] | None,
    reset: Tensor | None,
    start: int | Tensor,
    engine: str,
    record: Record | None,
    control: Control | None,
) -> Unrolled:
    """Complete a plan of layers and run it; `state` of the result has one part per direction."""
    check_kinds(record, control)
    run = _run
    if torch.compiler.is_compiling():
        if record or control:  # what they do at which step is no matter for a tracer
            run = _run_outside
        elif active_transform() is None:
            return _in_a_program(plan, x, states, lengths, reset, engine)
    return run(
        plan,
        x,
        states,
        lengths=lengths,
        reset=reset,
        start=start,
        engine=engine,
        record=record,
        control=control,
    )


def _run(
    plan: Plan,
    x: Tensor,
    states: States,
    *,
    lengths: Tensor | Sequence[int] | None,
    reset: Tensor | None,
    start: int | Tensor,
    engine: str,
    record: Record | None,
    control: Control | None,
) -> Unrolled:
    steps, batch = x.shape[0], x.shape[1]
    states = _matched(plan, x, states)
    plan = replace(
        plan,
        lengths=_lengths(lengths, steps, batch, x.device),
        reset=_reset(reset, steps, batch, x.device),
        start=_start(start, batch, x.device),
        record=record or None,
        control=control or None,
        grad=torch.is_grad_enabled(),
        special=active_transform(),
    )
    check_record(plan)
    check_control(plan)
    chosen = choose(plan, x, engine)
    result = chosen.run(plan, x, states)
    records = None
    if plan.record is not None:
        times = times_of(plan.start, recorded_steps(plan, plan.record, steps))
        records = Records(result.record, times)
    parts = tuple(as_state(list(final.values())) for final in result.states)
    return Unrolled(result.h, parts, records, chosen.name)


_run_outside = _disable_dynamo(_run)  # it loads the tracer at its first call, not now


def _in_a_program(
    plan: Plan,
    x: Tensor,
    states: States,
    lengths: Tensor | Sequence[int] | None,
    reset: Tensor | None,
    engine: str,
) -> Unrolled:
    """`run_plan` where torch.compile traces: one operator, which chooses its engine when it runs.

    Without a record and a control nothing depends on the time at which the chunk begins.
    """
    check_engine(engine)
    states = _matched(plan, x, states)
    plan = replace(
        plan,
        lengths=_lengths(lengths, x.shape[0], x.shape[1], x.device),
        reset=_reset(reset, x.shape[0], x.shape[1], x.device),
        grad=torch.is_grad_enabled(),
    )
    result = run_opaque(plan, x, states, engine)
    parts = tuple(as_state(list(final.values())) for final in result.states)
    return Unrolled(result.h, parts, None, OPAQUE)


def zoneout_masks(
    law: Law,
    weights: Weights,
    zoneout: dict[str, float],
    noise: Noise | None,
    path: str,
    x: Tensor,
) -> dict[str, Tensor | float]:
    """State name -> its zoneout: a mask (T, B, H) in training, the probability otherwise."""
    if noise is None:
        return dict(zoneout)
    sizes = {s: weights.output_size if s == "h" else weights.hidden_size for s in law.states}
    return {
        s: noise.drops(f"{path}.zoneout.{s}", (*x.shape[:2], sizes[s]), p, device=x.device)
        for s, p in zoneout.items()
    }


def drop_weights(law: Law, weights: Weights, p: float, noise: Noise | None, path: str) -> Weights:
    """DropConnect on the recurrent weights (Wan et al. 2013; Merity et al. 2017): one mask a call."""
    if noise is None or p == 0:
        return weights

    def drop(name: str, w: Tensor) -> Tensor:
        return w * noise.keep(f"{path}.{name}", w.shape, p, dtype=w.dtype, device=w.device)

    params = {
        n: drop(n, w) if law.params[n] == "recurrent" else w for n, w in weights.params.items()
    }
    return replace(weights, hh=drop("weight_hh", weights.hh), params=params)


def check_input(x: Tensor, input_size: int) -> None:
    """Raise ShapeError unless x is (T, B, input_size)."""
    if not isinstance(x, Tensor):
        raise ShapeError(f"expected x as a tensor (T, B, {input_size}), found {type(x).__name__}")
    if x.ndim != 3 or x.shape[-1] != input_size:
        raise ShapeError(f"expected x of shape (T, B, {input_size}), found {tuple(x.shape)}")
    if not x.dtype.is_floating_point:
        raise ShapeError(f"expected x of a floating-point dtype, found {x.dtype}")


def check_kinds(record: object, control: object) -> None:
    """Raise OptionError unless these are a Record and a Control, or None."""
    for name, value, kind in (("record", record, Record), ("control", control, Control)):
        if value is not None and not isinstance(value, kind):
            raise OptionError(
                f"{name}= takes a gw.{kind.__name__}, such as gw.{_EXAMPLES[name]}: "
                f"found {type(value).__name__}"
            )


_EXAMPLES = {"record": 'Record("f")', "control": 'Control.off("o")'}


def _matched(plan: Plan, x: Tensor, states: States) -> States:
    """The states in x's dtype, as the weights must be; under autocast the engine sees to it."""
    weight = plan.directions[0].weights.ih
    if weight.device != x.device:
        raise ShapeError(f"expected x on {weight.device}, as the weights; found it on {x.device}")
    if autocast_dtype(x) is not None:
        return states
    if weight.dtype != x.dtype:
        raise ShapeError(
            f"expected x of {weight.dtype}, as the weights; found {x.dtype}: use x.to(...)"
        )
    for name, value in ((n, v) for state in states for n, v in state.items()):
        if torch.promote_types(value.dtype, x.dtype) != x.dtype:
            raise ShapeError(f"expected state {name} of {x.dtype}, as x; found {value.dtype}")
    # Of less precision is right: a state from under autocast, for instance.
    return tuple({n: v.to(x.dtype) for n, v in state.items()} for state in states)


def _lengths(
    lengths: Tensor | Sequence[int] | None, steps: int, batch: int, device: torch.device
) -> Tensor | None:
    if lengths is None:
        return None
    try:
        lengths = torch.as_tensor(lengths, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise ShapeError(f"expected lengths as ({batch},) numbers, found {lengths!r}") from None
    if lengths.shape != (batch,):
        raise ShapeError(f"expected lengths of shape ({batch},), found {tuple(lengths.shape)}")
    if lengths.dtype == torch.bool or (batch and lengths.dtype.is_floating_point):
        raise ShapeError(f"expected lengths as whole numbers, found {lengths.dtype}")
    lengths = lengths.to(torch.int64)
    if not torch.compiler.is_compiling():
        check_lengths(lengths, steps)
    return lengths


def _reset(reset: Tensor | None, steps: int, batch: int, device: torch.device) -> Tensor | None:
    if reset is None:
        return None
    if not isinstance(reset, Tensor) or reset.dtype != torch.bool or reset.shape != (steps, batch):
        found = (
            f"{reset.dtype} {tuple(reset.shape)}"
            if isinstance(reset, Tensor)
            else type(reset).__name__
        )
        raise ShapeError(f"expected reset as a bool tensor ({steps}, {batch}), found {found}")
    return reset.to(device)


def _start(start: int | Tensor, batch: int, device: torch.device) -> int | Tensor:
    if isinstance(start, Tensor):
        whole = not start.dtype.is_floating_point and start.dtype != torch.bool
        if start.shape not in ((), (batch,)) or not whole:
            raise ShapeError(
                f"expected start as a whole number or ({batch},) of them, "
                f"found {start.dtype} {tuple(start.shape)}"
            )
        if start.numel() and int(start.min()) < 0:
            raise OptionError(
                f"start is a time, a whole number from 0 on: found {int(start.min())}"
            )
        return int(start) if start.ndim == 0 else start.to(device=device, dtype=torch.int64)
    try:
        time = -1 if isinstance(start, bool) else operator.index(start)
    except TypeError:
        time = -1
    if time < 0:
        raise OptionError(f"start is a time, a whole number from 0 on: found {start!r}")
    return time
