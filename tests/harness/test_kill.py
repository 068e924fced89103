"""kill -9 at random moments, saving included, resumed until done: the bits of an unbroken run."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gatewise.checkpoint import load_checkpoint, verify_run
from harness.folders import quick_folder
from harness.nursery import STEPS, arguments
from train_cases import make_text

TESTS = Path(__file__).parents[1]
FILES = ("model.safetensors", "training/state.safetensors", "training/state.json")
MOST_KILLS = 4  # of one run, before it may end


def _path() -> str:
    """Where the process finds the helpers of the tests, and what this one found."""
    return os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))


class Nursery:
    """The process of nursery.py."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(TESTS / "harness" / "nursery.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": _path(), "OMP_NUM_THREADS": "1"},
        )

    def train(self, kind: str, text: Path, out: Path, after: float | None) -> dict[str, Any]:
        """Train, or train until the kill; the answer."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        order = {
            "kind": kind,
            "text": str(text),
            "out": str(out),
            "resume": out.exists(),
            "after": after,
        }
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        return answer

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()


@contextmanager
def nursery() -> Iterator[Nursery]:
    started = Nursery()
    try:
        yield started
    finally:
        started.close()


def sums(run: Path) -> dict[str, str]:
    """SHA-256 of the weights and of the training state of the latest checkpoint."""
    found = load_checkpoint(run, "latest")
    assert found.step == STEPS
    return {name: hashlib.sha256((found.path / name).read_bytes()).hexdigest() for name in FILES}


def check_log(run: Path) -> None:
    """Each step stands once in the log, in order."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if line.get("kind") == "train"]
    assert steps == list(range(1, STEPS + 1))


def moment(run: Path) -> str:
    """Where a kill met a run, as far as the folder tells."""
    if not run.exists():
        return "before the folder"
    names = (
        [p.name for p in (run / "checkpoints").iterdir()] if (run / "checkpoints").exists() else []
    )
    if any(name.startswith((".tmp-", ".old-", ".gone-")) for name in names) or any(
        p.name.startswith(".tmp-") for p in run.iterdir()
    ):
        return "inside a save"
    return "elsewhere" if names else "before the first save"


def kill_until_done(
    children: Nursery, kind: str, text: Path, out: Path, seconds: float, rng: random.Random
) -> list[str]:
    """Kill a run at moments uniform over its duration, each time resumed; where the kills fell."""
    moments: list[str] = []
    while len(moments) < MOST_KILLS:
        answer = children.train(kind, text, out, rng.uniform(0, seconds))
        if answer["status"] == 0:
            break
        assert answer["status"] == -9, answer["output"]
        moments.append(moment(out))
    else:
        answer = children.train(kind, text, out, None)
        assert answer["status"] == 0, answer["output"]
    return moments


def _worker(kind: str, folder: Path, count: int, seed: int, found: list[Any]) -> None:
    rng = random.Random(seed)
    text = folder / "text.txt"
    with nursery() as children:
        whole = folder / f"whole-{seed}"
        children.train(kind, text, folder / f"warm-{seed}", None)
        answer = children.train(kind, text, whole, None)
        if answer["status"] != 0:
            found.append(answer["output"])
            return
        check_log(whole)
        expected, done = sums(whole), 0
        while done < count:
            out = folder / f"run-{seed}-{done}"
            try:
                moments = kill_until_done(children, kind, text, out, answer["seconds"], rng)
                if moments:  # else it ended before its kill: another
                    assert sums(out) == expected
                    assert verify_run(out) == []
                    check_log(out)
            except AssertionError as error:
                found.append(f"run {done} of seed {seed}: {error}")
                return
            if moments:
                found.append(moments)
                done += 1
            subprocess.run(["rm", "-rf", str(out)], check=True)


def _kill_many(kind: str, count: int, workers: int = 2, seed: int = 0) -> Counter[str]:
    """`count` runs, each killed at least once; how many kills fell where."""
    with tempfile.TemporaryDirectory(dir=quick_folder()) as name:
        folder = Path(name)
        (folder / "text.txt").write_text(make_text())
        pairs = [f"{k % 7} {k}\t{k % 5}\n" for k in range(60)]
        (folder / "pairs.tsv").write_text("".join(pairs))
        found: list[Any] = []
        shares = [count // workers + (index < count % workers) for index in range(workers)]
        threads = [
            threading.Thread(target=_worker, args=(kind, folder, share, seed + index, found))
            for index, share in enumerate(shares)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [item for item in found if isinstance(item, str)] == []
    assert len(found) == count
    return Counter(place for moments in found for place in moments)


@pytest.mark.parametrize("kind", ["library", "command", "pairs"])
def test_killed_runs_end_as_unbroken_ones(kind: str) -> None:
    kills = _kill_many(kind, 2, workers=1)
    assert kills.total() >= 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["library", "command", "pairs"])
def test_a_hundred_killed_runs(kind: str) -> None:
    kills = _kill_many(kind, 100, seed=100)
    print(f"{kind}: kills {kills.total()}:", dict(kills))
    assert kills["inside a save"] > 0
    assert kills["elsewhere"] > 0


@pytest.mark.slow
def test_the_real_command(tmp_path: Path) -> None:
    """The same with the command as a user starts it, killed three times, then left alone."""
    text = tmp_path / "text.txt"
    text.write_text(make_text())
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(out: Path) -> subprocess.Popen[bytes]:
        given = arguments(str(text), str(out), resume=out.exists())
        with (tmp_path / "output").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "gatewise", *given],
                stdout=output,
                stderr=output,
                env=environment,
            )

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    began = time.monotonic()
    assert start(whole).wait(timeout=300) == 0, (tmp_path / "output").read_text()
    seconds = time.monotonic() - began
    rng = random.Random(7)
    for _ in range(3):
        process = start(parts)
        try:
            process.wait(timeout=rng.uniform(0.5, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert start(parts).wait(timeout=300) == 0, (tmp_path / "output").read_text()
    assert sums(parts) == sums(whole)
    check_log(parts)
