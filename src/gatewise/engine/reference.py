"""The reference engine: a plain loop over time. It does everything, and is the truth for the others."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gatewise.cells.base import Law, input_part, pre_inputs, start_state, step_inputs
from gatewise.cells.graph import Hook
from gatewise.engine.base import (
    Direction,
    Plan,
    Result,
    States,
    autocast_dtype,
)
from gatewise.engine.layers import Part, Rules, run_layers
from gatewise.engine.probing import Probe


class ReferenceEngine:
    """A loop over t on torch's operators: any cell, device, dtype and transform."""

    name = "reference"
    summary = "a plain loop over time on torch operators: every cell, record and control"

    def available(self) -> str | None:
        """It runs everywhere."""
        return None

    def refusal(self, plan: Plan, x: Tensor) -> str | None:
        """It honours every plan."""
        return None

    def reluctance(self, plan: Plan, x: Tensor) -> str | None:
        """There is nothing slower."""
        return None

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
    loop = _Loop(direction, plan, rules, valid)
    h, final = loop.run(x, state)
    return Part(h, final, loop.recorded)


class _Loop:
    """One direction over time."""

    def __init__(
        self,
        direction: Direction,
        plan: Plan,
        rules: Rules,
        valid: Tensor | None,
    ) -> None:
        self._direction = direction
        self._plan = plan
        self._rules = rules
        self._valid = valid
        self._probe: Probe | None = None
        self.recorded: dict[str, Tensor] = {}

    def run(self, x: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """h (T, B, H) and the last state."""
        direction, steps = self._direction, x.shape[0]
        if self._rules or self._plan.record is not None:
            self._probe = Probe(direction, self._plan, self._rules, x.shape)
        low = autocast_dtype(x)
        # Where x and h modulate each other, W x has to wait for h.
        xs = x if direction.law.rounds else input_part(direction.weights, x)
        if low is not None:
            xs = xs.float()
        state = {name: _wide(value, low) for name, value in state.items()}
        rows = xs.unbind()  # one by one each would have a gradient of the size of all
        outputs: list[Tensor] = []
        for t in reversed(range(steps)) if direction.reverse else range(steps):
            state = self._reset(state, t, x)
            state, output = self._step(rows[t], state, t)
            outputs.append(output)
        if self._probe is not None:
            self.recorded = self._probe.recorded(xs)
        if direction.reverse:
            outputs.reverse()
        empty = xs.new_zeros(0, x.shape[1], direction.weights.output_size)
        h = torch.stack(outputs) if outputs else empty
        final = dict(state)
        if low is not None:
            h, final["h"] = h.to(low), final["h"].to(low)
        return h, final

    def _reset(self, state: Mapping[str, Tensor], t: int, x: Tensor) -> Mapping[str, Tensor]:
        """The state before step t: at its start where a new sequence begins there."""
        reset = self._plan.reset
        # Backwards, a sequence begins at its last step: the one before the next sequence's first.
        row = t + 1 if self._direction.reverse else t
        if reset is None or row >= x.shape[0]:
            return state
        sizes = {name: value.shape[-1] for name, value in state.items()}
        start = start_state(
            self._direction.law, sizes, x.shape[1], state["h"], self._direction.start
        )
        here = reset[row].unsqueeze(-1)
        if self._valid is not None:
            here = here & self._valid[row]  # no sequence begins in the padding
        return {n: torch.where(here, start[n].to(v.dtype), v) for n, v in state.items()}

    def _step(
        self, x_part: Tensor, previous: Mapping[str, Tensor], t: int
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The next state and the output of step t."""
        valid = None if self._valid is None else self._valid[t]
        hooks = self._probe.hooks(t, valid) if self._probe else {}
        values = self._evaluate(x_part, previous, t, hooks)
        if self._probe is not None:
            self._probe.end_step(t)
        state = {name: values[name] for name in previous}
        output = state["h"]
        if valid is not None:
            output = torch.where(valid, output, torch.zeros_like(output))
            state = {n: torch.where(valid, v, previous[n]) for n, v in state.items()}
        return state, output

    def _evaluate(
        self, x_part: Tensor, previous: Mapping[str, Tensor], t: int, hooks: Mapping[str, Hook]
    ) -> dict[str, Tensor]:
        """Every named value of step t, after control; "h" is what leaves the cell."""
        law, weights = self._direction.law, self._direction.weights
        held = None if self._probe is None else self._probe.held
        if law.rounds:
            inputs = step_inputs(law, weights, x_part, previous, hooks, held)
        else:
            inputs = pre_inputs(law, weights, x_part, previous)
        if hooks:
            _hook_inputs(law, inputs, hooks)
        projected = weights.hr is not None
        stages = {
            name: self._stage(name, previous, t, hooks)
            for name in law.states
            if not (projected and name == "h")
        }
        values = law.graph.run(inputs, {**hooks, **stages}, held)
        if weights.hr is not None:
            raw = torch.nn.functional.linear(values["h"], weights.hr)
            raw = raw.to(values["h"].dtype)
            values["h"] = self._stage("h", previous, t, hooks, shown="proj")(raw)
        return values

    def _stage(
        self,
        state: str,
        previous: Mapping[str, Tensor],
        t: int,
        hooks: Mapping[str, Hook],
        shown: str | None = None,
    ) -> Hook:
        """What happens where a state is defined: ``c.new``, zoneout, ``c``."""
        name = shown or state
        keep = self._direction.zoneout.get(state)
        before, after = hooks.get(f"{name}.new"), hooks.get(name)

        def call(value: Tensor) -> Tensor:
            if value.ndim < 2:  # made of parameters alone: the same in every column
                value = value.expand_as(previous[state])
            if before is not None:
                value = before(value)
            if isinstance(keep, Tensor):
                value = torch.where(keep[t], previous[state], value)
            elif keep is not None:
                # In this form a kept value (value == previous) stays so, bit for bit.
                value = value + keep * (previous[state] - value)
            return value if after is None else after(value)

        return call


def _wide(value: Tensor, low: torch.dtype | None) -> Tensor:
    """Under autocast the state is float32 inside the loop."""
    return value if low is None else value.float()


def _hook_inputs(
    law: Law, inputs: dict[tuple[str, str], Tensor], hooks: Mapping[str, Hook]
) -> None:
    """Apply the hooks of pre-activations: ``f.pre``, ``n.x``, ``n.h``."""
    for key, name in law.graph.inputs.items():
        if name in hooks and key in inputs:
            inputs[key] = hooks[name](inputs[key])
