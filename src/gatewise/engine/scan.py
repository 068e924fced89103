"""The scan engine: cells that are linear recurrences, all times at once, on torch's operators.

The gates of all steps are computed together; what is left, s[t] = a[t] s[t-1] + b[t], is a scan
(`recurrence.scan`). Which cells these are, `cells.linear` finds in their graph. Controls, zoneout, resets
and padding are all of the form v <- alpha v + beta, so they go into a and b.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from gatewise.cells.base import input_part, start_state
from gatewise.cells.equations import OPERATIONS
from gatewise.cells.graph import Closing
from gatewise.cells.linear import Affine, combine, recurrence, refusal
from gatewise.engine.base import Direction, Plan, Result, States, autocast_dtype
from gatewise.engine.layers import Part, Rules, run_layers
from gatewise.engine.recorder import collect, recorded_names
from gatewise.engine.recurrence import previous, scan
from gatewise.engine.tables import Table, table

_WORTHWHILE = 8  # steps: below, the loop is as fast

Cut: TypeAlias = "Tensor | bool"
"""Where a value does not read the state at all, so that not even a NaN in it comes through."""


class ScanEngine:
    """All times at once on torch's operators: any device, dtype and transform; linear recurrences only."""

    name = "scan"
    summary = "all times at once for cells that are linear recurrences, on torch operators"

    def available(self) -> str | None:
        """It runs everywhere."""
        return None

    def refusal(self, plan: Plan, x: Tensor) -> str | None:
        """Why the plan is not one of linear recurrences, or None."""
        for direction in plan.directions:
            if why := refusal(direction.law):
                return f"the cell {direction.law.name} is not a linear recurrence: {why}"
            if direction.weights.hr is not None:
                return "there is a projection"
        if torch.compiler.is_compiling():
            return "torch.compile is active"
        if x.shape[0] == 0:
            return "there is no step"
        return None

    def reluctance(self, plan: Plan, x: Tensor) -> str | None:
        """Few steps are as fast in a loop; and what is kept is exact there, to rounding here."""
        if plan.control is not None:
            return "something is controlled: a scan is exact to rounding, a loop bit for bit"
        return "there are few steps" if x.shape[0] < _WORTHWHILE else None

    def run(self, plan: Plan, x: Tensor, states: States) -> Result:
        """Run the plan layer by layer."""
        return run_layers(plan, x, states, _run)


def _run(
    direction: Direction,
    plan: Plan,
    rules: Rules,
    valid: Tensor | None,
    x: Tensor,
    state: Mapping[str, Tensor],
) -> Part:
    low = autocast_dtype(x)
    part = input_part(direction.weights, x)
    if low is not None:
        part, state = part.float(), {n: v.float() for n, v in state.items()}
    over = _AllTimes(direction, plan, rules, valid, part, state)
    for name in recurrence(direction.law).order:
        over.solve(name)
    h, final = over.output(), over.final
    if low is not None:
        h, final["h"] = h.to(low), final["h"].to(low)
    return Part(h, final, collect(over.slots(), direction, plan, valid, part))


@dataclass(frozen=True)
class _Line:
    """A value for all times that is affine in the previous value of `state`."""

    state: str
    affine: Affine
    cut: Cut


