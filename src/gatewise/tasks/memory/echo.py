"""Echo: random bits, to be said again three steps later, for ever: the state goes from batch to batch."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gatewise.tasks.memory.base import (
    MemoryBatch,
    MemoryTask,
    Published,
    Sequences,
    Success,
    check_numbers,
    whole,
)
from gatewise.tasks.programs import stream

DELAY = 3


class Echo(MemoryTask):
    """Endless rows of bits, T at a time.

    The rows of the parts come from three streams of random numbers: rows without an end share windows of
    a few bits by necessity, and long ones by an accident that does not happen (two of 64 bits are the same
    once in 2^64).
    """

    name: ClassVar[str] = "echo"
    summary: ClassVar[str] = "random bits: each again three steps later, the state carried"
    published: ClassVar[Published] = Published(
        source="signal echo, an exercise of courses on recurrent nets",
        lengths="rows without an end, T steps a batch; the delay is 3",
        data="new bits throughout, the state carried from batch to batch",
        success="solved here: all bits right in 99.5 % of 2,000 pieces of T steps",
    )
    success: ClassVar[Success] = Success(2000, 0.995)
    lengths: ClassVar[tuple[str, ...]] = ("20",)
    symbols: ClassVar[tuple[str, ...]] = ("0", "1")
    classes: ClassVar[tuple[str, ...]] = ("0", "1")
    carried: ClassVar[bool] = True

    def __init__(self, length: str | int | None = None) -> None:
        super().__init__(length)
        self.steps = whole(self.length, DELAY)

    def draw(self, rng: np.random.Generator, count: int, part: str) -> Sequences:
        """T bits of each row, at its beginning."""
        bits = rng.integers(2, size=(count, self.steps), dtype=np.int8)
        return self._echoed(bits, None)

    def batch(self, part: str, index: int, size: int, *, seed: int = 1) -> MemoryBatch:
        """Steps T * index to T * (index + 1) of `size` rows; arguments as ever."""
        check_numbers(index, size, seed)
        shape = (size, self.steps)
        before, bits = (
            stream(seed, k, part).integers(2, size=shape, dtype=np.int8) if k >= 0 else None
            for k in (index - 1, index)
        )
        assert bits is not None
        return self._tensors(self._echoed(bits, before))

    def _echoed(self, bits: np.ndarray, before: np.ndarray | None) -> Sequences:
        """With what was said before; at the very beginning three steps do not count."""
        count, steps = bits.shape
        past = np.zeros((count, DELAY), np.int8) if before is None else before[:, -DELAY:]
        targets = np.concatenate((past, bits), 1)[:, :steps].astype(np.int64)
        mask = np.ones((count, steps), bool)
        mask[:, :DELAY] = before is not None
        return Sequences(bits, targets, mask, np.full(count, steps))
