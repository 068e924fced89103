"""RUN/log.jsonl: one JSON object per line, appended whole, cut back where a run is resumed.

The log is told from the checkpoints and never read to compute anything, so damage in it is reported
and passed over. A checkpoint stores how long the log was and its SHA-256, so damage is noticed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gatewise.checkpoint import disk
from gatewise.checkpoint.writing import save_error
from gatewise.errors import CheckpointError

_MAX_LINE = 64 << 20  # bytes; what is longer counts as damaged


class RunLog:
    """The log of one run.

    Args:
        path: of log.jsonl; it need not exist.
        writable: whether it may be appended to and cut; then a partial last line, which a kill can
            leave, is cut off at once.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._size = 0
        self._sum = hashlib.sha256()
        if writable:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            try:
                self._descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o666)
                self._cut(_whole_lines(path, os.fstat(self._descriptor).st_size))
            except OSError as error:
                self.close()
                raise save_error(f"cannot open {path}", error) from None

    def append(self, event: Mapping[str, Any]) -> None:
        """Add one line; numbers of numpy and torch are accepted, NaN is written as "nan".

        Raises:
            CheckpointError: the line cannot be written; the log is left as it was.
        """
        descriptor = self._writable()
        text = json.dumps(_plain(event), allow_nan=False)
        line = memoryview(text.encode("ascii") + b"\n")
        try:
            disk.write_all(descriptor, line, self.path)
        except OSError as error:
            self._undo()
            raise save_error(f"cannot write {self.path}", error) from None
        self._size += len(line)
        self._sum.update(line)

    def position(self) -> tuple[int, str]:
        """Bytes of the log so far, and their SHA-256: what a checkpoint stores of it."""
        return self._size, self._sum.hexdigest()

    def sync(self) -> None:
        """Make what was appended durable."""
        os.fsync(self._writable())

    def read(self) -> Iterator[dict[str, Any]]:
        """The events in order; a line that is no JSON object is passed over."""
        for _, event in self._lines():
            if event is not None:
                yield event

    def validations(self) -> list[dict[str, Any]]:
        """The events about evaluations, oldest first."""
        return [event for event in self.read() if event.get("kind") == "valid"]

    def damaged_lines(self) -> int:
        """How many lines are no JSON objects (a partial last one included)."""
        return sum(event is None for _, event in self._lines())

    def truncate_to(self, step: int) -> None:
        """Cut the log before its first event of a step after `step`."""
        for offset, event in self._lines():
            found = event.get("step") if event is not None else None
            if isinstance(found, (int, float)) and found > step:
                self._cut_or_raise(offset)
                return

    def truncate_at(self, position: tuple[int, str]) -> bool:
        """Cut the log back to `position`; whether it was what it was then.

        Where it has become shorter, or another text, it is cut at the last whole line up to there.
        """
        size, sha256 = position
        self._cut_or_raise(_whole_lines(self.path, min(size, self._size)))
        return (self._size, self._sum.hexdigest()) == (size, sha256)

    def agrees(self, position: tuple[int, str]) -> bool:
        """Whether the log still begins with the text that a checkpoint says it had."""
        try:
            total, size = _sum_of(self.path, position[0])
        except (OSError, disk.UnusableFileError):
            return False
        return (size, total.hexdigest()) == position

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _lines(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
        try:
            descriptor, _ = disk.open_plain(self.path)
        except (OSError, disk.UnusableFileError):
            return
        with os.fdopen(descriptor, "rb") as file:
            offset = 0
            while line := file.readline(_MAX_LINE):
                yield offset, _event(line)
                offset += len(line)

    def _writable(self) -> int:
        if self._descriptor is None:
            raise CheckpointError(f"{self.path} is not open for writing")
        return self._descriptor

    def _undo(self) -> None:
        try:
            os.ftruncate(self._writable(), self._size)
        except OSError:  # a partial line stays; it is cut off at the next open
            return

    def _cut_or_raise(self, size: int) -> None:
        try:
            self._cut(size)
        except OSError as error:
            raise save_error(f"cannot cut back {self.path}", error) from None

    def _cut(self, size: int) -> None:
        os.ftruncate(self._writable(), size)
        self._sum, self._size = _sum_of(self.path, size)


def _whole_lines(path: Path, size: int) -> int:
    """Bytes of the first `size` of a file up to and with their last line end."""
    with open(path, "rb") as file:
        while size > 0:
            begin = max(0, size - disk.CHUNK)
            file.seek(begin)
            end = file.read(size - begin).rfind(b"\n")
            if end >= 0:
                return begin + end + 1
            size = begin
    return 0


def _sum_of(path: Path, size: int) -> tuple[Any, int]:
    total, done = hashlib.sha256(), 0
    descriptor, _ = disk.open_plain(path)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while chunk := file.read(min(disk.CHUNK, size - done)):
            total.update(chunk)
            done += len(chunk)
    return total, done


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _plain(value: Any) -> Any:
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, Path):
        return str(value)
    return _plain(value.tolist())  # numpy's and torch's numbers and arrays
