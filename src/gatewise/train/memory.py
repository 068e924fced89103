"""Keeping freed memory for the next step: a step frees and asks for the same buffers again.

glibc gives large blocks back to the system at once, and each new one is then mapped page by page. A
program that trains keeps them instead: same peak, fewer page faults.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h
_KEPT = 1 << 30
_PAD = 1 << 26


def keep_freed_memory() -> bool:
    """Let this process reuse what it frees, blocks below 1 GiB; for a program's own start.

    Returns:
        whether the allocator took it: glibc only, others are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
        mallopt.restype, mallopt.argtypes = ctypes.c_int, (ctypes.c_int, ctypes.c_int)
    except (OSError, AttributeError):  # another C library
        return False
    settings = ((_MMAP_THRESHOLD, _KEPT), (_TRIM_THRESHOLD, _KEPT), (_TOP_PAD, _PAD))
    return all(bool(mallopt(name, value)) for name, value in settings)
