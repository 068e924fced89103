"""States of texts that have been read, so that a text that goes on, or was changed in the middle, is not read again.

A text is known by its own characters: nothing is hashed, so a state is never another text's. Of a long text the
states are kept ever sparser towards its beginning, so that it takes some dozens of them and a change in the middle
costs a part of what stands behind it. One cache serves one model with one control: who changes either takes
another cache.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from gatewise.generate.sampling import BEFORE
from gatewise.text.base import Tokenizer

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

MOST_BYTES = 256 << 20
_HEADS = (16, 256, 4096)
"""Characters by which texts are sorted into buckets: many texts begin alike, few go on so."""
_TRIED = 32
"""Texts that are compared, those of the longest common head first."""
_NEAR = 1
"""Characters and tokens that a document may lack of a text: no better one is sought then."""
_SPARSE = 8
"""States that are kept of a text: those at distance d from its end lie at least d / 8 apart."""
_ALL = 12
"""Up to so many states nothing is dropped."""
_OF_A_TEXT, _OF_A_STATE, _OF_AN_END = 1500, 600, 140
"""Bytes that objects take beside what is in them, measured."""


class _Growing:
    """Tokens that are appended to: copied seldom."""

    def __init__(self, ids: Array) -> None:
        self._room = np.array(ids, np.int32)
        self.size = len(ids)

    def __getitem__(self, place: slice) -> Array:
        found: Array = self._room[: self.size][place]
        return found

    def cut(self, size: int, more: Array) -> None:
        """The first `size`, and more."""
        total = size + len(more)
        if total > len(self._room):
            room = np.empty(2 * total, np.int32)
            room[:size] = self._room[:size]
            self._room = room
        self._room[size:total] = more
        self.size = total

    def copy(self, size: int) -> _Growing:
        """The first `size` in another place."""
        return _Growing(self._room[:size])

    @property
    def nbytes(self) -> int:
        """In memory."""
        return int(self._room.nbytes)


@dataclass(eq=False)
class _Document:
    """A text that was read.

    Args:
        text: as far as its tokens go.
        ids: of the text.
        ends: (characters, tokens) at places where it may be cut, ascending.
        kept: tokens that were read -> the state then, (R,).
        heads: beginnings by which it is found.
    """

    text: str
    ids: _Growing
    ends: list[tuple[int, int]]
    kept: dict[int, Tensor]
    heads: tuple[str, ...] = ()
    nbytes: int = 0

    def weigh(self) -> None:
        """Note what it takes."""
        states = sum(state.nbytes + _OF_A_STATE for state in self.kept.values())
        ends = _OF_AN_END * len(self.ends)
        texts = sum(map(sys.getsizeof, (self.text, *self.heads)))
        self.nbytes = _OF_A_TEXT + texts + self.ids.nbytes + ends + states


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of a text.

    Args:
        text: the text.
        ids: its tokens from `position` on, as far as they are not read.
        position: tokens of it that the state has read.
        state: after those, (R,); None: nothing is known, position is 0.
        total: tokens of the whole text.
        last: the last `BEFORE` of them, or all: a decoder may need them.
    """

    text: str
    ids: Array
    position: int
    state: Tensor | None
    total: int
    last: Array
    _from: _Document | None
    _common: tuple[int, int]
    _tail: Array
    _ends: list[tuple[int, int]]


