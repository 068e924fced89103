"""Spans that tags mark (BIO, IOB1, IOE, IOBES, BILOU), and how many of them were found: what conlleval counts.

Knows tags as texts. A span is right if its kind, beginning and end all are. Tags that are no such marks at all
(parts of speech) make no spans.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

Span = tuple[str, int, int]
"""Kind, first word, and the word behind the last."""

_BEGIN, _END = "BSU", "ESUL"  # S and U are a span of one word, L ends one in BILOU


def spans(tags: Sequence[str]) -> list[Span]:
    """The spans in the tags of a sentence, as Tjong Kim Sang's conlleval finds them.

    A chunk begins at B, S or U, at a mark behind O or of another kind, and behind the end of another chunk.

    >>> spans(["B-PER", "I-PER", "O", "I-LOC", "S-ORG"])
    [('PER', 0, 2), ('LOC', 3, 4), ('ORG', 4, 5)]
    """
    found, begin = [], 0
    mark, kind = "O", ""
    for k, tag in enumerate([*tags, "O"]):
        new_mark, new_kind = _split(tag)
        if mark != "O" and _ends(mark, kind, new_mark, new_kind):
            found.append((kind, begin, k))
        if new_mark != "O" and (mark == "O" or _ends(mark, kind, new_mark, new_kind)):
            begin = k
        mark, kind = new_mark, new_kind
    return found


def _split(tag: str) -> tuple[str, str]:
    """B-PER as B and PER; a mark alone has no kind."""
    mark, _, kind = tag.partition("-")
    return (mark, kind) if mark in _MARKS else ("O", "")


_MARKS = frozenset("BIESUL")


def _ends(mark: str, kind: str, new_mark: str, new_kind: str) -> bool:
    """Whether a chunk ends between two marks."""
    return new_mark == "O" or kind != new_kind or mark in _END or new_mark in _BEGIN


def has_spans(tags: Sequence[str]) -> bool:
    """Whether a set of tags marks spans: O and B-, I-, ... and nothing else."""
    marks = [tag for tag in tags if tag != "O"]
    return bool(marks) and all(_split(tag)[0] != "O" for tag in marks)


class SpanTally:
    """Spans, true and found, counted by kind.

    >>> tally = SpanTally()
    >>> tally.add(["B-PER", "I-PER", "O", "B-LOC"], ["B-PER", "O", "O", "B-LOC"])
    >>> tally.precision, tally.recall, tally.f1
    (0.5, 0.5, 0.5)
    """

    def __init__(self) -> None:
        self.true: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self.right: Counter[str] = Counter()

    def add(self, true: Sequence[str], found: Sequence[str]) -> None:
        """The tags of a sentence, and those that a model gave."""
        expected, given = spans(true), spans(found)
        self.true.update(kind for kind, *_ in expected)
        self.found.update(kind for kind, *_ in given)
        self.right.update(kind for kind, *_ in set(expected) & set(given))

    @property
    def precision(self) -> float:
        """Share of the found spans that are right; NaN if none was found."""
        return _ratio(self.right.total(), self.found.total())

    @property
    def recall(self) -> float:
        """Share of the true spans that were found; NaN if there is none."""
        return _ratio(self.right.total(), self.true.total())

    @property
    def f1(self) -> float:
        """2 right / (found + true); NaN if there is nothing."""
        return _ratio(2 * self.right.total(), self.found.total() + self.true.total())

    def summary(self) -> dict[str, Any]:
        """All figures by name as JSON values, and those of each kind; None where a ratio is 0 / 0."""
        kinds = {}
        for kind in sorted(self.true.keys() | self.found.keys()):
            right, found, true = self.right[kind], self.found[kind], self.true[kind]
            shares = (_ratio(right, found), _ratio(right, true), _ratio(2 * right, found + true))
            kinds[kind] = dict(
                zip(("precision", "recall", "f1"), map(_finite, shares), strict=True)
            )
            kinds[kind] |= {"true": true, "found": found}
        whole = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {n: _finite(v) for n, v in whole.items()} | {"kinds": kinds}


def _ratio(above: int, below: int) -> float:
    return above / below if below else math.nan


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
