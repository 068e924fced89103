"""Answers written character by character: how many characters, and how many whole answers, are right."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from gatewise.metrics.tally import Tally
from gatewise.text.batches import PADDING


@dataclass
class AnswerTally:
    """What a model makes of questions whose answers are known.

    Each character is judged given the right ones before it (teacher forcing). A whole answer counts
    where every one of its characters, the end included, is the most probable there: which is where a
    model that reads its own characters, each the most probable, writes just this answer.

    Args:
        cost_of: nats, characters.
        right: characters that were the most probable.
        answers, exact: answers, and those that are right as a whole.
        stage: what else a summary says, by name: how hard the examples are now.
    """

    cost_of: Tally = field(default_factory=Tally)
    right: int = 0
    answers: int = 0
    exact: int = 0
    stage: dict[str, Any] = field(default_factory=dict)

    def add(self, logits: Tensor, targets: Tensor) -> None:
        """Add a batch.

        Args:
            logits: (T, B, V).
            targets: (T, B), PADDING where nothing is asked.
        """
        counts = targets != PADDING
        logs = logits.double().log_softmax(-1)
        wanted = targets.clamp(min=0)
        nats = -logs.gather(-1, wanted.unsqueeze(-1))[..., 0][counts].sum()
        hit = (logits.argmax(-1) == targets) | ~counts
        asked = counts.any(0)
        self.cost_of = self.cost_of.merge(Tally(float(nats), int(counts.sum())))
        self.right += int((hit & counts).sum())
        self.answers += int(asked.sum())
        self.exact += int((hit.all(0) & asked).sum())

    @property
    def cost(self) -> float:
        """Mean nats of a character."""
        return self.cost_of.nats_per_token

    @property
    def character_accuracy(self) -> float:
        """Share of characters that are right, given those before; NaN without any."""
        return self.right / self.cost_of.tokens if self.cost_of.tokens else math.nan

    @property
    def exact_accuracy(self) -> float:
        """Share of answers that are right as a whole; NaN without any."""
        return self.exact / self.answers if self.answers else math.nan

    def summary(self) -> dict[str, Any]:
        """All figures by name; None where one is not a finite number."""
        figures = {
            "nats_per_token": self.cost,
            "character_accuracy": self.character_accuracy,
            "exact": self.exact_accuracy,
        }
        finite = {k: v if math.isfinite(v) else None for k, v in figures.items()}
        return {"answers": self.answers, "tokens": self.cost_of.tokens} | finite | self.stage


__all__ = ["AnswerTally"]
