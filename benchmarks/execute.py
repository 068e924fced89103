"""Learning to execute on a card: sums of many digits, and programs by each of the curricula, side by side.

    python benchmarks/execute.py OUT --minutes 7

Starts a training run for each (five processes share the card, so their seconds are not those of a run alone),
then evaluates each on examples that training never saw: whole answers, free running, and characters given those
before. Writes OUT/execute.json as results come in, and OUT/NAME.log.jsonl.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

CURRICULA = ("baseline", "naive", "mix", "combined")
PROGRAMS = ["--length", "5", "--nesting", "2", "--hidden-size", "400", "--num-layers", "2"]
SUMS = ["--task", "addition", "--digits", "9", "--hidden-size", "256", "--curriculum", "mix"]
COMMON = ["--batch-size", "256", "--examples", "51200", "--lr", "3e-3", "--valid-examples", "512"]


def jobs() -> dict[str, list[str]]:
    """Name of a run -> its options."""
    found = {"sums": SUMS}
    for curriculum in CURRICULA:
        found[curriculum] = [*PROGRAMS, "--curriculum", curriculum]
    return found


def gatewise(*words: object) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "gatewise", *map(str, words)]


def train(runs: Path, minutes: float, device: str) -> None:
    """All runs at once; their output goes beside them."""
    waiting = []
    for name, options in jobs().items():
        words = ["train", "execute", "--out", runs / name, *options, *COMMON]
        words += ["--minutes", minutes, "--device", device]
        with (runs / f"{name}.txt").open("w") as output:
            waiting.append(
                subprocess.Popen(gatewise(*words), stdout=output, stderr=subprocess.STDOUT)
            )
    for process in waiting:
        process.wait()


def measure(runs: Path, out: Path, device: str) -> None:
    """What each run knows, all at once again."""
    waiting: dict[str, Any] = {}
    for name in jobs():
        table = (
            ["--lengths", "1..9"] if name == "sums" else ["--lengths", "1..5", "--nestings", "1..3"]
        )
        words = ["eval", runs / name, *table, "--examples", 1000, "--device", device, "--json"]
        waiting[name] = subprocess.Popen(gatewise(*words), stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = {}
    for name, process in waiting.items():
        text, _ = process.communicate()
        found[name] = json.loads(text) if process.returncode == 0 else None
        (out / "execute.json").write_text(json.dumps(found, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    runs = options.out / "runs"
    runs.mkdir()
    train(runs, options.minutes, options.device)
    for name in jobs():
        shutil.copy(runs / name / "log.jsonl", options.out / f"{name}.log.jsonl")
    measure(runs, options.out, options.device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
