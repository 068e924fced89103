"""How many threads a call takes: as many as have lately been the quicker.

Threads that meet several times a token pay dearly where something else runs on one of the processors: a wait of
microseconds becomes one of milliseconds. What a step takes is measured anyway, so the number of threads follows
from it; the results do not depend on it. One thread is tried where more have become slower than they were, more
are tried again after a while; a call after a pause does not count, since it wakes threads that had gone to sleep
(3 ms were seen).
"""

from __future__ import annotations

_AGAIN, _LATEST = 0.02, 2.0
"""Seconds on one thread after which more are tried again; twice as many after each vain try, up to."""

_TRIED, _TRIAL = 4, 8e-3
"""Steps of a call that tries; and seconds for which more threads are tried: after they were woken they are slow for
some milliseconds, as if they shared a processor until the system parts them."""

_SPAN, _MOST_STEPS = 5e-4, 64
"""Seconds that a call of many steps should take, and its most steps: long beside what a call costs, and no longer
in a trouble than need be."""

_SLOWER = 1.6
"""How many times slower than at their best many threads must be for one to be tried."""

_PAUSE = 1e-3
"""Seconds without a call after which threads may sleep."""

_REST = 1e-2
"""Seconds without a call after which what disturbed may be over: more threads are tried again at once, where calls have
lasted for `_AGAIN` since they were tried (a stream of single steps pauses before each of them)."""


class Pace:
    """The measured speed of one packed net at one width of the batch.

    Args:
        most: threads at most.
        fixed: so many threads, whatever is measured.
    """

    def __init__(self, most: int, fixed: bool) -> None:
        self._most, self._fixed = most, fixed or most < 2
        self._seconds: dict[int, float] = {}
        self._least = float("inf")
        self._wait, self._due = _AGAIN, 0.0
        self._ended, self._busy = float("-inf"), 0.0
        self._trying, self._until = most, float("inf")

    def next(self) -> tuple[int, int]:
        """Threads for the next call, and its most steps."""
        if self._fixed:
            return self._most, self._steps(self._most)
        if not self._trying:
            self._consider()
        if self._trying:
            return self._trying, _TRIED
        best = self._best()
        return best, self._steps(best)

    def _best(self) -> int:
        return min(self._seconds, key=self._seconds.__getitem__)

    def _steps(self, workers: int) -> int:
        each = max(self._seconds.get(workers, 1.0), 1e-9)
        return max(_TRIED, min(_MOST_STEPS, int(_SPAN / each)))

    def _consider(self) -> None:
        """Begin a trial where one is due."""
        most = self._most
        if self._best() == most:
            self._wait, self._due = _AGAIN, 0.0
            if self._seconds[most] > _SLOWER * self._least:
                self._try(1)
                self._least = self._seconds[most]
        elif not self._due:  # they have just become the slower
            self._due = self._ended + self._wait
        elif self._ended > self._due:
            self._try(most)

    def _try(self, workers: int) -> None:
        self._trying, self._until = workers, float("inf")
        self._busy = 0.0

    def note(self, workers: int, steps: int, start: float, end: float) -> None:
        """A call of so many steps lasted from `start` to `end`, in seconds of one clock."""
        each, known = (end - start) / steps, self._seconds.get(workers)
        paused = start - self._ended
        woken = workers > 1 and paused > _PAUSE
        self._ended = end
        self._busy += end - start
        if self._due and paused > _REST and self._busy > _AGAIN:
            self._wait, self._due, self._busy = _AGAIN, start, 0.0
        if workers == self._trying:
            self._seconds[workers] = each
            self._tried(workers, each, start, end)
        elif known is None or each < known:  # a quicker call counts at once
            self._seconds[workers] = each
        elif not woken:
            self._seconds[workers] = (each + known) / 2
        if workers == self._most:
            self._least = min(each, self._least)

    def _tried(self, workers: int, each: float, start: float, end: float) -> None:
        """End the trial, where enough is known."""
        if workers == 1:
            self._trying, self._due = 0, end + self._wait
            return
        if self._until == float("inf"):
            self._until = start + _TRIAL
        alone = self._seconds.get(1)
        if (alone is not None and each < alone) or end >= self._until:
            self._try(1) if alone is None else self._try(0)
            self._due = end + self._wait
            self._wait = min(_LATEST, 2 * self._wait)
