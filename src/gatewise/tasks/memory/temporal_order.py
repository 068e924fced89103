"""Temporal order: which of X and Y came first, among noise (Hochreiter & Schmidhuber 1997, experiment 6)."""

from __future__ import annotations

import itertools
from typing import ClassVar, NamedTuple

import numpy as np

from gatewise.errors import OptionError
from gatewise.tasks.memory.base import (
    PADDED,
    MemoryTask,
    Published,
    Sequences,
    Success,
    at_end,
    last_step,
)

_NOISE, _MARKS, _BEGIN, _END = 4, 4, 6, 7  # symbols 0 to 3; X is 4 and Y 5; B; E


class Level(NamedTuple):
    """How long sequences are and where their marks stand, all half-open: from, and below."""

    steps: tuple[int, int]
    places: tuple[tuple[int, int], ...]


class TemporalOrder(MemoryTask):
    """Two marks, each X or Y; at the end, which of the four orders it was."""

    name: ClassVar[str] = "temporal-order"
    summary: ClassVar[str] = "two marks X or Y far apart among noise: which order was it"
    published: ClassVar[Published] = Published(
        source="Hochreiter & Schmidhuber 1997, experiment 6a (section 5.6); the levels are a lecture's, "
        "hard is the paper's; B begins and E ends as in the lecture, in the paper E begins and B ends",
        lengths="easy 7-8, normal 30-40, moderate 60-80, hard 100-110, nightmare 300-500 steps",
        data="new sequences throughout; 2,560 to test",
        success="published is: the last 2,000 training sequences right (every output's error at the end below 0.3) "
        "and a mean training error below 0.1, which took the paper's LSTM 31,390 sequences at hard, the mean of 20 "
        "trials; solved here: the same of 2,000 fresh sequences",
    )
    success: ClassVar[Success] = Success(2000, 1.0, 0.1)
    levels: ClassVar[dict[str, Level]] = {
        "easy": Level((7, 9), ((1, 3), (4, 6))),
        "normal": Level((30, 41), ((2, 6), (20, 28))),
        "moderate": Level((60, 81), ((10, 21), (45, 55))),
        "hard": Level((100, 111), ((10, 21), (50, 61))),
        "nightmare": Level((300, 501), ((10, 81), (250, 291))),
    }
    lengths: ClassVar[tuple[str, ...]] = tuple(levels)
    symbols: ClassVar[tuple[str, ...]] = ("a", "b", "c", "d", "X", "Y", "B", "E")
    classes: ClassVar[tuple[str, ...]] = ("Q", "R", "S", "U")
    tolerance: ClassVar[float | None] = 0.3

    def __init__(self, length: str | int | None = None) -> None:
        super().__init__(length)
        if self.length not in self.levels:
            raise OptionError(
                f"--length: expected one of {', '.join(self.levels)} for {self.name}, found {self.length!r}"
            )
        self.level = self.levels[self.length]

    def draw(self, rng: np.random.Generator, count: int, part: str) -> Sequences:
        """B, noise with the marks in it, E."""
        steps, rows = self.level.steps[1] - 1, np.arange(count)
        lengths = rng.integers(*self.level.steps, size=count)
        inputs = rng.integers(_NOISE, size=(count, steps), dtype=np.int8)
        inputs[:, 0] = _BEGIN
        order = np.zeros(count, np.int64)
        for first, last in self.level.places:
            place, mark = rng.integers(first, last, size=count), rng.integers(2, size=count)
            inputs[rows, place] = _MARKS + mark
            order = 2 * order + mark
        inputs[rows, lengths - 1] = _END
        inputs[np.arange(steps) >= lengths[:, None]] = PADDED
        return Sequences(inputs, at_end(order, lengths, steps), last_step(lengths, steps), lengths)


class TemporalOrder3(TemporalOrder):
    """Three marks, eight orders."""

    name: ClassVar[str] = "temporal-order-3"
    summary: ClassVar[str] = "three marks X or Y far apart among noise: which of eight orders"
    published: ClassVar[Published] = Published(
        source="Hochreiter & Schmidhuber 1997, experiment 6b (section 5.6); with B and E as in 6a here",
        lengths="hard 100-110 steps, marks at 10-20, 33-43 and 66-76",
        data="new sequences throughout; 2,560 to test",
        success="published is: the last 2,000 training sequences right (every output's error at the end below 0.3) "
        "and a mean training error below 0.1, which took the paper's LSTM 571,100 sequences, the mean of 10 trials; "
        "solved here: the same of 2,000 fresh sequences",
    )
    levels: ClassVar[dict[str, Level]] = {
        "hard": Level((100, 111), ((10, 21), (33, 44), (66, 77))),
    }
    lengths: ClassVar[tuple[str, ...]] = tuple(levels)
    classes: ClassVar[tuple[str, ...]] = tuple(
        "".join(marks) for marks in itertools.product("XY", repeat=3)
    )
