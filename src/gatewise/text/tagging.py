"""What a tagger reads and says, as ids: words, the characters that words are made of, and tags; in one JSON document.

A word outside the vocabulary is `UNKNOWN`, and its characters still tell what it looks like. Words are looked up as
they are, or in lower case; characters keep their case always.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gatewise.errors import DataError, OptionError
from gatewise.text.base import (
    FORMAT,
    MAX_VOCABULARY,
    UNKNOWN,
    Ids,
    broken,
    from_document,
    to_document,
)

PADDING, NEVER_SEEN = 0, 1
"""Ids of characters: behind a word's end, and one that training never saw. Of words NEVER_SEEN is 0."""

LONGEST = 40
"""Characters of a word that are read: of a longer one its first and last halves."""

_DIGITS = re.compile(r"\d")


class TagTokens:
    """Words, characters and tags as ids.

    >>> tokens = TagTokens.build([(["Ann", "sings"], ["B-PER", "O"])])
    >>> tokens.word_ids(["Ann", "swims"]).tolist(), tokens.tags
    ([1, 0], ['B-PER', 'O'])

    Args:
        words: in the order of their ids, from 1.
        characters: in the order of their ids, from 2.
        tags: in the order of their ids.
        lowercase: whether words are looked up in lower case.
    """

    def __init__(
        self, words: Sequence[str], characters: str, tags: Sequence[str], *, lowercase: bool = False
    ) -> None:
        self.words, self.characters, self.tags = list(words), characters, list(tags)
        self.lowercase = lowercase
        self._words = {word: k for k, word in enumerate(self.words, 1)}
        self._characters = {mark: k for k, mark in enumerate(characters, 2)}
        self._tags = {tag: k for k, tag in enumerate(self.tags)}

    @classmethod
    def build(
        cls,
        sentences: Iterable[tuple[Sequence[str], Sequence[str]]],
        *,
        min_count: int = 1,
        vocab_size: int | None = None,
        lowercase: bool = False,
    ) -> TagTokens:
        """Those of the training part.

        Args:
            sentences: words and tags.
            min_count: words that occur less often are unknown.
            vocab_size: at most so many words, the most frequent.
            lowercase: look words up in lower case.
        Raises:
            DataError: if there is no word, or more than `MAX_VOCABULARY`.
            OptionError: if an option is outside its range.
        """
        if vocab_size is not None and vocab_size < 1:
            raise OptionError(f"--vocab-size: expected at least 1, found {vocab_size}")
        counts: Counter[str] = Counter()
        marks: set[str] = set()
        tags: set[str] = set()
        for words, own in sentences:
            counts.update(_normal(word, lowercase) for word in words)
            marks.update(*words)
            tags.update(own)
        kept = [word for word, count in counts.most_common(vocab_size) if count >= min_count]
        if not counts or len(kept) > MAX_VOCABULARY:
            raise DataError(
                f"expected from one to {MAX_VOCABULARY:,} different words to train on, found {len(kept)}"
            )
        return cls(kept, "".join(sorted(marks)), sorted(tags), lowercase=lowercase)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Ids of words, characters and tags."""
        return len(self.words) + 1, len(self.characters) + 2, len(self.tags)

    def word_ids(self, words: Sequence[str]) -> Ids:
        """The ids of words; 0 for one that is not known."""
        found = [self._words.get(_normal(word, self.lowercase), 0) for word in words]
        return np.array(found, np.int64)

    def character_ids(self, word: str) -> Ids:
        """The ids of a word's characters, at least one."""
        if len(word) > LONGEST:
            word = word[: LONGEST // 2] + word[-LONGEST // 2 :]
        return np.array([self._characters.get(mark, NEVER_SEEN) for mark in word] or [1], np.int64)

    def tag_ids(self, tags: Sequence[str]) -> Ids:
        """The ids of tags; -1 for one that training never saw."""
        return np.array([self._tags.get(tag, -1) for tag in tags], np.int64)

    def unknowns(self, words: Sequence[str]) -> list[str]:
        """The distinct words that the vocabulary does not hold."""
        found = self.word_ids(words)
        return list(dict.fromkeys(word for word, k in zip(words, found, strict=True) if not k))

    def to_json(self) -> str:
        """All as one document; `from_json` reads it.

        Raises:
            DataError: if it is larger than what `from_json` accepts.
        """
        content = {
            "format": FORMAT,
            "kind": "tags",
            "lowercase": self.lowercase,
            "words": self.words,
            "characters": self.characters,
            "tags": self.tags,
        }
        return to_document(content)

    @classmethod
    def from_json(cls, text: str | None) -> TagTokens:
        """What `to_json` wrote. Nothing in it is trusted.

        Raises:
            CheckpointError: if it is anything else.
        """
        found = from_document(text, "tags", "words, characters and tags")
        words, tags = _texts(found.get("words")), _texts(found.get("tags"))
        characters, lowercase = found.get("characters"), found.get("lowercase")
        if not isinstance(characters, str) or len(set(characters)) != len(characters):
            raise broken("expected different characters")
        if not isinstance(lowercase, bool) or not tags or len(words) > MAX_VOCABULARY:
            raise broken("expected tags, and 'lowercase', true or false")
        return cls(words, characters, tags, lowercase=lowercase)


def _normal(word: str, lowercase: bool) -> str:
    """A word as it is looked up: digits are all alike, since numbers hardly occur twice."""
    word = _DIGITS.sub("0", word)
    return word.lower() if lowercase else word


def _texts(found: Any) -> list[str]:
    whole = isinstance(found, list) and all(isinstance(one, str) for one in found)
    if not whole or len(set(found)) != len(found):
        raise broken("expected lists of different texts")
    return list(found)


__all__ = ["LONGEST", "NEVER_SEEN", "PADDING", "UNKNOWN", "TagTokens"]
