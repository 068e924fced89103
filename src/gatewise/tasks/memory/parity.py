"""Parity: whether the number of ones is odd (the oldest of tasks that ask for a state and not for a store)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gatewise.tasks.memory.base import (
    PADDED,
    Array,
    MemoryTask,
    Published,
    Sequences,
    Success,
    at_end,
    last_step,
    whole,
)

_SOURCE = "Delétang et al. 2023 (arXiv 2207.02098)"
_LONGER = 12.5  # the paper's 500 / 40


class _Tracking(MemoryTask):
    """A final state after moves; tested on sequences that are longer than all in training."""

    lengths: ClassVar[tuple[str, ...]] = ("40",)
    success: ClassVar[Success] = Success(2000, 0.9, training=0.999)

    def __init__(self, length: str | int | None = None) -> None:
        super().__init__(length)
        self.steps = whole(self.length, 4, 8000)

    def draw(self, rng: np.random.Generator, count: int, part: str) -> Sequences:
        """Moves of any number up to the length; to test more, up to 12.5 times as many."""
        test = part == "test"
        least, most = (self.steps + 1, int(_LONGER * self.steps)) if test else (1, self.steps)
        lengths = rng.integers(least, most + 1, size=count)
        inputs = rng.integers(len(self.symbols), size=(count, most), dtype=np.int8)
        inputs[np.arange(most) >= lengths[:, None]] = PADDED
        targets = at_end(self.final(inputs), lengths, most)
        return Sequences(inputs, targets, last_step(lengths, most), lengths)

    def final(self, inputs: Array) -> Array:
        """The class of each row, (N,)."""
        raise NotImplementedError


class Parity(_Tracking):
    """Bits; at the end, whether the number of ones is odd."""

    name: ClassVar[str] = "parity"
    summary: ClassVar[str] = "bits: is the number of ones odd, in longer sequences too"
    published: ClassVar[Published] = Published(
        source=f"{_SOURCE}, parity check",
        lengths="up to 40 steps in training, 41 to 500 in the test",
        data="new sequences throughout",
        success="90 % right, on average over the test's lengths",
    )
    symbols: ClassVar[tuple[str, ...]] = ("0", "1")
    classes: ClassVar[tuple[str, ...]] = ("even", "odd")

    def final(self, inputs: Array) -> Array:
        """The number of ones, modulo 2."""
        odd: Array = (inputs == 1).sum(1) % 2
        return odd


class Cycle(_Tracking):
    """Steps on a ring of five places; at the end, where one stands."""

    name: ClassVar[str] = "cycle"
    summary: ClassVar[str] = "steps back, none or on around a ring of five: where does it end"
    published: ClassVar[Published] = Published(
        source=f"{_SOURCE}, cycle navigation",
        lengths="up to 40 steps in training, 41 to 500 in the test",
        data="new sequences throughout",
        success="90 % right, on average over the test's lengths",
    )
    symbols: ClassVar[tuple[str, ...]] = ("=", ">", "<")
    classes: ClassVar[tuple[str, ...]] = tuple("01234")

    def final(self, inputs: Array) -> Array:
        """Steps on less steps back, modulo 5."""
        place: Array = ((inputs == 1).sum(1) - (inputs == 2).sum(1)) % 5
        return place
