"""People who write, as a load: who presses a key when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

KEYS = 5.0
"""A second, of one writer."""
_SHAPE = 4.0  # of the gamma distribution of the times between keys: a spread of half their mean


@dataclass(frozen=True)
class Load:
    """How people write: each has a document, and presses five keys a second, now faster, now slower.

    Args:
        characters: that a document has before anything is typed.
        rate: keys a second, of all together.
        seconds: how long.
        seed: of who types when.
    """

    characters: int
    rate: float
    seconds: float
    seed: int = 1

    @property
    def writers(self) -> int:
        """How many there are."""
        return max(1, round(self.rate / KEYS))

    def keys(self) -> tuple[Any, Any]:
        """(N,) seconds at which keys are due, ascending, and (N,) whose they are."""
        draw = np.random.default_rng(self.seed)
        each = self.rate / self.writers
        count = int(2 * each * self.seconds) + 8
        gaps = draw.gamma(_SHAPE, 1 / (_SHAPE * each), (self.writers, count))
        due = draw.random((self.writers, 1)) / each + np.cumsum(gaps, axis=1) - gaps[:, :1]
        who = np.broadcast_to(np.arange(self.writers)[:, None], due.shape)
        kept = due < self.seconds
        order = np.argsort(due[kept], kind="stable")
        return due[kept][order], who[kept][order]


class Key(NamedTuple):
    """One keystroke.

    Args:
        number: of all, ascending with `due`.
        due: seconds after the beginning.
        writer: whose.
        prefix: the document up to there.
    """

    number: int
    due: float
    writer: int
    prefix: str


class Typing:
    """What people type of a text: each begins somewhere in it, with a document of so many characters.

    Args:
        load: how they type.
        text: a short one is typed again.
    """

    def __init__(self, load: Load, text: str) -> None:
        self.due, self._who = load.keys()
        count = len(self.due)
        self._text = text * -(-(load.characters + count + 1) // len(text))
        self._starts = np.random.default_rng(load.seed).integers(
            max(1, len(self._text) - load.characters - count), size=load.writers
        )
        self._ends = self._starts + load.characters

    @property
    def opened(self) -> list[str]:
        """The documents before anything is typed."""
        return [self._text[begin:end] for begin, end in zip(self._starts, self._ends, strict=True)]

    def keystrokes(self) -> Iterator[Key]:
        """All keystrokes, in the order of time."""
        ends = self._ends.copy()
        for k, (due, writer) in enumerate(zip(self.due.tolist(), self._who.tolist(), strict=True)):
            ends[writer] += 1
            yield Key(k, due, writer, self._text[self._starts[writer] : ends[writer]])
