"""A corpus: token ids of the splits, from texts and settings, kept as memory maps.

Three passes over the text, a chunk at a time: count its characters, take the vocabulary from
the training part, write the ids. The result is cached under a sum of contents and settings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gatewise.errors import DataError, OptionError
from gatewise.folders import user_cache
from gatewise.text import cache as store
from gatewise.text.base import REPLACEMENT, UNKNOWN
from gatewise.text.cache import Part, PartWriter, token_dtype
from gatewise.text.documents import Document, check_errors
from gatewise.text.reading import Reading, Sources, find_documents
from gatewise.text.tokenizers import Tokenizer, build_tokenizer, check_options

SPLITS = ("train", "valid", "test")
FORMAT = 1
"""Part of the fingerprint: raised when the same text and settings give other ids."""

_SEEK = 1000
"""Characters within which a cut between splits looks for the end of a word."""


@dataclass(frozen=True)
class Tokens:
    """The ids of one split.

    Attributes:
        ids: (N,), uint8, uint16 or uint32 by the vocabulary's size; a memory map.
        characters: of the split's text, so that nats per character can be counted.
        bytes: of the split's text in UTF-8, for bits per byte.
        unknown: how many units of the text the vocabulary does not hold.
        documents: (name, first token) of each document.
    """

    ids: NDArray[np.unsignedinteger[Any]]
    characters: int
    bytes: int
    unknown: int
    documents: list[tuple[str, int]]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Corpus:
    """Tokenised splits.

    Attributes:
        tokenizer: its ids are those of the splits.
        splits: "train", and "valid" and "test" where there are any.
        fingerprint: SHA-256 of contents and settings.
        skipped: (name, reason) of what was found in folders and not read.
        notes: what a user should be told, one line each.
        cached: whether the ids were taken from the cache.
    """

    tokenizer: Tokenizer
    splits: dict[str, Tokens]
    fingerprint: str
    skipped: list[tuple[str, str]]
    notes: list[str]
    cached: bool = False
    _entry: store.Entry | None = field(default=None, repr=False)  # keeps a temporary folder alive


def build_corpus(
    sources: Sources,
    *,
    tokenizer: str | Tokenizer = "char",
    vocab_size: int | None = None,
    min_count: int = 1,
    order: str = "appearance",
    fractions: tuple[float, ...] = (0.9, 0.05, 0.05),
    errors: str = "strict",
    vocabulary_from: str = "train",
    cache: Path | str | Literal[False] | None = None,
) -> Corpus:
    """The tokenised splits of the texts in `sources`.

    Files named train, valid and test are the splits (`find_documents` says when); else the
    documents, one after the other, are cut by `fractions` of their characters: train is the first
    int(fractions[0] * N). With words or BPE a cut moves on to the end of the word it is in. A line
    feed is added to a document that has none at its end and is followed by another, or is read as
    words.

    Args:
        sources: paths, globs, "-"; or the files of each split.
        tokenizer: "char", "byte", "word", "bpe"; or one to use as it is.
        vocab_size, min_count, order: as `build_tokenizer`.
        fractions: of train, valid and test; they add up to 1.
        errors: "strict", or "replace" bytes that are not UTF-8.
        vocabulary_from: "train", or "all" splits (as word_language_model does).
        cache: the folder of cached ids; False for none. Default: the user's cache folder.
    Raises:
        DataError: if the text cannot be read, or there is too little for a training part.
        OptionError, UnknownNameError: if an option is outside its range.
    """
    settings = _Settings(
        tokenizer, vocab_size, min_count, order, tuple(fractions), errors, vocabulary_from
    )
    reading = find_documents(sources)
    builder = _Builder(settings, reading.documents)
    fingerprint = builder.fingerprint()
    notes = [reading.summary()] if reading.skipped else []
    entry, cached, complaint = _entry(builder, fingerprint, cache)
    if complaint:
        notes.append(complaint)
    return _corpus(entry, reading, fingerprint, notes, cached)


def _entry(
    builder: _Builder, fingerprint: str, cache: Path | str | Literal[False] | None
) -> tuple[store.Entry, bool, str]:
    """(entry, whether it was there, what the user should know)."""
    if cache is False:
        return store.make_temporary(builder.write), False, ""
    folder = (user_cache() if cache is None else Path(cache).expanduser()) / "text"
    if entry := store.open_entry(folder, fingerprint):
        return entry, True, ""
    try:
        return store.make_entry(folder, fingerprint, builder.write), False, ""
    except OSError as error:
        if cache is not None:
            raise DataError(f"cannot write the cache {folder}: {error.strerror}") from error
        said = f"cache {folder} not used: {error.strerror}"
    return store.make_temporary(builder.write), False, said


def _corpus(
    entry: store.Entry, reading: Reading, fingerprint: str, notes: list[str], cached: bool
) -> Corpus:
    documents = _in_order(reading.documents)
    splits = {}
    for split in SPLITS:
        part = entry.parts.get(split)
        if part is None:
            continue
        starts = [(documents[index].name, at) for index, at in part.starts]
        splits[split] = Tokens(entry.ids(split), part.characters, part.bytes, part.unknown, starts)
        if part.unknown:
            notes.append(
                f"{split}: {part.unknown} of {part.tokens} {entry.tokenizer.unit}s are not in "
                "the vocabulary"
            )
    return Corpus(entry.tokenizer, splits, fingerprint, reading.skipped, notes, cached, entry)


@dataclass(frozen=True)
class _Settings:
    """The options, checked before any text is read."""

    tokenizer: str | Tokenizer
    vocab_size: int | None
    min_count: int
    order: str
    fractions: tuple[float, ...]
    errors: str
    vocabulary_from: str

    def __post_init__(self) -> None:
        check_errors(self.errors)
        if isinstance(self.tokenizer, str):
            check_options(self.tokenizer, self.vocab_size, self.min_count, self.order)
        elif self.vocab_size is not None or self.min_count != 1:
            raise OptionError("vocab_size and min_count do not go with a tokenizer that is given")
        if self.vocabulary_from not in ("train", "all"):
            raise OptionError(
                f"expected vocabulary_from 'train' or 'all', found {self.vocabulary_from!r}"
            )
        given = self.fractions
        if not 1 <= len(given) <= 3 or not all(0 <= f <= 1 for f in given):
            raise OptionError(f"expected up to three fractions from 0 to 1, found {given}")
        if abs(sum(given) - 1) > 1e-6 or given[0] == 0:
            raise OptionError(
                f"expected fractions for train, valid and test that add up to 1, train more than "
                f"0, found {given}"
            )

    @property
    def kind(self) -> str:
        return self.tokenizer if isinstance(self.tokenizer, str) else self.tokenizer.kind

    def to_json(self) -> str:
        given = self.tokenizer
        values = {**vars(self), "tokenizer": given if isinstance(given, str) else given.to_json()}
        if self.kind == "bpe":
            values["library"] = version("tokenizers")
        return json.dumps({"format": FORMAT, **values}, sort_keys=True)


@dataclass(frozen=True)
class _Piece:
    """A stretch of one document's text in one split."""

    split: str
    document: int
    text: str


