"""Contestants that take turns, and what their times say: medians, quartiles, ratios of medians.

Knows clocks and numbers; nothing of what it times. In each round every contestant has one turn, in an
order drawn anew, so that what else the machine does hits all of them alike.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

Call = Callable[[], object]
Clock = Callable[[], float]

_FEWEST = 3  # rounds, whatever the limit of time says
_LONGEST, _IDLE = 0.5, 0.1  # seconds of rest; share of a processor that counts as no work
_SLOW, _EVERY = 4.0, 4  # who takes 4 times the usual time plays every 4th round


@dataclass(frozen=True)
class Plan:
    """How long and how finely to measure.

    Args:
        seconds: no new round begins after this time; three rounds are always run.
        rounds: at most so many.
        shortest: seconds that one turn lasts at least; what is quicker is called several times.
        pause: seconds of rest before each turn.
        asleep: rest on, for half a second at most, until no thread of this process works: those of another library spin
            for a while after their turn, and would take a processor from whoever is next.
        warm: seconds of untimed calls at the start of each turn, which wake threads and bring back what others
            pushed out of the caches; 0: none.
        seed: of the order of turns.
    """

    seconds: float = 10.0
    rounds: int = 30
    shortest: float = 0.0
    pause: float = 0.0
    asleep: bool = False
    warm: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Spread:
    """What repeated measurements of one thing say, in the unit of the measurements."""

    median: float
    q1: float
    q3: float
    least: float
    count: int

    def scaled(self, factor: float) -> Spread:
        """The same in another unit."""
        q1, q3 = self.q1 * factor, self.q3 * factor
        return Spread(self.median * factor, q1, q3, self.least * factor, self.count)


def spread(values: Sequence[float]) -> Spread:
    """Median, quartiles (inclusive) and least of some values.

    >>> spread([4.0, 1.0, 2.0, 3.0])
    Spread(median=2.5, q1=1.75, q3=3.25, least=1.0, count=4)
    """
    if not values:
        raise ValueError("expected at least one measurement, found none")
    if len(values) == 1:
        return Spread(values[0], values[0], values[0], values[0], 1)
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, q1, q3, min(values), len(values))


def geometric_mean(values: Sequence[float]) -> float:
    """The mean of ratios.

    >>> geometric_mean([0.5, 2.0])
    1.0
    """
    return math.exp(sum(math.log(v) for v in values) / len(values))


@dataclass(frozen=True)
class Times:
    """Contestant -> round -> seconds of one call."""

    rounds: dict[str, dict[int, float]] = field(default_factory=dict)

    def seconds(self, name: str) -> Spread:
        """What one call of a contestant takes."""
        return spread(list(self.rounds[name].values()))

    def speed(self, name: str, base: str) -> float:
        """How many times as fast as `base`: the ratio of their medians."""
        return self.seconds(base).median / self.seconds(name).median

    def speeds(self, name: str, base: str) -> Spread:
        """The same round by round, over those rounds in which both played."""
        own, other = self.rounds[name], self.rounds[base]
        return spread([other[k] / own[k] for k in own if k in other])


def interleave(
    calls: Mapping[str, Call],
    plan: Plan,
    *,
    before: Mapping[str, Call] | None = None,
    clock: Clock = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
    spent: Clock = time.process_time,
) -> Times:
    """Time the contestants in turns.

    Each is called once unmeasured (it compiles, allocates), then once to see how many calls make a turn.

    Args:
        calls: name -> what to time.
        plan: how long and how finely.
        before: name -> what happens before each of its turns, not timed.
        clock, sleep, spent: for tests; `spent` says how long this process's threads have worked.
    """
    ready, draw = dict(before or {}), random.Random(plan.seed)

    def prepare(name: str) -> None:
        """What comes before a turn."""
        ready.get(name, _nothing)()
        _rest(plan, sleep, spent)
        begun = clock()
        while clock() - begun < plan.warm:
            calls[name]()

    counts, every = _calibrate(calls, plan, prepare, clock)
    times = Times({name: {} for name in calls})
    with _no_collection():
        begun = clock()
        for number in range(plan.rounds):
            if number >= _FEWEST and clock() - begun >= plan.seconds:
                break
            names = [n for n in calls if number % every[n] == 0 or number < _FEWEST]
            draw.shuffle(names)
            for name in names:
                prepare(name)
                times.rounds[name][number] = _turn(calls[name], counts[name], clock)
    return times


def _rest(plan: Plan, sleep: Callable[[float], object], spent: Clock) -> None:
    """Sleep for a while, and on until the threads of this process sleep too."""
    if not plan.pause:
        return
    for _ in range(max(1, math.ceil(_LONGEST / plan.pause)) if plan.asleep else 1):
        before = spent()
        sleep(plan.pause)
        if spent() - before < _IDLE * plan.pause:
            return


def _turn(call: Call, count: int, clock: Clock) -> float:
    start = clock()
    for _ in range(count):
        call()
    return (clock() - start) / count


def _calibrate(
    calls: Mapping[str, Call], plan: Plan, prepare: Callable[[str], None], clock: Clock
) -> tuple[dict[str, int], dict[str, int]]:
    """How many calls make a turn of each, and in which rounds it plays."""
    taken: dict[str, float] = {}
    for name, call in calls.items():
        for _ in range(2):
            prepare(name)
            taken[name] = _turn(call, 1, clock)
    usual = statistics.median(taken.values())
    counts = {n: max(1, math.ceil(plan.shortest / t)) if t > 0 else 1 for n, t in taken.items()}
    # turns of quick ones last `shortest` too, so only what is longer than that can hold up a round
    limit = _SLOW * max(usual, plan.shortest)
    return counts, {n: _EVERY if t > limit else 1 for n, t in taken.items()}


def _nothing() -> None:
    return None


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without Python's garbage collector: it would strike whoever plays when it runs."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
