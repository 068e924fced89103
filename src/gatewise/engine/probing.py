"""Record and Control made ready for one direction of a plan: hooks for each step.

Shared by every engine that runs step by step in Python; a compiled engine reads the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gatewise.cells.equations import Hook
from gatewise.engine.base import Direction, Plan
from gatewise.errors import OptionError, ShapeError, UnknownNameError, unknown
from gatewise.places import contains, listed, order
from gatewise.probe import MEMORY, Record, Rule

_FIXED = {"on": 1.0, "off": 0.0}
_FLUSH = 256
"""Recorded steps after which a chunk goes to `Record.to`."""


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
            raise _no_such_name(rule.name, [directions[k] for k in here])
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
    """Raise if a rule cannot act in this plan: its name, layer, units, columns or value."""
    for direction, found in zip(plan.directions, matching_rules(plan), strict=True):
        for name, rules in found.items():
            for rule in rules:
                if rule.units is not None:
                    listed("units", rule.units, direction.width(name))


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


def _no_such_name(name: str | None, directions: list[Direction]) -> UnknownNameError:
    names = dict.fromkeys(n for d in directions for n in d.names)
    paths = [d.full(n) for d in directions for n in d.names] if "." in (name or "") else []
    return unknown("name to record or control", name, [*names, *paths[:60]])


class _Action:
    """One rule on one name, ready to be applied step by step."""

    def __init__(self, rule: Rule, start: int | Tensor, batch: int) -> None:
        self.rule = rule
        self._start = start
        self._columns = start.tolist() if isinstance(start, Tensor) else None
        self._batch = listed("batch", rule.batch, batch) if rule.batch is not None else None
        self._size = batch
        self._cache: dict[tuple[int, torch.dtype, torch.device], tuple[Tensor | None, Tensor]] = {}

    def __call__(
        self, value: Tensor, step: int, held: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The value after the rule; and where it is then a number that a control has set."""
        times = self._times(step)
        inside = [contains(self.rule.time, t) and self._covers(t) for t in times]
        if not any(inside):
            return value, held
        where, operand = self._prepared(value)
        new = self._compute(value, self._at(operand, times, inside))
        if not all(inside):
            column = torch.tensor(inside, device=value.device).unsqueeze(-1)
            where = column if where is None else where & column
        held = self._held_after(held, where, value)
        return (new.expand_as(value) if where is None else torch.where(where, new, value)), held

    def _held_after(self, held: Tensor | None, where: Tensor | None, like: Tensor) -> Tensor | None:
        """`held` after this rule, (B or 1, H or 1) bool or None: nowhere."""
        if isinstance(self.rule.value, Tensor):  # it may be learned, and varies
            if held is None or where is None:
                return None
            return held & ~where
        if self.rule.op in ("scale", "add"):  # a number of a number is a number
            return held
        if where is None:
            where = torch.ones(1, 1, dtype=torch.bool, device=like.device)
        return where if held is None else held | where

    def _times(self, step: int) -> list[int]:
        if self._columns is None:
            assert isinstance(self._start, int)
            return [self._start + step]
        return [begin + step for begin in self._columns]

    def _covers(self, time: int) -> bool:
        value = self.rule.value
        if not isinstance(value, Tensor) or value.ndim < 3:
            return True
        return order(self.rule.time, time) < value.shape[0]

    def _at(self, operand: Tensor, times: list[int], inside: list[bool]) -> Tensor:
        """The operand at these times."""
        if operand.ndim < 3:
            return operand
        rows = [order(self.rule.time, t) if ok else 0 for t, ok in zip(times, inside, strict=True)]
        if len(rows) == 1:
            return operand[rows[0]]
        columns = torch.arange(len(rows), device=operand.device)
        wide = operand.expand(-1, len(rows), -1)
        return wide[torch.tensor(rows, device=operand.device), columns]

    def _compute(self, value: Tensor, operand: Tensor) -> Tensor:
        if self.rule.op == "scale":
            return value * operand
        if self.rule.op == "add":
            return value + operand
        return operand.expand_as(value)

    def _prepared(self, value: Tensor) -> tuple[Tensor | None, Tensor]:
        key = (value.shape[-1], value.dtype, value.device)
        if key not in self._cache:
            self._cache[key] = (self._mask(value), self._operand(value))
        return self._cache[key]

    def _mask(self, value: Tensor) -> Tensor | None:
        """Which (batch, units) the rule selects, (B or 1, H or 1) bool; None: all."""
        mask = None
        if self.rule.units is not None:
            mask = torch.zeros(1, value.shape[-1], dtype=torch.bool, device="cpu")
            mask[:, listed("units", self.rule.units, value.shape[-1])] = True
        if self._batch is not None:
            columns = torch.zeros(self._size, 1, dtype=torch.bool, device="cpu")
            columns[self._batch] = True
            mask = columns if mask is None else mask & columns
        return None if mask is None else mask.to(value.device)

    def _operand(self, like: Tensor) -> Tensor:
        """The rule's value over all units and columns: (), (H), (B, H) or (T', B, H)."""
        value = _FIXED.get(self.rule.op, self.rule.value)
        assert value is not None
        if not isinstance(value, Tensor):
            return like.new_tensor(value)
        value = value.to(device=like.device, dtype=like.dtype)
        if value.ndim == 0:
            return value
        units = listed("units", self.rule.units, like.shape[-1])
        value = _spread(value, -1, units, like.shape[-1], f"units of {self.rule.name}")
        if value.ndim == 1:
            return value
        columns = list(range(self._size)) if self._batch is None else self._batch
        return _spread(value, -2, columns, self._size, f"columns of {self.rule.name}")


