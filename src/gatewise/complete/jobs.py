"""A request in work: what was read of its text, and what is written of its samples."""

from __future__ import annotations

import itertools
import math
import time
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gatewise.complete.cache import Known
from gatewise.complete.columns import COLUMNS, Drawn, Rows, broken
from gatewise.complete.completer import Completion, TokenScores
from gatewise.complete.requests import Answer, Ticket
from gatewise.generate import SamplingOptions
from gatewise.generate.endings import Writer
from gatewise.step.drawing import Drawing


@dataclass(eq=False)
class Sample:
    """One continuation as far as it is written.

    Thousands of tokens of thousands of samples may be kept at a time: their ids lie as numbers, their text once.
    """

    number: int
    writer: Writer
    seed: int
    token: int
    ids: array[int] = field(default_factory=lambda: array("i"))
    logprob: float = 0.0
    reason: str = ""
    trim: bool = False
    trimmed: int = 0
    scores: TokenScores | None = None

    @property
    def text(self) -> str:
        """What it says, without the space that the prompt already ends in."""
        return self.writer.text[self.trimmed :]


@dataclass(eq=False)
class Job:
    """A ticket in work.

    Args:
        ticket: whose.
        options: how to draw.
        seed: of its draws.
        known: what the cache knew of its text, once looked up.
        state: after the tokens that were read, (R,).
        done: tokens of `known.ids` that were read.
        states: kept on the way.
        samples: all of them.
        active: those that are written now, with a state in `memory` (n, R) each.
        rest: those that have not begun.
        since: when it came to where it is.
        times: when it was taken up, and when it was read.
        closing: a piece of the work behind the writing at each `next`: ordering the samples, scoring their tokens; what was
            found is then in `order`, in the samples' `scores` and in `prefix_scores`.
    """

    ticket: Ticket
    options: SamplingOptions
    seed: int
    known: Known | None = None
    state: Tensor | None = None
    done: int = 0
    states: dict[int, Tensor] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    active: list[Sample] = field(default_factory=list)
    rest: deque[Sample] = field(default_factory=deque)
    memory: Tensor | None = None
    since: float = 0.0
    drawings: list[Drawing] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    closing: Iterator[None] = field(default_factory=lambda: iter(()))
    order: tuple[int, ...] | None = None
    prefix_scores: TokenScores | None = None

    @property
    def left(self) -> int:
        """Tokens to be read before writing begins: all but the last."""
        assert self.known is not None
        return len(self.known.ids) - 1 - self.done

    @property
    def deadline(self) -> float:
        """When it is to be answered at the latest, by `time.monotonic`."""
        seconds = self.ticket.request.seconds
        return math.inf if seconds is None else self.ticket.born + seconds

    def begin(self, samples: list[Sample], drawings: list[Drawing]) -> None:
        """From the text's end on: all samples, and how each is drawn."""
        assert self.state is not None
        self.samples, self.drawings = samples, drawings
        self.active, self.rest = [], deque(samples)
        self._fill()

    @property
    def width(self) -> int:
        """Columns that it takes."""
        return len(self.active) if self.samples else min(self.options.n, COLUMNS)

    @property
    def most_left(self) -> int:
        """Tokens that its samples may still have, the most."""
        return self.options.max_tokens - min(len(sample.ids) for sample in self.active)

    def _fill(self) -> None:
        """Let samples begin in the columns that are free."""
        assert self.state is not None
        count = min(COLUMNS - len(self.active), len(self.rest))
        if count > 0:
            fresh = self.state.expand(count, -1)
            self.memory = fresh if self.memory is None else torch.cat((self.memory, fresh))
            self.active += [self.rest.popleft() for _ in range(count)]

    def pause(self) -> None:
        """Wait for a turn, with states of its own: they were rows of the states of all who wrote."""
        self.since = time.monotonic()
        self.memory = None if self.memory is None else self.memory.clone()

    def rows(self, places: list[int]) -> Rows:
        """Some of the samples that are still written, as the model sees them."""
        assert self.known is not None
        assert self.memory is not None
        chosen = [self.active[place] for place in places]
        states = self.memory
        if len(places) < len(self.active):
            states = states[torch.tensor(places)]
        drawn = [len(sample.ids) for sample in chosen]
        return Rows(
            states,
            [sample.token for sample in chosen],
            [self.known.total - 1 + count for count in drawn],
            [sample.seed for sample in chosen],
            drawn,
        )

    def alike(self) -> dict[object, list[int]]:
        """Places of the active samples by how they are drawn."""
        if len({id(drawing) for drawing in self.drawings}) == 1:
            return {_key(self.drawings[0]): list(range(len(self.active)))}
        found: dict[object, list[int]] = {}
        for place, sample in enumerate(self.active):
            found.setdefault(_key(self.drawings[sample.number]), []).append(place)
        return found

    def take(self, parts: list[tuple[list[int], Drawn]]) -> int:
        """Take down what was drawn, and drop the samples that ended: how many tokens were taken."""
        written = 0
        kept: list[tuple[int, Tensor]] = []
        for places, drawn in parts:
            for at, place in enumerate(places):
                sample = self.active[place]
                for token, logprob in zip(drawn.tokens[at], drawn.logprobs[at], strict=True):
                    self.extend(sample, token, logprob)
                    written += 1
                    if sample.reason:
                        break
                else:
                    kept.append((place, drawn.states[at]))
        if len(parts) == 1 and len(kept) == len(self.active):
            self.memory = parts[0][1].states
            return written
        kept.sort(key=lambda one: one[0])
        self.active = [self.active[place] for place, _ in kept]
        self.memory = torch.stack([state for _, state in kept]) if kept else None
        self._fill()
        return written

    def extend(self, sample: Sample, token: int, logprob: float) -> None:
        """One more token of a sample, which may end it.

        Raises:
            DivergedError: the model's scores are not finite.
        """
        if math.isnan(logprob):
            raise broken()
        if self.options.doubts(logprob, len(sample.ids)):
            self._close(sample, "stop")
            return
        sample.token = token
        sample.ids.append(token)
        sample.logprob += logprob
        if token in self.options.stop_ids:
            self._close(sample, "stop")
            return
        self._say(sample, sample.writer.push(token))
        if sample.writer.done:
            sample.reason = sample.writer.reason
        elif len(sample.ids) >= self.options.max_tokens:
            self._close(sample, "length")

    def _close(self, sample: Sample, reason: str) -> None:
        """End a sample with what was held back, which may have met one more rule."""
        self._say(sample, sample.writer.flush())
        sample.reason = sample.writer.reason or reason

    def _say(self, sample: Sample, text: str) -> None:
        """Pass a piece on, without the space that the prompt already ends in."""
        if not text:
            return
        if sample.trim:
            sample.trim, sample.trimmed = False, int(text.startswith(" "))
            text = text[sample.trimmed :]
        if text and self.ticket.on_piece is not None:
            self.ticket.on_piece(sample.number, text)

    def answer(
        self,
        ended: str,
        error: Exception | None = None,
    ) -> Answer:
        """What there is."""
        marks = [self.ticket.born, *self.times, time.monotonic()]
        spent = [later - earlier for earlier, later in itertools.pairwise(marks)]
        waited, read, wrote = (*spent, 0.0, 0.0)[:3]
        return Answer(
            tuple(
                Completion(
                    s.text, s.logprob, len(s.ids), s.reason or "length", s.writer.stop, s.scores
                )
                for s in self.samples
            ),
            ended,
            self.done,
            0 if self.known is None else self.known.position,
            sum(len(sample.ids) for sample in self.samples),
            (waited, read, wrote),
            self.seed,
            self.notes,
            error,
            self.order,
            self.prefix_scores,
        )


@dataclass
class Counts:
    """What a batcher has done, for those who measure.

    Args:
        requests, cancelled, refused: how many.
        read, known: tokens that were read, and those whose state was known.
        written: tokens of all samples.
        steps, columns: steps of the writing, and columns of all of them together.
    """

    requests: int = 0
    cancelled: int = 0
    refused: int = 0
    read: int = 0
    known: int = 0
    written: int = 0
    steps: int = 0
    columns: int = 0


def _key(drawing: Drawing) -> object:
    """Equal for drawings that can go together."""
    numbers = (drawing.temperature, drawing.top_k, drawing.top_p, drawing.min_p)
    return (*numbers, id(drawing.offsets))
