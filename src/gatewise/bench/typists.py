"""People who write, as a load: who presses a key when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

KEYS = 5.0
"""A second, of one writer."""
_SHAPE = 4.0  # of the gamma distribution of the times between keys: a spread of half their mean


@dataclass(frozen=True)
class Load:
    """How people write: each has a document, and presses five keys a second, now faster, now slower.

    Args:
        characters: that a document has before anything is typed.
        rate: keys a second, of all together.
        seconds: how long.
        seed: of who types when.
    """

    characters: int
    rate: float
    seconds: float
    seed: int = 1

    @property
    def writers(self) -> int:
        """How many there are."""
        return max(1, round(self.rate / KEYS))

    def keys(self) -> tuple[Any, Any]:
        """(N,) seconds at which keys are due, ascending, and (N,) whose they are."""
        draw = np.random.default_rng(self.seed)
        each = self.rate / self.writers
        count = int(2 * each * self.seconds) + 8
        gaps = draw.gamma(_SHAPE, 1 / (_SHAPE * each), (self.writers, count))
        due = draw.random((self.writers, 1)) / each + np.cumsum(gaps, axis=1) - gaps[:, :1]
        who = np.broadcast_to(np.arange(self.writers)[:, None], due.shape)
        kept = due < self.seconds
        order = np.argsort(due[kept], kind="stable")
        return due[kept][order], who[kept][order]
