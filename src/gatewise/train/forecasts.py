"""From series to a learner: parts, scales, rows, windows, a forecaster from the seed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from gatewise.engine import check_engine
from gatewise.errors import CheckpointError, DataError, OptionError
from gatewise.losses.numbers import Cost
from gatewise.mappings.config import check_choice, check_size
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.forecasted import ForecastLearner, Scale, Windows, filled, rows_of
from gatewise.mappings.forecaster import Forecaster, ForecasterConfig, ForecasterOptions
from gatewise.mappings.learning import Array
from gatewise.optim import OPTIMIZERS
from gatewise.tasks.histories import Histories, History
from gatewise.tasks.parallel import PARTS
from gatewise.train.build import in_bytes, memory_size, open_device
from gatewise.train.options import TrainOptions

SCALINGS = ("series", "all")


@dataclass(frozen=True, kw_only=True)
class WindowOptions:
    """How series become windows and parts."""

    window: int = 96
    """Steps that a state is carried through in training, and that warm it up before a forecast."""

    stride: int | None = None
    """Steps from the beginning of one training window to the next; default: a quarter of --window, or a little
    less, so that windows begin in all phases of a season."""

    fractions: tuple[float, ...] = (0.8, 0.1, 0.1)
    """Shares of train, valid and test, in the order of time."""

    scaling: str = "series"
    """Bring each series to mean 0 and deviation 1 by itself, or all of them alike: series or all."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        check_size("window", self.window, least=2)
        if self.stride is not None:
            check_size("stride", self.stride)
        check_choice("scaling", self.scaling, SCALINGS)
        shares = self.fractions
        if not 1 <= len(shares) <= len(PARTS) or min(shares) < 0 or not 0 < sum(shares) <= 1 + 1e-9:
            raise OptionError(
                f"--fractions: expected up to three shares with a sum of at most 1, found {shares}"
            )


Bounds = dict[str, tuple[int, int]]
"""Part -> its first step, and the one behind its last."""


def bounds_of(history: History, fractions: Sequence[float]) -> Bounds:
    """The parts of one series: cut in the order of time, or the whole where its file's name says so."""
    size = len(history.values)
    if history.part is not None:
        return {history.part: (0, size)}
    ends = [0, *np.rint(np.cumsum(fractions) * size).astype(int).tolist()]
    cut = zip(PARTS, pairwise(ends), strict=False)
    return {name: (low, min(high, size)) for name, (low, high) in cut if high > low}


class Scaling:
    """The scales of a run: of each series, of all together, and of the covariates.

    Args:
        series: by name; empty where all are scaled alike.
        whole: of all series together.
        covariates: (shift, scale) of each.
    """

    def __init__(
        self, series: Mapping[str, Scale], whole: Scale, covariates: Sequence[tuple[float, float]]
    ) -> None:
        self.series, self.whole, self.covariates = dict(series), whole, list(covariates)

    @classmethod
    def of(cls, found: Histories, options: WindowOptions, season: int) -> Scaling:
        """Those of the training parts."""
        trained = []
        for one in found.series:
            if (bounds := bounds_of(one, options.fractions)).get("train"):
                low, high = bounds["train"]
                trained.append((one, slice(low, high)))
        if not trained:
            raise DataError("expected a series with a training part, found none")
        gap = np.full(season, np.nan)
        pieces = [part for one, cut in trained for part in (one.values[cut], gap)]
        whole = Scale.of(np.concatenate(pieces), season)
        series = {}
        if options.scaling == "series" and all(one.part is None for one in found.series):
            series = {one.name: Scale.of(one.values[cut], season) for one, cut in trained}
        ahead = np.concatenate([one.covariates[cut] for one, cut in trained])
        covariates = [Scale.of(column) for column in ahead.T]
        return cls(series, whole, [(one.shift, one.scale) for one in covariates])

    def get(self, name: str | None) -> Scale | None:
        """That of a series; without a name that of the only one there is. None: it was not there."""
        if not self.series:
            return self.whole
        if name is None and len(self.series) == 1:
            return next(iter(self.series.values()))
        return self.series.get(name or "")

    def ahead(self, covariates: Array) -> Array:
        """Covariates (T, C), scaled; a missing one is the last known one, or the mean before the first."""
        columns = [
            filled((covariates[:, k] - shift) / scale)[0]
            for k, (shift, scale) in enumerate(self.covariates)
        ]
        return np.stack(columns, 1) if columns else np.zeros((len(covariates), 0))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        plain = {name: dataclasses.astuple(one) for name, one in self.series.items()}
        named = {name: [_plain(v) for v in values] for name, values in plain.items()}
        whole = [_plain(v) for v in dataclasses.astuple(self.whole)]
        covariates = [list(one) for one in self.covariates]
        return {"series": named, "whole": whole, "covariates": covariates}

    @classmethod
    def from_dict(cls, values: object) -> Scaling:
        """What `to_dict` wrote.

        Raises:
            CheckpointError: if it is anything else.
        """
        try:
            assert isinstance(values, dict)
            series = {str(n): _scale(one) for n, one in values["series"].items()}
            covariates = [(float(a), float(b)) for a, b in values["covariates"]]
            return cls(series, _scale(values["whole"]), covariates)
        except (AssertionError, KeyError, TypeError, ValueError, AttributeError):
            raise CheckpointError("expected the scales of its series, found others") from None


