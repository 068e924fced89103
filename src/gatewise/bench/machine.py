"""Where something was measured: processor, cores, versions. Imports torch only when asked."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from gatewise import __version__

_TELLING = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
_TELLING_ARM = ("asimddp", "bf16", "i8mm", "sve")


def processor() -> str:
    """Its name; Python knows it on some systems only."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe(threads: int) -> dict[str, Any]:
    """What a figure needs beside it, as JSON can say it."""
    import torch

    from gatewise.bench.ceilings import cache_sizes

    flags = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return {
        "gatewise": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "processor": processor(),
        "instructions": [name for name in (*_TELLING, *_TELLING_ARM) if name in flags],
        "caches": cache_sizes(),
        "cores": cores(),
        "threads": threads,
        "load": load(),
    }


def load() -> float | None:
    """Processes that ran or waited during the last minute; None where the system does not say."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def _cpuinfo(name: str) -> str:
    """The first value of a name in /proc/cpuinfo; empty where there is none."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(name):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return ""
