"""The memory suite as a table: cells x tasks over seeds, each trained until solved or its sequences are used up.

Each run is a process of its own (`gatewise train task`, `gatewise eval`), so that several go on side by side and
none hands the next its caches. Rows are kept in a file as they are finished; what stands there is not trained
again, and a run that was cut off goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from gatewise.errors import DataError, FailedError, Interrupted, OptionError
from gatewise.train.signals import StopSignals

Row: TypeAlias = "dict[str, Any]"

SAME_RUN = (
    "task",
    "length",
    "cell",
    "initialisation",
    "hidden_size",
    "seed",
    "most",
    "lr",
    "batch_size",
    "every",
    "clip_norm",
    "schedule",
)
"""What makes a row: two that agree in all of these are the same run."""
_BEFORE = {"clip_norm": 1.0, "schedule": "constant"}  # the only ones, until they could be chosen
_LOOK = 0.5  # seconds between looks at whether a stop was asked for
_GROUP = tuple(name for name in SAME_RUN if name != "seed")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained, in the order of tasks, cells, seeds.

    Args:
        tasks: a task, or task:length.
        cells: a cell, or cell/initial weights: lstm/chrono, rnn_relu/identity, lstm/forget=1.
        seeds: of each.
        hidden_size, lr, batch_size, clip_norm, schedule: of `gatewise train task`.
        most: sequences of a run that is not solved before.
        every: sequences between evaluations.
        device: where runs are trained.
    """

    tasks: tuple[str, ...]
    cells: tuple[str, ...]
    seeds: tuple[int, ...]
    hidden_size: int = 64
    lr: float = 3e-3
    batch_size: int = 64
    clip_norm: float = 1.0
    schedule: str = "constant"
    most: int = 102_400
    every: int = 3_200
    device: str = "cpu"

    def validate(self) -> None:
        """Raise UnknownNameError or OptionError unless every row can be trained."""
        from gatewise.mappings.starts import check_initialisation
        from gatewise.optim import SCHEDULES
        from gatewise.tasks.memory import open_task

        for flag, found, least in (
            ("seeds", min(self.seeds, default=-1), 0),
            ("batch-size", self.batch_size, 1),
            ("every", self.every, self.batch_size),
            ("sequences", self.most, self.every),
        ):
            if found < least:
                raise OptionError(f"--{flag}: expected whole numbers from {least:,}, found {found}")
        if self.schedule not in SCHEDULES:
            raise OptionError(
                f"--schedule: expected one of {', '.join(SCHEDULES)}, found {self.schedule!r}"
            )
        for task, length in map(_task, self.tasks):
            open_task(task, length or None)
        for cell, start in map(_cell, self.cells):
            name, _, bias = start.partition("=")
            if name != "forget":
                check_initialisation(start, cell)
            elif not _is_number(bias):
                raise OptionError(f"--cells: expected forget=NUMBER, found {cell}/{start}")

    def rows(self) -> Iterator[Row]:
        """What makes each row."""
        for task, length in map(_task, self.tasks):
            for cell, start in map(_cell, self.cells):
                for seed in self.seeds:
                    named = (task, length, cell, start, self.hidden_size, seed, self.most)
                    rule = (self.lr, self.batch_size, self.every, self.clip_norm, self.schedule)
                    yield dict(zip(SAME_RUN, named + rule, strict=True))


def _task(given: str) -> tuple[str, str]:
    name, _, length = given.partition(":")
    return name, length


def _cell(given: str) -> tuple[str, str]:
    name, _, start = given.partition("/")
    return name, start or "torch"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# ---------------------------------------------------------------------------- running


class _Processes:
    """Commands that run now, so that all can be ended."""

    def __init__(self, threads: int) -> None:
        self._lock, self._running, self._ended = (
            threading.Lock(),
            set[subprocess.Popen[str]](),
            False,
        )
        self._environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
        }

    def answer(self, *words: object) -> Any:
        """What `gatewise WORDS --json` says; FailedError, with its last line, if it fails."""
        command = [sys.executable, "-m", "gatewise", *map(str, words), "--json"]
        with self._lock:
            if self._ended:
                raise FailedError("interrupted")
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=self._environment,
            )
            self._running.add(process)
        out, errors = process.communicate()
        with self._lock:
            self._running.discard(process)
        if process.returncode:
            said = (errors.strip().splitlines() or [f"it ended with status {process.returncode}"])[
                -1
            ]
            raise FailedError(f"gatewise {' '.join(map(str, words))}: {said}")
        return json.loads(out)

    def end(self) -> None:
        """Interrupt all, which save their runs."""
        with self._lock:
            self._ended = True
            for process in self._running:
                process.terminate()


