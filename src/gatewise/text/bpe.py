"""Byte-pair encoding over UTF-8 bytes, by the `tokenizers` library: nothing is unknown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import ArrayLike
from tokenizers import decoders, models, pre_tokenizers, trainers

from gatewise.errors import DataError, OptionError
from gatewise.text.base import (
    MAX_VOCABULARY,
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

DEFAULT_VOCAB_SIZE = 8192
_LONGEST = 2**16
"""Characters; the library's memory grows fast with a "word" of megabytes, so it is cut."""
_CACHED = 2**17
"""Units whose ids are remembered: text repeats its words."""

# No piece goes from what is no space to a space or line end, so text may be cut there. Other
# white space is left where it is: the library and Python do not agree on all of it.
_UNIT = re.compile(r"\s*\S+(?:(?![ \n\t\r])\s+\S+)*|\s+")

_LAST_WORD = re.compile(r"(?s).*\S(?=[ \n])")


def _byte_alphabet() -> dict[str, int]:
    """The printable character by which the library writes each byte -> that byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(rest)}


_BYTES = _byte_alphabet()


def _engine(model: models.BPE) -> tokenizers.Tokenizer:
    engine = tokenizers.Tokenizer(model)
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    return engine


class BpeTokenizer(Tokenizer):
    """Pieces of words that were frequent in the training text, down to single bytes.

    A lone surrogate is read as U+FFFD. BPE is not prefix-stable: the ids of a text's beginning
    need not be the beginning of its ids.

    Args:
        engine: a byte-level BPE tokenizer of the `tokenizers` library, all 256 bytes in it.
    """

    kind = "bpe"
    unit = "token"

    def __init__(self, engine: tokenizers.Tokenizer) -> None:
        self._engine = engine
        self._cache: dict[str, list[int]] = {}
        self.vocab_size = engine.get_vocab_size()
        vocabulary = sorted(engine.get_vocab().items(), key=lambda item: item[1])
        self._bytes = [bytes(_BYTES[c] for c in token) for token, _ in vocabulary]
        self.tokens = [_show(token) for token in self._bytes]
        starts = ((b & 0xC0 != 0x80 for b in token) for token in self._bytes)
        self._widths = np.array([sum(token) for token in starts], np.int64)

    @classmethod
    def build(
        cls, chunks: Iterable[str], vocab_size: int | None = None, min_count: int = 1
    ) -> BpeTokenizer:
        """The tokenizer trained on `chunks`.

        Args:
            chunks: the text, in pieces that end where words end.
            vocab_size: at most so many ids, from 256 on. Default: 8192.
            min_count: a pair seen less often is not merged.

        Raises:
            DataError: if there is no text.
            OptionError: if vocab_size is outside its range.
        """
        size = DEFAULT_VOCAB_SIZE if vocab_size is None else vocab_size
        if not 256 <= size <= MAX_VOCABULARY:
            raise OptionError(
                f"expected vocab_size from 256 (one per byte) to {MAX_VOCABULARY} for bpe, "
                f"found {size}"
            )
        engine = _engine(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=max(2, min_count),
            initial_alphabet=sorted(_BYTES),
            show_progress=False,
            max_token_length=64,
        )
        seen = 0

        def parts() -> Iterable[str]:
            nonlocal seen
            for chunk in chunks:
                seen += len(chunk)
                units = _units(replace_surrogates(chunk))
                yield from ("".join(units[i : i + 1000]) for i in range(0, len(units), 1000))

        engine.train_from_iterator(parts(), trainer)
        if not seen:
            raise DataError("expected text to learn the pieces from, found none: give more text")
        return cls(engine)

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> BpeTokenizer:
        """The tokenizer of a parsed, untrusted envelope.

        Of the library's own document only the vocabulary and the merges are used, and checked:
        its other parts (normalisers, patterns) could do anything.
        """
        library = content.get("tokenizers")
        model = library.get("model") if isinstance(library, dict) else None
        if not isinstance(model, dict) or model.get("type") != "BPE":
            raise broken("expected 'tokenizers' with a model of type 'BPE'")
        vocabulary = _checked_vocabulary(model.get("vocab"))
        merges = _checked_merges(model.get("merges"), vocabulary)
        return cls(_engine(models.BPE(vocabulary, merges)))

    def _content(self) -> dict[str, Any]:
        return {"tokenizers": json.loads(self._engine.to_str())}

    @staticmethod
    def cut(text: str) -> int:
        # Before a space or line feed that follows a word: no piece goes over such a place.
        found = _LAST_WORD.match(text)
        return found.end() if found else 0

    def encode(self, text: str) -> Ids:
        units = _units(replace_surrogates(text))
        known: dict[str, list[int] | None] = {u: self._cache.get(u) for u in units}
        missing = [unit for unit, ids in known.items() if ids is None]
        encodings = self._engine.encode_batch_fast(missing, add_special_tokens=False)
        new = {u: encoding.ids for u, encoding in zip(missing, encodings, strict=True)}
        known.update(new)
        if len(self._cache) + len(new) > _CACHED:
            self._cache = {}
        self._cache.update({u: ids for u, ids in new.items() if len(u) < 64})
        ids = chain.from_iterable(map(known.__getitem__, units))  # type: ignore[arg-type]
        return np.fromiter(ids, np.int64)

    def unknowns(self, text: str) -> list[str]:
        return surrogates(text)

    def decode(self, ids: ArrayLike) -> str:
        table = self._bytes
        data = b"".join([table[i] for i in as_ids(ids, self.vocab_size).tolist()])
        return data.decode("utf-8", "replace")

    def decoder(self) -> IncrementalDecoder:
        return Utf8Decoder(self._bytes)

    def lengths(self, ids: ArrayLike) -> Ids:
        return self._widths[as_ids(ids, self.vocab_size)]


def _units(text: str) -> list[str]:
    """`text` in units that the library tokenises independently."""
    units = _UNIT.findall(text)
    if max(map(len, units), default=0) <= _LONGEST:
        return units
    return [u[i : i + _LONGEST] for u in units for i in range(0, len(u), _LONGEST)]


def _show(token: bytes) -> str:
    """How a piece is shown: its text, or escapes where it is no whole text."""
    try:
        return display(token.decode())
    except UnicodeDecodeError:
        return "".join(chr(b) if 32 <= b < 127 else f"\\x{b:02x}" for b in token)


def _checked_vocabulary(found: object) -> dict[str, int]:
    if not isinstance(found, dict) or not 256 <= len(found) <= MAX_VOCABULARY:
        raise broken(f"expected a vocabulary of 256 to {MAX_VOCABULARY} pieces")
    if any(type(i) is not int for i in found.values()):
        raise broken("expected whole numbers as ids")
    if sorted(found.values()) != list(range(len(found))):
        raise broken(f"expected the ids 0 to {len(found) - 1}, each once")
    if not set(_BYTES) <= found.keys() or not set().union(*found) <= _BYTES.keys():
        raise broken("expected pieces made of the 256 bytes, and each byte as a piece")
    if "" in found:
        raise broken("expected pieces of at least one byte")
    return found


def _checked_merges(found: object, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    if not isinstance(found, list) or len(found) > MAX_VOCABULARY:
        raise broken("expected 'merges', a list")
    merges = []
    for merge in found:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not all(isinstance(p, str) and p in vocabulary for p in pair)
            or pair[0] + pair[1] not in vocabulary
        ):
            raise broken("expected merges of two pieces of the vocabulary into a third")
        merges.append((pair[0], pair[1]))
    return merges
