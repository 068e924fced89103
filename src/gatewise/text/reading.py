"""Text from files, folders, globs, .gz and standard input, in bounded pieces.

Knows nothing of tokens. A document is read as often as it is asked for, a chunk at a time, so a
corpus (or a line) may be larger than memory.
"""

from __future__ import annotations

import glob
import gzip
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TypeAlias, cast

from gatewise.errors import DataError, OptionError
from gatewise.text.documents import CHUNK, Document, Unusable, naming, survey

_NAMED = 5  # skipped things that are told one by one

__all__ = ["Document", "Reading", "Sources", "find_documents", "read_texts", "split_of", "walk"]

PathLike: TypeAlias = "str | Path"
Sources: TypeAlias = "PathLike | Sequence[PathLike] | Mapping[str, Sequence[PathLike]]"

SPLIT_NAMES = {
    "train": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
}


@dataclass(frozen=True)
class Reading:
    """What was found in the sources.

    Attributes:
        documents: the texts, in order.
        skipped: (name, reason) of everything in a folder that is not read.
    """

    documents: list[Document]
    skipped: list[tuple[str, str]]

    def summary(self) -> str:
        """The skipped things by reason, for one line; "" if nothing was."""
        reasons: dict[str, int] = {}
        for _, reason in self.skipped:
            reasons[reason] = reasons.get(reason, 0) + 1
        if not reasons:
            return ""
        parts = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        names = [name for name, _ in self.skipped]
        which = f" ({', '.join(names)})" if len(names) <= _NAMED else ""
        return f"skipped: {parts}{which}"


def read_texts(sources: Sources, errors: str = "strict") -> Iterator[tuple[str, str]]:
    """(name, text) of each document, whole; `find_documents` is for what may not fit in memory."""
    for document in find_documents(sources).documents:
        yield document.name, "".join(document.chunks(errors))


def find_documents(sources: Sources) -> Reading:
    """The documents in `sources`; each one's bytes are read once, to sum and check them.

    Folders are read with all their folders, sorted by path; hidden, empty and binary files in
    them are skipped. A file that is named is read or it is an error. Where the sources hold, not
    deeper than one folder, a file named train (train.txt, train.en.gz, ...) and one named valid,
    val, validation or test, these files are the splits, and other files of their folders are
    skipped.

    Args:
        sources: paths, globs, "-" for standard input; or for each split its files.
    Raises:
        DataError: if a source is missing, binary or empty, or there is no text in all of them.
    """
    finder = _Finder()
    if isinstance(sources, Mapping):
        for split, paths in sources.items():
            if split not in ("train", "valid", "test"):
                raise OptionError(f"expected splits train, valid and test, found {split!r}")
            for path in paths:
                finder.add(str(path), split)
        return finder.reading(by_name=False)
    paths = [sources] if isinstance(sources, str | Path) else list(sources)
    if not paths:
        raise DataError("expected files or folders of text, found none: name at least one")
    for path in paths:
        finder.add(str(path), None)
    return finder.reading(by_name=True)


def split_of(name: str) -> str | None:
    """The split that a file's name stands for: its part before the first dot."""
    return SPLIT_NAMES.get(Path(name).name.split(".")[0].lower())


@dataclass(frozen=True)
class _Found:
    document: Document
    direct: bool  # named itself, or lies directly in a folder that was
    named: bool  # named itself


class _Spool:
    """A copy of a stream on disk, to be read again and again; gone with its document."""

    def __init__(self) -> None:
        self.file: IO[bytes] = tempfile.TemporaryFile(prefix="gatewise-")  # noqa: SIM115
        weakref.finalize(self, self.file.close)

    def __call__(self) -> AbstractContextManager[IO[bytes]]:
        self.file.seek(0)
        return nullcontext(self.file)


