"""Measurements that need a process of their own: a module is run as a program, its last line is the result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gatewise.errors import FailedError


def in_process(
    module: str, arguments: Sequence[object], cache: Path | None = None
) -> dict[str, Any]:
    """What a module answers (see `answer`), run in a fresh process.

    Args:
        module: its name.
        arguments: their texts are given to it.
        cache: the user's cache folder for that process. Default: this process's.
    Raises:
        FailedError: if it fails; with the end of what it said.
    """
    environment = dict(os.environ)
    if cache is not None:
        environment["XDG_CACHE_HOME"] = str(cache)
    done = subprocess.run(
        [sys.executable, "-m", module, *(str(a) for a in arguments)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise FailedError(f"the process of {module} ended with status {done.returncode}: {said}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def answer(measure: Callable[..., Mapping[str, Any]]) -> None:
    """Write what `measure` gives for this process's arguments, as the last line."""
    sys.stdout.write(json.dumps(dict(measure(*sys.argv[1:]))) + "\n")
