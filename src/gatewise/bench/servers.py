"""Who takes part in the load of many writers: gatewise's batcher, servers that batch whole requests, and a plain loop."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gatewise.complete import Answer, Batcher, BusyError, Completion, Request, Ticket
from gatewise.complete.cache import StateCache
from gatewise.complete.requests import CANCELLED, DONE
from gatewise.generate import Generation, SamplingOptions, Stepper, read
from gatewise.mappings import LanguageModel
from gatewise.step.generation import StepLanguageModel
from gatewise.text.base import Tokenizer


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

    def close(self, timeout: float | None = None) -> None:
        """See `Server`: what waits is not answered."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout)

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
