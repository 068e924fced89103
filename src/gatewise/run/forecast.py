"""A trained forecaster, ready to say how series go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.checkpoint import Checkpoint
from gatewise.errors import CheckpointError, DataError, GatewiseError, OptionError, ShapeError
from gatewise.generate.futures import Past, free_run
from gatewise.mappings.forecasted import Scale, filled, recent, rows_of
from gatewise.mappings.forecaster import Forecaster, ForecasterConfig
from gatewise.mappings.learning import Array
from gatewise.modes import evaluating
from gatewise.probe import Control, Record, Records
from gatewise.run.base import Run, fill
from gatewise.run.forecast_stream import ForecastStream
from gatewise.tasks.histories import History
from gatewise.train.build import with_values
from gatewise.train.forecasts import Scaling, WindowOptions

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
_COLUMNS = 4096
"""Columns that are run freely at once: origins times paths."""


@dataclass(frozen=True, eq=False)
class Forecast:
    """How a series may go on.

    Args:
        points: (steps,) float64: the median of the paths, or the points of a model without a distribution.
        quantiles: level -> (steps,) float64; {} without a distribution.
        paths: what was drawn, (S, steps); None without a distribution.
        notes: what to tell about the history, a line each.
    """

    points: Array
    quantiles: dict[float, Array]
    paths: Array | None
    notes: list[str]


@dataclass(frozen=True, eq=False)
class ForecastReading:
    """A history as the model reads it, each value given those before.

    Args:
        points: (T - 1,) float64, what was said of the values from the second on.
        costs: (T - 1,) float64, what training minimises; NaN where the value is missing.
        record: what was recorded (batch 1), or None.
    """

    points: Array
    costs: Array
    record: Records | None


@dataclass(frozen=True, eq=False)
class Prepared:
    """A history as the model takes it.

    Args:
        rows: (T or T - 1, I + 2).
        known: scaled, gaps filled, (T,).
        ahead: covariates, scaled, (T and those to come, C).
        scale: of the series.
    """

    rows: Array
    known: Array
    ahead: Array
    scale: Scale


class ForecastRun(Run):
    """A run of `gatewise train forecast`.

    Attributes:
        model: a `Forecaster`.
        scaling: what series and covariates are scaled by.
        windows: how the series were cut.
    """

    mapping = "forecast"
    verbs = ("forecast", "read", "stream", "evaluate")
    model: Forecaster

    def __init__(self, checkpoint: Checkpoint, model: nn.Module) -> None:
        super().__init__(checkpoint, model)
        try:
            self.scaling = Scaling.from_dict(checkpoint.config.get("scaling"))
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: {error}") from None
        stored = checkpoint.config.get("windows")
        self.windows = with_values(WindowOptions(), stored if isinstance(stored, dict) else {})

    def forecast(
        self,
        history: Sequence[float] | Array | Tensor | History,
        steps: int,
        covariates: Array | Sequence[Sequence[float]] | None = None,
        *,
        series: str | None = None,
        samples: int = 200,
        levels: Sequence[float] = LEVELS,
        seed: int = 0,
        control: Control | None = None,
        engine: str = "auto",
    ) -> Forecast:
        """The next values: the state is warmed up on the history, then runs freely on what it draws.

        Args:
            history: (T,) values, NaN where one is missing; the last `windows.window` of them are read.
            steps: how many to say.
            covariates: (T + steps, C), of the history's steps and those to come; a `History` has its own.
            series: name of the series in training, whose scale is taken; a `History` has its own.
            samples: paths to draw.
            levels: of the quantiles.
            seed: the same paths each time.
            control: what to set in the gates; times count from the first step that is read.
            engine: of the recurrent layers.
        Raises:
            OptionError: if an option is outside its range.
            DataError: if there is no value to begin with.
            ShapeError: if covariates are missing, or not as many.
        """
        _check(steps, samples, levels)
        if isinstance(history, History):
            series, covariates, history = history.name, history.covariates, history.values
        values = _values(history)
        prepared, notes = self._prepared(values, covariates, series, steps)
        past = self.past([prepared], [(0, len(values))], steps)
        spread = self.model.head.spread
        draws = uniform(seed, [0], steps, samples) if spread else None
        found = free_run(self.model, past, steps, draws, engine=engine, control=control)
        paths = found[:, 0].double().cpu().numpy().T * prepared.scale.scale + prepared.scale.shift
        if not spread:
            return Forecast(paths[0], {}, None, notes)
        quantiles = {level: np.quantile(paths, level, axis=0) for level in levels}
        return Forecast(np.median(paths, axis=0), quantiles, paths, notes)

    def read(
        self,
        history: Sequence[float] | Array | Tensor | History,
        covariates: Array | Sequence[Sequence[float]] | None = None,
        *,
        series: str | None = None,
        record: Record | None = None,
        control: Control | None = None,
        engine: str = "auto",
    ) -> ForecastReading:
        """A whole history through the model, one step ahead each time.

        Args:
            history, covariates, series, engine: as of `forecast`; no covariates of the future are needed.
            record: what to read, by names such as ``layers.0.f``.
            control: what to set.
        """
        if isinstance(history, History):
            series, covariates, history = history.name, history.covariates, history.values
        values = _values(history)
        if len(values) < 2:
            raise DataError(f"expected a history of at least 2 steps, found {len(values)}")
        prepared, _ = self._prepared(values, covariates, series, 0)
        rows = torch.from_numpy(prepared.rows[: len(values) - 1]).unsqueeze(1).to(self.device)
        with evaluating(self.model), torch.inference_mode():
            out = self.model(rows[..., :-2], engine=engine, record=record, control=control)
            away = rows[:, 0, -1] - rows[:, 0, -2]
            costs = self.model.head.cost(out.numbers[:, 0], away.to(out.numbers))
            points = self.model.head.point(out.numbers[:, 0]) + rows[:, 0, -2].to(out.numbers)
        scale = prepared.scale
        return ForecastReading(
            points.double().cpu().numpy() * scale.scale + scale.shift,
            costs.double().cpu().numpy(),
            out.record,
        )

    def stream(
        self,
        batch: int = 1,
        *,
        series: str | None = None,
        scale: Scale | None = None,
        record: Record | None = None,
        control: Control | None = None,
        engine: str = "auto",
    ) -> ForecastStream:
        """The model one value at a time, in constant memory: what it says of the next one.

        Args:
            batch: series that go side by side.
            series: name of the series in training, whose scale is taken.
            scale: in its place.
            record, control, engine: as of `gatewise.stream.Stream`.
        Raises:
            OptionError: if the series is not known and no scale is given.
        """
        found = scale or self.scaling.get(series)
        if found is None:
            raise OptionError(
                f"series: expected one of {_named(self.scaling.series)}, found {series!r}: name one, or "
                "give a scale"
            )
        return ForecastStream(
            self.model,
            found,
            self.scaling.covariates,
            batch,
            record=record,
            control=control,
            engine=engine,
        )

    def prepare(self, values: Array, covariates: Array, name: str | None) -> Prepared:
        """A history as the model takes it; one that was not trained on gets a scale from its first window."""
        first = values[: self.windows.window]
        scale = self.scaling.get(name) or Scale.of(first, self.model.config.season)
        scaled = (values - scale.shift) / scale.scale
        ahead = self.scaling.ahead(covariates)
        rows = rows_of(self.model.config, scaled, ahead)
        return Prepared(rows, filled(scaled)[0], ahead, scale)

    def past(
        self, prepared: Sequence[Prepared], origins: Sequence[tuple[int, int]], steps: int
    ) -> Past:
        """What is known at each origin (which history, its first step that is not known)."""
        config, window = self.model.config, self.windows.window
        lengths = [min(window, origin) for _, origin in origins]
        rows = np.zeros((max(lengths), len(origins), config.inputs + 2), np.float32)
        known = np.zeros((config.reach, len(origins)))
        ahead = np.zeros((steps, len(origins), config.covariates))
        for column, ((which, at), length) in enumerate(zip(origins, lengths, strict=True)):
            one = prepared[which]
            rows[:length, column] = one.rows[at - length : at]
            known[:, column] = recent(config, one.known[max(0, at - config.reach) : at])
            coming = one.ahead[at : at + steps]
            ahead[: len(coming), column] = coming
        parts = (rows, np.array(lengths), known, ahead)
        return Past(*(torch.from_numpy(part).to(self.device) for part in parts))

    def paths(
        self,
        prepared: Sequence[Prepared],
        origins: Sequence[tuple[int, int]],
        steps: int,
        samples: int,
        seed: int = 0,
        engine: str = "auto",
    ) -> Array:
        """Scaled values of the steps after each origin: (steps, origins, S); S is 1 without a distribution."""
        spread = self.model.head.spread
        width = max(1, _COLUMNS // (samples if spread else 1))
        found = []
        for at in range(0, len(origins), width):
            some = origins[at : at + width]
            draws = None
            if spread:
                draws = uniform(seed, range(at, at + len(some)), steps, samples)
            past = self.past(prepared, some, steps)
            found.append(free_run(self.model, past, steps, draws, engine=engine).double().cpu())
        return np.asarray(torch.cat(found, 1).numpy())

    def _prepared(
        self, values: Array, covariates: Any, series: str | None, steps: int
    ) -> tuple[Prepared, list[str]]:
        """The history, checked, and what to tell about it."""
        wanted = len(self.scaling.covariates)
        given = np.zeros((len(values) + steps, 0))
        if covariates is not None:
            given = np.asarray(covariates, np.float64)
        if given.shape[1:] != (wanted,) or (wanted and len(given) < len(values) + steps):
            names = ", ".join(self.config.get("covariates") or [])
            raise ShapeError(
                f"covariates: expected {wanted} ({names or 'none'}) of {len(values) + steps} steps (the "
                f"history's and those to come), found {given.shape}"
            )
        notes = []
        if self.scaling.get(series) is None:
            notes.append(
                f"series {series!r} was not trained on: scaled by its own first "
                f"{min(len(values), self.windows.window)} steps"
            )
        missing = int(np.isnan(values).sum())
        if missing and not self.model.config.marks:
            notes.append(
                f"{missing:,} values are missing: the last known one stands for each; the model has not "
                "learned from gaps"
            )
        return self.prepare(values, given, series), notes


def uniform(seed: int, columns: Sequence[int], steps: int, samples: int) -> Tensor:
    """Numbers in (0, 1), (steps, B, S): of each column by the seed and its own number alone."""
    drawn = [np.random.default_rng((seed, k)).random((steps, samples)) for k in columns]
    return torch.from_numpy(np.stack(drawn, 1)).clamp(1e-7, 1 - 1e-7)


def _values(history: Any) -> Array:
    if isinstance(history, Tensor):
        history = history.detach().cpu().numpy()
    try:
        values = np.asarray(history, np.float64)
    except (TypeError, ValueError):
        raise ShapeError("history: expected a row of numbers, found something else") from None
    if values.ndim != 1:
        raise ShapeError(f"history: expected a row of numbers (T,), found {values.shape}")
    if not np.isfinite(values).any():
        raise DataError("history: expected at least one value, found none")
    if np.isinf(values).any():
        raise DataError("history: expected finite numbers, found an infinite one")
    return values


def _check(steps: int, samples: int, levels: Sequence[float]) -> None:
    for name, value in (("steps", steps), ("samples", samples)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise OptionError(f"{name}: expected a whole number from 1, found {value!r}")
    if any(not 0 < level < 1 for level in levels):
        raise OptionError(f"levels: expected shares between 0 and 1, found {list(levels)}")


def _named(series: dict[str, Scale], most: int = 8) -> str:
    names = list(series)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def build(checkpoint: Checkpoint) -> tuple[type[ForecastRun], nn.Module]:
    """The model of a checkpoint of mapping "forecast", with its weights."""
    try:
        config = ForecasterConfig.from_dict(checkpoint.config.get("model") or {})
        with torch.device("meta"):
            model = Forecaster(config)
    except GatewiseError as error:
        raise CheckpointError(f"{checkpoint.path}: not a forecaster: {error}") from None
    fill(model, checkpoint)
    return ForecastRun, model
