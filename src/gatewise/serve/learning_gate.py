"""When learning may go on: its one shared signal. A pause ends a step later at the latest.

Orders come as lines on a pipe: `pause`, `resume`, `hold SECONDS`. Where the pipe ends, so does learning: a learner
never outlives its server.
"""

from __future__ import annotations

import threading
import time
from typing import IO


class Closed(BaseException):
    """Learning was told to end; not an error of anything."""


class Gate:
    """Open, held for a while, paused, or closed for good; used by several threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._paused, self._closed = False, False
        self._until = 0.0

    def pause(self) -> None:
        """No step begins until `resume`."""
        with self._changed:
            self._paused = True

    def resume(self) -> None:
        """Steps may begin again."""
        with self._changed:
            self._paused, self._until = False, 0.0
            self._changed.notify_all()

    def hold(self, seconds: float) -> None:
        """No step begins for so long."""
        with self._changed:
            self._until = max(self._until, time.monotonic() + seconds)

    def close(self) -> None:
        """End; nothing waits any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def shut(self) -> bool:
        """Whether a step would have to wait."""
        return self._paused or time.monotonic() < self._until

    def wait(self) -> None:
        """Return when a step may begin.

        Raises:
            Closed: learning is to end.
        """
        with self._changed:
            while not self._closed and self.shut:
                left = None if self._paused else self._until - time.monotonic()
                self._changed.wait(left)
            self._check()

    def sleep(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            Closed: learning is to end.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)
            self._check()

    def _check(self) -> None:
        if self._closed:
            raise Closed

    def obey(self, orders: IO[str]) -> None:
        """Follow the orders on a pipe until it ends; for a thread of its own."""
        for line in orders:
            word, _, rest = line.strip().partition(" ")
            if word == "pause":
                self.pause()
            elif word == "resume":
                self.resume()
            elif word == "hold" and rest.replace(".", "", 1).isdigit():
                self.hold(min(float(rest), 60.0))
        self.close()
