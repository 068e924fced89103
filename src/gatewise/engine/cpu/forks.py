"""What a fork leaves of torch's threads. Imported with the engines, so that no fork is missed.

libgomp keeps a pool of threads for each thread that opens a parallel region. In a forked child only the
thread that forked lives on, and its pool is a list of threads that do not: any region on it waits for
ever. torch's operators do so, unless torch.set_num_threads(1) was called; ours do not (`alive`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_ORPHANS: set[int] = set()
_LOCAL = threading.local()


def _forked() -> None:
    _ORPHANS.clear()
    _ORPHANS.add(threading.get_ident())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def orphan() -> bool:
    """Whether the calling thread is the one that lives on in a forked child: its OpenMP pool is dead."""
    return threading.get_ident() in _ORPHANS


def count() -> int:
    """The threads that a kernel may have: torch's number."""
    return getattr(_LOCAL, "count", None) or torch.get_num_threads()


@contextmanager
def alive() -> Iterator[None]:
    """A block in which torch's operators do not wait for threads that a fork has lost.

    There they run on one thread in a forked child; kernels have a pool of their own (`threads`).
    """
    asked = torch.get_num_threads() if orphan() else 1
    if asked < 2:
        yield
        return
    torch.set_num_threads(1)
    _LOCAL.count = asked
    try:
        yield
    finally:
        _LOCAL.count = None
        torch.set_num_threads(asked)
