"""Progress for people: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from gatewise.train.figures import FIGURES, figures_line
from gatewise.train.watch import Evaluated, Progress, Started, Watcher


def duration(seconds: float) -> str:
    """``1:02:03`` or ``2:03``; ``-:--`` where it is not known."""
    if not 0 <= seconds < 360_000_000:
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def progress_line(event: Progress) -> str:
    """One line: step, epoch, loss, gradient norm, learning rate, speed, time left."""
    return (
        f"step {event.step:,}  epoch {event.epoch:.2f}  loss {event.nats:.4f}  "
        f"grad {event.gradient_norm:.2g}  lr {event.lr:.3g}  "
        f"{event.tokens_per_second:,.0f} {event.unit}/s  left {duration(event.seconds_left)}"
    )


def bar_line(event: Progress) -> str:
    """The same in less than 65 columns, for the end of a bar."""
    return (
        f"{event.share:4.0%} step {event.step:,} loss {event.nats:.4f} "
        f"grad {event.gradient_norm:.2g} {event.tokens_per_second:,.0f} {event.unit}/s "
        f"left {duration(event.seconds_left)}"
    )


def evaluation_line(event: Evaluated) -> str:
    """One line: the figures, and whether they are the best so far."""
    line = f"valid at step {event.step:,} ({duration(event.seconds)}): "
    line += figures_line(event.figures, SHOWN) or "not a finite number"
    return line + (" (averaged weights)" if event.averaged else "") + (", best" * event.best)


SHOWN = tuple(name for name in FIGURES if name != "nats_per_character")
"""What the line of an evaluation holds."""


def started_line(event: Started) -> str:
    """One line: what is trained, until when, where."""
    verb = f"resumed at step {event.step:,}" if event.step else "started"
    return f"{verb}: {event.parameters:,} parameters, {event.limit}, in {event.folder}"


class PlainProgress(Watcher):
    """Lines for a file or a pipe.

    Args:
        write: called with one line.
        every: seconds between progress lines.
    """

    def __init__(self, write: Callable[[str], None], every: float = 10.0) -> None:
        self._write = write
        self._every = every
        self._next = 0.0

    def started(self, event: Started) -> None:
        self._write(started_line(event))
        self._next = time.monotonic()

    def progress(self, event: Progress) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._every
            self._write(progress_line(event))

    def evaluated(self, event: Evaluated) -> None:
        self._write(evaluation_line(event))

    def noticed(self, message: str) -> None:
        self._write(message)


class BarProgress(Watcher):
    """A bar that stays at the foot of a terminal, with lines above it.

    Args:
        stream: the terminal, usually standard error.
    """

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar
        from rich.table import Column

        self._console = Console(file=stream, highlight=False)
        self._bar = Bar(
            BarColumn(bar_width=12),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            console=self._console,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._bar.add_task("", total=1.0)

    def print(self, text: str) -> None:
        """`text` above the bar, as it is."""
        self._bar.print(text, markup=False, soft_wrap=True)

    def started(self, event: Started) -> None:
        self.print(started_line(event))
        self._bar.start()

    def progress(self, event: Progress) -> None:
        self._bar.update(
            self._task, completed=event.share, description=bar_line(event), refresh=True
        )

    def evaluated(self, event: Evaluated) -> None:
        self.print(evaluation_line(event))

    def noticed(self, message: str) -> None:
        self.print(message)

    def finished(self, result: Any) -> None:
        self._bar.stop()


def progress_for(stream: TextIO | None = None) -> BarProgress | PlainProgress:
    """A bar if `stream` (default: standard error) is a terminal, else lines."""
    stream = sys.stderr if stream is None else stream
    if stream.isatty():
        return BarProgress(stream)
    target = stream

    def write(line: str) -> None:
        target.write(line + "\n")
        target.flush()

    return PlainProgress(write)