class _AllTimes:
    """One direction: the value of every node of its graph, (T, B, H), state after state."""

    def __init__(
        self,
        direction: Direction,
        plan: Plan,
        rules: Rules,
        valid: Tensor | None,
        part: Tensor,
        state: Mapping[str, Tensor],
    ) -> None:
        self._direction, self._graph, self._valid = direction, direction.law.graph, valid
        self._like, self._first = part, state
        self._shape = (part.shape[0], part.shape[1], direction.weights.hidden_size)
        self._tables = {n: table(r, plan.start, self._shape, part) for n, r in rules.items()}
        self._recorded = () if plan.record is None else recorded_names(direction, plan.record)
        self._slots: dict[str, Tensor | _Line] = {}
        self._closing = Closing(self._graph, self._held) if rules else None
        self._values: dict[int, Any] = {}
        self._over_time: dict[str, Tensor] = {}
        self._previous: dict[str, Tensor] = {}
        self._inputs = self._read_inputs(part)
        self._begins = self._beginnings(plan.reset)
        sizes = dict.fromkeys(state, self._shape[-1])
        self._start = start_state(direction.law, sizes, self._shape[1], part, direction.start)
        self.final: dict[str, Tensor] = dict(state)

    def _read_inputs(self, part: Tensor) -> dict[tuple[str, str], Tensor]:
        law, weights = self._direction.law, self._direction.weights
        blocks = dict(zip(law.pre, torch.split(part, weights.hidden_size, -1), strict=True))
        inputs = {(kind, n): v for n, v in blocks.items() for kind in ("pre", "pre.x")}
        return inputs | {("param", name): value for name, value in weights.params.items()}

    def _beginnings(self, reset: Tensor | None) -> Tensor | None:
        """(T, B, 1) bool: before which steps the state is put to its start; None: nowhere."""
        if reset is None:
            return None
        here = reset.unsqueeze(-1) if self._valid is None else reset.unsqueeze(-1) & self._valid
        if not self._direction.reverse:
            return here
        # Backwards, a sequence begins at its last step: the one before the next sequence's first.
        return torch.cat([here[1:], torch.zeros_like(here[:1])])

    # --- results ---------------------------------------------------------------------------------

    def output(self) -> Tensor:
        """h (T, B, H), 0 in the padding."""
        h = self._over_time["h"]
        return h if self._valid is None else torch.where(self._valid, h, torch.zeros_like(h))

    def slots(self) -> dict[str, Tensor]:
        """Recorded name -> its values, (T, B, H), in memory of their own."""
        solved = self._over_time if self._valid is None else {}
        found = {n: solved[n] if n in solved else self._plain(v) for n, v in self._slots.items()}
        return {n: self._full(v).clone() for n, v in found.items()}

    # --- one state after the other -----------------------------------------------------------------

    def solve(self, state: str) -> None:
        """Find a state for all times, and all that is needed for it."""
        place = self._graph.states[state]
        for node in self._missing(place):
            self._values[node] = self._value(node, state)
            if self._closing is not None:
                self._closing.note(node)
        value = self._values[place]
        if isinstance(value, _Line):
            self._over_time[state] = self._scan(value)
            if self._valid is None:
                self._values[place] = self._over_time[state]
        elif self._valid is None:
            self._over_time[state] = self._values[place] = self._full(value)
        else:  # the padding keeps what was before it
            self._over_time[state] = self._scan(_Line(state, Affine(0.0, value), True))
        self.final[state] = self._over_time[state][0 if self._direction.reverse else -1]

    def _missing(self, place: int) -> list[int]:
        """The nodes that a node needs and that have no value yet, in order."""
        found: set[int] = set()
        waiting = [place]
        while waiting:
            node = waiting.pop()
            if node not in found and node not in self._values:
                found.add(node)
                waiting += self._graph.operands(node)
        return sorted(found)

    def _scan(self, line: _Line) -> Tensor:
        a, b = (self._full(v) for v in line.affine)
        cut: Tensor | None = line.cut if isinstance(line.cut, Tensor) else None
        if line.cut is True:
            cut = torch.ones(1, 1, 1, dtype=torch.bool, device=a.device)
        if self._valid is not None:
            a = torch.where(self._valid, a, torch.ones_like(a))
            b = torch.where(self._valid, b, torch.zeros_like(b))
            cut = None if cut is None else cut & self._valid
        if self._begins is not None:
            b = torch.where(self._begins, b + a * self._start[line.state].to(a.dtype), b)
            cut = self._begins if cut is None else cut | self._begins
        if cut is not None:
            cut = cut.expand(self._shape)
        first, kind = self._first[line.state], a.dtype
        if kind.itemsize < 4:  # sums over many steps are kept in float32
            a, b, first = a.float(), b.float(), first.float()
        return scan(a, b, first, cut, self._direction.reverse).to(kind)

    def _before(self, state: str) -> Tensor:
        """The previous value of a solved state at each step."""
        if state not in self._previous:
            first = self._first[state]
            value = previous(self._over_time[state], first, self._direction.reverse)
            if self._begins is not None:
                value = torch.where(self._begins, self._start[state].to(value.dtype), value)
            self._previous[state] = value
        return self._previous[state]

    # --- values ------------------------------------------------------------------------------------

    def _value(self, place: int, state: str) -> Any:
        """A node's value after control: a tensor, a number, or a line in `state`."""
        node, name = self._graph.nodes[place], self._graph.names.get(place)
        if node.op == "const":
            return node.value
        if node.key is not None:
            return self._input(node.key, state)
        operands = []
        for i in self._graph.operands(place):
            value = self._values[i]
            if isinstance(value, _Line) and value.state != state:
                value = self._values[i] = self._plain(value)
            operands.append(value)
        if any(isinstance(v, _Line) for v in operands):
            result: Any = self._line(node.op, place, operands, state)
        else:
            result = OPERATIONS[node.op](*operands)
            if self._closing is not None and node.op == "mul":
                result = self._closing.product(result, self._graph.operands(place), operands)
        if place == self._graph.states.get(state):
            return self._stages(result, state)
        return result if name is None else self._hook(name, result)

    def _input(self, key: tuple[str, str], state: str) -> Any:
        kind, name = key
        if kind == "state":
            return _Line(name, Affine(1.0, 0.0), False) if name == state else self._before(name)
        shown = self._graph.inputs.get(key)
        return self._inputs[key] if shown is None else self._hook(shown, self._inputs[key])

    def _line(self, op: str, place: int, operands: Sequence[Any], state: str) -> _Line:
        """An operation on the line of a state."""
        parts = [v.affine if isinstance(v, _Line) else v for v in operands]
        alpha, beta = combine(op, parts, self._operator)
        cuts: list[Cut] = [v.cut if isinstance(v, _Line) else True for v in operands]
        if op in ("add", "sub"):
            return _Line(state, Affine(alpha, beta), _both(*cuts))
        if op == "where":
            return _Line(state, Affine(alpha, beta), self._chosen(operands[0], *cuts[1:]))
        cut = next(v.cut for v in operands if isinstance(v, _Line))
        if op == "mul" and self._closing is not None:
            values = [v.affine.beta if isinstance(v, _Line) else v for v in operands]
            closed = self._closing.closed(self._graph.operands(place), values)
            if closed is not None:
                alpha, beta = (
                    torch.where(closed, self._number(0.0), self._tensor(v)) for v in (alpha, beta)
                )
                cut = _either(cut, closed)
        return _Line(state, Affine(alpha, beta), cut)

    def _chosen(self, condition: Tensor, here: Cut, there: Cut) -> Cut:
        if isinstance(here, bool) and here is there:
            return here
        one, other = (
            torch.tensor(c, device=self._like.device) if isinstance(c, bool) else c
            for c in (here, there)
        )
        return torch.where(condition, one, other)

    def _operator(self, op: str, *operands: Any) -> Any:
        if op == "where":
            condition, *others = operands
            operands = (condition, *(self._tensor(v) for v in others))
        return OPERATIONS[op](*operands)

    def _plain(self, value: Any) -> Any:
        """The value itself, once its state is known for all times."""
        if not isinstance(value, _Line):
            return value
        (alpha, beta), before = value.affine, self._before(value.state)
        if isinstance(value.cut, Tensor):
            before = torch.where(value.cut, self._number(0.0), before)
        return self._full(beta) if value.cut is True else before * alpha + beta

    # --- names ---------------------------------------------------------------------------------------

    def _stages(self, value: Any, state: str) -> Any:
        """What happens where a state is defined: ``c.new``, zoneout, ``c``."""
        value = self._hook(f"{state}.new", value)
        keep = self._direction.zoneout.get(state)
        if keep is not None:
            line = value if isinstance(value, _Line) else _Line(state, Affine(0.0, value), True)
            value = self._zoned(line, keep)
        return self._hook(state, value)

    def _zoned(self, line: _Line, keep: Tensor | float) -> _Line:
        alpha, beta = line.affine
        if not isinstance(keep, Tensor):
            # In this form a kept value (alpha 1, beta 0) stays so, bit for bit.
            return _Line(line.state, Affine(alpha + keep * (1 - alpha), beta - keep * beta), False)
        kept = torch.where(keep, self._number(1.0), self._tensor(alpha))
        added = torch.where(keep, self._number(0.0), self._tensor(beta))
        return _Line(line.state, Affine(kept, added), _both(line.cut, ~keep))

    def _hook(self, name: str, value: Any) -> Any:
        """Control and record of a name."""
        if name in self._tables:
            value = self._controlled(value, self._tables[name])
        if name in self._recorded:
            self._slots[name] = value
        return value

    def _controlled(self, value: Any, control: Table) -> Any:
        if not isinstance(value, _Line):
            return control.apply(self._full(value))
        (alpha, beta), cut = value.affine, value.cut
        beta = control.apply(self._full(beta))
        if not control.selects:
            return _Line(value.state, Affine(alpha * control.alpha, beta), cut)
        selected = control.selected
        kept = torch.where(selected, self._number(0.0), self._tensor(alpha))
        affine = Affine(kept * control.factor(selected), beta)
        return _Line(value.state, affine, _either(cut, selected))

    def _held(self, name: str) -> Tensor | None:
        return self._tables[name].held if name in self._tables else None

    # --- shapes ----------------------------------------------------------------------------------------

    def _number(self, value: float) -> Tensor:
        return self._like.new_tensor(value)

    def _tensor(self, value: Any) -> Tensor:
        return value if isinstance(value, Tensor) else self._number(value)

    def _full(self, value: Any) -> Tensor:
        """(T, B, H)."""
        return self._tensor(value).expand(self._shape)


def _both(*cuts: Cut) -> Cut:
    """Where all of them are cut."""
    found: Cut = True
    for cut in cuts:
        if isinstance(cut, bool) or isinstance(found, bool):
            found = (
                (cut if found else False) if isinstance(found, bool) else found if cut else False
            )
        else:
            found = found & cut
    return found


def _either(cut: Cut, closed: Tensor) -> Cut:
    """Where it is cut or closed."""
    if isinstance(cut, bool):
        return True if cut else closed
    return cut | closed
