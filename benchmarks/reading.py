"""Reading the gates of a long text beside reading it without: seconds, and ratios of medians.

    python benchmarks/reading.py RUN TEXT

A run of a language model reads the first 100,000 characters by `gatewise.insight.read_long`, without a record and with one, three
and all of an LSTM's gates and states, in turns. Costs with a record are compared with those without before. What is recorded has to lie
somewhere, and a virtual machine may take seconds to get memory from its host: before each reading the same arrays are made, filled
with ones and given back, which is timed by itself.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

import gatewise as gw
from gatewise.insight import read_long

RECORDS = ((), ("f",), ("i", "f", "o"), ("i", "f", "g", "o", "c", "h"))


def main() -> None:
    """Check, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--characters", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    run = gw.load(asked.run)
    text = asked.text.read_text(encoding="utf-8")[: asked.characters]
    plain = read_long(run, text).nats
    for record in RECORDS[1:]:
        np.testing.assert_allclose(read_long(run, text, record=record).nats, plain, atol=1e-3)
    seconds: dict[tuple[str, ...], list[float]] = {record: [] for record in RECORDS}
    room: dict[tuple[str, ...], list[float]] = {record: [] for record in RECORDS}
    for _ in range(asked.rounds):
        for record in RECORDS:
            room[record].append(filled(len(plain), run.model.config.hidden_size, len(record)))
            began = time.perf_counter()
            read_long(run, text, record=record)
            seconds[record].append(time.perf_counter() - began)
    first = statistics.median(seconds[()])
    print(
        f"{len(plain):,} tokens; recorded | seconds, median (least to most) | of the time without | "
        "filling the same new memory with ones"
    )
    for record, several in seconds.items():
        median = statistics.median(several)
        name = ", ".join(record) or "nothing"
        print(
            f"{name} | {median:.2f} ({min(several):.2f}-{max(several):.2f}) | {median / first:.2f} | "
            f"{statistics.median(room[record]):.2f} ({min(room[record]):.2f}-{max(room[record]):.2f})"
        )


def filled(tokens: int, units: int, count: int) -> float:
    """Seconds to make arrays of (tokens, units) and write every number of them."""
    began = time.perf_counter()
    kept = [np.empty((tokens, units), np.float32) for _ in range(count)]
    for each in kept:
        each.fill(1)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
