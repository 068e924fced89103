"""The tokenizers by name: built from text, or read from a tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gatewise.errors import CheckpointError, OptionError, unknown
from gatewise.text.base import (
    FORMAT,
    MAX_JSON_BYTES,
    IncrementalDecoder,
    Tokenizer,
    broken,
)
from gatewise.text.bpe import BpeTokenizer
from gatewise.text.characters import ByteTokenizer, CharTokenizer
from gatewise.text.words import WordTokenizer

__all__ = [
    "KINDS",
    "BpeTokenizer",
    "ByteTokenizer",
    "CharTokenizer",
    "IncrementalDecoder",
    "Tokenizer",
    "WordTokenizer",
    "build_tokenizer",
    "from_json",
    "load_tokenizer",
]

_READERS: dict[str, Callable[[dict[str, Any]], Tokenizer]] = {
    "char": CharTokenizer.from_content,
    "byte": ByteTokenizer.from_content,
    "word": WordTokenizer.from_content,
    "bpe": BpeTokenizer.from_content,
}
KINDS = tuple(_READERS)


def build_tokenizer(
    kind: str,
    chunks: Iterable[str],
    vocab_size: int | None = None,
    min_count: int = 1,
    order: str = "appearance",
) -> Tokenizer:
    """The tokenizer of `kind` for the text in `chunks`.

    Args:
        kind: "char", "byte", "word" or "bpe".
        chunks: the text in pieces, cut anywhere.
        vocab_size: at most so many ids (word, bpe).
        min_count: leave out words seen less often (word), or do not merge such pairs (bpe).
        order: ids of words by first "appearance" or by "frequency" (word).

    Raises:
        UnknownNameError: if there is no such kind.
        OptionError: if an option is outside its range, or not one of this kind's.
        DataError: if there is no text.
    """
    check_options(kind, vocab_size, min_count, order)
    if kind == "char":
        return CharTokenizer.build(chunks)
    if kind == "byte":
        return ByteTokenizer()
    if kind == "word":
        return WordTokenizer.build(WordTokenizer.pieces(chunks), vocab_size, min_count, order)
    return BpeTokenizer.build(BpeTokenizer.pieces(chunks), vocab_size, min_count)


def check_options(kind: str, vocab_size: int | None, min_count: int, order: str) -> None:
    """Raises as `build_tokenizer` does, before any text is read."""
    if kind not in KINDS:
        raise unknown("tokenizer", kind, KINDS)
    if min_count < 1:
        raise OptionError(f"expected min_count of at least 1, found {min_count}")
    if kind in ("char", "byte") and (vocab_size is not None or min_count != 1):
        raise OptionError(
            f"vocab_size and min_count are for 'word' and 'bpe': a {kind!r} tokenizer's vocabulary "
            "follows from the text; leave them out"
        )
    if order != "appearance" and kind != "word":
        raise OptionError(f"order is for 'word', found order={order!r} with {kind!r}")


def from_json(text: str) -> Tokenizer:
    """The tokenizer that `Tokenizer.to_json` wrote as `text`. Nothing in it is trusted.

    Raises:
        CheckpointError: if it is anything else.
    """
    if len(text) > MAX_JSON_BYTES:
        raise broken(f"expected at most {MAX_JSON_BYTES} bytes, found {len(text)}")
    try:
        envelope = json.loads(text)
    except (ValueError, RecursionError):
        raise broken("expected JSON") from None
    if not isinstance(envelope, dict):
        raise broken(f"expected a JSON object, found {type(envelope).__name__}")
    found = envelope.get("format")
    if type(found) is not int or found != FORMAT:
        raise broken(f"expected format {FORMAT}, found {str(found)[:40]!r}")
    kind = envelope.get("kind")
    if not isinstance(kind, str) or kind not in _READERS:
        raise broken(f"expected kind {', '.join(KINDS)}, found {str(kind)[:40]!r}")
    return _READERS[kind](envelope)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer in the file `path`.

    Raises:
        CheckpointError: if the file is not there, too large, or not a tokenizer's.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"cannot read the tokenizer {path}: {error.strerror}") from error
    if len(data) > MAX_JSON_BYTES:
        raise CheckpointError(f"{path}: expected at most {MAX_JSON_BYTES} bytes, found more")
    try:
        return from_json(data.decode())
    except UnicodeDecodeError:
        raise CheckpointError(f"{path}: {broken('expected UTF-8')}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
