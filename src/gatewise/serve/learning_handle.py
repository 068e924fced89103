"""A learner as its server holds it: a process of its own, steered through a pipe. Imports no model.

The process ends when the handle is closed, or when the process that holds it is gone, however that ended. Where the
system can wake it then (Linux), a request stops it where it stands, in the midst of a step; elsewhere the step is ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gatewise.checkpoint import disk
from gatewise.checkpoint.lock import WriterLock
from gatewise.errors import CheckpointError, DataError
from gatewise.serve.learning_options import LearningOptions
from gatewise.text.base import display

WORK, LOCK = "learning", ".learning.lock"
"""The folder of a round, in the run's, there only while one is on; and the file that keeps others from learning."""

Listener = Callable[[dict[str, Any]], None]

_AGAIN = 0.05
"""Seconds after an order to hold in which another one is not worth sending."""
_LOOK = 0.01
"""Seconds between two looks at what holds it, at least."""


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
        busy: Callable[[], bool],
    ) -> None:
        self._run, self._quiet, self._listener, self._busy = run, quiet, listener, busy
        self._held_until = self._sent = 0.0
        self._paused, self._closing = False, False
        self._resting, self._stoppable, self._stopped = False, False, False
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
        self._held = threading.Condition()
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._listen, self._release)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def hold(self) -> None:
        """A request has come: learning rests until a second after the last (`LearningOptions.quiet`).

        Cheap enough for every request.
        """
        now = time.monotonic()
        self._held_until = now + self._quiet
        if not self._resting:
            with self._held:
                self._rest()
                self._held.notify_all()
        elif not self._stoppable and now - self._sent >= _AGAIN:
            self._order_to_hold()

    def _rest(self) -> None:
        self._resting = True
        if not self._stoppable:
            self._order_to_hold()
        elif not self._stopped and not self._closing:
            self._stopped = True
            self._signal("SIGSTOP")

    def _order_to_hold(self) -> None:
        self._sent = time.monotonic()
        self._order(f"hold {self._quiet:.3f}")

    def _go_on(self) -> None:
        self._resting = False
        if self._stopped:
            self._stopped = False
            self._signal("SIGCONT")

    def _signal(self, name: str) -> None:
        with contextlib.suppress(OSError):
            self._process.send_signal(getattr(signal, name))

    def _release(self) -> None:
        """Let it go on when the last request is long enough ago; for a thread of its own."""
        with self._held:
            while not self._closing:
                if self._resting and time.monotonic() >= self._held_until:
                    if self._busy():
                        self._held_until = time.monotonic() + self._quiet
                        self._rest()
                    else:
                        self._end_rest()
                left = self._held_until - time.monotonic()
                self._held.wait(max(left, _LOOK) if self._resting else None)

    def _end_rest(self) -> None:
        self._resting = False
        if time.monotonic() < self._held_until:  # `hold` came between and saw it at rest
            self._resting = True
        else:
            self._go_on()

    def pause(self) -> None:
        """No step begins until `resume`."""
        self._paused = True
        self._order("pause")

    def resume(self) -> None:
        """Steps may begin again, at once."""
        self._paused, self._held_until = False, 0.0
        self._order("resume")
        with self._held:
            self._go_on()

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
        with self._held:
            self._closing = True
            self._go_on()
            self._held.notify_all()
        with self._writing, contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join(timeout)
        with contextlib.suppress(CheckpointError, OSError):  # another server may be learning there
            lock = WriterLock(self._run, LOCK)
            disk.remove_tree(self._run / WORK)
            lock.close()

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
        if event["event"] == "ready":  # from here on the end of this process would wake it
            with self._held:
                self._stoppable = event["stoppable"]
                if self._resting:
                    self._rest()
            return
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
    busy: Callable[[], bool] = lambda: False,
) -> Learning:
    """A process that learns from a folder for a run.

    Args:
        run: the run folder that is served; a language model's.
        folder: of texts: files that are new or changed are learnt from.
        options: how.
        on_event: called by a thread of its own with {"event": "state" | "notice" | "round" | "failed" | "ended", ...}.
        busy: whether a request is still being answered: then a `hold` does not end.
    Raises:
        OptionError, DataError, CheckpointError: as `check_learning`.
    """
    options = options or LearningOptions()
    check_learning(run, folder, options)
    place = Path(run).absolute()
    command = [sys.executable, "-m", "gatewise.serve.learning"]
    command += [str(place), str(Path(folder).absolute()), "--controlled", str(os.getpid())]
    for name, value in dataclasses.asdict(options).items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    # the folder that a server was started in is no place for modules; one thread from the first import on
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    return Learning(place, command, environment, options.quiet, on_event, busy)


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
    if Path(run).resolve() in (Path(folder).resolve(), *Path(folder).resolve().parents):
        raise DataError(
            f"{os.fspath(folder)}: expected a folder of texts, found the run's own: name another one to watch"
        )


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
