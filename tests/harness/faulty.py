"""A system whose k-th call fails, or whose process dies at its k-th call.

`System` replaces the functions of `os` that change a disk, counts their calls, and at the chosen one
raises an OSError (the call is not made), or `Killed` there and at every later call, so that no
cleaning up is possible: what is then on the disk is what a kill -9 would leave.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

CALLS = [
    "open",
    "write",
    "fsync",
    "close",
    "mkdir",
    "rename",
    "replace",
    "unlink",
    "rmdir",
    "ftruncate",
    "stat",
    "lstat",
    "fstat",
    "scandir",
]
CHANGING = ("write", "mkdir", "rename", "replace", "fsync", "open", "ftruncate")


class Killed(BaseException):
    """Stands for the end of the process: nothing in the package catches it for good."""


class System:
    """Fail at call number `at` (from 1; 0: never).

    Args:
        at: the call.
        code: the errno of the failure, or None for a kill.
        forever: after it, every call that needs space fails too: a disk that stays full.
    """

    def __init__(self, at: int = 0, code: int | None = None, *, forever: bool = False) -> None:
        self.at, self.code, self.forever = at, code, forever
        self.calls = 0
        self.failed: str | None = None

    def _call(self, name: str, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        again = self.forever and self.failed is not None and name in CHANGING
        dead = self.code is None and self.failed is not None
        if self.calls == self.at or again or dead:
            self.failed = self.failed or name
            if name == "close":  # the descriptor is gone whatever close returns
                real(*args, **kwargs)
            if self.code is None:
                raise Killed(name)
            raise OSError(self.code, os.strerror(self.code))
        return real(*args, **kwargs)

    @contextmanager
    def active(self) -> Iterator[System]:
        """Let the calls of this process go through this system."""
        real = {name: getattr(os, name) for name in CALLS}

        def replacement(name: str) -> Callable[..., Any]:
            return lambda *args, **kwargs: self._call(name, real[name], *args, **kwargs)

        try:
            for name in CALLS:
                setattr(os, name, replacement(name))
            yield self
        finally:
            for name, function in real.items():
                setattr(os, name, function)
