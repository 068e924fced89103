"""How much of a generated text stands in the training text: torch-rnn's novelty check.

For each length L, the share of the sample's substrings of L characters that occur in the training
text, and the longest passage that was copied, with its place.

The training text is read once, in blocks. Within a block every window of L characters has a rolling
hash modulo 2^64; windows whose hash is one of the sample's are compared character by character, so
the result is exact. Only what has not been found yet is looked for, and a length only where the
shorter one was found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gatewise.errors import DataError, OptionError

LENGTHS = (5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50)

Codes = NDArray[np.uint32]
Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

_BASE = np.uint64(0x9E3779B97F4A7C15)
_SPREAD = np.uint64(0xD6E8FEB86659FD93)
_TABLE_BITS = 16


@dataclass(frozen=True)
class Passage:
    """A piece of the sample that stands in the training text.

    Args:
        text: the passage.
        sample_start: where it begins in the sample, in characters.
        training_start: where it begins in its training document, in characters.
        document: number of that document.
    """

    text: str
    sample_start: int
    training_start: int
    document: int


@dataclass(frozen=True)
class Novelty:
    """The result of `novelty`.

    Args:
        lengths: L, in characters, rising.
        shares: of the sample's substrings of each length, the part that occurs in the training
            text, 0 to 1.
        counts: substrings of each length in the sample, repeated ones included.
        longest: the first of the longest copied passages; None if no character was seen before.
    """

    lengths: tuple[int, ...]
    shares: tuple[float, ...]
    counts: tuple[int, ...]
    longest: Passage | None

    def table(self) -> str:
        """The shares as lines of text."""
        lines = ["length  substrings  in training text"]
        for length, count, share in zip(self.lengths, self.counts, self.shares, strict=True):
            lines.append(f"{length:6}  {count:10,}  {share:16.2%}")
        return "\n".join(lines)


def novelty(
    sample: str, training: str | Iterable[str], lengths: Sequence[int] = LENGTHS
) -> Novelty:
    """Compare a generated text with the text that its model was trained on.

    Args:
        sample: the generated text.
        training: the training text, or its documents one by one; a passage lies within one
            document.
        lengths: substring lengths in characters.

    Raises:
        OptionError: if a length is not positive.
        DataError: if the sample is empty.
    """
    wanted = tuple(sorted(set(lengths)))
    if not wanted or wanted[0] < 1:
        raise OptionError(f"lengths: expected whole numbers of 1 or more, found {list(lengths)}")
    if not sample:
        raise DataError("expected a sample of at least one character, found an empty text")
    search = _Search(_codes(sample), wanted)
    for number, document in enumerate([training] if isinstance(training, str) else training):
        search.read(_codes(document), number)
    counts = tuple(max(0, len(sample) - length + 1) for length in wanted)
    shares = tuple(
        int((search.known >= length).sum()) / count if count else 0.0
        for length, count in zip(wanted, counts, strict=True)
    )
    longest = None
    if search.best:
        start = search.place[0]
        longest = Passage(sample[start : start + search.best], *search.place)
    return Novelty(wanted, shares, counts, longest)


class _Search:
    """What has been found so far.

    Attributes:
        known: for each place of the sample, the largest wanted length found to occur from there.
        best: length of the longest copied passage; `place` (sample, training, document) is its.
    """

    block = 1 << 19
    """Training characters per step: a few arrays of 4 MiB stay in the processor's cache."""

    def __init__(self, sample: Codes, lengths: tuple[int, ...]) -> None:
        self._sample = sample
        self._lengths = lengths
        self._prefix = _Prefix(sample)
        self.known: Places = np.zeros(len(sample), np.int64)
        self.best = 0
        self.place = (0, 0, 0)

    def read(self, document: Codes, number: int) -> None:
        """Look through one document."""
        reach = max(self._lengths[-1], len(self._sample))
        for start in range(0, len(document), self.block):
            # windows begin inside the block and may end behind it
            text = document[start : start + self.block + reach - 1]
            self._look_through(text, min(self.block, len(document) - start), start, number)

    def _look_through(self, text: Codes, starts: int, offset: int, number: int) -> None:
        prefix = _Prefix(text)
        alive: Places = np.arange(len(self._sample))
        for length in self._lengths:
            alive = alive[alive <= len(self._sample) - length]
            open_places = alive[self.known[alive] < length]
            found, _ = self._occurring(open_places, length, prefix, starts)
            self.known[found] = length
            # a longer passage from a place known before may lie in this block too
            alive = alive[self.known[alive] >= length]
            if not len(alive):
                break
        self._look_for_longest(prefix, starts, offset, number)

    def _look_for_longest(self, prefix: _Prefix, starts: int, offset: int, number: int) -> None:
        """A passage longer than the best so far: doubling steps, then halving ones."""
        low, step = self.best, 1
        limit = min(len(self._sample), len(prefix.codes))
        growing = True
        while step:
            length = low + step
            places, at = self._all_occurring(length, prefix, starts) if length <= limit else _NONE
            if len(places):
                low = length
                self.best, self.place = length, (int(places[0]), int(at[0]) + offset, number)
            else:
                growing = False
            step = step * 2 if growing else step // 2

    def _all_occurring(self, length: int, prefix: _Prefix, starts: int) -> tuple[Places, Places]:
        return self._occurring(
            np.arange(len(self._sample) - length + 1), length, prefix, starts, first_only=True
        )

    def _occurring(
        self,
        places: Places,
        length: int,
        prefix: _Prefix,
        starts: int,
        first_only: bool = False,
    ) -> tuple[Places, Places]:
        """Those of `places` whose `length` characters occur in the block, and where."""
        starts = min(starts, len(prefix.codes) - length + 1)
        if not len(places) or starts <= 0:
            return _NONE
        hashes = self._prefix.hashes(length)[places]
        unique, inverse = np.unique(hashes, return_inverse=True)
        windows = prefix.hashes(length)[:starts]
        near = np.flatnonzero(_table(unique)[_slot(windows)])
        rank = np.searchsorted(unique, windows[near])
        rank[rank == len(unique)] = 0
        hit = unique[rank] == windows[near]
        near, rank = near[hit], rank[hit]
        if first_only and not len(near):
            return _NONE
        at = np.full(len(unique), -1, np.int64)
        at[rank[::-1]] = near[::-1]  # the first window of each hash
        found_at = at[inverse]
        same = found_at >= 0
        same[same] = self._equal(places[same], found_at[same], length, prefix.codes)
        for lost in np.flatnonzero((found_at >= 0) & ~same):
            # two texts of one hash: try the other windows that have it
            others = near[rank == inverse[lost]]
            equal = self._equal(np.full(len(others), places[lost]), others, length, prefix.codes)
            if equal.any():
                same[lost], found_at[lost] = True, others[equal.argmax()]
        return places[same], found_at[same]

    def _equal(self, places: Places, at: Places, length: int, text: Codes) -> NDArray[np.bool_]:
        """Whether sample and text agree for `length` characters from each pair of places."""
        same = np.ones(len(places), bool)
        # in slabs, so that many long windows need little memory
        slab = max(1, (1 << 22) // length)
        steps = np.arange(length)
        for first in range(0, len(places), slab):
            rows = slice(first, first + slab)
            ours = self._sample[places[rows, None] + steps]
            same[rows] = (ours == text[at[rows, None] + steps]).all(axis=1)
        return same


_NONE: tuple[Places, Places] = (np.zeros(0, np.int64), np.zeros(0, np.int64))


class _Prefix:
    """Polynomial prefix sums of a text, from which the hash of any window is one subtraction."""

    def __init__(self, codes: Codes) -> None:
        self.codes = codes
        self._powers = _powers(_BASE, len(codes) + 1)
        sums = np.zeros(len(codes) + 1, np.uint64)
        np.cumsum((codes.astype(np.uint64) + np.uint64(1)) * self._powers[:-1], out=sums[1:])
        self._sums = sums
        self._inverse = _powers(np.uint64(pow(int(_BASE), -1, 1 << 64)), len(codes) + 1)

    def hashes(self, length: int) -> Hashes:
        """The hash of each window of `length` characters: sum of (code + 1) * base^k mod 2^64."""
        windows = self._sums[length:] - self._sums[:-length]
        windows *= self._inverse[: len(windows)]
        # high bits depend on all characters, low ones on few: mix them
        windows ^= windows >> np.uint64(32)
        windows *= _SPREAD
        return windows


def _powers(base: np.uint64, count: int) -> Hashes:
    """base^0 ... base^(count - 1) modulo 2^64."""
    powers = np.full(count, base, np.uint64)
    powers[:1] = 1
    return np.multiply.accumulate(powers)


def _slot(hashes: Hashes) -> NDArray[np.uint64]:
    return hashes >> np.uint64(64 - _TABLE_BITS)


def _table(hashes: Hashes) -> NDArray[np.bool_]:
    """True at the slots that `hashes` fall into: a small filter before the exact search."""
    table = np.zeros(1 << _TABLE_BITS, bool)
    table[_slot(hashes)] = True
    return table


def _codes(text: str) -> Codes:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
