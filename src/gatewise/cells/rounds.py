"""What x and h do to each other before the gates of a step see them. Knows one step; no gates.

A round multiplies one of the two with twice the sigmoid of a matrix times the other (Melis et al. 2020,
eq. 1 and 2), so about 1 where the matrix is small. Each round's result has a name of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from gatewise.cells.graph import Held, Hook


@dataclass(frozen=True)
class Round:
    """One round: ``x.mog1`` = 2 sigmoid(M h) * x, or the same with x and h exchanged.

    Args:
        name: of its result, "x." or "h." in front: what it changes.
        factors: the parameters whose product, in this order, is M.
        rank: the size between two factors; None where there is one.
    """

    name: str
    factors: tuple[str, ...]
    rank: int | None = None

    @property
    def changes_x(self) -> bool:
        """Whether it changes x; else it changes h."""
        return self.name.startswith("x.")

    def shapes(self, input_size: int, output_size: int) -> dict[str, tuple[int, ...]]:
        """Parameter -> its shape, where x has `input_size` units and h `output_size`."""
        rows, columns = input_size, output_size
        if not self.changes_x:
            rows, columns = columns, rows
        if self.rank is None:
            return {self.factors[0]: (rows, columns)}
        left, right = self.factors
        return {left: (rows, self.rank), right: (self.rank, columns)}


def run_rounds(
    rounds: tuple[Round, ...],
    params: Mapping[str, Tensor],
    x: Tensor,
    h: Tensor,
    hooks: Mapping[str, Hook] | None = None,
    held: Held | None = None,
) -> tuple[Tensor, Tensor]:
    """x (B, I) and h (B, P) after all rounds; each sees the results of those before it.

    Args:
        rounds: in their order.
        params: the parameters of the cell.
        x: the input of the step.
        h: the previous output.
        hooks: name -> what is done to its value where it is defined.
        held: name -> where its value was set to a number; where that is 0 it stays 0, whatever it is
            multiplied with.
    """
    latest = {True: (x, None), False: (h, None)}
    for one in rounds:
        value, name = latest[one.changes_x]
        gate, _ = latest[not one.changes_x]
        for factor in reversed(one.factors):
            gate = linear(gate, params[factor])
        result = 2 * torch.sigmoid(gate.to(value.dtype)) * value
        where = held(name) if held is not None and name is not None else None
        if where is not None:
            result = torch.where(where & (value == 0), torch.zeros_like(result), result)
        if hooks is not None and one.name in hooks:
            result = hooks[one.name](result)
        latest[one.changes_x] = (result, one.name)  # type: ignore[assignment]
    return latest[True][0], latest[False][0]
