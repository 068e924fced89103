"""How many threads a call takes: as many as have lately been the quicker.

Threads that meet several times a token pay dearly where something else runs on one of the processors: a wait of
microseconds becomes one of milliseconds. What a step takes is measured anyway, so the number of threads follows
from it; the results do not depend on it.
"""

from __future__ import annotations

_AGAIN, _LATEST = 32, 1024
"""Calls after which the slower number of threads is tried again; twice as many after each vain try, up to."""

_TRIED = 4
"""Steps of a call that tries."""

_SPAN, _MOST_STEPS = 5e-4, 64
"""Seconds that a call of many steps should take, and its most steps: long beside what a call costs, and no longer
in a trouble than need be."""


class Pace:
    """The measured speed of one packed net at one width of the batch.

    Args:
        most: threads at most.
        fixed: so many threads, whatever is measured.
    """

    def __init__(self, most: int, fixed: bool) -> None:
        self._choices = (most,) if fixed or most < 2 else (most, 1)
        self._seconds: dict[int, float] = {}
        self._wait, self._left = _AGAIN, _AGAIN

    def next(self) -> tuple[int, int]:
        """Threads for the next call, and its most steps."""
        for choice in self._choices:
            if choice not in self._seconds:
                return choice, _TRIED
        best = min(self._choices, key=lambda c: self._seconds[c])
        if len(self._choices) > 1:
            self._left -= 1
            if self._left < 0:
                self._wait = min(_LATEST, 2 * self._wait)
                self._left = self._wait
                return next(c for c in self._choices if c != best), _TRIED
        return best, max(_TRIED, min(_MOST_STEPS, int(_SPAN / max(self._seconds[best], 1e-9))))

    def note(self, workers: int, steps: int, seconds: float) -> None:
        """A call of so many steps took so long."""
        before = dict(self._seconds)
        each, known = seconds / steps, before.get(workers)
        # a quicker call counts at once: the first ones wake threads and fill caches
        self._seconds[workers] = each if known is None or each < known else (each + known) / 2
        if len(before) == 2 and min(before, key=before.__getitem__) != min(
            self._seconds, key=self._seconds.__getitem__
        ):
            self._wait = self._left = _AGAIN
