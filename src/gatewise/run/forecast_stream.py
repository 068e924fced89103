"""A forecaster that is fed as its series arrives. Knows one scale; histories and files others know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatewise.errors import ShapeError
from gatewise.mappings.forecasted import Scale
from gatewise.mappings.forecaster import Forecaster
from gatewise.probe import Control, Record, Records
from gatewise.stream import Stream


class ForecastStream:
    """One value, or a few, at a time, in constant memory.

    Args:
        model: of the run.
        scale: of the series.
        covariates: (shift, scale) of each.
        batch: B, series that go side by side.
        record, control, engine: as of `gatewise.stream.Stream`.
    """

    def __init__(
        self,
        model: Forecaster,
        scale: Scale,
        covariates: Sequence[tuple[float, float]],
        batch: int = 1,
        *,
        record: Record | None = None,
        control: Control | None = None,
        engine: str = "auto",
    ) -> None:
        self.model, self.scale, self.covariates = model, scale, list(covariates)
        self._stream = Stream(model.stack, batch, record=record, control=control, engine=engine)
        self._known: Tensor | None = None
        self._numbers: Tensor | None = None
        self._base: Tensor | None = None

    @property
    def batch(self) -> int:
        """Series that go side by side."""
        return self._stream.batch

    @property
    def time(self) -> int:
        """Steps since the beginning."""
        return self._stream.time

    @property
    def record(self) -> Records | None:
        """What was read during the last push, or None."""
        return self._stream.record

    @torch.no_grad()
    def push(self, values: Any, ahead: Any = None) -> Tensor:
        """Feed the next values; what is said of the one after each of them, (T, B) float64.

        Args:
            values: a number, or (T, B), NaN where one is missing; of one series B may be left out.
            ahead: covariates of the step after each value, (T, B, C).
        Raises:
            ShapeError: if they do not fit.
        """
        new, marks = self._scaled(values)
        known = self._ahead(ahead, len(new))
        if not len(new):
            return torch.zeros(0, self.batch, dtype=torch.float64)
        rows, bases = [], []
        for value, missing, coming in zip(new, marks, known, strict=True):
            self._append(value, missing)
            rows.append(self._row(missing, coming))
            bases.append(self._base_now())
        h = self._stream.push(torch.stack(rows))
        self._numbers, self._base = self.model.decode(h), torch.stack(bases)
        points = self.model.head.point(self._numbers).double() + self._base
        return points * self.scale.scale + self.scale.shift

    @torch.no_grad()
    def quantiles(self, levels: Sequence[float]) -> Tensor:
        """Quantiles of what the last push was said of, (T, B, Q) float64.

        Raises:
            ShapeError: if nothing was pushed yet.
        """
        if self._numbers is None or self._base is None:
            raise ShapeError("expected a value to be pushed first, found none")
        found = self.model.head.quantiles(self._numbers, levels).double()
        return (found + self._base.unsqueeze(-1)) * self.scale.scale + self.scale.shift

    def reset(self) -> None:
        """Begin anew, at time 0."""
        self._stream.reset()
        self._known = self._numbers = self._base = None

    def fork(self, columns: Sequence[int] | None = None) -> ForecastStream:
        """A second stream that goes on from here by itself; see `Stream.fork`."""
        twin = ForecastStream.__new__(ForecastStream)
        twin.model, twin.scale, twin.covariates = self.model, self.scale, self.covariates
        twin._stream = self._stream.fork(columns)
        index = list(range(self.batch)) if columns is None else list(columns)
        twin._known = None if self._known is None else self._known[:, index].clone()
        twin._numbers = twin._base = None
        return twin

    @property
    def state(self) -> dict[str, Tensor]:
        """All that the stream will need to go on: that of `Stream`, and "known", its last values."""
        known = torch.full((0, self.batch), 0.0, dtype=torch.float64)
        return self._stream.state | {"known": known if self._known is None else self._known.clone()}

    @state.setter
    def state(self, parts: Mapping[str, Tensor]) -> None:
        known = parts.get("known")
        sizes = {(0, self.batch), (self.model.config.reach, self.batch)}
        if known is None or tuple(known.shape) not in sizes:
            found = "nothing" if known is None else tuple(known.shape)
            raise ShapeError(f"expected the last values of {self.batch} series, found {found}")
        self._stream.state = {name: part for name, part in parts.items() if name != "known"}
        self._known = known.clone() if len(known) else None
        self._numbers = self._base = None

    def _scaled(self, values: Any) -> tuple[Tensor, Tensor]:
        found = torch.as_tensor(np.asarray(values, np.float64))
        if found.ndim < 2 and self.batch == 1:
            found = found.reshape(-1, 1)
        if found.ndim != 2 or found.shape[1] != self.batch:
            raise ShapeError(f"expected values (T, {self.batch}), found {tuple(np.shape(values))}")
        return (found - self.scale.shift) / self.scale.scale, found.isnan()

    def _ahead(self, ahead: Any, steps: int) -> Tensor:
        count = len(self.covariates)
        given = np.zeros((steps, self.batch, 0)) if ahead is None else np.asarray(ahead, np.float64)
        if given.ndim == 2 and self.batch == 1:
            given = given[:, None]
        if given.shape != (steps, self.batch, count):
            raise ShapeError(
                f"expected covariates ({steps}, {self.batch}, {count}) of the steps to come, found "
                f"{given.shape}"
            )
        shift, scale = np.array(self.covariates).reshape(count, 2).T
        return torch.from_numpy((given - shift) / scale)

    def _append(self, value: Tensor, missing: Tensor) -> None:
        """One more value of each series; a missing one is the one before it, the first 0."""
        if self._known is None:
            first = torch.where(missing, 0.0, value)
            self._known = first.repeat(self.model.config.reach, 1)
            return
        value = torch.where(missing, self._known[-1], value)
        self._known = torch.cat((self._known[1:], value.unsqueeze(0)))

    def _row(self, missing: Tensor, ahead: Tensor) -> Tensor:
        return self.model.row(self._values(), ahead, missing.double())

    def _base_now(self) -> Tensor:
        return self.model.base(self._values())

    def _values(self) -> Tensor:
        assert self._known is not None
        return self._known
