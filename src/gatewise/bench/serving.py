"""Many writers at once: latency by rate of keystrokes, beside servers that batch whole requests, and a plain loop.

The load is open: keys are pressed when they are due, whether or not the answers before have come (with a load that
waits for answers a slow server looks quick). Each key asks for continuations of its writer's document up to there; what was
asked for the key before is cancelled. Who takes part stands in `servers`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from gatewise.bench.servers import SERVERS, Server
from gatewise.bench.typists import Load, Typing
from gatewise.complete import Answer, BusyError, Request, Ticket
from gatewise.complete.requests import CANCELLED, DONE
from gatewise.errors import GatewiseError
from gatewise.generate import SamplingOptions
from gatewise.mappings import LanguageModel
from gatewise.step.generation import StepLanguageModel
from gatewise.text.base import Tokenizer

OPTIONS = SamplingOptions(n=3, max_tokens=8, temperature=0.7)
WARM = 0.25
"""Share of the time before anything counts."""
_LEAST = 8
"""Keys that count: at low rates that takes longer."""
_RISING = 1.5
_GREEDY = SamplingOptions(max_tokens=4, temperature=0, seed=1)


@dataclass(frozen=True)
class Served:
    """How a server did under a load.

    Args:
        server: its name.
        load: what it was given.
        latencies: seconds from the moment that a key was due to its answer, or to the next key of its writer, if that came
            first; inf where it was refused or never answered.
        cancelled: keys that were not answered before the next.
        late: seconds that the load itself was late, the largest.
    """

    server: str
    load: Load
    latencies: Any
    cancelled: int
    late: float

    def percentile(self, share: float) -> float:
        """Seconds; inf where so many were not answered."""
        if not len(self.latencies):
            return math.nan
        ordered = np.sort(self.latencies)
        return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))])


def drive(name: str, server: Server, text: str, load: Load) -> Served:
    """Let people write."""
    typing = Typing(load, text)
    for document in typing.opened:
        _opened(server, document)
    latest: dict[int, Ticket] = {}
    found: dict[int, float] = {}
    states: dict[int, str] = {}
    late, begin = 0.0, time.perf_counter() + 0.01
    for key in typing.keystrokes():
        _wait_until(begin + key.due)
        late = max(late, time.perf_counter() - begin - key.due)
        if key.writer in latest:
            latest.pop(key.writer).cancel()
        request = Request(key.prefix, replace(OPTIONS, seed=key.number))
        noting = _noting(key.number, begin + key.due, found, states)
        try:
            latest[key.writer] = server.submit(request, None, noting)
        except BusyError:
            states[key.number] = "refused"
    end = time.perf_counter() + max(2.0, load.seconds)
    while len(states) < len(typing.due) and time.perf_counter() < end:
        time.sleep(0.005)
    return served(name, load, typing.due, found, states, late)


def served(
    name: str, load: Load, due: Any, found: dict[int, float], states: dict[int, str], late: float
) -> Served:
    """What counts of a load: the keys after its first quarter.

    Args:
        name, load, late: see `Served`.
        due: (N,) seconds.
        found: seconds that an answer took, by number; without those that never came.
        states: how keys ended.
    """
    counted = [k for k in range(len(due)) if due[k] >= WARM * load.seconds]
    cancelled = sum(states.get(k) == CANCELLED for k in counted)
    return Served(name, load, np.array([found.get(k, math.inf) for k in counted]), cancelled, late)


def _opened(server: Server, text: str) -> None:
    """Read a document, as an editor has it read when it is opened."""
    server.submit(Request(text, replace(OPTIONS, max_tokens=1))).result(120)


def _noting(
    number: int, due: float, found: dict[int, float], states: dict[int, str]
) -> Callable[[Answer], None]:
    def end(answer: Answer) -> None:
        if answer.ended in (DONE, CANCELLED) and answer.error is None:
            found[number] = time.perf_counter() - due
        states[number] = answer.ended

    return end


def _wait_until(moment: float) -> None:
    while (left := moment - time.perf_counter()) > 0:
        time.sleep(min(left, 0.002) if left > 0.0005 else 0)


class Contestant(Protocol):
    """A server that can be driven, here or in another process."""

    def drive(self, load: Load) -> Served:
        """Let people write."""

    def ask(self, request: Request) -> str:
        """The text of the first sample."""


@dataclass(frozen=True)
class Here:
    """A server in this process.

    Args:
        name: its.
        server: it.
        text: what is typed.
    """

    name: str
    server: Server
    text: str

    def drive(self, load: Load) -> Served:
        """See `Contestant`."""
        return drive(self.name, self.server, self.text, load)

    def ask(self, request: Request) -> str:
        """See `Contestant`."""
        return self.server.submit(request).result(120).samples[0].text


@contextmanager
def here(
    name: str,
    model: LanguageModel,
    packed: StepLanguageModel,
    tokenizer: Tokenizer,
    text: str,
) -> Iterator[Contestant]:
    """One of `SERVERS`, as long as the context lasts."""
    server = SERVERS[name](model, packed, tokenizer)
    try:
        yield Here(name, server, text)
    finally:
        server.close()


def measured(
    one: Contestant,
    text: str,
    load: Load,
    bound: float,
    rates: Sequence[float] | None,
    told: Callable[[Served], None],
) -> list[Served]:
    """The loads of the given rates; or rising ones, from a fifth of what the server can do.

    They rise by half, up to the first whose p99 is above the bound; then one between the last two is measured. A load of
    so few keys that hardly any would count lasts longer.

    Args:
        one, text: who is measured, and what is typed.
        load: what rates are put into.
        bound: of p99, in seconds.
        rates: keys a second, or None.
        told: called with each.
    """
    rows: list[Served] = []

    def at(rate: float) -> bool:
        least = _LEAST / (rate * (1 - WARM))
        rows.append(one.drive(replace(load, rate=rate, seconds=max(load.seconds, least))))
        told(rows[-1])
        return rows[-1].percentile(0.99) <= bound

    if rates is not None:
        for rate in rates:
            at(rate)
        return rows
    rate = first_rate(one, text, load)
    while at(rate):
        rate *= _RISING
    if len(rows) > 1:
        at(rate / math.sqrt(_RISING))
    return sorted(rows, key=lambda row: row.load.rate)


def first_rate(one: Contestant, text: str, load: Load) -> float:
    """A rate at which a server is a fifth busy: from the time of a few requests, one after the other."""
    begin = time.perf_counter()
    count = 4
    for k in range(count):
        one.ask(Request(text[: load.characters + k], replace(OPTIONS, seed=k)))
    return 0.2 * count / (time.perf_counter() - begin)


def best_rate(rows: Sequence[Served], bound: float) -> float:
    """The largest rate whose p99 is within the bound; 0 where there is none."""
    good = [row.load.rate for row in rows if row.percentile(0.99) <= bound]
    return max(good, default=0.0)


def check_said(one: Contestant, expected: str, text: str) -> None:
    """A server writes the most probable continuation of a text's beginning.

    Raises:
        GatewiseError: it does not.
    """
    found = one.ask(Request(text[:200], _GREEDY))
    if found != expected:
        raise GatewiseError(
            f"nothing is timed: expected {expected!r} as elsewhere, found {found!r}"
        )


def check_same(
    model: LanguageModel, packed: StepLanguageModel, tokenizer: Tokenizer, text: str, *, exact: bool
) -> dict[str, str]:
    """Every server writes the same most probable continuation, before any is timed.

    Args:
        model, packed, tokenizer: what is served.
        text: what is typed.
        exact: whether the packed weights are the model's own: rounded ones may well say something else than the plain
            loop, which is then left out.
    Returns:
        What each wrote.
    Raises:
        GatewiseError: one does not.
    """
    said = {}
    for name in SERVERS:
        with here(name, model, packed, tokenizer, text) as one:
            said[name] = one.ask(Request(text[:200], _GREEDY))
    compared = {name: one for name, one in said.items() if exact or name != "nn.LSTM loop"}
    if len(set(compared.values())) > 1:
        raise GatewiseError(f"servers disagree, nothing is timed: {compared}")
    return said
