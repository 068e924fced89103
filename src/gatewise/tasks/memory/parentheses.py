"""Parentheses: how deep each place of a balanced text is (a counter, as a state)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gatewise.errors import OptionError
from gatewise.tasks.memory.base import PADDED, MemoryTask, Published, Sequences, Success, whole

DEEPEST = 10


class Parentheses(MemoryTask):
    """A balanced text of '(' and ')'; after each, how many are open."""

    name: ClassVar[str] = "parentheses"
    summary: ClassVar[str] = "balanced brackets: how many are open, at every step"
    published: ClassVar[Published] = Published(
        source="lengths and the rule of success of Suzgun et al. 2019 (arXiv 1906.03648), Dyck-1; no deeper than "
        "10, so that depths are classes (the paper asks which bracket may follow), both brackets equally "
        "likely where both fit",
        lengths="2 to 50 steps in training, 52 to 100 in the test",
        data="new sequences throughout here",
        success="a sequence is right if every step is; solved here: 99 % of 2,000 longer sequences",
    )
    success: ClassVar[Success] = Success(2000, 0.99, training=0.999)
    lengths: ClassVar[tuple[str, ...]] = ("50",)
    symbols: ClassVar[tuple[str, ...]] = ("(", ")")
    classes: ClassVar[tuple[str, ...]] = tuple(map(str, range(DEEPEST + 1)))

    def __init__(self, length: str | int | None = None) -> None:
        super().__init__(length)
        self.steps = whole(self.length, 8, 20_000)
        if self.steps % 2:
            raise OptionError(f"--length: expected an even number for {self.name}, found {length}")

    def draw(self, rng: np.random.Generator, count: int, part: str) -> Sequences:
        """Up to the length; to test more, up to twice as long."""
        least, most = (self.steps + 2, 2 * self.steps) if part == "test" else (2, self.steps)
        lengths = 2 * rng.integers(least // 2, most // 2 + 1, size=count)
        coins = rng.integers(2, size=(count, most), dtype=np.int8)
        inputs = np.full((count, most), PADDED, np.int8)
        depths = np.zeros((count, most), np.int64)
        depth = np.zeros(count, np.int64)
        for t in range(most):
            inside = t < lengths
            must_close = (depth == lengths - t) | (depth == DEEPEST)
            closes = np.where(depth == 0, 0, np.where(must_close, 1, coins[:, t]))
            depth = np.where(inside, depth + 1 - 2 * closes, depth)
            inputs[inside, t], depths[:, t] = closes[inside], depth
        mask = np.arange(most) < lengths[:, None]
        return Sequences(inputs, depths, mask, lengths)
