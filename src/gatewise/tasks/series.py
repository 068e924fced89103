"""Numeric series with a class or a number each: .ts of the UEA/UCR archive, .npz, CSV and Parquet.

Time is the first dimension, channels the second; lengths may differ; a missing value is NaN, and counted.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gatewise.errors import DataError, OptionError
from gatewise.tasks.sequences import Array, Series, usable
from gatewise.tasks.tables import Table, matching, read_table
from gatewise.tasks.ts import read_ts
from gatewise.text.ragged import Ragged

__all__ = ["Series", "groups_of", "read_npz", "read_series", "series_of"]


def read_series(
    path: str | Path,
    *,
    label: str | None = None,
    target: str | None = None,
    id: str | None = None,
    time: str | None = None,
    channels: Sequence[str] | None = None,
) -> Series:
    """The series of a file, by its name: .ts, .npz, or a table.

    Args:
        path: `.ts`; `.npz` with `x` (n, T, D) or (n, T), or lists of unequal length as `values` and
            `starts`, and `y`; a table .csv, .tsv, .jsonl or .parquet, long or wide.
        label: a table's column of classes.
        target: a table's column of numbers to predict.
        id: a long table's column that says which series a row belongs to. Without it the table is
            wide: a row is a series of one channel, its steps the columns.
        time: a long table's column to sort by. Default: the order of the rows.
        channels: columns of values. Default: all others.
    Raises:
        DataError: with file and line, if something cannot be used.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".ts", ".npz"):
        if label or target or id or time or channels:
            raise OptionError(f"{path}: columns are of tables; leave their names out for {suffix}")
        if suffix == ".npz":
            return read_npz(path)
        return read_ts(path)
    if label and target:
        raise OptionError("expected a column of labels or one of targets, found both")
    return series_of(
        read_table(path), label=label, target=target, id=id, time=time, channels=channels
    )


def series_of(
    table: Table,
    *,
    label: str | None = None,
    target: str | None = None,
    id: str | None = None,
    time: str | None = None,
    channels: Sequence[str] | None = None,
    known: bool = True,
) -> Series:
    """The series of a table; see `read_series`. If `known`, each must have a class or a number."""
    path = table.name
    if not len(table):
        raise DataError(f"{path}: expected rows below the names of the columns, found none")
    groups = groups_of(table, id, time)
    outcome = label or target
    special = [name for name in (id, time, outcome) if name]
    columns = matching(table, channels, special)
    if not columns:
        raise DataError(f"{path}: expected a column of values beside {', '.join(special)}")
    values = _long(table, columns, groups) if id else _wide(table, columns)
    firsts = [rows[0] for rows in groups.values()]
    if outcome:
        _check_constant(table, outcome, groups)
    texts = table.texts(label) if label else []
    labels = [texts[k] for k in firsts] if label else None
    targets = table.numbers(target)[firsts] if target else None
    names = columns if id else ["value"]
    return usable(Series(values, names, labels, targets, list(groups)), str(path), known)


def _long(table: Table, columns: list[str], groups: dict[str, list[int]]) -> Ragged:
    """A row is a step of a series."""
    values = _values(table, columns)
    return Ragged.of([values[rows] for rows in groups.values()], np.float32)


def _values(table: Table, columns: list[str]) -> Array:
    """(rows, columns) float32; what is too large becomes infinite, and `usable` leaves it out."""
    with np.errstate(over="ignore"):
        return np.stack([table.numbers(name) for name in columns], 1).astype(np.float32)


def groups_of(table: Table, id: str | None, time: str | None) -> dict[str, list[int]]:
    """The rows of each series, in the order of time.

    Args:
        table: long, or without `id` wide: each row a series of its own.
        id: the column that says which series a row belongs to.
        time: the column to sort by; default: the order of the rows.
    Raises:
        DataError: with the line, if a series has a time twice, or a row none.
        OptionError: if there is a column of times without one of ids.
    """
    if id is None:
        if time:
            raise OptionError(f"{table.name}: a column of times needs a column of ids beside it")
        return {str(line): [k] for k, line in enumerate(table.lines)}
    groups: dict[str, list[int]] = {}
    for k, name in enumerate(table.texts(id)):
        groups.setdefault(name, []).append(k)
    if time:
        keys = _times(table, time)
        for name, rows in groups.items():
            rows.sort(key=lambda k: keys[k])
            for a, b in pairwise(rows):
                if keys[a] == keys[b]:
                    where = (
                        f"in series {name!r}"
                        if name
                        else ("in the table: name the column that tells series apart with --id")
                    )
                    raise DataError(
                        f"{table.name}, line {table.lines[b]}: expected one row for each time, "
                        f"found {keys[b]} twice {where}"
                    )
    return groups