def _spread(value: Tensor, dim: int, places: list[int], size: int, what: str) -> Tensor:
    """`value` over the whole axis: it has 1, all, or the selected places along `dim`."""
    found = value.shape[dim]
    if found == 1 or (found == size and found != len(places)):
        return value
    if found != len(places):
        raise ShapeError(f"a control's value for {what}: expected {len(places)}, found {found}")
    if places == list(range(size)):
        return value
    index = torch.tensor(places, device=value.device)
    shape = list(value.shape)
    shape[dim] = size
    return value.new_zeros(shape).index_copy(dim, index, value)


class Recorder:
    """Collects the recorded values of one direction."""

    def __init__(self, direction: Direction, plan: Plan, record: Record, steps: int) -> None:
        self._record = record
        self._direction = direction
        self.names = recorded_names(direction, record)
        self.rows = recorded_steps(plan, record, steps)
        self._values: dict[str, list[Tensor]] = {name: [] for name in self.names}
        self._steps: list[int] = []
        self._start = plan.start
        self._columns = _column_filter(plan, record)
        self._units = record.units
        self._index: dict[tuple[int, torch.device], Tensor] = {}

    def _places(self, value: Tensor) -> Tensor:
        """The recorded units of a value, as an index."""
        key = (value.shape[-1], value.device)
        if key not in self._index:
            units = listed("units", self._units, value.shape[-1])
            self._index[key] = torch.tensor(units, dtype=torch.int64, device=value.device)
        return self._index[key]

    def put(self, name: str, value: Tensor, step: int, valid: Tensor | None) -> None:
        """Note one value of one step."""
        if self._units is not None:
            value = value.index_select(-1, self._places(value))
        if not self._record.grad:
            value = value.detach()
        for mask in (valid, self._columns(step)):
            if mask is not None:
                value = torch.where(mask, value, torch.zeros_like(value))
        self._values[name].append(value)

    def end_step(self, step: int) -> None:
        """Called after the last value of a recorded step."""
        self._steps.append(step)
        if self._record.to is not None and len(self._steps) >= _FLUSH:
            self.flush()

    def flush(self) -> None:
        """Send what there is to the sink."""
        assert self._record.to is not None
        if not self._steps:
            return
        for name, value in self._stacked().items():
            _send(self._record.to, self._direction.full(name), value, self._times())
        self._values = {name: [] for name in self.names}
        self._steps = []

    def finish(self) -> dict[str, Tensor]:
        """Path -> (T', B, U), in the order of time; empty where a sink took it."""
        if self._record.to is not None:
            self.flush()
            return {}
        return {self._direction.full(n): v for n, v in self._stacked().items()}

    def finish_empty(self, like: Tensor) -> dict[str, Tensor]:
        """Path -> (0, B, U), where no step of this call is recorded: chunks can be joined."""
        if self._record.to is not None:
            return {}
        found = {}
        for name in self.names:
            units = listed("units", self._record.units, self._direction.width(name))
            found[self._direction.full(name)] = like.new_zeros(0, like.shape[1], len(units))
        return found

    def _stacked(self) -> dict[str, Tensor]:
        return {
            name: torch.stack(rows[::-1] if self._direction.reverse else rows)
            for name, rows in self._values.items()
        }

    def _times(self) -> Tensor:
        return times_of(self._start, sorted(self._steps))


