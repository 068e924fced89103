"""One task, its contestants: everybody is entered and checked, then those that are right take turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic

from gatewise.bench import parity
from gatewise.bench.ceilings import Ceilings
from gatewise.bench.contestants import Contestant, Entry, Excluded, Task
from gatewise.bench.machine import Others
from gatewise.bench.report import Left, Row, Table, speeds
from gatewise.bench.timing import Call, Plan, Times, interleave

Tell = Callable[[str], None]

_BUSY = 0.05  # of the cores' time
_NOISY = (
    "while this was timed other programs took {:.0%} of the cores' time: measure again in quiet"
)


@dataclass(frozen=True)
class Match(Generic[Task, Entry]):
    """A task and everything that is needed to hold it.

    Args:
        kind, title, size: as in `Table`.
        task: what contestants are entered for.
        contestants: by name.
        error: an entry and its dtype -> how far its results are from the truth.
        call: an entry and its dtype -> what is timed.
        before: what happens to an entry before each turn.
        bases: names that the others are compared with.
        operations: name -> what one of them computes, as multiplications and additions.
        engine: an entry -> the name of the engine that ran.
        label: a label -> with the task's words.
        parts: what one call does so many times; times are of one of them.
        more: name, entry and seconds -> further figures of a row.
    """

    kind: str
    title: str
    size: Mapping[str, Any]
    task: Task
    contestants: Mapping[str, Contestant[Task, Entry]]
    error: Callable[[Entry, str], float]
    call: Callable[[Entry, str], Call]
    bases: Sequence[str]
    before: Callable[[Entry], object] | None = None
    operations: Mapping[str, float] = field(default_factory=dict)
    engine: Callable[[Entry], str] = lambda _: ""
    label: Callable[[str], str] = lambda text: text
    parts: int = 1
    more: Callable[[str, Entry, float], Mapping[str, float]] = lambda *_: {}


@dataclass(frozen=True)
class _Checked(Generic[Entry]):
    entries: dict[str, Entry]
    errors: dict[str, float]
    left: list[Left]


def hold(
    match: Match[Task, Entry], plan: Plan, ceilings: Ceilings, threads: int, tell: Tell
) -> Table:
    """Check everybody, let them take turns, and write down what was found.

    Args:
        match: the task.
        plan: how long and how finely to measure.
        ceilings: of this machine.
        threads: that everybody has.
        tell: called with what is done next.
    """
    tell(f"{match.title}: parity")
    checked = _check(match)
    tell(f"{match.title}: timing {len(checked.entries)} contestants")
    calls = {n: match.call(e, match.contestants[n].dtype) for n, e in checked.entries.items()}
    others = Others()
    times = interleave(calls, plan, before=_before(match, checked.entries)) if calls else Times()
    busy = others.share()
    return Table(
        match.kind,
        match.title,
        match.size,
        [_row(match, checked, times, name, ceilings, threads) for name in times.rounds],
        checked.left,
        _floors(match, ceilings, threads),
        [] if busy is None or busy < _BUSY else [_NOISY.format(busy)],
    )


def _before(match: Match[Task, Entry], entries: Mapping[str, Entry]) -> dict[str, Call]:
    if match.before is None:
        return {}
    return {name: partial(match.before, entry) for name, entry in entries.items()}


def _check(match: Match[Task, Entry]) -> _Checked[Entry]:
    found: _Checked[Entry] = _Checked({}, {}, [])
    for name, contestant in match.contestants.items():
        label = match.label(contestant.label)
        try:
            entry = contestant.enter(match.task)
            error = match.error(entry, contestant.dtype)
        except Excluded as reason:
            found.left.append(Left(name, label, contestant.dtype, str(reason)))
            continue
        if why := parity.complaint(error, contestant.dtype):
            found.left.append(Left(name, label, contestant.dtype, why, contestant.ours))
            continue
        found.entries[name], found.errors[name] = entry, error
    return found


def _row(
    match: Match[Task, Entry],
    checked: _Checked[Entry],
    times: Times,
    name: str,
    ceilings: Ceilings,
    threads: int,
) -> Row:
    contestant = match.contestants[name]
    seconds = times.seconds(name).scaled(1 / match.parts)
    work = match.operations.get(name)
    rate = None if work is None else work / seconds.median
    most = ceilings.arithmetic(contestant.dtype, threads)
    return Row(
        name,
        match.label(contestant.label),
        contestant.dtype,
        seconds,
        engine=match.engine(checked.entries[name]),
        error=checked.errors[name],
        rate=rate,
        share=rate / most if rate is not None and most else None,
        more=match.more(name, checked.entries[name], seconds.median),
        **speeds(times, name, match.bases),
    )


def _floors(match: Match[Task, Entry], ceilings: Ceilings, threads: int) -> dict[str, float]:
    """dtype -> seconds that the least work of it takes at the ceiling."""
    floors: dict[str, float] = {}
    for name, work in match.operations.items():
        dtype = match.contestants[name].dtype
        most = ceilings.arithmetic(dtype, threads)
        if most:
            floors[dtype] = min(floors.get(dtype, float("inf")), work / most)
    return floors