class _Builder:
    """Text and settings to token files."""

    def __init__(self, settings: _Settings, documents: list[Document]) -> None:
        self._settings = settings
        self._by_name = documents[0].split is not None
        self._documents = _in_order(documents)
        self._seeks_words = settings.kind in ("word", "bpe")

    def fingerprint(self) -> str:
        """SHA-256 of the settings, and each document's contents and split."""
        digest = hashlib.sha256(self._settings.to_json().encode())
        for document in self._documents:
            digest.update(f"{document.split} {document.size} {document.sha256}\n".encode())
        return digest.hexdigest()

    def write(self, folder: Path) -> tuple[Tokenizer, dict[str, Part]]:
        """Writes a token file for each split that has any text."""
        cuts = None if self._by_name else self._cuts()
        tokenizer = self._tokenizer(cuts)
        parts = {}
        for split, pieces in groupby(self._pieces(cuts), key=lambda piece: piece.split):
            writer = PartWriter(folder / f"{split}.bin", token_dtype(tokenizer.vocab_size))
            try:
                _write(writer, tokenizer, pieces)
            finally:
                part = writer.close()
            if part.tokens:
                parts[split] = part
        if "train" not in parts:
            raise DataError("expected text to train on, found none: give more")
        return tokenizer, parts

    def _cuts(self) -> tuple[int, int]:
        """The characters at which train and valid end."""
        total = sum(len(text) for _, text in self._chunks())
        first, second, third = (*self._settings.fractions, 0.0, 0.0)[:3]
        train = int(first * total)
        if train == 0:
            raise DataError(
                f"expected at least 1 character to train on, found {total} in all, of which "
                f"train is {first:g}: give more text"
            )
        if second + third == 0:
            return total, total
        # All of the text belongs to a split, whatever the sum of fractions rounds to.
        return train, total if third == 0 else max(train, int((first + second) * total))

    def _tokenizer(self, cuts: tuple[int, int] | None) -> Tokenizer:
        settings = self._settings
        if isinstance(settings.tokenizer, Tokenizer):
            return settings.tokenizer
        wanted = SPLITS if settings.vocabulary_from == "all" else SPLITS[:1]
        text = (piece.text for piece in self._pieces(cuts) if piece.split in wanted)
        return build_tokenizer(
            settings.tokenizer, text, settings.vocab_size, settings.min_count, settings.order
        )

    def _pieces(self, cuts: tuple[int, int] | None) -> Iterator[_Piece]:
        """The text in the order of the splits."""
        if cuts is None:
            for index, text in self._chunks():
                yield _Piece(self._documents[index].split or "train", index, text)
        else:
            yield from _cut(self._chunks(), cuts, _SEEK if self._seeks_words else 0)

    def _chunks(self) -> Iterator[tuple[int, str]]:
        """(index of the document, text), with line feeds between documents."""
        last = len(self._documents) - 1
        for index, document in enumerate(self._documents):
            ending = ""
            for text in document.chunks(self._settings.errors):
                yield index, text
                ending = text[-1]
            follows = index < last and self._documents[index + 1].split == document.split
            if ending not in ("\n", "") and (follows or self._settings.kind == "word"):
                yield index, "\n"


