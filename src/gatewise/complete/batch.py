"""Many requests together, one step after the other: they join and leave between steps.

One thread runs the model. In each turn it reads a piece of one text that is not yet read, and takes a few steps with
all samples that are being written. What is drawn for a sample follows from its text, seed and number alone: the step
engine fixes its order of summation, so an answer is the same, bit for bit, whatever else is in the batch.
"""

from __future__ import annotations

import itertools
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from gatewise.complete.cache import MOST_BYTES, StateCache
from gatewise.complete.columns import COLUMNS, PIECE, Columns, Drawn
from gatewise.complete.completer import notes_of
from gatewise.complete.jobs import Counts, Job, Sample
from gatewise.complete.ranking import ranking
from gatewise.complete.reading import ALONE, PATIENCE, READ, Reader
from gatewise.complete.requests import (
    CANCELLED,
    DEADLINE,
    DONE,
    Answer,
    BusyError,
    Piece,
    Request,
    Ticket,
)
from gatewise.complete.scoring import scoring
from gatewise.errors import GatewiseError
from gatewise.generate import SamplingOptions, first_input
from gatewise.generate.choose import check_ids, mix, offsets
from gatewise.generate.endings import Writer
from gatewise.probe import Control
from gatewise.step.drawing import Drawing
from gatewise.step.generation import StepLanguageModel
from gatewise.text.base import Tokenizer

WAITING = 256
"""Requests that may wait or be in work; more are refused."""
_STEPS = 8
"""Steps of a call at most: so long those wait who come meanwhile."""
_BLOCK = 768
"""Tokens of a call at most, about, for the same reason."""


