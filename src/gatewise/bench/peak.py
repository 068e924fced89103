"""The most memory that training takes, each contestant in a process of its own.

A process builds the layer and takes three steps. What it holds before the first step (Python, torch, weights,
inputs) is reported beside the highest that it ever holds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from gatewise.bench import training
from gatewise.bench.alone import answer, in_process
from gatewise.bench.sizes import Size

NAMES = (
    "torch",
    "torch-bf16",
    "gatewise",
    "gatewise-gates",
    "gatewise-bf16",
    "gatewise-bf16-gates",
)
_STEPS = 3
_MODULE = "gatewise.bench.peak"


@dataclass(frozen=True)
class Peak:
    """Bytes.

    Args:
        total: the highest that the process ever held.
        before: held when the first step began.
    """

    total: int
    before: int

    @property
    def added(self) -> int:
        """What training added."""
        return self.total - self.before


def measure(name: str, kind: str, size: Size, threads: int) -> tuple[Peak, float]:
    """The peak of one contestant of `training.CONTESTANTS`, and the seconds of its last step.

    Raises:
        FailedError: if its process fails.
    """
    found = in_process(_MODULE, [name, kind, *_numbers(size), threads])
    return Peak(int(found["total"]), int(found["before"])), float(found["seconds"])


def _numbers(size: Size) -> Sequence[int]:
    return size.steps, size.batch, size.hidden, size.layers


def _alone(name: str, kind: str, *numbers: str) -> dict[str, float]:
    *size, threads = (int(n) for n in numbers)
    torch.set_num_threads(threads)
    task = training.make_task(kind, Size(*size))
    contestant = training.CONTESTANTS[name]
    entry = contestant.enter(task)
    before = held()
    for _ in range(_STEPS):
        start = time.perf_counter()
        training.step(entry, task.x, task.grad, contestant.dtype)
    return {"total": high_water(), "before": before, "seconds": time.perf_counter() - start}


def held() -> int:
    """Bytes that this process holds; where the system does not say, the most that it held so far."""
    return _status("VmRSS") or high_water()


def high_water() -> int:
    """The most bytes that this process ever held.

    On Linux by the process's own count: ru_maxrss is inherited from what started it.
    """
    if found := _status("VmHWM"):
        return found
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(name: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    found = next((line for line in lines if line.startswith(f"{name}:")), f"{name}: 0")
    return int(found.split()[1]) * 1024


if __name__ == "__main__":
    answer(_alone)
