"""Writing from something that was read: greedy, drawn, or by beam search, for many sources at once.

It knows a step (tokens and a state in, scores and a state out) and how to take columns of it; not what was
read, nor words. One source by itself gets the same answer as among others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gatewise.errors import DivergedError, OptionError
from gatewise.generate.options import MOST_SAMPLES


class Conditioned(Protocol):
    """A decoder with what it was given, for B columns."""

    def step(self, tokens: Tensor) -> Tensor:
        """Scores (B, V) of what follows when `tokens` (B,) were written; it moves on."""

    def select(self, columns: Tensor) -> None:
        """Go on with these of the columns (B',); repeats are allowed."""


@dataclass(frozen=True)
class Answer:
    """What was written for one source.

    Args:
        ids: the tokens, without the one that begins and the one that ends.
        logprob: sum of log-probabilities, the end included where it was written.
        ended: whether it ended by itself, not at the limit.
        score: logprob over the length penalty.
        token_logprobs: log-probability of each token, the end included.
    """

    ids: tuple[int, ...]
    logprob: float
    ended: bool
    score: float
    token_logprobs: tuple[float, ...]


def penalty(length: int, alpha: float) -> float:
    """What a score is divided by (Wu et al. 2016, arXiv 1609.08144, eq. 14)."""
    return float(((5 + length) / 6) ** alpha)


@torch.inference_mode()
def write_greedily(
    model: Conditioned,
    begin: Tensor,
    end: int,
    limits: Sequence[int],
    *,
    choose: Callable[[Tensor], Tensor] | None = None,
    alpha: float = 0.0,
) -> list[Answer]:
    """One answer for each column.

    Args:
        model: with B columns.
        begin: the first token of each, (B,).
        end: the token that ends an answer.
        limits: most tokens of each.
        choose: tokens (B,) from scores (B, V), to draw them; default: the most probable.
        alpha: of the length penalty in the score.
    """
    count, tokens = len(begin), begin
    live = list(range(count))  # the source of each column
    ids: list[list[int]] = [[] for _ in range(count)]
    costs: list[list[float]] = [[] for _ in range(count)]
    ended = [False] * count
    while live:
        scores = _checked(model.step(tokens))
        chosen = scores.argmax(-1) if choose is None else choose(scores)
        logs = scores.double().log_softmax(-1).gather(1, chosen.unsqueeze(1))[:, 0]
        stay = []
        for column, (token, log) in enumerate(zip(chosen.tolist(), logs.tolist(), strict=True)):
            source = live[column]
            costs[source].append(log)
            if token == end:
                ended[source] = True
                continue
            ids[source].append(token)
            if len(ids[source]) < limits[source]:
                stay.append(column)
        if len(stay) < len(live):
            index = torch.tensor(stay, dtype=torch.int64, device=chosen.device)
            model.select(index)
            chosen, live = chosen[index], [live[column] for column in stay]
        tokens = chosen
    return [_answer(ids[k], costs[k], ended[k], alpha) for k in range(count)]


def _answer(ids: list[int], costs: list[float], ended: bool, alpha: float) -> Answer:
    total = math.fsum(costs)
    return Answer(tuple(ids), total, ended, total / penalty(len(costs), alpha), tuple(costs))


def _checked(scores: Tensor) -> Tensor:
    if bool(scores.isnan().any()):
        raise DivergedError(
            "expected finite scores, found NaN: the model's weights are broken; "
            "load an earlier checkpoint"
        )
    return scores


@torch.inference_mode()
def search_beams(
    model: Conditioned,
    begin: Tensor,
    end: int,
    limits: Sequence[int],
    *,
    width: int = 5,
    n_best: int = 1,
    alpha: float = 0.6,
) -> list[list[Answer]]:
    """The `n_best` answers with the highest score for each column, best first.

    score(Y) = log P(Y) / ((5 + |Y|) / 6)^alpha, |Y| with the end. A search ends when `width` answers have
    ended, when no live one can become better than the best `n_best`, or at its limit, where the live
    ones count as they stand: so there is always an answer.

    Args:
        model: with a column for each source.
        begin: the first token of each, (B,).
        end: the token that ends an answer.
        limits: most tokens of each.
        width: live hypotheses of a source.
        n_best: answers, at most `width`.
        alpha: 0 compares plain log-probabilities, which favours short answers.
    Raises:
        OptionError: if an option is outside its range.
    """
    if not 1 <= width <= MOST_SAMPLES:
        raise OptionError(f"width: expected 1 to {MOST_SAMPLES:,} beams, found {width:,}")
    if not 1 <= n_best <= width:
        raise OptionError(f"expected 1 <= n_best <= width, found n_best {n_best}, width {width}")
    if not 0 <= alpha < math.inf:
        raise OptionError(f"length penalty: expected a number of 0 or more, found {alpha}")
    searches = [_Search(end, limit, width, n_best, alpha) for limit in limits]
    tokens, live = begin, list(searches)
    while live:
        scores = _checked(model.step(tokens))
        logs = scores.double().log_softmax(-1)
        # twice the width is enough: at most one token of each beam ends
        best = logs.topk(min(2 * width, logs.shape[-1]), -1)
        parents, chosen, going, row = [], [], [], 0
        values, places = best.values.tolist(), best.indices.tolist()
        for search in live:
            rows = range(row, row + len(search.beams))
            taken = search.advance([values[r] for r in rows], [places[r] for r in rows])
            parents += [row + parent for parent, _ in taken]
            chosen += [token for _, token in taken]
            row += len(rows)
            if taken:
                going.append(search)
        live = going
        if live:
            model.select(torch.tensor(parents, device=scores.device))
            tokens = torch.tensor(chosen, device=scores.device)
    return [search.answers() for search in searches]


@dataclass(frozen=True)
class _Beam:
    ids: tuple[int, ...] = ()
    logs: tuple[float, ...] = ()
    total: float = 0.0

    def longer(self, token: int, log: float) -> _Beam:
        return _Beam((*self.ids, token), (*self.logs, log), self.total + log)


class _Search:
    """The hypotheses of one source."""

    def __init__(self, end: int, limit: int, width: int, n_best: int, alpha: float) -> None:
        self._end, self._limit, self._width = end, limit, width
        self._n_best, self._alpha = n_best, alpha
        self.beams = [_Beam()]
        self._ended: list[Answer] = []

    def advance(self, values: list[list[float]], tokens: list[list[int]]) -> list[tuple[int, int]]:
        """(beam before, token) of each live hypothesis after one more step; none: it is over."""
        candidates = [
            (-(beam.total + log), parent, rank, token, log)
            for parent, beam in enumerate(self.beams)
            for rank, (log, token) in enumerate(zip(values[parent], tokens[parent], strict=True))
        ]
        live, taken = [], []
        for place, (_, parent, _, token, log) in enumerate(sorted(candidates)):
            beam = self.beams[parent].longer(token, log)
            if token == self._end:
                if place < self._width:
                    self._end_with(beam, ended=True)
            else:
                live.append(beam)
                taken.append((parent, token))
            if len(live) == self._width:
                break
        self.beams = live
        if not live or self._is_over():
            return []
        if len(live[0].ids) >= self._limit:
            for beam in live:
                self._end_with(beam, ended=False)
            return []
        return taken

    def _end_with(self, beam: _Beam, *, ended: bool) -> None:
        ids = beam.ids[:-1] if ended else beam.ids
        score = beam.total / penalty(len(beam.logs), self._alpha)
        self._ended.append(Answer(ids, beam.total, ended, score, beam.logs))

    def _is_over(self) -> bool:
        if len(self._ended) >= self._width:
            return True
        if len(self._ended) < self._n_best:
            return False
        # a log-probability only falls, and is divided by no more than the longest answer's penalty
        bound = max(beam.total for beam in self.beams) / penalty(self._limit + 1, self._alpha)
        return sorted(one.score for one in self._ended)[-self._n_best] >= bound

    def answers(self) -> list[Answer]:
        """The best, best first."""
        return sorted(self._ended, key=lambda one: -one.score)[: self._n_best]
