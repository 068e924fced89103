"""Learning from a folder while one writes: a process beside a server that trains its run on new text.

    learning = start_learning("runs/mine", "my_notes")
    learning.hold()          # a request came: no step begins within the next second
    learning.pause(); learning.resume(); learning.status(); learning.close()

The process has the lowest priority and one thread, reads the folder, trains a copy of the served checkpoint, and
adds its weights to the run as the best checkpoint only where they cost less on text that was held out. Whoever serves
the run sees its pointer change. Nothing is written outside the run folder (compiled kernels go to the user's cache, as
ever), nothing is sent anywhere. `python -m gatewise.serve.learning RUN FOLDER` is the same without a server.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gatewise.checkpoint.contents import CHECKPOINTS
from gatewise.checkpoint.lock import WriterLock
from gatewise.errors import CheckpointError, GatewiseError
from gatewise.serve.learning_gate import Closed, Gate
from gatewise.serve.learning_handle import LOCK, Learning, check_learning, line_of, start_learning
from gatewise.serve.learning_options import LearningOptions
from gatewise.serve.learning_priority import lower, woken_at_the_end_of
from gatewise.serve.learning_turns import Learner
from gatewise.train import keep_freed_memory

__all__ = [
    "Learner",
    "Learning",
    "LearningOptions",
    "check_learning",
    "line_of",
    "main",
    "start_learning",
]


def main(words: Sequence[str] | None = None) -> int:
    """`python -m gatewise.serve.learning RUN FOLDER`: learn until told to end; events as lines of JSON.

    Args:
        words: of the command line; default: this process's.
    Returns:
        the exit status.
    """
    given = _parser().parse_args(words)
    names = [field.name for field in dataclasses.fields(LearningOptions)]
    options = LearningOptions(**{name: getattr(given, name) for name in names})
    lower()
    keep_freed_memory()
    gate, code = Gate(), 0

    def end(number: int, _: Any) -> None:
        nonlocal code
        code = 128 + number
        gate.close()

    signal.signal(signal.SIGTERM, end)
    # Ctrl-C in a terminal reaches the server too, and that ends what it controls
    signal.signal(signal.SIGINT, signal.SIG_IGN if given.controlled else end)
    if given.controlled:
        threading.Thread(target=gate.obey, args=(sys.stdin,), daemon=True).start()
        with contextlib.suppress(BrokenPipeError):
            tell({"event": "ready", "stoppable": woken_at_the_end_of(given.controlled)})
    failure: list[BaseException] = []
    work = threading.Thread(target=_work, args=(given.run, given.folder, options, gate, failure))
    work.start()
    work.join()
    return exit_code_of(failure[0]) if failure else code


def _work(
    run: Path, folder: Path, options: LearningOptions, gate: Gate, failure: list[BaseException]
) -> None:
    """All of the work, in a thread beside the one that takes signals."""
    torch.set_num_threads(1)  # each thread has a setting of its own
    try:
        with contextlib.ExitStack() as stack:
            if (run / CHECKPOINTS).is_dir():  # else the learner says what is wrong
                stack.callback(_lock(run).close)
            learner = Learner(run, folder, options, gate, tell)
            stack.callback(learner.close)
            learner.live()
    except Closed:
        return
    except BrokenPipeError:  # who listened is gone
        return
    except BaseException as error:
        failure.append(error)
        with contextlib.suppress(OSError):
            tell({"event": "failed", "message": _message_of(error)})


def _lock(run: Path) -> WriterLock:
    try:
        return WriterLock(run, LOCK)
    except CheckpointError as error:
        if "another process" not in str(error):
            raise
        raise CheckpointError(
            f"another server is learning in {run} already: what it learns is served here too"
        ) from None


def _message_of(error: BaseException) -> str:
    """Of an error of gatewise what it says; of another one its place only: it may hold the user's text."""
    if isinstance(error, GatewiseError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "nowhere"
    return f"an error in gatewise itself: {type(error).__name__} at {where}"


def exit_code_of(error: BaseException) -> int:
    """The exit status for an error that ended the process."""
    return error.exit_code if isinstance(error, GatewiseError) else 1


def tell(event: dict[str, Any]) -> None:
    """An event as a line on standard output."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m gatewise.serve.learning", allow_abbrev=False)
    parser.add_argument("run", type=Path, help="the run folder that is served")
    parser.add_argument("folder", type=Path, help="the folder of texts to learn from")
    parser.add_argument(
        "--controlled",
        type=int,
        default=0,
        metavar="PID",
        help="orders of that process come on standard input",
    )
    for field in dataclasses.fields(LearningOptions):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=type(field.default), default=field.default)
    return parser


if __name__ == "__main__":
    status = main()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(status)  # what a process of the lowest priority tidies up takes long on a busy machine
