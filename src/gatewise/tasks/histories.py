"""Series to forecast: columns of CSV, TSV, JSONL and Parquet, of one series or several, with what is known ahead.

    time,load,temperature          --target load --time time --covariates temperature
    shop,day,sold                  --target sold --id shop --time day: a series for each shop
    time,north,south               --target north,south: a series for each column

Steps without a target behind the last one that has it are the future: their covariates are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from gatewise.errors import DataError, OptionError
from gatewise.tasks.parallel import part_of
from gatewise.tasks.sequences import Array
from gatewise.tasks.series import groups_of
from gatewise.tasks.skips import Skips
from gatewise.tasks.tables import Table, read_table

_SHORTEST = 3


@dataclass(frozen=True, eq=False)
class History:
    """One series.

    Args:
        name: of its column or its id.
        values: (T,) float64, NaN where one is missing; the last one is known.
        covariates: (T + steps ahead, C) float64.
        times: of the same steps as the covariates, as the file has them; [] without a column of times.
        part: "train", "valid" or "test" where the whole series is of that part; None: it is cut by time.
    """

    name: str
    values: Array
    covariates: Array
    times: list[str] = field(default_factory=list)
    part: str | None = None

    @property
    def ahead(self) -> int:
        """Steps behind the last value whose covariates are known."""
        return len(self.covariates) - len(self.values)


@dataclass(frozen=True, eq=False)
class Histories:
    """Series of one data set.

    Args:
        series: of them all.
        covariates: names of what is known ahead.
        notes: what the reader should know: what was left out.
    """

    series: list[History]
    covariates: list[str]
    notes: list[str] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """How many values are missing."""
        return sum(int(np.isnan(one.values).sum()) for one in self.series)

    def summary(self) -> str:
        """What there is, for one line."""
        lengths = [len(one.values) for one in self.series]
        steps = f"{lengths[0]:,}"
        if min(lengths) != max(lengths):
            steps = f"{min(lengths):,} to {max(lengths):,}"
        gaps = f", {self.missing:,} values missing" if self.missing else ""
        known = f", known ahead: {', '.join(self.covariates)}" if self.covariates else ""
        return f"{len(self.series):,} series of {steps} steps{gaps}{known}"


def read_histories(
    data: Sequence[str | Path],
    *,
    target: Sequence[str] = (),
    id: str | None = None,
    time: str | None = None,
    covariates: Sequence[str] = (),
    shortest: int = _SHORTEST,
) -> Histories:
    """The series in tables.

    Args:
        data: .csv, .tsv, .jsonl (also as .gz) and .parquet.
        target: columns to forecast, a series each; may be left out where only one column is left.
        id: the column that says which series a row belongs to.
        time: the column to sort by. Default: the order of the rows.
        covariates: columns that are known ahead.
        shortest: series of fewer steps are left out, counted and named.
    Raises:
        DataError: with file and line, if something cannot be used.
        UnknownNameError: if a column is not there.
    """
    found: list[History] = []
    skips = Skips()
    for path in data:
        table = read_table(path)
        if not len(table):
            raise DataError(f"{path}: expected rows below the names of the columns, found none")
        targets = _targets(table, target, id, time, covariates)
        for one in _series(table, targets, id, time, covariates):
            if len(data) > 1:
                name = f"{Path(path).name} {one.name}"
                one = replace(one, name=name, part=part_of(path))
            if len(one.values) < shortest:
                reason = f"fewer than {shortest} steps with a value"
                skips.add(f"{path}, series {one.name}", reason)
            else:
                found.append(one)
    if not found:
        said = skips.summary()
        raise DataError(
            f"{data[0]}: expected series to forecast, found none{said and f' ({said})'}"
        )
    notes = [skips.summary()] if len(skips) else []
    return Histories(found, list(covariates), [*notes, *_uneven(found)])


def _uneven(series: Sequence[History]) -> list[str]:
    """What to say where a column of times leaves steps out: rows are taken as steps of equal length."""
    counts = {}
    for one in series:
        gaps = np.diff(_moments(one.times))
        if len(gaps):  # months have 28 to 31 days
            counts[one.name] = int((gaps > 1.5 * np.median(gaps)).sum())
    if not (whole := sum(counts.values())):
        return []
    first = next(name for name, count in counts.items() if count)
    return [
        f"{whole:,} steps of time are longer than the others (series {first} is the first): rows are taken "
        "as steps of equal length; write a row without a value for each step that is missing"
    ]


def _moments(times: Sequence[str]) -> Array:
    """Times as numbers, or as seconds of ISO dates; none where they are neither."""
    try:
        return np.array([float(one) for one in times])
    except ValueError:
        pass
    try:
        return np.array([datetime.fromisoformat(one).timestamp() for one in times])
    except (ValueError, OverflowError, OSError):
        return np.zeros(0)


def _targets(
    table: Table, asked: Sequence[str], id: str | None, time: str | None, known: Sequence[str]
) -> list[str]:
    special = {name for name in (id, time, *known) if name}
    for name in special | set(asked):
        table.column(name)
    if asked:
        if both := special & set(asked):
            raise OptionError(f"--target: {min(both)!r} is named as another column too")
        return list(asked)
    left = [name for name in table.columns if name not in special]
    if len(left) != 1:
        raise OptionError(
            f"--target: expected the column of {table.name} to forecast, found "
            f"{', '.join(left) or 'none beside the others'}: name one, or several with commas"
        )
    return left


def _series(
    table: Table, targets: list[str], id: str | None, time: str | None, known: Sequence[str]
) -> list[History]:
    if id is None:
        groups = {"": list(range(len(table)))}
        if time:  # one group, sorted as several are
            one = Table(table.name, {**table.columns, "": [""] * len(table)}, table.lines)
            groups = groups_of(one, "", time)
    else:
        groups = groups_of(table, id, time)
    numbers = {name: table.numbers(name) for name in (*targets, *known)}
    times = table.texts(time) if time else []
    found = []
    for group, rows in groups.items():
        ahead = (
            np.stack([numbers[k][rows] for k in known], 1) if known else np.zeros((len(rows), 0))
        )
        own = [times[k] for k in rows] if times else []
        for target in targets:
            values = numbers[target][rows]
            name = " ".join(part for part in (group, target if len(targets) > 1 else "") if part)
            found.append(_history(name or target, values, ahead, own))
    return found


def _history(name: str, values: Array, covariates: Array, times: list[str]) -> History:
    known = np.flatnonzero(np.isfinite(values))
    end = int(known[-1]) + 1 if len(known) else 0
    if not covariates.shape[1]:  # nothing is said of the future
        covariates, times = covariates[:end], times[:end]
    return History(name, values[:end], covariates, times)
