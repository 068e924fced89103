"""Vectors without texts, from the same tables as those with texts. Knows files only."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gatewise.errors import DataError
from gatewise.tasks.tables import matching, read_table

Vectors = np.ndarray[Any, np.dtype[np.float32]]


def read_rows(
    path: str | Path, but: Sequence[str | None] = ()
) -> tuple[list[str], Vectors, list[str]]:
    """(names, vectors, a line for each row that was left out) of a table.

    Args:
        path: a .npz of `vectors` (n, D) and perhaps `names` (n,), or a CSV, TSV, JSONL or Parquet of numbers.
        but: columns that are no numbers, where they are there.
    Raises:
        DataError: with file and line, if a value is not a number; if nothing is left.
    """
    if Path(path).suffix.lower() == ".npz":
        try:
            with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                vectors = file["vectors"].astype(np.float32)
                names = [str(one) for one in file["names"]] if "names" in file.files else []
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: expected vectors as .npz: {error}") from None
        if vectors.ndim != 2:
            raise DataError(f"{path}: expected vectors (n, D), found {vectors.shape}")
        if len(names) != len(vectors):
            names = [f"row {k + 1}" for k in range(len(vectors))]
    else:
        table = read_table(path)
        columns = matching(table, None, [name for name in but if name])
        if not columns or not len(table):
            raise DataError(f"{path}: expected columns of numbers, found none")
        vectors = np.stack([table.numbers(name) for name in columns], 1).astype(np.float32)
        names = [f"line {line}" for line in table.lines]
    good = np.isfinite(vectors).all(1)
    skipped = [
        f"{path}, {name}: a value that is missing or not finite"
        for name, fine in zip(names, good.tolist(), strict=True)
        if not fine
    ]
    kept = [name for name, fine in zip(names, good.tolist(), strict=True) if fine]
    return kept, vectors[good], skipped
