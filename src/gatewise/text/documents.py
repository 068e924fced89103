"""One text that is read in bounded pieces, and what can be wrong with its bytes.

Knows nothing of folders or tokens.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import IO, TypeAlias

from gatewise.errors import DataError, OptionError

Opener: TypeAlias = "Callable[[], AbstractContextManager[IO[bytes]]]"

ERRORS = ("strict", "replace")
CHUNK = 2**20
"""Bytes read at a time."""

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Document:
    """A text that can be read again and again.

    Attributes:
        name: as shown to the user.
        size: bytes, uncompressed.
        sha256: of the bytes, uncompressed.
        split: "train", "valid" or "test" where the file's name or the caller says so.
    """

    name: str
    size: int
    sha256: str
    split: str | None
    opener: Opener = field(repr=False, compare=False)

    def chunks(self, errors: str = "strict") -> Iterator[str]:
        """The text in pieces: UTF-8, no byte order mark, every line end a line feed.

        Args:
            errors: "strict", or "replace" what is not UTF-8 by U+FFFD.
        Raises:
            DataError: if the bytes are not UTF-8, or no longer those that were found.
        """
        check_errors(errors)
        decoder = _Decoder(self.name, errors)
        newlines = io.IncrementalNewlineDecoder(None, translate=True)
        first = True
        with naming(self.name), self.opener() as file:
            while data := file.read(CHUNK):
                text = decoder.decode(data)
                if first and text:
                    text, first = text.removeprefix("\ufeff"), False
                if text := newlines.decode(text):
                    yield text
        text = newlines.decode(decoder.finish().removeprefix("\ufeff" if first else ""), final=True)
        if decoder.consumed != self.size:
            raise DataError(
                f"{self.name}: expected {self.size} bytes, found {decoder.consumed}: "
                "the file changed while it was read; try again"
            )
        if text:
            yield text


def check_errors(errors: str) -> None:
    """Raises OptionError unless `errors` is "strict" or "replace"."""
    if errors not in ERRORS:
        raise OptionError(f"expected errors 'strict' or 'replace', found {errors!r}")


class Unusable(Exception):
    """A file without usable text: an error if it was named, skipped if found in a folder."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class naming:  # noqa: N801 (read as a verb: `with naming(path)`)
    """Turns errors of the file system and of gzip into one line."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, gzip.BadGzipFile | EOFError | zlib.error):
            raise DataError(
                f"{self._name}: expected a whole gzip file, found a broken one ({error}): "
                "fetch or compress it again"
            ) from error
        if isinstance(error, OSError):
            said = error.strerror or str(error)
            raise DataError(f"{self._name}: cannot be read: {said}") from error


def survey(name: str, split: str | None, opener: Opener) -> Document:
    """The document with its size and sum.

    Raises:
        Unusable: if there is no text in it.
    """
    digest, size = hashlib.sha256(), 0
    with naming(name), opener() as file:
        while data := file.read(CHUNK):
            nul = data.find(0)
            if size == 0 and data.startswith(_UTF16):
                raise Unusable(
                    "in UTF-16",
                    "expected UTF-8, found UTF-16: convert it, for example with "
                    "iconv -f UTF-16 -t UTF-8",
                )
            if nul >= 0:
                raise Unusable(
                    "binary",
                    f"expected text, found a NUL byte at byte offset {size + nul}: is it a "
                    "binary file? Remove the NUL bytes, or leave the file out",
                )
            digest.update(data)
            size += len(data)
    if size == 0:
        raise Unusable("empty", "expected text, found an empty file: give one with text in it")
    return Document(name, size, digest.hexdigest(), split, opener)


class _Decoder:
    """UTF-8 to text piece by piece; an error names the byte in the whole file."""

    def __init__(self, name: str, errors: str) -> None:
        self._name = name
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)
        self.consumed = 0

    def decode(self, data: bytes, final: bool = False) -> str:
        pending = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(data, final)
        except UnicodeDecodeError as error:
            offset = self.consumed - pending + error.start
            byte = error.object[error.start]
            raise DataError(
                f"{self._name}: expected UTF-8, found byte 0x{byte:02x} at byte offset {offset}: "
                "convert the file to UTF-8, or replace what is wrong with --errors replace"
            ) from None
        self.consumed += len(data)
        return text

    def finish(self) -> str:
        return self.decode(b"", final=True)
