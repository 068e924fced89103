"""Controls as tables: what the rules on a name make of a value v at every step, as v <- alpha v + beta.

For engines that run all steps at once or as machine code; see `Probe` for those that go step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gatewise.engine.probing import Action
from gatewise.probe import Rule


class Table(NamedTuple):
    """v <- alpha v + beta, (T or 1, B, U) each.

    Where a number is selected alpha is NaN, where a value of a tensor is it is infinite; there v <- beta.
    """

    alpha: Tensor
    beta: Tensor
    selects: bool

    @property
    def selected(self) -> Tensor:
        """Where v itself has no influence."""
        return ~self.alpha.isfinite()

    @property
    def held(self) -> Tensor | None:
        """Where v becomes a number that the control has set; None: nowhere."""
        return self.alpha.isnan() if self.selects else None

    def apply(self, value: Tensor) -> Tensor:
        """The value after the control; what is not selected reaches neither it nor a gradient."""
        if not self.selects:
            return value * self.alpha + self.beta
        selected = self.selected
        kept = torch.where(selected, torch.zeros_like(value), value)
        return kept * self.factor(selected) + self.beta

    def factor(self, selected: Tensor) -> Tensor:
        """alpha, 0 where a value is selected."""
        return torch.where(selected, torch.zeros_like(self.alpha), self.alpha)


def table(
    rules: Sequence[Rule], start: int | Tensor, shape: tuple[int, int, int], like: Tensor
) -> Table:
    """The table of the rules on one name.

    Args:
        rules: in their order.
        start: the time of the first step, a number or (B,).
        shape: (T, B, units of the name).
        like: a tensor of the values' dtype and device.
    """
    steps, batch, units = shape
    actions = [Action(rule, start, batch) for rule in rules]
    moving = any(
        r.time is not None or (isinstance(r.value, Tensor) and r.value.ndim > 2) for r in rules
    )
    rows: dict[tuple[tuple[int, ...], ...], int] = {}
    found: list[tuple[Tensor, Tensor]] = []
    which: list[int] = []
    for t in range(steps if moving else 1):
        key = tuple(action.moment(t) for action in actions) if moving else ()
        if key not in rows:
            rows[key] = len(found)
            found.append(
                _row(actions, t, like.new_ones(batch, units), like.new_zeros(batch, units))
            )
        which.append(rows[key])
    selects = any(rule.op not in ("scale", "add") for rule in rules)
    alpha, beta = (torch.stack(parts) for parts in zip(*found, strict=True))
    if len(found) == len(which):
        return Table(alpha, beta, selects)
    index = torch.tensor(which, device=like.device)
    return Table(alpha[index], beta[index], selects)


def _row(
    actions: Sequence[Action], step: int, alpha: Tensor, beta: Tensor
) -> tuple[Tensor, Tensor]:
    for action in actions:
        alpha, beta = action.compose(alpha, beta, step)
    return alpha, beta
