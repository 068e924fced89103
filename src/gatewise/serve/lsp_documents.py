"""A text that an editor has open: kept in step with its edits, and places in it by lines and code units.

It knows the protocol's rules (what ends a line, what a position beyond a line means, three ways to count) and
nothing of servers or models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"

UNITS = ("utf-16", "utf-32", "utf-8")
"""What characters of a position may count; the first where nothing is agreed upon."""
_BYTES = {"utf-16": ("utf-16-le", 2), "utf-8": ("utf-8", 1)}

_END = re.compile(r"\r\n|\n|\r")
_WORD = re.compile(r"\w*\Z")


class Place(NamedTuple):
    """A position: line and units before it in that line, both from 0."""

    line: int
    character: int


class Change(NamedTuple):
    """`text` in place of what is between two places; without places, of everything."""

    text: str
    start: Place | None = None
    end: Place | None = None


class Document:
    """A text that is edited.

    Args:
        text: as it was opened; halves of characters are read as U+FFFD.
        units: what the characters of a position count: one of `UNITS`.

    Attributes:
        text: all of it, line ends as they are.
        version: as the editor counts.
    """

    def __init__(self, text: str, units: str = UNITS[0], version: int = 0) -> None:
        self.text, self.version, self._units = whole(text), version, units
        self._starts = _lines([0], self.text)

    def change(self, changes: Iterable[Change]) -> int:
        """Apply edits, one after the other.

        Returns:
            Where the last one ended, in characters of the text: most likely the place where the user writes.
        """
        at = len(self.text)
        for text, start, end in changes:
            if start is None:
                self.text = whole(text)
                self._starts = _lines([0], self.text)
                at = len(self.text)
            else:
                first = self.offset(start)
                last = max(first, self.offset(start if end is None else end))
                at = self._replace(first, last, whole(text))
        return at

    def offset(self, place: Place) -> int:
        """A position in characters; beyond a line it is the line's end, beyond the text the text's."""
        if place.line >= len(self._starts):
            return len(self.text)
        start, end = self._line(place.line)
        if self._units == "utf-32":
            return min(start + place.character, end)
        encoding, size = _BYTES[self._units]
        # within a character is before it
        before = self.text[start:end].encode(encoding)[: size * place.character]
        return start + len(before.decode(encoding, "ignore"))

    def place(self, offset: int) -> Place:
        """Where a character is, as a position."""
        line = int(np.searchsorted(self._starts, offset, "right")) - 1
        before = self.text[int(self._starts[line]) : offset]
        if self._units == "utf-32":
            return Place(line, len(before))
        encoding, size = _BYTES[self._units]
        return Place(line, len(before.encode(encoding)) // size)

    def word(self, offset: int) -> int:
        """Where the word that ends there begins; there itself where none does."""
        start, _ = self._line(self.place(offset).line)
        found = _WORD.search(self.text[start:offset])
        return offset if found is None else start + found.start()

    def rest(self, offset: int) -> str:
        """What follows in the same line."""
        return self.text[offset : self._line(self.place(offset).line)[1]]

    def _line(self, line: int) -> tuple[int, int]:
        """Where a line begins, and where it ends without what ends it."""
        start = int(self._starts[line])
        if line + 1 == len(self._starts):
            return start, len(self.text)
        end = int(self._starts[line + 1])
        cut = 2 if self.text.endswith("\r\n", start, end) else 1
        return start, end - cut

    def _replace(self, first: int, last: int, new: str) -> int:
        self.text = self.text[:first] + new + self.text[last:]
        end = first + len(new)
        # whether a line begins at a character depends on it and on the one before
        before = self._starts[: np.searchsorted(self._starts, first, "left")]
        after = self._starts[np.searchsorted(self._starts, last, "right") :] + (end - last)
        between = [at for at in _starts(self.text, first, end) if first <= at <= end]
        head = [0] if first == 0 else []
        inside = np.array(head + [at for at in between if at], np.int64)
        self._starts = np.concatenate((before, inside, after))
        return end


def _lines(head: list[int], text: str) -> Array:
    return np.array(head + [found.end() for found in _END.finditer(text)], np.int64)


def _starts(text: str, first: int, end: int) -> Iterator[int]:
    """Beginnings of lines from `first` to `end`: a carriage return before a line feed ends no line."""
    low = max(0, first - 1)
    if low and text[low] == "\n" and text[low - 1] == "\r":
        low -= 1
    for found in _END.finditer(text, low, min(len(text), end + 1)):
        yield found.end()


def whole(text: str) -> str:
    """`text` with U+FFFD for halves of characters, which a client's JSON can hold: as many units of UTF-16."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
