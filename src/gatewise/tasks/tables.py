"""Tables as columns of text or numbers: CSV, TSV, JSONL and Parquet, the first three also as .gz.

Knows files and columns; what a column means the data sets know. Parquet needs the extra `tables`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gatewise.errors import DataError, OptionError, unknown

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")
_MISSING = frozenset(["", "?", "na", "nan", "null", "none"])


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length.

    Args:
        name: of the file.
        columns: by name; values as the file has them, text from CSV and TSV.
        lines: the line of each row in the file; the row's number for Parquet.
    """

    name: str
    columns: dict[str, list[Any]]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.lines)

    def column(self, name: str) -> list[Any]:
        """The values of one column.

        Raises:
            UnknownNameError: if there is none of this name.
        """
        if name not in self.columns:
            raise unknown(f"column of {self.name}", name, self.columns)
        return self.columns[name]

    def texts(self, name: str) -> list[str]:
        """A column as text; "" where a value is missing."""
        return ["" if value is None else str(value) for value in self.column(name)]

    def numbers(self, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """A column as float64; NaN where a value is missing: empty, ?, NA, NaN, null.

        Raises:
            DataError: with file and line, if a value is not a number.
        """
        found = np.empty(len(self))
        for k, value in enumerate(self.column(name)):
            number = as_number(value)
            if number is None:
                raise DataError(
                    f"{self.name}, line {self.lines[k]}: expected a number in column {name!r}, "
                    f"found {value!r}"
                )
            found[k] = number
        return found


def as_number(value: Any) -> float | None:
    """A float; NaN of what stands for a missing one; None of what is no number."""
    if value is None or (isinstance(value, str) and value.strip().lower() in _MISSING):
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def read_table(path: str | Path) -> Table:
    """The table in a file; its format is told by the name: .csv, .tsv, .jsonl, .parquet, or .csv.gz, ...

    Raises:
        DataError: with file and line, if a row has more or fewer values than columns.
        OptionError: if the format is unknown, or needs a package that is missing.
    """
    path = Path(path)
    suffix = format_of(path)
    if suffix == ".parquet":
        return _parquet(path)
    text = read_text(path)
    if suffix == ".jsonl":
        return _jsonl(path, text)
    return _separated(path, text, "\t" if suffix == ".tsv" else ",")


def format_of(path: str | Path) -> str:
    """.csv, .tsv, .jsonl or .parquet, as the name says.

    Raises:
        OptionError: if it is another.
    """
    bare = Path(str(path)[:-3]) if str(path).lower().endswith(".gz") else Path(path)
    suffix = {".json": ".jsonl", ".ndjson": ".jsonl"}.get(bare.suffix.lower(), bare.suffix.lower())
    if suffix not in FORMATS:
        raise OptionError(f"{path}: expected a table of {', '.join(FORMATS)} by its name")
    return suffix


def read_text(path: str | Path) -> str:
    """A file's text as UTF-8, unpacked if it is named .gz.

    Raises:
        DataError: if it is not there, damaged, or not UTF-8: then with the line.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path, "rb") as file:
                raw = file.read()
        else:
            raw = path.read_bytes()
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: expected text as UTF-8, found other bytes") from None
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path}: expected a file that can be read: {reason}") from None


def lines_of(text: str) -> list[str]:
    """The lines of a text, cut at line feeds alone: other separators belong to a sentence."""
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines and not lines[-1] else lines


def _separated(path: Path, text: str, by: str) -> Table:
    """Rows of a CSV (RFC 4180) or a TSV, in which quotes mean nothing."""
    rows = _csv_rows(path, text) if by == "," else _tsv_rows(text)
    header = next(iter(rows), None)
    if header is None:
        raise DataError(
            f"{path}: expected a line with the names of the columns, found an empty file"
        )
    names = [name.strip() for name in header[1]]
    if len(set(names)) < len(names):
        raise DataError(f"{path}, line 1: expected columns with different names, found {names}")
    columns: list[list[Any]] = [[] for _ in names]
    lines = []
    for number, values in rows:
        if not values:
            continue
        if len(values) != len(names):
            found = f"{len(values)}: {by.join(values)[:60]!r}"
            raise DataError(f"{path}, line {number}: expected {len(names)} values, found {found}")
        lines.append(number)
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    return Table(str(path), dict(zip(names, columns, strict=True)), lines)


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        try:
            first = reader.line_num + 1
            yield first, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: expected CSV: {error}") from None


def _tsv_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines_of(text), 1):
        yield number, line.split("\t") if line else []


def _jsonl(path: Path, text: str) -> Table:
    rows, lines = [], []
    for number, line in enumerate(lines_of(text), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: expected a JSON object: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: expected a JSON object, found {line[:60]!r}")
        rows.append(row)
        lines.append(number)
    if not rows:
        raise DataError(f"{path}: expected JSON objects, a line each, found an empty file")
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Table(str(path), {name: [row.get(name) for row in rows] for name in names}, lines)


def _parquet(path: Path) -> Table:
    try:
        from pyarrow import parquet
    except ImportError:
        raise OptionError(
            f"{path}: Parquet needs pyarrow, which is not installed: "
            "run pip install 'gatewise[tables]'"
        ) from None
    try:
        found = parquet.read_table(path)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise DataError(f"{path}: expected a Parquet file: {first}") from None
    columns = {name: found.column(name).to_pylist() for name in found.column_names}
    return Table(str(path), columns, list(range(1, found.num_rows + 1)))


def matching(table: Table, names: Sequence[str] | None, but: Iterable[str] = ()) -> list[str]:
    """The columns that are asked for, or all but some.

    Raises:
        UnknownNameError: if one is not there.
    """
    if names:
        for name in names:
            table.column(name)
        return list(names)
    left_out = set(but)
    return [name for name in table.columns if name not in left_out]
