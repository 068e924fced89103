"""What a forecaster is worth on series: one step ahead, and running freely over a horizon, beside naive forecasts.

Each value is forecast from those before it alone; the naive forecasts are made from the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gatewise.errors import DataError, OptionError
from gatewise.mappings.forecasted import ForecastLearner
from gatewise.mappings.learning import Array
from gatewise.metrics.forecasts import ForecastTally, HorizonTally
from gatewise.run.forecast import ForecastRun, Prepared
from gatewise.tasks.histories import Histories
from gatewise.train.forecasts import bounds_of, build_windows

BASELINES = ("naive", "seasonal", "mean")
"""The last value; that of one season before; the mean of the last window."""


@dataclass(frozen=True)
class Horizon:
    """How forecasts are measured.

    Args:
        steps: how far a free run goes.
        stride: steps from one origin to the next; None: half of `steps` and one, so that origins fall into
            all phases of a season.
        samples: paths of a free run.
        seed: of what is drawn.
    """

    steps: int
    stride: int | None = None
    samples: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "stride", "samples"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or value < 1):
                raise OptionError(f"{name}: expected a whole number from 1, found {value}")


def measure(
    run: ForecastRun,
    found: Histories,
    fractions: Sequence[float],
    horizon: Horizon,
    *,
    engine: str = "auto",
) -> dict[str, dict[str, Any]]:
    """The figures of each part: "steps" measured, "origins", and "one_step" and "free" of each forecast.

    Args:
        run: of `gatewise train forecast`.
        found: the series.
        fractions: shares of train, valid and test, in the order of time; (1,): all as one.
        horizon: of the free runs.
        engine: of the recurrent layers.
    Raises:
        DataError: if the covariates are not the run's, or there is nothing to measure.
    """
    expected = list(run.config.get("covariates") or [])
    if found.covariates != expected:
        raise DataError(
            f"expected the covariates {', '.join(expected) or 'none'}, found "
            f"{', '.join(found.covariates) or 'none'}: those of the training are needed"
        )
    options = replace(run.windows, fractions=tuple(fractions))
    windows = build_windows(found, run.model.config, options, run.scaling, overlapping="")
    prepared = [run.prepare(one.values, one.covariates, one.name) for one in found.series]
    bounds = [bounds_of(one, fractions) for one in found.series]
    parts = {}
    for part, cut in windows.items():
        ranges = [(k, *each[part]) for k, each in enumerate(bounds) if part in each]
        values = Measured([one.values for one in found.series], prepared, ranges, run)
        learner = ForecastLearner(run.model, {"train": cut}, engine=engine)
        near = learner.evaluate("train")
        assert near is not None  # only a stop makes it None
        parts[part] = _figures(values, near, horizon, engine)
    if not parts:
        raise DataError("expected series with at least 2 steps to measure, found none")
    return parts


@dataclass(frozen=True, eq=False)
class Measured:
    """One part of the series.

    Args:
        values: of every series, (T,) each.
        prepared: the same, as the model takes them.
        ranges: (series, its first step that counts, the one behind its last).
        run: that is measured.
    """

    values: list[Array]
    prepared: list[Prepared]
    ranges: list[tuple[int, int, int]]
    run: ForecastRun

    def steps(self) -> list[tuple[int, int]]:
        """(series, step) of every step that counts and has one before it."""
        return [(k, at) for k, low, high in self.ranges for at in range(max(low, 1), high)]

    def origins(self, horizon: Horizon) -> list[tuple[int, int]]:
        """(series, first step that is not known) of the free runs: whole ones, or one where none fits."""
        found = []
        for k, low, high in self.ranges:
            first, stride = max(low, 1), horizon.stride or horizon.steps // 2 + 1
            fitting = list(range(first, high - horizon.steps + 1, stride))
            found += [(k, at) for at in fitting or [first] if at < high]
        return found

    def truth(self, origins: Sequence[tuple[int, int]], steps: int) -> Array:
        """The values of the steps after each origin, (steps, n); NaN behind the end of the part."""
        ends = {k: high for k, _, high in self.ranges}
        found = np.full((steps, len(origins)), np.nan)
        for column, (k, at) in enumerate(origins):
            coming = self.values[k][at : min(at + steps, ends[k])]
            found[: len(coming), column] = coming
        return found

    def naive(self, origins: Sequence[tuple[int, int]], steps: int) -> dict[str, Array]:
        """What the naive forecasts say after each origin, (steps, n) each."""
        season, window = self.run.model.config.season, self.run.windows.window
        names = [name for name in BASELINES if name != "seasonal" or season > 1]
        found = {name: np.zeros((steps, len(origins))) for name in names}
        ahead = np.arange(steps) % season
        for column, (k, at) in enumerate(origins):
            known, scale = self.prepared[k].known[:at], self.prepared[k].scale
            said = {"naive": known[-1], "mean": known[-window:].mean()}
            if season > 1:  # the value one season before, or the last one where there is none
                places = at - season + ahead
                said["seasonal"] = np.where(places >= 0, known[np.maximum(places, 0)], known[-1])
            for name in names:
                found[name][:, column] = said[name] * scale.scale + scale.shift
        return found

    def units(self, origins: Sequence[tuple[int, int]], name: str) -> Array:
        """One number of the scale of each origin's series, (n,)."""
        return np.array([getattr(self.prepared[k].scale, name) for k, _ in origins])


def _figures(part: Measured, near: ForecastTally, horizon: Horizon, engine: str) -> dict[str, Any]:
    origins = part.origins(horizon)
    one_step = {"model": near.summary()}
    for name, tally in _baselines(part, part.steps(), 1).items():
        one_step[name] = tally.whole.summary()
    free = {"model": _free(part, origins, horizon, engine).summary()}
    for name, tally in _baselines(part, origins, horizon.steps).items():
        free[name] = tally.summary()
    return {
        "values": near.numbers,
        "origins": len(origins),
        "horizon": horizon.steps,
        "one_step": one_step,
        "free": free,
    }


def _baselines(
    part: Measured, origins: Sequence[tuple[int, int]], steps: int
) -> dict[str, HorizonTally]:
    truth = part.truth(origins, steps)
    naive = np.broadcast_to(part.units(origins, "naive"), truth.shape)
    found = {}
    for name, said in part.naive(origins, steps).items():
        found[name] = HorizonTally(steps)
        found[name].add(said, truth, naive)
    return found


def _free(
    part: Measured, origins: Sequence[tuple[int, int]], horizon: Horizon, engine: str
) -> HorizonTally:
    run, steps = part.run, horizon.steps
    paths = run.paths(part.prepared, origins, steps, horizon.samples, horizon.seed, engine)
    shift, scale = (part.units(origins, name)[:, None] for name in ("shift", "scale"))
    paths = paths * scale + shift
    truth = part.truth(origins, steps)
    naive = np.broadcast_to(part.units(origins, "naive"), truth.shape)
    if not run.model.head.spread:
        tally = HorizonTally(steps)
        tally.add(paths[..., 0], truth, naive)
        return tally
    levels = run.model.config.levels
    tally = HorizonTally(steps, levels)
    quantiles = np.moveaxis(np.quantile(paths, levels, axis=-1), 0, -1)
    tally.add(np.median(paths, -1), truth, naive, quantiles=quantiles, samples=paths)
    return tally
