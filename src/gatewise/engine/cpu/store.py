"""What was compiled, kept on disk for the next process. Knows files and who may have written them; no code.

Each entry is whole or not there at all, is read only where nobody but this user can have written it, and the least
recently used are dropped. Its name is the sum of everything that determines it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from functools import cache
from pathlib import Path

from gatewise.folders import user_cache

_KEEP = 512  # kernels; each 10 to 100 kB
_UNFINISHED = "unfinished-"
_ABANDONED = 3600.0  # seconds
_EMITTERS = ("cells", "engine/cpu")  # folders of what turns equations into machine code


def name_of(*parts: str) -> str:
    """The name of what these texts determine."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


@cache
def sources() -> str | None:
    """A sum of the sources that write kernels; None where they cannot be read (in an archive, say)."""
    total = hashlib.sha256()
    root = Path(__file__).parents[2]
    try:
        paths = sorted(path for folder in _EMITTERS for path in (root / folder).rglob("*.py"))
        for path in paths:
            data = path.read_bytes()
            total.update(f"{path.relative_to(root)} {len(data)}\0".encode() + data)
    except OSError:
        return None
    return total.hexdigest() if paths else None


def _folder() -> Path:
    try:
        return user_cache() / "kernels"
    except RuntimeError as error:  # the user has no home
        raise FileNotFoundError(str(error)) from None


def read(key: str) -> bytes | None:
    """An entry; in its file, 32 bytes before it are its sum."""
    try:
        path = _folder() / key
        if not (_is_own(path.parent) and _is_own(path)):
            return None
        data = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # the least recently used are dropped first
    return data[32:]


def _is_own(path: Path) -> bool:
    """Whether nobody but this user can have written there: what is read from it is run."""
    if not hasattr(os, "geteuid"):
        return True
    found = path.stat()
    return found.st_uid == os.geteuid() and not found.st_mode & 0o022


def write(key: str, entry: bytes) -> None:
    """Store an entry, whole or not at all; where that fails the next process compiles again."""
    with contextlib.suppress(OSError):
        folder = _folder()
        folder.mkdir(0o700, parents=True, exist_ok=True)
        if not _is_own(folder):
            folder.chmod(0o700)
        handle, name = tempfile.mkstemp(dir=folder, prefix=_UNFINISHED)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(entry).digest() + entry)
            os.replace(name, folder / key)
        except OSError:
            os.unlink(name)
            raise
        _prune(folder)


def _prune(folder: Path) -> None:
    """Drop the least recently used beyond `_KEEP`, and what a killed process left behind."""
    ages: list[tuple[float, Path]] = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process may drop the same
            age = time.time() - path.stat().st_mtime
            if path.name.startswith(_UNFINISHED):
                if age > _ABANDONED:
                    path.unlink()
            else:
                ages.append((age, path))
    for _, path in sorted(ages)[_KEEP:]:
        with contextlib.suppress(OSError):
            path.unlink()
