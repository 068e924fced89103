"""What an engine of kernels makes of a plan, and of what its kernels kept. Knows torch's operators; no kernel.

Controls become tables, resets become states that are put back after a step: so that a kernel reads
numbers, whatever the rules were.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from gatewise.cells.base import Law, Weights, start_state
from gatewise.engine.base import Direction, Plan, autocast_dtype
from gatewise.engine.cpu.layout import Variant, refusal
from gatewise.engine.cpu.widths import refusal_of_projection, with_projection
from gatewise.engine.layers import Rules
from gatewise.engine.recorder import recorded_names
from gatewise.engine.reference import ReferenceEngine
from gatewise.engine.tables import table
from gatewise.probe import Rule


@dataclass(frozen=True, eq=False)
class Setting:
    """One run of a direction, without the numbers that flow.

    Args:
        variant: what its kernels are made for.
        reverse: from the end to the start.
        state: the state before the first step.
        valid: (T, B) bool, or None: all of them.
        cut: (T, B) bool: the state after that step is put back to its start; None: nowhere.
        starts: with `cut`: state -> (H,).
        controls: name -> alpha and beta, (T or 1, B or 1, H).
        zoneout: state -> mask (T, B, H) or the share that is kept.
        again: the same by torch's operators, for gradients of gradients: (x, weights, states) to (h,
            last states).
        slots: what was recorded, name -> (T, B, H), once it has run.
    """

    variant: Variant
    reverse: bool
    state: Mapping[str, Tensor]
    valid: Tensor | None
    cut: Tensor | None
    starts: Mapping[str, Tensor]
    controls: Mapping[str, tuple[Tensor, Tensor]]
    zoneout: Mapping[str, Tensor | float]
    again: Callable[[Sequence[Tensor | None]], tuple[Tensor, ...]]
    slots: dict[str, Tensor] = field(default_factory=dict)


def prepare(
    direction: Direction,
    plan: Plan,
    rules: Rules,
    valid: Tensor | None,
    x: Tensor,
    state: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> Setting:
    """The setting of one direction of a plan; `dtype` is that of its equations' values."""
    law, weights = direction.law, direction.weights
    recorded = () if plan.record is None else tuple(recorded_names(direction, plan.record))
    cut = _cuts(direction, plan, valid)
    state = _started(direction, plan, valid, x, state)
    controls = _controls(direction, plan, rules, x, dtype)
    tensors = [x, weights.ih, weights.hh, *weights.params.values(), *state.values()]
    tensors += [t for t in (weights.b_ih, weights.b_hh, weights.hr) if t is not None]
    variant = Variant(
        controlled=tuple(sorted(controls)),
        recorded=recorded,
        zoneout=tuple(
            (n, "mask" if isinstance(z, Tensor) else "share") for n, z in direction.zoneout.items()
        ),
        ragged=valid is not None,
        cut=cut is not None,
        grad=plan.grad and any(t.requires_grad for t in tensors),
    )
    sizes = {n: v.shape[-1] for n, v in state.items()}
    starts = start_state(law, sizes, 1, x, direction.start) if cut is not None else {}
    return Setting(
        variant,
        direction.reverse,
        state,
        None if valid is None else valid[..., 0],
        cut,
        {n: v[0] for n, v in starts.items()},
        controls,
        dict(direction.zoneout),
        partial(_again, direction, plan, autocast_dtype(x)),
    )


def refusal_of_plan(
    plan: Plan, x: Tensor, dtypes: Collection[torch.dtype], by_rows: bool = False
) -> str | None:
    """Why kernels cannot honour the plan, or None; `by_rows`: they do more than unit by unit."""
    if plan.special is not None or torch.compiler.is_compiling():
        return f"{plan.special or 'torch.compile'} is active"
    if x.shape[0] == 0 or x.shape[1] == 0:
        return "there is no step or no column"
    if plan.record is not None and plan.record.grad:
        return "what is recorded should carry gradients"
    if plan.control is not None and (why := _refusal_of_rules(plan.control.rules)):
        return why
    for direction in plan.directions:
        if why := _refusal_of(direction, plan, dtypes, by_rows):
            return why
    return None


