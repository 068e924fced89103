"""A long text through a model, in columns: what units did, and what that says of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from gatewise.cells.base import Law
from gatewise.errors import DataError, OptionError
from gatewise.insight.marks import Marks
from gatewise.modes import evaluating
from gatewise.probe import Control, Record
from gatewise.run import LanguageRun
from gatewise.types import State

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

COLUMNS, WARM, STEPS = 32, 100, 256


@dataclass(frozen=True, eq=False)
class LongReading:
    """A text as a model read it, in several columns at once.

    Args:
        ids: its tokens, (N,).
        nats: (N,) float32, the cost of each token given those before; NaN for the first.
        record: path -> (N, units), what was recorded after each token was read.
    """

    ids: Array
    nats: Array
    record: dict[str, Array]


def read_long(
    run: LanguageRun,
    text: str | Array,
    *,
    record: Sequence[str] = (),
    control: Control | None = None,
    columns: int = COLUMNS,
    warm: int = WARM,
    engine: str = "auto",
) -> LongReading:
    """A text through the model in `columns` parts side by side.

    Each part but the first begins `warm` tokens early, with the start state; what is kept begins behind
    them. So the states are those of one reading up to what a model still knows after that many tokens, and the
    time is that of one column.

    Args:
        run: of a language model.
        text: at least two tokens; or the tokens themselves, (N,).
        record: names or paths of gates and states.
        control: what to set; times of it count from the beginning of each part.
        columns: parts.
        warm: tokens that are read before each.
        engine: of the recurrent layers.
    Raises:
        DataError: the text is too short.
        OptionError: columns or warm is outside its range.
    """
    for name, value, least in (("columns", columns, 1), ("warm", warm, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise OptionError(
                f"{name}: expected a whole number of {least} or more, found {value!r}"
            )
    ids = np.asarray(run.tokenizer.encode(text) if isinstance(text, str) else text, np.int64)
    if len(ids) < 2:
        raise DataError(f"expected a text of at least two tokens, found {len(ids)}")
    cut = _Cut(len(ids), columns, warm)
    nats = np.full(len(ids), np.nan, np.float32)
    kept: dict[str, Array] = {}
    asked = Record(*record) if record else None
    for begin, costs, values in _chunks(run, ids[cut.places], asked, control, engine):
        steps = len(costs)
        for path, each in values.items():
            if path not in kept:
                kept[path] = np.empty((len(ids), each.shape[-1]), np.float32)
        for column, first, place, count in cut.pieces(begin, steps):
            known = min(count, len(ids) - 1 - place)
            nats[place + 1 : place + 1 + known] = costs[first : first + known, column].numpy()
            for path, each in values.items():
                kept[path][place : place + count] = each[first : first + count, column].numpy()
    return LongReading(ids, nats, kept)


class _Cut:
    """Which token stands where: `places` (T + 1, B) are indices of tokens."""

    def __init__(self, count: int, columns: int, warm: int) -> None:
        self._columns = min(columns, max(1, count // max(warm, 1)))
        size = -(-count // self._columns)
        starts = np.arange(self._columns) * size
        self._begins = starts - np.minimum(warm, starts)
        self._ends = np.minimum(starts + size, count)
        self._starts = starts
        steps = int((self._ends - self._begins).max())
        places = self._begins + np.arange(steps + 1)[:, None]  # the last is only predicted
        self.places = np.minimum(places, count - 1)

    def pieces(self, begin: int, steps: int) -> Iterator[tuple[int, int, int, int]]:
        """What is kept of the steps from `begin` on, a piece a column at most.

        Yields:
            The column, its first step behind `begin`, the token that stands there, how many.
        """
        for column, early in enumerate(self._begins.tolist()):
            first = max(early + begin, int(self._starts[column]))
            last = min(early + begin + steps, int(self._ends[column]))
            if first < last:
                yield column, first - early - begin, first, last - first


def _chunks(
    run: LanguageRun, tokens: Array, record: Record | None, control: Control | None, engine: str
) -> Iterator[tuple[int, Tensor, dict[str, Tensor]]]:
    """Begin, costs of the next tokens (T, B) and what was recorded, some steps at a time."""
    model = run.model
    every = torch.from_numpy(tokens).to(model.device)
    given, following = every[:-1], every[1:]
    state: State = None
    with evaluating(model), torch.no_grad():
        for begin in range(0, len(given), STEPS):
            part = given[begin : begin + STEPS]
            out = model(
                part,
                state,
                logits="none",
                start=begin,
                engine=engine,
                record=record,
                control=control,
            )
            state = out.state
            costs = model.token_nats(out.h, following[begin : begin + STEPS])
            values = {} if out.record is None else dict(out.record.items())
            yield begin, costs.float().cpu(), {k: v.float().cpu() for k, v in values.items()}


def saturation(values: Array, low: float = 0.1, high: float = 0.9) -> tuple[Array, Array]:
    """Share of the time that each unit of a gate is below `low` and above `high`.

    Karpathy, Johnson & Fei-Fei 2015, section 4.2: left and right saturation.

    Args:
        values: (N, units), of a gate between 0 and 1.
        low, high: bounds.
    Returns:
        Two of (units,).
    """
    return (values < low).mean(0), (values > high).mean(0)


def keeping(law: Law) -> tuple[str, bool] | None:
    """The gate that says how much of the state a cell keeps, and whether it keeps where the gate is open.

    By the cell's own control `keep`: f of an LSTM (True), z of torch's GRU (True) or of minGRU (False). None of a cell
    that has none, and of sLSTM, whose f is relative to a scale that moves.
    """
    keep = law.controls.get("keep", {})
    if any(name.endswith(".pre") for name in keep):
        return None
    return next(((name, keep[name] == 1) for name in ("f", "z") if name in keep), None)


def half_life(forget: Array) -> Array:
    """Steps after which half of what a unit remembered is left, (units,): ln 2 / -mean ln f.

    Args:
        forget: (N, units), what is kept at each step: a forget gate; see `keeping`.
    """
    tiny = float(np.finfo(np.float32).tiny)
    rate = -np.log(np.maximum(forget.astype(np.float64), tiny)).mean(0)
    found: Array = math.log(2) / np.maximum(rate, 1e-12)
    return found


def selectivity(values: Array, where: Marks) -> Array:
    """How well each unit alone tells the marked steps from the others, (units,), -1 to 1.

    The probability that it is larger at a marked step than at another, as 2 P - 1 (Mann & Whitney 1947):
    1 always larger, -1 always smaller, 0 neither.

    Raises:
        DataError: if all steps are marked, or none.
    """
    marked = int(where.sum())
    others = len(where) - marked
    if not marked or not others:
        raise DataError(
            f"expected steps with the mark and without, found {marked:,} with and {others:,} without"
        )
    found = np.empty(values.shape[1])
    for unit in range(values.shape[1]):
        ranks = _ranks(values[:, unit])
        total = ranks[where].sum() - marked * (marked + 1) / 2
        found[unit] = 2 * total / (marked * others) - 1
    return found


def _ranks(values: Array) -> Array:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    found: Array = (last - (counts - 1) / 2)[inverse.reshape(-1)]
    return found
