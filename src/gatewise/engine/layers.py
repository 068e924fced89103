"""A plan layer by layer, for engines that run one direction at a time: what stands between the directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from gatewise.engine.base import Direction, Plan, Result, States, autocast_dtype, valid_steps
from gatewise.engine.naming import matching_rules
from gatewise.probe import Rule


class Part(NamedTuple):
    """What one direction gives: h (T, B, H), its last state, and path -> recorded values."""

    h: Tensor
    final: dict[str, Tensor]
    record: dict[str, Tensor]


Rules: TypeAlias = Mapping[str, list[Rule]]
Run: TypeAlias = Callable[
    [Direction, Plan, Rules, "Tensor | None", Tensor, Mapping[str, Tensor]], Part
]
"""(direction, plan, its rules, valid steps (T, B, 1), x, its state) -> Part."""


def run_layers(plan: Plan, x: Tensor, states: States, run: Run) -> Result:
    """Run every direction of the plan; directions side by side and dropout between the layers."""
    valid = valid_steps(plan.lengths, x.shape[0])
    if valid is not None:
        # What stands in the padding (even NaN) must not reach a gradient.
        x = torch.where(valid, x, torch.zeros_like(x))
    rules, low = matching_rules(plan), autocast_dtype(x)
    finals: list[dict[str, Tensor]] = []
    record: dict[str, Tensor] = {}
    for number, layer in enumerate(plan.layers):
        outputs = []
        for direction in layer:
            k = len(finals)
            part = run(direction, plan, rules[k], valid, x, states[k])
            outputs.append(part.h)
            finals.append(part.final)
            record |= _narrowed(direction, part.record, low)
        x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
        mask = plan.mask(number)
        if mask is not None:
            x = x * mask
    return Result(x, tuple(finals), record)


def _narrowed(
    direction: Direction, record: dict[str, Tensor], low: torch.dtype | None
) -> dict[str, Tensor]:
    """What is recorded under autocast: in the dtype of h, but for the other states."""
    if low is None:
        return record
    other = {direction.full(f"{s}{end}") for s in direction.law.states for end in ("", ".new")}
    other -= {direction.full("h"), direction.full("h.new")}
    return {path: value if path in other else value.to(low) for path, value in record.items()}
