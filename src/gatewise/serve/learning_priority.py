"""How a process stays out of the way of all others, and never outlives by mistake the one that started it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

import torch

_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""


def lower() -> None:
    """Run only where nobody else wants to, on one thread; where memory ends, be the first to go."""
    with contextlib.suppress(AttributeError, OSError):
        os.nice(19)
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    torch.set_num_threads(1)


def woken_at_the_end_of(parent: int) -> bool:
    """Whether this process, stopped by its parent, goes on when that dies: so it may be stopped.

    Args:
        parent: process id; if it is gone already, nothing would wake this one.
    """
    if sys.platform != "linux":
        return False
    try:
        asked = ctypes.CDLL(None, use_errno=True).prctl(_DEATH_SIGNAL, int(signal.SIGCONT), 0, 0, 0)
    except (OSError, AttributeError):
        return False
    return asked == 0 and os.getppid() == parent
