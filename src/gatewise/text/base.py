"""What a tokenizer is: text to ids and back, and its JSON envelope.

Knows nothing of files of text, corpora or models.
"""

from __future__ import annotations

import codecs
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gatewise.errors import CheckpointError, DataError

FORMAT = 1
REPLACEMENT = "\ufffd"
UNKNOWN = "<unk>"
EOS = "<eos>"
MAX_VOCABULARY = 1_000_000
MAX_JSON_BYTES = 32 * 2**20
"""A tokenizer.json above this is refused before it is parsed."""
MAX_HELD = 2**20
"""Characters without a place to cut after which a stream of text is cut all the same."""

Ids = NDArray[np.int64]

_SURROGATES = re.compile("[\ud800-\udfff]")


def replace_surrogates(text: str) -> str:
    """`text` with each lone surrogate, which UTF-8 cannot hold, as U+FFFD."""
    if not isinstance(text, str):
        raise DataError(f"expected a text, found {type(text).__name__}")
    return text if text.isascii() else _SURROGATES.sub(REPLACEMENT, text)


def surrogates(text: str) -> list[str]:
    """The distinct lone surrogates of `text`, in order."""
    return [] if text.isascii() else list(dict.fromkeys(_SURROGATES.findall(text)))


def display(unit: str) -> str:
    """`unit` with white space and what cannot be printed as escapes: one token on one line."""
    if unit.isprintable():
        return unit
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in unit)
    return "".join(escaped)


class IncrementalDecoder(ABC):
    """Ids to text, one at a time: all that `push` and `flush` gave is `decode` of the ids."""

    @abstractmethod
    def push(self, id: int) -> str:
        """The text that `id` makes definite; "" inside an unfinished UTF-8 sequence."""

    def flush(self) -> str:
        """The rest: U+FFFD for a sequence that never ended, mostly ""."""
        return ""

    @abstractmethod
    def copy(self) -> IncrementalDecoder:
        """A decoder in the same place, for a second continuation."""


class Utf8Decoder(IncrementalDecoder):
    """Decodes ids that stand for bytes, whole characters or not.

    Args:
        table: the bytes of each id.
    """

    def __init__(self, table: Sequence[bytes]) -> None:
        self._table = table
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id: int) -> str:
        return self._decoder.decode(lookup(self._table, id))

    def flush(self) -> str:
        return self._decoder.decode(b"", final=True)

    def copy(self) -> Utf8Decoder:
        twin = Utf8Decoder(self._table)
        twin._decoder.setstate(self._decoder.getstate())
        return twin


