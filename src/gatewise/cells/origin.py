"""Where in a user's source an error belongs. Knows frames and lines; nothing of equations."""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any

from gatewise.errors import UsageError


@contextmanager
def pointing_at(function: Callable[..., Any]) -> Iterator[None]:
    """A block whose UsageErrors end with the file, the line and the text of the line they are about.

    That is the line of `function` (or of a function beside it) that was running; for an error about what
    it returned the line of its last `return`.
    """
    try:
        yield
    except UsageError as error:
        code = getattr(inspect.unwrap(function), "__code__", None)
        if code is not None and not getattr(error, "is_pointed", False):
            line = _running(code, error.__traceback__) or _returning(function, code)
            error.args = (f"{error}; at {_shown(code.co_filename, line)}",)
            error.is_pointed = True  # type: ignore[attr-defined]
        raise


def _running(code: CodeType, traceback: TracebackType | None) -> int | None:
    """The line of the innermost frame of the function's file, where the function itself was running."""
    inside, line = False, None
    while traceback is not None:
        frame = traceback.tb_frame.f_code
        inside = inside or frame is code
        if inside and frame.co_filename == code.co_filename:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line


def _returning(function: Callable[..., Any], code: CodeType) -> int:
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError):
        return code.co_firstlineno
    found = [k for k, text in enumerate(lines) if text.lstrip().startswith("return")]
    return first + found[-1] if found else first


def _shown(file: str, line: int) -> str:
    text = linecache.getline(file, line).strip()
    return f"{Path(file).name}:{line}" + (f": {text}" if text else "")
