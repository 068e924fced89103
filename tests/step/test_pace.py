"""How many threads a call takes follows from what was measured."""

from __future__ import annotations

from gatewise.step.pace import Pace


def _run(pace: Pace, calls: int, seconds: dict[int, float]) -> list[int]:
    """The threads of so many calls, where a step takes so long with so many threads."""
    taken = []
    for _ in range(calls):
        workers, steps = pace.next()
        assert 1 <= steps <= 64
        pace.note(workers, steps, seconds[workers] * steps)
        taken.append(workers)
    return taken


def test_the_quicker_number_of_threads_is_taken() -> None:
    pace = Pace(2, fixed=False)
    assert _run(pace, 2, {1: 2e-5, 2: 1e-5}) == [2, 1]
    assert _run(pace, 30, {1: 2e-5, 2: 1e-5}) == [2] * 30
    pace = Pace(2, fixed=False)
    assert _run(pace, 32, {1: 1e-5, 2: 2e-5})[2:] == [1] * 30


def test_a_busy_processor_is_noticed_at_once_and_its_freedom_later() -> None:
    pace = Pace(2, fixed=False)
    quiet, busy = {1: 2e-5, 2: 1e-5}, {1: 2e-5, 2: 1e-3}
    _run(pace, 20, quiet)
    assert _run(pace, 12, busy) == [2] + [1] * 11
    while_busy = _run(pace, 500, busy)
    assert while_busy.count(2) <= 6  # it is tried, ever more rarely
    assert _run(pace, 1100, quiet)[-100:].count(2) >= 98


def test_a_call_in_a_trial_is_short() -> None:
    pace = Pace(2, fixed=False)
    for _ in range(200):
        workers, steps = pace.next()
        assert workers == 2 or steps == 4
        pace.note(workers, steps, steps * {1: 2e-6, 2: 1e-6}[workers])


def test_given_threads_are_kept() -> None:
    assert set(_run(Pace(2, fixed=True), 100, {2: 1.0})) == {2}
    assert set(_run(Pace(1, fixed=False), 100, {1: 1.0})) == {1}
