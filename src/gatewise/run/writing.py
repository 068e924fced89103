"""What the runs that write from something have in common: the search, and a text as it was written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from gatewise.errors import OptionError
from gatewise.generate import SamplingOptions
from gatewise.generate.conditional import Answer, Conditioned, search_beams, write_greedily
from gatewise.generate.drawing import Draws
from gatewise.text.sides import Side

T = TypeVar("T", bound="WrittenText")


@dataclass(frozen=True)
class WrittenText:
    """One text that a model wrote.

    Args:
        text: the text.
        tokens: as the model wrote it.
        logprob: of the whole, in nats; the end is included.
        score: what texts of the same source are sorted by: logprob over the length penalty.
        token_logprobs: of each token, and of the end where it was written.
        finish_reason: "end" or "length".
    """

    text: str
    tokens: list[str]
    logprob: float
    score: float
    token_logprobs: tuple[float, ...]
    finish_reason: str


def as_text(kind: type[T], side: Side, answer: Answer) -> T:
    """An answer as a text of that kind."""
    ids = np.asarray(answer.ids, np.int64)
    return kind(
        side.decode(ids),
        side.shown(ids),
        answer.logprob,
        answer.score,
        answer.token_logprobs,
        "end" if answer.ended else "length",
    )


def answers(
    writing: Conditioned,
    begin: Tensor,
    end: int,
    limits: Sequence[int],
    *,
    n: int,
    beams: int,
    length_penalty: float,
    sampling: SamplingOptions | None,
) -> list[list[Answer]]:
    """Of each column the `n` best answers: drawn, by beams, or for up to one beam the most probable tokens."""
    if sampling is not None:
        return Draws(writing, sampling, n).write(begin, end, limits, length_penalty)
    if beams <= 1:
        greedy = write_greedily(writing, begin, end, limits, alpha=length_penalty)
        return [[one] for one in greedy]
    return search_beams(writing, begin, end, limits, width=beams, n_best=n, alpha=length_penalty)


def check_search(
    n: int, beams: int, max_tokens: int | None, sampling: SamplingOptions | None
) -> None:
    """Raise OptionError if one of these is outside its range."""
    for name, value, least in (("n", n, 1), ("beams", beams, 0), ("max_tokens", max_tokens, 1)):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and value >= least):
            raise OptionError(
                f"{name}: expected a whole number of {least} or more, found {value!r}"
            )
    if sampling is None and n > max(1, beams):
        raise OptionError(
            f"n: expected at most as many as beams ({max(1, beams)}), found {n}: search with more beams, "
            "or draw with a temperature"
        )


def unknown_words(where: str, words: Sequence[str], named: int = 8) -> list[str]:
    """A note about words that a vocabulary does not hold, if there are any."""
    if not words:
        return []
    more = f" and {len(words) - named:,} more" if len(words) > named else ""
    return [f"not in the {where}: {', '.join(words[:named])}{more}"]
