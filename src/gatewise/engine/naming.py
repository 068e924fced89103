"""Which rule or record means which value: names and paths resolved against the cells of a plan."""

from __future__ import annotations

from gatewise.engine.base import Direction, Plan
from gatewise.errors import OptionError, UnknownNameError, unknown
from gatewise.places import listed
from gatewise.probe import MEMORY, Rule


def matching_rules(plan: Plan) -> list[dict[str, list[Rule]]]:
    """For each direction of the plan: name -> the rules that act on it, in order.

    Memory controls are spelled out in the terms of each cell.

    Raises:
        UnknownNameError: if a rule's name is in no cell of the plan.
        OptionError: if a rule's layer does not exist, or a cell cannot express a memory control.
    """
    directions = plan.directions
    found: list[dict[str, list[Rule]]] = [{} for _ in directions]
    for rule in plan.control.rules if plan.control else ():
        if not (layers := listed("layer", rule.layer, len(plan.layers))):
            raise OptionError(
                f"layer= of a control selects none of {len(plan.layers)} layers: found {rule.layer}"
            )
        here = [k for k, d in enumerate(directions) if d.layer in layers]
        hits = sum(_match(rule, directions[k], found[k]) for k in here)
        if not hits:
            raise no_such_name(rule.name, [directions[k] for k in here])
    return found


def _match(rule: Rule, direction: Direction, found: dict[str, list[Rule]]) -> int:
    if rule.op in MEMORY:
        spelled = _spell_out(rule, direction)
    else:
        name = local_name(rule.name, direction)
        spelled = {} if name is None else {name: rule}
    for name, single in spelled.items():
        found.setdefault(name, []).append(single)
    return len(spelled)


def _spell_out(rule: Rule, direction: Direction) -> dict[str, Rule]:
    law = direction.law
    if rule.op not in law.controls:
        can = ", ".join(law.controls) or "none: it has no gate on its state"
        raise OptionError(f"cell {law.name} cannot express memory {rule.op} (it has {can})")
    return {
        gate: Rule("set", gate, value, rule.layer, rule.units, rule.time, rule.batch)
        for gate, value in law.controls[rule.op].items()
    }


def check_control(plan: Plan) -> None:
    """Raise if a rule's name, layer or units are in no cell of this plan.

    Its columns and its value are checked where they are applied.
    """
    for direction, found in zip(plan.directions, matching_rules(plan), strict=True):
        for name, rules in found.items():
            for rule in rules:
                if rule.units is None:
                    continue
                width = direction.width(name)
                if not listed("units", rule.units, width) and isinstance(rule.units, slice):
                    raise OptionError(
                        f"units= of a control selects none of {width} units of {name}: found {rule.units}"
                    )


def local_name(name: str | None, direction: Direction) -> str | None:
    """The name inside this direction that `name` (short or a path) means, if any."""
    names = direction.names
    if name in names:
        return name
    prefix = f"{direction.path}."
    if name is not None and direction.path and name.startswith(prefix):
        name = name.removeprefix(prefix)
        return name if name in names else None
    return None


def no_such_name(name: str | None, directions: list[Direction]) -> UnknownNameError:
    """The error for a name that no cell of these directions has."""
    names = dict.fromkeys(n for d in directions for n in d.names)
    paths = [d.full(n) for d in directions for n in d.names] if "." in (name or "") else []
    return unknown("name to record or control", name, [*names, *paths[:60]])
