"""The CUDA engine: a cell's equations as kernels for the card, made at run time, with every gate open."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from gatewise.card import Card, Platform
from gatewise.engine.base import Direction, Plan, Result, States, autocast_dtype
from gatewise.engine.cuda.direction import Dtypes, Job, run
from gatewise.engine.cuda.making import kernels, pays_together, splits
from gatewise.engine.layers import Part, Rules, run_layers
from gatewise.engine.preparing import prepare, refusal_of_plan
from gatewise.engine.recorder import collect

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_MOST = 1 << 31  # a kernel counts the units of a step in 32 bits


class CudaEngine:
    """A matrix product of torch and one kernel made from the cell's graph, a step.

    Args:
        platform: where it runs. Default: an NVIDIA card.
    """

    name = "cuda"
    summary = (
        "CUDA kernels from the cell's equations: every gate read and set, on NVIDIA cards; "
        "in 16 bits before closed"
    )

    def __init__(self, platform: Platform | None = None) -> None:
        self._platform = Card() if platform is None else platform

    def available(self) -> str | None:
        """It needs a CUDA build of torch and a card."""
        return self._platform.available()

    def refusal(self, plan: Plan, x: Tensor) -> str | None:
        """Why the kernels cannot honour the plan, or None."""
        if x.device.type != self._platform.device or x.dtype not in _DTYPES:
            return f"it computes floating-point numbers on CUDA, not {x.dtype} on {x.device.type}"
        if why := refusal_of_plan(plan, x, _DTYPES):
            return why
        low = autocast_dtype(x)
        for direction in plan.directions:
            if why := _refusal_of_sizes(direction, x, low):
                return why
        return None

    def reluctance(self, plan: Plan, x: Tensor) -> str | None:
        """The plain loop launches a kernel for each operation: it is quicker for one step alone."""
        if x.shape[0] == 1 and not plan.grad:
            return "a single step is quicker on torch's operators"
        return None

    def runs_together(self, plan: Plan, x: Tensor) -> bool:
        """Whether it runs the plan, and one launch takes all steps of each direction."""
        if x.device.type != self._platform.device or not pays_together(x.shape[0], x.shape[1]):
            return False
        if self.available() or self.refusal(plan, x):
            return False
        kind, grad = Dtypes.of(x, autocast_dtype(x)).kind, wants_gradients(plan, x)
        return all(
            splits(self._platform, d.law, kind, d.weights.hidden_size, grad, x.device) is not None
            for d in plan.directions
        )

    def run(self, plan: Plan, x: Tensor, states: States) -> Result:
        """Run the plan layer by layer."""
        return run_layers(plan, x, states, partial(_run, self._platform))


def wants_gradients(plan: Plan, x: Tensor) -> bool:
    """Whether a gradient of x or of a weight can be asked for."""
    weights = (w for d in plan.directions for w in (x, d.weights.ih, d.weights.hh))
    return plan.grad and any(w.requires_grad for w in weights)


def _refusal_of_sizes(direction: Direction, x: Tensor, low: torch.dtype | None) -> str | None:
    weight = direction.weights.ih
    if low is not None and (weight.dtype != torch.float32 or x.dtype == torch.float64):
        return f"under autocast it takes float32 weights, not {weight.dtype}"
    if x.shape[1] * direction.weights.hidden_size >= _MOST:
        return "a step has 2^31 values or more"
    return None


def _run(
    platform: Platform,
    direction: Direction,
    plan: Plan,
    rules: Rules,
    valid: Tensor | None,
    x: Tensor,
    state: Mapping[str, Tensor],
) -> Part:
    """One direction over all steps."""
    weights = direction.weights
    dtypes = Dtypes.of(x, autocast_dtype(x))
    setting = prepare(direction, plan, rules, valid, x, state, dtypes.wide)
    made = kernels(platform, direction.law, setting.variant, dtypes.kind, x.device)
    h, final = run(
        Job(platform, made, dtypes, setting),
        x,
        [weights.ih, weights.hh, weights.b_ih, weights.b_hh],
        weights.params,
        setting.state,
    )
    like = h.new_empty((*h.shape[:2], 0), dtype=dtypes.wide)
    return Part(h, final, collect(setting.slots, direction, plan, valid, like))