def measure(
    plan: Plan, out: Path, runs: Path, *, jobs: int = 1, done: Callable[[Row, int, int], None]
) -> list[Row]:
    """Train and test what is not yet in `out`, and write it there row by row.

    Args:
        plan: what is wanted.
        out: the file of rows.
        runs: a folder for the runs in hand.
        jobs: runs at a time; each has its share of the processors.
        done: called with each new row, how many of the wanted are there, and how many are wanted.
    Returns:
        All rows of the file, old and new.
    Raises:
        DataError: `out` holds something else.
        FailedError: a run fails, or a file cannot be written; the rows before it are kept.
        Interrupted: SIGINT or SIGTERM came; the runs in hand have been saved.
    """
    rows = read(out)
    wanted = list({_key(row): row for row in plan.rows()}.values())  # what is named twice, once
    kept = {_key(row) for row in rows}
    left = [row for row in wanted if _key(row) not in kept]
    there = len(wanted) - len(left)
    processes = _Processes(max(1, (os.cpu_count() or 1) // jobs))
    with StopSignals() as stopped, ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(_trained, row, runs, plan.device, processes) for row in left]
        waiting = set(futures)
        try:
            while waiting:
                ended, waiting = wait(waiting, timeout=_LOOK, return_when=FIRST_COMPLETED)
                failed = [future for future in ended if future.exception() is not None]
                for future in (one for one in futures if one in ended and one not in failed):
                    rows.append(future.result())
                    write(out, rows)
                    there += 1
                    done(rows[-1], there, len(wanted))
                for future in failed:
                    future.result()  # what is done is kept; now raise
                if stopped():
                    raise Interrupted(
                        f"stopped; {there:,} of {len(wanted):,} rows are in {out}, the same command goes on",
                        stopped.exit_code,
                    )
        finally:
            for future in waiting:
                future.cancel()
            processes.end()
    return rows


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in SAME_RUN)


def _trained(row: Row, runs: Path, device: str, processes: _Processes) -> Row:
    """One row, trained and tested."""
    folder = runs / "-".join(str(row[name]).replace("=", "") for name in SAME_RUN)
    batch = row["batch_size"]
    words: list[object] = ["train", "task", row["task"]]
    if (folder / "latest").exists():
        words += ["--resume", *(["--length", row["length"]] if row["length"] else [])]
    else:
        shutil.rmtree(folder, ignore_errors=True)
        words += [*(["--length", row["length"]] if row["length"] else [])]
        words += ["--cell", row["cell"], *_initial(row["initialisation"]), "--seed", row["seed"]]
        words += ["--hidden-size", row["hidden_size"], "--lr", row["lr"], "--batch-size", batch]
        words += ["--clip-norm", row["clip_norm"], "--device", device]
        words += ["--schedule", row["schedule"]]
        words += ["--sequences", row["every"], "--steps", row["most"] // batch]
    trained = processes.answer(*words, "--out", folder)
    tested = processes.answer("eval", folder, "--part", "test", "--checkpoint", "latest")
    shutil.rmtree(folder, ignore_errors=True)
    return row | {
        "ended": trained["reason"] == "solved",
        "sequences": trained["steps"] * batch,
        "seconds": trained["seconds"],
        "test": tested["parts"]["test"],
    }


def _initial(name: str) -> list[str]:
    """The options of initial weights."""
    if name.startswith("forget="):
        return ["--forget-bias", name.partition("=")[2]]
    return ["--initialisation", name]


# ---------------------------------------------------------------------------- the file and the table


def read(path: Path) -> list[Row]:
    """The rows of a file; none where there is no file.

    Raises:
        DataError: it holds something else, or cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read it: {error}") from None
    try:
        rows = json.loads(text)
        if not isinstance(rows, list):
            raise TypeError
        for row in rows:
            for name, only in _BEFORE.items():
                row.setdefault(name, only)
            _key(row), row["ended"], row["sequences"], row["test"]["sequences_right"]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise DataError(
            f"{path}: expected rows that `gatewise bench memory` wrote, found another file"
        ) from None
    return rows


def write(path: Path, rows: Sequence[Row]) -> None:
    """All rows, so that a kill leaves the old file or the new one.

    Raises:
        FailedError: it cannot be written.
    """
    beside = path.with_name(path.name + ".new")
    try:
        beside.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise FailedError(f"{path}: cannot write it: {error.strerror}") from None


def summary(rows: Sequence[Row]) -> list[Row]:
    """A row for each task, length, cell and rule, over its seeds.

    Each has what makes it, `seeds`, `solved` (how many), `sequences` (those that the solved took, sorted) and
    `right` (the share of test sequences, sorted).
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in _GROUP), []).append(row)
    return [
        dict(zip(_GROUP, key, strict=True))
        | {
            "seeds": sorted(row["seed"] for row in found),
            "solved": sum(row["ended"] for row in found),
            "sequences": sorted(row["sequences"] for row in found if row["ended"]),
            "right": sorted(row["test"]["sequences_right"] for row in found),
        }
        for key, found in groups.items()
    ]


def table(rows: Sequence[Row]) -> str:
    """The summary in Markdown."""
    lines = [
        "| task | cell | units | initial weights | solved | sequences to it, mean (least-most) | "
        "right in the test, mean (least-most) |",
        "|---|---|---|---|---|---|---|",
    ]
    for group in summary(rows):
        took = (
            _spread(group["sequences"], ",.0f") if group["solved"] else f"none in {group['most']:,}"
        )
        lines.append(
            f"| {group['task']} {group['length']} | {group['cell']} | {group['hidden_size']} | "
            f"{group['initialisation']} | {group['solved']} of {len(group['seeds'])} | {took} | "
            f"{_spread(group['right'], '.3f')} |"
        )
    return "\n".join(lines)


def _spread(values: Sequence[float], form: str) -> str:
    """The mean, with the least and the most where they differ."""
    mean, least, most = (
        format(one, form) for one in (statistics.mean(values), min(values), max(values))
    )
    return mean if least == most else f"{mean} ({least}-{most})"
