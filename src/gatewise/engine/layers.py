"""A plan layer by layer, for engines that run one direction at a time: what stands between the directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from gatewise.engine.base import Direction, Plan, Result, States, valid_steps
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
    rules = matching_rules(plan)
    finals: list[dict[str, Tensor]] = []
    record: dict[str, Tensor] = {}
    for number, layer in enumerate(plan.layers):
        outputs = []
        for direction in layer:
            k = len(finals)
            part = run(direction, plan, rules[k], valid, x, states[k])
            outputs.append(part.h)
            finals.append(part.final)
            record |= part.record
        x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
        mask = plan.mask(number)
        if mask is not None:
            x = x * mask
    return Result(x, tuple(finals), record)
