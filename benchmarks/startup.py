"""From the start of `gatewise serve` to its first answer: a process each time, the files in the system's cache.

    python benchmarks/startup.py [--run RUN] [--times 7] [--imports]

Without a run an untrained model of 2 x 512 units over characters. Weights are packed as int8; the answer is to
/api/complete, three candidates of eight tokens. --imports also lists what importing takes longest.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from keystroke import OPTIONS, TEXT, untrained

from gatewise.bench.over_http import PATH, save
from gatewise.bench.server_process import SERVE, ServerProcess
from gatewise.text.tokenizers import build_tokenizer

BODY = {"prefix": "def main", "n": OPTIONS.n, "max_tokens": OPTIONS.max_tokens}


def start(run: Path) -> tuple[float, float]:
    """Seconds until the server says that it serves, and until its first answer."""
    began = time.perf_counter()
    with ServerProcess(*SERVE, run, "--dtype", "int8") as server:
        said = time.perf_counter() - began
        status, _ = server.post(PATH, BODY)
        assert status == 200, status
        return said, time.perf_counter() - began


def imports() -> None:
    """The modules that take longest, with what they import."""
    code = "import gatewise.serve.app, gatewise.serve.server, gatewise.run, gatewise.complete.batch"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    lines = [line.split("|") for line in done.stderr.splitlines() if "|" in line]
    spent = [(int(one[1]), one[2].strip()) for one in lines if one[1].strip().isdigit()]
    for microseconds, name in sorted(spent, reverse=True)[:25]:
        print(f"{microseconds / 1e3:8.0f} ms {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path)
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--imports", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = build_tokenizer("char", [TEXT])
        run = options.run or save(untrained(tokenizer, 512), tokenizer, Path(folder) / "run")
        start(run)
        found = [start(run) for _ in range(options.times)]
    ready, answered = (sorted(column) for column in zip(*found, strict=True))
    print(
        f"ready after {statistics.median(ready):.2f} s, first answer after {statistics.median(answered):.2f} s "
        f"(median of {len(found)}; {answered[0]:.2f} to {answered[-1]:.2f})"
    )
    if options.imports:
        imports()


if __name__ == "__main__":
    main()
