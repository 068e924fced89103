"""A learner as its server holds it: a process of its own, steered through a pipe. Imports no model.

The process ends when the handle is closed, or when the process that holds it is gone, however that ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gatewise.checkpoint import disk
from gatewise.errors import CheckpointError, DataError
from gatewise.serve.learning_options import LearningOptions
from gatewise.text.base import display

WORK = "learning"
"""The folder of a round, in the run's; it is there only while one is on."""

Listener = Callable[[dict[str, Any]], None]

_AGAIN = 0.05
"""Seconds after an order to hold in which another one is not worth sending."""


class Learning:
    """A process that learns; `start_learning` makes it.

    Every method may be called from any thread, and none waits, but for `close`.
    """

    def __init__(
        self,
        run: Path,
        command: list[str],
        environment: dict[str, str],
        quiet: float,
        listener: Listener,
    ) -> None:
        self._run, self._quiet, self._listener = run, quiet, listener
        self._held_until = self._sent = 0.0
        self._paused, self._closing = False, False
        self._status: dict[str, Any] = {"state": "starting"}
        self._last: dict[str, Any] | None = None
        self._message = ""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            creationflags=getattr(subprocess, "IDLE_PRIORITY_CLASS", 0),
        )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._writing = threading.Lock()
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def hold(self) -> None:
        """A request has come: no step begins for a second (`LearningOptions.quiet`). Cheap enough for every request."""
        now = time.monotonic()
        self._held_until = now + self._quiet
        if now - self._sent >= _AGAIN:
            self._sent = now
            self._order(f"hold {self._quiet:.3f}")

    def pause(self) -> None:
        """No step begins until `resume`."""
        self._paused = True
        self._order("pause")

    def resume(self) -> None:
        """Steps may begin again, at once."""
        self._paused, self._held_until = False, 0.0
        self._order("resume")

    def status(self) -> dict[str, Any]:
        """How it stands, JSON-able.

        Returns:
            state: "starting", "waiting" (for new text), "learning", "paused", or "ended".
            files, skipped, new_characters, held_characters, left_out: of the folder, once it was read.
            rounds, taken_over, step: what came of it; `step` is of the best checkpoint.
            round: the last round's figures and decision, or None.
            message: the last notice, or "".
        """
        state = self._status["state"]
        if self._process.poll() is not None:
            state = "ended"
        elif self._paused or time.monotonic() < self._held_until:
            state = "paused"
        return {**self._status, "state": state, "round": self._last, "message": self._message}

    def close(self, timeout: float = 0.5) -> None:
        """End it, and wait until it has; what it was learning is dropped, what it has published stays.

        Args:
            timeout: seconds after which it is killed: where others want all processors, it may not come to end itself.
        """
        self._closing = True
        with self._writing, contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(timeout)
        disk.remove_tree(self._run / WORK)

    def __enter__(self) -> Learning:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _order(self, line: str) -> None:
        with (
            self._writing,
            contextlib.suppress(OSError, ValueError),
        ):  # it has ended: status says so
            assert self._process.stdin is not None
            os.write(self._process.stdin.fileno(), line.encode("ascii") + b"\n")

    def _listen(self) -> None:
        """Take events from the pipe until it ends; for a thread of its own."""
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with contextlib.suppress(ValueError, LookupError):
                    self._take(json.loads(line))
        code = self._process.wait()
        if not self._closing:
            self._listener({"event": "ended", "code": code, "message": self._message})

    def _take(self, event: dict[str, Any]) -> None:
        values = {name: value for name, value in event.items() if name != "event"}
        if event["event"] == "state":
            self._status = values
        elif event["event"] == "round":
            self._last = values
            totals = {name: values[name] for name in ("rounds", "taken_over", "step")}
            self._status = {**self._status, **totals, "state": "waiting"}
        else:
            self._message = str(event["message"])
        self._listener(event)


def start_learning(
    run: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    options: LearningOptions | None = None,
    *,
    on_event: Listener = lambda _: None,
) -> Learning:
    """A process that learns from a folder for a run.

    Args:
        run: the run folder that is served; a language model's.
        folder: of texts: files that are new or changed are learnt from.
        options: how.
        on_event: called by a thread of its own with {"event": "state" | "notice" | "round" | "failed" | "ended", ...}.
    Raises:
        OptionError, DataError, CheckpointError: as `check_learning`.
    """
    options = options or LearningOptions()
    check_learning(run, folder, options)
    place = Path(run).absolute()
    command = [sys.executable, "-m", "gatewise.serve.learning"]
    command += [str(place), str(Path(folder).absolute()), "--controlled"]
    for name, value in dataclasses.asdict(options).items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    # the folder that a server was started in is no place for modules; one thread from the first import on
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    return Learning(place, command, environment, options.quiet, on_event)


def check_learning(
    run: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    options: LearningOptions | None = None,
) -> None:
    """Refuse what `start_learning` would refuse; what else is wrong with a run comes as the event "failed".

    Raises:
        OptionError: an option is outside its range.
        DataError: there is no such folder.
        CheckpointError: there is no such run folder.
    """
    (options or LearningOptions()).validate()
    if not Path(folder).is_dir():
        raise DataError(f"expected a folder of texts to watch, found none at {os.fspath(folder)}")
    if not (Path(run) / "checkpoints").is_dir():
        raise CheckpointError(f"{os.fspath(run)}: expected a run folder to learn in, found none")


def line_of(event: Mapping[str, Any]) -> str:
    """An event for a log; "" for what is not worth a line. No text of the notes is in it."""
    if event["event"] == "round":
        return (
            f"learning: {event['decision']}: held-out notes {event['before']:.4f} -> {event['after']:.4f} nats/token, "
            f"own text {event['own_first']:.4f} -> {event['own_after']:.4f} ({event['own']}), step {event['to']:,}"
        )
    if event["event"] == "ended":
        return f"learning has ended with status {event['code']}"
    return f"learning: {display(event['message'])}" if "message" in event else ""