class Batcher:
    """Answers requests for one model, many at a time.

    Args:
        model: packed for the step engine.
        tokenizer: the model's.
        control: acts on all requests; times count from the beginning of each text.
        cache_bytes: what known texts and states may take.
        waiting: requests that may be on their way at once.

    Attributes:
        counts: what it has done.
        cache: of states.
    """

    def __init__(
        self,
        model: StepLanguageModel,
        tokenizer: Tokenizer,
        *,
        control: Control | None = None,
        cache_bytes: int = MOST_BYTES,
        waiting: int = WAITING,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.cache, self.counts = StateCache(tokenizer, cache_bytes), Counts()
        self._columns, self._waiting = Columns(model, control), waiting
        self._reader = Reader(
            self._columns, self.counts, self._look_up, self._read_through, self._guarded
        )
        self._reading = self._reader.jobs
        self._unknown = () if tokenizer.unknown_id is None else (tokenizer.unknown_id,)
        self._offsets: dict[object, Tensor | None] = {}
        self._new: deque[Ticket] = deque()
        self._ready: list[Job] = []
        self._writing: list[Job] = []
        self._closing_up: list[Job] = []
        self._wake = threading.Condition()
        self._closing = self._abandoned = False
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._work, name="gatewise-batcher", daemon=True)
        self._thread.start()

    # --- from other threads ----------------------------------------------------------------------

    def submit(
        self,
        request: Request,
        on_piece: Piece | None = None,
        on_end: Callable[[Answer], None] | None = None,
    ) -> Ticket:
        """Begin to answer a request.

        Args:
            request: what is asked.
            on_piece: called with the number of a sample and a piece of its text, as soon as it is definite.
            on_end: called with the answer. Both are called by the model's thread, and must be quick.

        Raises:
            BusyError: as many requests as may be are on their way.
            GatewiseError: the batcher is closed, or its thread was left behind by a fork.
        """
        if os.getpid() != self._process:
            raise GatewiseError(
                "the batcher stayed in the process that was forked: open the run again in this one"
            )
        ticket = Ticket(request, on_piece, on_end)
        with self._wake:
            if self._closing:
                raise GatewiseError("the batcher is closed: open the run again")
            if self.load >= self._waiting:
                self.counts.refused += 1
                raise BusyError(f"{self._waiting} requests are on their way: try again soon")
            self._new.append(ticket)
            self.counts.requests += 1
            self._wake.notify()
        return ticket

    @property
    def _jobs(self) -> tuple[list[Job], ...]:
        return self._reading, self._ready, self._writing, self._closing_up

    @property
    def load(self) -> int:
        """Requests on their way."""
        return len(self._new) + sum(len(jobs) for jobs in self._jobs)

    def close(self, timeout: float | None = 5.0) -> None:
        """Answer what is on its way, for at most so many seconds, and end."""
        if os.getpid() != self._process:
            return
        with self._wake:
            self._closing = True
            self._wake.notify()
        if threading.current_thread() is self._thread:  # in a call of `on_end`: it ends by itself
            return
        self._thread.join(timeout)
        self._abandoned = True  # what is left is answered with what there is
        self._thread.join(timeout)

    # --- the model's thread ----------------------------------------------------------------------

    def _work(self) -> None:
        try:
            with torch.inference_mode():
                while self._gather():
                    try:
                        self._turn()
                    except Exception as error:  # who comes next may still be answered
                        self._fail(error)
        finally:  # whatever ended it: who waits is told
            with self._wake:
                self._closing = True
                self._reading += [self._taken_up(ticket) for ticket in self._new]
                self._new.clear()
            self._fail(GatewiseError("the batcher has ended: open the run again"))

    def _fail(self, error: Exception) -> None:
        """Answer all with an error."""
        for job in [job for jobs in self._jobs for job in jobs]:
            self._finish(job, DONE, error)

    def _gather(self) -> bool:
        """Take up new requests; wait where there is nothing to do. False at the end."""
        with self._wake:
            while not (self._new or any(self._jobs)):
                if self._closing:
                    return False
                self._wake.wait()
            taken = list(self._new)
            self._new.clear()
            # still under the lock: a ticket is always in one of the lists that `load` counts
            jobs = [self._taken_up(ticket) for ticket in taken]
            self._reading += jobs
        return True

    def _taken_up(self, ticket: Ticket) -> Job:
        options = ticket.request.options
        seed = secrets.randbits(32) if options.seed is None else options.seed
        job = Job(ticket, options, seed)
        job.times.append(time.monotonic())
        return job

    def _turn(self) -> None:
        self._drop_ended()
        if self._reading:
            busy = self._ready or self._writing or self._closing_up
            self._reader.turn(READ if busy else ALONE, lambda: bool(self._new))
        self._begin_ready()
        if self._writing:
            self._write_on()
        self._close_on()

    def _guarded(self, job: Job, act: Callable[[Job], None]) -> None:
        """Let one request's failure end that request alone."""
        try:
            act(job)
        except Exception as error:
            self._finish(job, DONE, error)

    def _drop_ended(self) -> None:
        """End what was cancelled, or is past its deadline."""
        now = time.monotonic()
        for job in [job for jobs in self._jobs for job in jobs]:
            if not (job.ticket.cancelled or self._abandoned or now >= job.deadline):
                continue
            if job in self._reading:
                self._keep(job)  # who asks again for a long text goes on from there
            if job.ticket.cancelled or self._abandoned:
                self.counts.cancelled += 1
                self._finish(job, CANCELLED)
            else:
                self._finish(job, DEADLINE)

    # --- reading ---------------------------------------------------------------------------------

    def _look_up(self, job: Job) -> None:
        request = job.ticket.request
        begin = self.tokenizer.cut(request.prefix[: max(0, len(request.prefix) - _NOTED)])
        job.notes = tuple(notes_of(self.tokenizer, request.prefix[begin:]))
        known = self.cache.find(request.prefix)
        if not known.total:
            ids = first_input(self.model, self.tokenizer, self._allowed(job))
            known = replace(known, ids=ids, total=len(ids), last=ids)
        job.known = known
        job.state = self._columns.start if known.state is None else known.state
        self.counts.known += known.position

    # --- writing ---------------------------------------------------------------------------------

    def _read_through(self, job: Job) -> None:
        """Keep what was read; what nothing is to be written for is answered."""
        self._reading.remove(job)
        self._keep(job)
        job.times.append(time.monotonic())
        if job.options.max_tokens:
            job.since = job.times[-1]
            self._ready.append(job)
        else:
            self._close_up(job)

    def _keep(self, job: Job) -> None:
        """Let the cache have what was read, to the end or not."""
        if job.known is not None and job.ticket.request.prefix:
            self.cache.keep(job.known, job.states)

    def _begin_ready(self) -> None:
        """Begin to write, or go on, first come, first served, as long as there is room."""
        while self._ready and self._room_for(self._ready[0]):
            job = self._ready.pop(0)
            job.since = time.monotonic()
            self._writing.append(job)
            if not job.samples:
                self._guarded(job, self._begin)

    def _room_for(self, first: Job) -> bool:
        """Whether there is room; who has written for long makes some for who has waited for long, and waits in turn."""
        over = sum(job.width for job in self._writing) + first.width - COLUMNS
        late = time.monotonic() - PATIENCE
        if over <= 0:
            return True
        old = sorted((job for job in self._writing if job.since < late), key=lambda job: job.since)
        if first.since > late or sum(job.width for job in old) < over:
            return False
        while over > 0:
            job = old.pop(0)
            over -= job.width
            self._writing.remove(job)
            job.pause()
            self._ready.append(job)
        return True

    def _begin(self, job: Job) -> None:
        """All samples at the end of the text."""
        assert job.known is not None
        assert job.state is not None
        last, before = int(job.known.ids[-1]), job.known.last.tolist()
        prefix = job.ticket.request.prefix
        trim = self.tokenizer.kind == "word" and prefix[-1:].isspace()
        samples = [
            Sample(k, self._writer(job.options, before), mix(job.seed, k), last, trim=trim)
            for k in range(job.options.n)
        ]
        job.begin(samples, self._drawings(job))

    def _writer(self, options: SamplingOptions, before: list[int]) -> Writer:
        return Writer(self.tokenizer.decoder(), options, before)

    def _allowed(self, job: Job) -> SamplingOptions:
        """The options, with the unknown token banned and the seed that is used."""
        banned = tuple(dict.fromkeys((*job.options.banned, *self._unknown)))
        return replace(job.options, seed=job.seed, banned=banned)

    def _drawings(self, job: Job) -> list[Drawing]:
        """How each sample is drawn."""
        options, vocab_size = job.options, self.model.vocab_size
        check_ids(options, vocab_size)  # all of them: the stop ids are not part of the key
        key = (options.banned, tuple(sorted(options.bias.items())))
        if key not in self._offsets:
            if len(self._offsets) > 64:
                self._offsets.clear()
            self._offsets[key] = offsets(self._allowed(job), vocab_size, torch.device("cpu"))
        temperatures = job.ticket.request.temperatures or [options.temperature] * options.n
        return [
            Drawing(
                float(temperature),
                options.top_k,
                float(options.top_p),
                float(options.min_p),
                self._offsets[key],
            )
            for temperature in temperatures
        ]

    def _write_on(self) -> None:
        """A few steps of all samples, those that are drawn alike together."""
        total = sum(len(job.active) for job in self._writing)
        left = max(job.most_left for job in self._writing)
        steps = min(max(2, _BLOCK // total), _STEPS, left)
        groups: dict[object, list[tuple[Job, list[int]]]] = {}
        for job in self._writing:
            for key, places in job.alike().items():
                groups.setdefault(key, []).append((job, places))
        drawn: dict[Job, list[tuple[list[int], Drawn]]] = {}
        for members in groups.values():
            job, places = members[0]
            drawing = job.drawings[job.active[places[0]].number]
            found = self._columns.draw([job.rows(own) for job, own in members], steps, drawing)
            for (job, own), one in zip(members, found, strict=True):
                drawn.setdefault(job, []).append((own, one))
        self.counts.steps += steps
        self.counts.columns += steps * total
        for job, parts in drawn.items():
            self._guarded(job, partial(self._take, parts=parts))

    def _take(self, job: Job, parts: list[tuple[list[int], Drawn]]) -> None:
        """Take down what was drawn; the job ends with its last sample."""
        self.counts.written += job.take(parts)
        if not job.active:
            self._writing.remove(job)
            self._close_up(job)

    def _close_up(self, job: Job) -> None:
        """End a job of which all is written, or let it wait for what else was asked: an order, scores."""
        request, works = job.ticket.request, []
        if request.suffix and job.samples:
            works.append(ranking(job, self._columns, self.tokenizer))
        if request.scores is not None:
            works.append(scoring(job, self._columns, self.tokenizer))
        if not works:
            return self._finish(job, DONE)
        job.closing = itertools.chain(*works)
        self._closing_up.append(job)

    def _close_on(self) -> None:
        """Some pieces of ordering and scoring, in turn."""
        for _ in range((READ if self._reading or self._writing else ALONE) // PIECE):
            if not self._closing_up:
                return
            job = self._closing_up[0]
            self._guarded(job, self._step_of)
            if job in self._closing_up:
                self._closing_up.append(self._closing_up.pop(0))

    def _step_of(self, job: Job) -> None:
        for _ in job.closing:
            return
        self._finish(job, DONE)

    # --- ending ----------------------------------------------------------------------------------

    def _finish(self, job: Job, ended: str, error: Exception | None = None) -> None:
        """Answer a request, with what there is."""
        for jobs in self._jobs:
            if job in jobs:
                jobs.remove(job)
        job.ticket.end(job.answer(ended, error))


_NOTED = 2_000
"""Characters before the cursor that are looked through for unknown ones."""
