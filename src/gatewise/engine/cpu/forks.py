"""Which thread came through a fork. Imported with the engines, so that no fork is missed."""

from __future__ import annotations

import os
import threading

_ORPHANS: set[int] = set()


def _forked() -> None:
    _ORPHANS.clear()
    _ORPHANS.add(threading.get_ident())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def orphan() -> bool:
    """Whether the calling thread is the one that lives on in a forked child: its OpenMP pool is dead."""
    return threading.get_ident() in _ORPHANS
