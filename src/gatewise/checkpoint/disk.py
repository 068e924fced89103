"""Files and folders that survive a kill and a power cut; the only place that calls the system.

Every function raises OSError as the system gives it (with the file's name), so that one place above
can turn it into one line. Nothing here knows what the files hold.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, TypeAlias

Buffer: TypeAlias = "bytes | bytearray | memoryview"

CHUNK = 1 << 20  # bytes; summed while they are still in the processor's cache
_SPARSE_FROM = 64 << 20  # bytes of holes that no file of ours has
_BINARY = getattr(os, "O_BINARY", 0)
_CLOSE_ON_EXEC = getattr(os, "O_CLOEXEC", 0)
_PLAIN_ONLY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class Digest(NamedTuple):
    """What a manifest says about one file."""

    size: int
    sha256: str


class UnusableFileError(Exception):
    """A file that is there but must not be read; the message says why."""


def write_file(path: Path, chunks: Iterable[Buffer]) -> Digest:
    """Write `chunks` to a new file and sync it; the sum is taken on the way, so nothing is read."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY | _CLOSE_ON_EXEC
    descriptor = os.open(path, flags, 0o666)
    total, size = hashlib.sha256(), 0
    try:
        for chunk in chunks:
            whole = memoryview(chunk).cast("B")
            size += len(whole)
            for begin in range(0, len(whole), CHUNK):
                total.update(whole[begin : begin + CHUNK])
                write_all(descriptor, whole[begin : begin + CHUNK], path)
        os.fsync(descriptor)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        raise _named(error, path) from None
    try:
        os.close(descriptor)
    except OSError as error:
        raise _named(error, path) from None
    return Digest(size, total.hexdigest())


def _named(error: BaseException, path: Path) -> BaseException:
    """`error` with the file's name, which the system does not know for a descriptor."""
    if isinstance(error, OSError) and error.filename is None:
        error.filename = str(path)
    return error


def write_all(descriptor: int, view: memoryview, path: Path) -> None:
    """Write all of `view`: one write may take only a part (near a full disk, above 2 GiB)."""
    done = 0
    while done < len(view):
        written = os.write(descriptor, view[done : done + (1 << 30)])
        if written == 0:
            raise OSError(errno.EIO, "nothing was written", str(path))
        done += written


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable; a folder needs its own sync."""
    if sys.platform == "win32":  # a folder cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY | _CLOSE_ON_EXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not offered by this file system
            raise
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Give `path` new content: at any moment it holds the old or the new, whole."""
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    try:
        write_file(temporary, [content])
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def remove_tree(path: Path) -> None:
    """Remove a folder as far as possible: what stays is removed at the next open for writing."""
    with contextlib.suppress(OSError):  # rmtree does not ignore every error that it may meet
        shutil.rmtree(path, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, each made durable in the one above."""
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
    sync_folder(path.parent)


def open_plain(path: Path) -> tuple[int, os.stat_result]:
    """Open a regular file for reading: never a link, a pipe or a device, which could block.

    Raises:
        UnusableFileError: it is something else.
        OSError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _BINARY | _CLOSE_ON_EXEC | _PLAIN_ONLY)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnusableFileError("is a link, expected a plain file") from None
        if error.errno == errno.ENXIO:
            raise UnusableFileError("is not a plain file") from None
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise UnusableFileError("is not a plain file")
    return descriptor, found


def read_small(path: Path, limit: int) -> bytes:
    """The content of a plain file of at most `limit` bytes; more is never read.

    Raises:
        UnusableFileError: it is larger, or not a plain file.
    """
    descriptor, found = open_plain(path)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if found.st_size > limit:
            raise UnusableFileError(f"is {found.st_size} bytes, at most {limit} are expected")
        return read_exactly(file.fileno(), found.st_size)


def read_exactly(descriptor: int, size: int) -> bytes:
    """Up to `size` bytes from where `descriptor` stands; fewer only at the end of the file."""
    parts: list[bytes] = []
    while size > 0:
        part = os.read(descriptor, min(size, CHUNK))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def refuse_holes(descriptor: int, size: int) -> None:
    """Raise UnusableFileError for a file that is mostly holes: huge in name, tiny on disk."""
    if size < _SPARSE_FROM or not hasattr(os, "SEEK_HOLE"):
        return
    data = position = 0
    with contextlib.suppress(OSError):  # ENXIO: no data after here; EINVAL: not offered
        for _ in range(64):
            position = os.lseek(descriptor, position, os.SEEK_DATA)
            end = os.lseek(descriptor, position, os.SEEK_HOLE)
            data, position = data + end - position, end
            if position >= size:
                break
        else:
            data = size  # very many pieces: a real file
    os.lseek(descriptor, 0, os.SEEK_SET)
    if size - data > max(_SPARSE_FROM, size // 10 * 9):
        raise UnusableFileError(f"claims {size} bytes, but only {data} are on the disk")


def memory_size() -> int | None:
    """Bytes of memory of this machine, or None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
