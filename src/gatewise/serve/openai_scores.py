"""Log-probabilities of tokens, in OpenAI's form."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel

from gatewise.complete import TokenScores
from gatewise.text.base import Tokenizer


class LogProbs(BaseModel):
    """How probable each token was, in nats at temperature 1, and the most probable ones in its place.

    The token itself is among these, so there may be one more than was asked for.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


def told(parts: Iterable[tuple[TokenScores | None, int]], tokenizer: Tokenizer) -> LogProbs:
    """Some texts' tokens, one text after the other.

    Args:
        parts: scores, and the characters of the answer's text that stand before them.
        tokenizer: the model's.
    """
    found = LogProbs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
    for scores, shift in parts:
        if scores is None:
            continue
        found.token_logprobs += scores.logprobs
        found.text_offset += [offset + shift for offset in scores.offsets]
        for token, own, best in zip(scores.ids, scores.logprobs, scores.best, strict=True):
            name = tokenizer.decode([token])
            top: dict[str, float] = {}
            for other, nats in best:
                top.setdefault(tokenizer.decode([other]), nats)  # parts of a character look alike
            if own is not None:
                top.setdefault(name, own)
            found.tokens.append(name)
            found.top_logprobs.append(None if own is None else top)
    return found
