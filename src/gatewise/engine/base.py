"""What engines take and give: a plan, and its result.

A plan says everything but the numbers that flow: layers and directions, ragged lengths, resets, masks,
what is recorded and controlled, whether gradients are wanted. An engine that cannot honour a plan
says why, and is not chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from gatewise.cells.base import Law, Weights
from gatewise.errors import OptionError
from gatewise.probe import Control, Record

States = tuple[dict[str, Tensor], ...]
"""One state per direction of the plan, layer by layer: state name -> (B, H)."""


@dataclass(frozen=True, eq=False)
class Direction:
    """One cell of a stack: a layer, in one direction.

    Args:
        law: of the cell.
        weights: DropConnect already applied.
        path: "layers.0", "layers.0.reverse", or "" for a bare cell.
        layer: its layer number.
        reverse: runs from the end to the start.
        start: learned start state, state name -> (H,), or None.
        zoneout: state name -> what each unit keeps of its last value: a boolean mask (T, B, H) in
            training, the probability itself (its expectation) otherwise.
    """

    law: Law
    weights: Weights
    path: str = ""
    layer: int = 0
    reverse: bool = False
    start: Mapping[str, Tensor] | None = None
    zoneout: Mapping[str, Tensor | float] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that can be recorded and controlled here."""
        return self.law.names(self.weights.hr is not None)

    @property
    def output(self) -> str:
        """The name of what leaves the cell."""
        return "h" if self.weights.hr is None else "proj"

    def width(self, name: str) -> int:
        """The number of units of a name."""
        for one in self.law.rounds:
            if one.name == name:
                return self.weights.ih.shape[1] if one.changes_x else self.weights.output_size
        projected = self.weights.hr is not None and name in ("proj", "proj.new")
        return self.weights.output_size if projected else self.weights.hidden_size

    def full(self, name: str) -> str:
        """The whole path of a name."""
        return f"{self.path}.{name}" if self.path else name


@dataclass(frozen=True, eq=False)
class Plan:
    """What to run.

    Args:
        layers: the directions of each layer, forward first.
        lengths: (B,) int64; a column ends there. None: every column is whole.
        reset: (T, B) bool; where True, the state is set to its start before that step.
        start: the time of the first step, a number or (B,).
        masks: dropout between the layers: after layer l, a mask that broadcasts with (T, B, D H).
        record: what to read.
        control: what to set.
        grad: gradients are wanted. For engines that must be told what to keep for the backward
            pass; those built of torch's operators follow torch's own grad mode.
        special: what of torch's transforms is active ("torch.func", "forward-mode AD"), or None.
    """

    layers: tuple[tuple[Direction, ...], ...]
    lengths: Tensor | None = None
    reset: Tensor | None = None
    start: int | Tensor = 0
    masks: tuple[Tensor | None, ...] = ()
    record: Record | None = None
    control: Control | None = None
    grad: bool = False
    special: str | None = None

    @property
    def directions(self) -> tuple[Direction, ...]:
        """All directions, layer by layer."""
        return tuple(d for layer in self.layers for d in layer)

    def mask(self, layer: int) -> Tensor | None:
        """The dropout mask after `layer`."""
        return self.masks[layer] if layer < len(self.masks) else None


@dataclass(frozen=True, eq=False)
class Result:
    """What an engine gives: h (T, B, D H), the last states, and path -> recorded values.

    Recorded values are (T', B, U) in the order of time, one row for each recorded time.
    """

    h: Tensor
    states: States
    record: dict[str, Tensor] = field(default_factory=dict)


class Engine(Protocol):
    """The interface of an engine; a new one is a file and a line in `choose`."""

    name: str
    summary: str

    def available(self) -> str | None:
        """None if it can run on this machine, else why not."""

    def refusal(self, plan: Plan, x: Tensor) -> str | None:
        """None if it honours the plan on an input like `x`, else why not."""

    def reluctance(self, plan: Plan, x: Tensor) -> str | None:
        """Why it would rather not run a plan that it honours; asked for by name it does."""

    def run(self, plan: Plan, x: Tensor, states: States) -> Result:
        """Run the plan on x (T, B, I) from the given states."""


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The low-precision dtype where autocast is on for x's device, else None."""
    kind = x.device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def valid_steps(lengths: Tensor | None, steps: int) -> Tensor | None:
    """(T, B, 1) bool: which steps are within their column's length."""
    if lengths is None:
        return None
    times = torch.arange(steps, device=lengths.device)
    return (times[:, None] < lengths[None, :]).unsqueeze(-1)


def check_lengths(lengths: Tensor | None, steps: int) -> None:
    """Raise OptionError unless all lengths are from 0 to `steps`."""
    if lengths is not None and len(lengths):
        low, high = int(lengths.min()), int(lengths.max())
        if low < 0 or high > steps:
            raise OptionError(f"expected lengths from 0 to T = {steps}, found {low} to {high}")
