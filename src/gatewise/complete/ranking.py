"""Which candidates fit what stands behind the place: those after which it is probable stand first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gatewise.complete.columns import PIECE, Columns
from gatewise.complete.jobs import Job
from gatewise.text.base import Tokenizer

_RANKED = 64
"""Tokens of a suffix that rank the candidates."""
_CHARACTERS = 16 * _RANKED
"""Characters of it that are looked at for them."""


def ranking(job: Job, columns: Columns, tokenizer: Tokenizer) -> Iterator[None]:
    """Find the order of a job's samples, a piece after each `next`; `job.order` has it at the end.

    Pieces are of one size, so that the sums are the same whatever else is to be done.

    Raises:
        DivergedError: the model's scores are not finite.
    """
    scores = dict.fromkeys((sample.text for sample in job.samples), 0.0)
    if len(scores) > 1:
        for text in scores:
            score = 0.0
            for nats in _scored(text, job, columns, tokenizer):
                score += nats
                yield
            scores[text] = score
        job.order = tuple(
            sorted(range(len(job.samples)), key=lambda k: -scores[job.samples[k].text])
        )
    else:
        job.order = tuple(range(len(job.samples)))


def _scored(text: str, job: Job, columns: Columns, tokenizer: Tokenizer) -> Iterator[float]:
    """Log-probability of a candidate and the beginning of the suffix after the text, piece by piece."""
    assert job.known is not None
    assert job.state is not None
    own = len(tokenizer.encode(text))
    tail = tokenizer.encode(text + job.ticket.request.suffix[:_CHARACTERS])
    ids = np.concatenate((job.known.ids[-1:], tail[: own + _RANKED]))
    state, position = job.state, job.known.total - 1
    for at in range(0, len(ids) - 1, PIECE):
        nats, state = columns.score(state, ids[at : at + PIECE + 1], position + at)
        yield nats