class StateCache:
    """States of texts by the texts themselves; the longest known beginning is found.

    Args:
        tokenizer: of the model.
        most_bytes: what texts and states may take; the texts used longest ago are forgotten first.
    """

    def __init__(self, tokenizer: Tokenizer, most_bytes: int = MOST_BYTES) -> None:
        self._tokenizer, self._most = tokenizer, most_bytes
        self._dense = tokenizer.kind == "char"
        self._buckets: dict[str, dict[int, _Document]] = {}
        self._used: OrderedDict[int, _Document] = OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._used)

    def find(self, text: str) -> Known:
        """The longest beginning of a text whose state is known; its last token is always left to be read."""
        document, common = self._nearest(text)
        if document is not None:
            self._used.move_to_end(id(document))
        characters, tokens = (0, 0) if document is None else self._place(document, text, common)
        tail, ends = self._encode(text[characters:], characters, tokens)
        position, state = 0, None
        total = tokens + len(tail)
        if document is not None:
            same = tokens + _common_tokens(document.ids[tokens : tokens + len(tail)], tail)
            position = max((p for p in document.kept if p <= min(same, total - 1)), default=0)
            state = document.kept.get(position)
        if position >= tokens:
            left = tail[position - tokens :]
        else:
            assert document is not None
            left = np.concatenate((document.ids[position:tokens], tail))
        last = tail[-BEFORE:]
        if document is not None and len(last) < BEFORE:
            begin = max(0, tokens - BEFORE + len(last))
            last = np.concatenate((document.ids[begin:tokens], last))
        place = characters, tokens
        return Known(text, left, position, state, total, last, document, place, tail, ends)

    def keep(self, known: Known, states: dict[int, Tensor]) -> None:
        """Note the states of a text that was found and then read.

        Args:
            known: of `find`.
            states: tokens of the whole text that were read -> the state then, (R,).
        """
        document, (characters, tokens) = known._from, known._common
        if document is not None and id(document) not in self._used:  # forgotten, or gone on with
            known = self.find(known.text)
            document, (characters, tokens) = known._from, known._common
        if not states and (document is None or not known.position):
            return  # a text without a state is of no use
        if document is not None and known.text.startswith(document.text):
            self._forget(document)  # it goes on: the same text, longer
            document.ids.cut(tokens, known._tail)
            kept = {p: s for p, s in document.kept.items() if p <= known.position} | states
            ends = [one for one in document.ends if one[0] <= characters]
            new = _Document(known.text, document.ids, ends + known._ends, kept)
        elif document is not None:
            ids = document.ids.copy(tokens)
            ids.cut(tokens, known._tail)
            kept = {p: s for p, s in document.kept.items() if p <= known.position} | states
            ends = [one for one in document.ends if one[0] <= characters]
            new = _Document(known.text, ids, ends + known._ends, kept)
        else:
            new = _Document(known.text, _Growing(known.ids), known._ends, dict(states))
        thin(new.kept, known.total)
        self._remember(new)

    def recent(self, count: int) -> list[str]:
        """The texts that were used last, the newest first; any thread may ask."""
        return [document.text for document in list(self._used.values())[: -count - 1 : -1]]

    def clear(self) -> None:
        """Forget everything."""
        self._buckets.clear()
        self._used.clear()
        self.nbytes = 0

    # --- texts -----------------------------------------------------------------------------------

    def _nearest(self, text: str) -> tuple[_Document | None, int]:
        """The document with the latest state that may serve, and the length of the common beginning."""
        best: tuple[int, int] = (-1, 0)
        found: _Document | None = None
        for document in self._beginning_alike(text):
            common = common_characters(text, document.text)
            characters, tokens = self._place(document, text, common)
            most = tokens + common - characters  # no token has less than a character
            latest = max((p for p in document.kept if p <= most), default=0)
            if (latest, common) > best:
                best, found = (latest, common), document
            if common + _NEAR >= len(text) and latest + _NEAR >= most:
                break
        return found, best[1]

    def _beginning_alike(self, text: str) -> Iterator[_Document]:
        """Some documents, of those that are alike for longest the newest first."""
        tried: set[int] = set()
        for head in reversed(_heads(text)):
            for number, document in reversed(self._buckets.get(head, {}).items()):
                if number not in tried:
                    tried.add(number)
                    yield document
                if len(tried) == _TRIED:
                    return

    def _place(self, document: _Document, text: str, common: int) -> tuple[int, int]:
        """(characters, tokens) of the last place within the common beginning at which it may be cut."""
        if self._dense:
            return common, common
        within = self._tokenizer.cut(text[:common])
        at = bisect_right(document.ends, (within, 1 << 60)) - 1
        return document.ends[at] if at >= 0 else (0, 0)

    def _encode(
        self, text: str, characters: int, tokens: int
    ) -> tuple[Array, list[tuple[int, int]]]:
        """The tokens of the rest of a text, and where it may be cut."""
        if self._dense:
            return self._tokenizer.encode(text), []
        parts, ends, done = [], [], 0
        while len(text) - done > _PIECE:
            size = self._tokenizer.cut(text[done : done + _PIECE])
            reach = _PIECE
            while not size and (reach := 2 * reach) < len(text) - done:  # a long word stays whole
                size = self._tokenizer.cut(text[done : done + reach])
            if not size:
                break
            parts.append(self._tokenizer.encode(text[done : done + size]))
            done += size
            characters, tokens = characters + size, tokens + len(parts[-1])
            ends.append((characters, tokens))
        rest = text[done:]
        size = self._tokenizer.cut(rest)
        if size:
            parts.append(self._tokenizer.encode(rest[:size]))
            ends.append((characters + size, tokens + len(parts[-1])))
        if size < len(rest):
            parts.append(self._tokenizer.encode(rest[size:]))
        return (np.concatenate(parts) if parts else np.zeros(0, np.int64)), ends

    # --- memory ----------------------------------------------------------------------------------

    def _remember(self, document: _Document) -> None:
        document.heads = _heads(document.text)
        for old in list(self._buckets.get(document.heads[-1], {}).values()):
            if old.text == document.text:
                self._forget(old)
        for head in document.heads:
            self._buckets.setdefault(head, {})[id(document)] = document
        self._used[id(document)] = document
        document.weigh()
        self.nbytes += document.nbytes
        while self.nbytes > self._most and self._used:
            self._forget(next(iter(self._used.values())))

    def _forget(self, document: _Document) -> None:
        self._used.pop(id(document))
        self.nbytes -= document.nbytes
        for head in document.heads:
            bucket = self._buckets[head]
            del bucket[id(document)]
            if not bucket:
                del self._buckets[head]


_PIECE = 256
"""Characters between places at which a text may be cut."""


def _heads(text: str) -> tuple[str, ...]:
    """Its beginnings, the short one first."""
    return (text[: _HEADS[0]], *(text[:size] for size in _HEADS[1:] if size <= len(text)))


def common_characters(one: str, other: str) -> int:
    """Length of the longest common beginning, by comparing halves."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _common_tokens(one: Array, other: Array) -> int:
    """Length of the longest common beginning."""
    size = min(len(one), len(other))
    different = np.nonzero(one[:size] != other[:size])[0]
    return int(different[0]) if len(different) else size


def thin(kept: dict[int, Tensor], total: int) -> None:
    """Drop states that lie close together, far from the end."""
    if len(kept) <= _ALL:
        return
    last: int | None = None
    for position in sorted(kept, reverse=True):
        if last is not None and (last - position) * _SPARSE < total - position:
            del kept[position]
        else:
            last = position
