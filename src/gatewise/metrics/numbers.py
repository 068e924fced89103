"""How far predicted numbers are from the true ones: absolute, squared, relative and quantile errors.

Knows numbers only. A true value that is NaN is missing and left out; all sums add up across batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from gatewise.errors import DataError, OptionError, ShapeError

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


class NumberTally:
    """Predictions of numbers, summed up.

    >>> tally = NumberTally(scale=2.0)
    >>> tally.add(np.array([1.0, 2.0, 5.0]), np.array([1.0, 3.0, 2.0]))
    >>> round(tally.mae, 4), round(tally.rmse, 4), round(tally.mase, 4)
    (1.3333, 1.8257, 0.6667)

    Args:
        levels: of the quantiles that `add` gets beside the predictions, rising, each in (0, 1).
        scale: error of the naive forecast on the training part (`naive_scale`), for MASE.
    """

    def __init__(self, levels: Sequence[float] = (), scale: float = math.nan) -> None:
        self.levels = tuple(levels)
        if any(not 0 < level < 1 for level in levels) or sorted(set(levels)) != list(levels):
            raise OptionError(f"expected rising levels between 0 and 1, found {list(levels)}")
        self.scale = scale
        self.numbers = 0
        self.missing = 0
        self._absolute = self._squared = self._relative = 0.0
        self._mean = self._spread = 0.0  # of the true values: mean, sum of squares around it
        self._pinball = np.zeros(len(levels))
        self._below = np.zeros(len(levels))

    def add(self, predictions: Any, targets: Any, quantiles: Any = None) -> None:
        """Add a batch.

        Args:
            predictions: of any shape.
            targets: of the same; NaN where nobody knows.
            quantiles: the same shape and one more dimension, of the levels.
        Raises:
            ShapeError: if the shapes do not fit.
            DataError: if a prediction is not a number.
        """
        guesses, truth = _array(predictions), _array(targets)
        if guesses.shape != truth.shape:
            found = f"{guesses.shape} and {truth.shape}"
            raise ShapeError(f"expected predictions and targets of one shape, found {found}")
        known = ~np.isnan(truth)
        self.missing += int((~known).sum())
        guesses, truth = guesses[known], truth[known]
        if np.isnan(guesses).any():
            count = int(np.isnan(guesses).sum())
            raise DataError(f"expected predictions, found {count} of {guesses.size} that are NaN")
        errors = np.abs(guesses - truth)
        self._absolute += float(errors.sum())
        self._squared += float((errors**2).sum())
        self._relative += float(_relative(guesses, truth).sum())
        self._join(truth.size, float(truth.mean()) if truth.size else 0.0, _around(truth))
        if self.levels:
            self._add_quantiles(quantiles, truth, known)

    def _add_quantiles(self, quantiles: Any, truth: Array, known: Array) -> None:
        found = None if quantiles is None else _array(quantiles)
        expected = (*known.shape, len(self.levels))
        if found is None or found.shape != expected:
            shape = None if found is None else found.shape
            raise ShapeError(f"expected quantiles {expected}, found {shape}")
        chosen = found[known]
        losses = pinball(chosen, truth, self.levels)
        self._pinball += losses.sum(0)
        self._below += (truth[:, None] <= chosen).sum(0)

    def _join(self, count: int, mean: float, spread: float) -> None:
        """Join two means and sums of squares (Chan, Golub & LeVeque 1979, eq. 2.1)."""
        total = self.numbers + count
        if count:
            gap = mean - self._mean
            self._spread += spread + gap**2 * self.numbers * count / total
            self._mean += gap * count / total
        self.numbers = total

    def merge(self, other: NumberTally) -> NumberTally:
        """The tally of both; neither is changed.

        Raises:
            DataError: if their levels or scales differ.
        """
        same = self.scale == other.scale or (math.isnan(self.scale) and math.isnan(other.scale))
        if self.levels != other.levels or not same:
            raise DataError("expected tallies of the same levels and scale, found two kinds")
        both = NumberTally(self.levels, self.scale)
        for one in (self, other):
            both._join(one.numbers, one._mean, one._spread)
            both.missing += one.missing
            both._absolute += one._absolute
            both._squared += one._squared
            both._relative += one._relative
            both._pinball = both._pinball + one._pinball
            both._below = both._below + one._below
        return both

    @property
    def mae(self) -> float:
        """Mean absolute error; NaN without numbers."""
        return self._absolute / self.numbers if self.numbers else math.nan

    @property
    def rmse(self) -> float:
        """Root of the mean squared error; NaN without numbers."""
        return math.sqrt(self._squared / self.numbers) if self.numbers else math.nan

    @property
    def r2(self) -> float:
        """1 - squared errors / squares around the mean; NaN where the true values are all equal."""
        return 1 - self._squared / self._spread if self._spread else math.nan

    @property
    def mase(self) -> float:
        """Mean absolute error in units of the naive forecast's on the training part.

        Hyndman & Koehler 2006, "Another look at measures of forecast accuracy": below 1 is better
        than naive. NaN where no scale was given, or it is 0.
        """
        return self.mae / self.scale if self.scale else math.nan

    @property
    def smape(self) -> float:
        """Mean of 200 |y - p| / (|y| + |p|) in percent, 0 / 0 counted as 0 (the M4 competition's)."""
        return 200 * self._relative / self.numbers if self.numbers else math.nan

    @property
    def pinball(self) -> float:
        """Mean pinball loss over numbers and levels; NaN without levels."""
        if not (self.levels and self.numbers):
            return math.nan
        return float(self._pinball.mean() / self.numbers)

    def coverage(self) -> dict[float, float]:
        """Share of true values at or below each level's quantile; at best the level itself."""
        count = self.numbers
        shares = [float(b / count) if count else math.nan for b in self._below]
        return dict(zip(self.levels, shares, strict=True))

    @property
    def cost(self) -> float:
        """What a smaller value of is better: the pinball loss with levels, else the squared error."""
        return self.pinball if self.levels else self.rmse**2

    def summary(self) -> dict[str, Any]:
        """All figures by name as JSON values; None where one is not a finite number."""
        names = ["mae", "rmse", "r2", "mase", "smape", *(["pinball"] if self.levels else [])]
        figures = {name: float(getattr(self, name)) for name in names}
        finite: dict[str, Any] = {k: v if math.isfinite(v) else None for k, v in figures.items()}
        if self.levels:
            finite["coverage"] = {
                str(level): share if math.isfinite(share) else None
                for level, share in self.coverage().items()
            }
        return {"numbers": self.numbers, "missing": self.missing, **finite}


def pinball(quantiles: Array, targets: Array, levels: Sequence[float]) -> Array:
    """max(q (y - p), (q - 1) (y - p)) of each number and level, (n, Q).

    Koenker & Bassett 1978: its mean is least where p is the q-quantile of y.

    Args:
        quantiles: predicted, (n, Q).
        targets: true, (n,).
        levels: q, (Q,).
    """
    gap = np.asarray(targets)[:, None] - np.asarray(quantiles)
    q = np.asarray(levels)
    losses: Array = np.maximum(q * gap, (q - 1) * gap)
    return losses


def naive_scale(training: Any, season: int = 1) -> float:
    """Mean |y[t] - y[t - season]| on the training part, over one or several series (T, ...).

    Raises:
        OptionError: if the season is not shorter than the series.
    """
    values = _array(training)
    if not 1 <= season < len(values):
        found = f"{season} for {len(values)} steps"
        raise OptionError(f"expected a season of 1 step or more, shorter than the series: {found}")
    steps = np.abs(values[season:] - values[:-season])
    known = steps[~np.isnan(steps)]
    return float(known.mean()) if known.size else math.nan


def _relative(guesses: Array, truth: Array) -> Array:
    sizes = np.abs(guesses) + np.abs(truth)
    gaps = np.abs(guesses - truth)
    shares: Array = np.divide(gaps, sizes, out=np.zeros_like(gaps), where=sizes > 0)
    return shares


def _around(values: Array) -> float:
    return float(((values - values.mean()) ** 2).sum()) if values.size else 0.0


def _array(values: Any) -> Array:
    if hasattr(values, "detach"):
        values = values.detach().cpu().double()
    return np.asarray(values, np.float64)
