"""Futures of a series, one step after another: what a forecaster says of the next value is read back as if it were
known. It knows scaled values and covariates of several columns; what series they are of a run knows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gatewise.mappings.forecaster import Forecaster
from gatewise.modes import evaluating
from gatewise.probe import Control
from gatewise.types import State, select


@dataclass(frozen=True, eq=False)
class Past:
    """What is known of B columns, up to their last values.

    Args:
        rows: (T, B, I + 2) of `mappings.forecasted.rows_of`, the last one of each column its newest.
        lengths: rows of each, (B,), at least 1.
        known: the last `ForecasterConfig.reach` values, gaps filled, the newest last, (reach, B).
        ahead: covariates of the steps to come, (steps, B, C); those of the first are in the last row too.
    """

    rows: Tensor
    lengths: Tensor
    known: Tensor
    ahead: Tensor


@torch.no_grad()
def free_run(
    model: Forecaster,
    past: Past,
    steps: int,
    draws: Tensor | None = None,
    *,
    engine: str = "auto",
    control: Control | None = None,
) -> Tensor:
    """The values of the next steps.

    Args:
        model: it runs in evaluation mode.
        past: of B columns.
        steps: how many, at least 1.
        draws: uniform numbers (steps, B, S) in (0, 1): S paths for each column, each value the quantile at
            its number. Default: one path, of the points.
        engine: of the recurrent layers.
        control: what to set; times count from the first row.
    Returns:
        (steps, B, S), scaled; S is 1 without draws.
    """
    with evaluating(model):
        out = model(past.rows[..., :-2], lengths=past.lengths, engine=engine, control=control)
        last = (past.lengths - 1).view(1, -1, 1)
        numbers = out.numbers.gather(0, last.expand(1, -1, out.numbers.shape[-1]))[0]
        base = past.rows[..., -2].gather(0, last[..., 0])[0].to(numbers)
        batch, paths = len(numbers), 1 if draws is None else draws.shape[-1]
        index = torch.arange(batch, device=numbers.device).repeat_interleave(paths)
        state, numbers, base = select(out.state, index), numbers[index], base[index]
        known, times = past.known.to(numbers)[:, index], past.lengths.to(numbers.device)[index]
        found = []
        for k in range(steps):
            if k:
                x, base = model.row(known, past.ahead[k][index]), model.base(known)
                numbers, state = _step(model, x, state, times + k - 1, engine, control)
            uniform = None if draws is None else draws[k].to(numbers).reshape(-1)
            value = _value(model, numbers, uniform) + base
            found.append(value)
            known = torch.cat((known[1:], value.unsqueeze(0)))
    return torch.stack(found).view(steps, batch, paths)


def _value(model: Forecaster, numbers: Tensor, uniform: Tensor | None) -> Tensor:
    return model.head.point(numbers) if uniform is None else model.head.at(numbers, uniform)


def _step(
    model: Forecaster,
    x: Tensor,
    state: State,
    times: Tensor,
    engine: str,
    control: Control | None,
) -> tuple[Tensor, State]:
    out = model(x.unsqueeze(0), state, start=times, engine=engine, control=control)
    return out.numbers[0], out.state
