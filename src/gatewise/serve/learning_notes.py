"""A folder of texts, watched by its files' times and sizes: the paragraphs that are in it now.

Files are read as `gatewise train lm` reads them, each at once and up to a size. What cannot be read is skipped and
told once. Knows nothing of models.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias, cast

from gatewise.checkpoint.contents import CHECKPOINTS, LATEST
from gatewise.errors import DataError
from gatewise.text.documents import Unusable, survey
from gatewise.text.reading import Reading, walk

Stamp: TypeAlias = "tuple[int, int, int, int]"

LONGEST = 2000
"""Characters of a paragraph; a longer one is cut at the end of a line or word."""

FILES = 50_000
"""Files after which no other folder is looked into."""

_NEAR = 24
"""Characters behind a place that tell it from others."""

_BLANK = re.compile(r"\n(?:[^\S\n]*\n)+")


@dataclass(frozen=True)
class _File:
    stamp: Stamp
    paragraphs: tuple[str, ...]
    reason: str  # why it was skipped, or ""


class Notes:
    """The texts below a folder.

    Args:
        folder: where they are.
        apart: a folder that is not read, wherever it lies: the run's own.
        file_bytes: of the largest file that is read, uncompressed.
        total_bytes: of all files that are read.
        settle: seconds for which a file must have been left alone before it is read.

    Attributes:
        skipped: (name, reason) of what is not read.
    """

    def __init__(
        self, folder: Path, apart: Path, *, file_bytes: int, total_bytes: int, settle: float
    ) -> None:
        self.folder = folder
        self.skipped: list[tuple[str, str]] = []
        self._apart = apart.resolve()
        self._most, self._total, self._settle = file_bytes, total_bytes, settle
        self._files: dict[Path, _File] = {}
        self._told: set[tuple[str, str]] = set()

    def look(self, between: Callable[[], None] = lambda: None) -> bool:
        """Read what is new or has changed; whether anything has.

        Args:
            between: called before each file that is read.
        """
        found, self.skipped = self._stamps()
        gone = [path for path in self._files if path not in found]
        for path in gone:
            del self._files[path]
        changed = bool(gone)
        for path, stamp in found.items():
            known = self._files.get(path)
            if (known and known.stamp == stamp) or 0 <= time.time() - stamp[0] / 1e9 < self._settle:
                continue
            between()
            self._files[path] = _File(stamp, *_read(path, self._most))
            changed = True
        self.skipped += [(str(p), f.reason) for p, f in self._files.items() if f.reason]
        return changed

    def paragraphs(self) -> list[str]:
        """All of them, in the order of the files."""
        return [text for path in sorted(self._files) for text in self._files[path].paragraphs]

    @property
    def files(self) -> int:
        """Files that are read."""
        return sum(not file.reason for file in self._files.values())

    def news(self) -> str:
        """One line on what is skipped and was not told before; "" if there is nothing."""
        new = [each for each in self.skipped if each not in self._told]
        self._told.update(new)
        return Reading([], new).summary()

    def _stamps(self) -> tuple[dict[Path, Stamp], list[tuple[str, str]]]:
        """Of every file that may be read; and what may not, with the reason."""
        found: dict[Path, Stamp] = {}
        skipped: list[tuple[str, str]] = []
        total, root = 0, self.folder.resolve()
        runs: dict[Path, bool] = {}
        for path, reason in walk(self.folder, FILES):
            place = root / path.relative_to(self.folder)
            if path.is_symlink():
                place = path.resolve()
            if self._apart in (place, *place.parents):
                continue
            reason = reason or _reason(path, self.folder, runs)
            try:
                status = path.stat()
            except OSError as error:
                reason = reason or f"unreadable ({error.strerror})"
            if not reason and status.st_size > self._most:
                reason = f"larger than {_in_bytes(self._most)}"
            if not reason and total + status.st_size > self._total:
                reason = f"beyond the first {_in_bytes(self._total)}"
            if reason:
                skipped.append((str(path), reason))
                continue
            total += status.st_size
            found[path] = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
        return found, skipped


def _reason(path: Path, folder: Path, runs: dict[Path, bool]) -> str:
    """Why a file is not a text of the user's, or ""."""
    if path.name.endswith("~") or path.name.startswith("#"):
        return "backups of editors"
    for parent in path.parents:
        if parent == folder:
            break
        if parent not in runs:
            runs[parent] = (parent / CHECKPOINTS).is_dir() and (parent / LATEST).is_file()
        if runs[parent]:
            return "in run folders"
    return ""


def split(text: str) -> Iterator[str]:
    """The paragraphs of a text: what stands between blank lines, none longer than `LONGEST`."""
    for part in _BLANK.split(text):
        part = part.strip("\n").rstrip()
        while len(part) > LONGEST:
            end = _end_within(part)
            yield part[:end]
            part = part[end:].lstrip("\n")
        if part.strip():
            yield part


def _end_within(part: str) -> int:
    """Where to cut a long paragraph: a place that its text determines, so that an edit moves few of them."""
    for mark in "\n ":
        found = [m.start() for m in re.finditer(mark, part[LONGEST // 2 : LONGEST])]
        if found:
            near = {at: part[LONGEST // 2 + at :][:_NEAR] for at in found}
            return LONGEST // 2 + min(
                found, key=lambda at: zlib.crc32(near[at].encode("utf-8", "surrogatepass"))
            )
    return LONGEST


def _read(path: Path, most: int) -> tuple[tuple[str, ...], str]:
    """The paragraphs of a file, or why it is skipped."""
    try:
        data = _bytes(path, most)
        document = survey(str(path), None, lambda: io.BytesIO(data))
        return tuple(split("".join(document.chunks()))), ""
    except Unusable as reason:
        return (), reason.kind
    except DataError:
        return (), "not UTF-8"
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return (), "broken gzip files"
    except OSError as error:
        return (), f"unreadable ({error.strerror})"


def _bytes(path: Path, most: int) -> bytes:
    """A regular file's bytes, uncompressed; more than `most` are never read.

    Raises:
        Unusable: it is larger, or no regular file any more.
        OSError, EOFError, zlib.error: it cannot be read.
    """
    with open(path, "rb", opener=_opener) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Unusable("not regular files", "")
        packed = path.suffix.lower() == ".gz"
        source = cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if packed else file
        data = source.read(most + 1)
    if len(data) > most:
        raise Unusable(f"larger than {_in_bytes(most)}", "")
    return data


def _opener(path: str, flags: int) -> int:
    """Never waits for the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _in_bytes(count: int) -> str:
    return f"{count / (1 << 20):g} MiB"
