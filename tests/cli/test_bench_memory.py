"""The table of the memory suite: what is trained, kept, gone on with, refused."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gatewise.bench import memory
from gatewise.cli import main
from gatewise.errors import DataError, FailedError, OptionError, UnknownNameError

PLAN = memory.Plan(
    tasks=("temporal-order:easy", "parity"), cells=("gru/chrono", "rnn_relu"), seeds=(1, 2)
)


def finished(row: memory.Row, **more: Any) -> memory.Row:
    """A row with its results."""
    found = {"ended": True, "sequences": 640, "seconds": 1.0, "test": {"sequences_right": 0.5}}
    return row | found | more


def test_rows_are_tasks_by_cells_by_seeds() -> None:
    rows = list(PLAN.rows())
    assert len(rows) == 8
    assert rows[0] | {"task": "temporal-order", "length": "easy", "cell": "gru"} == rows[0]
    assert rows[0]["initialisation"] == "chrono"
    assert (rows[-1]["task"], rows[-1]["length"], rows[-1]["seed"]) == ("parity", "", 2)
    assert rows[-1]["initialisation"] == "torch"


def test_what_is_there_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "rows.json"
    rows = list(PLAN.rows())
    memory.write(out, [finished(rows[3])])
    trained = []

    def one(row: memory.Row, *_: object) -> memory.Row:
        trained.append(row)
        if len(trained) == 3:
            raise FailedError("no memory")
        return finished(row)

    monkeypatch.setattr(memory, "_trained", one)
    with pytest.raises(FailedError, match="no memory"):
        memory.measure(PLAN, out, tmp_path, done=lambda *_: None)
    assert len(memory.read(out)) == len(trained) >= 3  # all but the third, and what was there
    told: list[tuple[int, int]] = []
    found = memory.measure(
        PLAN, out, tmp_path, jobs=2, done=lambda _, there, of: told.append((there, of))
    )
    assert found == memory.read(out)
    assert len(found) == 8
    assert told[-1] == (8, 8)
    assert rows[3] not in trained
    import dataclasses

    twice = dataclasses.replace(PLAN, cells=("lstm", "lstm"), seeds=(1, 1))
    assert len(memory.measure(twice, out, tmp_path, done=lambda *_: None)) == 10


def test_the_table() -> None:
    rows = list(PLAN.rows())[:4]
    found = [finished(row, sequences=640 * row["seed"]) for row in rows[:2]]
    found += [finished(row, ended=False) for row in rows[2:]]
    lines = memory.table(found).splitlines()
    assert (
        lines[2] == "| temporal-order easy | gru | 64 | chrono | 2 of 2 | 960 (640-1,280) | 0.500 |"
    )
    assert (
        lines[3]
        == "| temporal-order easy | rnn_relu | 64 | torch | 0 of 2 | none in 102,400 | 0.500 |"
    )


@pytest.mark.parametrize("text", ["{}", "[1]", '[{"task": "copy"}]', "not JSON"])
def test_another_file_is_not_written_over(tmp_path: Path, text: str, gatewise: Any) -> None:
    out = tmp_path / "other.json"
    out.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="expected rows that"):
        memory.read(out)
    assert gatewise("bench", "memory", "--out", out).status == 2
    assert out.read_text(encoding="utf-8") == text


def test_rows_of_before_clipping_could_be_chosen(tmp_path: Path) -> None:
    row = finished(next(PLAN.rows()))
    del row["clip_norm"], row["schedule"]
    memory.write(tmp_path / "old.json", [row])
    assert memory.read(tmp_path / "old.json")[0] | {"clip_norm": 1.0, "schedule": "constant"} == (
        finished(next(PLAN.rows()))
    )


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"tasks": ("copyy",)}, UnknownNameError, "copy"),
        ({"tasks": ("copy:x",)}, OptionError, "--length"),
        ({"cells": ("grru",)}, UnknownNameError, "gru"),
        ({"cells": ("gru/identity",)}, OptionError, "--initialisation identity"),
        ({"cells": ("lstm/forget=x",)}, OptionError, "forget=NUMBER"),
        ({"seeds": (-1,)}, OptionError, "--seeds"),
        ({"batch_size": 0}, OptionError, "--batch-size"),
        ({"every": 32}, OptionError, "--every"),
        ({"most": 100}, OptionError, "--sequences"),
        ({"schedule": "linear"}, OptionError, "--schedule"),
    ],
)
def test_what_cannot_be_trained_is_refused_before(
    change: dict[str, Any], error: Any, says: str
) -> None:
    import dataclasses

    with pytest.raises(error, match=says):
        dataclasses.replace(PLAN, **change).validate()


def test_the_verb(tmp_path: Path, gatewise: Any) -> None:
    out = tmp_path / "rows.json"
    words = ["--tasks", "temporal-order:easy", "--cells", "lstm/forget=1", "--hidden-size", "4"]
    short = [*words, "--seeds", "1", "--sequences", "64", "--every", "64", "--batch-size", "32"]
    called = gatewise("bench", "memory", "--out", out, *short, "--json")
    assert called.status == 0, called.err
    (row,) = json.loads(called.out)["rows"]
    assert (row["ended"], row["sequences"], row["initialisation"]) == (False, 64, "forget=1")
    assert not list((tmp_path / "rows.json.runs").iterdir())
    assert main(["bench", "memory", "--out", str(out), "--table"]) == 0
    for extra, says in (
        (("--seeds", "a"), "--seeds: expected numbers"),
        (("--tasks", "copy,"), "--tasks: expected names"),
        (("--jobs", "-1"), "--jobs"),
        (("--device", "cuda:77"), "cuda"),
    ):
        called = gatewise("bench", "memory", "--out", tmp_path / "new.json", *extra)
        assert called.status in (1, 2)
        assert says in called.line


def test_a_signal_ends_the_runs_in_hand(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    words = [
        "bench",
        "memory",
        "--out",
        str(out),
        "--tasks",
        "temporal-order:hard",
        "--cells",
        "gru",
    ]
    started = [sys.executable, "-m", "gatewise", *words, "--seeds", "1", "--jobs", "1"]
    process = subprocess.Popen(started, stderr=subprocess.PIPE, text=True)
    runs, end = tmp_path / "rows.json.runs", time.monotonic() + 60
    while not any(log.stat().st_size for log in runs.glob("*/log.jsonl")):
        assert time.monotonic() < end
        time.sleep(0.1)
    process.terminate()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert "0 of 1 rows" in said
    (run,) = runs.iterdir()
    assert (run / "latest").exists()  # saved, and nobody holds it
    again = subprocess.run(
        [sys.executable, "-m", "gatewise", "train", "task", "--resume", "--steps", "1", "--out", str(run)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
