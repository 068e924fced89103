"""How good forecasts are: errors, errors in units of the naive forecast's, quantiles, intervals, CRPS.

Knows numbers only, and that those of several series come with a naive error each. All sums add up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gatewise.errors import ShapeError
from gatewise.metrics.numbers import Array, NumberTally, _array


class ForecastTally:
    """Forecasts of numbers, summed up.

    >>> tally = ForecastTally()
    >>> tally.add(np.array([1.0, 2.0]), np.array([1.5, 2.0]), np.array([0.5, 0.5]))
    >>> tally.mase
    0.5

    Args:
        levels: of the quantiles beside the forecasts, rising; () without any.
    """

    def __init__(self, levels: Sequence[float] = ()) -> None:
        self.levels = tuple(levels)
        self._plain = NumberTally(levels)
        self._scaled = NumberTally()
        self._cost = self._crps = 0.0
        self._costs = self._crpses = 0
        self._inside: dict[float, float] = dict.fromkeys(self.intervals, 0.0)

    @property
    def intervals(self) -> list[float]:
        """The shares of the central intervals that the levels make: 0.8 of 0.1 and 0.9."""
        pairs = [(a, b) for a in self.levels for b in self.levels if a < 0.5 < b]
        return [round(b - a, 6) for a, b in pairs if math.isclose(a + b, 1, abs_tol=1e-9)]

    def add(
        self,
        points: Any,
        targets: Any,
        scales: Any,
        *,
        quantiles: Any = None,
        costs: Any = None,
        samples: Any = None,
    ) -> None:
        """Add forecasts.

        Args:
            points: forecasts, of any shape.
            targets: of the same; NaN where nobody knows.
            scales: of the same: the naive forecast's mean error on the training part of each series; NaN
                where there is none, or it is 0.
            quantiles: one more dimension, of the levels.
            costs: of the same shape: what training minimises.
            samples: one more dimension, of drawn values, for the CRPS.
        """
        guesses, truth, units = _array(points), _array(targets), _array(scales)
        self._plain.add(guesses, truth, quantiles)
        usable = np.isfinite(units) & (units > 0)
        shares = np.where(usable, units, 1.0)
        self._scaled.add(guesses / shares, np.where(usable, truth / shares, np.nan))
        known = ~np.isnan(truth)
        if costs is not None:
            self._cost += float(_array(costs)[known].sum())
            self._costs += int(known.sum())
        if samples is not None:
            self._crps += float(crps(_array(samples)[known], truth[known]).sum())
            self._crpses += int(known.sum())
        if self._inside:
            self._count_inside(_array(quantiles)[known], truth[known])

    def _count_inside(self, quantiles: Array, truth: Array) -> None:
        for share in self._inside:
            low, high = (self._place((1 - sign * share) / 2) for sign in (1, -1))
            inside = (quantiles[:, low] <= truth) & (truth <= quantiles[:, high])
            self._inside[share] += float(inside.sum())

    def _place(self, level: float) -> int:
        return int(np.argmin(np.abs(np.array(self.levels) - level)))

    @property
    def numbers(self) -> int:
        """Values that were forecast and are known."""
        return self._plain.numbers

    @property
    def mae(self) -> float:
        """Mean absolute error, in the units of the series."""
        return self._plain.mae

    @property
    def rmse(self) -> float:
        """Root of the mean squared error, in the units of the series."""
        return self._plain.rmse

    @property
    def mase(self) -> float:
        """Mean absolute error in units of the naive forecast's on the training part of its series."""
        return self._scaled.mae

    @property
    def crps(self) -> float:
        """Mean continuous ranked probability score, in the units of the series; NaN without samples."""
        return self._crps / self._crpses if self._crpses else math.nan

    @property
    def cost(self) -> float:
        """Mean of what training minimises; without it the squared error."""
        return self._cost / self._costs if self._costs else self.rmse**2

    def coverage(self) -> dict[float, float]:
        """Share of the true values inside each central interval; at best its own share."""
        count = self.numbers
        return {
            share: inside / count if count else math.nan for share, inside in self._inside.items()
        }

    def summary(self) -> dict[str, Any]:
        """All figures by name as JSON values; None where one is not a finite number."""
        found = self._plain.summary() | {"mase": _finite(self.mase)}
        del found["missing"]  # steps behind the end of a part are no gaps
        if self._costs:
            found["cost"] = _finite(self.cost)
        if self._crpses:
            found["crps"] = _finite(self.crps)
        if self._inside:
            shares = self.coverage().items()
            found["intervals"] = {str(share): _finite(inside) for share, inside in shares}
        return found


class HorizonTally:
    """Forecasts several steps ahead, summed up by step and in all.

    Args:
        steps: how far ahead.
        levels: of the quantiles.
    """

    def __init__(self, steps: int, levels: Sequence[float] = ()) -> None:
        self.whole = ForecastTally(levels)
        self.steps = [ForecastTally(levels) for _ in range(steps)]

    def add(self, points: Any, targets: Any, scales: Any, **more: Any) -> None:
        """Add forecasts (steps, n); see `ForecastTally.add`.

        Raises:
            ShapeError: if they are not of so many steps.
        """
        if len(points) != len(self.steps):
            raise ShapeError(f"expected {len(self.steps)} steps, found {len(points)}")
        self.whole.add(points, targets, scales, **more)
        for k, tally in enumerate(self.steps):
            own = {name: value[k] for name, value in more.items() if value is not None}
            tally.add(points[k], targets[k], scales[k], **own)

    def summary(self) -> dict[str, Any]:
        """The figures of all, and under "steps" those of each."""
        return self.whole.summary() | {"steps": [tally.summary() for tally in self.steps]}


def crps(samples: Array, targets: Array) -> Array:
    """E|X - y| - E|X - X'| / 2 of each, by samples (n, S) and targets (n,), without bias.

    Gneiting & Raftery 2007, "Strictly proper scoring rules, prediction, and estimation", eq. 21; the second
    mean is over different pairs, found from the sorted samples in S log S.
    """
    count = samples.shape[-1]
    first = np.abs(samples - targets[..., None]).mean(-1)
    if count < 2:
        return np.asarray(first)
    ordered = np.sort(samples, -1)
    weights = 2 * np.arange(1, count + 1) - count - 1
    second = (ordered * weights).sum(-1) * 2 / (count * (count - 1))
    return np.asarray(first - second / 2)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
