"""Runs a kernel on the threads that torch's operators run on: a second pool would fight the first.

torch's workers spin for a while after each operator; other threads would have to share the processors
with them. So the kernel's address goes to ``GOMP_parallel`` of the OpenMP library that torch has loaded. In a
forked child, where the pool is dead (`forks`), a thread of our own calls it, and has a new pool.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from gatewise.engine.cpu.forks import orphan

_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_OPENERS: dict[
    int, ThreadPoolExecutor
] = {}  # process -> the thread that opens regions after a fork
_OPENING = threading.Lock()


@cache
def _openmp() -> Any:
    """torch's libgomp, its functions known to the kernels; None where torch has another one."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        lines = []
    paths = {line.split()[-1] for line in lines if "libgomp" in line}
    for path in sorted(paths):
        try:
            library = ctypes.CDLL(path)
            library.GOMP_parallel.argtypes = (
                ctypes.c_void_p,
                ctypes.c_void_p,
                ctypes.c_uint,
                ctypes.c_uint,
            )
            library.GOMP_parallel.restype = None
        except (OSError, AttributeError):
            continue
        return library
    return None


_INSTEAD = {  # where torch has no libgomp: this is the one thread
    "omp_get_thread_num": ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 0),
    "omp_get_num_threads": ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 1),
}


@cache
def publish() -> None:
    """Tell the compiler where the functions are that kernels call."""
    library = _openmp()
    for name, instead in _INSTEAD.items():
        found = instead if library is None else getattr(library, name)
        llvm.add_symbol(name, ctypes.cast(found, ctypes.c_void_p).value)
    process = ctypes.CDLL(None)
    for name in ("sched_yield", "logf", "log"):
        llvm.add_symbol(name, ctypes.cast(getattr(process, name), ctypes.c_void_p).value)


def limit() -> str | None:
    """Why kernels run on one thread whatever torch.set_num_threads says, or None."""
    return "one thread: torch has no libgomp here" if _openmp() is None else None


def run(address: int, arguments: Sequence[int], threads: int) -> None:
    """Call the kernel at `address` on as many threads of torch's pool, or fewer."""
    data = (ctypes.c_int64 * len(arguments))(*arguments)
    call(address, ctypes.addressof(data), threads)


def call(address: int, data: int, threads: int) -> None:
    """The same, with the address of arguments that lie in memory already."""
    library = _openmp()
    threads = min(threads, _processors())
    if library is None or threads < 2:
        _KERNEL(address)(data)
    elif orphan():
        # what the kernel does is the same: it sees its own region only
        opener = _opener()
        opener.submit(library.GOMP_parallel, address, data, threads, 0).result()
    else:
        library.GOMP_parallel(address, data, threads, 0)


def _processors() -> int:
    """Those that this thread may run on: between two steps the threads wait for each other."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _opener() -> ThreadPoolExecutor:
    with _OPENING:
        here = os.getpid()
        if here not in _OPENERS:
            _OPENERS.clear()  # a parent's, whose thread is not here
            _OPENERS[here] = ThreadPoolExecutor(1, thread_name_prefix="gatewise")
        return _OPENERS[here]
