"""Ctrl-C and SIGTERM: the run is saved, the status tells why, and it goes on where it was."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gatewise.checkpoint import RunFolder
from gatewise.errors import Interrupted
from gatewise.train.signals import StopSignals

TESTS = Path(__file__).parents[1]

PROGRAM = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
from gatewise.checkpoint import RunFolder
from gatewise.errors import GatewiseError
from gatewise.text.corpora import build_corpus
from gatewise.train import train
from train_cases import Collector, build

class Slow(Collector):
    def started(self, event):
        print("started", event.step, flush=True)
    def saved(self, step, path):
        print("saved", step, flush=True)
        if {slow_save} and step > 0:
            time.sleep(60)

torch.set_num_threads(1)
corpus = build_corpus([Path(sys.argv[1])], fractions=(0.8, 0.2, 0.0), cache=False)
learner, options = build(corpus, minutes=5, eval_every={eval_every})
try:
    with RunFolder.resume(sys.argv[2]) as run:
        train(learner, run, options, Slow())
except GatewiseError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


def start(
    tmp_path: Path, *, slow_save: bool = False, eval_every: int = 10**6
) -> subprocess.Popen[str]:
    from train_cases import make_text

    (tmp_path / "text.txt").write_text(make_text())
    program = PROGRAM.format(tests=str(TESTS), slow_save=slow_save, eval_every=eval_every)
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "text.txt"), str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("started")
    time.sleep(0.3)
    return process


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_saves(tmp_path: Path, number: signal.Signals, status: int) -> None:
    process = start(tmp_path)
    begun = time.monotonic()
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == status, output
    assert time.monotonic() - begun < 5
    assert "saved" in output
    assert "--resume" in output
    with RunFolder.resume(tmp_path / "run") as run:
        step = run.latest().step
    assert step > 0
    assert f"interrupted at step {step:,}" in output


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    process = start(tmp_path, slow_save=True)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    while not re.match("saved [1-9]", process.stdout.readline()):
        pass
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - begun < 5
    assert "at once" in output


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopSignals() as stopped:
        assert not stopped()
        signal.raise_signal(signal.SIGTERM)
        assert stopped()
        assert stopped.exit_code == 143
        with pytest.raises(Interrupted) as error:
            signal.raise_signal(signal.SIGINT)
        assert error.value.exit_code == 130
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
