"""New files: refused where one is there before anything is computed, never written over, and named when written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from gatewise.cli import screen
from gatewise.errors import FailedError, OptionError


def check_new(path: Path | None, flag: str = "--out", endings: tuple[str, ...] = ()) -> None:
    """Refuse a file that is there, whose folder is not, or whose name ends otherwise.

    Args:
        path: None: nothing is to be written.
        flag: that named it.
        endings: one of them is expected, where there are some.
    Raises:
        OptionError: naming the flag.
    """
    if path is None:
        return
    if endings and path.suffix.lower() not in endings:
        raise OptionError(f"{flag}: expected a file of {', '.join(endings)}, found {path}")
    if os.path.lexists(path):
        raise OptionError(f"{path} exists: expected a new file, choose another {flag}")
    if not path.parent.is_dir():
        raise OptionError(f"{flag}: {path.parent} is no folder to write {path.name} into")


@contextmanager
def new_text(path: Path, newline: str | None = None) -> Iterator[IO[str]]:
    """A new file of text in UTF-8; FailedError if it cannot be written."""
    try:
        with open(path, "x", encoding="utf-8", newline=newline) as file:
            yield file
    except OSError as error:
        raise FailedError(f"{path}: cannot write it: {error.strerror}") from None
    screen.say(f"written: {path}")


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Arrays by name into a new .npz file.

    Raises:
        FailedError: it cannot be written.
    """
    import numpy as np

    try:
        with open(path, "xb") as file:
            np.savez(file, **dict(arrays))
    except OSError as error:
        raise FailedError(f"{path}: cannot write it: {error.strerror}") from None
    screen.say(f"written: {path}")


def save_table(path: Path, columns: Mapping[str, Any]) -> None:
    """Columns of one length into a new .parquet file.

    Raises:
        FailedError: it cannot be written, or pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise FailedError(
            f"{path}: .parquet needs pyarrow, which is not installed: run pip install 'gatewise[tables]', or "
            "take .npz"
        ) from None
    try:
        with open(path, "xb") as file:
            pyarrow.parquet.write_table(pyarrow.table(dict(columns)), file)
    except OSError as error:
        raise FailedError(f"{path}: cannot write it: {error.strerror}") from None
    screen.say(f"written: {path}")
