"""Speed and time: how long a run has trained, how fast, how long it will take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

SMOOTHING = 5.0  # seconds over which the recent speed is averaged


class Meter:
    """The clock of one run; what it says never reaches the results.

    Args:
        before: seconds that earlier parts of the run took.
    """

    def __init__(self, before: float = 0.0) -> None:
        self._before = before
        self._start = time.perf_counter()
        self._idle = 0.0
        self._tokens = 0
        self._marked = (0.0, 0)
        self._recent = 0.0

    @property
    def seconds(self) -> float:
        """Since the run's start, evaluations and saving included."""
        return self._before + self.here

    @property
    def here(self) -> float:
        """Seconds since this process took up the run."""
        return time.perf_counter() - self._start

    @property
    def training(self) -> float:
        """Seconds of training steps in this process."""
        return self.here - self._idle

    @property
    def tokens_per_second(self) -> float:
        """Mean speed of the training steps in this process."""
        return self._tokens / max(self.training, 1e-9)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time in here is no training."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._idle += time.perf_counter() - begun

    def count(self, tokens: int) -> None:
        """A step is done."""
        self._tokens += tokens

    def recent(self) -> float:
        """Tokens per second, lately."""
        seconds, tokens = self._marked
        span = self.training - seconds
        if span > 0.05:
            speed = (self._tokens - tokens) / span
            weight = min(1.0, span / SMOOTHING) if self._recent else 1.0
            self._recent += weight * (speed - self._recent)
            self._marked = (self.training, self._tokens)
        return self._recent

    def left(self, share: float, share_before: float) -> float:
        """Seconds left, when `share` is done and `share_before` was done by earlier parts."""
        done = share - share_before
        return self.here / done * (1 - share) if done > 0 else float("nan")
