"""What stands beside a figure: the machine, and who else was busy on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gatewise.bench import ceilings, machine, match, session
from gatewise.bench.contestants import Contestant
from gatewise.bench.suites import Job, Settings
from gatewise.bench.timing import Plan


def test_this_machine() -> None:
    found = machine.describe(3)
    assert found["threads"] == 3
    assert found["cores"] >= 1
    assert found["processor"]
    assert set(found["caches"]) == {"L1", "L2", "L3"}


def _readings(*values: tuple[float, float, float] | None) -> Callable[[], object]:
    rest = list(values)
    return lambda: rest.pop(0)


@pytest.mark.parametrize(
    ("begun", "now", "share"),
    [
        ((10.0, 100.0, 5.0), (14.0, 110.0, 8.0), 0.1),  # 4 s busy, 3 of them ours, of 10
        ((10.0, 100.0, 5.0), (12.0, 110.0, 8.0), 0.0),  # the clocks tick differently
        ((10.0, 100.0, 5.0), (10.0, 100.0, 5.0), None),  # no time passed
        (None, (1.0, 1.0, 1.0), None),
    ],
)
def test_what_others_took(
    begun: tuple[float, float, float] | None,
    now: tuple[float, float, float],
    share: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "_busy_seconds", _readings(begun, now))
    found = machine.Others().share()
    assert found == (None if share is None else pytest.approx(share))


def test_a_busy_machine_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_busy_seconds", _readings((0.0, 0.0, 0.0), (2.0, 4.0, 1.0)))
    known = {"a": Contestant[None, str]("a", "float32", lambda _: "a")}
    one = match.Match("train", "t", {}, None, known, lambda *_: 0.0, lambda *_: lambda: None, ())
    table = match.hold(one, Plan(seconds=0.0), ceilings.Ceilings(()), 1, lambda _: None)
    assert table.notes == [
        "while this was timed other programs took 25% of the cores' time: measure again in quiet"
    ]


class _Watcher:
    def __init__(self) -> None:
        self.said: list[object] = []

    def doing(self, text: str) -> None:
        self.said.append(text)

    def done(self, count: int, of: int) -> None:
        self.said.append((count, of))


def test_a_session_runs_its_jobs_with_their_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from gatewise.bench.report import Table

    limits = ceilings.Ceilings((), (("reading", "none"),))
    asked: list[object] = []
    monkeypatch.setattr(session, "measure", lambda counts, tell: asked.append(counts) or limits)
    seen: list[int] = []

    def run(found: ceilings.Ceilings, tell: Callable[[str], None]) -> Table:
        assert found is limits
        seen.append(torch.get_num_threads())
        return Table("peak", "t", {}, [])

    watcher, before = _Watcher(), torch.get_num_threads()
    report = session.hold([Job("t", run)] * 2, Settings(2), watcher, verb="train")
    assert (seen, asked) == ([2, 2], [[1, 2]])
    assert torch.get_num_threads() == before
    assert watcher.said == [(0, 2), (1, 2), (2, 2)]
    assert report.settings["verb"] == "train"
    assert report.ceilings == {"found": [], "missing": [{"name": "reading", "why": "none"}]}
    assert len(report.tables) == 2