class Tokenizer(ABC):
    """Text to ids and back.

    Attributes:
        kind: "char", "byte", "word" or "bpe".
        unit: what one id stands for, for messages ("character", "byte", ...).
        vocab_size: number of ids, V.
        unknown_id: the id of what the vocabulary does not hold; None where nothing is unknown.
        eos_id: the id of the end of a line; None where the line's end is text like any other.
        tokens: how each id is shown, (V,).
    """

    kind: ClassVar[str]
    unit: ClassVar[str]
    vocab_size: int
    unknown_id: int | None = None
    eos_id: int | None = None
    tokens: list[str]

    @abstractmethod
    def encode(self, text: str) -> Ids:
        """The ids of `text`, (T,). Any str is accepted."""

    @abstractmethod
    def decode(self, ids: ArrayLike) -> str:
        """The text of `ids`, (T,).

        Raises:
            DataError: if an id is outside the vocabulary.
        """

    @abstractmethod
    def decoder(self) -> IncrementalDecoder:
        """A decoder that takes one id at a time."""

    @abstractmethod
    def lengths(self, ids: ArrayLike) -> Ids:
        """Characters that each id stands for, (T,); their sum is that of the decoded text."""

    @abstractmethod
    def unknowns(self, text: str) -> list[str]:
        """The distinct units of `text` that the vocabulary does not hold, in order."""

    @abstractmethod
    def _content(self) -> dict[str, Any]:
        """What the envelope holds beside format and kind."""

    @staticmethod
    def cut(text: str) -> int:
        """Where `text` may end so that what follows is tokenised independently; 0 if nowhere."""
        return len(text)

    @classmethod
    def pieces(cls, chunks: Iterable[str]) -> Iterator[str]:
        """`chunks` cut anew so that the ids of the pieces are the ids of the whole.

        A stretch of more than MAX_HELD characters without a place to cut is cut where it is.
        """
        held = ""
        for chunk in chunks:
            held += chunk
            end = cls.cut(held) or (len(held) if len(held) >= MAX_HELD else 0)
            if end:
                yield held[:end]
                held = held[end:]
        if held:
            yield held

    def to_json(self) -> str:
        """The tokenizer as one JSON document; `from_json` reads it.

        Raises:
            DataError: if it is larger than what `from_json` accepts.
        """
        envelope = {"format": FORMAT, "kind": self.kind, **self._content()}
        text = json.dumps(envelope, ensure_ascii=False)
        size = len(text.encode())
        if size > MAX_JSON_BYTES:
            raise DataError(
                f"expected a vocabulary of at most {MAX_JSON_BYTES} bytes, found {size}: "
                "cap it with --vocab-size or --min-count"
            )
        return text

    def save(self, path: str | Path) -> None:
        """Writes `to_json` to `path`."""
        Path(path).write_bytes(self.to_json().encode())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokenizer):
            return NotImplemented
        return self.kind == other.kind and self._content() == other._content()

    def __hash__(self) -> int:
        return hash((self.kind, self.vocab_size))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size})"


def as_ids(ids: ArrayLike, vocab_size: int) -> Ids:
    """`ids` as a flat integer array, every one inside the vocabulary.

    Raises:
        DataError: if one is not.
    """
    array = np.asarray(ids)
    if array.size == 0:
        return np.zeros(0, np.int64)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise DataError(
            f"expected ids as one row of integers, found {array.dtype} of shape {array.shape}"
        )
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= vocab_size:
        raise DataError(
            f"expected ids from 0 to {vocab_size - 1}, found {low if low < 0 else high}: "
            "were they made by another tokenizer?"
        )
    return array.astype(np.int64, copy=False)


def lookup(table: Sequence[bytes], id: int) -> bytes:
    """The bytes of one id.

    Raises:
        DataError: if it is outside the vocabulary.
    """
    if not 0 <= id < len(table):
        raise DataError(f"expected an id from 0 to {len(table) - 1}, found {id}")
    return table[id]


def to_document(content: Mapping[str, Any]) -> str:
    """Several vocabularies as one JSON document; `from_document` reads it.

    Raises:
        DataError: if it is larger than what is accepted.
    """
    text = json.dumps(dict(content), ensure_ascii=False)
    if len(text.encode("utf-8", "replace")) > MAX_JSON_BYTES:
        raise DataError(
            f"expected vocabularies of at most {MAX_JSON_BYTES} bytes: cap them with --vocab-size or "
            "--min-count"
        )
    return text


def from_document(text: str | None, kind: str, what: str) -> dict[str, Any]:
    """What `to_document` wrote. Nothing in it is trusted.

    Args:
        text: of a tokenizer.json, or None where there is none.
        kind: its "kind".
        what: it holds, for the message.
    Raises:
        CheckpointError: if it is anything else.
    """
    if text is None:
        raise CheckpointError("expected a tokenizer.json, found none")
    if len(text) > MAX_JSON_BYTES:
        raise broken(f"expected at most {MAX_JSON_BYTES} bytes, found {len(text)}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise broken("expected JSON") from None
    if not isinstance(found, dict) or found.get("kind") != kind:
        raise broken(f"expected {what}")
    if found.get("format") != FORMAT:
        raise broken(f"expected format {FORMAT}, found {str(found.get('format'))[:40]!r}")
    return found


def broken(what: str) -> CheckpointError:
    """The error for a tokenizer.json that is not what this package writes."""
    return CheckpointError(
        f"not a usable tokenizer: {what}; restore tokenizer.json, or train the run again"
    )
