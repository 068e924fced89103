"""Ctrl-C and SIGTERM as a flag that the loop reads between steps.

The first signal asks for a stop, so that the run can be saved; a second one ends at once.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from gatewise.errors import Interrupted

_EXIT = {signal.SIGINT: 130, signal.SIGTERM: 143}


class StopSignals:
    """A context in which SIGINT and SIGTERM only ask for a stop.

    Outside the main thread, where Python delivers no signals, it changes nothing. Nothing is
    written from the handler: it may have interrupted a write.
    """

    def __init__(self) -> None:
        self._asked = 0
        self._old: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self._asked != 0

    @property
    def exit_code(self) -> int:
        """130 or 143 after a signal, else 0."""
        return self._asked

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _EXIT:
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        code = _EXIT[signal.Signals(number)]
        if self._asked:
            raise Interrupted("stopped at once; resume from the last checkpoint", code)
        self._asked = code