def _times(table: Table, time: str) -> list[Any]:
    """What a table is sorted by: numbers if all are, else the texts (ISO dates sort as texts)."""
    try:
        numbers = table.numbers(time)
    except DataError:
        return list(table.texts(time))
    if np.isnan(numbers).any():
        line = table.lines[int(np.isnan(numbers).argmax())]
        raise DataError(f"{table.name}, line {line}: expected a time in {time!r}, found none")
    return list(numbers.tolist())


def _wide(table: Table, columns: list[str]) -> Ragged:
    """A row is a series; missing values at its end are the end of a shorter one."""
    values = _values(table, columns)
    known = ~np.isnan(values)
    ends = np.where(known.any(1), values.shape[1] - known[:, ::-1].argmax(1), 0)
    return Ragged.of([row[:end, None] for row, end in zip(values, ends, strict=True)], np.float32)


def _check_constant(table: Table, outcome: str, groups: dict[str, list[int]]) -> None:
    values = table.texts(outcome)
    for name, rows in groups.items():
        for k in rows:
            if values[k] != values[rows[0]]:
                raise DataError(
                    f"{table.name}, line {table.lines[k]}: expected one {outcome!r} for series "
                    f"{name!r}, found {values[rows[0]]!r} and {values[k]!r}"
                )


def read_npz(path: str | Path, *, known: bool = True) -> Series:
    """Arrays: `x` (n, T, D) or (n, T), or `values` and `starts` of a Ragged; `y` of labels or numbers.

    In `x` steps that are NaN in all channels at the end of a series are behind its end. A `y` of
    floats is targets, of integers or texts labels; without one a series is left out if `known`.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise DataError(f"{path}: expected arrays of numbers as .npz: {error}") from None
    values = _ragged(path, arrays)
    labels, targets = None, None
    if "y" in arrays:
        y = arrays["y"]
        if y.shape != (len(values),):
            raise DataError(f"{path}: expected y ({len(values)},), one a series, found {y.shape}")
        if np.issubdtype(y.dtype, np.floating):
            targets = y.astype(np.float64)
        else:
            labels = [str(one) for one in y]
    width = values.values.shape[1]
    ids = [str(k) for k in range(len(values))]
    return usable(Series(values, _numbered(width), labels, targets, ids), str(path), known)


def _ragged(path: str | Path, arrays: dict[str, Array]) -> Ragged:
    if "values" in arrays and "starts" in arrays:
        values, starts = arrays["values"], arrays["starts"].astype(np.int64)
        values = values[:, None] if values.ndim == 1 else values
        whole = starts.ndim == 1 and len(starts) > 1 and starts[0] == 0
        if not whole or (np.diff(starts) < 0).any() or starts[-1] != len(values):
            raise DataError(f"{path}: expected starts from 0, rising, to {len(values)}")
        return Ragged(values.astype(np.float32), starts)
    x = arrays.get("x", arrays.get("X"))
    if x is None or x.ndim not in (2, 3) or not np.issubdtype(x.dtype, np.number):
        shape = "none" if x is None else f"{x.dtype} {x.shape}"
        raise DataError(f"{path}: expected x (series, steps, channels) of numbers, found {shape}")
    x = (x[..., None] if x.ndim == 2 else x).astype(np.float32)
    known: Array = np.asarray(~np.isnan(x).all(axis=2))
    ends = np.where(known.any(1), x.shape[1] - known[:, ::-1].argmax(1), 0)
    return Ragged.of([one[:end] for one, end in zip(x, ends, strict=True)], np.float32)


def _numbered(width: int) -> list[str]:
    return [f"channel_{k}" for k in range(width)]
