"""Turns on a clock that only the contestants move: who plays when, and what the figures say."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewise.bench.timing import Plan, geometric_mean, interleave, spread


class Clock:
    """Stands still but for what is done."""

    def __init__(self) -> None:
        self.now = 0.0
        self.played: list[str] = []

    def takes(self, name: str, *seconds: float) -> Callable[[], None]:
        """A contestant whose calls take these times, over and over."""
        calls = 0

        def call() -> None:
            nonlocal calls
            self.played.append(name)
            self.now += seconds[calls % len(seconds)]
            calls += 1

        return call

    def sleep(self, seconds: float) -> None:
        self.played.append("rest")
        self.now += seconds

    def __call__(self) -> float:
        return self.now


def test_everybody_plays_once_a_round_in_a_new_order() -> None:
    clock = Clock()
    calls = {name: clock.takes(name, 1.0) for name in "abc"}
    times = interleave(calls, Plan(seconds=1e9, rounds=20), clock=clock, sleep=clock.sleep)
    turns = clock.played[6:]  # after one call that compiles and one that is timed roughly, of each
    rounds = [turns[k : k + 3] for k in range(0, len(turns), 3)]
    assert len(rounds) == 20
    assert all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert len({tuple(r) for r in rounds}) > 3
    assert times.seconds("a").count == 20


def test_ratios_are_of_medians() -> None:
    clock = Clock()
    # the two calls before the rounds take the first two times of each
    calls = {"a": clock.takes("a", 1.0, 1.0, 1.0, 2.0, 9.0), "b": clock.takes("b", 4.0)}
    times = interleave(calls, Plan(seconds=1e9, rounds=3), clock=clock, sleep=clock.sleep)
    assert times.seconds("a").median == 2.0
    assert times.seconds("a").least == 1.0
    assert times.speed("a", "b") == 2.0
    assert times.speed("b", "a") == 0.5
    assert times.speeds("a", "b").median == statistics.median([4.0, 2.0, 4 / 9])


def test_time_ends_the_rounds_but_never_before_three() -> None:
    for seconds, rounds in ((0.0, 3), (10.0, 5), (1e9, 7)):
        clock = Clock()
        calls = {"a": clock.takes("a", 1.0), "b": clock.takes("b", 1.0)}
        plan = Plan(seconds=seconds, rounds=7)
        assert interleave(calls, plan, clock=clock, sleep=clock.sleep).seconds("b").count == rounds


def test_the_slow_play_less_often() -> None:
    clock = Clock()
    calls = {name: clock.takes(name, 1.0) for name in "abc"} | {"slow": clock.takes("slow", 10.0)}
    times = interleave(calls, Plan(seconds=1e9, rounds=12), clock=clock, sleep=clock.sleep)
    assert sorted(times.rounds["slow"]) == [0, 1, 2, 4, 8]
    assert times.speed("a", "slow") == 10.0
    assert times.speeds("a", "slow").count == 5


def test_quick_calls_are_put_together() -> None:
    clock = Clock()
    calls = {"a": clock.takes("a", 0.25), "b": clock.takes("b", 3.0)}
    plan = Plan(rounds=3, seconds=1e9, shortest=1.0, pause=5.0, warm=0.5)
    times = interleave(calls, plan, clock=clock, sleep=clock.sleep, spent=lambda: 0.0)
    assert times.seconds("a").median == 0.25
    assert times.seconds("b").median == 3.0
    text = " ".join(clock.played)
    assert text.count("rest a a a a a a") == 3  # two that are not timed, four that are
    assert text.count("rest b b") == 2 + 3
    # what makes a turn is timed is what tells the slow from the quick
    assert times.seconds("b").count == 3


def test_a_turn_waits_for_the_threads_of_the_one_before() -> None:
    clock, spinning = Clock(), 0.0

    def peer() -> None:
        nonlocal spinning
        clock.played.append("peer")
        clock.now += 1.0
        spinning = clock.now + 0.05  # its threads go on for that long

    def spent() -> float:
        return min(clock.now, spinning)

    calls = {"peer": peer, "a": clock.takes("a", 1.0)}
    plan = Plan(rounds=3, seconds=1e9, pause=0.01, asleep=True)
    interleave(calls, plan, clock=clock, sleep=clock.sleep, spent=spent)
    played = clock.played
    for k in range(1, len(played)):
        if played[k] != "rest":
            rests = 0
            while played[k - rests - 1] == "rest" and rests < k:
                rests += 1
            after_peer = k > rests and played[k - rests - 1] == "peer"
            assert rests >= (6 if after_peer else 1)


def test_a_rest_ends_though_threads_work_for_ever() -> None:
    clock = Clock()
    plan = Plan(rounds=3, seconds=1e9, pause=0.1, asleep=True)
    calls = {"a": clock.takes("a", 1.0)}
    interleave(calls, plan, clock=clock, sleep=clock.sleep, spent=clock)
    assert clock.played.count("rest") == 5 * clock.played.count("a")


def test_what_comes_before_a_turn_is_not_timed() -> None:
    clock = Clock()
    calls = {"a": clock.takes("a", 1.0), "b": clock.takes("b", 1.0)}
    before = {"a": clock.takes("ready", 100.0)}
    times = interleave(
        calls, Plan(rounds=4, seconds=1e9), before=before, clock=clock, sleep=clock.sleep
    )
    assert times.seconds("a").median == 1.0
    for k, name in enumerate(clock.played):
        assert (name == "a") == (k > 0 and clock.played[k - 1] == "ready")


def test_a_contestant_that_fails_is_an_error() -> None:
    def broken() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        interleave({"a": broken}, Plan(rounds=3))


NUMBERS = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30)


@given(NUMBERS, st.floats(1e-3, 1e3))
def test_a_spread_is_ordered_and_scales(values: list[float], factor: float) -> None:
    found = spread(values)
    # quartiles are between two values, to rounding
    slack = 1 + 1e-12
    assert found.least <= found.q1 * slack <= found.median * slack**2 <= found.q3 * slack**3
    assert found.least == min(values)
    assert found.q3 <= max(values) * slack
    assert found.median == pytest.approx(statistics.median(values))
    scaled = found.scaled(factor)
    assert scaled.median == pytest.approx(spread([v * factor for v in values]).median)
    assert scaled.count == len(values)


def test_no_spread_of_nothing() -> None:
    with pytest.raises(ValueError, match="at least one"):
        spread([])


@given(NUMBERS)
def test_a_mean_of_ratios_does_not_care_which_is_the_base(values: list[float]) -> None:
    mean = geometric_mean(values)
    assert geometric_mean([1 / v for v in values]) == pytest.approx(1 / mean)
    assert min(values) * (1 - 1e-9) <= mean <= max(values) * (1 + 1e-9)
