"""What this machine can do at most: multiply-adds, matrix products and reading, measured now.

Knows the probes and torch's products; no cell. A ceiling is the best of several turns, since nothing that
disturbs a measurement makes it faster; the median stands beside it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from gatewise.bench.timing import spread

DTYPES = ("float64", "float32", "bfloat16", "int8")
_TURNS, _SECONDS = 7, 0.01  # of each measurement
_SIZE = (
    1024  # of the matrices: large enough for every core, three of float32 fit in a cache of 16 MiB
)
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_USUAL = {"L1": 32 << 10, "L2": 512 << 10, "L3": 16 << 20}  # where the system does not say
_MOST = 256 << 20  # bytes to measure the memory with


@dataclass(frozen=True)
class Ceiling:
    """One limit of this machine.

    Args:
        what: "instructions", "matmul" or "reading".
        name: a dtype, or a level of the memory.
        threads: that took part.
        best, median: operations or bytes a second.
        size: bytes read over and over; 0 for arithmetic.
    """

    what: str
    name: str
    threads: int
    best: float
    median: float
    size: int = 0


@dataclass(frozen=True)
class Ceilings:
    """Every limit measured, and why others were not."""

    found: tuple[Ceiling, ...]
    missing: tuple[tuple[str, str], ...] = ()

    def arithmetic(self, dtype: str, threads: int) -> float | None:
        """Operations a second: the better of instructions and torch's matmul; None: not measured."""
        return max((c.best for c in self._of(dtype, threads) if c.what != "reading"), default=None)

    def reading(self, level: str, threads: int) -> float | None:
        """Bytes a second from one level of the memory."""
        return max((c.best for c in self._of(level, threads) if c.what == "reading"), default=None)

    def _of(self, name: str, threads: int) -> list[Ceiling]:
        return [c for c in self.found if c.name == name and c.threads == threads]


def measure(threads: Sequence[int], tell: Callable[[str], None] = lambda _: None) -> Ceilings:
    """Measure every limit with each number of threads.

    Args:
        threads: numbers of them, as `(1, 2)`.
        tell: called with what is measured next.
    """
    found: list[Ceiling] = []
    missing: list[tuple[str, str]] = []
    for dtype in DTYPES:
        tell(f"the machine: {dtype}")
        for count in threads:
            for measured in (instructions(dtype, count), matmul(dtype, count)):
                if isinstance(measured, Ceiling):
                    found.append(measured)
                elif measured not in missing:
                    missing.append(measured)
    tell("the machine: reading")
    if why := _no_probes():
        return Ceilings(tuple(found), (*missing, ("reading", why)))
    for level, size in levels(max(threads)).items():
        found += [reading(size(count), count, level) for count in threads]
    return Ceilings(tuple(found), tuple(missing))


def instructions(dtype: str, threads: int) -> Ceiling | tuple[str, str]:
    """Multiply-adds on registers alone: no kernel can do more."""
    what = f"instructions {dtype}"
    if why := _no_probes():
        return what, why
    from gatewise.bench.probes import arithmetic

    loop = arithmetic(dtype)
    if isinstance(loop, str):
        return what, loop
    rates = _rates(lambda n: loop.run(1000 * n, threads))
    return Ceiling("instructions", dtype, threads, *rates)


def matmul(dtype: str, threads: int) -> Ceiling | tuple[str, str]:
    """torch's product of two square matrices."""
    if dtype == "int8":
        return f"matmul {dtype}", "torch has no public one"
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        a, b = (torch.randn(_SIZE, _SIZE).to(getattr(torch, dtype)) for _ in range(2))
        out = torch.empty_like(a)

        def run(times: int) -> int:
            for _ in range(times):
                torch.mm(a, b, out=out)
            return times * 2 * _SIZE**3

        rates = _rates(run)
    finally:
        torch.set_num_threads(before)
    return Ceiling("matmul", dtype, threads, *rates)


def reading(size: int, threads: int, level: str = "") -> Ceiling:
    """Bytes a second, of `size` bytes read over and over, each thread its part."""
    from gatewise.bench.probes import Reader

    reader = Reader(size, threads)
    rates = _rates(reader.run)
    return Ceiling("reading", level, threads, *rates, reader.size)


def _no_probes() -> str:
    """Why the probes cannot run here; empty: they can."""
    return "" if find_spec("llvmlite") else "llvmlite is not installed"


def _rates(
    run: Callable[[int], int], clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float]:
    """Best and median rate of what `run(times)` says that it did."""
    run(1)
    times = 1
    while True:  # a call alone takes microseconds: only a long one says how long the work takes
        start = clock()
        run(times)
        if clock() - start >= _SECONDS / 2:
            break
        times *= 2
    rates = []
    for _ in range(_TURNS):
        start = clock()
        done = run(times)
        rates.append(done / (clock() - start))
    return max(rates), spread(rates).median


def levels(threads: int) -> dict[str, Callable[[int], int]]:
    """Level -> bytes to read there, by the number of threads: what fits into it and not into the one before."""
    sizes = cache_sizes()
    l1, l2, l3 = sizes["L1"], sizes["L2"], sizes["L3"]
    third = max(l3 // 2, min(2 * l2 * threads, l3 * 3 // 4))
    return {
        "L1": lambda count: l1 // 2 * count,
        "L2": lambda count: l2 // 2 * count,
        "L3": lambda count: third,
        "DRAM": lambda count: min(max(4 * l3, 64 << 20), _MOST),
    }


def level_of(size: int, threads: int) -> str:
    """The smallest level that holds `size` bytes, each thread's part in its own caches."""
    sizes = cache_sizes()
    for level, own in (("L1", threads), ("L2", threads), ("L3", 1)):
        if size <= sizes[level] * own:
            return level
    return "DRAM"


def cache_sizes(folder: Path = _CACHES) -> dict[str, int]:
    """Bytes of the data caches of the first core, as the system says or as they usually are."""
    found = dict(_USUAL)
    for index in sorted(folder.glob("index*")) if folder.is_dir() else []:
        try:
            level, kind, size = (
                (index / name).read_text(encoding="ascii").strip()
                for name in ("level", "type", "size")
            )
        except OSError:
            continue
        number = re.fullmatch(r"(\d+)([KMG]?)", size)
        if kind != "Instruction" and f"L{level}" in found and number:
            unit = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[number[2]]
            found[f"L{level}"] = int(number[1]) * unit
    return found
