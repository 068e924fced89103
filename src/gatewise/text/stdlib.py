"""The Python standard library's source of the running interpreter: real text on every machine."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from pathlib import Path

from gatewise.errors import DataError

_TESTS = frozenset({"test", "tests", "idle_test"})
_OTHERS = frozenset({"site-packages", "dist-packages", "__pycache__"})
_GENERATED = frozenset({"encodings", "pydoc_data"})
"""Tables and manual pages written by programs: a seventh of the library, and no code."""
_LEFT_OUT = _TESTS | _OTHERS | _GENERATED

_VALID, _TEST = 0.05, 0.05


def stdlib_sources(root: Path | None = None) -> dict[str, list[Path]]:
    """The library's Python files in splits, as `build_corpus` takes them; whole files each.

    A file's split follows from its path inside the library alone, so it does not depend on the
    machine. Files that are not UTF-8 are left out. About 10 MB.

    Args:
        root: the library's folder. Default: that of the running interpreter.
    Raises:
        DataError: if the interpreter comes without its library's source.
    """
    folder = Path(sysconfig.get_path("stdlib")) if root is None else root
    splits: dict[str, list[Path]] = {"train": [], "valid": [], "test": []}
    for path in _files(folder):
        splits[_split(path.relative_to(folder).as_posix())].append(path)
    if not splits["train"]:
        raise DataError(
            f"expected the standard library's .py files in {folder}, found none: "
            "install Python with its library's source, or give your own text"
        )
    return {split: paths for split, paths in splits.items() if paths}


def _files(folder: Path) -> list[Path]:
    """The Python files with text in them, sorted by path."""
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if f not in _LEFT_OUT and not f.startswith(".")]
        paths = [Path(root, name) for name in files if _is_source(name)]
        found += [path for path in paths if _is_text(path)]
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def _is_source(name: str) -> bool:
    return name.endswith(".py") and not name.startswith("_sysconfigdata")


def _is_text(path: Path) -> bool:
    try:
        data = path.read_bytes()
        data.decode()
    except (OSError, UnicodeDecodeError):
        return False
    return bool(data) and b"\0" not in data


def _split(name: str) -> str:
    """The split of a file by a number from 0 to 1 that its name alone decides."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    return "valid" if number < _VALID else "test" if number < _VALID + _TEST else "train"
