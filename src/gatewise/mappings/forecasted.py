"""A forecaster and its series: their steps as rows of inputs, cut into windows, and what training sees of them.

Row t holds what is known after step t (and ahead), what the answer is added to, and the value at t + 1. A window
is a run of rows that a state is carried through from nothing; in an evaluation its first rows only warm it up.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatewise.errors import ShapeError
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.forecaster import Forecaster, ForecasterConfig
from gatewise.mappings.learner import Batch, Loss
from gatewise.mappings.learning import Array, ExampleLearner
from gatewise.metrics.forecasts import ForecastTally
from gatewise.types import State


@dataclass(frozen=True)
class Scale:
    """How a series is brought to mean 0 and deviation 1, and what the naive forecast misses it by.

    Args:
        shift, scale: of the training part.
        naive: mean |y[t] - y[t - season]| there, for MASE; NaN where there is none.
    """

    shift: float = 0.0
    scale: float = 1.0
    naive: float = float("nan")

    @classmethod
    def of(cls, values: Array, season: int = 1) -> Scale:
        """That of some values; one that never changes gets the scale 1, and one without a value 0 and 1."""
        known = values[np.isfinite(values)].astype(np.float64)
        if not known.size:
            return cls()
        spread = float(known.std())
        lag = season if len(values) > season else 1
        steps = np.abs(values[lag:] - values[:-lag])
        steps = steps[np.isfinite(steps)]
        naive = float(steps.mean()) if steps.size else float("nan")
        return cls(float(known.mean()), spread if spread > 0 else 1.0, naive)


def filled(values: Array) -> tuple[Array, Array]:
    """`values` with the last known one in each gap (0 before the first), and which were missing."""
    missing = np.isnan(values)
    last = np.maximum.accumulate(np.where(missing, -1, np.arange(len(values))))
    return np.where(last >= 0, np.nan_to_num(values)[np.maximum(last, 0)], 0.0), missing


def rows_of(config: ForecasterConfig, values: Array, ahead: Array | None = None) -> Array:
    """What the model sees after each step: (n, I + 2), the inputs, the base and the next value.

    Args:
        config: of the model.
        values: scaled, (T,), NaN where one is missing.
        ahead: covariates, scaled, (T or more, C): of each step, and perhaps of those to come.
    Returns:
        rows: of steps 0 to T - 1, or to T - 2 where the covariates of T are not known; the next value of
            the last row, and any missing one, is NaN.
    Raises:
        ShapeError: if there are not as many covariates as the model has, or too few steps of them.
    """
    count, reach = len(values), config.reach
    ahead = _checked(config, ahead, count)
    rows = count if len(ahead) > count else count - 1
    known, missing = filled(values)
    padded = np.concatenate([np.repeat(known[:1], reach), known])  # padded[t + reach] is known[t]
    at = np.arange(max(rows, 0)) + reach
    columns = [padded[at] - (padded[at - 1] if config.differences else 0)]
    if config.marks:
        columns.append(missing[: len(at)].astype(float))
    newest = padded[at] if config.differences else 0
    columns += [padded[at + 1 - lag] - newest for lag in config.lags]
    columns += [ahead[1 : rows + 1, k] for k in range(config.covariates)]
    base = {"zero": 0 * at, "last": padded[at], "season": padded[at + 1 - config.season]}
    following = np.append(values[1:], np.nan)[: len(at)]
    return np.stack([*columns, base[config.around], following], 1).astype(np.float32)


def recent(config: ForecasterConfig, values: Array) -> Array:
    """The last values that a step looks at, gaps filled: (reach,), the first one repeated before them."""
    known, _ = filled(values)
    return np.concatenate([np.repeat(known[:1], config.reach), known])[-config.reach :]


def _checked(config: ForecasterConfig, ahead: Array | None, count: int) -> Array:
    if not config.covariates:
        return np.zeros((count + 1, 0))
    if ahead is None or ahead.shape[1:] != (config.covariates,) or len(ahead) < count:
        found = "none" if ahead is None else f"{ahead.shape}"
        raise ShapeError(
            f"expected covariates of {count} steps or more, {config.covariates} each, found {found}"
        )
    return ahead


@dataclass(frozen=True, eq=False)
class Windows:
    """One part of a data set: runs of rows.

    Args:
        table: of all rows, (R, I + 2), one series after another; the same object for every part.
        starts: first row of each window, (n,).
        lengths: rows of each, (n,).
        skips: its first rows that do not count, (n,).
        series: which series it is of, (n,).
        scales: of each series.
    """

    table: Array
    starts: Array
    lengths: Array
    skips: Array
    series: Array
    scales: list[Scale]

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def sizes(self) -> Array:
        """What batches are sorted by: rows."""
        return self.lengths

    def padded(self, rows: Array) -> Tensor:
        """Those windows side by side, (T, B, I + 2); behind the end of each all is 0."""
        times = np.arange(int(self.lengths[rows].max()))[:, None]
        inside = times < self.lengths[rows]
        places = np.where(inside, times + self.starts[rows], 0)
        return torch.from_numpy(np.where(inside[..., None], self.table[places], 0))

    @property
    def checksum(self) -> int:
        """Of all rows and windows: other data give another number."""
        found = zlib.crc32(np.ascontiguousarray(self.table).tobytes())
        return zlib.crc32(np.ascontiguousarray(self.starts, np.int64).tobytes(), found)


class ForecastLearner(ExampleLearner[Windows, ForecastTally]):
    """Trains a Forecaster; implements `mappings.Learner`.

    Args:
        model, parts, options, seed, engine: as of `ExampleLearner`.
    """

    noun = "windows"
    unit = "steps"

    def __init__(
        self,
        model: Forecaster,
        parts: Mapping[str, Windows],
        options: BatchOptions | None = None,
        *,
        seed: int = 1,
        engine: str = "auto",
    ) -> None:
        super().__init__(model, parts, options, kind="forecast", seed=seed, engine=engine)
        self.model = model

    @property
    def uniform_nats(self) -> float | None:
        """There is no uniform guess of a number."""
        return None

    def collate(self, part: Windows, rows: Array) -> tuple[Tensor, ...]:
        """x (T, B, I), base and targets (T, B), NaN where one does not count, and lengths (B,)."""
        table = part.padded(rows)
        times = torch.arange(len(table)).unsqueeze(1)
        lengths, skips = (torch.from_numpy(one[rows]) for one in (part.lengths, part.skips))
        counts = (times >= skips) & (times < lengths)
        targets = torch.where(counts, table[..., -1], torch.nan)
        batch = (table[..., :-2], table[..., -2], targets, lengths)
        return tuple(one.to(self.model.device) for one in batch)

    def count(self, inputs: tuple[Tensor, ...]) -> int:
        """Values that are forecast."""
        return int(inputs[2].isfinite().sum())

    def loss(self, batch: Batch, state: State) -> Loss:
        """Mean cost of the batch's values."""
        loss, out = self.model.loss(*batch.inputs, engine=self.engine)
        return Loss(loss, loss.detach(), None, out.engine)

    def tally(self) -> ForecastTally:
        """Errors one step ahead, and quantiles where the model has them."""
        return ForecastTally(self.model.config.levels if self.model.head.spread else ())

    def measure(self, tally: ForecastTally, part: Windows, rows: Array) -> None:
        """One step ahead, each value given all before it."""
        x, base, targets, lengths = self.collate(part, rows)
        numbers = self.model(x, lengths=lengths, engine=self.engine).numbers
        head, known = self.model.head, targets.isfinite()
        base, truth, numbers = base[known].to(numbers), targets[known].to(numbers), numbers[known]
        scales = [part.scales[k] for k in part.series[rows]]
        shift, scale, naive = (
            torch.tensor([getattr(one, name) for one in scales], dtype=torch.float64)
            .expand(known.shape)[known.cpu()]
            .to(truth.device)
            for name in ("shift", "scale", "naive")
        )
        restored: Callable[[Tensor], Tensor] = lambda value: value.double() * scale + shift
        quantiles = None
        if tally.levels:
            found = head.quantiles(numbers, tally.levels) + base.unsqueeze(-1)
            quantiles = found.double() * scale.unsqueeze(-1) + shift.unsqueeze(-1)
        tally.add(
            restored(head.point(numbers) + base),
            restored(truth),
            naive,
            quantiles=quantiles,
            costs=head.cost(numbers, truth - base),
        )

    def data(self) -> dict[str, Any]:
        """How many windows, and a sum of what is trained on."""
        return super().data() | {"checksum": self.parts["train"].checksum}

    def model_config(self) -> dict[str, Any]:
        """The forecaster's."""
        return self.model.config.to_dict()

    def tokenizer_json(self) -> str | None:
        """Numbers have none."""
        return None
