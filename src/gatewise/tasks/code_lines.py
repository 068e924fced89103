"""Series on every machine: how the lines of Python's standard library are indented, line after line.

A file is a series, a line a step, and its value the spaces that the line begins with; an empty line has none and is
missing. How deep the next line stands follows from how deep those before it stand, and is no matter of chance alone.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gatewise.tasks.histories import Histories, History
from gatewise.text.stdlib import stdlib_sources

_SHORTEST, _LONGEST = 100, 2000


def indentation(text: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    r"""Spaces at the beginning of each line; NaN where the line is empty.

    >>> indentation("def f():\n    return 1\n\nf()").tolist()
    [0.0, 4.0, nan, 0.0]
    """
    lines = [line.expandtabs(8) for line in text.split("\n")]
    return np.array([len(s) - len(s.lstrip()) if s.strip() else np.nan for s in lines])


def library_histories(
    counts: Mapping[str, int] | None = None, root: Path | None = None
) -> Histories:
    """The first files of each part of the library, sorted by path: the same on machines with the same Python.

    Args:
        counts: files of each part. Default: 240, 30 and 30.
        root: the library's folder. Default: that of the running interpreter.
    Raises:
        DataError: if the interpreter comes without its library's source.
    """
    counts = counts or {"train": 240, "valid": 30, "test": 30}
    folder = Path(sysconfig.get_path("stdlib")) if root is None else root
    found = []
    for part, paths in stdlib_sources(folder).items():
        of_part: list[History] = []
        for path in paths:
            values = indentation(path.read_text(encoding="utf-8"))[:_LONGEST]
            known = np.flatnonzero(np.isfinite(values))
            values = values[: known[-1] + 1] if len(known) else values[:0]
            if len(values) >= _SHORTEST and len(of_part) < counts.get(part, 0):
                name = path.relative_to(folder).as_posix()
                of_part.append(History(name, values, np.zeros((len(values), 0)), part=part))
        found += of_part
    return Histories(found, [])
