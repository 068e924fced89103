"""Copy: ten symbols, a long pause, the ten symbols again (Hochreiter & Schmidhuber 1997; Arjovsky et al. 2016)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gatewise.tasks.memory.base import MemoryTask, Published, Sequences, Success, whole

_SYMBOLS, _BLANK, _GO, _COPIED = 8, 8, 9, 10


class Copy(MemoryTask):
    """Ten of eight symbols; T - 1 blanks, a signal, ten blanks more: in these the symbols are to be said."""

    name: ClassVar[str] = "copy"
    summary: ClassVar[str] = "ten symbols, T blanks, then the same ten symbols"
    published: ClassVar[Published] = Published(
        source="Arjovsky, Shah & Bengio 2016 (arXiv 1511.06464), section 4.1",
        lengths="T + 20 steps; T = 100, 200, 300, 500 (and 50 here)",
        data="new sequences throughout here; every step counts in the cost",
        success="published is the cost beside 10 ln 8 / (T + 20) nats a step, that of no memory; solved here: "
        "all steps right in 99 % of 2,000 fresh sequences",
    )
    success: ClassVar[Success] = Success(2000, 0.99)
    lengths: ClassVar[tuple[str, ...]] = ("100", "50", "200", "300", "500")
    symbols: ClassVar[tuple[str, ...]] = (*"abcdefgh", "-", ":")
    classes: ClassVar[tuple[str, ...]] = (*"abcdefgh", "-")

    def __init__(self, length: str | int | None = None) -> None:
        super().__init__(length)
        self.steps = whole(self.length, 1)

    def draw(self, rng: np.random.Generator, count: int, part: str) -> Sequences:
        """Symbols, blanks, the signal ':', blanks."""
        steps = self.steps + 2 * _COPIED
        inputs = np.full((count, steps), _BLANK, np.int8)
        inputs[:, :_COPIED] = rng.integers(_SYMBOLS, size=(count, _COPIED))
        inputs[:, _COPIED + self.steps - 1] = _GO
        targets = np.full((count, steps), _BLANK, np.int64)
        targets[:, -_COPIED:] = inputs[:, :_COPIED]
        mask = np.ones((count, steps), bool)
        return Sequences(inputs, targets, mask, np.full(count, steps))
