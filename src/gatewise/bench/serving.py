"""Many writers at once: latency by rate of keystrokes, beside servers that batch whole requests, and a plain loop.

The load is open: keys are pressed when they are due, whether or not the answers before have come (with a load that
waits for answers a slow server looks quick). Each key asks for continuations of its writer's document up to there; what was
asked for the key before is cancelled.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gatewise.bench.typists import Load
from gatewise.complete import Answer, Batcher, BusyError, Completion, Request, Ticket
from gatewise.complete.cache import StateCache
from gatewise.complete.requests import CANCELLED, DONE
from gatewise.errors import GatewiseError
from gatewise.generate import Generation, SamplingOptions, Stepper, read
from gatewise.mappings import LanguageModel
from gatewise.step.generation import StepLanguageModel
from gatewise.text.base import Tokenizer

OPTIONS = SamplingOptions(n=3, max_tokens=8, temperature=0.7)
WARM = 0.25
"""Share of the time before anything counts."""


class Server(Protocol):
    """What is measured; `Batcher` is one."""

    def submit(
        self, request: Request, on_piece: Any = None, on_end: Callable[[Answer], None] | None = None
    ) -> Ticket:
        """Begin to answer; BusyError where too much waits."""

    def close(self) -> None:
        """End."""


class _Queued:
    """A server of one thread that answers what waits, some requests at a time, each to its end."""

    def __init__(self, most: int, waiting: int = 256) -> None:
        self._most, self._room = most, waiting
        self._queue: deque[Ticket] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(
        self, request: Request, on_piece: Any = None, on_end: Callable[[Answer], None] | None = None
    ) -> Ticket:
        """See `Server`."""
        ticket = Ticket(request, on_piece, on_end)
        with self._wake:
            if self._closing or len(self._queue) >= self._room:
                raise BusyError("full")
            self._queue.append(ticket)
            self._wake.notify()
        return ticket

    def close(self) -> None:
        """See `Server`."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._queue and not self._closing:
                    self._wake.wait()
                if self._closing:
                    return
                batch = [self._queue.popleft() for _ in range(min(self._most, len(self._queue)))]
            kept = []
            for ticket in batch:
                if ticket.cancelled:
                    ticket.end(Answer((), CANCELLED, 0, 0, 0, (0, 0, 0), 0))
                else:
                    kept.append(ticket)
            if kept:
                with torch.inference_mode():
                    self.answer(kept)

    def answer(self, tickets: Sequence[Ticket]) -> None:
        """Answer all of them."""
        raise NotImplementedError


def _ended(ticket: Ticket, samples: Sequence[Completion]) -> None:
    written = sum(sample.tokens for sample in samples)
    ticket.end(Answer(tuple(samples), DONE, 0, 0, written, (0, 0, 0), 0))


class WholeRequests(_Queued):
    """Batches of whole requests: prompts are padded and read together, and all are written to the end.

    The model is the same packed one; what is missing is the cache of states and joining between steps.
    """

    def __init__(self, model: StepLanguageModel, tokenizer: Tokenizer, most: int = 32) -> None:
        self._model, self._tokenizer = model, tokenizer
        super().__init__(most)

    def answer(self, tickets: Sequence[Ticket]) -> None:
        """See `_Queued`."""
        states, lasts = [], []
        for ticket in tickets:  # of different lengths: the step engine reads each by itself
            state, last = self.read(ticket.request.prefix)
            states.append(state)
            lasts.append(last)
        counts = [ticket.request.options.n for ticket in tickets]
        state = torch.cat([one.expand(n, -1) for one, n in zip(states, counts, strict=True)])
        tokens = torch.tensor([one for one, n in zip(lasts, counts, strict=True) for _ in range(n)])
        steps = max(ticket.request.options.max_tokens for ticket in tickets)
        drawn, logprobs = self._drawn(tokens, state, steps, tickets[0].request.options)
        place = 0
        for ticket, n in zip(tickets, counts, strict=True):
            samples = []
            for column in range(place, place + n):
                ids = drawn[: ticket.request.options.max_tokens, column]
                nats = float(logprobs[: len(ids), column].sum())
                samples.append(
                    Completion(self._tokenizer.decode(ids.numpy()), nats, len(ids), "length")
                )
            place += n
            _ended(ticket, samples)

    def read(self, prefix: str) -> tuple[Tensor, int]:
        """The state before the last token, (1, R), and that token."""
        row = self._tokenizer.encode(prefix)
        if len(row) == 1:
            return self._model.packed.start(1).memory.clone(), int(row[0])
        found = self._model(torch.from_numpy(row[:-1])[:, None], logits="last").state
        assert isinstance(found, Tensor)  # of the step engine: a row a column
        return found, int(row[-1])

    def _drawn(
        self, tokens: Tensor, state: Tensor, steps: int, options: SamplingOptions
    ) -> tuple[Tensor, Tensor]:
        from gatewise.step.drawing import Drawing

        seeds = torch.arange(len(tokens))
        drawing = Drawing(float(options.temperature))
        drawn, logprobs, _ = self._model.draw(
            tokens, state, 0, steps, drawing, seeds, torch.zeros_like(seeds)
        )
        return drawn, logprobs


