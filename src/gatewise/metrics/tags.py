"""How good predicted tags are: of all words, of those that training knew and did not know, and as spans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gatewise.metrics.classes import UNKNOWN, Array, ClassTally
from gatewise.metrics.spans import SpanTally, has_spans

OUTSIDE = "?"
"""What stands for a tag that the model does not know, among the true ones."""


class TagTally:
    """Tags of sentences, summed up.

    >>> tally = TagTally(["B-PER", "O"])
    >>> tally.add(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 0]), np.array([True, False]))
    >>> tally.accuracy, tally.known_accuracy, tally.unknown_accuracy, round(tally.spans.f1, 4)
    (0.5, 1.0, 0.0, 0.6667)

    Args:
        tags: their names, in the order of the probabilities.
    Attributes:
        classes: of all words: accuracy, confusion, nats.
        spans: counted as conlleval does; None where the tags mark none.
    """

    def __init__(self, tags: Sequence[str]) -> None:
        self.tags = list(tags)
        self.classes = ClassTally(tags)
        self.spans = SpanTally() if has_spans(tags) else None
        self.sentences = self.whole = 0
        self._right = np.zeros(2, np.int64)  # of unknown and known words
        self._words = np.zeros(2, np.int64)

    def add(self, chances: Array, targets: Array, known: Array) -> None:
        """Add a sentence.

        Args:
            chances: probabilities of the tags of each word, (T, K).
            targets: true tags, (T,); -1 where the model has none.
            known: whether the vocabulary holds each word, (T,).
        """
        if not len(targets):
            return
        self.classes.add(chances, targets)
        said = chances.argmax(1)
        right = said == targets
        self.sentences += 1
        self.whole += int(right.all())
        for k in (0, 1):
            self._words[k] += int((known == k).sum())
            self._right[k] += int(right[known == k].sum())
        if self.spans is not None:
            true = [OUTSIDE if k == UNKNOWN else self.tags[k] for k in targets.tolist()]
            self.spans.add(true, [self.tags[k] for k in said.tolist()])

    @property
    def cost(self) -> float:
        """Mean nats of a tag that the model knows."""
        return self.classes.cost

    @property
    def accuracy(self) -> float:
        """Share of words with the right tag."""
        return self.classes.accuracy

    @property
    def known_accuracy(self) -> float:
        """The same of words that the vocabulary holds."""
        return self._share(1)

    @property
    def unknown_accuracy(self) -> float:
        """The same of words that it does not hold."""
        return self._share(0)

    def _share(self, k: int) -> float:
        return float(self._right[k] / self._words[k]) if self._words[k] else math.nan

    def summary(self) -> dict[str, Any]:
        """All figures by name as JSON values; None where one is not a finite number."""
        found = self.classes.summary()
        figures = {
            "accuracy": self.accuracy,
            "known_accuracy": self.known_accuracy,
            "unknown_accuracy": self.unknown_accuracy,
            "sentence_accuracy": self.whole / self.sentences if self.sentences else math.nan,
        }
        finite = {n: v if math.isfinite(v) else None for n, v in figures.items()}
        counts = {
            "sentences": self.sentences,
            "words": found["examples"],
            "unknown_words": int(self._words[0]),
            "unknown_tags": found["unknown_labels"],
        }
        spans: dict[str, Any] = {}
        if self.spans is not None:
            spans = {"span_f1": self.spans.summary()["f1"], "spans": self.spans.summary()}
        nats = {"nats_per_word": found["nats_per_example"], "macro_f1": found["macro_f1"]}
        table = {"tags": self.tags, "classes": found["classes"], "confusion": found["confusion"]}
        return {**counts, **nats, **finite, **spans, **table}
