"""Sequence to sequence with numbers: what a series will be at the next step, said after each step.

    x[t] = [y[t], m[t], y[t+1-lag], ..., k[t+1]],  h[t] = Pred(h[t-1], x[t]),  y[t+1] ~ base + Dec(h[t])

y is scaled by the mean and deviation of its own series, its gaps are filled with the last known value and marked
by m; k is what is known ahead (covariates). base is 0, the last value or that of one season before: what the net
adds to a naive forecast. With differences x[t] holds y[t] - y[t-1] and y[t+1-lag] - y[t] instead of values. It
knows numbers of one series each; what they are of the data know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.errors import OptionError, ShapeError
from gatewise.losses.numbers import Cost
from gatewise.mappings.config import check_choice, check_size, from_dict, to_dict
from gatewise.mappings.heads import OUTPUTS, POINTS, Head, Point, Quantiles, build_head
from gatewise.mappings.recurrent import RecurrentOptions, build_stack, dropped
from gatewise.probe import Control, Record, Records
from gatewise.types import State

AROUND = ("zero", "last", "season")
_LARGEST_LAG = 1 << 16


@dataclass(frozen=True, kw_only=True)
class ForecasterOptions(RecurrentOptions):
    """Sizes, and what is said of the next value."""

    output: str = "gaussian"
    """gaussian; student (heavy tails, 4 degrees of freedom); quantile (at --levels); point (by --cost)."""

    cost: str = "mse"
    """Of a point: mse, mae, huber, or pinball at --level."""

    level: float = 0.5
    """Of the pinball cost: the share of values that are to be below the point."""

    levels: tuple[float, ...] = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
    """Which quantiles the output quantile has; what evaluations of the other distributions look at, too."""

    around: str = "last"
    """What the net's answer is added to: zero, the last value, or that of one season before."""

    season: int = 1
    """Steps after which the series resembles itself, such as 24 hours; 1: none that is known."""

    differences: bool = False
    """The net sees changes in place of values, so that a trend can go on beyond what it has seen."""

    lags: tuple[int, ...] = ()
    """Steps before the next value of what the net also sees; default: one season, where there is one."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        super().validate()
        check_choice("output", self.output, OUTPUTS)
        check_choice("cost", self.cost, POINTS)
        check_choice("around", self.around, AROUND)
        check_size("season", self.season, _LARGEST_LAG)
        for lag in self.lags:
            check_size("lags", lag, _LARGEST_LAG, 2)
        if not 0 < self.level < 1:
            raise OptionError(f"--level: expected a share between 0 and 1, found {self.level}")
        if self.around == "season" and self.season == 1:
            raise OptionError("--around season: expected --season with it: how many steps is it?")
        Quantiles(self.levels)


@dataclass(frozen=True, kw_only=True)
class ForecasterConfig(ForecasterOptions):
    """Everything that a forecaster is built from; JSON-able by `to_dict`."""

    covariates: int = 0
    """Numbers of a step that are known ahead."""

    marks: int = 0
    """1: a mark says where the last value is missing."""

    def validate(self) -> None:
        """Raise OptionError if anything is outside its range."""
        super().validate()
        check_size("covariates", self.covariates, least=0)
        check_size("marks", self.marks, 1, 0)

    @property
    def inputs(self) -> int:
        """Numbers of a step, I."""
        return 1 + self.marks + len(self.lags) + self.covariates

    @property
    def reach(self) -> int:
        """How many of the last values a step looks at."""
        return max(2, *self.lags, self.season if self.around == "season" else 1)

    @classmethod
    def from_options(cls, options: ForecasterOptions, **sizes: Any) -> ForecasterConfig:
        """`options` with what follows from the data; without lags that of one season."""
        lags = options.lags or ((options.season,) if options.season > 1 else ())
        config = cls(**{**vars(options), **sizes, "lags": tuple(lags)})
        config.validate()
        return config

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ForecasterConfig:
        """The config that `to_dict` wrote; OptionError on what does not belong in it."""
        config = from_dict(cls, values, "forecaster")
        config.validate()
        return config

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return to_dict(self)


@dataclass(frozen=True)
class ForecastOutput:
    """What the model says of the next value, after each step.

    Attributes:
        numbers: (T, B, P) float32, of the head, around the base.
        h: the last layer's outputs, (T, B, H).
        state: pass it back in to continue.
        record: what was asked for, or None.
        engine: name of the engine that ran.
    """

    numbers: Tensor
    h: Tensor
    state: State
    record: Records | None
    engine: str


class Forecaster(nn.Module):
    """A recurrent forecaster: Stack, and a decoder into the numbers of its head.

    Args:
        config: sizes, inputs and output.
        cost: of a point, in place of the config's; it is not stored.
        device: of the weights; "meta" for their shapes alone.
    Raises:
        OptionError: if an option is outside its range, or a cost is given for another output than a point.
    """

    def __init__(
        self,
        config: ForecasterConfig,
        *,
        cost: Cost | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        config.validate()
        self.config = config
        if cost is not None and config.output != "point":
            raise OptionError(f"cost: expected the output point with it, found {config.output}")
        self.head: Head = (
            Point(cost)
            if cost is not None
            else build_head(config.output, config.cost, config.level, config.levels)
        )
        self.stack = build_stack(config, config.inputs, device=device)
        self.decoder = nn.Linear(self.stack.output_size, self.head.size, device=device)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.weight.device

    def forward(
        self,
        x: Tensor,
        state: State = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        start: int | Tensor = 0,
        engine: str = "auto",
        record: Record | None = None,
        control: Control | None = None,
    ) -> ForecastOutput:
        """What is said of the value after each step.

        Args:
            x: inputs (T, B, I), as `mappings.forecasted.rows_of` makes them.
            state: from an earlier call; None begins anew.
            lengths: valid steps of each column (B,); default: all T.
            start: time of the first step, a number or (B,).
            engine: name of an engine, or "auto".
            record: what to read.
            control: what to set.
        Raises:
            ShapeError: if `x` has another shape.
        """
        if x.dim() != 3 or x.shape[-1] != self.config.inputs:
            raise ShapeError(
                f"expected inputs (T, B, {self.config.inputs}), found {tuple(x.shape)}"
            )
        lengths = None if lengths is None else torch.as_tensor(lengths, device=x.device)
        out = self.stack(
            dropped(x.to(self.decoder.weight), self.config.dropout, self.training),
            state,
            lengths=lengths,
            start=start,
            engine=engine,
            record=record,
            control=control,
        )
        return ForecastOutput(self.decode(out.h), out.h, out.state, out.record, out.engine)

    def row(self, known: Tensor, ahead: Tensor, missing: Tensor | None = None) -> Tensor:
        """The inputs (B, I) after the newest of `known`, the one place that says it for a single step.

        Args:
            known: the last values, gaps filled, the newest last, (`config.reach`, B).
            ahead: covariates of the next step, (B, C).
            missing: 1 where the newest is missing, (B,); default: nowhere.
        """
        config, newest = self.config, known[-1]
        zero = torch.zeros_like(newest)
        columns = [newest - (known[-2] if config.differences else zero)]
        columns += [zero if missing is None else missing.to(zero)] * config.marks
        columns += [known[-lag] - (newest if config.differences else zero) for lag in config.lags]
        return torch.cat((torch.stack(columns, -1), ahead.to(newest)), -1)

    def base(self, known: Tensor) -> Tensor:
        """What the answer after the newest of `known` (reach, B) is added to, (B,)."""
        if self.config.around == "zero":
            return torch.zeros_like(known[-1])
        return known[-1 if self.config.around == "last" else -self.config.season]

    def decode(self, h: Tensor) -> Tensor:
        """Dec: the head's numbers of h (..., H)."""
        numbers: Tensor = self.decoder(dropped(h, self.config.dropout, self.training))
        return numbers if numbers.dtype == torch.float64 else numbers.float()

    def loss(
        self,
        x: Tensor,
        base: Tensor,
        targets: Tensor,
        lengths: Tensor | None = None,
        *,
        engine: str = "auto",
    ) -> tuple[Tensor, ForecastOutput]:
        """The mean cost of the targets that are known, and the output.

        Args:
            x, lengths, engine: as in `forward`.
            base: what the answer is added to, (T, B).
            targets: the next values (T, B), NaN where one is missing or does not count.
        """
        out = self(x, lengths=lengths, engine=engine)
        away = targets.to(out.numbers) - base.to(out.numbers)
        known = away.isfinite()
        costs = self.head.cost(out.numbers, torch.where(known, away, 0))
        return torch.where(known, costs, 0).sum() / known.sum().clamp(min=1), out
