"""How text is drawn: the options of sampling, checked once, as plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real

from gatewise.errors import OptionError

MOST_SAMPLES = 4096
"""Samples, or beams, of one batch: each takes a state and a row of scores."""


@dataclass(frozen=True)
class SamplingOptions:
    """What `generate` needs to know besides the model and the prompt.

    The scores (logits) of a step pass through these in order: bias and banned ids, repetition
    penalty, n-gram ban, temperature, top-k, top-p, min-p. Each filter sees the probabilities that
    the one before it left, scaled to sum 1, and always leaves at least one token.

    Args:
        max_tokens: longest continuation, in tokens; 0 gives an empty one.
        temperature: scores are divided by it; 0 takes the most probable token (the lowest id of
            equals).
        top_k: keep the k most probable tokens; 0 keeps all.
        top_p: keep the fewest most probable tokens that together reach this probability.
        min_p: keep the tokens at least this many times as probable as the most probable one.
        repetition_penalty: theta of CTRL (Keskar et al. 2019, section 4.1), 1 is none: the scores
            of tokens of the prompt or the continuation are divided by it. Negative scores are
            multiplied instead, since dividing would make those tokens more probable.
        no_repeat_ngram: no sequence of this many tokens occurs twice in prompt and continuation;
            0 allows all. A sample for which nothing is left ends with "stop".
        stop: texts that end a sample; they are not part of its text.
        stop_ids: tokens that end a sample; they are not part of its text.
        lines: end before the newline that follows this many lines.
        sentences: end after this many sentences: `.`, `!` or `?`, closing quotes, then white space
            (the full stops of Chinese and Japanese need no white space).
        words: end before the white space that follows this many words.
        closing: end after the bracket that closes one which the text did not open.
        confidence: end before a token that is less probable than this, at temperature 1; the first is always
            written.
        max_characters: longest text, in characters.
        seed: any integer; None takes a fresh one, which `Generation.seed` tells.
        n: samples drawn in one batch.
        banned: ids that are never drawn, such as the one that stands for unknown characters.
        bias: added to the scores of these ids; -inf bans one. A sample for which no token is left
            ends with "stop".
    """

    max_tokens: int = 200
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0
    stop: Sequence[str] = ()
    stop_ids: Sequence[int] = ()
    lines: int | None = None
    sentences: int | None = None
    words: int | None = None
    closing: bool = False
    confidence: float = 0.0
    max_characters: int | None = None
    seed: int | None = None
    n: int = 1
    banned: Sequence[int] = ()
    bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every option, and turn sequences into tuples.

        Raises:
            OptionError: if one is outside its range.
        """
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        for name in ("stop", "stop_ids", "banned"):
            object.__setattr__(self, name, _listed(name, getattr(self, name)))
        if not all(isinstance(text, str) for text in self.stop):
            raise OptionError(f"stop: expected texts, found {self.stop}")
        if not isinstance(self.bias, Mapping):
            raise OptionError(f"bias: expected id -> number, found {self.bias!r}")
        for name, least in (("max_tokens", 0), ("top_k", 0), ("no_repeat_ngram", 0), ("n", 1)):
            _whole(name, getattr(self, name), least)
        if self.n > MOST_SAMPLES:
            raise OptionError(f"n: expected at most {MOST_SAMPLES:,} at once, found {self.n:,}")
        for name in ("lines", "sentences", "words", "max_characters"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), 1)
        if self.seed is not None:
            _whole("seed", self.seed, None)
        _real("temperature", self.temperature, lambda v: v >= 0, "0 (greedy) or more")
        _real("top_p", self.top_p, lambda v: 0 < v <= 1, "more than 0 and at most 1")
        _real("min_p", self.min_p, lambda v: 0 <= v <= 1, "from 0 to 1")
        _real("confidence", self.confidence, lambda v: 0 <= v <= 1, "from 0 to 1")
        if not isinstance(self.closing, bool):
            raise OptionError(f"closing: expected true or false, found {self.closing!r}")
        _real("repetition_penalty", self.repetition_penalty, lambda v: v > 0, "over 0")
        if "" in self.stop:
            raise OptionError(f"stop: expected texts of at least one character, found {self.stop}")
        for number in (*self.stop_ids, *self.banned, *self.bias):
            _whole("stop_ids, banned, bias", number, 0)
        for value in self.bias.values():
            if not _is_real(value) or math.isnan(value) or value == math.inf:
                raise OptionError(f"bias: expected numbers, -inf for never, found {value!r}")

    def doubts(self, logprob: float, written: int) -> bool:
        """Whether a token of this log-probability is too improbable to be written after so many others."""
        return written > 0 and self.confidence > 0 and logprob < math.log(self.confidence)

    @property
    def watches_text(self) -> bool:
        """Whether the text, not only the tokens, decides where a sample ends."""
        limits = (self.lines, self.sentences, self.words, self.max_characters)
        return bool(self.stop) or self.closing or any(limit is not None for limit in limits)


def _whole(name: str, value: object, least: int | None) -> None:
    wanted = "a whole number" if least is None else f"a whole number of {least} or more"
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or (least is not None and value < least)
    ):
        raise OptionError(f"{name}: expected {wanted}, found {value!r}")


def _listed(name: str, values: object) -> tuple[object, ...]:
    if not isinstance(values, Iterable):
        raise OptionError(f"{name}: expected a list, found {values!r}")
    return tuple(values)


def _is_real(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _real(name: str, value: float, fits: Callable[[float], bool], wanted: str) -> None:
    if not _is_real(value) or not math.isfinite(value) or not fits(value):
        raise OptionError(f"{name}: expected a number, {wanted}, found {value!r}")
