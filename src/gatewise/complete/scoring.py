"""How probable each token of an answer was, and what else could have stood in its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from gatewise.complete.columns import PIECE, Columns
from gatewise.complete.completer import TokenScores
from gatewise.complete.jobs import Job, Sample
from gatewise.text.base import IncrementalDecoder, Tokenizer


def scoring(job: Job, columns: Columns, tokenizer: Tokenizer) -> Iterator[None]:
    """Find the scores of a job's samples, and of its text where they are asked for; a piece after each `next`.

    Raises:
        DivergedError: the model's scores are not finite.
    """
    request, known = job.ticket.request, job.known
    assert known is not None
    assert job.state is not None
    assert request.scores is not None
    if request.score_prefix:
        ids = tokenizer.encode(request.prefix).tolist()
        reading = _Scores(ids[1:], request.scores)
        yield from reading.read(columns, columns.start, ids[:1], 0)
        job.prefix_scores = reading.behind(ids[:1], _offsets(tokenizer.decoder(), ids))
    before = known.last.tolist()
    for sample in job.samples:
        reading = _Scores(sample.ids, request.scores)
        yield from reading.read(columns, job.state, known.ids[-1:].tolist(), known.total - 1)
        decoder = tokenizer.decoder()
        for token in before:
            decoder.push(token)
        sample.scores = reading.within(_of_sample(sample, _offsets(decoder, sample.ids)), sample)


class _Scores:
    """Scores of some tokens, as they are found.

    Args:
        ids: the tokens.
        count: others in the place of each.
    """

    def __init__(self, ids: Sequence[int], count: int) -> None:
        self._ids, self._count = list(ids), count
        self._logprobs: list[float] = []
        self._best: list[tuple[tuple[int, float], ...]] = []

    def read(
        self, columns: Columns, state: Tensor, last: list[int], position: int
    ) -> Iterator[None]:
        """Read them after the token `last` at `position`, of which `state` does not know yet."""
        line = np.array([*last, *self._ids], np.int64)
        for at in range(0, len(line) - 1, PIECE):
            own, best, state = columns.best(
                state, line[at : at + PIECE + 1], position + at, self._count
            )
            self._logprobs += own
            self._best += best
            yield

    def behind(self, first: list[int], offsets: list[int]) -> TokenScores:
        """Theirs, behind first tokens that nothing stands before."""
        return TokenScores(
            (*first, *self._ids),
            (*(None for _ in first), *self._logprobs),
            (*(() for _ in first), *self._best),
            tuple(offsets),
        )

    def within(self, offsets: list[int], sample: Sample) -> TokenScores:
        """Of those that a sample's text shows: an ending is not part of it."""
        length = len(sample.text)
        count = sum(offset < length for offset in offsets)
        return TokenScores(
            tuple(self._ids[:count]),
            tuple(self._logprobs[:count]),
            tuple(self._best[:count]),
            tuple(offsets[:count]),
        )


def _offsets(decoder: IncrementalDecoder, ids: Sequence[int]) -> list[int]:
    """Characters before each token."""
    found, total = [], 0
    for token in ids:
        found.append(total)
        total += len(decoder.push(token))
    return found


def _of_sample(sample: Sample, offsets: list[int]) -> list[int]:
    """Where the space that the prompt ends in already was left out, all stands one further to the left."""
    return [max(0, offset - sample.trimmed) for offset in offsets]
