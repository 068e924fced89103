"""The .ts format of the UEA/UCR archive (Bagnall et al. 2018, "The UEA multivariate time series
classification archive"): a header of @ lines, then a series a line, channels apart by colons.

`1.5,2.0,?:0.1,0.2,0.3:walking` is a series of three steps and two channels of the class walking.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gatewise.errors import DataError
from gatewise.tasks.sequences import Array, Series, usable
from gatewise.tasks.tables import as_number, lines_of, read_text
from gatewise.text.ragged import Ragged

_FLAGS = ("true", "false")


@dataclass
class _Header:
    labels: list[str] = field(default_factory=list)
    labelled: bool = False
    numeric: bool = False
    dimensions: int = 0
    length: int = 0


def read_ts(path: str | Path, *, known: bool = True) -> Series:
    """The series of a .ts file, with their classes (@classLabel) or numbers (@targetLabel).

    Args:
        path: the file.
        known: leave out what has no class or number ("?").

    Raises:
        DataError: with file and line, if one is not of the format: another number of channels,
            channels of unequal lengths, a label that the header does not name, time stamps.
    """
    lines = lines_of(read_text(path))
    header, start = _header(path, lines)
    values, outcomes, ids = [], [], []
    for number, line in enumerate(lines[start:], start + 1):
        if not line.strip() or line.startswith(("#", "%")):
            continue
        where = f"{path}, line {number}"
        series, outcome = _series(where, line.strip(), header)
        header.dimensions = header.dimensions or series.shape[1]
        values.append(series)
        outcomes.append(outcome)
        ids.append(f"line {number}")
    if not values:
        raise DataError(f"{path}: expected series below @data, found none")
    channels = [f"channel_{k}" for k in range(header.dimensions)]
    ragged = Ragged.of(values, np.float32)
    labels = outcomes if header.labelled else None
    targets = np.array([as_number(y) for y in outcomes], float) if header.numeric else None
    return usable(Series(ragged, channels, labels, targets, ids), str(path), known)


def _header(path: str | Path, lines: list[str]) -> tuple[_Header, int]:
    """The header, and the number of lines up to @data."""
    header = _Header()
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith(("#", "%")):
            continue
        if not line.startswith("@"):
            break
        key, *words = line.split()
        try:
            if key.lower() == "@data":
                return header, number
            _read_tag(header, key.lower(), words)
        except DataError as error:
            raise DataError(f"{path}, line {number}: {error}") from None
        except (ValueError, IndexError):
            raise DataError(f"{path}, line {number}: cannot read {line[:60]!r}") from None
    raise DataError(f"{path}: expected a header of @ lines and @data (.ts), found no @data")


def _read_tag(header: _Header, key: str, words: list[str]) -> None:
    if key in ("@classlabel", "@targetlabel"):
        given = words[0].lower()
        if given not in _FLAGS:
            raise ValueError
        header.labelled = key == "@classlabel" and given == "true"
        header.numeric = key == "@targetlabel" and given == "true"
        header.labels = words[1:] if header.labelled else []
    elif key in ("@dimensions", "@dimension"):
        header.dimensions = int(words[0])
    elif key == "@univariate" and words[0].lower() == "true":
        header.dimensions = 1
    elif key == "@serieslength":
        header.length = int(words[0])
    elif key == "@timestamps" and words[0].lower() == "true":
        raise DataError("series with time stamps are not read: write their values alone")


def _series(where: str, line: str, header: _Header) -> tuple[Array, str]:
    """(T, D) and the label or target, as text."""
    parts = line.split(":")
    outcome = parts.pop().strip() if header.labelled or header.numeric else ""
    if header.labels and outcome not in (*header.labels, "?"):
        known = ", ".join(header.labels)
        raise DataError(f"{where}: expected a label of {known}, found {outcome[:40]!r}")
    if header.numeric and as_number(outcome) is None:
        raise DataError(f"{where}: expected a number after the last colon, found {outcome[:40]!r}")
    expected = header.dimensions or len(parts)
    if len(parts) != expected or not parts:
        raise DataError(f"{where}: expected {expected} channels, found {len(parts)}")
    channels = [_numbers(where, part) for part in parts]
    lengths = {len(channel) for channel in channels}
    if len(lengths) > 1:
        raise DataError(f"{where}: expected channels of one length, found {sorted(lengths)} steps")
    if header.length and lengths != {header.length}:
        found = lengths.pop()
        raise DataError(f"{where}: expected {header.length} steps, found {found}")
    return np.array(channels, np.float32).T, outcome


def _numbers(where: str, part: str) -> list[float]:
    found = []
    for text in part.split(","):
        number = as_number(text)
        if number is None:
            raise DataError(f"{where}: expected numbers by commas, found {text[:40]!r}")
        found.append(number)
    return found
