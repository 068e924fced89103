"""What is asked of a `Batcher`, and what it answers, as plain data."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Real

from gatewise.complete.completer import Completion, TokenScores, ranked
from gatewise.errors import GatewiseError, OptionError
from gatewise.generate import SamplingOptions

DONE, DEADLINE, CANCELLED = "done", "deadline", "cancelled"
_LOG = logging.getLogger("gatewise.complete")


class BusyError(GatewiseError):
    """More is waiting than the queue holds: try again soon."""


@dataclass(frozen=True)
class Request:
    """A text to go on with.

    Args:
        prefix: the text; where it is long, as much of its end as the caller sees fit.
        options: how to draw; `max_tokens` 0 only reads the text.
        suffix: what stands behind the place: candidates after which it is probable stand first.
        seconds: answer after so long with what is there; None: no limit.
        temperatures: one for each sample, in place of that of the options.
        scores: tell the log-probability of each token, and so many of the most probable ones in its place; None: do not.
        score_prefix: of the prefix's tokens, too.
    """

    prefix: str
    options: SamplingOptions = field(default_factory=SamplingOptions)
    suffix: str = ""
    seconds: float | None = None
    temperatures: Sequence[float] | None = None
    scores: int | None = None
    score_prefix: bool = False

    def __post_init__(self) -> None:
        """Raise OptionError where a part is none, or the parts do not fit."""
        for name in ("prefix", "suffix"):
            if not isinstance(getattr(self, name), str):
                raise OptionError(
                    f"{name}: expected a text, found {type(getattr(self, name)).__name__}"
                )
        if self.seconds is not None and not _at_least_0(self.seconds):
            raise OptionError(
                f"seconds: expected a number of 0 or more, or none, found {self.seconds!r}"
            )
        if self.temperatures is not None:
            object.__setattr__(self, "temperatures", self._checked(self.temperatures))
        if self.scores is not None and not (_is_whole(self.scores) and self.scores >= 0):
            raise OptionError(
                f"scores: expected a whole number of 0 or more, or none, found {self.scores!r}"
            )
        for name in ("repetition_penalty", "no_repeat_ngram"):
            if getattr(self.options, name) != getattr(SamplingOptions(), name):
                raise OptionError(f"{name}: expected none where many texts are written together")

    def _checked(self, temperatures: Sequence[float]) -> tuple[float, ...]:
        found = tuple(temperatures)
        if len(found) != self.options.n:
            raise OptionError(
                f"temperatures: expected {self.options.n}, one for each sample, found {len(found)}"
            )
        for one in found:
            if not _at_least_0(one) or math.isinf(one):
                raise OptionError(
                    f"temperatures: expected numbers, 0 (greedy) or more, found {one!r}"
                )
        return tuple(map(float, found))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _at_least_0(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and float(value) >= 0


@dataclass(frozen=True)
class Answer:
    """What was written.

    Args:
        samples: by their numbers, doubles and empty ones among them.
        ended: "done", "deadline" or "cancelled".
        read: tokens of the prefix that were read now; known: whose state was known.
        written: tokens of all samples.
        seconds: of waiting, reading and writing.
        seed: with which the same can be drawn again.
        notes: what the user should be told about the prefix, a line each.
        error: why there is no answer, or None.
        order: of the samples, by the suffix; None where there was none.
        prefix_scores: where the request asked for them.
    """

    samples: tuple[Completion, ...]
    ended: str
    read: int
    known: int
    written: int
    seconds: tuple[float, float, float]
    seed: int
    notes: tuple[str, ...] = ()
    error: Exception | None = None
    order: tuple[int, ...] | None = None
    prefix_scores: TokenScores | None = None

    @property
    def completions(self) -> list[Completion]:
        """Each text once, the best first: by the suffix where there was one, else by probability."""
        if self.order is None:
            return ranked(self.samples)
        found: dict[str, Completion] = {}
        for number in self.order:
            found.setdefault(self.samples[number].text, self.samples[number])
        if len(found) > 1:
            found.pop("", None)
        return list(found.values())


Piece = Callable[[int, str], None]


class Ticket:
    """A request that is on its way; made by `Batcher.submit`.

    Attributes:
        request: what was asked.
        born: when, by `time.monotonic`.
    """

    def __init__(
        self,
        request: Request,
        on_piece: Piece | None = None,
        on_end: Callable[[Answer], None] | None = None,
    ) -> None:
        self.request, self.born = request, time.monotonic()
        self.on_piece = on_piece
        self._on_end = on_end
        self._cancelled = False
        self._ended = threading.Event()
        self._answer: Answer | None = None

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._cancelled

    def cancel(self) -> None:
        """Stop within one step; may be called from any thread, any number of times."""
        self._cancelled = True

    def end(self, answer: Answer) -> None:
        """Called by the batcher; only the first answer counts. Never raises: an error of `on_end` is logged."""
        if self._answer is not None:
            return
        self._answer = answer
        self._ended.set()
        try:
            if self._on_end is not None:
                self._on_end(answer)
        except Exception:  # the loop that it wanted to tell is closed, say: nobody else's concern
            _LOG.exception("nobody took the answer")

    def result(self, timeout: float | None = None) -> Answer:
        """Wait for the answer.

        Raises:
            TimeoutError: it did not come in time.
            GatewiseError: what kept it from being answered.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"no answer after {timeout} seconds")
        assert self._answer is not None
        if self._answer.error is not None:
            raise self._answer.error
        return self._answer
