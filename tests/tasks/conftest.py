"""What Python itself says, from another process that runs many programs: the truth beside the interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest

# One line of JSON in, a list of programs; one out, what each printed, or the name of its error.
_WORKER = """
import contextlib, io, json, sys, warnings
warnings.simplefilter("ignore")
for line in sys.stdin:
    found = []
    for program in json.loads(line):
        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out):
                exec(program, {})
            found.append(["printed", out.getvalue()])
        except Exception as error:
            found.append(["raised", type(error).__name__])
    print(json.dumps(found), flush=True)
"""

Answers = Callable[[Sequence[str]], list[tuple[str, str]]]


@pytest.fixture(scope="session")
def python_says() -> Iterator[Answers]:
    """("printed", text) or ("raised", name) of each program, which must be one that ends."""
    with subprocess.Popen(
        [sys.executable, "-I", "-c", _WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        stdin, stdout = worker.stdin, worker.stdout

        def ask(programs: Sequence[str]) -> list[tuple[str, str]]:
            stdin.write(json.dumps(list(programs)) + "\n")
            stdin.flush()
            return [(how, what) for how, what in json.loads(stdout.readline())]

        yield ask
        stdin.close()
