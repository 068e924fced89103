"""One writer per run folder: a lock that the system itself lets go of when its holder is killed."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from gatewise.errors import CheckpointError


class WriterLock:
    """The lock of the run folder `folder`, held from here until `close`.

    Raises:
        CheckpointError: another process holds it, or it cannot be made.
    """

    def __init__(self, folder: Path, name: str) -> None:
        path = folder / name
        self._descriptor: int | None = None
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        try:
            descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            raise CheckpointError(f"cannot write in {folder}: {error.strerror}") from None
        if not _lock(descriptor):
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise CheckpointError(
                f"another process{f' ({holder})' if holder else ''} is writing in {folder}: "
                "wait until it ends, or choose another folder"
            )
        self._descriptor = descriptor
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"pid {os.getpid()}".encode("ascii"))
        except OSError:  # only the message above loses its number
            return

    def close(self) -> None:
        """Let go of the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            # far behind the process id, which another process must still be able to read
            os.lseek(descriptor, 1 << 20, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)  # else: no locks on this file system
    return True
