"""Record and Control made ready for one direction of a plan: hooks for each step.

Shared by every engine that runs step by step in Python; a compiled engine reads the same rules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from gatewise.cells.graph import Hook
from gatewise.engine.base import Direction, Plan
from gatewise.engine.recorder import Recorder
from gatewise.errors import ShapeError
from gatewise.places import contains, listed, order
from gatewise.probe import FIXED, Rule


class Action:
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

    def moment(self, step: int) -> tuple[int, ...]:
        """All that the rule's effect at a step depends on: of each column -1, nothing, or the row it takes."""
        value = self.rule.value
        moving = isinstance(value, Tensor) and value.ndim > 2
        return tuple(
            (order(self.rule.time, t) if moving else 0)
            if contains(self.rule.time, t) and self._covers(t)
            else -1
            for t in self._times(step)
        )

    def compose(self, alpha: Tensor, beta: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The rule after v <- alpha v + beta, for engines that take tables; both (B, H).

        Where a value is selected alpha is not finite: NaN for a number, infinite for a tensor's.
        """
        new_beta, _ = self(beta, step, None)
        if self.rule.op == "add":
            return alpha, new_beta
        if self.rule.op == "scale":
            scaled, _ = self(alpha, step, None)
            return torch.where(alpha.isfinite(), scaled, alpha), new_beta
        mark = math.inf if isinstance(self.rule.value, Tensor) else math.nan
        untouched = self(torch.full_like(beta, math.nan), step, None)[0].isnan()
        return torch.where(untouched, alpha, mark), new_beta

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
        value = FIXED.get(self.rule.op, self.rule.value)
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


class Probe:
    """The hooks of one direction: the same functions at every step, made once."""

    def __init__(
        self, direction: Direction, plan: Plan, rules: Mapping[str, list[Rule]], shape: torch.Size
    ) -> None:
        self._direction = direction
        steps, self._batch = shape[0], shape[1]
        self._actions = {
            name: [Action(rule, plan.start, self._batch) for rule in acting]
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
