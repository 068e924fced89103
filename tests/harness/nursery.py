"""A process that has imported everything once, and forks trainings from itself to kill them.

Reads one JSON object per line: {"kind": "library", "command" or "pairs", "text", "out", "resume", "after"},
"after" the seconds until the kill, or null. Answers with {"status", "seconds", "output"}; the status
is -9 after a kill.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # torch imports it at the first step of an optimizer: once is enough

from gatewise.checkpoint import RunFolder
from gatewise.cli import main
from gatewise.text.corpora import build_corpus
from gatewise.train import train
from train_cases import build

STEPS = 40

# Everything that draws random numbers or carries something over, and a save at every other step.
LIBRARY: dict[str, Any] = {
    "steps": STEPS,
    "optimizer": "ntasgd",
    "lr": 5.0,
    "nonmono": 1,
    "eval_every": 5,
    "num_layers": 2,
    "dropout": 0.2,
    "dropout_embedding": 0.1,
    "weight_drop": 0.2,
    "random_bptt": True,
    "drop_state": 0.2,
    "checkpoint_every": 2,
    "log_every": 1,
    "keep": 2,
}


def arguments(text: str, out: str, *, resume: bool) -> list[str]:
    """The command line that is killed."""
    options = [
        "--preset",
        "tiny",
        "--seed",
        "1",
        "--log-every",
        "1",
        "--checkpoint-every",
        "2",
        "--keep",
        "2",
    ]
    given = ["train", "lm", text, "--out", out, "--steps", str(STEPS), *options]
    return [*given, "--resume"] if resume else given


def pair_arguments(text: str, out: str, *, resume: bool) -> list[str]:
    """The command line that trains on the pairs beside the text."""
    sizes = ["--hidden-size", "8", "--embedding-size", "8", "--batch-size", "8", "--dropout", "0.2"]
    noise = [
        "--zoneout",
        "0.1",
        "--scheduled-sampling",
        "0.2",
        "--tokenizer",
        "char",
        "--warmup",
        "2",
    ]
    saving = ["--checkpoint-every", "2", "--keep", "2", "--log-every", "1", "--dtype", "float32"]
    pairs = str(Path(text).with_name("pairs.tsv"))
    given = ["train", "translate", pairs, "--out", out, "--steps", str(STEPS)]
    return [*given, *sizes, *noise, *saving, *(["--resume"] if resume else [])]


def _library(text: str, out: str) -> int:
    torch.manual_seed(1)
    learner, options = build(build_corpus([text], tokenizer="char"), **LIBRARY)
    with RunFolder.resume(out) as run:
        train(learner, run, options)
    return 0


def _child(order: dict[str, Any], output: int) -> int:
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)
    if order["kind"] == "library":
        return _library(order["text"], order["out"])
    line = pair_arguments if order["kind"] == "pairs" else arguments
    try:
        return int(main(line(order["text"], order["out"], resume=order["resume"])) or 0)
    except SystemExit as exit:
        return int(exit.code or 0)


def _run(order: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as output:
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            status = 99
            try:
                status = _child(order, output.fileno())
            except BaseException as error:
                os.write(2, f"{type(error).__name__}: {error}".encode())
            finally:
                os._exit(status)
        if order["after"] is not None:
            time.sleep(max(0.0, order["after"] - (time.monotonic() - start)))
            os.kill(child, signal.SIGKILL)  # not yet waited for: the number is still the child's
        _, status = os.waitpid(child, 0)
        seconds = time.monotonic() - start
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    return {"status": os.waitstatus_to_exitcode(status), "seconds": seconds, "output": text[-2000:]}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    torch.set_num_threads(1)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_run(json.loads(line))) + "\n")
        sys.stdout.flush()