def _refusal_of_rules(rules: Sequence[Rule]) -> str | None:
    """Why a table cannot hold these rules, or None."""
    for rule in rules:
        if not isinstance(rule.value, Tensor):
            if rule.value is not None and abs(rule.value) == float("inf"):
                return "a control sets an infinite value"
            if rule.value is not None and rule.value != rule.value:
                return "a control sets NaN"
        elif rule.value.requires_grad:
            return "a control's value asks for a gradient"
        elif not bool(rule.value.isfinite().all()):
            return "a control's value is not finite"
    return None


def _refusal_of(
    direction: Direction, plan: Plan, dtypes: Collection[torch.dtype], by_rows: bool
) -> str | None:
    """Why kernels cannot run this direction, or None."""
    law, weights = direction.law, direction.weights
    if weights.hr is not None and not by_rows:
        return "there is a projection"
    if law.rounds:
        return f"in the cell {law.name} x and h modulate each other before the gates"
    if weights.hr is not None:
        if why := refusal_of_projection(law):
            return f"in the cell {law.name} {why}"
        law = with_projection(law)
    if why := refusal(law, by_rows):
        return f"in the cell {law.name} {why}"
    learned = any(t.requires_grad for t in (direction.start or {}).values())
    if plan.reset is not None and learned and plan.grad:
        return "there are resets to a learned start"
    tensors = [weights.ih, weights.hh, *weights.params.values()]
    tensors += [] if weights.hr is None else [weights.hr]
    if len({t.dtype for t in tensors}) > 1:
        return "the weights are of different dtypes"
    if tensors[0].dtype not in dtypes:
        return f"the weights are {tensors[0].dtype}"
    return None


def _started(
    direction: Direction,
    plan: Plan,
    valid: Tensor | None,
    x: Tensor,
    state: Mapping[str, Tensor],
) -> Mapping[str, Tensor]:
    """The given state, put to its start where the first step begins a sequence."""
    if plan.reset is None or direction.reverse:
        return state
    here = plan.reset[0].unsqueeze(-1)
    if valid is not None:
        here = here & valid[0]
    sizes = {n: v.shape[-1] for n, v in state.items()}
    start = start_state(direction.law, sizes, x.shape[1], x, direction.start)
    return {n: torch.where(here, start[n].to(v.dtype), v) for n, v in state.items()}


def _cuts(direction: Direction, plan: Plan, valid: Tensor | None) -> Tensor | None:
    """(T, B) bool: after which steps the state is put to its start."""
    if plan.reset is None:
        return None
    begins = plan.reset if valid is None else plan.reset & valid[..., 0]
    cut = torch.zeros_like(begins)
    if direction.reverse:  # backwards a sequence begins before the first step of the next one
        cut[1:] = begins[1:]
    else:
        cut[:-1] = begins[1:]
    return cut


def _controls(
    direction: Direction, plan: Plan, rules: Rules, x: Tensor, dtype: torch.dtype
) -> dict[str, tuple[Tensor, Tensor]]:
    """Name -> alpha and beta, (T or 1, B, H) each."""
    # many small steps: where x is on another device, each would be a launch
    like = torch.empty(0, dtype=dtype, device="cpu")
    found = {}
    for name, acting in rules.items():
        shape = (x.shape[0], x.shape[1], direction.width(name))
        one = table(acting, plan.start, shape, like)
        found[name] = one.alpha.detach().to(x.device), one.beta.detach().to(x.device)
    return found


def _again(
    direction: Direction,
    plan: Plan,
    low: torch.dtype | None,
    inputs: Sequence[Tensor | None],
) -> tuple[Tensor, ...]:
    """The same run on torch's operators, under autocast to `low`: h and the last states."""
    law: Law = direction.law
    x, ih, hh, b_ih, b_hh, *rest = inputs
    assert x is not None and ih is not None and hh is not None
    hr = None if direction.weights.hr is None else rest.pop(len(law.params))
    params = dict(zip(law.params, rest, strict=False))
    state = dict(zip(law.states, rest[len(law.params) :], strict=True))
    weights = Weights(ih, hh, b_ih, b_hh, hr, params)  # type: ignore[arg-type]
    one = replace(plan, layers=((replace(direction, weights=weights),),), masks=(), record=None)
    with torch.autocast(x.device.type, low, enabled=low is not None):
        result = ReferenceEngine().run(one, x, (state,))  # type: ignore[arg-type]
    return result.h, *result.states[0].values()