class _Finder:
    """Collects documents from one source after the other."""

    def __init__(self) -> None:
        self.found: list[_Found] = []
        self.skipped: list[tuple[str, str]] = []
        self.sources: list[str] = []
        self._seen: set[tuple[int, int]] = set()

    def add(self, source: str, split: str | None) -> None:
        self.sources.append(source)
        with naming(source):
            self._add(source, split)

    def _add(self, source: str, split: str | None) -> None:
        if source == "-":
            self._add_stream("standard input", sys.stdin.buffer, split)
            return
        path = _checked(source)
        if path.is_dir():
            self._add_folder(path, split)
        elif path.is_file():
            self._add_file(path, split, direct=True, named=True)
        elif path.exists():
            with open(path, "rb") as stream:
                self._add_stream(source, stream, split)
        elif matches := _matches(source):
            for match in matches:
                if match.is_dir():
                    self._add_folder(match, split)
                elif match.is_file():
                    self._add_file(match, split, direct=True, named=False)
        elif glob.has_magic(source):
            raise DataError(f"expected files that match {source!r}, found none: check the pattern")
        else:
            raise DataError(
                f"expected a file or folder, found nothing at {source!r}: check the path"
            )

    def _add_folder(self, folder: Path, split: str | None) -> None:
        for path, reason in walk(folder):
            if reason:
                self.skipped.append((str(path), reason))
            else:
                self._add_file(path, split, direct=path.parent == folder, named=False)

    def _add_file(self, path: Path, split: str | None, *, direct: bool, named: bool) -> None:
        name = str(path)
        with naming(name):
            status = path.stat()
        if (status.st_dev, status.st_ino) in self._seen and status.st_ino:
            self.skipped.append((name, "given twice"))
            return
        self._seen.add((status.st_dev, status.st_ino))
        try:
            document = survey(name, split, lambda: _opened(path))
        except Unusable as reason:
            if named:
                raise DataError(f"{name}: {reason.message}") from None
            self.skipped.append((name, reason.kind))
        else:
            self.found.append(_Found(document, direct, named))

    def _add_stream(self, name: str, stream: IO[bytes], split: str | None) -> None:
        """Keeps a copy on disk, because a corpus is read more than once."""
        spool = _Spool()
        with naming(name):
            shutil.copyfileobj(stream, spool.file, CHUNK)
        try:
            document = survey(name, split, spool)
        except Unusable as reason:
            raise DataError(f"{name}: {reason.message}") from None
        self.found.append(_Found(document, direct=True, named=True))

    def reading(self, by_name: bool) -> Reading:
        if not self.found:
            where = ", ".join(repr(s) for s in self.sources[:3])
            said = Reading([], self.skipped).summary()
            raise DataError(f"expected text in {where}, found none{said and f' ({said})'}")
        found = self._split_by_name() if by_name else self.found
        return Reading([f.document for f in found], self.skipped)

    def _split_by_name(self) -> list[_Found]:
        roles = [split_of(f.document.name) for f in self.found]
        roles = [role if f.direct else None for role, f in zip(roles, self.found, strict=True)]
        if "train" not in roles or not {"valid", "test"} & set(roles):
            return self.found
        kept = []
        for found, role in zip(self.found, roles, strict=True):
            old = found.document
            if role:
                kept.append(replace(found, document=replace(old, split=role)))
            elif found.named:
                raise DataError(
                    f"{old.name}: expected only files named train, valid and test beside each "
                    "other: rename it, or leave it out"
                )
            else:
                self.skipped.append((old.name, "not named train, valid or test"))
        return kept


def _checked(source: str) -> Path:
    if "\0" in source or not source:
        raise DataError(f"expected a path, found {source!r}: check it")
    return Path(source).expanduser()


def _matches(source: str) -> list[Path]:
    if not glob.has_magic(source):
        return []
    return sorted(Path(p) for p in glob.glob(os.path.expanduser(source), recursive=True))


def walk(folder: Path, most: int | None = None) -> Iterable[tuple[Path, str]]:
    """(path, "" or why it is skipped) of all files below `folder`, sorted; of about the first `most`, if that is given."""
    entries: list[tuple[Path, str]] = []

    def failed(error: OSError) -> None:
        entries.append((Path(error.filename), f"unreadable ({error.strerror})"))

    for root, folders, files in os.walk(folder, onerror=failed):
        here = Path(root)
        if most is not None and len(entries) >= most:
            entries.append((here, f"beyond the first {most:,} files"))
            break
        folders.sort()
        for name in list(folders):
            if name.startswith("."):
                entries.append((here / name, "hidden"))
            elif (here / name).is_symlink():
                entries.append((here / name, "links to folders"))
            else:
                continue
            folders.remove(name)
        for name in files:
            path = here / name
            if name.startswith("."):
                entries.append((path, "hidden"))
            else:
                entries.append((path, "" if path.is_file() else "not regular files"))
    return sorted(entries, key=lambda entry: entry[0].parts)


def _opened(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return open(path, "rb")
