"""From jobs to a report: ceilings first, then one job after another, then the aims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

from gatewise.bench import machine
from gatewise.bench.aims import judge
from gatewise.bench.ceilings import Ceilings, measure
from gatewise.bench.report import Report
from gatewise.bench.suites import Job, Settings, threads


class Watcher(Protocol):
    """Is told how far a benchmark is."""

    def doing(self, text: str) -> None:
        """What is done next."""

    def done(self, count: int, of: int) -> None:
        """So many jobs are done."""


def hold(jobs: Sequence[Job], settings: Settings, watcher: Watcher, *, verb: str) -> Report:
    """Run the jobs.

    Args:
        jobs: what to measure; none: only the machine's ceilings.
        settings: how.
        watcher: is told.
        verb: the command's name, for the report.
    """
    about = machine.describe(settings.threads)
    with threads(settings.threads):
        limits = measure(sorted({1, settings.threads}), watcher.doing)
        tables = []
        for number, job in enumerate(jobs):
            watcher.done(number, len(jobs))
            tables.append(job.run(limits, watcher.doing))
        watcher.done(len(jobs), len(jobs))
    return Report(
        {"verb": verb, **asdict(settings)},
        about,
        ceilings_document(limits),
        tables,
        judge(tables),
    )


def ceilings_document(limits: Ceilings) -> dict[str, Any]:
    """The ceilings as JSON can say them; rates in operations or bytes a second."""
    return {
        "found": [asdict(ceiling) for ceiling in limits.found],
        "missing": [{"name": name, "why": why} for name, why in limits.missing],
    }
