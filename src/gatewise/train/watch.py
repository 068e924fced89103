"""What the loop tells: events as data, and the watcher that receives them.

The loop prints nothing. A command line shows progress, a test collects events, TensorBoard writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Started:
    """A run begins, or goes on.

    Attributes:
        kind: mapping.
        step: steps done before.
        parameters: number of trained numbers.
        positions: length of an epoch.
        limit: what it stops at, in words.
        folder: where it is saved.
    """

    kind: str
    step: int
    parameters: int
    positions: int
    limit: str
    folder: Path


@dataclass(frozen=True)
class Progress:
    """Where the run is; sent a few times a second.

    Attributes:
        step: steps done.
        epoch: passes over the data done, with fraction.
        share: of the whole run, 0 to 1.
        nats: mean of the recent steps, per prediction.
        lr: learning rate of the last step.
        gradient_norm: of the last step, before clipping.
        tokens_per_second: recent speed.
        seconds: since the start, earlier parts of a resumed run included.
        seconds_left: estimate.
        skipped: steps skipped so far.
        unit: what the speed counts.
    """

    step: int
    epoch: float
    share: float
    nats: float
    lr: float
    gradient_norm: float
    tokens_per_second: float
    seconds: float
    seconds_left: float
    skipped: int
    unit: str = "tokens"


@dataclass(frozen=True)
class Evaluated:
    """A validation result.

    Attributes:
        step: steps done.
        epoch: passes over the data done, with fraction.
        figures: the summary of what was measured; None where one is not finite.
        best: whether it is the best so far.
        averaged: whether averaged weights were measured.
        seconds: since the start.
    """

    step: int
    epoch: float
    figures: dict[str, Any]
    best: bool
    averaged: bool
    seconds: float


class Watcher:
    """Receives what happens; every method may be overridden, none need be."""

    def started(self, event: Started) -> None:
        """The run begins."""

    def progress(self, event: Progress) -> None:
        """A few times a second."""

    def logged(self, record: dict[str, Any]) -> None:
        """A line of log.jsonl was written."""

    def evaluated(self, event: Evaluated) -> None:
        """The validation part was read."""

    def saved(self, step: int, path: Path) -> None:
        """A checkpoint was written."""

    def noticed(self, message: str) -> None:
        """Something that the user should know; one line."""

    def sample(self, step: int) -> None:
        """Time for a sample; the model is in eval mode, randomness is put back afterwards."""

    def finished(self, result: Any) -> None:
        """The run has ended; also called, with None, when it failed or was interrupted."""


class Watchers(Watcher):
    """Several watchers as one."""

    def __init__(self, watchers: Iterable[Watcher]) -> None:
        self._watchers = tuple(watchers)

    def started(self, event: Started) -> None:
        for watcher in self._watchers:
            watcher.started(event)

    def progress(self, event: Progress) -> None:
        for watcher in self._watchers:
            watcher.progress(event)

    def logged(self, record: dict[str, Any]) -> None:
        for watcher in self._watchers:
            watcher.logged(record)

    def evaluated(self, event: Evaluated) -> None:
        for watcher in self._watchers:
            watcher.evaluated(event)

    def saved(self, step: int, path: Path) -> None:
        for watcher in self._watchers:
            watcher.saved(step, path)

    def noticed(self, message: str) -> None:
        for watcher in self._watchers:
            watcher.noticed(message)

    def sample(self, step: int) -> None:
        for watcher in self._watchers:
            watcher.sample(step)

    def finished(self, result: Any) -> None:
        for watcher in self._watchers:
            watcher.finished(result)
