"""Sensitivities by lag: how far back a net looks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gatewise.errors import OptionError, ShapeError
from gatewise.gradients.flow import Cost, added_all_along, checked_costs, norms
from gatewise.gradients.nets import Net, Steps
from gatewise.modes import evaluating
from gatewise.types import State


@dataclass(frozen=True, eq=False)
class Profile:
    """Sensitivity of a cost to the state so many steps before.

    Args:
        norms: (lags,), at [n] |d cost[t] / d wrt[t - n]|, mean over times and columns.
        wrt: which state.
        layer: whose, from 0.
    """

    norms: Tensor
    wrt: str
    layer: int

    def decay(self, begin: int = 1) -> float:
        """Nats that the norm changes by per step: the slope of its logarithm, by least squares.

        Below 0 it vanishes, above it explodes; lags from `begin` on, up to where it is 0. NaN where fewer
        than two are left.
        """
        logs = [math.log(v) if v > 0 else None for v in self.norms[begin:].tolist()]
        kept = logs[: logs.index(None)] if None in logs else logs
        if len(kept) < 2:
            return math.nan
        y = torch.tensor(kept, dtype=torch.float64)
        n = torch.arange(len(kept), dtype=torch.float64)
        n = n - n.mean()
        return float((n * (y - y.mean())).sum() / (n * n).sum())

    def reach(self, share: float = 0.01) -> int:
        """The largest lag at which the norm is still that share of its largest value.

        Raises:
            OptionError: if the share is not above 0 and at most 1.
        """
        if not 0 < share <= 1:
            raise OptionError(f"share: expected above 0 and at most 1, found {share!r}")
        peak = float(self.norms.max())
        if not peak > 0:
            return 0
        return int(torch.nonzero(self.norms >= share * peak).max())

    @property
    def mean_lag(self) -> float:
        """Mean lag, each weighted by its norm: how far back the cost looks on the whole, in steps."""
        total = float(self.norms.sum())
        lags = torch.arange(len(self.norms), dtype=self.norms.dtype, device=self.norms.device)
        return float((lags * self.norms).sum()) / total if total > 0 else 0.0

    def _repr_html_(self) -> str:
        from gatewise.gradients.showing import profile_html

        found = (self.decay(), self.reach(), self.mean_lag)
        return profile_html(self.norms, self.wrt, self.layer, *found)


def by_lag(flow: Tensor) -> Tensor:
    """The matrix of `flow` (T, T) by lag: (T,), at [n] the mean of [t, t - n] over t.

    Raises:
        ShapeError: if it is no square.
    """
    if flow.ndim != 2 or flow.shape[0] != flow.shape[1]:
        raise ShapeError(f"expected a matrix (T, T), found {tuple(flow.shape)}")
    return torch.stack([flow.diagonal(-n).mean() for n in range(len(flow))])


def lag_profile(
    net: Net,
    x: Tensor,
    cost: Cost,
    *,
    layer: int = -1,
    wrt: str = "state",
    state: State = None,
    start: int = 0,
    engine: str = "reference",
) -> Profile:
    """How the cost of the last step depends on the state before: one pass back.

    `flow` gives all costs; this only the last row of it, by lag. Give many windows as columns for a mean
    over places.

    Args:
        net, layer, wrt, state: as for `flow`.
        x: inputs, (T, B, I).
        cost: outputs y (T, B, H) to costs (T, B); that of the last step is differentiated.
        start: the time of x[0].
        engine: of the recurrent layers; one that gives gradients by a control's value.
    Returns:
        The profile of lags 0 to T - 1.
    """
    steps = Steps(net)
    layer, names = steps.layer(layer), steps.wrt(wrt)
    steps.check(x, state)
    count, columns = x.shape[:2]
    added, control = added_all_along(steps, x, layer, names, start)
    with evaluating(net), torch.enable_grad():
        out = steps.run(x.detach(), state, start=start, engine=engine, control=control)
        costs = checked_costs(cost(out.h), count, columns)
        found = torch.autograd.grad(costs[-1].sum(), added)
    return Profile(norms(found).flip(0), wrt, layer)