def _in_order(documents: list[Document]) -> list[Document]:
    """Documents of named splits in the order of the splits; others as they are."""
    return sorted(documents, key=lambda d: SPLITS.index(d.split) if d.split else 0)


def _cut(chunks: Iterable[tuple[int, str]], cuts: tuple[int, int], seek: int) -> Iterator[_Piece]:
    """`chunks` in three splits that end at `cuts`, or up to `seek` characters later at a space."""
    split, position = 0, 0
    for index, text in chunks:
        while text:
            room = cuts[split] - position if split < 2 else len(text)
            taken, ends = (min(room, len(text)), False) if room > 0 else _rest(text, seek + room)
            if taken:
                yield _Piece(SPLITS[split], index, text[:taken])
            position += taken
            text = text[taken:]
            split += ends


def _rest(text: str, most: int) -> tuple[int, bool]:
    """(characters of `text` before its first space, whether the word ends there or is too long)."""
    for at, character in enumerate(text[: max(most, 0)]):
        if character.isspace():
            return at, True
    return max(min(most, len(text)), 0), most <= len(text)


def _write(writer: PartWriter, tokenizer: Tokenizer, pieces: Iterable[_Piece]) -> None:
    """Tokenises one split's pieces, document by document."""
    for document, group in groupby(pieces, key=lambda piece: piece.document):
        writer.start(document)
        for text in tokenizer.pieces(piece.text for piece in group):
            ids = tokenizer.encode(text)
            writer.write(ids)
            writer.characters += len(text)
            writer.bytes += len(text) if text.isascii() else len(text.encode())
            writer.unknown += _count_unknown(tokenizer, ids, text)


def _count_unknown(tokenizer: Tokenizer, ids: NDArray[np.int64], text: str) -> int:
    """Units of `text` outside the vocabulary: not those that are written as the unknown one."""
    if tokenizer.unknown_id is None:
        return 0
    count = int(np.count_nonzero(ids == tokenizer.unknown_id))
    if count and tokenizer.kind == "char":
        return count - text.count(REPLACEMENT)
    return count - text.split().count(UNKNOWN) if count else 0
