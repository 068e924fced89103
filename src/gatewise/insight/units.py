"""Units that follow something in a text, and what they are worth where it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gatewise.insight.marks import Marks, behind
from gatewise.insight.reading import LongReading, read_long, selectivity
from gatewise.probe import Control
from gatewise.run import LanguageRun


@dataclass(frozen=True)
class Follower:
    """A unit, and how well it follows a mark.

    Args:
        path: of what was recorded: layers.0.c.
        unit: from 0.
        score: `selectivity`, -1 to 1.
        inside, outside: its mean at steps with the mark, and at the others.
    """

    path: str
    unit: int
    score: float
    inside: float
    outside: float


@dataclass(frozen=True)
class Worth:
    """What holding units changes, in nats per token; the cost is that of the token that comes next.

    Args:
        inside, outside: mean change of the cost behind steps with the mark, and behind the others.
        before_inside, before_outside: the costs without it.
    """

    inside: float
    outside: float
    before_inside: float
    before_outside: float


def followers(reading: LongReading, where: Marks, top: int = 10) -> list[Follower]:
    """The units that follow a mark best, among all that was recorded."""
    found = []
    for path, values in reading.record.items():
        scores = selectivity(values, where)
        inside, outside = values[where].mean(0), values[~where].mean(0)
        for unit in np.argsort(-np.abs(scores))[:top].tolist():
            one = Follower(
                path, unit, float(scores[unit]), float(inside[unit]), float(outside[unit])
            )
            found.append(one)
    return sorted(found, key=lambda one: -abs(one.score))[:top]


def worth(
    run: LanguageRun,
    text: str,
    where: Marks,
    units: Sequence[tuple[str, int]],
    reading: LongReading,
    value: float = 0.0,
    engine: str = "auto",
) -> Worth:
    """What it costs to hold units at a value all through a text, all of them together.

    Args:
        run, text: as they were read.
        where: steps of interest.
        units: which, each as the path of its gate or state, such as layers.0.c, and its number.
        reading: the text without that, read with the same columns.
        value: what they are held at; 0: off.
        engine: of the recurrent layers.
    Raises:
        DataError: the mark is on all tokens but the last, or on none of them.
    """
    side = behind(where, len(reading.nats))
    control = Control()
    for path in dict.fromkeys(path for path, _ in units):
        own = [unit for other, unit in units if other == path]
        control |= Control.set(path, value, units=own)
    held, before = read_long(run, text, control=control, engine=engine).nats, reading.nats
    sides = []
    for costs in ((held - before)[1:], before[1:]):
        sides += [float(costs[side].mean()), float(costs[~side].mean())]
    return Worth(*sides)
