"""The command line: `main` is the console script, each verb a module that loads when it is asked for.

This module knows the order of things (safe streams, the answers that need no parser, the verb, the
exit status) and imports nothing heavy: `gatewise --help` and `--version` answer without the parser,
rich or torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from gatewise.cli import failures, screen

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status.

    Args:
        argv: the words after the program's name. Default: those of this process.
    Returns:
        0; 1 it failed; 2 wrong use; 130 or 143 interrupted (a training run is saved first).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug, words = _take_debug(words)
    screen.make_streams_safe()
    try:
        status = _answer(words)
        sys.stdout.flush()
    except BaseException as error:
        return failures.report(error, debug=debug)
    return status


def _take_debug(words: list[str]) -> tuple[bool, list[str]]:
    """`--debug` may stand anywhere before `--`; so may the environment variable."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != "--debug"]
    asked = len(kept) < end or os.environ.get("GATEWISE_DEBUG", "") not in ("", "0")
    return asked, kept + words[end:]


def _answer(words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h"):
        from gatewise.cli.verbs import overview

        screen.out(overview())
        return 0
    if words[0] == "--version":
        from gatewise import __version__

        screen.out(f"gatewise {__version__}")
        return 0
    # Threads that wait for each other spin for milliseconds by default: beside another busy program
    # that makes training tens of times slower. It must be said before torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    from gatewise.cli.parse import run

    return run(words)
