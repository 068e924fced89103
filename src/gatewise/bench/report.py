"""The document that a benchmark gives: tables of rows, what was left out, aims. As objects and as JSON.

Knows nothing of how anything was measured. The form is described in docs/benchmarks.md; `FORMAT` counts its
changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gatewise.bench.timing import Spread, Times

FORMAT = 1


@dataclass(frozen=True)
class Row:
    """One contestant's figures.

    Args:
        name: the same in every release.
        label: as people read it.
        dtype: of its products.
        seconds: of one call.
        speeds: base -> how many times as fast, the ratio of the medians.
        speeds_by_round: base -> the same from round to round.
        engine: of gatewise that ran; empty for others.
        error: relative, against the truth; None: not compared.
        rate: operations or bytes a second.
        share: of the ceiling of its dtype.
        more: further figures by name.
    """

    name: str
    label: str
    dtype: str
    seconds: Spread
    speeds: Mapping[str, float] = field(default_factory=dict)
    speeds_by_round: Mapping[str, Spread] = field(default_factory=dict)
    engine: str = ""
    error: float | None = None
    rate: float | None = None
    share: float | None = None
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Left:
    """A contestant that was not timed.

    Args:
        dtype: of its products.
        why: the reason.
        wrong: it is gatewise, and its results were wrong.
    """

    name: str
    label: str
    dtype: str
    why: str
    wrong: bool = False


@dataclass(frozen=True)
class Table:
    """One task and its contestants.

    Args:
        kind: "train", "step", "lm", "cell", ...
        title: of the task.
        size: its numbers by name.
        rows: the contestants.
        left: those that were left out.
        floors: dtype -> seconds at the ceiling of this machine.
        notes: what else should be known.
    """

    kind: str
    title: str
    size: Mapping[str, Any]
    rows: Sequence[Row]
    left: Sequence[Left] = ()
    floors: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def row(self, name: str) -> Row | None:
        """A contestant's row, or None."""
        return next((row for row in self.rows if row.name == name), None)


@dataclass(frozen=True)
class Verdict:
    """One aim and what was found.

    Args:
        key: its name, the same in every release.
        text: what is compared with what.
        statistic: "geometric mean", "least", "most".
        value: what was found.
        aim: what it should be; None: it is only shown.
        sense: ">=" or "<=".
        over: sizes that went into it.
    """

    key: str
    text: str
    statistic: str
    value: float
    aim: float | None
    sense: str
    over: Sequence[str]

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None without an aim."""
        if self.aim is None:
            return None
        return self.value >= self.aim if self.sense == ">=" else self.value <= self.aim


@dataclass(frozen=True)
class Report:
    """Everything that one command measured.

    Args:
        settings: of the measurement.
        machine: where it ran.
        ceilings: as `ceilings_document` writes them.
        tables: the tasks.
        verdicts: the aims.
    """

    settings: Mapping[str, Any]
    machine: Mapping[str, Any]
    ceilings: Mapping[str, Any]
    tables: Sequence[Table]
    verdicts: Sequence[Verdict]

    @property
    def wrong(self) -> list[Left]:
        """Results of gatewise that were wrong."""
        return [left for table in self.tables for left in table.left if left.wrong]

    def document(self) -> dict[str, Any]:
        """As one JSON document; times in seconds, rates in operations or bytes a second."""
        return {
            "format": FORMAT,
            "settings": dict(self.settings),
            "machine": dict(self.machine),
            "ceilings": dict(self.ceilings),
            "tables": [_table(table) for table in self.tables],
            "aims": [_verdict(verdict) for verdict in self.verdicts],
        }


def _table(table: Table) -> dict[str, Any]:
    return {
        "kind": table.kind,
        "title": table.title,
        "size": dict(table.size),
        "floors": dict(table.floors),
        "rows": [_row(row) for row in table.rows],
        "left_out": [
            {
                "name": e.name,
                "label": e.label,
                "dtype": e.dtype,
                "why": e.why,
                "wrong": e.wrong,
            }
            for e in table.left
        ],
        "notes": list(table.notes),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "label": row.label,
        "dtype": row.dtype,
        "engine": row.engine,
        "seconds": _spread(row.seconds),
        "speed": dict(row.speeds),
        "speed_by_round": {base: _spread(s) for base, s in row.speeds_by_round.items()},
        "error": row.error,
        "rate": row.rate,
        "share_of_ceiling": row.share,
        "more": dict(row.more),
    }


def _spread(found: Spread) -> dict[str, Any]:
    return {
        "median": found.median,
        "q1": found.q1,
        "q3": found.q3,
        "least": found.least,
        "rounds": found.count,
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "key": verdict.key,
        "text": verdict.text,
        "statistic": verdict.statistic,
        "value": verdict.value,
        "sense": verdict.sense,
        "aim": verdict.aim,
        "met": verdict.met,
        "over": list(verdict.over),
    }


def speeds(times: Times, name: str, bases: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The two mappings of speeds that a row has, over those bases that were timed."""
    played = [base for base in bases if base in times.rounds]
    return {
        "speeds": {base: times.speed(name, base) for base in played},
        "speeds_by_round": {base: times.speeds(name, base) for base in played},
    }
