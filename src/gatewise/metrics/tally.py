"""Sums of costs, and what is read off them: perplexity, nats and bits per token and per character.

Knows numbers only. The sums are float64 and add up across chunks, documents and processes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from torch import Tensor

from gatewise.errors import DataError, OptionError

_NATS_PER_BIT = math.log(2)


@dataclass
class Tally:
    """The cost of a stretch of tokens.

    An evaluation by word_language_model's rule is the mean over the len(data) - 1 predicted rows,
    each chunk's mean loss weighted by its length; with `add(mean, tokens)` for each chunk,
    `nats_per_token` is that mean, and `perplexity` its exponential.

    >>> tally = Tally()
    >>> tally.add(2.0, tokens=30)
    >>> tally.add(4.0, tokens=10)
    >>> tally.nats_per_token
    2.5

    Args:
        nats: sum over all tokens.
        tokens: predicted tokens.
        characters: characters that these tokens stand for; 0 where nobody counted.
    """

    nats: float = 0.0
    tokens: int = 0
    characters: int = 0

    def add(self, mean_nats: float | Tensor, tokens: int, characters: int = 0) -> None:
        """Add `tokens` tokens that cost `mean_nats` nats each on average.

        Args:
            mean_nats: a number, or a scalar tensor (read here: this waits for the device).
            tokens: how many; with 0 the mean, NaN perhaps, is not looked at.
            characters: the characters they stand for.
        Raises:
            OptionError: if a count is negative.
        """
        if tokens < 0 or characters < 0:
            found = f"{tokens} tokens, {characters} characters"
            raise OptionError(f"tally: expected counts of 0 or more, found {found}")
        if tokens:
            self.nats += float(mean_nats) * tokens
        self.tokens += tokens
        self.characters += characters

    def merge(self, other: Tally) -> Tally:
        """The tally of both stretches; neither is changed."""
        return Tally(
            self.nats + other.nats,
            self.tokens + other.tokens,
            self.characters + other.characters,
        )

    @property
    def nats_per_token(self) -> float:
        """Mean nats per token; NaN without tokens."""
        return self.nats / self.tokens if self.tokens else math.nan

    @property
    def cost(self) -> float:
        """Mean nats per token: what is minimised."""
        return self.nats_per_token

    @property
    def bits_per_token(self) -> float:
        """Mean bits per token; NaN without tokens."""
        return self.nats_per_token / _NATS_PER_BIT

    @property
    def nats_per_character(self) -> float:
        """Nats per character of text; NaN where characters were not counted."""
        return self.nats / self.characters if self.characters else math.nan

    @property
    def bits_per_character(self) -> float:
        """Bits per character of text; NaN where characters were not counted."""
        return self.nats_per_character / _NATS_PER_BIT

    @property
    def perplexity(self) -> float:
        """exp(nats per token); infinite where that is beyond float64."""
        return perplexity(self.nats_per_token)

    def summary(self) -> dict[str, float | int | None]:
        """All figures by name as JSON values; None where one is not a finite number."""
        figures = {
            "nats_per_token": self.nats_per_token,
            "bits_per_token": self.bits_per_token,
            "nats_per_character": self.nats_per_character,
            "bits_per_character": self.bits_per_character,
            "perplexity": self.perplexity,
        }
        finite = {k: v if math.isfinite(v) else None for k, v in figures.items()}
        return {"tokens": self.tokens, "characters": self.characters, **finite}

    def to_json(self) -> str:
        """The three sums; from_json gives them back exactly, NaN and infinity included."""
        nats = self.nats if math.isfinite(self.nats) else str(self.nats)
        return json.dumps({"nats": nats, "tokens": self.tokens, "characters": self.characters})

    @classmethod
    def from_json(cls, text: str) -> Tally:
        """The tally that `to_json` wrote.

        Raises:
            DataError: if `text` is not one.
        """
        try:
            found = json.loads(text)
            return cls(float(found["nats"]), int(found["tokens"]), int(found["characters"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"tally: expected its JSON, found {text[:60]!r}") from error


def perplexity(nats: float) -> float:
    """exp(nats), infinite where that is beyond float64."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf
