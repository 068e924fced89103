"""The log: whole lines, cut back where a run goes back, damage passed over and counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from gatewise.checkpoint import RunLog
from gatewise.errors import CheckpointError


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RunLog]:
    log = RunLog(tmp_path / "log.jsonl", writable=True)
    yield log
    log.close()


def test_values(log: RunLog) -> None:
    log.append(
        {
            "step": np.int64(3),
            "loss": torch.tensor(0.5),
            "nan": float("nan"),
            "inf": -float("inf"),
            "list": (1, np.float32(0.25)),
            "array": torch.arange(2),
            "text": "é\n",
            "path": Path("a"),
            "none": None,
            "flag": True,
        }
    )
    assert list(log.read()) == [
        {
            "step": 3,
            "loss": 0.5,
            "nan": "nan",
            "inf": "-inf",
            "list": [1, 0.25],
            "array": [0, 1],
            "text": "é\n",
            "path": "a",
            "none": None,
            "flag": True,
        }
    ]
    assert log.path.read_bytes().count(b"\n") == 1


def test_truncate_to_a_step(log: RunLog) -> None:
    for event in ({"begin": 1}, {"step": 1}, {"note": 1}, {"step": 2}, {"step": 2.0}, {"step": 3}):
        log.append(event)
    log.truncate_to(5)
    assert len(list(log.read())) == 6
    log.truncate_to(2)
    assert [e.get("step") for e in log.read()] == [None, 1, None, 2, 2.0]
    log.truncate_to(0)
    assert list(log.read()) == [{"begin": 1}]
    log.append({"step": 1})
    assert list(log.read()) == [{"begin": 1}, {"step": 1}]


def test_truncate_at_a_position(log: RunLog) -> None:
    log.append({"step": 1})
    position = log.position()
    log.append({"step": 2})
    assert log.agrees(position)
    assert log.truncate_at(position)
    assert log.position() == position
    assert not log.truncate_at((position[0] - 3, position[1]))
    assert list(log.read()) == []
    assert not log.truncate_at(position)


def test_a_partial_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"st')
    reader = RunLog(path)
    assert [e["step"] for e in reader.read()] == [1, 2]
    assert reader.damaged_lines() == 1
    log = RunLog(path, writable=True)
    log.append({"step": 3})
    assert [e["step"] for e in log.read()] == [1, 2, 3]
    assert log.damaged_lines() == 0
    log.close()


@pytest.mark.parametrize(
    "line",
    [b"", b"x", b"[1]", b"\xff", b'{"a":', b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000],
)
def test_damaged_lines_are_passed_over(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 2}\n')
    log = RunLog(path)
    assert [e["step"] for e in log.read()] == [1, 2]
    assert log.damaged_lines() == 1


def test_missing_log_and_reading_only(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    assert list(log.read()) == []
    assert not log.agrees((5, "x"))
    with pytest.raises(CheckpointError, match="not open for writing"):
        log.append({})
    with pytest.raises(CheckpointError, match="cannot open"):
        RunLog(tmp_path / "none" / "log.jsonl", writable=True)


def test_lines_longer_than_a_block(log: RunLog) -> None:
    for step in range(3):
        log.append({"step": step, "text": "x" * (5 << 20)})
    log.truncate_to(1)
    assert log.path.stat().st_size > 10 << 20
    assert json.loads(log.path.read_bytes().splitlines()[-1])["step"] == 1
