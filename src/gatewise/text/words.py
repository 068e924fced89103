"""One id per word between white space, and one for the end of a line.

The units of word_language_model (pytorch/examples): `line.split() + ["<eos>"]`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gatewise.errors import DataError, OptionError
from gatewise.text.base import (
    EOS,
    MAX_VOCABULARY,
    UNKNOWN,
    Ids,
    IncrementalDecoder,
    Tokenizer,
    as_ids,
    broken,
    display,
    surrogates,
)

MAX_WORD = 1000
"""Characters; a longer "word" never enters the vocabulary."""

_LAST_SPACE = re.compile(r"\s\S*\Z")


def words(text: str) -> list[str]:
    """The words of `text`, with `<eos>` for each line feed."""
    return text.replace("\n", f" {EOS} ").split()


class WordDecoder(IncrementalDecoder):
    """Joins words by spaces, and makes lines of what `<eos>` ends.

    Push the ids of a prompt first: the space before the first new word belongs to that word.
    """

    def __init__(self, vocabulary: list[str], eos_id: int) -> None:
        self._vocabulary = vocabulary
        self._eos_id = eos_id
        self._inside_line = False

    def push(self, id: int) -> str:
        if not 0 <= id < len(self._vocabulary):
            raise DataError(f"expected an id from 0 to {len(self._vocabulary) - 1}, found {id}")
        if id == self._eos_id:
            self._inside_line = False
            return "\n"
        space = " " if self._inside_line else ""
        self._inside_line = True
        return space + self._vocabulary[id]

    def copy(self) -> WordDecoder:
        twin = WordDecoder(self._vocabulary, self._eos_id)
        twin._inside_line = self._inside_line
        return twin


class WordTokenizer(Tokenizer):
    """One id per word; `<eos>` ends a line; `<unk>` is any word outside the vocabulary.

    A word `<eos>` or `<unk>` that stands in the text is that id (WikiText is written so).
    White space other than the line's end is not kept.

    Args:
        vocabulary: the words in the order of their ids, `<eos>` and `<unk>` among them.
    """

    kind = "word"
    unit = "word"

    def __init__(self, vocabulary: list[str]) -> None:
        self._vocabulary = vocabulary
        self._index = {word: i for i, word in enumerate(vocabulary)}
        self.vocab_size = len(vocabulary)
        self._unknown: int = self._index[UNKNOWN]
        self._eos: int = self._index[EOS]
        self.unknown_id = self._unknown
        self.eos_id = self._eos
        self.tokens = [display(word) for word in vocabulary]
        self._widths = np.array([len(word) for word in vocabulary], np.int64)
        self._widths[self._eos] = 1

    @classmethod
    def build(
        cls,
        chunks: Iterable[str],
        vocab_size: int | None = None,
        min_count: int = 1,
        order: str = "appearance",
    ) -> WordTokenizer:
        """The tokenizer of the words in `chunks`, which end where words end.

        Args:
            chunks: the text, in pieces.
            vocab_size: at most so many ids, `<eos>` and `<unk>` included: the most frequent
                words, the earlier one of two that are equally frequent.
            min_count: a word seen less often is left out.
            order: ids by first "appearance", or by "frequency" (for an adaptive softmax).

        Raises:
            DataError: if there is no word, or more than MAX_VOCABULARY.
            OptionError: if an option is outside its range.
        """
        if vocab_size is not None and vocab_size < 3:
            raise OptionError(f"expected vocab_size of at least 3 for words, found {vocab_size}")
        if order not in ("appearance", "frequency"):
            raise OptionError(f"expected order 'appearance' or 'frequency', found {order!r}")
        counts: Counter[str] = Counter()
        for chunk in chunks:
            counts.update(words(chunk))
        chosen = _choose(counts, vocab_size, min_count)
        if not any(word not in (EOS, UNKNOWN) for word in chosen):
            raise DataError(
                f"expected words seen at least {min_count} times, found none: "
                "give more text or a smaller --min-count"
            )
        if order == "frequency":
            chosen.sort(key=lambda word: -counts[word])
        vocabulary = chosen + [word for word in (EOS, UNKNOWN) if word not in chosen]
        if len(vocabulary) > MAX_VOCABULARY:
            raise DataError(
                f"expected at most {MAX_VOCABULARY} different words, found {len(vocabulary)}: "
                "cap them with --vocab-size or --min-count"
            )
        return cls(vocabulary)

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> WordTokenizer:
        """The tokenizer of a parsed, untrusted envelope."""
        vocabulary = content.get("words")
        if not isinstance(vocabulary, list) or not all(isinstance(w, str) for w in vocabulary):
            raise broken("expected 'words', a list of strings")
        if len(vocabulary) > MAX_VOCABULARY or len(set(vocabulary)) != len(vocabulary):
            raise broken(f"expected at most {MAX_VOCABULARY} words, each once")
        if EOS not in vocabulary or UNKNOWN not in vocabulary:
            raise broken(f"expected {EOS} and {UNKNOWN} among the words")
        if any(word.split() != [word] or len(word) > MAX_WORD for word in vocabulary):
            raise broken(f"expected words of 1 to {MAX_WORD} characters without white space")
        if surrogates("".join(vocabulary)):
            raise broken("'words' holds a surrogate")
        return cls(vocabulary)

    def _content(self) -> dict[str, Any]:
        return {"words": self._vocabulary}

    @staticmethod
    def cut(text: str) -> int:
        # A line feed and a space are looked for first: rfind is far faster than the pattern.
        last = max(text.rfind(" "), text.rfind("\n"))
        if last >= 0:
            return last + 1
        found = _LAST_SPACE.search(text)
        return found.start() + 1 if found else 0

    def encode(self, text: str) -> Ids:
        units = words(text)
        ids = map(self._index.get, units, repeat(self._unknown))
        return np.fromiter(ids, np.int64, len(units))

    def unknowns(self, text: str) -> list[str]:
        return [word for word in dict.fromkeys(words(text)) if word not in self._index]

    def decode(self, ids: ArrayLike) -> str:
        return "".join(self._join(as_ids(ids, self.vocab_size).tolist()))

    def _join(self, ids: list[int]) -> Iterator[str]:
        decoder = self.decoder()
        return map(decoder.push, ids)

    def decoder(self) -> IncrementalDecoder:
        return WordDecoder(self._vocabulary, self._eos)

    def lengths(self, ids: ArrayLike) -> Ids:
        array = as_ids(ids, self.vocab_size)
        widths = self._widths[array]
        is_word = array != self._eos
        widths[1:] += is_word[1:] & is_word[:-1]  # the space before a word
        return widths


def _choose(counts: Counter[str], vocab_size: int | None, min_count: int) -> list[str]:
    """The words that enter the vocabulary, in order of first appearance."""
    words = [
        word
        for word, count in counts.items()
        if word in (EOS, UNKNOWN)
        or (count >= min_count and len(word) <= MAX_WORD and not surrogates(word))
    ]
    if vocab_size is None:
        return words
    room = vocab_size - 2
    plain = [word for word in words if word not in (EOS, UNKNOWN)]
    if len(plain) <= room:
        return words
    kept = set(sorted(plain, key=lambda word: -counts[word])[:room])
    return [word for word in words if word in kept or word in (EOS, UNKNOWN)]