def _plain(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _scale(values: Any) -> Scale:
    shift, scale, naive = values
    return Scale(float(shift), float(scale), float("nan") if naive is None else float(naive))


def build_windows(
    found: Histories,
    config: ForecasterConfig,
    options: WindowOptions,
    scaling: Scaling,
    *,
    overlapping: str = "train",
) -> dict[str, Windows]:
    """The windows of each part: those of the part `overlapping` overlap, those of others count a step once."""
    tables, first = [], 0
    cuts: dict[str, list[tuple[int, int, int, int]]] = {name: [] for name in PARTS}
    scales = []
    for k, one in enumerate(found.series):
        scale = scaling.get(one.name) or Scale.of(one.values[: options.window], config.season)
        values = (one.values - scale.shift) / scale.scale
        table = rows_of(config, values, scaling.ahead(one.covariates))[: len(values) - 1]
        for part, (low, high) in bounds_of(one, options.fractions).items():
            rows = (max(low - 1, 0), high - 1)  # row t is about step t + 1
            cut = _overlapping if part == overlapping else _following
            cuts[part] += [
                (first + a, n, skip, k) for a, n, skip in cut(*rows, options, config.season)
            ]
        tables.append(table)
        scales.append(scale)
        first += len(table)
    table = np.concatenate(tables)
    parts = {}
    for name, found_cuts in cuts.items():
        if found_cuts:
            starts, lengths, skips, series = np.array(found_cuts, np.int64).T
            parts[name] = Windows(table, starts, lengths, skips, series, scales)
    return parts


def _stride(window: int, season: int) -> int:
    """About a quarter of a window, and no common divisor with the season.

    With windows that all begin in one phase a net learns to tell the phase from its own first state, and is
    wrong wherever else it begins.
    """
    stride = max(1, window // 4)
    while math.gcd(stride, season) > 1:
        stride -= 1
    return stride


def _overlapping(
    low: int, high: int, options: WindowOptions, season: int
) -> list[tuple[int, int, int]]:
    """(start, length, rows that do not count) of training windows."""
    size = min(options.window, high - low)
    if size < 1:
        return []
    stride = options.stride or _stride(options.window, season)
    starts = list(range(low, high - size + 1, stride))
    if starts[-1] != high - size:
        starts.append(high - size)
    return [(start, size, 0) for start in starts]


def _following(
    low: int, high: int, options: WindowOptions, season: int
) -> list[tuple[int, int, int]]:
    """The same of windows that count each row once, with as much before them as is there."""
    found = []
    for at in range(low, high, options.window):
        start = max(0, at - options.window)
        found.append((start, min(at + options.window, high) - start, at - start))
    return found


def forecast_learner(
    found: Histories,
    windows: WindowOptions,
    model: ForecasterOptions,
    batches: BatchOptions,
    training: TrainOptions,
    *,
    cost: Cost | None = None,
    engine: str = "auto",
) -> ForecastLearner:
    """A new forecaster for `found`, initialised from the seed.

    Args:
        found: the series.
        windows, model, batches, training: options.
        cost: of a point, element by element, in place of --cost; a run that is taken up again needs it again.
        engine: name of an engine, or "auto".
    Raises:
        OptionError: an option is outside its range, or the model does not fit into memory.
        DataError: there is nothing to train on.
    """
    for part in (windows, model, batches, training):
        part.validate()
    check_engine(engine)
    device = open_device(training.device)
    marks = int(found.missing > 0)
    config = ForecasterConfig.from_options(model, covariates=len(found.covariates), marks=marks)
    scaling = Scaling.of(found, windows, config.season)
    parts = build_windows(found, config, windows, scaling)
    if "train" not in parts:
        raise DataError(
            "expected a series with at least 2 steps in its training part, found none: give more "
            "steps, or a larger first share of --fractions"
        )
    _check_memory(config, parts["train"], batches, training, device)
    torch.manual_seed(training.seed)
    network = Forecaster(config, cost=cost).to(device)
    if training.dtype == "float64":
        network = network.double()
    learner = ForecastLearner(network, parts, batches, seed=training.seed, engine=engine)
    learner.extra |= {"scaling": scaling.to_dict(), "covariates": list(found.covariates)}
    return learner


def _check_memory(
    config: ForecasterConfig,
    train: Windows,
    batches: BatchOptions,
    training: TrainOptions,
    device: torch.device,
) -> None:
    available = memory_size(device)
    parameters = sum(p.numel() for p in Forecaster(config, device="meta").parameters())
    size = 8 if training.dtype == "float64" else 4
    weights = parameters * size * (2 + OPTIMIZERS[training.optimizer].slots)
    longest = int(train.lengths.max())
    width = config.num_layers * config.hidden_size * 8 + config.inputs
    activations = batches.batch_size * longest * width * size
    if available is not None and weights + activations > available:
        raise OptionError(
            f"the model would have {parameters:,} parameters and training it would take about "
            f"{in_bytes(weights + activations)} ({in_bytes(activations)} of it for --batch-size "
            f"{batches.batch_size} windows of {longest} steps), this machine has "
            f"{in_bytes(available)}: choose smaller sizes or a smaller --window"
        )
