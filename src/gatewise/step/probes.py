"""Record and Control for a session: tables that the kernel reads, and arrays that it fills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from gatewise.engine.base import Direction, Plan
from gatewise.engine.cpu.layout import Layout, Variant
from gatewise.engine.naming import check_control, matching_rules
from gatewise.engine.probing import Action
from gatewise.engine.recorder import (
    Recorder,
    check_record,
    recorded_names,
    recorded_steps,
    times_of,
)
from gatewise.errors import EngineError
from gatewise.probe import Control, Record, Records, Rule
from gatewise.step.choose import refusal_of_control
from gatewise.types import version_of
from gatewise.unrolling import check_kinds


@dataclass(frozen=True, eq=False)
class Probes:
    """What is read and set in every call of a session.

    Args:
        plan: the layers, with record and control; its start is that of the call.
        variants: what each layer's kernel is made for.
        rules: layer by layer: name -> the rules that act on it.
    """

    plan: Plan
    variants: tuple[Variant, ...]
    rules: tuple[Mapping[str, list[Rule]], ...]


def prepare(
    directions: Sequence[Direction], record: Record | None, control: Control | None
) -> Probes:
    """The probes of a session; errors as in `gatewise.unroll`."""
    check_kinds(record, control)
    plan = Plan(tuple((d,) for d in directions), record=record or None, control=control or None)
    check_record(plan)
    check_control(plan)
    if why := refusal_of_control(control):
        raise EngineError(f"the step engine cannot run this: {why}; name another engine")
    rules = tuple(matching_rules(plan))
    variants = tuple(
        Variant(
            controlled=tuple(sorted(acting)),
            recorded=() if plan.record is None else tuple(recorded_names(d, plan.record)),
            zoneout=tuple((name, "share") for name in d.zoneout),
            cut=plan.record is not None,  # states change in place: what is recorded lies apart
        )
        for d, acting in zip(directions, rules, strict=True)
    )
    return Probes(plan, variants, rules)


def tables(
    probes: Probes, layer: int, start: int | Tensor, steps: int, batch: int, size: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Name -> alpha and beta, (T or 1, B, Hp): v <- alpha v + beta; see `Action.compose`."""
    direction = probes.plan.directions[layer]
    found = {}
    for name, rules in probes.rules[layer].items():
        actions = [Action(rule, start, batch) for rule in rules]
        moving = any(_moves(rule) for rule in rules)
        units = direction.width(name)
        pairs = []
        for t in range(steps if moving else 1):
            alpha, beta = torch.ones(batch, units), torch.zeros(batch, units)
            for action in actions:
                alpha, beta = action.compose(alpha, beta, t)
            pairs.append((alpha.detach(), beta.detach()))
        pad = (0, size - units)
        found[name] = (
            F.pad(torch.stack([a for a, _ in pairs]), pad).contiguous(),
            F.pad(torch.stack([b for _, b in pairs]), pad).contiguous(),
        )
    return found


def _moves(rule: Rule) -> bool:
    return rule.time is not None or (isinstance(rule.value, Tensor) and rule.value.ndim > 2)


def moves(probes: Probes, layer: int) -> bool:
    """Whether a layer's controls differ from step to step."""
    return any(_moves(rule) for rules in probes.rules[layer].values() for rule in rules)


def versions(probes: Probes) -> tuple[int, ...]:
    """Changes where a tensor that a control sets is changed in place."""
    control = probes.plan.control
    values = [rule.value for rule in control.rules] if control else []
    return tuple(version_of(v) for v in values if isinstance(v, Tensor))


def slots(probes: Probes, layer: int, steps: int, batch: int, size: int) -> dict[str, Tensor]:
    """Slot -> an array (T, B, Hp) for what is recorded of a layer."""
    layout = Layout(probes.plan.directions[layer].law, probes.variants[layer])
    return {slot: torch.empty(steps, batch, size) for slot in layout.kept}


def collect(
    probes: Probes, found: Sequence[Mapping[str, Tensor]], start: int | Tensor, steps: int
) -> Records | None:
    """What was recorded in one call, of the steps, units and columns asked for."""
    if probes.plan.record is None:
        return None
    plan = replace(probes.plan, start=start)
    record: dict[str, Tensor] = {}
    for layer, direction in enumerate(plan.directions):
        assert plan.record is not None
        layout = Layout(direction.law, probes.variants[layer])
        recorder = Recorder(direction, plan, plan.record, steps)
        batch = next(iter(found[layer].values())).shape[1] if found[layer] else 0
        if not recorder.rows:
            record |= recorder.finish_empty(torch.empty(0, batch, 0))
            continue
        for t in recorder.rows:
            for name in recorder.names:
                value = found[layer][layout.slot_of(name)][t, :, : direction.width(name)]
                recorder.put(name, value, t, None)
            recorder.end_step(t)
        record |= recorder.finish()
    assert plan.record is not None
    return Records(record, times_of(start, recorded_steps(plan, plan.record, steps)))