class WholeRequestsKnown(WholeRequests):
    """The same with gatewise's cache of states: what is left is joining between steps."""

    def __init__(self, model: StepLanguageModel, tokenizer: Tokenizer, most: int = 32) -> None:
        self._cache = StateCache(tokenizer)
        super().__init__(model, tokenizer, most)

    def read(self, prefix: str) -> tuple[Tensor, int]:
        """See `WholeRequests`."""
        known = self._cache.find(prefix)
        state: Any = None if known.state is None else known.state[None]
        ids = torch.from_numpy(np.ascontiguousarray(known.ids[:-1], np.int64))[:, None]
        if len(ids):
            state = self._model(ids, state, logits="last").state
        if state is None:
            state = self._model.packed.start(1).memory.clone()
        self._cache.keep(known, {known.total - 1: state[0]} if known.total > 1 else {})
        return state, int(known.ids[-1])


class PlainLoop(_Queued):
    """One request after the other through `torch.nn`'s kernels: read the prompt, then a step a token."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer) -> None:
        self._step, self._tokenizer = Stepper(model, engine="closed"), tokenizer
        super().__init__(1)

    def answer(self, tickets: Sequence[Ticket]) -> None:
        """See `_Queued`."""
        for ticket in tickets:
            context = read(self._step, self._tokenizer.encode(ticket.request.prefix))
            generation = Generation(self._step, context, ticket.request.options, self._tokenizer)
            samples = [
                Completion(one.text, one.logprob, len(one.ids), one.finish_reason)
                for one in generation.run()
            ]
            _ended(ticket, samples)


SERVERS: dict[str, Callable[[LanguageModel, StepLanguageModel, Tokenizer], Server]] = {
    "gatewise": lambda model, packed, tokenizer: Batcher(packed, tokenizer),
    "whole requests": lambda model, packed, tokenizer: WholeRequests(packed, tokenizer),
    "whole requests, cached": lambda model, packed, tokenizer: WholeRequestsKnown(
        packed, tokenizer
    ),
    "nn.LSTM loop": lambda model, packed, tokenizer: PlainLoop(model, tokenizer),
}
"""Name -> a server of the same model. Another contestant is one class and one line here."""


@dataclass(frozen=True)
class Served:
    """How a server did under a load.

    Args:
        server: its name.
        load: what it was given.
        latencies: seconds from the moment that a key was due to its answer, or to the next key of its writer, if that came
            first; inf where it was refused or never answered.
        cancelled: keys that were not answered before the next.
        late: seconds that the load itself was late, the largest.
    """

    server: str
    load: Load
    latencies: Any
    cancelled: int
    late: float

    def percentile(self, share: float) -> float:
        """Seconds; inf where so many were not answered."""
        if not len(self.latencies):
            return math.nan
        ordered = np.sort(self.latencies)
        return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))])


def drive(name: str, server: Server, text: str, load: Load) -> Served:
    """Let people write."""
    due, who = load.keys()
    count = len(due)
    text *= -(-(load.characters + count + 1) // len(text))  # a short one is typed again
    starts = np.random.default_rng(load.seed).integers(
        max(1, len(text) - load.characters - count), size=load.writers
    )
    ends = starts + load.characters
    for begin, end in zip(starts, ends, strict=True):  # documents are open
        _opened(server, text[begin:end])
    latest: dict[int, Ticket] = {}
    found: dict[int, float] = {}
    states: dict[int, str] = {}
    late, begin = 0.0, time.perf_counter() + 0.01
    for k, (at, writer) in enumerate(zip(due.tolist(), who.tolist(), strict=True)):
        _wait_until(begin + at)
        late = max(late, time.perf_counter() - begin - at)
        ends[writer] += 1
        if writer in latest:
            latest.pop(writer).cancel()
        request = Request(text[starts[writer] : ends[writer]], replace(OPTIONS, seed=k))
        try:
            latest[writer] = server.submit(request, None, _noting(k, begin + at, found, states))
        except BusyError:
            states[k] = "refused"
    end = time.perf_counter() + max(2.0, load.seconds)
    while len(states) < count and time.perf_counter() < end:
        time.sleep(0.005)
    counted = [k for k in range(count) if due[k] >= WARM * load.seconds]
    cancelled = sum(states.get(k) == CANCELLED for k in counted)
    return Served(name, load, np.array([found.get(k, math.inf) for k in counted]), cancelled, late)


def _opened(server: Server, text: str) -> None:
    """Read a document, as an editor has it read when it is opened."""
    server.submit(Request(text, replace(OPTIONS, max_tokens=1))).result(120)


def _noting(
    number: int, due: float, found: dict[int, float], states: dict[int, str]
) -> Callable[[Answer], None]:
    def end(answer: Answer) -> None:
        if answer.ended in (DONE, CANCELLED) and answer.error is None:
            found[number] = time.perf_counter() - due
        states[number] = answer.ended

    return end


def _wait_until(moment: float) -> None:
    while (left := moment - time.perf_counter()) > 0:
        time.sleep(min(left, 0.002) if left > 0.0005 else 0)


def most_keys(
    name: str,
    server: Server,
    text: str,
    load: Load,
    bound: float,
    told: Callable[[Served], None] = lambda served: None,
) -> list[Served]:
    """Loads of rising rate, each 1.5 times the one before, up to the first whose p99 is above the bound.

    Args:
        name, server, text: what is measured, and what is typed.
        load: of the first rate.
        bound: of p99, in seconds.
        told: called with each.
    """
    rows = []
    while True:
        rows.append(drive(name, server, text, load))
        told(rows[-1])
        if not rows[-1].percentile(0.99) <= bound:
            return rows
        load = replace(load, rate=load.rate * 1.5)


def measured(
    name: str,
    server: Server,
    text: str,
    load: Load,
    bound: float,
    rates: Sequence[float] | None,
    told: Callable[[Served], None],
) -> list[Served]:
    """The loads of the given rates, or rising ones from a tenth of what the server can do."""
    if rates is None:
        load = replace(load, rate=first_rate(server, text, load))
        return most_keys(name, server, text, load, bound, told)
    rows = []
    for rate in rates:
        rows.append(drive(name, server, text, replace(load, rate=rate)))
        told(rows[-1])
    return rows


def first_rate(server: Server, text: str, load: Load) -> float:
    """A rate at which a server is a tenth busy: from the time of a few requests, one after the other."""
    begin = time.perf_counter()
    count = 4
    for k in range(count):
        prefix = text[: load.characters + k]
        server.submit(Request(prefix, replace(OPTIONS, seed=k))).result(120)
    return 0.1 * count / (time.perf_counter() - begin)


def best_rate(rows: Sequence[Served], bound: float) -> float:
    """The largest rate whose p99 is within the bound; 0 where there is none."""
    good = [row.load.rate for row in rows if row.percentile(0.99) <= bound]
    return max(good, default=0.0)


def check_same(
    model: LanguageModel, packed: StepLanguageModel, tokenizer: Tokenizer, text: str, *, exact: bool
) -> None:
    """Every server writes the same most probable continuation, before any is timed.

    Args:
        model, packed, tokenizer: what is served.
        text: what is typed.
        exact: whether the packed weights are the model's own: rounded ones may well say something else than the plain
            loop, which is then left out.
    Raises:
        GatewiseError: one does not.
    """
    request = Request(text[:200], SamplingOptions(max_tokens=4, temperature=0, seed=1))
    said = {}
    for name, make in SERVERS.items():
        server = make(model, packed, tokenizer)
        said[name] = server.submit(request).result(120).samples[0].text
        server.close()
    if not exact:
        said.pop("nn.LSTM loop")
    if len(set(said.values())) > 1:
        raise GatewiseError(f"servers disagree, nothing is timed: {said}")