def _column_filter(plan: Plan, record: Record) -> Callable[[int], Tensor | None]:
    """Step -> (B, 1) bool of the columns whose time is recorded; None: all of them."""
    start = plan.start
    if not isinstance(start, Tensor):
        return lambda step: None
    begins = start.tolist()

    def columns(step: int) -> Tensor | None:
        wanted = [record.wants(begin + step) for begin in begins]
        return None if all(wanted) else torch.tensor(wanted, device=start.device).unsqueeze(-1)

    return columns


def times_of(start: int | Tensor, steps: list[int]) -> Tensor:
    """The times of these steps: (T',), or (T', B) where each column has its own start."""
    times = torch.tensor(steps, dtype=torch.int64, device="cpu")
    return times.unsqueeze(-1) + start.cpu() if isinstance(start, Tensor) else times + start


def recorded_steps(plan: Plan, record: Record, steps: int) -> list[int]:
    """The steps of this call that are recorded, in the order of time."""
    if isinstance(plan.start, Tensor):
        begins = sorted(set(plan.start.tolist()))
        return [t for t in range(steps) if any(record.wants(b + t) for b in begins)]
    return [t for t in range(steps) if record.wants(plan.start + t)]


def recorded_names(direction: Direction, record: Record) -> list[str]:
    """The names inside this direction that are recorded, in the order asked for."""
    found = (local_name(name, direction) for name in record.names)
    return list(dict.fromkeys(name for name in found if name is not None))


def check_record(plan: Plan) -> None:
    """Raise if a name asked for is in no cell of the plan, or a unit in none that has the name."""
    record = plan.record
    if record is None:
        return
    for name in record.names:
        here = [(d, own) for d in plan.directions if (own := local_name(name, d))]
        if not here:
            raise _no_such_name(name, list(plan.directions))
        for direction, own in here:
            listed("units", record.units, direction.width(own))


def _send(sink: object, path: str, value: Tensor, times: Tensor) -> None:
    if callable(sink):
        sink(path, value, times)
        return
    folder = Path(str(sink)) / path
    folder.mkdir(parents=True, exist_ok=True)
    values = value.float() if value.dtype == torch.bfloat16 else value
    np.save(folder / f"{int(times.min()):09d}.npy", values.cpu().numpy())


class Probe:
    """The hooks of one direction: the same functions at every step, made once."""

    def __init__(
        self, direction: Direction, plan: Plan, rules: Mapping[str, list[Rule]], shape: torch.Size
    ) -> None:
        self._direction = direction
        steps, self._batch = shape[0], shape[1]
        self._actions = {
            name: [_Action(rule, plan.start, self._batch) for rule in acting]
            for name, acting in rules.items()
        }
        self.recorder = (
            Recorder(direction, plan, plan.record, steps) if plan.record is not None else None
        )
        self._rows = set(self.recorder.rows) if self.recorder else set()
        recorded = self.recorder.names if self.recorder else []
        self._acting = {name: self._hook(name, False) for name in self._actions}
        self._reading = {
            name: self._hook(name, name in recorded)
            for name in dict.fromkeys([*self._actions, *recorded])
        }
        self._step = 0
        self._valid: Tensor | None = None
        self._held: dict[str, Tensor] = {}
        self.held = self._held.get if self._actions else None
        """Name -> where this step's value was set to a number; None where no control can do so."""

    def hooks(self, step: int, valid: Tensor | None) -> dict[str, Hook]:
        """Name -> what is done to its value at this step."""
        self._step, self._valid = step, valid
        self._held.clear()
        return self._reading if step in self._rows else self._acting

    def _hook(self, name: str, recorded: bool) -> Hook:
        actions = self._actions.get(name, [])
        width = self._direction.width(name)

        def call(value: Tensor) -> Tensor:
            if value.ndim < 2:  # made of parameters alone: the same in every column
                value = value.expand(self._batch, width)
            held: Tensor | None = None
            for action in actions:
                value, held = action(value, self._step, held)
            if held is not None:
                self._held[name] = held
            if recorded:
                assert self.recorder is not None
                self.recorder.put(name, value, self._step, self._valid)
            return value

        return call

    def end_step(self, step: int) -> None:
        """Called after each step."""
        if self.recorder is not None and step in self._rows:
            self.recorder.end_step(step)

    def recorded(self, like: Tensor) -> dict[str, Tensor]:
        """Path -> recorded values; `like`: a tensor (..., B, ...) of their dtype and device."""
        if self.recorder is None:
            return {}
        return self.recorder.finish() if self._rows else self.recorder.finish_empty(like)
