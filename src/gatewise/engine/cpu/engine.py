"""The compiled engine: a cell's equations as machine code for this processor, with every gate open."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gatewise.cells.base import Law, Weights, start_state
from gatewise.engine.base import Direction, Plan, Result, States, autocast_dtype
from gatewise.engine.layers import Part, Rules, run_layers
from gatewise.engine.probing import Action
from gatewise.engine.recorder import Recorder, recorded_names
from gatewise.engine.reference import ReferenceEngine
from gatewise.probe import Rule

if TYPE_CHECKING:
    from gatewise.engine.cpu.direction import Job

_DTYPES = (torch.float32, torch.float64, torch.bfloat16)
_WORTHWHILE = 4096  # steps x columns x units; depends on the plan alone, so that a run repeats


class CompiledEngine:
    """Kernels made from the cell's graph, run on torch's threads."""

    name = "compiled"
    summary = "machine code from the cell's equations: every gate read and set, on CPUs"

    def available(self) -> str | None:
        """It needs llvmlite and 64 bits."""
        if not _has_llvmlite():
            return "llvmlite is not installed"
        if sys.maxsize < 1 << 32 or platform.machine().lower() not in ("x86_64", "amd64"):
            return f"no kernels for {platform.machine()} yet"
        return None

    def refusal(self, plan: Plan, x: Tensor) -> str | None:
        """Why the kernels cannot honour the plan, or None."""
        if x.device.type != "cpu" or x.dtype not in _DTYPES:
            return f"it computes float32, float64 and bfloat16 on CPUs, not {x.dtype} on {x.device.type}"
        if autocast_dtype(x) not in (None, torch.bfloat16):
            return f"autocast is on, to {autocast_dtype(x)}"
        if plan.special is not None or torch.compiler.is_compiling():
            return f"{plan.special or 'torch.compile'} is active"
        if x.shape[0] == 0 or x.shape[1] == 0:
            return "there is no step or no column"
        if plan.record is not None and plan.record.grad:
            return "what is recorded should carry gradients"
        if plan.control is not None and (why := _refusal_of_rules(plan.control.rules)):
            return why
        for direction in plan.directions:
            if why := _refusal_of(direction, plan):
                return why
        return None

    def reluctance(self, plan: Plan, x: Tensor) -> str | None:
        """A first call compiles; where little is computed it would never be worth it."""
        units = max(d.weights.hidden_size for d in plan.directions)
        if x.shape[0] * x.shape[1] * units < _WORTHWHILE:
            return "the run is too small to compile for"
        return None

    def run(self, plan: Plan, x: Tensor, states: States) -> Result:
        """Run the plan layer by layer."""
        return run_layers(plan, x, states, _run)


@cache
def _has_llvmlite() -> bool:
    """Asked at every choice: looking for a package that is not loaded walks the whole path."""
    return find_spec("llvmlite") is not None


def _refusal_of_rules(rules: Sequence[Rule]) -> str | None:
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


def _refusal_of(direction: Direction, plan: Plan) -> str | None:
    law, weights = direction.law, direction.weights
    if weights.hr is not None:
        return "there is a projection"
    if law.rounds:
        return f"in the cell {law.name} x and h modulate each other before the gates"
    from gatewise.engine.cpu.layout import refusal

    if why := refusal(law):
        return f"in the cell {law.name} {why}"
    learned = any(t.requires_grad for t in (direction.start or {}).values())
    if plan.reset is not None and learned and plan.grad:
        return "there are resets to a learned start"
    tensors = [weights.ih, weights.hh, *weights.params.values()]
    if len({t.dtype for t in tensors}) > 1:
        return "the weights are of different dtypes"
    if tensors[0].dtype not in _DTYPES:
        return f"the weights are {tensors[0].dtype}"
    return None


def _run(
    direction: Direction,
    plan: Plan,
    rules: Rules,
    valid: Tensor | None,
    x: Tensor,
    state: Mapping[str, Tensor],
) -> Part:
    """One direction over all steps."""
    # llvmlite is loaded by the first run, not by `import gatewise`
    from gatewise.engine.cpu.direction import Job, run
    from gatewise.engine.cpu.layout import Variant
    from gatewise.engine.cpu.making import kernels

    law, weights, low = direction.law, direction.weights, autocast_dtype(x)
    recorded = () if plan.record is None else tuple(recorded_names(direction, plan.record))
    zoneout = dict(direction.zoneout)
    cut = _cuts(direction, plan, valid)
    state = _started(direction, plan, valid, x, state)
    controls = {name: _table(direction, plan, name, acting, x) for name, acting in rules.items()}
    tensors = [x, weights.ih, weights.hh, *weights.params.values(), *state.values()]
    tensors += [t for t in (weights.b_ih, weights.b_hh) if t is not None]
    variant = Variant(
        controlled=tuple(sorted(controls)),
        recorded=recorded,
        zoneout=tuple(
            (n, "mask" if isinstance(z, Tensor) else "share") for n, z in zoneout.items()
        ),
        ragged=valid is not None,
        cut=cut is not None,
        grad=plan.grad and any(t.requires_grad for t in tensors),
        narrow=low is not None or x.dtype == torch.bfloat16,
    )
    sizes = {n: v.shape[-1] for n, v in state.items()}
    starts = start_state(law, sizes, 1, x, direction.start) if cut is not None else {}
    job = Job(
        kernels(law, variant, torch.float32 if variant.narrow else x.dtype),
        direction.reverse,
        None if valid is None else valid[..., 0],
        cut,
        {n: v[0] for n, v in starts.items()},
        controls,
        zoneout,
        lambda inputs: _again(direction, plan, inputs, low),
        shown=x.dtype if low is None else torch.float32,
    )
    h, final = run(
        job, x, weights.ih, weights.hh, weights.b_ih, weights.b_hh, weights.params, state
    )
    return Part(h, final, _recorded(job, direction, plan, valid, x))


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


def _table(
    direction: Direction, plan: Plan, name: str, rules: Sequence[Rule], x: Tensor
) -> tuple[Tensor, Tensor]:
    """What the rules on a name make of a value v, as alpha v + beta: (T or 1, B, H) each.

    Where they select a number alpha is NaN, where they select a value of a tensor it is infinite.
    """
    steps, batch, units = x.shape[0], x.shape[1], direction.width(name)
    actions = [Action(rule, plan.start, batch) for rule in rules]
    moving = any(
        r.time is not None or (isinstance(r.value, Tensor) and r.value.ndim > 2) for r in rules
    )
    rows = [
        _row(actions, t, x.new_ones(batch, units), x.new_zeros(batch, units))
        for t in range(steps if moving else 1)
    ]
    return torch.stack([a for a, _ in rows]), torch.stack([b for _, b in rows])


def _row(
    actions: Sequence[Action], step: int, alpha: Tensor, beta: Tensor
) -> tuple[Tensor, Tensor]:
    for action in actions:
        alpha, beta = action.compose(alpha, beta, step)
    return alpha.detach(), beta.detach()


def _recorded(
    job: Job, direction: Direction, plan: Plan, valid: Tensor | None, x: Tensor
) -> dict[str, Tensor]:
    """Path -> recorded values, of the steps, units and columns asked for."""
    if plan.record is None:
        return {}
    recorder = Recorder(direction, plan, plan.record, x.shape[0])
    if not recorder.rows:
        return recorder.finish_empty(x)
    if recorder.takes_all(x.shape[0]):
        return {
            direction.full(name): value if valid is None else torch.where(valid, value, 0.0)
            for name, value in job.slots.items()
        }
    order = reversed(recorder.rows) if direction.reverse else recorder.rows
    for t in order:
        for name in recorder.names:
            recorder.put(name, job.slots[name][t], t, None if valid is None else valid[t])
        recorder.end_step(t)
    return recorder.finish()


def _again(
    direction: Direction, plan: Plan, inputs: Sequence[Tensor | None], low: torch.dtype | None
) -> tuple[Tensor, ...]:
    """The same run on torch's operators: h and the last states."""
    law: Law = direction.law
    x, ih, hh, b_ih, b_hh, *rest = inputs
    assert x is not None and ih is not None and hh is not None
    params = dict(zip(law.params, rest, strict=False))
    state = dict(zip(law.states, rest[len(law.params) :], strict=True))
    weights = Weights(ih, hh, b_ih, b_hh, None, params)  # type: ignore[arg-type]
    one = replace(plan, layers=((replace(direction, weights=weights),),), masks=(), record=None)
    with torch.autocast(x.device.type, low, enabled=low is not None):
        result = ReferenceEngine().run(one, x, (state,))  # type: ignore[arg-type]
    return result.h, *result.states[0].values()
