"""How many threads a call takes follows from what was measured."""

from __future__ import annotations

from gatewise.step.pace import Pace


class _Clock:
    """Calls with known times; threads that have not run for a while must be woken."""

    def __init__(self, pace: Pace, wake: float = 0.0) -> None:
        self._pace, self._wake = pace, wake
        self._now, self._last = 0.0, {2: -1.0}

    def run(self, calls: int, seconds: dict[int, float], pause: float = 1e-6) -> list[int]:
        """The threads of so many calls, where a step takes so long with so many threads."""
        taken = []
        for _ in range(calls):
            workers, steps = self._pace.next()
            assert 1 <= steps <= 64
            self._now += pause
            start = self._now
            asleep = workers > 1 and start - self._last[2] > 2e-3
            self._now += seconds[workers] * steps + (self._wake if asleep else 0.0)
            if workers > 1:
                self._last[2] = self._now
            self._pace.note(workers, steps, start, self._now)
            taken.append(workers)
        return taken


QUIET, BUSY = {1: 2e-5, 2: 1e-5}, {1: 2e-5, 2: 1e-3}


def test_the_quicker_number_of_threads_is_taken() -> None:
    clock = _Clock(Pace(2, fixed=False))
    assert clock.run(300, QUIET).count(1) == 1
    assert clock.run(500, QUIET) == [2] * 500
    clock = _Clock(Pace(2, fixed=False))
    clock.run(120, {1: 1e-5, 2: 2e-5})
    assert clock.run(30, {1: 1e-5, 2: 2e-5}) == [1] * 30


def test_threads_that_sleep_are_not_taken_for_slow() -> None:
    clock = _Clock(Pace(2, fixed=False), wake=3e-3)
    clock.run(300, QUIET)
    assert clock.run(100, QUIET, pause=0.1) == [2] * 100
    assert clock.run(100, QUIET) == [2] * 100


def test_a_busy_processor_is_noticed_soon_and_its_freedom_later() -> None:
    clock = _Clock(Pace(2, fixed=False), wake=3e-3)
    clock.run(300, QUIET)
    assert clock.run(12, BUSY).count(2) == 1
    assert clock.run(2000, BUSY).count(2) <= 20  # tried, ever more rarely
    assert clock.run(4000, QUIET)[-100:] == [2] * 100


def test_after_a_rest_more_threads_are_tried_at_once() -> None:
    clock = _Clock(Pace(2, fixed=False))
    clock.run(300, QUIET)
    assert clock.run(4000, BUSY)[-100:].count(1) >= 98  # by now tried every 2 s only
    clock.run(1, QUIET, pause=0.1)
    assert clock.run(10, QUIET)[-5:] == [2] * 5


def test_a_stream_of_single_steps_is_not_a_row_of_trials() -> None:
    pace = Pace(2, fixed=False)
    _Clock(pace).run(300, {1: 1e-5, 2: 2e-5})
    now, taken = 1e3, []
    for _ in range(200):  # 50 a second
        workers, _ = pace.next()
        pace.note(workers, 1, now, now + (2e-5 if workers == 1 else 3e-3))
        taken.append(workers)
        now += 0.02
    assert taken.count(2) <= 20


def test_threads_that_wake_on_one_processor_are_waited_for() -> None:
    clock, together = _Clock(Pace(2, fixed=False)), {1: 2e-5, 2: 4e-5}
    clock.run(20, together)  # 3 ms of 8
    assert clock.run(400, QUIET)[-100:] == [2] * 100


def test_a_change_for_the_worse_that_stays_is_lived_with() -> None:
    clock = _Clock(Pace(2, fixed=False))
    clock.run(300, {1: 9e-5, 2: 1e-5})
    found = clock.run(400, {1: 9e-5, 2: 3.9e-5})
    assert found.count(1) <= 3
    assert found[-100:] == [2] * 100


def test_given_threads_are_kept() -> None:
    assert set(_Clock(Pace(2, fixed=True)).run(100, {2: 1.0})) == {2}
    assert set(_Clock(Pace(1, fixed=False)).run(100, {1: 1.0})) == {1}
