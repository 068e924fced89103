"""The memory suite: cells x tasks over seeds, each trained until it is solved or its sequences are used up.

    python benchmarks/memory.py OUT.json --cells rnn_tanh,lstm --tasks temporal-order:easy,adding:100 --seeds 1,2,3
    python benchmarks/memory.py OUT.json --table

A cell may say its initial weights: lstm/chrono, rnn_relu/identity, lstm/forget=1. Rows go into OUT.json as they are
finished; what stands there is not trained again, so that a table can be stopped and gone on with. A run that was
cut off goes on from its last checkpoint. Each row holds the test part's figures, of sequences that neither
training nor the decision to stop has seen.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KEY = (
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
)


def gatewise(*words: object) -> Any:
    """What a command answers as JSON."""
    command = [sys.executable, "-m", "gatewise", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.splitlines()[-1]}")
    return json.loads(done.stdout)


def initial(name: str) -> list[str]:
    """The options of an initialisation."""
    if name.startswith("forget="):
        return ["--forget-bias", name.partition("=")[2]]
    return ["--initialisation", name]


def wanted(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The keys of all rows."""
    for task in options.tasks.split(","):
        name, _, length = task.partition(":")
        for cell in options.cells.split(","):
            kind, _, start = cell.partition("/")
            for seed in options.seeds.split(","):
                yield dict(
                    zip(
                        KEY,
                        (
                            name,
                            length,
                            kind,
                            start or "torch",
                            options.hidden_size,
                            int(seed),
                            options.sequences,
                            options.lr,
                            options.batch_size,
                            options.every,
                        ),
                        strict=True,
                    )
                )


def measure(row: dict[str, Any], runs: Path) -> dict[str, Any]:
    """Train and test one row."""
    folder = runs / "-".join(str(row[name]).replace("=", "") for name in KEY)
    words: list[object] = ["train", "task"]
    batch = row["batch_size"]
    if (folder / "latest").exists():
        words += ["--resume"]
    else:
        shutil.rmtree(folder, ignore_errors=True)
        words += [row["task"], *(["--length", row["length"]] if row["length"] else [])]
        words += ["--cell", row["cell"], *initial(row["initialisation"]), "--seed", row["seed"]]
        words += ["--hidden-size", row["hidden_size"], "--lr", row["lr"], "--batch-size", batch]
        words += ["--sequences", row["every"], "--steps", row["most"] // batch]
    trained = gatewise(*words, "--out", folder)
    tested = gatewise("eval", folder, "--part", "test", "--checkpoint", "latest")["parts"]["test"]
    ended = trained["reason"] == "solved"
    found = {
        "ended": ended,
        "sequences": trained["steps"] * batch,
        "seconds": trained["seconds"],
        "test": tested,
    }
    shutil.rmtree(folder)
    return row | found


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """All rows, so that a kill leaves the old file or the new one."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    os.replace(beside, path)


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each task, length and cell: how many seeds solved it, and after how many sequences."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in KEY if name != "seed"), []).append(row)
    lines = [
        "| task | cell | initial weights | solved | sequences to it, mean (min-max) | right in the test, mean (min-max) |",
        "|---|---|---|---|---|---|",
    ]
    for key, found in groups.items():
        at = dict(zip((name for name in KEY if name != "seed"), key, strict=True))
        needed = [row["sequences"] for row in found if row["ended"]]
        right = [row["test"]["sequences_right"] for row in found]
        took = (
            f"{statistics.mean(needed):,.0f} ({min(needed):,}-{max(needed):,})"
            if needed
            else f"none in {at['most']:,}"
        )
        share = f"{statistics.mean(right):.3f} ({min(right):.3f}-{max(right):.3f})"
        lines.append(
            f"| {at['task']} {at['length']} | {at['cell']} | {at['initialisation']} | "
            f"{len(needed)} of {len(found)} | {took} | {share} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--cells", default="rnn_tanh,rnn_relu,gru,lstm")
    parser.add_argument("--tasks", default="temporal-order:easy,temporal-order:normal")
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--hidden-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--sequences", type=int, default=102_400, help="at most, of a run")
    parser.add_argument("--every", type=int, default=3_200, help="sequences between evaluations")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--runs", type=Path, help="where runs in hand lie; default: beside OUT")
    parser.add_argument("--table", action="store_true", help="only show what is finished")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else []
    if not options.table:
        runs = options.runs or options.out.with_suffix(".runs")
        runs.mkdir(parents=True, exist_ok=True)
        finished = {tuple(row[name] for name in KEY) for row in rows}
        for row in wanted(options):
            if tuple(row.values()) not in finished:
                rows.append(measure(row, runs))
                write(options.out, rows)
                print({name: rows[-1][name] for name in (*KEY, "ended", "sequences")}, flush=True)
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
