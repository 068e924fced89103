"""Every error that gatewise raises on purpose, as one tree.

    GatewiseError
    |-- UsageError (ValueError)          wrong use: exit status 2
    |   |-- ShapeError                   a tensor of another shape, dtype or device than expected
    |   |-- OptionError                  an option outside its range, or two that exclude each other
    |   |-- UnknownNameError (LookupError)   a cell, gate, engine, ... that is not there
    |   `-- DataError                    text or data that cannot be used
    |-- FailedError (RuntimeError)       it failed: exit status 1
    |   |-- EngineError                  an engine cannot honour a plan
    |   |-- CheckpointError              a run folder that is broken, foreign or of another format
    |   `-- DivergedError                training that no longer makes progress
    `-- Interrupted                      stopped by a signal, the run saved: exit status 130 or 143

A message is one line: what was expected, what was found, what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GatewiseError(Exception):
    """Base class of all errors raised on purpose."""

    exit_code = 1


class UsageError(GatewiseError, ValueError):
    """Wrong use."""

    exit_code = 2


class ShapeError(UsageError):
    """A tensor has another shape, dtype or device than expected."""


class OptionError(UsageError):
    """An option is outside its range, or excludes another."""


class UnknownNameError(UsageError, LookupError):
    """A name (cell, gate, engine, preset, ...) does not exist."""


class DataError(UsageError):
    """Text or data that cannot be used."""


class FailedError(GatewiseError, RuntimeError):
    """Something failed that was asked for correctly."""


class EngineError(FailedError):
    """An engine cannot honour a plan."""


class CheckpointError(FailedError):
    """A run folder is broken, foreign or of another format."""


class DivergedError(FailedError):
    """Training no longer makes progress."""


class EngineWarning(UserWarning):
    """A large run went to a slower engine, for a reason that its user can change."""


class Interrupted(GatewiseError):
    """Stopped by a signal; the run was saved.

    Args:
        message: one line.
        exit_code: 130 (SIGINT) or 143 (SIGTERM).
    """

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def unknown(kind: str, found: object, valid: Iterable[str]) -> UnknownNameError:
    """The error for a name that does not exist, with the nearest valid one."""
    names = sorted(valid)
    near = difflib.get_close_matches(str(found), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return UnknownNameError(f"unknown {kind} {found!r}: expected one of {', '.join(names)}{hint}")
