"""Texts that are not yet read: which of them goes on, and how far, between two steps of those that are written.

What lacks a few tokens, a keystroke mostly, does not wait for long texts; of those the one asked last goes first,
unless one has waited too long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from gatewise.complete.cache import thin
from gatewise.complete.columns import COLUMNS, Columns
from gatewise.complete.jobs import Counts, Job

READ = 128
"""Tokens that are read between two steps of the others."""
ALONE = 1024
"""The same where nobody else has anything to do."""
PATIENCE = 0.1
"""Seconds after which what waits goes before what came last."""
_KEEP = 256
"""Tokens between states that are kept while a long text is read."""
_HELD = 128
"""States of one text that is being read: more are thinned out."""
_SHORT = 32
"""Tokens up to which a text need not wait for longer ones."""
_LOOKING = 0.002
"""Seconds of looking up texts, between two steps."""


class Reader:
    """The texts.

    Args:
        columns: the model.
        counts: where tokens are counted.
        look_up: finds out what is known of a job's text: `known` and `state`.
        through: takes a job whose text is read away.
        guarded: does something for one job, so that a failure ends that job alone.

    Attributes:
        jobs: what is to be read, in the order in which it came.
    """

    def __init__(
        self,
        columns: Columns,
        counts: Counts,
        look_up: Callable[[Job], None],
        through: Callable[[Job], None],
        guarded: Callable[[Job, Callable[[Job], None]], None],
    ) -> None:
        self._columns, self._counts = columns, counts
        self._look_up, self._through, self._guarded = look_up, through, guarded
        self.jobs: list[Job] = []

    def turn(self, budget: int, awaited: Callable[[], bool]) -> None:
        """Read some.

        Args:
            budget: tokens, about.
            awaited: whether somebody new waits: then no further piece is begun.
        """
        self._look_up_some()
        self._together()
        for job in [job for job in self._known() if not job.left]:
            self._guarded(job, self._through)
        left = self._some(budget // 2, lambda: [job for job in self._known() if job.left <= _SHORT])
        self._some(budget - budget // 2 + left, self._known, awaited)

    def _known(self) -> list[Job]:
        return [job for job in self.jobs if job.known is not None]

    def _look_up_some(self) -> None:
        """A long text takes its time only to be cut into tokens."""
        end = time.monotonic() + _LOOKING
        while (job := _next([job for job in self.jobs if job.known is None])) is not None:
            self._guarded(job, self._look_up)
            if time.monotonic() > end:
                return

    def _together(self) -> None:
        """One token for each of those that lack no more."""
        short = [job for job in self._known() if job.left == 1][:COLUMNS]
        if not short:
            return
        states = [job.state for job in short if job.state is not None]
        tokens = [int(job.known.ids[job.done]) for job in short if job.known is not None]
        places = [job.known.position + job.done for job in short if job.known is not None]
        after = self._columns.step(states, tokens, places).unbind()
        for job, state in zip(short, after, strict=True):
            # a row of its own: the others are not to be kept for it
            self._note(job, state.clone(), 1)

    def _some(
        self,
        budget: int,
        among: Callable[[], Sequence[Job]],
        awaited: Callable[[], bool] = lambda: False,
    ) -> int:
        """Pieces of some of the texts; what is left of the budget."""
        while budget > 0 and (job := _next(among())) is not None:
            size = min(job.left, budget, _KEEP)
            budget -= size
            self._guarded(job, partial(self._read_on, size=size))
            if awaited():
                return 0
        return budget

    def _read_on(self, job: Job, size: int) -> None:
        """A piece of a text."""
        assert job.known is not None
        assert job.state is not None
        ids = job.known.ids[job.done : job.done + size]
        state = self._columns.feed(job.state, ids, job.known.position + job.done)
        self._note(job, state, size)
        if not job.left:
            self._through(job)

    def _note(self, job: Job, state: Tensor, size: int) -> None:
        assert job.known is not None
        job.state = state
        job.done += size
        place = job.known.position + job.done
        job.states[place] = state
        if len(job.states) > _HELD:
            thin(job.states, place)
        self._counts.read += size


def _next(jobs: Sequence[Job]) -> Job | None:
    """What was asked last, unless something waits too long."""
    if not jobs:
        return None
    oldest = min(jobs, key=lambda job: job.ticket.born)
    if time.monotonic() - oldest.ticket.born > PATIENCE:
        return oldest
    return max(jobs, key=lambda job: job.ticket.born)
