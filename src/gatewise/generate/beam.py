"""Beam search: the continuations that the model finds most probable, without drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gatewise.errors import DivergedError, OptionError
from gatewise.generate.choose import Ngrams, offsets
from gatewise.generate.context import Context, Stepper, TokenModel, read
from gatewise.generate.endings import Writer
from gatewise.generate.options import MOST_SAMPLES, SamplingOptions
from gatewise.generate.sampling import BEFORE, Sample, TextDecoder, first_input, repetition_penalty
from gatewise.types import State, select

if TYPE_CHECKING:
    from gatewise.probe import Control


@dataclass(frozen=True)
class Hypothesis(Sample):
    """A continuation found by beam search.

    Args:
        score: log-probability divided by the length penalty; the results are in its order.
    """

    score: float = 0.0


@dataclass(frozen=True)
class _Beam:
    """A live hypothesis. `total` is what the search adds up: penalties and bias are in it."""

    ids: tuple[int, ...] = ()
    total: float = 0.0
    logprob: float = 0.0


@dataclass(frozen=True)
class _Candidate:
    """A live hypothesis and one more token."""

    parent: int
    token: int
    beam: _Beam
    key: tuple[float, int, float, int]


def beam_search(
    model: TokenModel,
    prompt: Sequence[int] | np.ndarray[Any, Any] | Tensor | Context,
    options: SamplingOptions | None = None,
    *,
    width: int = 5,
    n_best: int = 1,
    length_penalty: float = 0.6,
    tokenizer: TextDecoder | None = None,
    state: State = None,
    start: int = 0,
    control: Control | None = None,
    engine: str = "auto",
) -> list[Hypothesis]:
    """The `n_best` continuations with the highest score, best first; at least one.

    score(Y) = log P(Y) / lp(Y),  lp(Y) = (5 + |Y|)^alpha / (5 + 1)^alpha
    (Wu et al. 2016, equation 14; no coverage penalty, since nothing is attended to). |Y| counts the
    tokens, the one that ends the text included.

    The search ends when `width` hypotheses have ended, when no live one can become better than the
    best `n_best` of them, or at `max_tokens`, where the live ones count as they stand. Width 1 gives
    the tokens of `generate` at temperature 0.

    Args:
        model, prompt, tokenizer, state, start, control, engine: as for `generate`.
        options: endings, bans, bias and penalties; how to draw (temperature, top-k, top-p, min-p,
            n, seed) plays no part.
        width: live hypotheses.
        n_best: results, at most `width`.
        length_penalty: alpha; 0 compares plain log-probabilities, which favours short texts.

    Raises:
        OptionError: if an option is outside its range.
    """
    if width > MOST_SAMPLES:
        raise OptionError(f"width: expected at most {MOST_SAMPLES:,} beams, found {width:,}")
    if not 1 <= n_best <= width:
        raise OptionError(f"expected 1 <= n_best <= width, found n_best {n_best}, width {width}")
    if not 0 <= length_penalty < math.inf:
        raise OptionError(f"length_penalty: expected a number of 0 or more, found {length_penalty}")
    if options is not None and options.confidence:
        raise OptionError(
            "confidence: expected none with beams, which are kept by their probability"
        )
    options = options or SamplingOptions()
    step = Stepper(model, control=control, engine=engine)
    if not isinstance(prompt, Context):
        ids = np.asarray(prompt, dtype=np.int64)
        if not ids.size:
            ids = first_input(model, tokenizer, options)
        prompt = read(step, ids, state=state, start=start)
    return _Search(step, prompt, options, tokenizer, width, n_best, length_penalty).run()


class _Search:
    """One beam search."""

    def __init__(
        self,
        step: Stepper,
        context: Context,
        options: SamplingOptions,
        tokenizer: TextDecoder | None,
        width: int,
        n_best: int,
        alpha: float,
    ) -> None:
        if options.watches_text and tokenizer is None:
            raise OptionError("stop texts and limits of the text need a tokenizer")
        self._step, self._context, self._options = step, context, options
        self._tokenizer = tokenizer
        self._width, self._n_best, self._alpha = width, n_best, alpha
        vocab_size = context.logits.shape[-1]
        self._offsets = offsets(options, vocab_size, context.logits.device)
        self._penalty = repetition_penalty(context, options, 1, vocab_size)
        size = options.no_repeat_ngram
        self._ngrams = Ngrams(size, context.ids) if size else None
        self._live = [_Beam()]
        self._ended: list[Hypothesis] = []

    @torch.inference_mode()
    def run(self) -> list[Hypothesis]:
        logits, state, time = self._context.logits, self._context.state, self._context.time
        for length in range(1, self._options.max_tokens + 1):
            chosen = self._choose(logits)
            self._live = [candidate.beam for candidate in chosen]
            if not self._live or self._is_over():
                break
            if length < self._options.max_tokens:
                parents = torch.tensor([candidate.parent for candidate in chosen])
                tokens = torch.tensor([[candidate.token for candidate in chosen]])
                if self._penalty is not None:
                    self._penalty.reorder(parents.to(logits.device))
                    self._penalty.add(tokens[0].to(logits.device), None)
                logits, state = self._step(tokens, select(state, parents), time)
                time += 1
        else:
            for beam in self._live:
                self._end(beam, "length", flush=True)
        return sorted(self._ended, key=lambda found: -found.score)[: self._n_best]

    def _choose(self, logits: Tensor) -> list[_Candidate]:
        """The live candidates, at most `width`; those that end on the way are taken down."""
        scores = self._adjusted(logits)
        count = 2 * self._width
        while True:
            live, ended = self._divide(self._candidates(logits, scores, count)[:count])
            if len(live) == self._width or count >= scores.numel():
                break
            count *= 2
        for candidate, reason in ended:
            flush = candidate.token in self._options.stop_ids
            self._end(candidate.beam, reason, flush=flush)
        return live

    def _divide(
        self, candidates: list[_Candidate]
    ) -> tuple[list[_Candidate], list[tuple[_Candidate, str]]]:
        """The best `width` live ones, and what ends among the best `width` of all, with why."""
        live: list[_Candidate] = []
        ended = []
        for rank, candidate in enumerate(candidates):
            reason = self._ending(candidate.beam, candidate.token)
            if not reason:
                live.append(candidate)
            elif rank < self._width:
                ended.append((candidate, reason))
            if len(live) == self._width:
                break
        return live, ended

    def _candidates(self, logits: Tensor, scores: Tensor, count: int) -> list[_Candidate]:
        """Best first: each beam's best `count` tokens, and equals of the last.

        Among equals the better beam is first, then the lower id, as in `argmax`.
        """
        model, search = logits.double().log_softmax(-1), scores.double().log_softmax(-1)
        least = scores.topk(min(count, scores.shape[-1])).values[:, -1:]
        places = ((scores >= least) & (scores > -torch.inf)).nonzero()
        parents, tokens = places[:, 0].tolist(), places[:, 1].tolist()
        chosen = tuple(places.T)
        columns = (model[chosen].tolist(), search[chosen].tolist(), scores[chosen].tolist())
        found = []
        for parent, token, nats, gain, score in zip(parents, tokens, *columns, strict=True):
            old = self._live[parent]
            beam = _Beam((*old.ids, token), old.total + gain, old.logprob + nats)
            found.append(_Candidate(parent, token, beam, (-beam.total, parent, -score, token)))
        return sorted(found, key=lambda candidate: candidate.key)

    def _adjusted(self, logits: Tensor) -> Tensor:
        """The scores after bias, penalty and bans; a beam for which nothing is left ends."""
        if bool(logits.isnan().any()):
            raise DivergedError(
                "expected finite scores, found NaN: the model's weights are broken; "
                "load an earlier checkpoint"
            )
        scores = logits if self._offsets is None else logits + self._offsets
        if self._penalty is not None:
            scores = self._penalty(scores, None)
        if self._ngrams is None:
            return scores
        scores = scores.clone()
        for place, beam in enumerate(self._live):
            ngrams = Ngrams(self._options.no_repeat_ngram, beam.ids, self._ngrams)
            scores[place, list(ngrams.banned())] = -torch.inf
            if bool((scores[place] == -torch.inf).all()):
                self._end(beam, "stop", flush=True)
        return scores

    def _ending(self, beam: _Beam, token: int) -> str:
        """Why the text ends with this token; "" if it goes on."""
        if token in self._options.stop_ids:
            return "stop"
        return self._written(beam.ids).reason if self._options.watches_text else ""

    def _written(self, ids: tuple[int, ...]) -> Writer:
        assert self._tokenizer is not None
        before = self._context.ids[-BEFORE:].tolist()
        writer = Writer(self._tokenizer.decoder(), self._options, before)
        for token in ids:
            writer.push(token)
        return writer

    def _end(self, beam: _Beam, reason: str, *, flush: bool) -> None:
        text = stop = ""
        if self._tokenizer is not None:
            stopped = bool(beam.ids) and beam.ids[-1] in self._options.stop_ids
            writer = self._written(beam.ids[:-1] if stopped else beam.ids)
            if flush:
                writer.flush()
            text, reason, stop = writer.text, writer.reason or reason, writer.stop
        score = self._score(beam.total, len(beam.ids))
        self._ended.append(Hypothesis(beam.ids, text, beam.logprob, reason, stop, score))

    def _score(self, total: float, length: int) -> float:
        penalty: float = ((5 + length) / 6) ** self._alpha
        return total / penalty

    def _is_over(self) -> bool:
        """Whether going on cannot change the results, or enough hypotheses have ended."""
        if len(self._ended) >= self._width:
            return True
        if len(self._ended) < self._n_best:
            return False
        # a log-probability only falls, and is divided by no more than the longest text's penalty
        bound = max(self._score(beam.total, self._options.max_tokens) for beam in self._live)
        return sorted(found.score for found in self._ended)[-self._n_best] >= bound
