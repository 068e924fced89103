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
    }


class Others:
    """How busy other programs keep this machine, from when this is made."""

    def __init__(self) -> None:
        self._begun = _busy_seconds()

    def share(self) -> float | None:
        """Of the cores' time, what went to others (or was taken by a host); None: the system does not say."""
        begun, now = self._begun, _busy_seconds()
        if begun is None or now is None or now[1] <= begun[1]:
            return None
        others = (now[0] - begun[0]) - (now[2] - begun[2])
        return max(0.0, others / (now[1] - begun[1]))


def _busy_seconds() -> tuple[float, float, float] | None:
    """Seconds that all cores were busy, that they were there, and that this process took."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
    except OSError:
        return None
    ticks = [int(word) for word in first]  # user, nice, system, idle, iowait, irq, softirq, steal
    each = os.sysconf("SC_CLK_TCK")
    own = os.times()
    idle = ticks[3] + ticks[4]
    return (sum(ticks) - idle) / each, sum(ticks) / each, own.user + own.system


def _cpuinfo(name: str) -> str:
    """The first value of a name in /proc/cpuinfo; empty where there is none."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(name):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return ""
