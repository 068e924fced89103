"""One id per character, or per UTF-8 byte: no vocabulary to speak of, and the fastest."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gatewise.errors import DataError
from gatewise.text.base import (
    REPLACEMENT,
    UNKNOWN,
    Ids,
    IncrementalDecoder,
    Tokenizer,
    Utf8Decoder,
    as_ids,
    broken,
    display,
    replace_surrogates,
    surrogates,
)

Codes = NDArray[np.uint32]


def code_points(text: str) -> Codes | NDArray[np.uint8]:
    """The code points of `text`, (T,), lone surrogates included."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


class CharTokenizer(Tokenizer):
    """One id per character, in code point order; the last id is the unknown character.

    The unknown character is U+FFFD, in both directions: it is what a character outside the
    alphabet is read as, and what `decode` writes for it. Lone surrogates are always unknown.

    Args:
        alphabet: the known characters, in the order of their ids.
    """

    kind = "char"
    unit = "character"

    def __init__(self, alphabet: str) -> None:
        self.alphabet = alphabet
        self.unknown_id = len(alphabet)
        self.vocab_size = len(alphabet) + 1
        self.tokens = [display(c) for c in alphabet] + [UNKNOWN]
        self._characters = alphabet + REPLACEMENT
        self._codes = np.array([ord(c) for c in self._characters], "<u4")
        # One entry past the highest code point: everything above is clipped onto it.
        top = max((ord(c) for c in alphabet), default=0)
        self._table = np.full(max(top + 2, 256), self.unknown_id, np.int64)
        self._table[self._codes[:-1]] = np.arange(len(alphabet))

    @classmethod
    def build(cls, chunks: Iterable[str]) -> CharTokenizer:
        """The tokenizer of all characters in `chunks`.

        Raises:
            DataError: if there are none.
        """
        seen = np.zeros(0x110000, bool)
        for chunk in chunks:
            seen[code_points(chunk)] = True
        seen[0xD800:0xE000] = False
        seen[ord(REPLACEMENT)] = False
        alphabet = "".join(map(chr, np.flatnonzero(seen)))
        if not alphabet:
            raise DataError("expected text to take the characters from, found none: give more text")
        return cls(alphabet)

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> CharTokenizer:
        """The tokenizer of a parsed, untrusted envelope."""
        alphabet = content.get("alphabet")
        if not isinstance(alphabet, str) or not alphabet:
            raise broken("expected 'alphabet', a string of characters")
        if len(set(alphabet)) != len(alphabet):
            raise broken("'alphabet' holds a character twice")
        if surrogates(alphabet) or REPLACEMENT in alphabet:
            raise broken("'alphabet' holds a surrogate or U+FFFD")
        return cls(alphabet)

    @functools.cached_property
    def _bytes(self) -> list[bytes]:
        """Of each id; a decoder is made for every text that is written."""
        return [c.encode() for c in self._characters]

    @functools.cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self._characters)

    def _content(self) -> dict[str, Any]:
        return {"alphabet": self.alphabet}

    def encode(self, text: str) -> Ids:
        codes = code_points(text)
        if codes.dtype != np.uint8:
            codes = np.minimum(codes, len(self._table) - 1)
        return self._table[codes]

    def unknowns(self, text: str) -> list[str]:
        return [c for c in dict.fromkeys(text) if c not in self._known]

    def decode(self, ids: ArrayLike) -> str:
        return self._codes[as_ids(ids, self.vocab_size)].tobytes().decode("utf-32-le")

    def decoder(self) -> IncrementalDecoder:
        return Utf8Decoder(self._bytes)

    def lengths(self, ids: ArrayLike) -> Ids:
        return np.ones(len(as_ids(ids, self.vocab_size)), np.int64)


_BYTES = [bytes([b]) for b in range(256)]


class ByteTokenizer(Tokenizer):
    """One id per byte of the text's UTF-8: 256 ids, nothing is unknown.

    A lone surrogate, which UTF-8 cannot hold, is read as U+FFFD. Bytes that are not UTF-8
    are decoded as U+FFFD, as `bytes.decode("utf-8", "replace")` does.
    """

    kind = "byte"
    unit = "byte"

    def __init__(self) -> None:
        self.vocab_size = 256
        self.tokens = [
            chr(b) if 32 <= b < 127 else display(chr(b)) if b < 127 else f"\\x{b:02x}"
            for b in range(256)
        ]

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> ByteTokenizer:
        """The tokenizer of a parsed envelope, which holds nothing."""
        return cls()

    def _content(self) -> dict[str, Any]:
        return {}

    def encode(self, text: str) -> Ids:
        data = replace_surrogates(text).encode()
        return np.frombuffer(data, np.uint8).astype(np.int64)

    def unknowns(self, text: str) -> list[str]:
        return surrogates(text)

    def decode(self, ids: ArrayLike) -> str:
        return as_ids(ids, 256).astype(np.uint8).tobytes().decode("utf-8", "replace")

    def decoder(self) -> IncrementalDecoder:
        return Utf8Decoder(_BYTES)

    def lengths(self, ids: ArrayLike) -> Ids:
        # A character is counted at its first byte.
        is_first: NDArray[np.bool_] = as_ids(ids, 256) & 0xC0 != 0x80
        return is_first.astype(np.int64)
