"""From an exception to one line on standard error and an exit status. Nothing else decides either."""

from __future__ import annotations

import os
import re
import sys
import traceback

from gatewise.cli import screen
from gatewise.errors import GatewiseError

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130


def report(error: BaseException, *, debug: bool = False) -> int:
    """Say what went wrong and return the exit status.

    A user's mistake and a failure of the outside world are one line. What is left is an error of
    gatewise itself: its traceback is shown, as only that helps to mend it.
    """
    if isinstance(error, SystemExit):
        return _status_of_exit(error)
    if isinstance(error, BrokenPipeError):
        return _silence()
    line, status = _explain(error)
    if debug or line is None:
        screen.say("".join(traceback.format_exception(error)).rstrip())
    if line is None:
        line = (
            f"an error in gatewise itself ({type(error).__name__}); please report the lines above"
        )
    if line:
        screen.say(f"gatewise: {_one_line(line)}")
    return status


def _explain(error: BaseException) -> tuple[str | None, int]:
    """The line (None: not a known kind; empty: say nothing) and the status."""
    if isinstance(error, GatewiseError):
        return str(error) or type(error).__name__, error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if _is_parser_error(error):
        return _parser_line(error), WRONG_USE
    if _is_out_of_memory(error):
        return (
            "not enough memory: a smaller batch (--batch-size), --bptt, --hidden-size or "
            "vocabulary needs less",
            FAILED,
        )
    if isinstance(error, OSError):
        return _os_line(error), FAILED
    return None, FAILED


def _is_parser_error(error: BaseException) -> bool:
    parser = sys.modules.get("cyclopts")
    return parser is not None and isinstance(error, parser.CycloptsError)


def _parser_line(error: BaseException) -> str:
    line = _one_line(str(error)).rstrip(".")
    # "parameter --out requires an argument": said also where --out was not given at all
    line = re.sub(
        r"^.*parameter (--\S+) requires an argument$", r"\1 is missing, or its value", line
    )
    chain = [name for name in (getattr(error, "command_chain", None) or ()) if name]
    page = " ".join(["gatewise", *chain, "--help"])
    return f"{line[:1].lower()}{line[1:]}; `{page}` lists what there is"


def _is_out_of_memory(error: BaseException) -> bool:
    """Also torch's: it raises RuntimeError on the CPU, and a subclass of it on a GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = ("not enough memory", "can't allocate memory")  # Windows and macOS, Linux
    return isinstance(error, RuntimeError) and any(text in str(error) for text in said)


def _os_line(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return reason
    return f"{screen.shown(str(error.filename))}: {reason}"


def _one_line(text: str) -> str:
    return screen.visible(" ".join(text.split()))


def _status_of_exit(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    screen.say(f"gatewise: {_one_line(str(error.code))}")
    return FAILED


def _silence() -> int:
    """The reader of standard output has gone: end quietly, also when Python flushes at its end."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):  # a stream without a file below it has nothing to redirect
        pass
    return FAILED
