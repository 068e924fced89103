"""Adding: the sum of two marked numbers among many (Hochreiter & Schmidhuber 1997, and as it is used since)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gatewise.tasks.memory.base import (
    MemoryTask,
    Published,
    Sequences,
    Success,
    last_step,
    whole,
)


class Adding(MemoryTask):
    """Numbers of [0, 1), one marked in either half; their sum at the end."""

    name: ClassVar[str] = "adding"
    summary: ClassVar[str] = "two marked numbers of [0, 1), one in either half: their sum"
    published: ClassVar[Published] = Published(
        source="Le, Jaitly & Hinton 2015 (arXiv 1504.00941) and Arjovsky, Shah & Bengio 2016 (arXiv 1511.06464)",
        lengths="T steps; 100, 200, 400, 750",
        data="new sequences throughout here, not a fixed set",
        success="published is the mean squared error beside 1/6, that of always answering 1; solved here: "
        "absolute error below 0.04 (the bound of 1997) in 99.5 % of 2,000 fresh sequences",
    )
    success: ClassVar[Success] = Success(2000, 0.995)
    lengths: ClassVar[tuple[str, ...]] = ("100", "200", "400", "750")
    symbols: ClassVar[tuple[str, ...]] = ("value", "mark")
    tolerance: ClassVar[float | None] = 0.04
    numeric: ClassVar[bool] = True

    def __init__(self, length: str | int | None = None) -> None:
        super().__init__(length)
        self.steps = whole(self.length, 2)

    def draw(self, rng: np.random.Generator, count: int, part: str) -> Sequences:
        """Values and marks; the sum at the last step."""
        steps, rows, half = self.steps, np.arange(count), self.steps // 2
        inputs = np.zeros((count, steps, 2), np.float32)
        inputs[..., 0] = rng.random((count, steps), np.float32)
        total = np.zeros(count, np.float32)
        for first, last in ((0, half), (half, steps)):
            place = rng.integers(first, last, size=count)
            inputs[rows, place, 1] = 1
            total += inputs[rows, place, 0]
        return _summed(inputs, total, np.full(count, steps))


class Adding1997(MemoryTask):
    """Numbers of [-1, 1], two marked in the first half; their sum, scaled to [0, 1], at the end."""

    name: ClassVar[str] = "adding-1997"
    summary: ClassVar[str] = "two marked numbers of [-1, 1] in the first half: their scaled sum"
    published: ClassVar[Published] = Published(
        source="Hochreiter & Schmidhuber 1997, experiment 4 (section 5.4)",
        lengths="T to T + T/10 steps; 100, 500, 1000",
        data="new sequences throughout; 2,560 to test",
        success="published is: the last 2,000 training sequences right (absolute error below 0.04) and a mean "
        "training error below 0.01, which took the paper's LSTM 74,000 sequences at 100, the mean of 10 trials; solved "
        "here: the same of 2,000 fresh sequences",
    )
    success: ClassVar[Success] = Success(2000, 1.0, 0.01)
    lengths: ClassVar[tuple[str, ...]] = ("100", "500", "1000")
    symbols: ClassVar[tuple[str, ...]] = ("value", "mark")
    tolerance: ClassVar[float | None] = 0.04
    numeric: ClassVar[bool] = True

    def __init__(self, length: str | int | None = None) -> None:
        super().__init__(length)
        self.steps = whole(self.length, 24)  # T / 2 - 1 places must hold the first ten, and another

    def draw(self, rng: np.random.Generator, count: int, part: str) -> Sequences:
        """The first mark among the first ten pairs, the second among the first T/2 - 1 still unmarked."""
        rows, most = np.arange(count), self.steps + self.steps // 10
        lengths = rng.integers(self.steps, most + 1, size=count)
        inputs = np.zeros((count, most, 2), np.float32)
        inputs[..., 0] = rng.random((count, most), np.float32) * 2 - 1
        inputs[np.arange(most) >= lengths[:, None]] = 0
        inputs[rows, 0, 1] = inputs[rows, lengths - 1, 1] = -1
        one = rng.integers(10, size=count)
        other = rng.integers(self.steps // 2 - 1, size=count)
        other += other >= one  # still unmarked
        total = np.zeros(count, np.float32)
        for place in (one, other):
            inputs[rows, place, 1] = 1
            total += np.where(place == 0, 0, inputs[rows, place, 0])
        inputs[rows, 0, 0] = np.where(inputs[rows, 0, 1] == 1, 0, inputs[rows, 0, 0])
        return _summed(inputs, 0.5 + total / 4, lengths)


def _summed(inputs: np.ndarray, totals: np.ndarray, lengths: np.ndarray) -> Sequences:
    mask = last_step(lengths, inputs.shape[1])
    targets = np.where(mask, totals[:, None], 0).astype(np.float32)
    return Sequences(inputs, targets[..., None], mask, lengths)
